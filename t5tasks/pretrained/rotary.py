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

# rope_type → the fields that it may carry, beside those that all have.
COMMON = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}
KINDS = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {"factor", "beta_fast", "beta_slow", "attention_factor", "mscale", "mscale_all_dim",
             "original_max_position_embeddings", "truncate"},
}


def settings(foreign: Foreign, base: float = 10_000.0, fraction: float = 1.0) -> dict[str, Any]:
    """The rotary_* values of a config.json.

    Args:
      base, fraction: the family's defaults of rope_theta and partial_rotary_factor.

    Raises:
      ValueError: a kind of scaling that we do not have, or a field of it that we do not honour.
    """
    found: dict[str, Any] = {}
    kind = "default"
    for name in ("rope_scaling", "rope_parameters"):
        given = foreign.get(name) or {}
        if not isinstance(given, Mapping):
            raise ValueError(f"config.json: {name} is {given!r}; expected an object")
        found |= {key: value for key, value in given.items() if value is not None}
        here = given.get("rope_type", given.get("type", "default"))
        if here not in KINDS:
            raise ValueError(f"config.json: {name} asks for rope_type {here!r}, which is not supported; expected "
                             f"one of {', '.join(KINDS)}")
        kind = here if kind == "default" else kind
    base = fields.number(found, "rope_theta", fields.number(foreign, "rope_theta", base))
    if base <= 0:
        raise ValueError(f"config.json: rope_theta is {base}; it must be positive")
    fraction = fields.number(found, "partial_rotary_factor", fields.number(foreign, "partial_rotary_factor", fraction))
    values: dict[str, Any] = {"rotary_base": base, "rotary_fraction": fraction}
    for name in found:
        if name not in COMMON | KINDS[kind]:
            raise ValueError(f"config.json: {name} does not belong to rope_type {kind!r}; expected only "
                             f"{', '.join(sorted(COMMON | KINDS[kind]))}")
    if kind == "default":
        return values
    values |= {"rotary_scaling": kind, "rotary_factor": fields.number(found, "factor", 1.0)}
    if kind == "linear":
        return values
    length = fields.integer(foreign, "max_position_embeddings", 2048)
    values["rotary_original_length"] = fields.integer(
        found, "original_max_position_embeddings",
        fields.integer(foreign, "original_max_position_embeddings", length))
    if kind == "llama3":
        return values | {"rotary_low_frequency": fields.number(found, "low_freq_factor", 1.0),
                         "rotary_high_frequency": fields.number(found, "high_freq_factor", 4.0)}
    fields.only(found, "truncate", True)
    return values | {"rotary_fast": fields.number(found, "beta_fast", 32.0),
                     "rotary_slow": fields.number(found, "beta_slow", 1.0),
                     "rotary_amplitude": _amplitude(found, values["rotary_factor"])}


def _amplitude(found: Foreign, factor: float) -> float:
    """YaRN's factor on queries and keys (arxiv.org/abs/2309.00071, equation 22)."""
    def of(scale: float) -> float:
        return 0.1 * scale * math.log(factor) + 1 if factor > 1 else 1.0

    above, below = fields.number(found, "mscale", 0.0), fields.number(found, "mscale_all_dim", 0.0)
    default = of(above) / of(below) if above and below else of(1.0)
    return fields.number(found, "attention_factor", default)
