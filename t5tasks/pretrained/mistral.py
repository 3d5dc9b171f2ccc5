# SPDX-License-Identifier: Apache-2.0
"""Mistral (arxiv.org/abs/2310.06825) folders: config.json in, `ModelConfig` values out; Llama's table."""

from typing import Any

from t5tasks.pretrained import fields, llama
from t5tasks.pretrained.fields import Foreign

DEFAULTS: Foreign = {"intermediate_size": 14336, "num_key_value_heads": 8, "max_position_embeddings": 131072}


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a Mistral config.json, the head's left out; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    # The reference runs all layers alike, whatever is said here.
    fields.only(foreign, "layer_types")
    values = llama.whole_heads(foreign, DEFAULTS)
    slides = foreign.get("sliding_window", 4096) is not None
    return values | llama.sliding(foreign, values["decoder_layers"], lambda layer: slides, 4096)


FAMILY = llama.family("Mistral", "mistral", config, llama.FRAME + llama.NORMS + llama.ATTENTION + llama.FEED_FORWARD)
