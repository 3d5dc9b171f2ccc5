# SPDX-License-Identifier: Apache-2.0
"""Marian (arxiv.org/abs/1804.00344) folders: config.json in, `ModelConfig` values out; the table.

The translation models of OPUS-MT: BART's layers with sinusoidal positions and no norm of the embeddings.
"""

from typing import Any

from t5tasks.pretrained import bart, fields
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Table


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a Marian config.json, the head's left out; `names` tells nothing here.

    The decoder begins with the padding token (decoder_start_token_id), whose embedding is trained
    or zero like any other; which words must not be generated is left to decoding.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(foreign, "share_encoder_decoder_embeddings", True)
    fields.only(foreign, "normalize_before", False)
    fields.only(foreign, "add_final_layer_norm", False)
    fields.only(foreign, "normalize_embedding", False)
    fields.only(foreign, "static_position_embeddings", True)
    values = bart.shared_values(foreign, 58101, 58100)
    fields.only(foreign, "decoder_vocab_size", values["vocabulary"])
    return values | {"norm_placement": "post", "final_norm": False, "positions": "sinusoidal"}


FAMILY = Family(
    model_types=("marian",),
    heads={"MarianMTModel": "lm", "MarianModel": "none"},
    supported={"lm": {"head_bias": True}, "none": {}},
    config=config,
    table=Table(
        prefix="model.",
        # Tables of the sinusoids, which are computed here.
        ignored=(r"(model\.)?(encoder|decoder)\.embed_positions\.weight",),
        rows=tuple(bart.shared_rows()),
    ),
)
