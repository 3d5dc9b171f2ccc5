# SPDX-License-Identifier: Apache-2.0
"""From prompts to the sequences of the highest scores that beam search finds for each.

The semantics are those of transformers 5.23 (`GenerationMixin._beam_search`). A step ranks the
(1 + E) x K best continuations of a row's K beams, E being the number of EOS ids:

    K = 2, E = 1        the 4 best   a EOS  c  d      EOS is among the first K: it is finished
                        rank         0  1   2  3      a and c live on: the best K that do not end

A score is the sum of log-probabilities, EOS included, over (number of tokens) ** length_penalty.
What has probability 0 is neither a beam nor finished: transformers fills up with such sequences at
a score near -1e9 when fewer than K exist; here they have score -inf and length 0.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from t5tasks.decode.choose import largest
from t5tasks.decode.contract import Step, check_request
from t5tasks.decode.warp import suppress

STOPPING = {False: 0, True: 1, "never": 2}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Beams:
    """The R best sequences of each prompt, the best first."""

    tokens: jax.Array   # int32[B, R, N]  after the end pad, or EOS where pad is 0
    lengths: jax.Array  # int32[B, R]     EOS included; 0: fewer than R sequences exist
    scores: jax.Array   # f32[B, R]       -inf where the length is 0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """A search under way; beams and finished sequences are in descending order."""

    beams: jax.Array     # int32[B, K, N]  tokens of what still grows
    sums: jax.Array      # f32[B, K]       their log-probabilities, -inf: no beam
    finished: jax.Array  # int32[B, K, N]
    lengths: jax.Array   # int32[B, K]     of the finished ones
    scores: jax.Array    # f32[B, K]       of the finished ones, -inf: free
    open: jax.Array      # bool[B]         may the finished ones still change?
    count: jax.Array     # int32[]         tokens of each beam


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rules:
    """What decides between sequences; none of it is compiled in."""

    length_penalty: jax.Array  # f32[]
    stopping: jax.Array        # int32[]  a value of STOPPING
    min_new: jax.Array         # int32[B] no EOS before that many tokens
    eos: jax.Array             # int32[E]


def search(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any, *,
           beams: int, max_new_tokens: int, length_penalty: Any, early_stopping: bool | str,
           eos: Any, pad: Any, min_new: Any = 0, num_return: int = 1) -> Beams:
    """The `num_return` best of `beams` sequences that follow each prompt.

    The prompts are read once, at batch B; the cache is then taken to B x K rows. Compiles once for
    each step, beams, max_new_tokens and shape, and works within a `jax.jit` of the caller's.

    Args:
      step: see `contract.Step`; hashable, the same object from call to call.
      prompt: int32[B, T], padded on the right; prompt_lengths: int32[B], each 1 .. T.
      cache: B rows with room for T + max_new_tokens.
      length_penalty: above 0 favours longer sequences, 0 compares plain sums.
      early_stopping: when a row is done. True: when K sequences are finished. False: when K are
        and the best beam, at its present length, does not beat the worst of them. "never": as
        False, but at the greatest length if length_penalty is above 0.
      eos: int32[E], ids that end a text; ids below 0 name no token, and E may be 0. pad: id.
      min_new: int or int32[B], tokens before which EOS has probability 0 (the others' stay).

    Raises: ValueError where shapes or ranges are wrong or the cache is too small.
    """
    check_request(prompt, prompt_lengths, cache, max_new_tokens)
    if beams < 1 or not 1 <= num_return <= beams:
        raise ValueError(f"{num_return} sequences of {beams} beams were asked for, expected at "
                         "least 1 beam and no more sequences than beams.")
    if not isinstance(early_stopping, bool | str) or early_stopping not in STOPPING:
        raise ValueError(f"early_stopping is {early_stopping!r}, expected False, True or 'never'.")
    batch = prompt.shape[0]
    rules = Rules(
        length_penalty=jnp.asarray(length_penalty, jnp.float32),
        stopping=jnp.asarray(STOPPING[early_stopping], jnp.int32),
        min_new=jnp.broadcast_to(jnp.asarray(min_new, jnp.int32), (batch,)),
        eos=jnp.asarray(eos, jnp.int32).reshape(-1))
    found = _search(step, params, prompt, prompt_lengths, cache, rules,
                    jnp.asarray(pad, jnp.int32), beams=beams, max_new_tokens=max_new_tokens)
    return jax.tree.map(lambda array: array[:, :num_return], found)


@partial(jax.jit, static_argnames=("step", "beams", "max_new_tokens"))
def _search(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any,
            rules: Rules, pad: jax.Array, *, beams: int, max_new_tokens: int) -> Beams:
    batch = prompt.shape[0]
    logits, cache = step(params, prompt, prompt_lengths, cache)
    state, _ = extend(start(batch, beams, max_new_tokens), logits[:, None], rules)
    first_rows = jnp.arange(batch, dtype=jnp.int32)[:, None]
    cache = cache.take(jnp.repeat(first_rows[:, 0], beams))

    def advance(carry: tuple[State, Any]) -> tuple[State, Any]:
        state, cache = carry
        last = jax.lax.dynamic_index_in_dim(state.beams, state.count - 1, axis=2, keepdims=False)
        counts = jnp.repeat(state.open.astype(jnp.int32), beams)
        logits, cache = step(params, last.reshape(-1, 1), counts, cache)
        state, parents = extend(state, logits.reshape(batch, beams, -1), rules)
        return state, cache.reorder((first_rows * beams + parents).reshape(-1))

    state, _ = jax.lax.while_loop(
        lambda carry: jnp.any(carry[0].open) & (carry[0].count < max_new_tokens),
        advance, (state, cache))
    return Beams(_fill(state, rules.eos, pad), state.lengths, state.scores)


def start(batch: int, beams: int, max_new_tokens: int) -> State:
    """One beam a row, without a token."""
    return State(
        beams=jnp.zeros((batch, beams, max_new_tokens), jnp.int32),
        sums=jnp.full((batch, beams), -jnp.inf).at[:, 0].set(0.0),
        finished=jnp.zeros((batch, beams, max_new_tokens), jnp.int32),
        lengths=jnp.zeros((batch, beams), jnp.int32),
        scores=jnp.full((batch, beams), -jnp.inf),
        open=jnp.ones(batch, bool),
        count=jnp.zeros((), jnp.int32))


def extend(state: State, logits: jax.Array, rules: Rules) -> tuple[State, jax.Array]:
    """One token more, from logits float[B, K, V] of the beams ([B, 1, V] while there is one).

    Returns: (state, parents int32[B, K]: the beam that each beam continues).
    """
    logits = logits.astype(jnp.float32)
    _, given, vocabulary = logits.shape
    beams, limit = state.beams.shape[1:]
    shifts = jax.nn.logsumexp(logits, axis=-1)  # before EOS is taken out: the others keep theirs
    too_early = jnp.repeat(state.count < rules.min_new, given)
    logits = suppress(logits.reshape(-1, vocabulary), rules.eos, too_early).reshape(logits.shape)
    sums, parents, tokens = largest(logits, shifts, state.sums[:, :given],
                                    (1 + max(1, rules.eos.shape[0])) * beams)
    count = state.count + 1
    ends = jnp.any(tokens[..., None] == rules.eos, axis=-1) | (count >= limit)
    grown = jnp.take_along_axis(state.beams, parents[..., None], axis=1)
    grown = jax.lax.dynamic_update_index_in_dim(grown, tokens, state.count, axis=2)

    finished = _finish(state, grown, sums, ends, count, rules)
    sums, order = jax.lax.top_k(jnp.where(ends, -jnp.inf, sums), beams)
    state = dataclasses.replace(
        finished, count=count, sums=sums,
        beams=jnp.take_along_axis(grown, order[..., None], axis=1))
    state = dataclasses.replace(state, open=state.open & ~_settled(state, rules))
    return state, jnp.take_along_axis(parents, order, axis=1)


def _finish(state: State, grown: jax.Array, sums: jax.Array, ends: jax.Array, count: jax.Array,
            rules: Rules) -> State:
    """Takes those of grown int32[B, M, N] in that end, rank among the first K and score enough."""
    beams = state.scores.shape[1]
    enters = ends & (jnp.arange(sums.shape[1]) < beams) & state.open[:, None]
    entering = jnp.where(enters, sums / count.astype(jnp.float32) ** rules.length_penalty, -jnp.inf)
    scores, order = jax.lax.top_k(jnp.concatenate([state.scores, entering], axis=1), beams)
    sequences = jnp.concatenate([state.finished, grown], axis=1)
    lengths = jnp.concatenate([state.lengths, jnp.broadcast_to(count, sums.shape)], axis=1)
    return dataclasses.replace(
        state, scores=scores,
        finished=jnp.take_along_axis(sequences, order[..., None], axis=1),
        lengths=jnp.where(scores > -jnp.inf, jnp.take_along_axis(lengths, order, axis=1), 0))


def _settled(state: State, rules: Rules) -> jax.Array:
    """bool[B]: rows whose finished sequences will not change."""
    limit = state.beams.shape[2]
    best, worst = state.sums[:, 0], state.scores[:, -1]
    hopeful = (rules.stopping == STOPPING["never"]) & (rules.length_penalty > 0)
    length = jnp.where(hopeful, limit, state.count).astype(jnp.float32)
    beaten = best / length ** rules.length_penalty <= worst
    full = worst > -jnp.inf
    return (full & (beaten | (rules.stopping == STOPPING[True]))) | (best == -jnp.inf)


def _fill(state: State, eos: jax.Array, pad: jax.Array) -> jax.Array:
    """The finished tokens, padded; transformers takes a pad id of 0 for none and fills with EOS."""
    filler = jnp.where((pad == 0) & (eos[0] >= 0), eos[0], pad) if eos.shape[0] else pad
    inside = jnp.arange(state.finished.shape[2]) < state.lengths[..., None]
    return jnp.where(inside, state.finished, filler)
