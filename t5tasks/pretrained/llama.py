# SPDX-License-Identifier: Apache-2.0
"""Llama (arxiv.org/abs/2302.13971) folders: config.json in, `ModelConfig` values out; the table."""

from collections.abc import Mapping
from typing import Any

from t5tasks.pretrained import fields
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a Llama config.json, the head's left out; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(foreign, "attention_bias", False)
    fields.only(foreign, "mlp_bias", False)
    width = fields.integer(foreign, "hidden_size", 4096)
    heads = fields.integer(foreign, "num_attention_heads", 32)
    return {
        "architecture": "decoder",
        "vocabulary": fields.integer(foreign, "vocab_size", 32000),
        "max_length": fields.integer(foreign, "max_position_embeddings", 2048),
        "width": width,
        "heads": heads,
        "kv_heads": fields.integer(foreign, "num_key_value_heads", heads),
        "head_size": fields.integer(foreign, "head_dim", width // heads),
        "feed_forward": fields.integer(foreign, "intermediate_size", 11008),
        "encoder_layers": 0,
        "decoder_layers": fields.integer(foreign, "num_hidden_layers", 32),
        "norm": "rmsnorm",
        "norm_placement": "pre",
        "norm_epsilon": fields.number(foreign, "rms_norm_eps", 1e-6),
        "positions": "rotary",
        "rotary_base": _rotary_base(foreign),
        "activation": fields.choice(foreign, "hidden_act", "silu", fields.ACTIVATIONS),
        "gated": True,
        "tied_head": fields.flag(foreign, "tie_word_embeddings", False),
        "dropout": 0.0,  # its attention_dropout falls on attention weights, where we have none
        "initializer_range": fields.number(foreign, "initializer_range", 0.02),
    }


def _rotary_base(foreign: Foreign) -> float:
    """RoPE's base: in `rope_parameters` (newer folders) or `rope_theta`, unscaled in both."""
    base = fields.number(foreign, "rope_theta", 10_000.0)
    for name in ("rope_scaling", "rope_parameters"):
        scaling = foreign.get(name) or {}
        if not isinstance(scaling, Mapping):
            raise ValueError(f"config.json: {name} is {scaling!r}; expected an object")
        kind = scaling.get("rope_type", scaling.get("type", "default"))
        if kind != "default":
            raise ValueError(f"config.json: {name} asks for rope_type {kind!r}, which is not supported "
                             "yet; this family loads with 'default'")
        fields.only(scaling, "partial_rotary_factor", 1, 1.0)
        base = fields.number(scaling, "rope_theta", base)
    fields.only(foreign, "partial_rotary_factor", 1, 1.0)
    if base <= 0:
        raise ValueError(f"config.json: rope_theta is {base}; it must be positive")
    return base


_THEIRS, _OURS = "model.layers.{layer}", "decoder/layer_{layer}"

FAMILY = Family(
    model_types=("llama",),
    heads={"LlamaForCausalLM": "lm", "LlamaModel": "none"},
    supported=("lm", "none"),
    config=config,
    table=Table(
        prefix="model.",
        ignored=(r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"score\.weight"),
        rows=(
            Row("model.embed_tokens.weight", "embedding"),
            Row(f"{_THEIRS}.input_layernorm.weight", f"{_OURS}/attention_norm/scale"),
            Row(f"{_THEIRS}.self_attn.q_proj.weight", f"{_OURS}/attention/query/kernel", "transpose"),
            Row(f"{_THEIRS}.self_attn.k_proj.weight", f"{_OURS}/attention/key/kernel", "transpose"),
            Row(f"{_THEIRS}.self_attn.v_proj.weight", f"{_OURS}/attention/value/kernel", "transpose"),
            Row(f"{_THEIRS}.self_attn.o_proj.weight", f"{_OURS}/attention/out/kernel", "transpose", 2),
            Row(f"{_THEIRS}.post_attention_layernorm.weight", f"{_OURS}/feed_forward_norm/scale"),
            Row(f"{_THEIRS}.mlp.gate_proj.weight", f"{_OURS}/feed_forward/gate/kernel", "transpose"),
            Row(f"{_THEIRS}.mlp.up_proj.weight", f"{_OURS}/feed_forward/up/kernel", "transpose"),
            Row(f"{_THEIRS}.mlp.down_proj.weight", f"{_OURS}/feed_forward/down/kernel", "transpose"),
            Row("model.norm.weight", "decoder/final_norm/scale"),
            Row("lm_head.weight", "head/words/kernel", "transpose"),
            Row("lm_head.weight", "embedding", tied=True),
        ),
    ),
)
