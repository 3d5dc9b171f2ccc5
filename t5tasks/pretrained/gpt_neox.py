# SPDX-License-Identifier: Apache-2.0
"""GPT-NeoX (arxiv.org/abs/2204.06745) folders, Pythia too: config.json in, `ModelConfig` values out; the table."""

from typing import Any

from t5tasks.pretrained import fields, rotary
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table, linear, norm


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a GPT-NeoX config.json, the head's left out; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(foreign, "attention_bias", True)
    width = fields.integer(foreign, "hidden_size", 6144)
    heads = fields.integer(foreign, "num_attention_heads", 64)
    if width % heads:
        raise ValueError(f"config.json: hidden_size is {width}, not a multiple of num_attention_heads {heads}")
    return {
        "architecture": "decoder",
        "vocabulary": fields.integer(foreign, "vocab_size", 50432),
        "max_length": fields.integer(foreign, "max_position_embeddings", 2048),
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "head_size": width // heads,
        "feed_forward": fields.integer(foreign, "intermediate_size", 24576),
        "encoder_layers": 0,
        "decoder_layers": fields.integer(foreign, "num_hidden_layers", 44),
        "norm": "layernorm",
        "norm_placement": "pre",
        "norm_epsilon": fields.number(foreign, "layer_norm_eps", 1e-5),
        "parallel": fields.flag(foreign, "use_parallel_residual", True),
        "biases": True,
        "positions": "rotary",
        **_rotary(foreign),
        "activation": fields.choice(foreign, "hidden_act", "gelu", fields.ACTIVATIONS),
        "gated": False,
        "tied_head": fields.flag(foreign, "tie_word_embeddings", False),
        "dropout": fields.number(foreign, "hidden_dropout", 0.0),
        "attention_dropout": fields.number(foreign, "attention_dropout", 0.0),
        "initializer_range": fields.number(foreign, "initializer_range", 0.02),
    }


def _rotary(foreign: Foreign) -> dict[str, Any]:
    """Folders of the hub have names of their own; the common ones beside them must say the same."""
    base = fields.number(foreign, "rotary_emb_base", 10_000.0)
    fraction = fields.number(foreign, "rotary_pct", 0.25)
    fields.only(foreign, "rope_theta", base)
    fields.only(foreign, "partial_rotary_factor", fraction)
    return rotary.settings(foreign, base, fraction)


_THEIRS, _OURS = "gpt_neox.layers.{layer}", "decoder/layer_{layer}"
_PROJECTIONS = [f"{_OURS}/attention/{name}" for name in ("query", "key", "value")]

FAMILY = Family(
    model_types=("gpt_neox",),
    heads={"GPTNeoXForCausalLM": "lm", "GPTNeoXModel": "none"},
    supported={"lm": {}, "none": {}},
    config=config,
    table=Table(
        prefix="gpt_neox.",
        # Masks and frequencies, which older folders keep among the weights, and heads that we do not have.
        ignored=(r"(gpt_neox\.)?layers\.\d+\.attention\.((masked_)?bias|rotary_emb\.inv_freq)",
                 r"(score|classifier|qa_outputs)\..*"),
        rows=(
            Row("gpt_neox.embed_in.weight", "embedding"),
            *norm(f"{_THEIRS}.input_layernorm", f"{_OURS}/attention_norm"),
            Row(f"{_THEIRS}.attention.query_key_value.weight",
                tuple(f"{path}/kernel" for path in _PROJECTIONS), "transpose", interleaved=True),
            Row(f"{_THEIRS}.attention.query_key_value.bias",
                tuple(f"{path}/bias" for path in _PROJECTIONS), interleaved=True),
            *linear(f"{_THEIRS}.attention.dense", f"{_OURS}/attention/out", inputs=2),
            *norm(f"{_THEIRS}.post_attention_layernorm", f"{_OURS}/feed_forward_norm"),
            *linear(f"{_THEIRS}.mlp.dense_h_to_4h", f"{_OURS}/feed_forward/up"),
            *linear(f"{_THEIRS}.mlp.dense_4h_to_h", f"{_OURS}/feed_forward/down"),
            *norm("gpt_neox.final_layer_norm", "decoder/final_norm"),
            # transformers 5 has a new name for the head, and writes the old one.
            Row("embed_out.weight", "head/words/kernel", "transpose"),
            Row("lm_head.weight", "head/words/kernel", "transpose"),
            Row("embed_out.weight", "embedding", tied=True),
            Row("lm_head.weight", "embedding", tied=True),
        ),
    ),
)
