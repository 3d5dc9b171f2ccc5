# SPDX-License-Identifier: Apache-2.0
"""What a config.json says of rotary positions in, `ModelConfig` values out.

Folders of the hub write `rope_theta` and `rope_scaling`, those of transformers 5 one
`rope_parameters`; both are read, and each kind of scaling only with the fields it has.
"""

import math
from collections.abc import Mapping
from typing import Any

from t5tasks.pretrained import fields
from t5tasks.pretrained.fields import Foreign

# rope_type → the fields that it may carry, beside those that all have, and those that it must.
COMMON = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
KINDS = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {"factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim",
             "original_max_position_embeddings", "truncate"},
}
REQUIRED = ("factor", "low_freq_factor", "high_freq_factor")


def settings(foreign: Foreign, base: float = 10_000.0, fraction: float = 1.0) -> dict[str, Any]:
    """The rotary_* values of a config.json.

    Args:
      base, fraction: the family's defaults of rope_theta and partial_rotary_factor.

    Raises:
      ValueError: a kind of scaling that we do not have, a field of it that we do not honour, or two
        objects that say different things.
    """
    given = {name: foreign[name] for name in ("rope_scaling", "rope_parameters") if foreign.get(name)}
    # The reference reads the first of the two alone, and forgets a rope_theta in the other.
    values = [_settings(foreign, name, value, base, fraction) for name, value in given.items()]
    if len(values) == 2 and values[0] != values[1]:
        raise ValueError("config.json: rope_scaling and rope_parameters say different things of the same positions; "
                         "put all of it into rope_parameters and leave rope_scaling out")
    return values[0] if values else _settings(foreign, "rope_parameters", {}, base, fraction)


def _settings(foreign: Foreign, name: str, found: Any, base: float, fraction: float) -> dict[str, Any]:
    """The values by one object of the file, and the fields beside it."""
    kind = _kind(name, found)
    base = fields.number(found, "rope_theta", fields.number(foreign, "rope_theta", base))
    if base <= 0:
        raise ValueError(f"config.json: rope_theta is {base}; it must be positive")
    fraction = fields.number(found, "partial_rotary_factor", fields.number(foreign, "partial_rotary_factor", fraction))
    values: dict[str, Any] = {"rotary_base": base, "rotary_fraction": fraction}
    if kind == "default":
        return values
    length = fields.integer(foreign, "max_position_embeddings", 2048)
    # A length outside the object stands above one within.
    original = fields.integer(foreign, "original_max_position_embeddings",
                              fields.integer(found, "original_max_position_embeddings", length))
    factor = fields.number(found, "factor", length / original)  # may be null, for YaRN
    if factor < 1:
        raise ValueError(f"config.json: factor is {factor}; expected a number from 1 up")
    values |= {"rotary_scaling": kind, "rotary_factor": factor}
    if kind == "linear":
        return values
    own = _llama3(found) if kind == "llama3" else _yarn(found, base, factor)
    return values | {"rotary_original_length": original, **own}


def _kind(name: str, found: Any) -> str:
    """The object's rope_type, with its fields checked."""
    if not isinstance(found, Mapping):
        raise ValueError(f"config.json: {name} is {found!r}; expected an object")
    kind = found.get("rope_type", found.get("type", "default"))
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"config.json: {name} asks for rope_type {kind!r}, which is not supported; expected "
                         f"one of {', '.join(KINDS)}")
    for field, value in found.items():
        if value is not None and field not in COMMON | KINDS[kind]:
            raise ValueError(f"config.json: {name} has {field}, which does not belong to rope_type {kind!r}; expected "
                             f"only {', '.join(sorted(COMMON | KINDS[kind]))}")
    for field in REQUIRED:
        if field in KINDS[kind] and found.get(field) is None and (kind != "yarn" or field not in found):
            raise ValueError(f"config.json: {name} has no {field}, which rope_type {kind!r} needs; add it")
    return kind


def _llama3(found: Foreign) -> dict[str, Any]:
    low, high = fields.number(found, "low_freq_factor", 1.0), fields.number(found, "high_freq_factor", 4.0)
    if high <= low:
        raise ValueError(f"config.json: high_freq_factor is {high}; expected more than low_freq_factor, {low}")
    return {"rotary_low_frequency": low, "rotary_high_frequency": high}


def _yarn(found: Foreign, base: float, factor: float) -> dict[str, Any]:
    fields.only(found, "truncate", True)
    if base <= 1:
        raise ValueError(f"config.json: rope_theta is {base}; rope_type 'yarn' needs more than 1")
    # Zeros count as absent, as there.
    return {"rotary_fast": fields.number(found, "beta_fast", 0.0) or 32.0,
            "rotary_slow": fields.number(found, "beta_slow", 0.0) or 1.0,
            "rotary_amplitude": _amplitude(found, factor)}


def _amplitude(found: Foreign, factor: float) -> float:
    """YaRN's factor on queries and keys (arxiv.org/abs/2309.00071, equation 22)."""
    def of(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0

    above, below = fields.number(found, "mscale", 0.0), fields.number(found, "mscale_all_dim", 0.0)
    default = of(above) / of(below) if above and below else of(1.0)
    return fields.number(found, "attention_factor", default)
