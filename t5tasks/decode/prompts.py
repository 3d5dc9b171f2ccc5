# SPDX-License-Identifier: Apache-2.0
"""From padded prompts to the layouts that decoding works on, and to what each row has seen so far."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

NOTHING = -1  # stands where no token is
NARROWEST = 16  # tokens


def widths(longest: int) -> list[int]:
    """The few widths that prompts of up to `longest` tokens are padded to: 16, 32, 64 ... and the longest."""
    found = [NARROWEST]
    while found[-1] < longest:
        found.append(2 * found[-1])
    return [width for width in found if width < longest] + [longest]


def bucket(size: int, sizes: Sequence[int], name: str = "size") -> int:
    """The smallest of `sizes` that holds `size`; ValueError where none does."""
    for candidate in sizes:
        if size <= candidate:
            return candidate
    raise ValueError(f"{name} is {size}, expected at most {sizes[-1]}.")


def padded(prompts: Sequence[Sequence[int]], widths: Sequence[int], pad: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(int32[B, T] padded on the right, int32[B] lengths), T the smallest of the widths that holds them all.

        prompts = [[7, 8], [5, 6, 9]], widths = [4, 8]    out = [[7, 8, 0, 0],    [2,
                                                                 [5, 6, 9, 0]]     3]

    Raises: ValueError where a prompt is empty, or longer than the last width.
    """
    lengths = np.asarray([len(prompt) for prompt in prompts], np.int32)
    if not lengths.size or lengths.min() < 1:
        raise ValueError("a prompt has no tokens, expected at least one; an empty prompt needs a start token.")
    out = np.full((len(prompts), bucket(int(lengths.max()), widths, "a prompt's number of tokens")), pad, np.int32)
    for row, prompt in zip(out, prompts, strict=True):
        row[:len(prompt)] = prompt
    return out, lengths


def from_padded(tokens: Any, mask: Any) -> tuple[np.ndarray, np.ndarray]:
    """Prompts padded on either side as (int32[B, T] padded on the right, int32[B] lengths).

        tokens = [[0, 0, 7, 8],   mask = [[0, 0, 1, 1],   out = [[7, 8, 0, 0],   [2,
                  [5, 6, 9, 0]]           [1, 1, 1, 0]]          [5, 6, 9, 0]]    3]

    Raises: ValueError where the shapes are not [B, T] twice or a row has no token.
    """
    tokens, mask = np.asarray(tokens), np.asarray(mask) != 0
    if tokens.ndim != 2 or tokens.shape != mask.shape:
        raise ValueError(f"tokens have shape {tokens.shape} and mask {mask.shape}, expected [B, T] of both.")
    lengths = mask.sum(axis=1).astype(np.int32)
    if (lengths == 0).any():
        raise ValueError(f"row {int(np.argmin(lengths))} of the mask marks no token; "
                         "an empty prompt needs a start token.")
    order = np.argsort(~mask, axis=1, kind="stable")
    return np.take_along_axis(tokens, order, axis=1).astype(np.int32), lengths


def at_the_end(prompt: jax.Array, lengths: jax.Array) -> jax.Array:
    """int32[B, T]: the prompt moved to the end of its row, NOTHING before it."""
    width = prompt.shape[1]
    sources = jnp.arange(width) - (width - lengths[:, None])
    moved = jnp.take_along_axis(prompt, jnp.maximum(sources, 0), axis=1)
    return jnp.where(sources >= 0, moved, NOTHING).astype(jnp.int32)


def written(tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """int32[B, N]: tokens, NOTHING from lengths[b] on."""
    return jnp.where(jnp.arange(tokens.shape[1]) < lengths[:, None], tokens, NOTHING)


def history(prompt: jax.Array, tokens: jax.Array, lengths: jax.Array) -> jax.Array:
    """int32[B, T + N]: what each row has seen, without a hole, its newest token at T + length - 1.

        prompt  = [[-, 7, 8],   tokens  = [[4, 5, .],   out = [[-, 7, 8, 4, 5, -],
                   [5, 6, 9]]              [3, ., .]]          [5, 6, 9, 3, -, -]]
        lengths = [2, 1]

    Args: prompt as `at_the_end` makes it; tokens int32[B, N], of which lengths[b] are written.
    """
    return jnp.concatenate([prompt, written(tokens, lengths)], axis=1)
