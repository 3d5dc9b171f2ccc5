# SPDX-License-Identifier: Apache-2.0
"""Qwen 2 and 2.5 (arxiv.org/abs/2407.10671) folders: config.json in, `ModelConfig` values out; Llama's table."""

from typing import Any

from t5tasks.pretrained import fields, llama
from t5tasks.pretrained.fields import Foreign

DEFAULTS: Foreign = {"vocab_size": 151936, "intermediate_size": 22016, "num_key_value_heads": 32,
                     "max_position_embeddings": 32768}


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a Qwen2 config.json, the head's left out; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    values = llama.whole_heads(foreign, DEFAULTS)
    return values | sliding(foreign, values["decoder_layers"]) | {"qkv_biases": True}


def sliding(foreign: Foreign, layers: int) -> dict[str, Any]:
    """The window: from layer max_window_layers on, or where layer_types says, if it is used at all."""
    used = fields.flag(foreign, "use_sliding_window", False)
    first = fields.integer(foreign, "max_window_layers", 28, least=0)
    bounded = used and foreign.get("sliding_window", 4096) is not None
    found = llama.sliding(foreign, layers, lambda layer: bounded and layer >= first, 4096)
    if found and not used:
        raise ValueError(f"config.json: use_sliding_window is false, but by layer_types layers "
                         f"{found['sliding_layers']} slide; change one of the two")
    return found


FAMILY = llama.family("Qwen2", "qwen2", config, llama.FRAME + llama.NORMS + llama.ATTENTION + llama.FEED_FORWARD)
