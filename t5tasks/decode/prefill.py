# SPDX-License-Identifier: Apache-2.0
"""From prompts and a cache to the logits after each prompt and the cache that holds them.

A prompt wider than a chunk is read in chunks of one static size, in a loop on the device that ends
with the longest prompt. Attention scores take T x S numbers a head, T being what is read at once,
so a chunk bounds the memory, and so does one program for prompts of any length up to the width:

    lengths = [3, 8, 5], chunk 4       first  [a b c .]  3      then  [. . . .]  0
                                              [d e f g]  4            [h i j k]  4
                                              [l m n o]  4            [p . . .]  1

A chunk is written whole, its padding included, and a write that reaches past the cache's end would
be shifted onto what the row holds: the cache needs room for all chunks (`capacity`), which
`contract.check_request` checks.
"""

from typing import Any

import jax
import jax.numpy as jnp

from t5tasks.decode.contract import Step, chunks


def prefill(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any,
            chunk: int = 0) -> tuple[jax.Array, Any]:
    """(f32[B, V] after each prompt's last token, the cache with the prompts in it), for a program of the caller's.

    The same to float precision for every chunk.

    Args:
      step: see `contract.Step`.
      prompt: int32[B, T], padded on the right; prompt_lengths: int32[B], each 1 .. T.
      cache: B rows, each with room for `capacity(T, ..., chunk)` tokens more than it holds.
      chunk: tokens of a row read at once; 0 for all. Where the cache says that one step must read a
        prompt (`contract.reads_whole`), it does.
    """
    width = prompt.shape[1]
    count, size = chunks(width, cache, chunk)
    if count == 1:
        logits, cache = step(params, prompt, prompt_lengths, cache)
        return logits.astype(jnp.float32), cache
    prompt = jnp.pad(jnp.asarray(prompt, jnp.int32), ((0, 0), (0, count * size - width)))
    lengths = jnp.asarray(prompt_lengths, jnp.int32)
    longest = jnp.max(lengths)

    def read(carry: tuple[jax.Array, jax.Array, Any]) -> tuple[jax.Array, jax.Array, Any]:
        start, logits, cache = carry
        counts = jnp.clip(lengths - start, 0, size)
        tokens = jax.lax.dynamic_slice_in_dim(prompt, start, size, axis=1)
        found, cache = step(params, tokens, counts, cache)
        return start + size, jnp.where((counts > 0)[:, None], found.astype(jnp.float32), logits), cache

    shape, _ = jax.eval_shape(step, params, prompt[:, :size], lengths, cache)
    begun = jnp.zeros((), jnp.int32), jnp.zeros(shape.shape, jnp.float32), cache
    _, logits, cache = jax.lax.while_loop(lambda carry: carry[0] < longest, read, begun)
    return logits, cache
