# SPDX-License-Identifier: Apache-2.0
"""From prompts and a cheap draft to the tokens that `generate` gives, in fewer passes of the model.

A draft guesses the next k tokens; the model reads them all in one pass and chooses a token after
each, exactly as `generate` would: with the same settings, keys and positions. A guess is accepted
while it is what the model chose; the first choice that differs is written in its place.

    written, not yet read  4      guesses  7 8 5     read in one pass   4 7 8 5
    chosen after these     7 8 9 .                   accepted 7 8, written 7 8 9

So the draft cannot change a text: greedy rows have the best tokens and drawn rows the very draws
that the key gives in `generate`, under every setting. One thing may: a pass over k + 1 tokens
rounds otherwise than k + 1 passes over one, which tips choices that are as good as equal.

Where Leviathan et al. 2023 (arXiv:2211.17192) accept a guess with probability min(1, p / q) and draw
from what is left of p otherwise, here guess and choice are made from p and q with common random
numbers, as in Daliri et al. 2024 (arXiv:2408.07978). Theirs is the maximal coupling: it accepts with
probability 1 - TV(p, q), the most there is, but its texts depend on the draft. `draw` inverts cumulative
sums, which agree at most that often: exactly where p = q, less where mass moves between far tokens.
"""

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from t5tasks.decode.constraint import Constraint
from t5tasks.decode.contract import Step, Verify, check_request, if_any
from t5tasks.decode.drafts import Draft, ModelDraft
from t5tasks.decode.sample import Generated, Request, State, append_where, begin, check_choice
from t5tasks.decode.settings import Settings
from t5tasks.decode.stops import Pieces


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Acceptance:
    """How well the draft guessed; `generate` needs a pass for every token but a text's first."""

    passes: jax.Array    # int32[B]  of the model over this row, its prompt's not counted
    drafted: jax.Array   # int32[B]  tokens guessed, those that no limit allows left out
    accepted: jax.Array  # int32[B]  of them


class Reading(NamedTuple):
    """What the model has read ahead, and what it says to it: what one turn of the loop hands to the next."""

    logits: jax.Array   # f32[B, k + 1, V]  after the row's newest token and after each guess
    guesses: jax.Array  # int32[B, k]
    counts: jax.Array   # int32[B]          guesses that are meant
    cache: Any          #                   the model's, with the newest token and these guesses in it
    memory: Any         #                   the draft's


def speculate(step: Step, verify: Verify, params: Any, prompt: jax.Array, prompt_lengths: jax.Array,
              cache: Any, draft: Draft, memory: Any, settings: Settings, keys: jax.Array, *,
              draft_tokens: int, max_new_tokens: int, eos: Any, pad: Any, samples: int = 1, alternatives: int = 0,
              pieces: Pieces | None = None, constraint: Constraint | None = None, keep_cache: bool = False,
              prefill_chunk: int = 0
              ) -> tuple[Generated, Acceptance]:
    """What `generate` gives, and how much of it the draft had guessed.

    Compiles once for each step, verify, kind of draft, draft_tokens, max_new_tokens, samples, alternatives,
    chunk and shape. Rows advance at their own pace; batch-mates change nothing but the number of turns.

    Args:
      step, verify: see `contract`; hashable, the same objects from call to call.
      cache: P rows with room for T + max_new_tokens + draft_tokens. With one sample it is used up, as the
        memory is, unless keep_cache is set.
      draft: see `drafts`: a ModelDraft or a PromptLookup.
      memory: the draft's, of P rows: a cache of its own with as much room; what PromptLookup says.
      draft_tokens: k, guesses a turn, at least 1.
      The others are those of `generate`.

    Raises: ValueError where shapes disagree, a cache is too small, or pieces are missing.
    """
    if draft_tokens < 1:
        raise ValueError(f"draft_tokens is {draft_tokens}, expected at least 1; use generate to draft none.")
    check_request(prompt, prompt_lengths, cache, max_new_tokens, prefill_chunk, draft_tokens)
    check_choice(prompt.shape[0], settings, keys, pieces, samples, alternatives, constraint, max_new_tokens)
    if isinstance(draft, ModelDraft):
        try:
            check_request(prompt, prompt_lengths, memory, max_new_tokens, prefill_chunk, draft_tokens)
        except ValueError as error:
            raise ValueError(f"the draft's memory: {error}") from error
    run = _speculate if keep_cache or samples > 1 else _speculate_in_place
    generated, counted, _ = run(
        step, verify, params, prompt, prompt_lengths, cache, draft, memory, settings, keys,
        jnp.asarray(eos, jnp.int32), pad, pieces, constraint, draft_tokens=draft_tokens, max_new_tokens=max_new_tokens,
        samples=samples, alternatives=alternatives, prefill_chunk=prefill_chunk)
    return generated, counted


