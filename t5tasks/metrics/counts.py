# SPDX-License-Identifier: Apache-2.0
"""Counts of some examples and of others come in, the counts of all of them go out.

Every metric of this room is two functions: one from examples to counts, one from counts to
figures. Counts add up, so the figure of an evaluation does not depend on how its examples were
split into batches, padded, or spread over devices and processes:

    figures(total(counts(part) for part in parts)) == figures(counts(all examples))

Integers stay integers (int64) and everything else is float64, whatever the device computed in:
an integer sum is exact, and a float64 sum of a million float32 losses is right to 1e-9.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import ArrayLike

Counts = dict[str, np.ndarray]


def as_counts(values: Mapping[str, ArrayLike]) -> Counts:
    """Returns `values` as Counts: bool and integers as int64, floats as float64, same shapes.

    Takes Python numbers, NumPy arrays and arrays of a device. Raises ValueError for a value that
    is no number.
    """
    counts: Counts = {}
    for name, value in values.items():
        array = np.asarray(value)
        if np.issubdtype(array.dtype, np.integer) or array.dtype == np.bool_:
            counts[name] = array.astype(np.int64)
        elif array.dtype.kind in "fV":  # V: bfloat16 and the other floats of ml_dtypes
            counts[name] = array.astype(np.float64)
        else:
            raise ValueError(
                f"count {name!r} has dtype {array.dtype}; expected integers or floats"
            )
    return counts


def add(a: Mapping[str, ArrayLike], b: Mapping[str, ArrayLike]) -> Counts:
    """Returns the counts of the examples behind `a` and behind `b` together.

    `{}` is the counts of no examples: `add({}, a)` equals `a`. Raises ValueError when names or
    shapes differ, for then the two were not made by the same metric.
    """
    left, right = as_counts(a), as_counts(b)
    if not left or not right:
        return left or right
    if left.keys() != right.keys():
        raise ValueError(
            f"counts of different metrics cannot be added: {sorted(left)} and {sorted(right)}"
        )
    for name, value in left.items():
        if value.shape != right[name].shape:
            raise ValueError(
                f"count {name!r} has shape {value.shape} on one side and {right[name].shape} on "
                "the other; both sides must come from the same metric with the same settings"
            )
    return {name: value + right[name] for name, value in left.items()}


def total(parts: Iterable[Mapping[str, ArrayLike]]) -> Counts:
    """Returns the sum of all `parts`; `{}` when there are none. Raises ValueError as `add`."""
    result: Counts = {}
    for part in parts:
        result = add(result, part)
    return result


def require_examples(examples: float, metric: str) -> None:
    """Raises ValueError when a figure is asked for over no examples: it has no value then."""
    if examples <= 0:
        raise ValueError(
            f"{metric} was asked for, but no example was counted; check that the evaluation "
            "split has records and that not every target is masked"
        )
