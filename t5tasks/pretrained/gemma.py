# SPDX-License-Identifier: Apache-2.0
"""Gemma 1, 2 and 3 (text) folders: config.json in, `ModelConfig` values out; the tables.

Llama's maps with norms that multiply by 1 + weight and embeddings times sqrt(D)
(arxiv.org/abs/2403.08295). Gemma 2 adds a norm after each sublayer, caps, and windows in every
other layer (arxiv.org/abs/2408.00118); Gemma 3 has norms of queries and keys in place of the caps,
windows in five of six layers, and for these rotary positions of their own (arxiv.org/abs/2503.19786).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from t5tasks.pretrained import fields, llama, rotary
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import norm

GEMMA: Foreign = {
    "vocab_size": 256000, "hidden_size": 3072, "intermediate_size": 24576, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 16, "head_dim": 256, "max_position_embeddings": 8192,
    "tie_word_embeddings": True, "hidden_act": "gelu_pytorch_tanh",
}
GEMMA2: Foreign = {
    **GEMMA, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8,
    "num_key_value_heads": 4,
}
GEMMA3: Foreign = {**GEMMA2, "vocab_size": 262208, "max_position_embeddings": 131072}
ROTARY = ("rope_theta", "rope_scaling", "rope_parameters")


def config(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """ModelConfig values of a Gemma 1 config.json, the head's left out; `names` tells nothing here.

    Raises:
      ValueError: a field that changes the result and that we do not honour.
    """
    # Its first releases say "gelu" and mean the tanh form; later ones say it in either field.
    named = fields.ACTIVATIONS | {"gelu": "gelu_tanh"}
    activation = fields.choice(foreign, "hidden_act", "gelu_pytorch_tanh", named)
    other = fields.choice(foreign, "hidden_activation", "gelu_pytorch_tanh", fields.ACTIVATIONS)
    if foreign.get("hidden_activation") is not None and other != activation:
        raise ValueError(f"config.json: hidden_activation is {foreign['hidden_activation']!r}, but hidden_act is "
                         f"{foreign.get('hidden_act')!r}; leave one of the two out")
    return _shared(foreign, GEMMA) | {"activation": activation}


def config2(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """As `config`, of Gemma 2."""
    values = _sandwich(foreign, GEMMA2)
    window = llama.sliding(foreign, values["decoder_layers"], lambda layer: layer % 2 == 0, 4096)
    return values | window | {"attention_cap": _cap(foreign, "attn_logit_softcapping", 50.0),
                              "logit_cap": _cap(foreign, "final_logit_softcapping", 30.0)}


def config3(foreign: Foreign, names: tuple[str, ...] | None = None) -> dict[str, Any]:
    """As `config`, of Gemma 3's text models."""
    fields.only(foreign, "attn_logit_softcapping")  # the reference passes it over
    values = _sandwich({name: value for name, value in foreign.items() if name not in ROTARY}, GEMMA3)
    pattern = fields.integer(foreign, "sliding_window_pattern", 6)
    window = llama.sliding(foreign, values["decoder_layers"], lambda layer: (layer + 1) % pattern != 0, 4096)
    return values | window | _rotary(foreign, values["max_length"]) | {
        "query_key_norm": "head", "logit_cap": _cap(foreign, "final_logit_softcapping", None)}


def _shared(foreign: Foreign, defaults: Foreign) -> dict[str, Any]:
    """What all three read alike."""
    fields.only(foreign, "attention_bias", False)
    fields.only(foreign, "use_bidirectional_attention", False)
    return llama.whole_heads(foreign, defaults) | {"unit_offset": True, "scaled_embedding": True}


def _sandwich(foreign: Foreign, defaults: Foreign) -> dict[str, Any]:
    """What Gemma 2 and 3 read alike; their activation stands in a field of its own."""
    return _shared({name: value for name, value in foreign.items() if name != "hidden_act"}, defaults) | {
        "activation": fields.choice(foreign, "hidden_activation", "gelu_pytorch_tanh", fields.ACTIVATIONS),
        "norm_placement": "sandwich",
        "query_scale": float(fields.integer(foreign, "query_pre_attn_scalar", 256)),
    }


def _cap(foreign: Foreign, name: str, default: float | None) -> float:
    """A positive number, or 0 for the null that stands for none."""
    if foreign.get(name, default) is None:
        return 0.0
    cap = fields.number(foreign, name, default or 0.0)
    if not cap:
        raise ValueError(f"config.json: {name} is {cap}; expected a positive number, or null for none")
    return cap


def _rotary(foreign: Foreign, length: int) -> dict[str, Any]:
    """The rotary_* values of Gemma 3, which has two of everything but scaling."""
    scaling, given = foreign.get("rope_scaling") or {}, foreign.get("rope_parameters") or {}
    if not isinstance(given, Mapping) or set(given) - set(llama.LAYER_TYPES):
        raise ValueError(f"config.json: rope_parameters is {given!r}; expected an object with "
                         f"{' and '.join(llama.LAYER_TYPES)}")
    if scaling and (given or not isinstance(scaling, Mapping) or "rope_type" not in scaling):
        raise ValueError(f"config.json: rope_scaling is {scaling!r}; expected an object with a rope_type, and that "
                         "only without rope_parameters")
    whole = rotary.settings({"rope_parameters": scaling or given.get("full_attention"),
                             "rope_theta": foreign.get("rope_theta"), "max_position_embeddings": length}, 1e6)
    near = rotary.settings({"rope_parameters": given.get("sliding_attention"),
                            "rope_theta": foreign.get("rope_local_base_freq")}, 1e4)
    for values in (whole, near):
        llama.check_whole(values)
    if "rotary_scaling" in near:
        raise ValueError(f"config.json: rope_parameters asks for rope_type {near['rotary_scaling']!r} in "
                         "sliding_attention, which is not supported; this family loads with 'default' there")
    return whole | {"local_rotary_base": near["rotary_base"]}


_SANDWICH = (
    *norm(f"{llama.LAYER}.input_layernorm", f"{llama.OURS}/attention_norm"),
    *norm(f"{llama.LAYER}.post_attention_layernorm", f"{llama.OURS}/attention_output_norm"),
    *norm(f"{llama.LAYER}.pre_feedforward_layernorm", f"{llama.OURS}/feed_forward_norm"),
    *norm(f"{llama.LAYER}.post_feedforward_layernorm", f"{llama.OURS}/feed_forward_output_norm"),
)
_MAPS = llama.FRAME + llama.ATTENTION + llama.FEED_FORWARD

FAMILIES = (
    llama.family("Gemma", "gemma", config, _MAPS + llama.NORMS),
    llama.family("Gemma2", "gemma2", config2, _MAPS + _SANDWICH),
    dataclasses.replace(llama.family("Gemma3", "gemma3_text", config3, _MAPS + _SANDWICH + llama.HEAD_NORMS),
                        heads={"Gemma3ForCausalLM": "lm", "Gemma3TextModel": "none"}),
)
