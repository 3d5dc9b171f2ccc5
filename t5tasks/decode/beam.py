# SPDX-License-Identifier: Apache-2.0
"""From prompts to the sequences of the highest scores that beam search finds for each.

The semantics are those of transformers 5.23 (`GenerationMixin._beam_search`). A step ranks the
(1 + E) x K best continuations of a row's K beams, E being the number of EOS ids:

    K = 2, E = 1        the 4 best   a EOS  c  d      EOS is among the first K: it is finished
                        rank         0  1   2  3      a and c live on: the best K that do not end

In diverse beam search (Vijayakumar et al. 2016, arXiv:1610.02424, section 4, with the Hamming
diversity) the K beams are G groups of k = K / G, each a search of its own over its own finished
sequences. Within a step the groups go one after the other, and from a group's log-probabilities
is taken

    diversity_penalty * (how many beams of the row's earlier groups were just given that token)

before any other setting acts; it stays in the sums, and so in the scores that rank all groups'
sequences at the end. So it was in transformers up to 4.55 (`_group_beam_search`), but for two things:
a group stops by the rule below, as every search here does, and one that has stopped gives out no
token, where the padding of such a group counted there.

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
    """Searches under way; beams and finished sequences are in descending order.

    With G groups a prompt has G rows, side by side: R = B * G, each of k = K / G beams.
    """

    beams: jax.Array     # int32[R, k, N]  tokens of what still grows
    sums: jax.Array      # f32[R, k]       their log-probabilities, -inf: no beam
    finished: jax.Array  # int32[R, k, N]
    lengths: jax.Array   # int32[R, k]     of the finished ones
    scores: jax.Array    # f32[R, k]       of the finished ones, -inf: free
    open: jax.Array      # bool[R]         may the finished ones still change?
    count: jax.Array     # int32[]         tokens of each beam
    places: jax.Array    # int32[R, k]     of each beam, the state of the constraint, see `constraint`


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Rules:
    """What decides between sequences; none of it is compiled in."""

    length_penalty: jax.Array      # f32[]
    diversity_penalty: jax.Array   # f32[]
    stopping: jax.Array            # int32[]  a value of STOPPING
    settings: Settings             # B rows
    prompt: jax.Array              # int32[B, T] in `extend` as `prompts.at_the_end` makes it
    eos: jax.Array                 # int32[E]
    constraint: Constraint | None  # B rows; None: every row is free


def search(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any, *,
           beams: int, max_new_tokens: int, length_penalty: Any, early_stopping: bool | str,
           eos: Any, pad: Any, settings: Settings | None = None, num_return: int = 1,
           groups: int = 1, diversity_penalty: Any = 0.0, constraint: Constraint | None = None,
           keep_cache: bool = False, prefill_chunk: int = 0) -> Beams:
    """The `num_return` best of `beams` sequences that follow each prompt.

    The prompts are read once, at batch B; the cache is then expanded to B x K rows. Compiles once for
    each step, beams, groups, max_new_tokens and shape, and works within a `jax.jit` of the caller's.

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
      groups: of beams; above 1, what each finds differs by diversity_penalty >= 0 (see above), of
        which 0 lets all find the same.
      constraint: of B rows (`constraint.constrain`): what each text has to be.

    Raises: ValueError where shapes or ranges are wrong, the cache is too small, the settings
      draw at random or have stop strings, or a row's constraint needs more tokens than its limit.
    """
    check_request(prompt, prompt_lengths, cache, max_new_tokens, prefill_chunk)
    check_beams(beams, num_return, groups, early_stopping, diversity_penalty)
    batch = prompt.shape[0]
    settings = make_settings(batch) if settings is None else settings
    _check_settings(settings, batch)
    if constraint is not None:
        constraints.check(constraint, settings, max_new_tokens)
    rules = Rules(
        length_penalty=jnp.asarray(length_penalty, jnp.float32),
        diversity_penalty=jnp.asarray(diversity_penalty, jnp.float32),
        stopping=jnp.asarray(STOPPING[early_stopping], jnp.int32), settings=settings,
        prompt=jnp.asarray(prompt, jnp.int32), eos=jnp.asarray(eos, jnp.int32),
        constraint=constraint)
    run_search = _search if keep_cache else _search_in_place
    found, _ = run_search(step, params, prompt, prompt_lengths, cache, rules,
                          jnp.asarray(pad, jnp.int32), beams=beams, groups=groups,
                          max_new_tokens=max_new_tokens, prefill_chunk=prefill_chunk)
    return jax.tree.map(lambda array: array[:, :num_return], found)


def check_beams(beams: int, num_return: int, groups: int, early_stopping: Any,
                diversity_penalty: Any) -> None:
    """Refuses what no search can be asked for, as `search` does; ValueError."""
    if beams < 1 or not 1 <= num_return <= beams:
        raise ValueError(f"{num_return} sequences of {beams} beams were asked for, expected at "
                         "least 1 beam and no more sequences than beams.")
    if groups < 1 or beams % groups:
        raise ValueError(f"{beams} beams cannot be {groups} groups, expected a number of groups "
                         "that divides the beams.")
    if not isinstance(early_stopping, bool | str) or early_stopping not in STOPPING:
        raise ValueError(f"early_stopping is {early_stopping!r}, expected False, True or 'never'.")
    penalty = known(diversity_penalty)
    if penalty is not None and not 0 <= penalty < float("inf"):
        raise ValueError(f"diversity_penalty is {penalty}, expected a number from 0.")
    if penalty is not None and penalty > 0 and groups == 1:
        raise ValueError(f"diversity_penalty is {penalty}, which acts between groups of beams, and "
                         "there is 1; ask for more groups, or leave it at 0.")


def _check_settings(settings: Settings, batch: int) -> None:
    if settings.temperature.shape != (batch,):
        raise ValueError(f"settings are for {settings.temperature.shape} sequences, the prompt "
                         f"has {batch} rows; make them with settings({batch}, ...).")
    temperature, stops = known(settings.temperature), known(settings.stop_ends)
    if any(array is not None and array.any() for array in (temperature, stops)):
        raise ValueError("settings have a temperature or stop strings, which beam search does not "
                         "know; use generate, or leave them out.")


def _run(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any,
         rules: Rules, pad: jax.Array, *, beams: int, groups: int, max_new_tokens: int,
         prefill_chunk: int) -> tuple[Beams, Any]:
    batch, size = prompt.shape[0], beams // groups
    logits, prompt_cache = prefill(step, params, prompt, prompt_lengths, cache, prefill_chunk)
    rules = dataclasses.replace(rules, prompt=at_the_end(prompt, prompt_lengths),
                                eos=rules.eos.reshape(-1))
    rows = jnp.repeat(jnp.arange(batch, dtype=jnp.int32), beams)
    first_beams = jnp.arange(batch * groups, dtype=jnp.int32)[:, None] * size

    def advance(carry: tuple[jax.Array, State, Any]) -> tuple[jax.Array, State, Any]:
        logits, state, cache = carry
        state, parents = extend_in_turn(state, logits.reshape(batch * groups, size, -1), rules, groups)

        def feed(read: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            cache = read[1].reorder((first_beams + parents).reshape(-1))
            last = jax.lax.dynamic_index_in_dim(state.beams, state.count - 1, axis=2, keepdims=False)
            counts = jnp.repeat(state.open.astype(jnp.int32), size)
            logits, cache = step(params, last.reshape(-1, 1), counts, cache)
            return logits.astype(jnp.float32), cache

        grows = state.open & (state.count < max_new_tokens)
        logits, cache = if_any(grows, feed, (logits, cache))
        return logits, state, cache

    begun = (logits[rows].astype(jnp.float32),
             start(batch * groups, size, max_new_tokens, rules.constraint),
             prompt_cache.expand(beams, max_new_tokens))
    _, state, _ = jax.lax.while_loop(
        lambda carry: jnp.any(carry[1].open) & (carry[1].count < max_new_tokens), advance, begun)
    return _ranked(Beams(_fill(state, rules.eos, pad), state.lengths, state.scores), groups), prompt_cache


_STATIC = ("step", "beams", "groups", "max_new_tokens", "prefill_chunk")
_search = partial(jax.jit, static_argnames=_STATIC)(_run)
# The prompts' cache comes out again, so that the memory that came in can hold it.
_search_in_place = partial(jax.jit, static_argnames=_STATIC, donate_argnames=("cache",))(_run)


def start(rows: int, beams: int, max_new_tokens: int, constraint: Constraint | None = None) -> State:
    """One beam a row, without a token."""
    places = constraints.begin(constraint, rows)  # of the prompts, which may have several rows
    return State(
        beams=jnp.zeros((rows, beams, max_new_tokens), jnp.int32),
        sums=jnp.full((rows, beams), -jnp.inf).at[:, 0].set(0.0),
        finished=jnp.zeros((rows, beams, max_new_tokens), jnp.int32),
        lengths=jnp.zeros((rows, beams), jnp.int32),
        scores=jnp.full((rows, beams), -jnp.inf),
        open=jnp.ones(rows, bool),
        count=jnp.zeros((), jnp.int32),
        places=jnp.repeat(places, rows * beams // places.shape[0]).reshape(rows, beams))


def extend_in_turn(state: State, logits: jax.Array, rules: Rules, groups: int
                   ) -> tuple[State, jax.Array]:
    """As `extend`, for R = B * G rows of which a prompt's choose one after the other."""
    if groups == 1:
        return extend(state, logits, rules)
    batch, vocabulary = logits.shape[0] // groups, logits.shape[-1]
    rows = jnp.arange(batch)[:, None]

    def apart(array: jax.Array) -> jax.Array:  # the count is one for all
        return (jnp.broadcast_to(array, groups) if array.ndim == 0
                else array.reshape(batch, groups, *array.shape[1:]).swapaxes(0, 1))

    def together(array: jax.Array) -> jax.Array:
        return array[0] if array.ndim == 1 else array.swapaxes(0, 1).reshape(-1, *array.shape[2:])

    def extend_group(given: jax.Array, group: tuple[State, jax.Array]
                     ) -> tuple[jax.Array, tuple[State, jax.Array]]:
        before, logits = group
        after, parents = extend(before, logits, rules, rules.diversity_penalty * given)
        newest = jax.lax.dynamic_index_in_dim(after.beams, before.count, axis=2, keepdims=False)
        lives = before.open[:, None] & (after.sums > -jnp.inf)
        return given.at[rows, newest].add(lives.astype(jnp.float32)), (after, parents)

    none_given = jnp.zeros((batch, vocabulary))
    _, grown = jax.lax.scan(extend_group, none_given, jax.tree.map(apart, (state, logits)))
    state, parents = jax.tree.map(together, grown)
    return state, parents


