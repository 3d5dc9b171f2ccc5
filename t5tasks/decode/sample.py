# SPDX-License-Identifier: Apache-2.0
"""From prompts to the tokens that follow them, each sequence choosing by its own settings."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks.decode import constraint as constraints
from t5tasks.decode import stops
from t5tasks.decode.choose import draw, first_largest, largest
from t5tasks.decode.constraint import Constraint
from t5tasks.decode.contract import Step, check_request, if_any, known
from t5tasks.decode.prefill import prefill
from t5tasks.decode.process import process
from t5tasks.decode.prompts import NOTHING, at_the_end
from t5tasks.decode.settings import UNLIMITED, Settings
from t5tasks.decode.stops import Pieces
from t5tasks.decode.warp import warp

AT_LIMIT, AT_EOS, AT_STOP, FORBIDDEN = range(4)  # why a text ended; FORBIDDEN: no token was allowed


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Generated:
    """What follows each prompt; with n samples a prompt, B counts these, a prompt's side by side.

        tokens  = [[17, 4, 1, 0, 0],   EOS 1, pad 0
                   [ 9, 8, 7, 6, 5]]
        lengths = [3, 5]               EOS counts
    """

    tokens: jax.Array        # int32[B, N]     pad after the end
    lengths: jax.Array       # int32[B]        tokens written, EOS or a stop string's last included
    logprobs: jax.Array      # f32[B, N]       the model's own, before any setting acts; 0 after the end
    reasons: jax.Array       # int32[B]        AT_LIMIT, AT_EOS, AT_STOP or FORBIDDEN
    top_tokens: jax.Array    # int32[B, N, A]  the model's own most probable, the best first; 0 after the end
    top_logprobs: jax.Array  # f32[B, N, A]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Request:
    """What stays the same while sequences grow."""

    settings: Settings             #              B rows
    keys: jax.Array                # uint32[B, 2]
    prompt: jax.Array              # int32[B, T]  as `prompts.at_the_end` makes it
    eos: jax.Array                 # int32[E]
    pieces: Pieces | None          #              None: there are no stop strings
    constraint: Constraint | None = None  # None: texts are free

    def place(self, rows: jax.Array, other: "Request") -> "Request":
        """Rows int32[R] become those of `other`, whose prompts may be narrower; what all share stays."""
        missing = self.prompt.shape[1] - other.prompt.shape[1]
        prompt = jnp.pad(other.prompt, ((0, 0), (missing, 0)), constant_values=NOTHING)
        settings, keys, prompt = put((self.settings, self.keys, self.prompt), rows,
                                     (other.settings, other.keys, prompt))
        return dataclasses.replace(self, settings=settings, keys=keys, prompt=prompt)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Sequences under way; rows need not have begun together."""

    written: Generated   # so far
    last: jax.Array      # int32[B]     the newest token, not yet fed to the model
    ended: jax.Array     # bool[B]
    progress: jax.Array  # bool[B, S]   of the stop strings, see `stops`
    guide: jax.Array     # int32[B]     the state of the constraint, see `constraint`
    cache: Any           #              B rows

    def place(self, rows: jax.Array, other: "State") -> "State":
        """Rows int32[R] become those of `other`, whose cache may be smaller."""
        held, new = (dataclasses.replace(state, cache=None) for state in (self, other))
        return dataclasses.replace(put(held, rows, new), cache=self.cache.place(rows, other.cache))


def put(held: Any, rows: jax.Array, new: Any) -> Any:
    """The tree `held` of [B, ...], its rows int32[R] those of the tree `new` of [R, ...]."""
    return jax.tree.map(lambda array, part: array.at[rows].set(part), held, new)


def keys(seeds: Any, samples: int = 1) -> jax.Array:
    """uint32[B * samples, 2]: the PRNG key of each sequence from its own seed, int[B].

    The first sample of a seed is what the seed gives alone; the others' keys are folded from it.
    """
    seeds = np.asarray(seeds)
    return _keys(jnp.asarray(np.repeat(seeds, samples)),
                 jnp.asarray(np.tile(np.arange(samples, dtype=np.uint32), seeds.size)))


