# SPDX-License-Identifier: Apache-2.0
"""OLMo 2 (arxiv.org/abs/2501.00656) folders: config.json in, `ModelConfig` values out; the table.

Llama with norms on what attention and feed-forward give out, and on all queries and all keys of a
token at once.
"""

from typing import Any

from t5tasks.pretrained import fields, llama
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import norm

DEFAULTS: Foreign = {"vocab_size": 50304, "rms_norm_eps": 1e-5}


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of an OLMo 2 config.json, the head's left out; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(foreign, "attention_bias", False)
    fields.only(foreign, "clip_qkv")
    return llama.whole_heads(foreign, DEFAULTS) | {"norm_placement": "output", "query_key_norm": "width"}


FAMILY = llama.family("Olmo2", "olmo2", config, (
    *llama.FRAME,
    *llama.ATTENTION,
    *llama.HEAD_NORMS,
    *norm(f"{llama.LAYER}.post_attention_layernorm", f"{llama.OURS}/attention_norm"),
    *llama.FEED_FORWARD,
    *norm(f"{llama.LAYER}.post_feedforward_layernorm", f"{llama.OURS}/feed_forward_norm"),
))
