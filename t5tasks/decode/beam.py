# SPDX-License-Identifier: Apache-2.0
"""From prompts to the sequences of the highest scores that beam search finds for each.

The semantics are those of transformers 5.23 (`GenerationMixin._beam_search`). A step ranks the
(1 + E) x K best continuations of a row's K beams, E being the number of EOS ids:

    K = 2, E = 1        the 4 best   a EOS  c  d      EOS is among the first K: it is finished
                        rank         0  1   2  3      a and c live on: the best K that do not end

A score is the sum of log-probabilities, EOS included, over (number of tokens) ** length_penalty.
Penalties, bans and forced tokens (`process`) act on log-probabilities, which are not normalised
again: a repetition penalty always multiplies, and a forced token adds 0.
What has probability 0 is neither a beam nor finished: transformers fills up with such sequences at
a score near -1e9 when fewer than K exist; here they have score -inf and length 0.
"""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from t5tasks.decode import constraint as constraints
from t5tasks.decode.choose import largest
from t5tasks.decode.constraint import Constraint
from t5tasks.decode.contract import Step, check_request, if_any, known
from t5tasks.decode.prefill import prefill
from t5tasks.decode.process import is_used, process_all
from t5tasks.decode.prompts import at_the_end
from t5tasks.decode.settings import Settings
from t5tasks.decode.settings import settings as make_settings

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
    places: jax.Array    # int32[B, K]     of each beam, the state of the constraint, see `constraint`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rules:
    """What decides between sequences; none of it is compiled in."""

    length_penalty: jax.Array      # f32[]
    stopping: jax.Array            # int32[]  a value of STOPPING
    settings: Settings             # B rows
    prompt: jax.Array              # int32[B, T] in `extend` as `prompts.at_the_end` makes it
    eos: jax.Array                 # int32[E]
    constraint: Constraint | None  # B rows; None: every row is free


def search(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any, *,
           beams: int, max_new_tokens: int, length_penalty: Any, early_stopping: bool | str,
           eos: Any, pad: Any, settings: Settings | None = None, num_return: int = 1,
           constraint: Constraint | None = None, keep_cache: bool = False, prefill_chunk: int = 0) -> Beams:
    """The `num_return` best of `beams` sequences that follow each prompt.

    The prompts are read once, at batch B; the cache is then expanded to B x K rows. Compiles once for
    each step, beams, max_new_tokens and shape, and works within a `jax.jit` of the caller's.

    Args:
      step: see `contract.Step`; hashable, the same object from call to call.
      prompt: int32[B, T], padded on the right; prompt_lengths: int32[B], each 1 .. T.
      cache: B rows with room for T + max_new_tokens; used up unless keep_cache is set.
      length_penalty: above 0 favours longer sequences, 0 compares plain sums.
      early_stopping: when a row is done. True: when K sequences are finished. False: when K are
        and the best beam, at its present length, does not beat the worst of them. "never": as
        False, but at the greatest length if length_penalty is above 0.
      eos: int32[E], ids that end a text; ids below 0 name no token, and E may be 0. pad: id.
      prefill_chunk: as `prefill` has it.
      settings: B rows whose penalties, bans, forced tokens, min_new and max_new act on each beam.
      constraint: of B rows (`constraint.constrain`): what each text has to be.

    Raises: ValueError where shapes or ranges are wrong, the cache is too small, the settings
      draw at random or have stop strings, or a row's constraint needs more tokens than its limit.
    """
    check_request(prompt, prompt_lengths, cache, max_new_tokens, prefill_chunk)
    if beams < 1 or not 1 <= num_return <= beams:
        raise ValueError(f"{num_return} sequences of {beams} beams were asked for, expected at "
                         "least 1 beam and no more sequences than beams.")
    if not isinstance(early_stopping, bool | str) or early_stopping not in STOPPING:
        raise ValueError(f"early_stopping is {early_stopping!r}, expected False, True or 'never'.")
    batch = prompt.shape[0]
    settings = make_settings(batch) if settings is None else settings
    _check_settings(settings, batch)
    if constraint is not None:
        constraints.check(constraint, settings, max_new_tokens)
    rules = Rules(
        length_penalty=jnp.asarray(length_penalty, jnp.float32),
        stopping=jnp.asarray(STOPPING[early_stopping], jnp.int32), settings=settings,
        prompt=jnp.asarray(prompt, jnp.int32), eos=jnp.asarray(eos, jnp.int32),
        constraint=constraint)
    run_search = _search if keep_cache else _search_in_place
    found, _ = run_search(step, params, prompt, prompt_lengths, cache, rules,
                          jnp.asarray(pad, jnp.int32), beams=beams, max_new_tokens=max_new_tokens,
                          prefill_chunk=prefill_chunk)
    return jax.tree.map(lambda array: array[:, :num_return], found)


def _check_settings(settings: Settings, batch: int) -> None:
    if settings.temperature.shape != (batch,):
        raise ValueError(f"settings are for {settings.temperature.shape} sequences, the prompt "
                         f"has {batch} rows; make them with settings({batch}, ...).")
    temperature, stops = known(settings.temperature), known(settings.stop_ends)
    if any(array is not None and array.any() for array in (temperature, stops)):
        raise ValueError("settings have a temperature or stop strings, which beam search does not "
                         "know; use generate, or leave them out.")


