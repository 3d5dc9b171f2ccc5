# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of SigLIP go out."""

import transformers
from case import VOCABULARY, Case
from images import VISION, image_batch, sharpen, texts_and_images

TEXT = dict(vocab_size=VOCABULARY, hidden_size=18, num_attention_heads=3, intermediate_size=29, num_hidden_layers=3,
            max_position_embeddings=13, pad_token_id=1, bos_token_id=0, eos_token_id=1)

CASES = {
    "siglip_whole": Case(transformers.SiglipModel, transformers.SiglipConfig(
        text_config=TEXT | {"projection_size": 24}, vision_config=VISION), batch=texts_and_images(None),
        adjust=sharpen, half=True),
    "siglip_image_bare": Case(transformers.SiglipVisionModel, transformers.SiglipVisionConfig(
        **VISION, vision_use_head=False), batch=image_batch),
    "siglip_image_cls": Case(transformers.SiglipForImageClassification, transformers.SiglipConfig(
        text_config=TEXT, vision_config=VISION, num_labels=5), batch=lambda model, generator, left: image_batch(
            model.vision_model, generator, left)),
    "siglip_text_bare": Case(transformers.SiglipTextModel, transformers.SiglipTextConfig(**TEXT)),
}
