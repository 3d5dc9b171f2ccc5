# SPDX-License-Identifier: Apache-2.0
"""Phi-3 (arxiv.org/abs/2404.14219) folders, Phi-4 too: config.json in, `ModelConfig` values out; the table.

Llama with fused projections. The models for 128 thousand tokens, whose rotary frequencies change
where a text outgrows the original length (LongRoPE, arxiv.org/abs/2402.13753), are refused.
"""

from typing import Any

from t5tasks.pretrained import fields, llama
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Row, linear

DEFAULTS: Foreign = {"vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192,
                     "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a Phi-3 config.json, the head's left out; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(foreign, "attention_bias", False)
    fields.only(foreign, "layer_types")  # the reference runs all layers alike, whatever is said here
    _refuse_stretched(foreign)
    values = llama.shape(foreign, DEFAULTS)
    values["dropout"] = fields.number(foreign, "resid_pdrop", 0.0)
    slides = foreign.get("sliding_window") is not None
    return values | llama.sliding(foreign, values["decoder_layers"], lambda layer: slides, None)


def _refuse_stretched(foreign: Foreign) -> None:
    """The reference has LongRoPE alone, and takes "yarn" and "su" for names of it."""
    for name in ("rope_scaling", "rope_parameters"):
        given = foreign.get(name) or {}
        kind = given.get("rope_type", given.get("type", "default")) if isinstance(given, dict) else "default"
        if kind != "default":
            raise ValueError(f"config.json: {name} asks for rope_type {kind!r}, which is not supported for Phi-3; "
                             "take a model without it (Phi-3-mini-4k, Phi-3-medium-4k, Phi-4)")


_PROJECTIONS = tuple(f"{llama.OURS}/attention/{name}/kernel" for name in ("query", "key", "value"))
_GATED = tuple(f"{llama.OURS}/feed_forward/{name}/kernel" for name in ("gate", "up"))

FAMILY = llama.family("Phi3", "phi3", config, (
    *llama.FRAME,
    *llama.NORMS,
    Row(f"{llama.LAYER}.self_attn.qkv_proj.weight", _PROJECTIONS, "transpose"),
    *linear(f"{llama.LAYER}.self_attn.o_proj", f"{llama.OURS}/attention/out", inputs=2),
    Row(f"{llama.LAYER}.mlp.gate_up_proj.weight", _GATED, "transpose"),
    *linear(f"{llama.LAYER}.mlp.down_proj", f"{llama.OURS}/feed_forward/down"),
))
