# SPDX-License-Identifier: Apache-2.0
"""Llama (arxiv.org/abs/2302.13971) folders: config.json in, `ModelConfig` values out; the table."""

from typing import Any

from t5tasks.pretrained import fields, rotary
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Config, Family, Row, Table, linear, norm


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a Llama config.json, the head's left out; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(foreign, "attention_bias", False)
    fields.only(foreign, "mlp_bias", False)
    return shape(foreign)


def shape(foreign: Foreign, base: float = 10_000.0) -> dict[str, Any]:
    """What Llama and its descendants read from the same fields.

    Args:
      base: the family's default of rope_theta.
    """
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
        **rotary.settings(foreign, base),
        "activation": fields.choice(foreign, "hidden_act", "silu", fields.ACTIVATIONS),
        "gated": True,
        "tied_head": fields.flag(foreign, "tie_word_embeddings", False),
        "dropout": 0.0,  # its attention_dropout falls on attention weights, where we have none
        "initializer_range": fields.number(foreign, "initializer_range", 0.02),
    }


LAYER, OURS = "model.layers.{layer}", "decoder/layer_{layer}"

# The linear maps of a layer, and what stands before the first and after the last: the same names in
# every family that descends from Llama.
ATTENTION = (
    *linear(f"{LAYER}.self_attn.q_proj", f"{OURS}/attention/query"),
    *linear(f"{LAYER}.self_attn.k_proj", f"{OURS}/attention/key"),
    *linear(f"{LAYER}.self_attn.v_proj", f"{OURS}/attention/value"),
    *linear(f"{LAYER}.self_attn.o_proj", f"{OURS}/attention/out", inputs=2),
)
FEED_FORWARD = (
    *linear(f"{LAYER}.mlp.gate_proj", f"{OURS}/feed_forward/gate"),
    *linear(f"{LAYER}.mlp.up_proj", f"{OURS}/feed_forward/up"),
    *linear(f"{LAYER}.mlp.down_proj", f"{OURS}/feed_forward/down"),
)
NORMS = (
    *norm(f"{LAYER}.input_layernorm", f"{OURS}/attention_norm"),
    *norm(f"{LAYER}.post_attention_layernorm", f"{OURS}/feed_forward_norm"),
)
FRAME = (
    Row("model.embed_tokens.weight", "embedding"),
    *norm("model.norm", "decoder/final_norm"),
    Row("lm_head.weight", "head/words/kernel", "transpose"),
    Row("lm_head.weight", "embedding", tied=True),
)


def family(name: str, model_type: str, config: Config, rows: tuple[Row, ...]) -> Family:
    """A family whose classes are NAMEForCausalLM and NAMEModel and whose tensors begin with `model.`."""
    return Family(
        model_types=(model_type,),
        heads={f"{name}ForCausalLM": "lm", f"{name}Model": "none"},
        supported={"lm": {}, "none": {}},
        config=config,
        table=Table(prefix="model.", rows=rows, ignored=(
            r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"score\.weight")),
    )


FAMILY = family("Llama", "llama", config, FRAME + NORMS + ATTENTION + FEED_FORWARD)
