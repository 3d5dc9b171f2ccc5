# SPDX-License-Identifier: Apache-2.0
"""Qwen 3 (arxiv.org/abs/2505.09388) folders: config.json in, `ModelConfig` values out; the table."""

from typing import Any

from t5tasks.pretrained import fields, llama, qwen2
from t5tasks.pretrained.fields import Foreign


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a Qwen3 config.json, the head's left out; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(foreign, "attention_bias", False)
    values = llama.whole_heads(foreign, {**qwen2.DEFAULTS, "head_dim": 128})
    return values | qwen2.sliding(foreign, values["decoder_layers"]) | {"query_key_norm": "head"}


FAMILY = llama.family("Qwen3", "qwen3", config, (
    *llama.FRAME, *llama.NORMS, *llama.ATTENTION, *llama.HEAD_NORMS, *llama.FEED_FORWARD))
