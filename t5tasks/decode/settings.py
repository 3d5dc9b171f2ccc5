# SPDX-License-Identifier: Apache-2.0
"""From a request's numbers and lists to arrays, one row a sequence, that one compiled program reads."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks.decode import tables

UNLIMITED = int(np.iinfo(np.int32).max)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Settings:
    """How each sequence chooses its tokens; make it with `settings`, which checks the ranges."""

    temperature: jax.Array         # f32[B]          0 = greedy: the most probable token, no randomness
    top_k: jax.Array               # int32[B]        0 = off
    top_p: jax.Array               # f32[B]          1 = off
    min_p: jax.Array               # f32[B]          0 = off
    typical_p: jax.Array           # f32[B]          1 = off
    repetition_penalty: jax.Array  # f32[B]          1 = off; prompt and new tokens
    presence_penalty: jax.Array    # f32[B]          0 = off; new tokens
    frequency_penalty: jax.Array   # f32[B]          0 = off; new tokens
    no_repeat_ngram: jax.Array     # int32[B]        0 = off; prompt and new tokens
    min_new: jax.Array             # int32[B]        no EOS before that many tokens
    max_new: jax.Array             # int32[B]        the program's max_new_tokens binds too
    forced_eos: jax.Array          # int32[B]        the last token that the limits allow; -1 = free
    forced: jax.Array              # int32[B, F]     the first tokens; -1 = free
    bad_words: jax.Array           # int32[B, W, M]  see tables.bad_words
    stop_bytes: jax.Array          # int32[B, S]     see tables.stops
    stop_ends: jax.Array           # bool[B, S]


# name: (dtype, smallest, largest, what to give)
LARGEST, TINY = float(np.finfo(np.float32).max), float(np.finfo(np.float32).tiny)
RANGES = {
    "temperature": (np.float32, 0, LARGEST, "0 for greedy"),
    "top_k": (np.int32, 0, UNLIMITED, "0 to keep every token"),
    "top_p": (np.float32, 0, 1, "1 to keep every token"),
    "min_p": (np.float32, 0, 1, "0 to keep every token"),
    "typical_p": (np.float32, TINY, 1, "1 to keep every token"),
    "repetition_penalty": (np.float32, TINY, LARGEST, "1 for none"),
    "presence_penalty": (np.float32, -LARGEST, LARGEST, "0 for none"),
    "frequency_penalty": (np.float32, -LARGEST, LARGEST, "0 for none"),
    "no_repeat_ngram": (np.int32, 0, UNLIMITED, "0 to allow repeats"),
    "min_new": (np.int32, 0, UNLIMITED, "0 for no minimum"),
    "max_new": (np.int32, 1, UNLIMITED, "at least 1"),
    "forced_eos": (np.int32, -1, UNLIMITED, "-1 for none"),
}


def settings(batch_size: int, *, temperature: Any = 0.0, top_k: Any = 0, top_p: Any = 1.0,
             min_p: Any = 0.0, typical_p: Any = 1.0, repetition_penalty: Any = 1.0,
             presence_penalty: Any = 0.0, frequency_penalty: Any = 0.0, no_repeat_ngram: Any = 0,
             min_new: Any = 0, max_new: Any = UNLIMITED, forced_eos: Any = -1, forced: Any = None,
             bad_words: Any = None, stop: Any = None, vocabulary: int | None = None) -> Settings:
    """Settings for `batch_size` sequences, each from one value for all or a sequence of B values.

    The processors and the filters are those of transformers 5.23 and act in its order; what each
    does is said in `process` and `warp`.

    Args:
      forced: ids, or B lists of ids: the first new tokens, -1 where one is free. Forced BOS is
        [bos]; it counts as a new token.
      forced_eos: the id that the last token allowed by max_new or max_new_tokens has to be.
      bad_words: lists of ids that must not appear, or B lists of such.
      stop: strings, or B lists of strings, at which a text ends (`stops`).
      vocabulary: where given, ids of bad_words, forced and forced_eos must lie below it.

    Raises: ValueError naming the setting, its value and the range.
    """
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p,
             "typical_p": typical_p, "repetition_penalty": repetition_penalty,
             "presence_penalty": presence_penalty, "frequency_penalty": frequency_penalty,
             "no_repeat_ngram": no_repeat_ngram, "min_new": min_new, "max_new": max_new,
             "forced_eos": forced_eos}
    arrays = {name: _row_values(name, value, batch_size) for name, value in given.items()}
    crossed = arrays["min_new"] > arrays["max_new"]
    if crossed.any():
        row = int(np.argmax(crossed))
        raise ValueError(f"sequence {row} has min_new {arrays['min_new'][row]} above its max_new "
                         f"{arrays['max_new'][row]}; lower the one or raise the other.")
    arrays["forced"] = tables.forced(forced, batch_size)
    arrays["bad_words"] = tables.bad_words(bad_words, batch_size)
    arrays["stop_bytes"], arrays["stop_ends"] = tables.stops(stop, batch_size)
    for name in ("forced", "bad_words", "forced_eos"):
        if vocabulary is not None and (largest := arrays[name].max(initial=-1)) >= vocabulary:
            raise ValueError(f"{name} has the id {largest}, expected ids below {vocabulary}, "
                             "the size of the vocabulary.")
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
