# SPDX-License-Identifier: Apache-2.0
"""From a measure of what lies at or below a value to the value where it crosses a budget.

Floats are bisected by their bits, which integers order as the floats are ordered: 32 halvings find
any threshold, and most rows are decided after 15, when one element is left between the bounds.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Bounds = tuple[jax.Array, jax.Array, jax.Array, jax.Array]  # low, high and their measures, each [B]


def highest_dropped(measure: Callable[[jax.Array], jax.Array], *, budget: jax.Array,
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
        middle = _mean(low, high)
        measured = measure(middle)
        kept = measured > budget
        up, down = undecided(state) & ~kept, undecided(state) & kept
        return (jnp.where(up, middle, low), jnp.where(down, middle, high),
                jnp.where(up, measured, below), jnp.where(down, measured, upto))

    start = (low, high, jnp.zeros_like(all_of_it), all_of_it)
    return jax.lax.while_loop(lambda state: jnp.any(undecided(state)), halve, start)[0]


def lowest_enough(measure: Callable[[jax.Array], tuple[jax.Array, jax.Array]], *, enough: jax.Array,
                  active: jax.Array, low: jax.Array, high: jax.Array, count: jax.Array) -> jax.Array:
    """int32[B]: a value x with measure(x)[0] >= enough, below whose greatest element it is not.

    measure gives (mass, number of elements) at or below a value. No element lies at or below
    `low`, `count` lie at or below `high`, which is the answer where nothing is enough.
    """
    def undecided(state: Bounds) -> jax.Array:
        low, high, below, upto = state
        return active & (high > low + 1) & (upto - below > 1)

    def halve(state: Bounds) -> Bounds:
        low, high, below, upto = state
        middle = _mean(low, high)
        mass, number = measure(middle)
        up, down = undecided(state) & (mass < enough), undecided(state) & (mass >= enough)
        return (jnp.where(up, middle, low), jnp.where(down, middle, high),
                jnp.where(up, number, below), jnp.where(down, number, upto))

    start = (low, high, jnp.zeros_like(count), count)
    return jax.lax.while_loop(lambda state: jnp.any(undecided(state)), halve, start)[1]


def bits(numbers: jax.Array) -> jax.Array:
    """The int32 of the same bits; they compare as floats >= 0 do."""
    return jax.lax.bitcast_convert_type(numbers, jnp.int32)


def number(bits: jax.Array) -> jax.Array:
    """The inverse of `bits`."""
    return jax.lax.bitcast_convert_type(bits, jnp.float32)


def ordered(numbers: jax.Array) -> jax.Array:
    """int32 that compare as the float32 do: a float's bits, the negative ones turned round."""
    found = bits(numbers)
    return found ^ ((found >> 31) & 0x7FFFFFFF)


def _mean(low: jax.Array, high: jax.Array) -> jax.Array:
    return (low & high) + ((low ^ high) >> 1)  # without overflow
