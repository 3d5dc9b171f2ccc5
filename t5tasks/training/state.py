# SPDX-License-Identifier: Apache-2.0
"""A model, what of it is trained, an optimizer and a mesh in; the state of a run out, born in its shards."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from t5tasks import sharding
from t5tasks.models.model import Model
from t5tasks.training.partition import ALL, Partition


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    step: jax.Array  # int32[], steps taken
    parameters: Any  # f32 tree, what is trained
    optimizer: Any  # optax state of it
    key: jax.Array  # uint32[2], the run's key; a step's dropout key is fold_in(key, step)
    kept: Any = dataclasses.field(default_factory=dict)  # f32 tree, the model's other parameters


def state_shapes(model: Model, optimizer: optax.GradientTransformation, partition: Partition = ALL) -> TrainState:
    """The state's shapes and dtypes, without computing any of it."""
    return jax.eval_shape(lambda: _drawn(model, optimizer, partition, jax.random.key(0)))


def state_shardings(shapes: TrainState, mesh: Mesh) -> Any:
    """A TrainState of NamedSharding: where each leaf of the state lies on the mesh."""
    whole: Any = sharding.replicated(mesh)
    return TrainState(step=whole, key=whole,
                      parameters=sharding.parameter_shardings(shapes.parameters, mesh),
                      kept=sharding.parameter_shardings(shapes.kept, mesh),
                      optimizer=sharding.optimizer_shardings(shapes.optimizer, shapes.parameters, mesh))


def initialise(model: Model, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int,
               parameters: Any = None, partition: Partition = ALL) -> TrainState:
    """A state at step 0; parameters that are not given are drawn from the seed, in their shards.

    Those of the given ones that are kept are not copied.
    """
    shapes, key = state_shapes(model, optimizer, partition), jax.random.key(seed)
    shardings = state_shardings(shapes, mesh)
    if parameters is None:
        return jax.jit(lambda key: _drawn(model, optimizer, partition, key), out_shardings=shardings)(key)
    trained, kept = partition.split(jax.device_put(parameters, sharding.parameter_shardings(parameters, mesh)))
    begin = jax.jit(lambda key, trained: _begun(optimizer, partition, key, trained, shapes.kept),
                    out_shardings=dataclasses.replace(shardings, kept={}))
    return dataclasses.replace(begin(key, trained), kept=kept)


def _drawn(model: Model, optimizer: optax.GradientTransformation, partition: Partition, key: jax.Array
           ) -> TrainState:
    trained, kept = partition.split(model.init(jax.random.split(key)[0]))
    return dataclasses.replace(_begun(optimizer, partition, key, trained, kept), kept=kept)


def _begun(optimizer: optax.GradientTransformation, partition: Partition, key: jax.Array, trained: Any,
           kept: Any) -> TrainState:
    """The state but for what is kept, of which (or of whose shapes) adapters are made."""
    initial, run = jax.random.split(key)
    parameters = partition.begin(trained, kept, initial)
    return TrainState(step=jnp.zeros((), jnp.int32), parameters=parameters,
                      optimizer=optimizer.init(parameters), key=jax.random.key_data(run))
