# SPDX-License-Identifier: Apache-2.0
"""ViT (arxiv.org/abs/2010.11929) folders: config.json in, `ModelConfig` values out; the table.

With the classification head, with the pooler (head `pooled`), or bare.
"""

from typing import Any

from t5tasks.pretrained import fields, towers
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table, linear, norm


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a ViT config.json, the head's left out; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(foreign, "qkv_bias", True)
    fields.only(foreign, "pooler_act", "tanh")
    values = towers.shape(foreign, {"layer_norm_eps": 1e-12})
    fields.only(foreign, "pooler_output_size", values["width"])
    return values | towers.images(foreign, 224, 16, class_token=True)


def attention(theirs: str, ours: str) -> tuple[Row, ...]:
    """The rows of a layer's attention, under the names that ViT's descendants share."""
    return (
        *linear(f"{theirs}.attention.attention.query", f"{ours}/attention/query"),
        *linear(f"{theirs}.attention.attention.key", f"{ours}/attention/key"),
        *linear(f"{theirs}.attention.attention.value", f"{ours}/attention/value"),
        *linear(f"{theirs}.attention.output.dense", f"{ours}/attention/out", inputs=2),
    )


def embeddings(theirs: str) -> tuple[Row, ...]:
    """The rows of what stands before the first layer, under the names that they share."""
    return (
        Row(f"{theirs}.cls_token", "patches/class_token"),
        Row(f"{theirs}.patch_embeddings.projection.weight", "patches/kernel", "convolution"),
        Row(f"{theirs}.patch_embeddings.projection.bias", "patches/bias"),
        Row(f"{theirs}.position_embeddings", "patches/positions"),
    )


_THEIRS, _OURS = "vit.encoder.layer.{layer}", "encoder/layer_{layer}"

FAMILY = Family(
    model_types=("vit",),
    heads={"ViTModel": "none", "ViTForImageClassification": "cls"},
    supported={"none": {}, "cls": {}, "pooled": {"pooler": "tanh"}},
    config=config,
    table=Table(
        prefix="vit.",
        # What stands for hidden patches in pretraining, and what paints them.
        ignored=(r"(vit\.)?embeddings\.mask_token", r"decoder\.0\.(weight|bias)"),
        rows=(
            *embeddings("vit.embeddings"),
            *norm(f"{_THEIRS}.layernorm_before", f"{_OURS}/attention_norm"),
            *attention(_THEIRS, _OURS),
            *norm(f"{_THEIRS}.layernorm_after", f"{_OURS}/feed_forward_norm"),
            *linear(f"{_THEIRS}.intermediate.dense", f"{_OURS}/feed_forward/up"),
            *linear(f"{_THEIRS}.output.dense", f"{_OURS}/feed_forward/down"),
            *norm("vit.layernorm", "encoder/final_norm"),
            *linear("vit.pooler.dense", "head/pooler"),
            *linear("classifier", "head/classifier"),
        ),
    ),
)
