# SPDX-License-Identifier: Apache-2.0
"""From a request's numbers to arrays, one value a sequence, that one compiled program reads."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

UNLIMITED = int(np.iinfo(np.int32).max)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Settings:
    """How each sequence chooses its tokens; make it with `settings`, which checks the ranges."""

    temperature: jax.Array  # f32[B]    0 = greedy: the most probable token, no randomness
    top_k: jax.Array        # int32[B]  0 = off
    top_p: jax.Array        # f32[B]    1 = off
    min_new: jax.Array      # int32[B]  no EOS before that many tokens
    max_new: jax.Array      # int32[B]  the program's max_new_tokens binds too


# name: (dtype, smallest, largest, what to give)
RANGES = {
    "temperature": (np.float32, 0, float(np.finfo(np.float32).max), "0 for greedy"),
    "top_k": (np.int32, 0, UNLIMITED, "0 to keep every token"),
    "top_p": (np.float32, 0, 1, "1 to keep every token"),
    "min_new": (np.int32, 0, UNLIMITED, "0 for no minimum"),
    "max_new": (np.int32, 1, UNLIMITED, "at least 1"),
}


def settings(batch_size: int, *, temperature: Any = 0.0, top_k: Any = 0, top_p: Any = 1.0,
             min_new: Any = 0, max_new: Any = UNLIMITED) -> Settings:
    """Settings for `batch_size` sequences, from one number for all or a sequence of B each.

    Raises: ValueError naming the setting, its value and the range.
    """
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p,
             "min_new": min_new, "max_new": max_new}
    arrays = {name: _row_values(name, value, batch_size) for name, value in given.items()}
    crossed = arrays["min_new"] > arrays["max_new"]
    if crossed.any():
        row = int(np.argmax(crossed))
        raise ValueError(f"sequence {row} has min_new {arrays['min_new'][row]} above its max_new "
                         f"{arrays['max_new'][row]}; lower the one or raise the other.")
    return Settings(**{name: jnp.asarray(array) for name, array in arrays.items()})


def _row_values(name: str, value: Any, batch_size: int) -> np.ndarray:
    dtype, smallest, largest, advice = RANGES[name]
    array = np.asarray(value)
    if array.shape not in ((), (batch_size,)):
        raise ValueError(f"{name} has shape {array.shape}, expected one number "
                         f"or {batch_size}, one a sequence.")
    # Written so that NaN, which compares false, is refused as well.
    wrong = ~((array >= smallest) & (array <= largest))
    if np.issubdtype(dtype, np.integer):
        wrong |= array != np.floor(array)
    if np.any(wrong):
        kind = "a whole number" if np.issubdtype(dtype, np.integer) else "a number"
        raise ValueError(f"{name} is {array[wrong].flat[0]}, expected {kind} from {smallest} "
                         f"to {largest} ({advice}).")
    return np.broadcast_to(array.astype(dtype), (batch_size,))