def _run(step: Step, verify: Verify, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any,
         draft: Draft, memory: Any, settings: Settings, keys: jax.Array, eos: jax.Array, pad: Any,
         pieces: Pieces | None, constraint: Constraint | None, *, draft_tokens: int, max_new_tokens: int, samples: int,
         alternatives: int, prefill_chunk: int) -> tuple[Generated, Acceptance, Any]:
    logits, state, request = begin(
        step, params, prompt, prompt_lengths, cache, settings, keys, eos, pad, pieces, constraint,
        max_new_tokens=max_new_tokens, samples=samples, alternatives=alternatives, prefill_chunk=prefill_chunk)
    memory = draft.read(prompt, prompt_lengths, memory, prefill_chunk)
    if samples > 1:
        memory = draft.take(memory, jnp.repeat(jnp.arange(prompt.shape[0], dtype=jnp.int32), samples))
    batch = logits.shape[0]
    none = jnp.zeros(batch, jnp.int32)
    limits = jnp.minimum(settings.max_new, max_new_tokens)

    def turn(carry: tuple[State, Reading, Acceptance]) -> tuple[State, Reading, Acceptance]:
        state, ahead, counted = carry
        begun = ahead.cache.lengths - jnp.where(state.ended, 0, 1 + ahead.counts)
        state, read, accepted = accept(state, ahead.logits, ahead.guesses, ahead.counts, request)
        going = ~state.ended

        def read_ahead(ahead: Reading) -> Reading:
            guesses, counts, memory = draft.propose(state, request, draft_tokens, draft.rewind(state, ahead.memory))
            # The last token that the limit allows is chosen after the guess before it.
            counts = jnp.where(going, jnp.minimum(counts, limits - state.written.lengths - 1), 0)
            block = jnp.concatenate([state.last[:, None], guesses], axis=1)
            logits, cache = verify(params, block, jnp.where(going, 1 + counts, 0), ahead.cache)
            return Reading(logits.astype(jnp.float32), guesses, counts, cache, memory)

        rewound = ahead._replace(cache=ahead.cache.rewind(begun + read), counts=none)
        ahead = if_any(going, read_ahead, rewound)
        return state, ahead, Acceptance(counted.passes + going, counted.drafted + ahead.counts,
                                        counted.accepted + accepted)

    # The prompt's last token is the newest, and nothing has been guessed to follow it.
    first = jnp.zeros((batch, draft_tokens + 1, logits.shape[-1]), jnp.float32).at[:, 0].set(logits)
    ahead = Reading(first, jnp.zeros((batch, draft_tokens), jnp.int32), none, state.cache, memory)
    state, ahead, counted = jax.lax.while_loop(
        lambda carry: ~jnp.all(carry[0].ended), turn,
        (dataclasses.replace(state, cache=None), ahead, Acceptance(none, none, none)))
    return state.written, counted, (ahead.cache, ahead.memory) if samples == 1 else None


_STATIC = ("step", "verify", "draft_tokens", "max_new_tokens", "samples", "alternatives", "prefill_chunk")
_speculate = partial(jax.jit, static_argnames=_STATIC)(_run)
# The memory comes out again, so that what came in can hold it.
_speculate_in_place = partial(jax.jit, static_argnames=_STATIC, donate_argnames=("cache", "memory"))(_run)


def accept(state: State, logits: jax.Array, guesses: jax.Array, counts: jax.Array, request: Request
           ) -> tuple[State, jax.Array, jax.Array]:
    """Chooses a token after state.last and after each guess for as long as the guesses are right.

    Args:
      state: without a cache.
      logits: float[B, k + 1, V], after state.last and after each of guesses int32[B, k], of which
        counts int32[B] are meant.

    Returns: (state, read int32[B]: how many of the k + 1 tokens are part of the text and had to be read,
      accepted int32[B]: guesses that were chosen).
    """
    Carry = tuple[jax.Array, State, jax.Array, jax.Array, jax.Array]

    def choose(carry: Carry) -> Carry:
        place, state, chooses, read, accepted = carry
        column = partial(jax.lax.dynamic_index_in_dim, index=place, axis=1, keepdims=False)
        chosen = append_where(chooses, state, column(logits).astype(jnp.float32), request)
        wrote = chosen.written.lengths > state.written.lengths
        right = wrote & (place < counts) & (chosen.last == column(guesses))  # counts: the last place has none
        return place + 1, chosen, right & ~chosen.ended, read + chooses, accepted + right

    none = jnp.zeros(state.ended.shape, jnp.int32)
    _, state, _, read, accepted = jax.lax.while_loop(
        lambda carry: jnp.any(carry[2]), choose, (jnp.zeros((), jnp.int32), state, ~state.ended, none, none))
    return state, read, accepted
