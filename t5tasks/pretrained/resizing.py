# SPDX-License-Identifier: Apache-2.0
"""A checkpoint and a larger vocabulary in, the checkpoint with rows for added tokens out."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from t5tasks.pretrained.forward import Pretrained
from t5tasks.sharding import parameter_spec

# Parameters with an axis of the vocabulary, and which one it is.
TABLES = {("embedding",): 0, ("head", "words", "kernel"): 1, ("head", "bias"): 0}
# The variance of new rows is this fraction of the old rows'.
VARIANCE = 1e-5


def resize(loaded: Pretrained, vocabulary: int, seed: int = 0) -> Pretrained:
    """The checkpoint with `vocabulary` rows in its embedding table, head and head bias.

    New rows begin at the mean of the old ones, so that the model gives the new tokens no more than
    an average token's probability, plus normal noise of 1e-5 of the old rows' variance, each
    column's for itself, so that they can grow apart (Hewitt 2021,
    nlp.stanford.edu/~johnhew/vocab-expansion.html). They are named in `new`, `embedding[199:203]`.

    Args:
      vocabulary: at least the checkpoint's; the same leaves it as it is.

    Raises:
      ValueError: fewer rows than the checkpoint has.
    """
    rows = loaded.model.config.vocabulary
    if vocabulary < rows:
        raise ValueError(f"a vocabulary of {vocabulary} is smaller than the checkpoint's {rows}; rows can be "
                         "added, not taken away")
    if vocabulary == rows:
        return loaded
    parameters, new = loaded.parameters, []
    for number, (path, axis) in enumerate(TABLES.items()):
        if (table := _at(parameters, path)) is None:
            continue
        key = jax.random.fold_in(jax.random.key(seed), number)
        shape, place = (*table.shape[:axis], vocabulary, *table.shape[axis + 1:]), None
        if isinstance(table.sharding, NamedSharding) and isinstance(mesh := table.sharding.mesh, Mesh):
            place = NamedSharding(mesh, parameter_spec("/".join(path), shape, mesh))
        grow = jax.jit(_grown, static_argnums=(2, 3), out_shardings=place)
        parameters = _with(parameters, path, grow(table, key, vocabulary, axis))
        new.append(f"{'/'.join(path)}[{axis * ':, '}{rows}:{vocabulary}]")
    config = dataclasses.replace(loaded.model.config, vocabulary=vocabulary)
    return dataclasses.replace(loaded, model=dataclasses.replace(loaded.model, config=config),
                               parameters=parameters, new=(*loaded.new, *new))


def _grown(table: jax.Array, key: jax.Array, size: int, axis: int) -> jax.Array:
    """The table with `size` entries along its vocabulary's axis."""
    shape = list(table.shape)
    shape[axis] = size - shape[axis]
    mean = jnp.mean(table, axis, keepdims=True)
    noise = jax.random.normal(key, shape, table.dtype) * jnp.std(table, axis, keepdims=True) * VARIANCE**0.5
    return jnp.concatenate([table, mean + noise], axis)


def _at(tree: Any, path: tuple[str, ...]) -> Any:
    """What lies at a path of a tree of dicts, None where nothing does."""
    for name in path:
        tree = tree.get(name) if tree is not None else None
    return tree


def _with(tree: Any, path: tuple[str, ...], leaf: jax.Array) -> Any:
    """The tree with another leaf at a path."""
    return {**tree, path[0]: _with(tree[path[0]], path[1:], leaf)} if path else leaf