def _run(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any,
         rules: Rules, pad: jax.Array, *, beams: int, max_new_tokens: int, prefill_chunk: int
         ) -> tuple[Beams, Any]:
    batch = prompt.shape[0]
    logits, prompt_cache = prefill(step, params, prompt, prompt_lengths, cache, prefill_chunk)
    rules = dataclasses.replace(rules, prompt=at_the_end(prompt, prompt_lengths),
                                eos=rules.eos.reshape(-1))
    first_rows = jnp.arange(batch, dtype=jnp.int32)[:, None]
    rows = jnp.repeat(first_rows[:, 0], beams)

    def advance(carry: tuple[jax.Array, State, Any]) -> tuple[jax.Array, State, Any]:
        logits, state, cache = carry
        state, parents = extend(state, logits.reshape(batch, beams, -1), rules)

        def feed(read: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            cache = read[1].reorder((first_rows * beams + parents).reshape(-1))
            last = jax.lax.dynamic_index_in_dim(state.beams, state.count - 1, axis=2, keepdims=False)
            counts = jnp.repeat(state.open.astype(jnp.int32), beams)
            logits, cache = step(params, last.reshape(-1, 1), counts, cache)
            return logits.astype(jnp.float32), cache

        grows = state.open & (state.count < max_new_tokens)
        logits, cache = if_any(grows, feed, (logits, cache))
        return logits, state, cache

    begun = (logits[rows].astype(jnp.float32), start(batch, beams, max_new_tokens, rules.constraint),
             prompt_cache.expand(beams, max_new_tokens))
    _, state, _ = jax.lax.while_loop(
        lambda carry: jnp.any(carry[1].open) & (carry[1].count < max_new_tokens), advance, begun)
    return Beams(_fill(state, rules.eos, pad), state.lengths, state.scores), prompt_cache


_STATIC = ("step", "beams", "max_new_tokens", "prefill_chunk")
_search = partial(jax.jit, static_argnames=_STATIC)(_run)
# The prompts' cache comes out again, so that the memory that came in can hold it.
_search_in_place = partial(jax.jit, static_argnames=_STATIC, donate_argnames=("cache",))(_run)


def start(batch: int, beams: int, max_new_tokens: int, constraint: Constraint | None = None) -> State:
    """One beam a row, without a token."""
    return State(
        beams=jnp.zeros((batch, beams, max_new_tokens), jnp.int32),
        sums=jnp.full((batch, beams), -jnp.inf).at[:, 0].set(0.0),
        finished=jnp.zeros((batch, beams, max_new_tokens), jnp.int32),
        lengths=jnp.zeros((batch, beams), jnp.int32),
        scores=jnp.full((batch, beams), -jnp.inf),
        open=jnp.ones(batch, bool),
        count=jnp.zeros((), jnp.int32),
        places=jnp.repeat(constraints.begin(constraint, batch), beams).reshape(batch, beams))


def extend(state: State, logits: jax.Array, rules: Rules) -> tuple[State, jax.Array]:
    """One token more, from logits f32[B, K, V] of the beams.

    Returns: (state, parents int32[B, K]: the beam that each beam continues).
    """
    beams, limit = state.beams.shape[1:]
    logits, shifts = _processed(state, logits, rules)
    sums, parents, tokens = largest(logits, shifts, state.sums,
                                    (1 + max(1, rules.eos.shape[0])) * beams)
    count = state.count + 1
    at_limit = count >= jnp.minimum(rules.settings.max_new, limit)
    ends = jnp.any(tokens[..., None] == rules.eos, axis=-1) | at_limit[:, None]
    grown = jnp.take_along_axis(state.beams, parents[..., None], axis=1)
    grown = jax.lax.dynamic_update_index_in_dim(grown, tokens, state.count, axis=2)

    finished = _finish(state, grown, sums, ends, count, rules)
    sums, order = jax.lax.top_k(jnp.where(ends, -jnp.inf, sums), beams)
    places = jnp.take_along_axis(state.places, parents, axis=1)
    places = constraints.move(rules.constraint, places.reshape(-1), tokens.reshape(-1)).reshape(places.shape)
    state = dataclasses.replace(
        finished, count=count, sums=sums, places=jnp.take_along_axis(places, order, axis=1),
        beams=jnp.take_along_axis(grown, order[..., None], axis=1))
    state = dataclasses.replace(state, open=state.open & ~_settled(state, rules))
    return state, jnp.take_along_axis(parents, order, axis=1)


def _processed(state: State, logits: jax.Array, rules: Rules) -> tuple[jax.Array, jax.Array]:
    """(f32[B, K, V], f32[B, K]): what to rank, and what to take off it for log-probabilities."""
    batch, beams, vocabulary = logits.shape
    shifts = jax.nn.logsumexp(logits, axis=-1)
    tokens = state.beams.reshape(batch * beams, -1)
    counts = jnp.full(batch, state.count)

    def act() -> tuple[jax.Array, jax.Array]:
        settings, prompt = jax.tree.map(lambda array: jnp.repeat(array, beams, axis=0),
                                        (rules.settings, rules.prompt))
        logprobs = (logits - shifts[..., None]).reshape(-1, vocabulary)
        ranked = process_all(logprobs, settings, prompt, tokens, jnp.repeat(counts, beams), rules.eos)
        return ranked.reshape(logits.shape), jnp.zeros_like(shifts)

    used = is_used(rules.settings, state.beams[:, 0], counts)
    ranked, shifts = jax.lax.cond(used, act, lambda: (logits, shifts))
    if rules.constraint is not None:
        left = jnp.repeat(constraints.left(rules.settings, counts, tokens.shape[1]), beams)
        ranked = constraints.mask(ranked.reshape(-1, vocabulary), rules.constraint, state.places.reshape(-1), left,
                                  rules.eos).reshape(logits.shape)
    return ranked, shifts


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
    limit = jnp.minimum(rules.settings.max_new, state.beams.shape[2])
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
