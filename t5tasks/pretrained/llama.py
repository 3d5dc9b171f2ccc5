# SPDX-License-Identifier: Apache-2.0
"""Llama (arxiv.org/abs/2302.13971) folders: config.json in, `ModelConfig` values out; the table."""

from collections.abc import Callable, Mapping
from typing import Any

from t5tasks.models.config import ModelConfig
from t5tasks.pretrained import fields, rotary
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Config, Family, Row, Table, linear, norm

DEFAULTS: Foreign = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "hidden_act": "silu", "max_position_embeddings": 2048, "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
DERIVED = ("num_key_value_heads", "head_dim")  # null stands for what the other fields give
LAYER_TYPES = {"full_attention": False, "sliding_attention": True}


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a Llama config.json, the head's left out; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    attention, feed_forward = (fields.flag(foreign, name, False) for name in ("attention_bias", "mlp_bias"))
    if attention != feed_forward:
        raise ValueError(f"config.json: attention_bias is {attention} and mlp_bias {feed_forward}; this family loads "
                         "where both are true or both false")
    return whole_heads(foreign) | {"biases": attention}


def whole_heads(foreign: Foreign, defaults: Foreign | None = None) -> dict[str, Any]:
    """`shape`, for families whose every head is turned whole: the reference passes a part over."""
    values = shape(foreign, defaults)
    check_whole(values)
    return values


def check_whole(values: Mapping[str, Any]) -> None:
    """Raises ValueError where rotary values turn a part of each head only."""
    if values["rotary_fraction"] != 1:
        raise ValueError(f"config.json: partial_rotary_factor is {values['rotary_fraction']}, which is not supported; "
                         "this family loads with 1")


def shape(foreign: Foreign, defaults: Foreign | None = None) -> dict[str, Any]:
    """What Llama and its descendants read from the same fields.

    Args:
      defaults: of fields, where the family's own are not Llama's.
    """
    fields.only(foreign, "is_causal", True)
    own = {name: value for name, value in {**DEFAULTS, **(defaults or {})}.items()
           if name not in DERIVED or foreign.get(name, value) is not None}
    foreign = fields.filled(foreign, own)
    width, heads = (fields.integer(foreign, name, 0) for name in ("hidden_size", "num_attention_heads"))
    return {
        "architecture": "decoder",
        "vocabulary": fields.integer(foreign, "vocab_size", 0),
        "max_length": fields.integer(foreign, "max_position_embeddings", 0),
        "width": width,
        "heads": heads,
        "kv_heads": fields.integer(foreign, "num_key_value_heads", heads),
        "head_size": fields.integer(foreign, "head_dim", width // heads),
        "feed_forward": fields.integer(foreign, "intermediate_size", 0),
        "encoder_layers": 0,
        "decoder_layers": fields.integer(foreign, "num_hidden_layers", 0),
        "norm": "rmsnorm",
        "norm_placement": "pre",
        "norm_epsilon": fields.number(foreign, "rms_norm_eps", 0.0),
        "positions": "rotary",
        **rotary.settings(foreign),
        "activation": fields.choice(foreign, "hidden_act", "", fields.ACTIVATIONS),
        "gated": True,
        "tied_head": fields.flag(foreign, "tie_word_embeddings", False),
        "dropout": 0.0,
        "attention_dropout": fields.number(foreign, "attention_dropout", 0.0),
        "initializer_range": fields.number(foreign, "initializer_range", 0.02),
    }


def sliding(foreign: Foreign, layers: int, slides: Callable[[int], bool], default: int | None) -> dict[str, Any]:
    """The window of the layers that slide, and their numbers: those that layer_types names.

    Args:
      slides: which do where layer_types is absent.
      default: of sliding_window where it is absent; null stands for no window, as there.

    Raises:
      ValueError: layer_types of other kinds or of another number, or sliding layers without a window.
    """
    types = foreign.get("layer_types")
    if types is None:
        numbers = tuple(filter(slides, range(layers)))
    elif isinstance(types, list) and len(types) == layers and all(kind in tuple(LAYER_TYPES) for kind in types):
        numbers = tuple(layer for layer, kind in enumerate(types) if LAYER_TYPES[kind])
    else:
        raise ValueError(f"config.json: layer_types is {types!r}; expected for each of {layers} layers one of "
                         f"{', '.join(LAYER_TYPES)}")
    if not numbers:
        return {}
    window = foreign.get("sliding_window", default)
    if window is None:
        raise ValueError(f"config.json: sliding_window is null, but layers {numbers} slide; expected a positive "
                         "whole number")
    return {"window": fields.integer({"sliding_window": window}, "sliding_window", 1), "sliding_layers": numbers}


def written(config: ModelConfig) -> dict[str, Any]:
    """The fields of a config.json for a model that came from no folder."""
    return {
        "vocab_size": config.vocabulary, "max_position_embeddings": config.max_length, "hidden_size": config.width,
        "num_attention_heads": config.heads, "num_key_value_heads": config.kv_heads, "head_dim": config.head_size,
        "intermediate_size": config.feed_forward, "num_hidden_layers": config.decoder_layers,
        "rms_norm_eps": config.norm_epsilon, "rope_theta": config.rotary_base,
        "hidden_act": fields.activation(config.activation), "tie_word_embeddings": config.tied_head,
        "attention_bias": config.biases, "mlp_bias": config.biases,
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
HEAD_NORMS = (  # Qwen3, Gemma 3
    *norm(f"{LAYER}.self_attn.q_norm", f"{OURS}/attention/query_norm"),
    *norm(f"{LAYER}.self_attn.k_norm", f"{OURS}/attention/key_norm"),
)
FRAME = (
    Row("model.embed_tokens.weight", "embedding"),
    *norm("model.norm", "decoder/final_norm"),
    Row("lm_head.weight", "head/words/kernel", "transpose"),
    Row("lm_head.weight", "embedding", tied=True),
)


def family(name: str, model_type: str, config: Config, rows: tuple[Row, ...],
           written: Callable[[ModelConfig], dict[str, Any]] | None = None) -> Family:
    """A family whose classes are NAMEForCausalLM and NAMEModel and whose tensors begin with `model.`."""
    return Family(
        model_types=(model_type,),
        heads={f"{name}ForCausalLM": "lm", f"{name}Model": "none"},
        supported={"lm": {}, "none": {}},
        config=config,
        written=written,
        table=Table(prefix="model.", rows=rows, ignored=(
            r"(model\.)?(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq", r"score\.(weight|bias)")),
    )


FAMILY = family("Llama", "llama", config, FRAME + NORMS + ATTENTION + FEED_FORWARD, written)