@jax.jit
def _keys(seeds: jax.Array, samples: jax.Array) -> jax.Array:
    def one(seed: jax.Array, sample: jax.Array) -> jax.Array:
        key = jax.random.key(seed, impl="threefry2x32")
        folded = jax.random.key_data(jax.random.fold_in(key, sample))
        return jnp.where(sample > 0, folded, jax.random.key_data(key))

    return jax.vmap(one)(seeds, samples)


def generate(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any,
             settings: Settings, keys: jax.Array, *, max_new_tokens: int, eos: Any, pad: Any,
             samples: int = 1, alternatives: int = 0, pieces: Pieces | None = None,
             constraint: Constraint | None = None, keep_cache: bool = False, prefill_chunk: int = 0) -> Generated:
    """Continues each prompt until EOS, a stop string, its own max_new, or max_new_tokens.

    One pass over the prompts (`prefill`), then a loop on the device until every sequence has ended. A
    sequence's text depends on its prompt, its settings and its key only, never on its batch-mates.
    Compiles once for each step, max_new_tokens, samples, alternatives, chunk and shape; works within a
    `jax.jit` of the caller's too, who may then donate the cache.

    Args:
      step: see `contract.Step`; hashable, the same object from call to call.
      prompt: int32[P, T], padded on the right (`prompts.from_padded`); prompt_lengths: int32[P],
        each 1 .. T.
      cache: P rows with room for T + max_new_tokens (`contract.capacity`). With one sample it is used up, so that the
        loop works in its memory, unless keep_cache is set.
      settings: B = P * samples rows (`settings.settings`).
      keys: uint32[B, 2] (`keys`), unused by greedy rows.
      eos: int32[E], ids that end a text; ids below 0 name no token, and E may be 0. pad: id.
      samples: sequences of each prompt, which is read once.
      alternatives: most probable tokens to report with each token.
      pieces: the bytes of the tokens (`stops.pieces`), needed where settings have stop strings.
      prefill_chunk: tokens of a prompt read at once, 0 for all.
      constraint: of B rows (`constraint.constrain`): what each text has to be.

    Raises: ValueError where shapes disagree, the cache is too small, pieces are missing, or a row's
      constraint needs more tokens than its limit.
    """
    check_request(prompt, prompt_lengths, cache, max_new_tokens, prefill_chunk)
    check_choice(prompt.shape[0], settings, keys, pieces, samples, alternatives, constraint, max_new_tokens)
    run = _generate if keep_cache or samples > 1 else _generate_in_place
    generated, _ = run(
        step, params, prompt, prompt_lengths, cache, settings, keys,
        jnp.asarray(eos, jnp.int32), pad, pieces, constraint, max_new_tokens=max_new_tokens,
        samples=samples, alternatives=alternatives, prefill_chunk=prefill_chunk)
    return generated


def check_choice(prompts: int, settings: Settings, keys: jax.Array, pieces: Pieces | None, samples: int,
                 alternatives: int, constraint: Constraint | None, max_new_tokens: int) -> None:
    """Refuses settings, keys, pieces or a constraint that do not fit `samples` sequences of each prompt."""
    if samples < 1 or alternatives < 0:
        raise ValueError(f"samples is {samples} and alternatives {alternatives}, expected at least "
                         "1 and 0.")
    batch = prompts * samples
    if settings.temperature.shape != (batch,):
        raise ValueError(f"settings are for {settings.temperature.shape} sequences, the request "
                         f"has {batch}; make them with settings({batch}, ...).")
    if np.shape(keys) != (batch, 2):
        raise ValueError(f"keys have shape {np.shape(keys)}, expected [{batch}, 2], one PRNG key "
                         "a sequence; make them with keys(seeds, samples).")
    ends = known(settings.stop_ends)
    if pieces is None and ends is not None and ends.any():
        raise ValueError("settings have stop strings, which need the bytes of the tokens; pass "
                         "pieces=decode.pieces(decode.token_bytes(tokenizer)).")
    if constraint is not None:
        constraints.check(constraint, settings, max_new_tokens)


