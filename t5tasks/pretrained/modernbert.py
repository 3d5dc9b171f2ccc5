# SPDX-License-Identifier: Apache-2.0
"""ModernBERT (arxiv.org/abs/2412.13663) folders: config.json in, `ModelConfig` values out; the table.

Folders of the hub write `global_attn_every_n_layers`, `global_rope_theta` and `local_rope_theta`,
those of transformers 5 `layer_types` and `rope_parameters`; both are read.
"""

from collections.abc import Mapping
from typing import Any

from t5tasks.pretrained import fields, rotary
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family, Row, Table, linear, norm

BIASES = ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias")
# The kinds of layers: whether the layer slides.
LAYERS = {"full_attention": False, "sliding_attention": True}
NO_SCALING: tuple[dict[str, str], ...] = ({}, {"rope_type": "default"}, {"type": "default"})


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a ModernBERT config.json; `names` tells nothing here.

    The embeddings' and the classifier's own dropout rates, which change training only, are not kept
    apart from `mlp_dropout`.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    width = fields.integer(foreign, "hidden_size", 768)
    heads = fields.integer(foreign, "num_attention_heads", 12)
    if width % heads:
        raise ValueError(f"config.json: hidden_size is {width}, not a multiple of "
                         f"num_attention_heads {heads}")
    fields.only(foreign, "head_dim", width // heads)
    reach = fields.integer(foreign, "local_attention", 128) // 2
    fields.only(foreign, "sliding_window", reach)
    layers = fields.integer(foreign, "num_hidden_layers", 22)
    return {
        "architecture": "encoder",
        "vocabulary": fields.integer(foreign, "vocab_size", 50368),
        "max_length": fields.integer(foreign, "max_position_embeddings", 8192),
        "width": width,
        "heads": heads,
        "kv_heads": heads,
        "head_size": width // heads,
        "feed_forward": fields.integer(foreign, "intermediate_size", 1152),
        "encoder_layers": layers,
        "decoder_layers": 0,
        "norm": "layernorm",
        "norm_placement": "pre",
        "norm_epsilon": fields.number(foreign, "norm_eps", 1e-5),
        "embedding_norm": True,
        "first_norm": False,
        "biases": _biases(foreign),
        "positions": "rotary",
        **_rotary(foreign),
        "window": reach + 1,  # they count the places on one side, we the token itself too
        "sliding_layers": _sliding_layers(foreign, layers),
        "activation": _activation(foreign),
        "gated": True,
        "head_transform": True,
        "head_bias": fields.flag(foreign, "decoder_bias", True),
        "tied_head": fields.flag(foreign, "tie_word_embeddings", True),
        "pooling": fields.choice(foreign, "classifier_pooling", "cls", {"cls": "first", "mean": "mean"}),
        "dropout": fields.number(foreign, "mlp_dropout", 0.0),
        "attention_dropout": fields.number(foreign, "attention_dropout", 0.0),
        "initializer_range": fields.number(foreign, "initializer_range", 0.02),
    }


def _biases(foreign: Foreign) -> bool:
    given = {name: fields.flag(foreign, name, False) for name in BIASES}
    if len(set(given.values())) > 1:
        some = " and ".join(name for name, value in given.items() if value)
        raise ValueError(f"config.json: {some} is true, but not all of {', '.join(BIASES)}; this family loads "
                         "with all of them or none")
    return given["attention_bias"]


def _activation(foreign: Foreign) -> str:
    inside: str = fields.choice(foreign, "hidden_activation", "gelu", fields.ACTIVATIONS)
    if fields.choice(foreign, "classifier_activation", "gelu", fields.ACTIVATIONS) != inside:
        raise ValueError(f"config.json: classifier_activation is {foreign.get('classifier_activation', 'gelu')!r}, "
                         f"hidden_activation {foreign.get('hidden_activation', 'gelu')!r}; this family loads "
                         "where they are the same")
    return inside


def _sliding_layers(foreign: Foreign, layers: int) -> tuple[int, ...]:
    """The numbers of the layers with local attention; every third, from the first on, is global."""
    period = fields.integer(foreign, "global_attn_every_n_layers", 3)
    kinds = foreign.get("layer_types")
    if kinds is None:
        return tuple(layer for layer in range(layers) if layer % period)
    if not isinstance(kinds, list) or len(kinds) != layers or any(kind not in LAYERS for kind in kinds):
        raise ValueError(f"config.json: layer_types is {kinds!r}; expected one of {', '.join(LAYERS)} for each of "
                         f"{layers} layers")
    return tuple(layer for layer, kind in enumerate(kinds) if LAYERS[kind])


def _rotary(foreign: Foreign) -> dict[str, Any]:
    """The rotary values of both kinds of layers; those that slide cannot be stretched."""
    fields.only(foreign, "rope_scaling", *NO_SCALING)
    given = foreign.get("rope_parameters") or {}
    if not isinstance(given, Mapping) or any(kind not in LAYERS for kind in given):
        raise ValueError(f"config.json: rope_parameters is {given!r}; expected an object for each of "
                         f"{', '.join(LAYERS)}")
    length = foreign.get("max_position_embeddings", 8192)
    found = {}
    for kind, name, base in (("full_attention", "global_rope_theta", 160_000.0),
                             ("sliding_attention", "local_rope_theta", 10_000.0)):
        if name in foreign and foreign[name] is None:
            raise ValueError(f"config.json: {name} is null, which is not supported; write the number")
        found[kind] = rotary.settings({"rope_parameters": given.get(kind), "max_position_embeddings": length},
                                      fields.number(foreign, name, base))
        if found[kind]["rotary_fraction"] != 1:
            raise ValueError("config.json: partial_rotary_factor of rope_parameters is "
                             f"{found[kind]['rotary_fraction']}; this family loads with 1")
    local = found["sliding_attention"]
    if "rotary_scaling" in local:
        raise ValueError(f"config.json: rope_parameters asks for rope_type {local['rotary_scaling']!r} in "
                         "sliding_attention layers; they load with 'default'")
    return found["full_attention"] | {"local_rotary_base": local["rotary_base"]}


_THEIRS, _OURS = "model.layers.{layer}", "encoder/layer_{layer}"
_ATTENTION = tuple(f"{_OURS}/attention/{name}" for name in ("query", "key", "value"))

FAMILY = Family(
    model_types=("modernbert",),
    heads={
        "ModernBertModel": "none",
        "ModernBertForMaskedLM": "lm",
        "ModernBertForSequenceClassification": "cls",
        "ModernBertForTokenClassification": "token",
        "ModernBertForQuestionAnswering": "span",
    },
    supported={"none": {}, "lm": {}, "cls": {}, "token": {}, "span": {}},
    config=config,
    table=Table(
        prefix="model.",
        rows=(
            Row("model.embeddings.tok_embeddings.weight", "embedding"),
            *norm("model.embeddings.norm", "encoder/embedding_norm"),
            *norm(f"{_THEIRS}.attn_norm", f"{_OURS}/attention_norm"),
            Row(f"{_THEIRS}.attn.Wqkv.weight", tuple(f"{path}/kernel" for path in _ATTENTION), "transpose"),
            Row(f"{_THEIRS}.attn.Wqkv.bias", tuple(f"{path}/bias" for path in _ATTENTION)),
            *linear(f"{_THEIRS}.attn.Wo", f"{_OURS}/attention/out", inputs=2),
            *norm(f"{_THEIRS}.mlp_norm", f"{_OURS}/feed_forward_norm"),
            # The activation falls on the first half, which the reference does not call the gate.
            Row(f"{_THEIRS}.mlp.Wi.weight",
                (f"{_OURS}/feed_forward/gate/kernel", f"{_OURS}/feed_forward/up/kernel"), "transpose"),
            Row(f"{_THEIRS}.mlp.Wi.bias", (f"{_OURS}/feed_forward/gate/bias", f"{_OURS}/feed_forward/up/bias")),
            *linear(f"{_THEIRS}.mlp.Wo", f"{_OURS}/feed_forward/down"),
            *norm("model.final_norm", "encoder/final_norm"),
            *linear("head.dense", "head/transform"),
            *norm("head.norm", "head/transform_norm"),
            *linear("classifier", "head/classifier"),
            Row("decoder.bias", "head/bias"),
            Row("decoder.weight", "embedding", tied=True),
            Row("decoder.weight", "head/words/kernel", "transpose"),
        ),
    ),
)
