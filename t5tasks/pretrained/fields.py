# SPDX-License-Identifier: Apache-2.0
"""Fields of a foreign config.json in, checked values out; null counts as absent, as it does there."""

from collections.abc import Mapping
from typing import Any

Foreign = Mapping[str, Any]

# The reference's names for activations, with the form each really computes.
ACTIVATIONS = {
    "gelu": "gelu", "gelu_python": "gelu", "relu": "relu", "silu": "silu", "swish": "silu",
    "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh", "gelu_fast": "gelu_tanh",
}


def activation(ours: str) -> str:
    """The reference's first name for one of our activations."""
    for theirs, kind in ACTIVATIONS.items():
        if kind == ours:
            return theirs
    raise ValueError(f"activation {ours!r} has no name there; expected one of {', '.join({*ACTIVATIONS.values()})}")


def integer(foreign: Foreign, name: str, default: int, least: int = 1) -> int:
    """A whole number from `least` up."""
    value = _value(foreign, name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"config.json: {name} is {value!r}; expected a whole number from {least} up")
    return value


def number(foreign: Foreign, name: str, default: float) -> float:
    """A number that is not negative."""
    value = _value(foreign, name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ValueError(f"config.json: {name} is {value!r}; expected a number from 0 up")
    return float(value)


def flag(foreign: Foreign, name: str, default: bool) -> bool:
    """true or false."""
    value = _value(foreign, name, default)
    if not isinstance(value, bool):
        raise ValueError(f"config.json: {name} is {value!r}; expected true or false")
    return value


def choice(foreign: Foreign, name: str, default: str, choices: Mapping[str, Any]) -> Any:
    """What the choices say of the field's text."""
    value = _value(foreign, name, default)
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"config.json: {name} is {value!r}, which is not supported; expected one of "
                         f"{', '.join(choices)}")
    return choices[value]


def only(foreign: Foreign, name: str, *supported: Any) -> None:
    """Raises ValueError where the field is given and is none of the supported values."""
    value = foreign.get(name)
    if value is not None and value not in supported:
        wanted = " or ".join(repr(value) for value in supported) or "nothing"
        raise ValueError(f"config.json: {name} is {value!r}, which is not supported yet; this family "
                         f"loads with {wanted}")


def filled(foreign: Foreign, defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The fields, and a family's own defaults of those that are absent."""
    return {**defaults, **{name: value for name, value in foreign.items() if value is not None}}


def unaliased(foreign: Foreign, aliases: Mapping[str, str]) -> dict[str, Any]:
    """The fields, with those that the reference also takes under an alias (alias → name) under their names.

    Raises:
      ValueError: both are given and differ.
    """
    for alias, name in aliases.items():
        if foreign.get(name) is not None:
            only(foreign, alias, foreign[name])
    return filled(foreign, {name: foreign.get(alias) for alias, name in aliases.items()})


def class_count(foreign: Foreign) -> int:
    """How many classes the file's head tells apart; id2label decides, as in the reference."""
    labels = foreign.get("id2label")
    if labels is not None and (not isinstance(labels, Mapping) or not labels):
        raise ValueError(f"config.json: id2label is {labels!r}; expected an object of labels")
    return len(labels) if labels else integer(foreign, "num_labels", 2)


def _value(foreign: Foreign, name: str, default: Any) -> Any:
    value = foreign.get(name)
    return default if value is None else value


def start_token(foreign: Foreign, default: int = -1) -> int:
    """The id that a decoder beside an encoder begins with; -1 where it is for the tokenizer to say."""
    return integer(foreign, "decoder_start_token_id", default, least=-1)