def begin(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any,
          settings: Settings, keys: jax.Array, eos: jax.Array, pad: Any, pieces: Pieces | None,
          constraint: Constraint | None = None, *, max_new_tokens: int, samples: int = 1, alternatives: int = 0,
          prefill_chunk: int = 0, seen: jax.Array | None = None) -> tuple[jax.Array, State, Request]:
    """Reads the prompts: (f32[B, V], what `append` chooses from; sequences without a token; their request).

    The arguments are those of `generate`; nothing is checked. Where the cache holds the beginning of
    the prompts, `seen` int32[P, T2] has them whole, as `prompts.at_the_end` makes it.
    """
    logits, cache = prefill(step, params, prompt, prompt_lengths, cache, prefill_chunk)
    seen = at_the_end(prompt, prompt_lengths) if seen is None else seen
    if samples > 1:
        rows = jnp.repeat(jnp.arange(prompt.shape[0], dtype=jnp.int32), samples)
        logits, seen, cache = logits[rows], seen[rows], cache.take(rows)
    request = Request(settings, keys, seen, eos.reshape(-1), pieces, constraint)
    return logits, start(request, max_new_tokens, alternatives, pad, cache), request


def extend(step: Step, params: Any, logits: jax.Array, state: State, request: Request,
           steps: Any = UNLIMITED, ends: Any = UNLIMITED) -> tuple[jax.Array, State]:
    """A segment: (logits, state) after more tokens of every sequence under way, for a program of the caller's.

    It ends when all sequences have ended, when it has written `steps` tokens of each that has not,
    or when `ends` of them have ended in it. What comes out goes into the next segment: any cuts give
    the texts of one unbounded segment, token for token.

    Args:
      logits: f32[B, V], from `begin` or the segment before; those of an ended row mean nothing.
      steps, ends: int32[], at least 1; neither is compiled in.
    """
    before = jnp.sum(state.ended)

    def goes_on(carry: tuple[jax.Array, jax.Array, State]) -> jax.Array:
        count, _, state = carry
        ended = jnp.sum(state.ended)
        return (ended < state.ended.shape[0]) & (count < steps) & (ended - before < ends)

    def turn(carry: tuple[jax.Array, jax.Array, State]) -> tuple[jax.Array, jax.Array, State]:
        count, logits, state = carry
        state = append(state, logits, request)

        def feed(read: tuple[jax.Array, Any]) -> tuple[jax.Array, Any]:
            counts = (~state.ended).astype(jnp.int32)
            logits, cache = step(params, state.last[:, None], counts, read[1])
            return logits.astype(jnp.float32), cache

        logits, cache = if_any(~state.ended, feed, (logits, state.cache))
        return count + 1, logits, dataclasses.replace(state, cache=cache)

    _, logits, state = jax.lax.while_loop(goes_on, turn, (jnp.zeros((), jnp.int32), logits, state))
    return logits, state


# `extend` as a program of its own, which works in the memory of the logits and the state it is given.
advance = partial(jax.jit, static_argnames=("step",), donate_argnames=("logits", "state"))(extend)


def _run(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any,
         settings: Settings, keys: jax.Array, eos: jax.Array, pad: Any,
         pieces: Pieces | None, constraint: Constraint | None, *, max_new_tokens: int, samples: int, alternatives: int,
         prefill_chunk: int) -> tuple[Generated, Any]:
    logits, state, request = begin(
        step, params, prompt, prompt_lengths, cache, settings, keys, eos, pad, pieces, constraint,
        max_new_tokens=max_new_tokens, samples=samples, alternatives=alternatives, prefill_chunk=prefill_chunk)
    _, state = extend(step, params, logits, state, request)
    return state.written, state.cache if samples == 1 else None


_STATIC = ("step", "max_new_tokens", "samples", "alternatives", "prefill_chunk")
_generate = partial(jax.jit, static_argnames=_STATIC)(_run)
# The cache comes out again, so that the memory that came in can hold it.
_generate_in_place = partial(jax.jit, static_argnames=_STATIC, donate_argnames=("cache",))(_run)


def start(request: Request, max_new_tokens: int, alternatives: int, pad: Any, cache: Any
          ) -> State:
    """Sequences without a token yet."""
    batch = request.keys.shape[0]
    tops = (batch, max_new_tokens, alternatives)
    return State(
        written=Generated(
            tokens=jnp.full((batch, max_new_tokens), pad, jnp.int32),
            lengths=jnp.zeros(batch, jnp.int32),
            logprobs=jnp.zeros((batch, max_new_tokens), jnp.float32),
            reasons=jnp.full(batch, AT_LIMIT, jnp.int32),
            top_tokens=jnp.zeros(tops, jnp.int32),
            top_logprobs=jnp.zeros(tops, jnp.float32)),
        last=jnp.full(batch, pad, jnp.int32),
        ended=jnp.zeros(batch, bool),
        progress=stops.none_yet(request.settings),
        guide=constraints.begin(request.constraint, batch),
        cache=cache)


