# SPDX-License-Identifier: Apache-2.0
"""From prompts to the tokens that follow them, each sequence choosing by its own settings."""

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks.decode.choose import draw, first_largest
from t5tasks.decode.contract import Step, check_request
from t5tasks.decode.settings import Settings
from t5tasks.decode.warp import suppress, warp


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Generated:
    """What follows each prompt.

        tokens  = [[17, 4, 1, 0, 0],   EOS 1, pad 0
                   [ 9, 8, 7, 6, 5]]
        lengths = [3, 5]               EOS counts
    """

    tokens: jax.Array    # int32[B, N]  pad after the end
    lengths: jax.Array   # int32[B]     tokens written, EOS included
    logprobs: jax.Array  # f32[B, N]    the model's own, before any setting acts; 0 after the end


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class State:
    """Sequences under way; rows need not have begun together."""

    tokens: jax.Array    # int32[B, N]  written so far, pad elsewhere
    logprobs: jax.Array  # f32[B, N]
    lengths: jax.Array   # int32[B]     written so far
    last: jax.Array      # int32[B]     the newest token, not yet fed to the model
    ended: jax.Array     # bool[B]
    cache: Any           #              B rows


def keys(seeds: Any) -> jax.Array:
    """uint32[B, 2]: the PRNG key of each sequence from its own seed, int[B]."""
    return jax.vmap(lambda seed: jax.random.key_data(jax.random.key(seed, impl="threefry2x32")))(
        jnp.asarray(seeds))


def generate(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any,
             settings: Settings, keys: jax.Array, *, max_new_tokens: int, eos: Any,
             pad: Any) -> Generated:
    """Continues each prompt until EOS, its own max_new, or max_new_tokens.

    One forward pass over the prompts, then a loop on the device until every sequence has ended. A
    sequence's text depends on its prompt, its settings and its key only, never on its batch-mates.
    Compiles once for each step, max_new_tokens and shape; works within a `jax.jit` of the caller's
    too, who may then donate the cache.

    Args:
      step: see `contract.Step`; hashable, the same object from call to call.
      prompt: int32[B, T], padded on the right; prompt_lengths: int32[B], each 1 .. T.
      cache: B rows with room for T + max_new_tokens.
      settings: B rows (`settings.settings`); keys: uint32[B, 2] (`keys`), unused by greedy rows.
      eos: int32[E], ids that end a text; ids below 0 name no token, and E may be 0. pad: id.

    Raises: ValueError where shapes disagree or the cache is too small.
    """
    check_request(prompt, prompt_lengths, cache, max_new_tokens)
    batch = prompt.shape[0]
    if settings.temperature.shape != (batch,):
        raise ValueError(f"settings are for {settings.temperature.shape} sequences, the prompt "
                         f"has {batch} rows; make them with settings({batch}, ...).")
    if np.shape(keys) != (batch, 2):
        raise ValueError(f"keys have shape {np.shape(keys)}, expected [{batch}, 2], one PRNG key "
                         "a row; make them with keys(seeds).")
    return _generate(step, params, prompt, prompt_lengths, cache, settings, keys,
                     jnp.asarray(eos, jnp.int32).reshape(-1), jnp.asarray(pad, jnp.int32),
                     max_new_tokens=max_new_tokens)


@partial(jax.jit, static_argnames=("step", "max_new_tokens"))
def _generate(step: Step, params: Any, prompt: jax.Array, prompt_lengths: jax.Array, cache: Any,
              settings: Settings, keys: jax.Array, eos: jax.Array, pad: jax.Array, *,
              max_new_tokens: int) -> Generated:
    logits, cache = step(params, prompt, prompt_lengths, cache)
    begun = append(start(prompt.shape[0], max_new_tokens, pad, cache), logits, settings, keys, eos)

    def advance(state: State) -> State:
        logits, cache = step(params, state.last[:, None], (~state.ended).astype(jnp.int32),
                             state.cache)
        return append(dataclasses.replace(state, cache=cache), logits, settings, keys, eos)

    state = jax.lax.while_loop(lambda state: ~jnp.all(state.ended), advance, begun)
    return Generated(state.tokens, state.lengths, state.logprobs)


def start(batch: int, max_new_tokens: int, pad: jax.Array, cache: Any) -> State:
    """Sequences without a token yet."""
    return State(
        tokens=jnp.full((batch, max_new_tokens), pad, jnp.int32),
        logprobs=jnp.zeros((batch, max_new_tokens), jnp.float32),
        lengths=jnp.zeros(batch, jnp.int32),
        last=jnp.full(batch, pad, jnp.int32),
        ended=jnp.zeros(batch, bool),
        cache=cache)


def append(state: State, logits: jax.Array, settings: Settings, keys: jax.Array,
           eos: jax.Array) -> State:
    """Chooses a token from logits[B, V] for every sequence that has not ended, and writes it."""
    logits = logits.astype(jnp.float32)
    allowed = suppress(logits, eos, state.lengths < settings.min_new)
    token = choose(allowed, settings, keys, state.lengths)
    logprob = (jnp.take_along_axis(logits, token[:, None], axis=-1)[:, 0]
               - jax.nn.logsumexp(logits, axis=-1))
    rows, width = jnp.arange(token.shape[0]), state.tokens.shape[1]
    slots = jnp.where(state.ended, width, state.lengths)  # past the end: not written
    lengths = state.lengths + ~state.ended
    full = lengths >= jnp.minimum(settings.max_new, width)
    return dataclasses.replace(
        state,
        tokens=state.tokens.at[rows, slots].set(token, mode="drop"),
        logprobs=state.logprobs.at[rows, slots].set(logprob, mode="drop"),
        lengths=lengths,
        last=jnp.where(state.ended, state.last, token),
        ended=state.ended | full | jnp.any(token[:, None] == eos, axis=-1))


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
