# SPDX-License-Identifier: Apache-2.0
"""An activation in, the same one out, its rows spread as a batch's are, where the program is made for several devices.

Models know no mesh. They only say, between their layers, that rows stay apart: else the compiler may follow a weight
that is split by its inputs, and send whole activations around where the weight is smaller.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
from jax.sharding import Mesh, PartitionSpec

Made = TypeVar("Made")
ROWS = ("data", "fsdp")  # the axes of a mesh that a batch's rows lie on


def on(mesh: Mesh, function: Callable[..., Made]) -> Callable[..., Made]:
    """The function, traced as a program for this mesh."""

    @functools.wraps(function)
    def placed(*arguments: Any, **named: Any) -> Made:
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return function(*arguments, **named)

    return placed


def devices() -> int:
    """How many devices the program being traced is for, as far as `on` has said."""
    return max(jax.sharding.get_abstract_mesh().size, 1)


def by_rows(x: jax.Array) -> jax.Array:
    """x float[B, ...], its first axis over ROWS and the others as they come; x itself where they do not divide it."""
    mesh = jax.sharding.get_abstract_mesh()
    shards = 1
    for axis in ROWS:
        shards *= mesh.shape.get(axis, 1)
    if shards == 1 or x.shape[0] % shards:
        return x
    rest = (PartitionSpec.UNCONSTRAINED,) * (x.ndim - 1)
    return jax.lax.with_sharding_constraint(x, PartitionSpec(ROWS, *rest))
