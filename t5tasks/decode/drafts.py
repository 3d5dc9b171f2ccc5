# SPDX-License-Identifier: Apache-2.0
"""From sequences under way to guesses of their next tokens, which `speculate` has a model verify.

A guess decides how fast a text is written, never what is written. `ModelDraft` asks a smaller
model; `PromptLookup` copies what followed the same words before.
"""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from t5tasks.decode.contract import Cache, Step
from t5tasks.decode.prefill import prefill
from t5tasks.decode.prompts import NOTHING, history
from t5tasks.decode.sample import Request, State, append_where


class Draft(Protocol):
    """A pytree whose structure is hashable: what it does is compiled in, its arrays are not.

    Its memory is a pytree that goes in and comes out, None where it needs none.
    """

    def read(self, prompt: jax.Array, prompt_lengths: jax.Array, memory: Any, prefill_chunk: int, /) -> Any:
        """The memory after the prompts int32[P, T], padded on the right."""

    def take(self, memory: Any, rows: jax.Array, /) -> Any:
        """The memory of rows int32[B], repeated as they are named."""

    def propose(self, state: State, request: Request, count: int, memory: Any, /
                ) -> tuple[jax.Array, jax.Array, Any]:
        """(tokens int32[B, count], counts int32[B] of them that are meant, memory).

        They follow state.last; an ended row needs none. The state has no cache: the target's is not
        the draft's.
        """

    def rewind(self, state: State, memory: Any, /) -> Any:
        """The memory without what was proposed but is not among the tokens of the state."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Read:
    """What a draft model has read."""

    cache: Cache         #           of the draft's own
    prompts: jax.Array   # int32[B]  tokens that it held when the prompts had been read


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ModelDraft:
    """A smaller model with the target's vocabulary goes on as `generate` would with its logits.

    It has the row's settings, so that penalties, bans and forced tokens hold in its guesses too, and
    draws with the key and the position of the target's own draw: two distributions that are close
    then mostly give the same token. The memory given to `read` is its cache, of P rows.
    """

    step: Step = dataclasses.field(metadata={"static": True})
    params: Any

    def read(self, prompt: jax.Array, prompt_lengths: jax.Array, memory: Any, prefill_chunk: int) -> Read:
        _, cache = prefill(self.step, self.params, prompt, prompt_lengths, memory, prefill_chunk)
        return Read(cache, cache.lengths)

    def take(self, memory: Read, rows: jax.Array) -> Read:
        return Read(memory.cache.take(rows), memory.prompts[rows])

    def propose(self, state: State, request: Request, count: int, memory: Read
                ) -> tuple[jax.Array, jax.Array, Read]:
        out, begun = state.written, state.written.lengths
        state = dataclasses.replace(state, written=dataclasses.replace(
            out, top_tokens=out.top_tokens[..., :0], top_logprobs=out.top_logprobs[..., :0]))

        def goes_on(state: State) -> jax.Array:
            return ~state.ended & (state.written.lengths < begun + count)

        def read_one(carry: tuple[State, Any]) -> tuple[State, Any]:
            state, cache = carry
            # Where all was accepted, it has not read the last guess and the token after it.
            held = cache.lengths - memory.prompts
            logits, cache = self.step(self.params, _columns(state.written.tokens, held, 1),
                                      goes_on(state).astype(jnp.int32), cache)
            newest = goes_on(state) & (held == state.written.lengths - 1)
            return append_where(newest, state, logits.astype(jnp.float32), request), cache

        state, cache = jax.lax.while_loop(
            lambda carry: jnp.any(goes_on(carry[0])), read_one, (state, memory.cache))
        return (_columns(state.written.tokens, begun, count), state.written.lengths - begun,
                dataclasses.replace(memory, cache=cache))

    def rewind(self, state: State, memory: Read) -> Read:
        # A row's newest token is the target's own: what lies before it is what the draft has read, if it read so far.
        kept = memory.prompts + jnp.maximum(state.written.lengths - 1, 0)
        return dataclasses.replace(memory, cache=memory.cache.rewind(jnp.minimum(memory.cache.lengths, kept)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class PromptLookup:
    """Copies what followed the newest tokens where they stood before (Saxena 2023, "prompt lookup decoding",
    github.com/apoorvumang/prompt-lookup-decoding).

    The place is the one where the most tokens up to `longest` agree, the latest of such; a copy may
    run into what it has copied, as in Ziv and Lempel 1977:

        longest = 2   seen = [5, 7, 8, 9, 3, 7, 8]   [7, 8] stood at 1: the copy is [9, 3, 7, 8, 9 ...]
        longest = 3   seen = [6, 4, 2, 4, 2]         [4, 2] stood at 1: the copy is [4, 2, 4, 2 ...]

    A row in which not even the newest token stood before has no guess. The memory given to `read` is
    None, or int32[P, S] to copy from as well, such as an encoder's tokens; ids below 0 are none.
    """

    longest: int = dataclasses.field(metadata={"static": True})

    def read(self, prompt: jax.Array, prompt_lengths: jax.Array, memory: Any, prefill_chunk: int) -> Any:
        return memory

    def take(self, memory: Any, rows: jax.Array) -> Any:
        return jax.tree.map(lambda source: source[rows], memory)

    def propose(self, state: State, request: Request, count: int, memory: Any
                ) -> tuple[jax.Array, jax.Array, Any]:
        out = state.written
        seen = history(request.prompt, out.tokens, out.lengths)
        newest = request.prompt.shape[1] + out.lengths - 1
        if memory is not None:
            # The source's end is not the prompt's beginning.
            seen = jnp.concatenate([jnp.pad(memory, ((0, 0), (0, 1)), constant_values=NOTHING), seen], axis=1)
            newest += memory.shape[1] + 1
        place, agree = _latest_longest(seen, newest, self.longest)
        steps = jnp.arange(count) % jnp.maximum(newest - place, 1)[:, None]
        tokens = jnp.take_along_axis(seen, place[:, None] + 1 + steps, axis=1)
        copied = jnp.cumprod((tokens >= 0) & (agree > 0)[:, None], axis=1)
        return jnp.where(copied, tokens, 0), jnp.sum(copied, axis=1, dtype=jnp.int32), memory

    def rewind(self, state: State, memory: Any) -> Any:
        return memory


def _latest_longest(seen: jax.Array, newest: jax.Array, longest: int) -> tuple[jax.Array, jax.Array]:
    """(int32[B]: the slot before newest[b] at which the most tokens, up to `longest`, agree with those
    at newest[b]; int32[B]: how many do)."""
    slots = jnp.arange(seen.shape[1])
    alike = slots < newest[:, None]
    agree = jnp.zeros(seen.shape, jnp.int32)
    for back in range(min(longest, seen.shape[1])):
        there = jnp.where(slots < back, NOTHING, jnp.roll(seen, back, axis=1))
        token = jnp.take_along_axis(seen, jnp.maximum(newest - back, 0)[:, None], axis=1)
        alike &= (there == token) & (token >= 0)
        agree += alike
    place = jnp.argmax(agree * seen.shape[1] + slots, axis=1).astype(jnp.int32)
    return place, jnp.take_along_axis(agree, place[:, None], axis=1)[:, 0]


def _columns(tokens: jax.Array, first: jax.Array, count: int) -> jax.Array:
    """int32[B, count]: tokens[b, first[b]:], the last column where there are no more."""
    places = first[:, None] + jnp.arange(count)
    return jnp.take_along_axis(tokens, jnp.minimum(places, tokens.shape[1] - 1), axis=1)
