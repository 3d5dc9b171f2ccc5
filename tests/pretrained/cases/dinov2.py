# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; the cases of DINOv2 go out."""

import transformers
from case import Case
from images import VISION, image_batch, tall_image_batch

SIZES = {name: value for name, value in VISION.items() if name != "intermediate_size"} | {"mlp_ratio": 2}

CASES = {
    "dinov2_bare": Case(transformers.Dinov2Model, transformers.Dinov2Config(**SIZES), batch=image_batch),
    "dinov2_resized": Case(transformers.Dinov2Model, transformers.Dinov2Config(**SIZES, hidden_act="relu"),
                           batch=tall_image_batch),
    "dinov2_cls": Case(transformers.Dinov2ForImageClassification, transformers.Dinov2Config(**SIZES, num_labels=5),
                       batch=image_batch),
    "dinov2_gated": Case(transformers.Dinov2Model, transformers.Dinov2Config(
        **SIZES | {"mlp_ratio": 3}, use_swiglu_ffn=True, use_mask_token=False), batch=image_batch),
}
