# SPDX-License-Identifier: Apache-2.0
"""From logits to logits of the tokens that may be drawn: temperature, top-k, top-p, min-p, typical.

The definitions sort; nothing here does. Each filter keeps what lies above (typical: below) a
threshold, and the threshold is found by bisection: each pass over the row measures (counts for
top-k, adds up probability for top-p) what lies at or below the middle, until at most one value is in
doubt. What goes from filter to filter is a threshold a row, so an unused filter costs a comparison.

    probabilities  .50 .25 .125 .125        ascending sums  .125 .25 .5 1
    top_p = .6     drops while the sum <= .4: both .125;  keeps .50 .25
    top_k = 3      the third largest is .125: ties are kept, so all four stay
    min_p = .4     drops what is below .4 of the largest: keeps .50 .25
    typical_p = .2 -log2: 1 2 3 3, entropy 1.75: the nearest is .25, and it is enough: keeps .25
"""

import jax
import jax.numpy as jnp

from t5tasks.decode.bisect import bits, highest_dropped, lowest_enough, number, ordered
from t5tasks.decode.settings import Settings


def warp(logits: jax.Array, settings: Settings) -> jax.Array:
    """Logits f32[B, V] of what may be drawn, at most 0, -inf for what is dropped.

    Top-k keeps every token that ties with the k-th. Top-p (arXiv:1904.09751) drops tokens while the
    ascending cumulative probability (of what top-k left) is <= 1 - top_p; tokens equally probable in
    float32 stay or go together, where a sort would cut between them by position: if part of such a
    group is needed, all of it is kept. Min-p (arXiv:2407.01082) drops what is less probable than
    min_p times the best. Typical (arXiv:2202.00666) keeps the tokens whose information is nearest
    to the entropy of what the others left, until they hold typical_p of it, ties included. Each of
    the first three keeps at least the most probable token, with its ties; typical may drop it.
    Rows of temperature 0 are not scaled. A row in which all is -inf is handed back as it is.

    Source: the warpers of transformers 5.23, generation/logits_process.py.
    """
    logits = logits.astype(jnp.float32)
    kept = _top_k(logits, settings.top_k)  # a temperature does not change the order
    # The largest becomes 0 first: a low temperature would blow up what float32 rounds off.
    best = jnp.max(logits, axis=-1, keepdims=True)
    scaled = logits - jnp.where(best > -jnp.inf, best, 0)
    scaled /= jnp.where(settings.temperature > 0, settings.temperature, 1)[:, None]
    scaled = jnp.where(kept, scaled, -jnp.inf)
    weights = jnp.exp(scaled)  # the largest is 1
    dropped = _top_p(weights, settings.top_p)[:, None]
    scaled = jnp.where((weights > dropped) & (weights >= settings.min_p[:, None]), scaled, -jnp.inf)
    center, distance = _typical(scaled, settings.typical_p)
    atypical = jnp.abs(center[:, None] - scaled) > distance[:, None]
    return jnp.where(atypical, -jnp.inf, scaled)


def _top_k(logits: jax.Array, top_k: jax.Array) -> jax.Array:
    """bool[B, V]: not below the row's top_k-th largest; all where top_k is 0."""
    vocabulary = logits.shape[-1]
    active = (top_k > 0) & (top_k < vocabulary)
    order = ordered(jnp.where(logits == 0, 0.0, logits))  # the two zeros are equal, not their bits
    nothing = jnp.full(top_k.shape, jnp.iinfo(jnp.int32).min)

    def dropped() -> jax.Array:
        def count(middle: jax.Array) -> jax.Array:
            return jnp.sum(order <= middle[:, None], axis=-1, dtype=jnp.float32)

        found = highest_dropped(
            count, budget=(vocabulary - top_k).astype(jnp.float32), active=active,
            low=jnp.min(order, axis=-1) - 1, high=jnp.max(order, axis=-1),
            all_of_it=jnp.full(top_k.shape, vocabulary, jnp.float32),
            weight=lambda low: jnp.ones(low.shape, jnp.float32))
        return jnp.where(active, found, nothing)

    return order > jax.lax.cond(jnp.any(active), dropped, lambda: nothing)[:, None]


def _top_p(weights: jax.Array, top_p: jax.Array) -> jax.Array:
    """f32[B]: the nucleus drops weights up to this; -1 where top_p is 1."""
    active = top_p < 1
    nothing = jnp.full(top_p.shape, -1.0)

    def dropped() -> jax.Array:
        total = jnp.sum(weights, axis=-1)
        budget = (1 - top_p) * total

        def mass(middle: jax.Array) -> jax.Array:
            return jnp.sum(jnp.where(weights <= number(middle)[:, None], weights, 0), axis=-1)

        high = bits(jnp.ones_like(total))
        # V values of at most budget / V cannot exceed the budget: all of those are dropped.
        low = jnp.minimum(bits(budget / weights.shape[-1]), high - 1)
        found = highest_dropped(mass, budget=budget, active=active, low=low, high=high,
                                all_of_it=total, weight=number)
        return jnp.where(active, number(found), nothing)

    return jax.lax.cond(jnp.any(active), dropped, lambda: nothing)


def _typical(scaled: jax.Array, typical_p: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(f32[B], f32[B]): kept is what lies as near as the second to the first; all where p is 1.

    With Z the sum of exp(scaled), a token's information is log Z - scaled, and its distance from the
    entropy H is |(log Z - H) - scaled|.
    """
    active = typical_p < 1
    everything = jnp.zeros(typical_p.shape), jnp.full(typical_p.shape, jnp.inf)

    def nearest() -> tuple[jax.Array, jax.Array]:
        weights = jnp.exp(scaled)
        total = jnp.sum(weights, axis=-1)
        # log Z - H is the mean of scaled; what is dropped has weight 0 and no part in it.
        held = jnp.where(weights > 0, scaled, 0)
        center = jnp.sum(weights * held, axis=-1) / jnp.where(total > 0, total, 1)
        distances = jnp.abs(center[:, None] - scaled)

        def measure(middle: jax.Array) -> tuple[jax.Array, jax.Array]:
            near = distances <= number(middle)[:, None]
            return (jnp.sum(jnp.where(near, weights, 0), axis=-1),
                    jnp.sum(near, axis=-1, dtype=jnp.float32))

        furthest = bits(jnp.max(jnp.where(distances < jnp.inf, distances, 0), axis=-1))
        found = lowest_enough(measure, enough=typical_p * total, active=active,
                              low=bits(jnp.min(distances, axis=-1)) - 1, high=furthest,
                              count=jnp.sum(distances < jnp.inf, axis=-1, dtype=jnp.float32))
        return jnp.where(active, center, 0), jnp.where(active, number(found), jnp.inf)

    return jax.lax.cond(jnp.any(active), nearest, lambda: everything)
