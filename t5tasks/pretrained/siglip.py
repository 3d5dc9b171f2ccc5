# SPDX-License-Identifier: Apache-2.0
"""SigLIP (arxiv.org/abs/2303.15343) folders: config.json in, `ModelConfig` values out; the tables.

Whole (head `match`: how each image fits each text), or one encoder of it: bare, pooled (head
`pooled`) or, of images, with the classification head. Texts end with padding, which is read: the
last place stands for the text.
"""

from typing import Any

from t5tasks.models.config import Vision, from_mapping
from t5tasks.pretrained import fields, towers
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table, linear, norm

COMMON = {"hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6, "intermediate_size": 3072}


def whole(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a SigLIP config.json; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(towers.part(foreign, "vision_config"), "vision_use_head", True)
    values = text(towers.part(foreign, "text_config"))
    tower = image_shape(towers.part(foreign, "vision_config")) | {"head": "pooled", "pooling": "attention"}
    if values["projection"] != tower["width"]:
        raise ValueError(f"config.json: projection_size of text_config is {values['projection']}; expected "
                         f"hidden_size of vision_config, {tower['width']}")
    return values | {"vision": Vision(from_mapping(tower))}


def text(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a SigLIP text encoder's config.json, the head's left out."""
    values = towers.text_shape(foreign, COMMON, causal=False)
    return values | {"pooling": "last", "head_bias": True,
                     "projection": fields.integer(foreign, "projection_size", values["width"])}


def image_shape(foreign: Foreign) -> dict[str, Any]:
    """ModelConfig values of a SigLIP image encoder's own fields."""
    return towers.shape(foreign, COMMON) | towers.images(foreign, 224, 16, class_token=False)


def image(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of the image encoder of a folder, also of a whole SigLIP's; the head's left out."""
    return image_shape(towers.part(foreign, "vision_config") if foreign.get("model_type") == "siglip" else foreign)


_HEAD, _POOLING = "vision_model.head", "head/pooling"
_QUERY_KEY_VALUE = tuple(f"{_POOLING}/attention/{part}" for part in ("query", "key", "value"))
POOLING = (
    Row(f"{_HEAD}.probe", f"{_POOLING}/probe"),
    Row(f"{_HEAD}.attention.in_proj_weight", tuple(f"{part}/kernel" for part in _QUERY_KEY_VALUE), "transpose"),
    Row(f"{_HEAD}.attention.in_proj_bias", tuple(f"{part}/bias" for part in _QUERY_KEY_VALUE)),
    *linear(f"{_HEAD}.attention.out_proj", f"{_POOLING}/attention/out", inputs=2),
    *norm(f"{_HEAD}.layernorm", f"{_POOLING}/feed_forward_norm"),
    *linear(f"{_HEAD}.mlp.fc1", f"{_POOLING}/feed_forward/up"),
    *linear(f"{_HEAD}.mlp.fc2", f"{_POOLING}/feed_forward/down"),
)

FAMILIES = (
    Family(
        model_types=("siglip",),
        heads={"SiglipModel": "match"},
        supported={"match": {}},
        config=whole,
        table=Table(ignored=towers.BUFFERS, rows=(
            *towers.text("encoder"),
            *linear("text_model.head", "head/projection"),
            *towers.beside_text(towers.VISION + POOLING),
            Row("logit_scale", "head/match_scale"),
            Row("logit_bias", "head/match_bias"),
        )),
    ),
    Family(
        model_types=("siglip", "siglip_vision_model"),
        heads={"SiglipVisionModel": "none", "SiglipForImageClassification": "cls"},
        supported={"none": {}, "pooled": {"pooling": "attention"}, "cls": {"pooling": "mean"}},
        config=image,
        table=Table(
            prefix="vision_model.",
            ignored=(*towers.BUFFERS, r"text_model\..*", r"logit_(scale|bias)"),
            rows=(*towers.VISION, *POOLING, *linear("classifier", "head/classifier")),
        ),
    ),
    Family(
        model_types=("siglip_text_model",),
        heads={"SiglipTextModel": "none"},
        supported={"none": {}, "pooled": {}},
        config=text,
        table=Table(
            prefix="text_model.",
            ignored=towers.BUFFERS,
            rows=(*towers.text("encoder"), *linear("text_model.head", "head/projection")),
        ),
    ),
)
