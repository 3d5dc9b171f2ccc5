# SPDX-License-Identifier: Apache-2.0
"""What decoding is handed (step, verify, score, cache), and the checks of a request before it runs.

A cache is a value: row b holds `lengths[b]` tokens at slots 0 .. lengths[b] - 1, and a token's
position is its slot. Feeding T tokens of which the first counts[b] are valid writes those after
the ones held:

    lengths = [2, 0]   tokens = [[7, 8, 9],    held afterwards = [[a, b, 7, 8, 9],
    counts  = [3, 1]             [7, 0, 0]]                       [7]]
"""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

CacheType = TypeVar("CacheType", bound="Cache")
Carry = TypeVar("Carry")


class Cache(Protocol):
    """A pytree of what the model remembers of each row."""

    @property
    def lengths(self) -> jax.Array:
        """int32[B]: tokens held by each row."""

    @property
    def capacity(self) -> int:
        """Slots of a row; static."""

    def take(self: CacheType, rows: jax.Array) -> CacheType:
        """The cache of any rows int32[B2], repeated as they are named."""

    def reorder(self: CacheType, rows: jax.Array) -> CacheType:
        """Like `take` with B2 = B, for rows that move only among beams of the same example."""

    def place(self: CacheType, rows: jax.Array, other: CacheType) -> CacheType:
        """Rows int32[R] become the R rows of `other`, which may have fewer slots; the others stay."""

    def rewind(self: CacheType, lengths: jax.Array) -> CacheType:
        """The cache as it was when row b held lengths[b] tokens, int32[B], none above what it holds."""

    def grow(self: CacheType, capacity: int) -> CacheType:
        """The same tokens in rows of more slots."""

    def expand(self: CacheType, beams: int, new_tokens: int) -> CacheType:
        """`beams` rows in the place of each, side by side, that read one token at a time, new_tokens at most.

        Like `take` with each row repeated, but what follows is only `reorder`, so they may share memory.
        """


class Step(Protocol):
    def __call__(self, params: Any, tokens: jax.Array, counts: jax.Array,
                 cache: Any, /) -> tuple[jax.Array, Any]:
        """(logits float[B, V] after each row's last valid token, cache) of tokens int32[B, T].

        counts int32[B] may be 0: that row's cache does not change, its logits mean nothing.
        """


class Start(Protocol):
    def __call__(self, params: Any, batch: int, capacity: int, inputs: Any, /) -> Any:
        """A cache for so many rows and slots, without tokens; inputs: [B, ...] of a source or images, or None."""


class Verify(Protocol):
    def __call__(self, params: Any, tokens: jax.Array, counts: jax.Array,
                 cache: Any, /) -> tuple[jax.Array, Any]:
        """As `Step`, but float[B, T, V]: the logits after each token, of which counts[b] mean something."""


class Score(Protocol):
    def __call__(self, params: Any, tokens: jax.Array, counts: jax.Array, targets: jax.Array,
                 cache: Any, /) -> tuple[jax.Array, Any]:
        """(f32[B, T]: log p(targets[b, t] | cache, tokens[b, :t + 1]), cache)."""


def reads_whole(cache: Any) -> bool:
    """Whether one step must read a prompt, since its tokens see later ones (an image before its caption).

    A cache says so by an attribute of this name; most have none.
    """
    return bool(getattr(cache, "reads_whole", False))


def chunks(width: int, cache: Any, chunk: int) -> tuple[int, int]:
    """(how many, tokens of each): equal parts of at most `chunk` tokens that hold a prompt of `width`."""
    if chunk < 0:
        raise ValueError(f"prefill_chunk is {chunk}, expected a number of tokens, or 0 for whole prompts.")
    count = max(1, -(-width // chunk)) if chunk and not reads_whole(cache) else 1
    return count, -(-width // count)


def capacity(width: int, new_tokens: int, prefill_chunk: int = 0) -> int:
    """Slots that an empty cache needs for prompts of `width`, read in chunks, and the tokens after them."""
    count, size = chunks(width, None, prefill_chunk)
    return max(width + new_tokens, count * size)


def check_request(prompt: jax.Array, prompt_lengths: jax.Array, cache: Cache,
                  new_tokens: int, prefill_chunk: int = 0, drafted: int = 0) -> None:
    """Refuses a request that does not fit: a write past the cache's end would go unnoticed.

    Shapes are checked always (while tracing too, where the cache is taken to be empty), values
    when they are at hand, which is when the caller has not traced them.

    Args: prompt int32[B, T]; prompt_lengths int32[B], each 1 .. T; new_tokens >= 1 a row;
      prefill_chunk as `prefill` has it; drafted: tokens that may be read beyond these, and rewound.
    Raises: ValueError.
    """
    if np.ndim(prompt) != 2:
        raise ValueError(f"prompt has shape {np.shape(prompt)}, expected [B, T]; "
                         "pad the prompts on the right to one length.")
    batch, width = np.shape(prompt)
    for name, array in (("prompt_lengths", prompt_lengths), ("cache.lengths", cache.lengths)):
        if np.shape(array) != (batch,):
            raise ValueError(f"{name} has shape {np.shape(array)}, expected [{batch}], "
                             "one number for each row of the prompt.")
    if new_tokens < 1:
        raise ValueError(f"{new_tokens} new tokens were asked for, expected at least 1.")
    count, size = chunks(width, cache, prefill_chunk)
    block = count * size  # is written, its padding included
    need = max(width + new_tokens + drafted, block)
    if need > cache.capacity:
        also = f" and {drafted} drafted" if drafted else ""
        raise ValueError(f"a prompt of {width} and {new_tokens} new{also} tokens need "
                         f"{need} slots, the cache has {cache.capacity}; make it "
                         "larger, shorten the prompt or ask for fewer new tokens.")
    lengths, held = known(prompt_lengths), known(cache.lengths)
    if lengths is not None and (lengths.min() < 1 or lengths.max() > width):
        row = int(np.argmax((lengths < 1) | (lengths > width)))
        raise ValueError(f"prompt_lengths[{row}] is {lengths[row]}, expected 1 to {width} "
                         "(the prompt's width); an empty prompt needs a start token.")
    if held is not None:
        read = width if lengths is None else lengths
        need = int(np.max(held + np.maximum(block, read + new_tokens + drafted)))
        if need > cache.capacity:
            raise ValueError(f"the cache already holds up to {held.max()} tokens a row and would "
                             f"need {need} slots, it has {cache.capacity}; make it larger or start "
                             "from an empty one.")


def known(array: Any) -> np.ndarray | None:
    """The values on the host, or None for an array that is traced or lives on other machines."""
    if isinstance(array, jax.core.Tracer) or not getattr(array, "is_fully_addressable", True):
        return None
    return np.asarray(array)


def if_any(rows: jax.Array, function: Callable[[Carry], Carry], carry: Carry) -> Carry:
    """function(carry) where one of rows bool[B] is set, else carry.

    A loop of one turn or none, which works in the memory of what it carries: `cond` may copy it.
    """
    once = jax.lax.while_loop(lambda state: state[0], lambda state: (jnp.zeros((), bool), function(state[1])),
                              (jnp.any(rows), carry))
    return once[1]