def append(state: State, logits: jax.Array, request: Request) -> State:
    """Chooses a token from logits f32[B, V] for every sequence that has not ended, and writes it."""
    out, settings = state.written, request.settings
    allowed = process(logits, settings, request.prompt, out.tokens, out.lengths, request.eos)
    if request.constraint is not None:
        left = constraints.left(settings, out.lengths, out.tokens.shape[1])
        allowed = constraints.mask(allowed, request.constraint, state.guide, left, request.eos)
    token = choose(allowed, settings, request.keys, out.lengths)
    of_token = partial(jnp.take_along_axis, indices=token[:, None], axis=-1)
    # Where nothing is allowed, the text ends without a token: any would break a rule.
    forbidden = of_token(allowed)[:, 0] == -jnp.inf
    rows, width = jnp.arange(token.shape[0]), out.tokens.shape[1]
    writes = ~state.ended & ~forbidden
    slots = jnp.where(writes, out.lengths, width)  # past the end: not written
    totals = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
    logprob = of_token(logits) - totals
    lengths = out.lengths + writes
    ends = {FORBIDDEN: forbidden, AT_EOS: jnp.any(token[:, None] == request.eos, axis=-1)}
    progress = state.progress
    if request.pieces is not None:
        progress, ends[AT_STOP] = stops.read(progress, token, settings, request.pieces)
    guide = constraints.move(request.constraint, state.guide, token)
    ends[AT_LIMIT] = lengths >= jnp.minimum(settings.max_new, width)
    reason = jnp.select(list(ends.values()), [jnp.asarray(code) for code in ends], AT_LIMIT)
    out = dataclasses.replace(
        out, tokens=out.tokens.at[rows, slots].set(token, mode="drop"), lengths=lengths,
        logprobs=out.logprobs.at[rows, slots].set(logprob[:, 0], mode="drop"),
        reasons=jnp.where(state.ended, out.reasons, reason.astype(jnp.int32)))
    if count := out.top_tokens.shape[-1]:
        values, _, tokens = largest(logits[:, None], totals, jnp.zeros_like(totals), count)
        out = dataclasses.replace(
            out, top_tokens=out.top_tokens.at[rows, slots].set(tokens, mode="drop"),
            top_logprobs=out.top_logprobs.at[rows, slots].set(values, mode="drop"))
    return dataclasses.replace(
        state, written=out, last=jnp.where(writes, token, state.last), progress=progress,
        guide=jnp.where(writes, guide, state.guide),
        ended=state.ended | jnp.any(jnp.stack(list(ends.values())), axis=0))


def append_where(rows: jax.Array, state: State, logits: jax.Array, request: Request) -> State:
    """`append` in the rows bool[B] that are set; the others stay as they are. The state has no cache."""
    def select(new: jax.Array, old: jax.Array) -> jax.Array:
        return jnp.where(rows.reshape(-1, *[1] * (new.ndim - 1)), new, old)

    return jax.tree.map(select, append(state, logits, request), state)


def choose(logits: jax.Array, settings: Settings, keys: jax.Array,
           positions: jax.Array) -> jax.Array:
    """int32[B]: the best token where temperature is 0, else one drawn from what `warp` keeps.

    The randomness of a row is its key folded with its position int32[B], the number of tokens
    written before. A batch of greedy rows draws nothing.
    """
    def sampled() -> jax.Array:
        drawn = draw(jnp.exp(warp(logits, settings)), _uniforms(keys, positions))
        return jnp.where(settings.temperature > 0, drawn, first_largest(logits))

    return jax.lax.cond(jnp.any(settings.temperature > 0), sampled, lambda: first_largest(logits))


def _uniforms(keys: jax.Array, positions: jax.Array) -> jax.Array:
    """f32[B, 2] in [0, 1) from keys uint32[B, 2]."""
    def row(key: jax.Array, position: jax.Array) -> jax.Array:
        key = jax.random.wrap_key_data(key, impl="threefry2x32")
        return jax.random.uniform(jax.random.fold_in(key, position), (2,), jnp.float32)

    return jax.vmap(row)(keys, positions)
