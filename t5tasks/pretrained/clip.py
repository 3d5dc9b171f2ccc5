# SPDX-License-Identifier: Apache-2.0
"""CLIP (arxiv.org/abs/2103.00020) folders: config.json in, `ModelConfig` values out; the tables.

Whole (head `match`: how each image fits each text), or one encoder of it: bare, projected (head
`pooled`) or, of images, with the classification head.
"""

from typing import Any

from t5tasks.models.config import Vision, from_mapping
from t5tasks.pretrained import fields, towers
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table, linear

COMMON = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5}
TEXT = COMMON | {"hidden_size": 512, "num_attention_heads": 8, "intermediate_size": 2048, "vocab_size": 49408,
                 "max_position_embeddings": 77, "projection_dim": 512, "eos_token_id": 49407}
IMAGE = COMMON | {"intermediate_size": 3072, "projection_dim": 512}
# Where a text ends: files from before 2023 say 2 and mean the largest id.
LARGEST = 2


def whole(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a CLIP config.json; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    size = {"projection": fields.integer(foreign, "projection_dim", 512)}
    image = image_shape(towers.part(foreign, "vision_config")) | size | {"head": "pooled"}
    return text(towers.part(foreign, "text_config")) | size | {"vision": Vision(from_mapping(image))}


def text(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a CLIP text encoder's config.json, the head's left out."""
    foreign = fields.filled(foreign, TEXT)
    end = fields.integer(foreign, "eos_token_id", 0, least=0)
    return towers.text_shape(foreign, TEXT, causal=True) | {
        "pooling": "largest" if end == LARGEST else "end",
        "end_token": end,
        "projection": fields.integer(foreign, "projection_dim", 512),
    }


def image_shape(foreign: Foreign) -> dict[str, Any]:
    """ModelConfig values of a CLIP image encoder's own fields."""
    foreign = fields.filled(foreign, IMAGE)
    return towers.shape(foreign, IMAGE) | {
        "embedding_norm": True,
        "projection": fields.integer(foreign, "projection_dim", 512),
    } | towers.images(foreign, 224, 32, class_token=True, biases=False)


def image(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of the image encoder of a folder, also of a whole CLIP's; the head's left out."""
    if foreign.get("model_type") != "clip":
        return image_shape(foreign)
    size = {"projection": fields.integer(foreign, "projection_dim", 512)}
    return image_shape(towers.part(foreign, "vision_config")) | size


FAMILIES = (
    Family(
        model_types=("clip",),
        heads={"CLIPModel": "match"},
        supported={"match": {}},
        config=whole,
        table=Table(ignored=towers.BUFFERS, rows=(
            *towers.text("decoder"),
            *towers.beside_text(towers.VISION),
            Row("text_projection.weight", "head/projection/kernel", "transpose"),
            Row("visual_projection.weight", "vision/head/projection/kernel", "transpose"),
            Row("logit_scale", "head/match_scale"),
        )),
    ),
    Family(
        model_types=("clip", "clip_vision_model"),
        heads={"CLIPVisionModel": "none", "CLIPVisionModelWithProjection": "pooled",
               "CLIPForImageClassification": "cls"},
        # Only what is projected passes the last norm.
        supported={"none": {"final_norm": False}, "pooled": {}, "cls": {"final_norm": False, "pooling": "patches"}},
        config=image,
        table=Table(
            prefix="vision_model.",
            ignored=(*towers.BUFFERS, r"(vision_model\.)?post_layernorm\..*", r"text_model\..*",
                     r"text_projection\.weight", r"logit_scale"),
            rows=(*towers.VISION, Row("visual_projection.weight", "head/projection/kernel", "transpose"),
                  *linear("classifier", "head/classifier")),
        ),
    ),
    Family(
        model_types=("clip_text_model",),
        heads={"CLIPTextModel": "none", "CLIPTextModelWithProjection": "pooled"},
        supported={"none": {}, "pooled": {}},
        config=text,
        table=Table(
            prefix="text_model.",
            ignored=towers.BUFFERS,
            rows=(*towers.text("decoder"), Row("text_projection.weight", "head/projection/kernel", "transpose")),
        ),
    ),
)
