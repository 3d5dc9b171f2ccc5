# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of LLaVA and PaliGemma go out."""

import numpy as np
import torch
import transformers
from case import VOCABULARY, Case
from images import VISION as LARGER
from images import pixels

VISION = LARGER | {"image_size": 10}  # four patches
TEXT = dict(vocab_size=VOCABULARY, hidden_size=18, num_attention_heads=6, num_key_value_heads=2, head_dim=10,
            intermediate_size=29, num_hidden_layers=2, max_position_embeddings=32, pad_token_id=0)
LENGTH = 15
IMAGES, WORDS, ANSWERS = (2, 0, 1), (5, 6, 7), (2, 3, 0)  # of each text


def batch(model, generator, left):
    """Three texts with two images, none and one among their words, the first of them inside one text."""
    config = model.config
    size = VISION["image_size"]
    each = model.model.get_image_features(torch.zeros(1, 3, size, size)).pooler_output[0].shape[0]
    ids, mask, kinds = (np.zeros((3, LENGTH), np.int64) for _ in range(3))
    known = np.setdiff1d(np.arange(1, VOCABULARY), [config.image_token_id])
    for row, (images, words, answers) in enumerate(zip(IMAGES, WORDS, ANSWERS, strict=True)):
        text = generator.choice(known, words)
        image = [config.image_token_id] * each
        text = np.concatenate([text[:1], image * (images > 0), text[1:3], image * (images > 1), text[3:]])
        places = slice(LENGTH - len(text), LENGTH) if left else slice(0, len(text))
        ids[row, places], mask[row, places] = text, 1
        kinds[row, places] = np.arange(len(text)) >= len(text) - answers
    found = {"input_ids": ids, "attention_mask": mask,
             "pixel_values": pixels(generator, sum(IMAGES), size, size)}
    return found | ({"token_type_ids": kinds} if config.model_type == "paligemma" else {})


def spread(model):
    """Gemma's norms multiply by 1 + weight: weights around 0, as they begin."""
    for name, parameter in model.model.language_model.named_parameters():
        if "norm" in name:
            parameter.uniform_(-0.6, 0.6)


def llava(text, vision=None, **more):
    vision = vision or transformers.CLIPVisionConfig(**VISION | {"num_hidden_layers": 3})
    return transformers.LlavaConfig(vision_config=vision, text_config=text, **{"image_token_index": 150} | more)


def paligemma(text, **more):
    vision = transformers.SiglipVisionConfig(**VISION, vision_use_head=False)
    return transformers.PaliGemmaConfig(vision_config=vision, text_config=text, projection_dim=18, hidden_size=18,
                                        **{"image_token_index": 150} | more)


LLAVA, PALIGEMMA = transformers.LlavaForConditionalGeneration, transformers.PaliGemmaForConditionalGeneration
CASES = {
    "llava": Case(LLAVA, llava(transformers.LlamaConfig(**TEXT)), batch=batch, half=True),
    "llava_full": Case(LLAVA, llava(
        transformers.LlamaConfig(**TEXT, tie_word_embeddings=True), vision_feature_select_strategy="full",
        vision_feature_layer=-1, projector_hidden_act="relu", multimodal_projector_bias=False), batch=batch,
        half=True),
    "llava_siglip": Case(LLAVA, llava(
        transformers.Qwen2Config(**TEXT), transformers.SiglipVisionConfig(**VISION), vision_feature_layer=1,
        vision_feature_select_strategy="full", image_token_index=VOCABULARY - 1), batch=batch, half=True),
    "paligemma": Case(PALIGEMMA, paligemma(transformers.GemmaConfig(**TEXT), image_token_index=VOCABULARY + 5),
                      batch=batch, half=True, adjust=spread),
    "paligemma2": Case(PALIGEMMA, paligemma(transformers.Gemma2Config(
        **TEXT, sliding_window=4, query_pre_attn_scalar=7, attn_logit_softcapping=2.5)), batch=batch, half=True,
        adjust=spread),
}
