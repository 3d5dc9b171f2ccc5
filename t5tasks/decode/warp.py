# SPDX-License-Identifier: Apache-2.0
"""From logits to logits of the tokens that may be drawn: temperature, then top-k, then top-p.

The definitions sort; nothing here does. Both filters keep what lies above a threshold, and the
threshold is found by bisection: each pass over the row measures (counts for top-k, adds up
probability for top-p) what lies at or below the middle, until at most one value is in doubt.

    probabilities  .50 .25 .125 .125        ascending sums  .125 .25 .5 1
    top_p = .6     drops while the sum <= .4: both .125;  keeps .50 .25
    top_k = 3      the third largest is .125: ties are kept, so all four stay
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from t5tasks.decode.settings import Settings

Bounds = tuple[jax.Array, jax.Array, jax.Array, jax.Array]  # low, high and their measures, each [B]


def warp(logits: jax.Array, settings: Settings) -> jax.Array:
    """Logits f32[B, V] of what may be drawn, 0 for the best, -inf for what is dropped.

    Top-k keeps every token that ties with the k-th. Top-p drops tokens while the ascending
    cumulative probability (of what top-k left) is <= 1 - top_p; tokens equally probable in float32
    stay or go together, where a sort would cut between them by position: if part of such a group
    is needed, all of it is kept. At least the most probable token, with its ties, is kept. Rows of
    temperature 0 are not scaled.

    Source: the warpers of transformers 5.23, generation/logits_process.py.
    """
    logits = logits.astype(jnp.float32)
    kept = _top_k(logits, settings.top_k)  # a temperature does not change the order
    # The largest becomes 0 first: a low temperature would blow up what float32 rounds off.
    scaled = logits - jnp.max(logits, axis=-1, keepdims=True)
    scaled /= jnp.where(settings.temperature > 0, settings.temperature, 1)[:, None]
    scaled = jnp.where(kept, scaled, -jnp.inf)
    return jnp.where(_top_p(scaled, settings.top_p), scaled, -jnp.inf)


def suppress(logits: jax.Array, tokens: jax.Array, rows: jax.Array) -> jax.Array:
    """Sets logits[b, tokens] to -inf in the rows bool[B]; token ids below 0 name no token."""
    tokens = jnp.where(tokens < 0, logits.shape[-1], tokens)
    kept = logits.at[:, tokens].get(mode="fill", fill_value=0)
    return logits.at[:, tokens].set(jnp.where(rows[:, None], -jnp.inf, kept), mode="drop")


def _top_k(logits: jax.Array, top_k: jax.Array) -> jax.Array:
    """bool[B, V]: not below the row's top_k-th largest; all where top_k is 0."""
    vocabulary = logits.shape[-1]
    active = (top_k > 0) & (top_k < vocabulary)
    order = _ordered(jnp.where(logits == 0, 0.0, logits))  # the two zeros are equal, not their bits

    def count(middle: jax.Array) -> jax.Array:
        return jnp.sum(order <= middle[:, None], axis=-1, dtype=jnp.float32)

    dropped = _highest_dropped(
        count, budget=(vocabulary - top_k).astype(jnp.float32), active=active,
        low=jnp.min(order, axis=-1) - 1, high=jnp.max(order, axis=-1),
        all_of_it=jnp.full(top_k.shape, vocabulary, jnp.float32),
        weight=lambda low: jnp.ones(low.shape, jnp.float32))
    return ~active[:, None] | (order > dropped[:, None])


def _top_p(scaled: jax.Array, top_p: jax.Array) -> jax.Array:
    """bool[B, V]: not dropped by the nucleus; all where top_p is 1."""
    active = top_p < 1
    weights = jnp.exp(scaled)  # the largest is 1
    total = jnp.sum(weights, axis=-1)
    budget = (1 - top_p) * total

    def mass(middle: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(weights <= _number(middle)[:, None], weights, 0), axis=-1)

    high = _bits(jnp.ones_like(total))
    # V values of at most budget / V cannot exceed the budget: all of those are dropped.
    low = jnp.minimum(_bits(budget / scaled.shape[-1]), high - 1)
    dropped = _highest_dropped(mass, budget=budget, active=active, low=low, high=high,
                               all_of_it=total, weight=_number)
    return ~active[:, None] | (weights > _number(dropped)[:, None])


def _highest_dropped(measure: Callable[[jax.Array], jax.Array], *, budget: jax.Array,
                     active: jax.Array, low: jax.Array, high: jax.Array, all_of_it: jax.Array,
                     weight: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """int32[B]: a value x with measure(x) <= budget, above which no element may be dropped.

    Bisects integers that order the row's elements: `low` is known to be droppable and `high`, the
    largest element, is always kept. weight(low) is the least that one element above `low` adds to
    the measure: once low and high differ by less than two such, one element is left between them,
    and it is kept. Without ties that is after some 15 of the at most 32 halvings.
    """
    def undecided(state: Bounds) -> jax.Array:
        low, high, below, upto = state
        return active & (high > low + 1) & (upto - below >= 1.5 * weight(low))

    def halve(state: Bounds) -> Bounds:
        low, high, below, upto = state
        middle = (low & high) + ((low ^ high) >> 1)  # the mean, without overflow
        measured = measure(middle)
        kept = measured > budget
        up, down = undecided(state) & ~kept, undecided(state) & kept
        return (jnp.where(up, middle, low), jnp.where(down, middle, high),
                jnp.where(up, measured, below), jnp.where(down, measured, upto))

    start = (low, high, jnp.zeros_like(all_of_it), all_of_it)
    return jax.lax.while_loop(lambda state: jnp.any(undecided(state)), halve, start)[0]


def _bits(numbers: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(numbers, jnp.int32)


def _number(bits: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def _ordered(numbers: jax.Array) -> jax.Array:
    """int32 that compare as the float32 do: a float's bits, the negative ones turned round."""
    bits = _bits(numbers)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)
