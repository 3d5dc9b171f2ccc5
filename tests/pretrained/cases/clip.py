# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of CLIP go out."""

import transformers
from case import VOCABULARY, Case
from images import VISION, image_batch, sharpen, texts_and_images

TEXT = dict(vocab_size=VOCABULARY, hidden_size=18, num_attention_heads=3, intermediate_size=29, num_hidden_layers=3,
            max_position_embeddings=13, pad_token_id=1, bos_token_id=0)
END = 117  # not the largest id


def text_batch(model, generator, left):
    """Texts that end with END, or with the largest id where the file says 2."""
    ends = VOCABULARY - 1 if model.config.eos_token_id == 2 else END
    model_with_text = transformers.CLIPConfig(text_config=model.config.to_dict())
    batch = texts_and_images(ends)(type("Whole", (), {"config": model_with_text}), generator, left)
    del batch["pixel_values"]
    return batch


CASES = {
    "clip_whole": Case(transformers.CLIPModel, transformers.CLIPConfig(
        text_config=TEXT | {"eos_token_id": END}, vision_config=VISION, projection_dim=14),
        batch=texts_and_images(END), adjust=sharpen, half=True),
    "clip_largest": Case(transformers.CLIPModel, transformers.CLIPConfig(
        text_config=TEXT | {"eos_token_id": 2, "hidden_act": "gelu"}, vision_config=VISION, projection_dim=14),
        batch=texts_and_images(VOCABULARY - 1), adjust=sharpen, half=True),
    "clip_image_bare": Case(transformers.CLIPVisionModel, transformers.CLIPVisionConfig(**VISION),
                            batch=image_batch),
    "clip_image_projected": Case(transformers.CLIPVisionModelWithProjection, transformers.CLIPVisionConfig(
        **VISION, projection_dim=14), batch=image_batch),
    "clip_image_cls": Case(transformers.CLIPForImageClassification, transformers.CLIPConfig(
        text_config=TEXT, vision_config=VISION, num_labels=5), batch=lambda model, generator, left: image_batch(
            model.vision_model, generator, left)),
    "clip_text_bare": Case(transformers.CLIPTextModel, transformers.CLIPTextConfig(**TEXT, eos_token_id=END),
                           batch=text_batch),
    "clip_text_projected": Case(transformers.CLIPTextModelWithProjection, transformers.CLIPTextConfig(
        **TEXT, eos_token_id=2, projection_dim=14), batch=text_batch),
}
