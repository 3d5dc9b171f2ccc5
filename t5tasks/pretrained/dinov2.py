# SPDX-License-Identifier: Apache-2.0
"""DINOv2 (arxiv.org/abs/2304.07193) folders: config.json in, `ModelConfig` values out; the table.

With the classification head, or bare; small to giant (gated), without registers.
"""

from typing import Any

from t5tasks.pretrained import fields, towers, vit
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table, linear, norm


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a DINOv2 config.json, the head's left out; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(foreign, "qkv_bias", True)
    gated = fields.flag(foreign, "use_swiglu_ffn", False)
    width = fields.integer(foreign, "hidden_size", 768)
    feed_forward = int(width * fields.number(foreign, "mlp_ratio", 4))
    if gated:
        # Three maps for two: two thirds of the size, in whole eights.
        feed_forward = (int(feed_forward * 2 / 3) + 7) // 8 * 8
    values = towers.shape(foreign, {"layer_norm_eps": 1e-6}) | {"feed_forward": feed_forward, "gated": gated}
    if gated:
        values["activation"] = "silu"
    return values | {"layer_scale": True} | towers.images(foreign, 224, 14, class_token=True)


_THEIRS, _OURS = "dinov2.encoder.layer.{layer}", "encoder/layer_{layer}"


def _both(kind: str, transform: str) -> Row:
    parts = tuple(f"{_OURS}/feed_forward/{part}/{'kernel' if kind == 'weight' else 'bias'}" for part in ("gate", "up"))
    return Row(f"{_THEIRS}.mlp.weights_in.{kind}", parts, transform)


FAMILY = Family(
    model_types=("dinov2",),
    heads={"Dinov2Model": "none", "Dinov2ForImageClassification": "cls"},
    supported={"none": {}, "cls": {"pooling": "first_and_patches"}, "pooled": {}},
    config=config,
    table=Table(
        prefix="dinov2.",
        ignored=(r"(dinov2\.)?embeddings\.mask_token",),  # stands for hidden patches in pretraining
        rows=(
            *vit.embeddings("dinov2.embeddings"),
            *norm(f"{_THEIRS}.norm1", f"{_OURS}/attention_norm"),
            *vit.attention(_THEIRS, _OURS),
            Row(f"{_THEIRS}.layer_scale1.lambda1", f"{_OURS}/attention_scale"),
            *norm(f"{_THEIRS}.norm2", f"{_OURS}/feed_forward_norm"),
            *linear(f"{_THEIRS}.mlp.fc1", f"{_OURS}/feed_forward/up"),
            *linear(f"{_THEIRS}.mlp.fc2", f"{_OURS}/feed_forward/down"),
            _both("weight", "transpose"),
            _both("bias", "same"),
            *linear(f"{_THEIRS}.mlp.weights_out", f"{_OURS}/feed_forward/down"),
            Row(f"{_THEIRS}.layer_scale2.lambda1", f"{_OURS}/feed_forward_scale"),
            *norm("dinov2.layernorm", "encoder/final_norm"),
            *linear("classifier", "head/classifier"),
        ),
    ),
)
