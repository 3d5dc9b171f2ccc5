# SPDX-License-Identifier: Apache-2.0
"""GPT-2 (Radford et al., 2019) folders: config.json in, `ModelConfig` values out; the table.

Weights are [inputs, outputs] here, other than in every other family, and one map makes queries,
keys and values.
"""

from collections.abc import Iterator
from typing import Any

from t5tasks.pretrained import fields
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table, norm

ALIASES = {"hidden_size": "n_embd", "num_attention_heads": "n_head", "num_hidden_layers": "n_layer",
           "max_position_embeddings": "n_positions"}


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a GPT-2 config.json, the head's left out; `names` tells nothing here.

    The embeddings' own dropout rate, which changes training only, is not kept apart.
    reorder_and_upcast_attn asks for a softmax in f32, which ours always is.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    fields.only(foreign, "scale_attn_by_inverse_layer_idx", False)
    fields.only(foreign, "add_cross_attention", False)
    fields.only(foreign, "pruned_heads", {}, [])
    foreign = fields.unaliased(foreign, ALIASES)
    width, heads = fields.integer(foreign, "n_embd", 768), fields.integer(foreign, "n_head", 12)
    if width % heads:
        raise ValueError(f"config.json: n_embd is {width}, not a multiple of n_head {heads}")
    return {
        "architecture": "decoder",
        "vocabulary": fields.integer(foreign, "vocab_size", 50257),
        "max_length": fields.integer(foreign, "n_positions", 1024),
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "head_size": width // heads,
        "feed_forward": fields.integer(foreign, "n_inner", 4 * width),
        "encoder_layers": 0,
        "decoder_layers": fields.integer(foreign, "n_layer", 12),
        "norm": "layernorm",
        "norm_placement": "pre",
        "norm_epsilon": fields.number(foreign, "layer_norm_epsilon", 1e-5),
        "biases": True,
        "positions": "learned",
        "scaled_attention": fields.flag(foreign, "scale_attn_weights", True),
        "activation": fields.choice(foreign, "activation_function", "gelu_new", fields.ACTIVATIONS),
        "gated": False,
        "tied_head": fields.flag(foreign, "tie_word_embeddings", True),
        "dropout": fields.number(foreign, "resid_pdrop", 0.1),
        "attention_dropout": fields.number(foreign, "attn_pdrop", 0.1),
        "initializer_range": fields.number(foreign, "initializer_range", 0.02),
    }


_THEIRS, _OURS = "transformer.h.{layer}", "decoder/layer_{layer}"


def _linear(foreign: str, *ours: str, inputs: int = 1) -> Iterator[Row]:
    """The rows of a linear map whose weight is [inputs, outputs], and its outputs one or more of ours."""
    for kind, name, transform in (("weight", "kernel", "flat"), ("bias", "bias", "same")):
        yield Row(f"{_THEIRS}.{foreign}.{kind}", tuple(f"{_OURS}/{path}/{name}" for path in ours), transform, inputs)


FAMILY = Family(
    model_types=("gpt2",),
    heads={"GPT2LMHeadModel": "lm", "GPT2Model": "none"},
    supported={"lm": {}, "none": {}},
    config=config,
    table=Table(
        prefix="transformer.",
        # The causal mask, which older folders keep among the weights, and heads that we do not have.
        ignored=(r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",
                 r"(score|classifier|qa_outputs|multiple_choice_head)\..*"),
        rows=(
            Row("transformer.wte.weight", "embedding"),
            Row("transformer.wpe.weight", "decoder/positions", "rows"),
            *norm(f"{_THEIRS}.ln_1", f"{_OURS}/attention_norm"),
            *_linear("attn.c_attn", "attention/query", "attention/key", "attention/value"),
            *_linear("attn.c_proj", "attention/out", inputs=2),
            *norm(f"{_THEIRS}.ln_2", f"{_OURS}/feed_forward_norm"),
            *_linear("mlp.c_fc", "feed_forward/up"),
            *_linear("mlp.c_proj", "feed_forward/down"),
            *norm("transformer.ln_f", "decoder/final_norm"),
            Row("lm_head.weight", "head/words/kernel", "transpose"),
            Row("lm_head.weight", "embedding", tied=True),
        ),
    ),
)
