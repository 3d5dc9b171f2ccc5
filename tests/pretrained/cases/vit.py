# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of ViT go out."""

import transformers
from case import Case
from images import VISION, image_batch

CASES = {
    "vit_bare": Case(transformers.ViTModel, transformers.ViTConfig(**VISION), batch=image_batch),
    "vit_cls": Case(transformers.ViTForImageClassification, transformers.ViTConfig(
        **VISION, num_labels=5, num_channels=1, hidden_act="gelu_new", layer_norm_eps=1e-6,
        head_dim=10), batch=image_batch,
        half=True),
}
