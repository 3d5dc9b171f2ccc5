# SPDX-License-Identifier: Apache-2.0
"""PaliGemma 1 and 2 (arxiv.org/abs/2407.07726, arxiv.org/abs/2412.03555) folders: config.json in,
`ModelConfig` values out; the table.

A SigLIP image encoder, one linear map, and Gemma 1 or 2. Text embeddings are multiplied by
sqrt(D), images' features are not. Positions begin at 1 there; rotary ones tell distances only, so
that here they may begin at 0.
"""

from typing import Any

from t5tasks.models.config import Vision, from_mapping
from t5tasks.pretrained import fields, gemma, llava, siglip, towers
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Table, linear

TEXTS = {"gemma": gemma.config, "gemma2": gemma.config2}
# Of a file without these parts; one that has them leaves out Gemma's and SigLIP's own defaults.
TEXT: Foreign = {"hidden_size": 2048, "num_hidden_layers": 18, "intermediate_size": 16384, "num_attention_heads": 8,
                 "num_key_value_heads": 1, "vocab_size": 257152}
TOWER: Foreign = {"intermediate_size": 4096, "hidden_size": 1152, "patch_size": 14, "image_size": 224,
                  "num_hidden_layers": 27, "num_attention_heads": 16}


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a PaliGemma config.json, the head's left out.

    Args:
      names: of the folder's tensors, None where they are not known.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    foreign = fields.unaliased(foreign, {"image_token_id": "image_token_index"})
    own = towers.part(foreign, "text_config") or dict(TEXT)
    own.pop("use_bidirectional_attention", None)  # the reference's masks here are made without it
    values = llava.text({"text_config": own}, "gemma", TEXTS)
    if fields.integer(foreign, "projection_dim", 2048) != values["width"]:
        raise ValueError(f"config.json: projection_dim is {foreign.get('projection_dim', 2048)}; expected hidden_size "
                         f"of text_config, {values['width']}")
    tower = towers.part(foreign, "vision_config") or dict(TOWER)
    fields.only(tower, "model_type", "siglip_vision_model")
    tower = siglip.image_shape(tower)
    llava.check_depth(names, tower["encoder_layers"])
    return values | {
        "tied_head": fields.flag(foreign, "tie_word_embeddings", True),
        "vision": Vision(from_mapping(tower | {"head": "none"}), projector="linear", prefix=True,
                         image_token=fields.integer(foreign, "image_token_index", 256000, least=0)),
    }


# Gemma 2's rows come first: where its parameters are not wanted, Gemma 1's take the same names.
_GEMMA, _GEMMA2 = (family.table.rows for family in gemma.FAMILIES[:2])

FAMILY = Family(
    model_types=("paligemma",),
    heads={"PaliGemmaForConditionalGeneration": "lm"},
    supported={"lm": {}},
    config=config,
    table=Table(
        renames=llava.RENAMES,
        ignored=llava.IGNORED,
        rows=llava.rows(_GEMMA2 + _GEMMA, linear("multi_modal_projector.linear", "projector/map_0")),
    ),
)
