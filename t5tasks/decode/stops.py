# SPDX-License-Identifier: Apache-2.0
"""From new tokens to whether a stop string has been written, on the device and on its bytes.

Strings are compared as UTF-8 bytes, the bytes of a token's piece one after the other, so a string
is found across tokens, within one, and where a token holds a part of a character. A row's strings
lie end to end; a bit a byte says "the text now ends with this string up to here", and each byte of
text moves the bits one to the right (Baeza-Yates and Gonnet 1992, "shift-and", in an array):

    strings a b | b c     text "a"  1 0 | 0 0     "ab"  0 1 | 1 0: "ab" is complete

There is no table to build for a request and no trip to the host. As in vLLM and OpenAI's API the
text is what was generated: a string that begins in the prompt does not count, unlike in
transformers; special tokens have no bytes. The token that completes a string is kept, as in
transformers; `cut` takes the text's end off.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks.decode.settings import Settings


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pieces:
    """The bytes that each token of a vocabulary adds to a text; token v has starts[v] .. starts[v + 1]."""

    bytes: jax.Array   # uint8[at least 1]
    starts: jax.Array  # int32[V + 1]


def pieces(texts: Iterable[bytes]) -> Pieces:
    """The table of a vocabulary from the bytes of each of its tokens (`spelling.token_bytes`)."""
    texts = list(texts)
    starts = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int64)])
    return Pieces(jnp.asarray(np.frombuffer(b"".join(texts) or b"\0", np.uint8)),
                  jnp.asarray(starts, jnp.int32))


def none_yet(settings: Settings) -> jax.Array:
    """bool[B, S]: the bits of an empty text."""
    return jnp.zeros(settings.stop_ends.shape, bool)


def read(progress: jax.Array, token: jax.Array, settings: Settings, pieces: Pieces
         ) -> tuple[jax.Array, jax.Array]:
    """(the bits bool[B, S], bool[B]: is a stop string complete?) after one token more, int32[B]."""
    used = jnp.any(settings.stop_ends)
    return jax.lax.cond(used, lambda: _read(progress, token, settings, pieces),
                        lambda: (progress, jnp.zeros(token.shape, bool)))


def _read(progress: jax.Array, token: jax.Array, settings: Settings, pieces: Pieces
          ) -> tuple[jax.Array, jax.Array]:
    vocabulary = pieces.starts.shape[0] - 1  # a padded row of an embedding has no bytes
    start, end = (pieces.starts[jnp.minimum(token + shift, vocabulary)] for shift in (0, 1))
    ends = settings.stop_ends
    first = jnp.pad(ends[:, :-1], ((0, 0), (1, 0)), constant_values=True)

    def move(carry: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        at, progress, complete = carry
        byte = pieces.bytes[jnp.minimum(start + at, pieces.bytes.shape[0] - 1)].astype(jnp.int32)
        before = jnp.pad(progress[:, :-1], ((0, 0), (1, 0)))
        moved = (first | before) & (settings.stop_bytes == byte[:, None])
        inside = start + at < end
        return (at + 1, jnp.where(inside[:, None], moved, progress),
                complete | (inside & jnp.any(moved & ends, axis=-1)))

    begun = (jnp.zeros((), jnp.int32), progress, jnp.zeros(token.shape, bool))
    _, progress, complete = jax.lax.while_loop(
        lambda carry: jnp.any(start + carry[0] < end), move, begun)
    return progress, complete


def cut(text: str, stops: Sequence[str], keep: bool = False) -> str:
    """The text up to the stop string that is complete first (the longest of such), with it or without.

        cut("one\\n\\ntwo", ["\\n\\n"])  "one"
    """
    found = [(at + len(stop), at) for stop in stops if (at := text.find(stop)) >= 0]
    if not found:
        return text
    end, start = min(found)
    return text[:end if keep else start]