def extend(state: State, logits: jax.Array, rules: Rules, takes: jax.Array | None = None
           ) -> tuple[State, jax.Array]:
    """One token more, from logits f32[B, K, V] of the beams.

    Args: takes: f32[B, V], what diversity takes off the log-probabilities; None: nothing.
    Returns: (state, parents int32[B, K]: the beam that each beam continues).
    """
    beams, limit = state.beams.shape[1:]
    logits, shifts = _processed(state, logits, rules, takes)
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


def _processed(state: State, logits: jax.Array, rules: Rules, takes: jax.Array | None
               ) -> tuple[jax.Array, jax.Array]:
    """(f32[B, K, V], f32[B, K]): what to rank, and what to take off it for log-probabilities."""
    batch, beams, vocabulary = logits.shape
    shifts = jax.nn.logsumexp(logits, axis=-1)
    logits = logits if takes is None else logits - takes[:, None]
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


def _ranked(found: Beams, groups: int) -> Beams:
    """The sequences f[B * G, k, ...] of all groups of a prompt as one ranking, f[B, K, ...]."""
    if groups == 1:
        return found
    found = jax.tree.map(lambda array: array.reshape(-1, groups * array.shape[1], *array.shape[2:]), found)
    scores, order = jax.lax.top_k(found.scores, found.scores.shape[1])
    return Beams(jnp.take_along_axis(found.tokens, order[..., None], axis=1),
                 jnp.take_along_axis(found.lengths, order, axis=1), scores)
