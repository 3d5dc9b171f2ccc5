# SPDX-License-Identifier: Apache-2.0
"""A model, an optimizer and a mesh in, the state of a run out, born in its shards."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from t5tasks import sharding
from t5tasks.models.model import Model


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    step: jax.Array  # int32[], steps taken
    parameters: Any  # f32 tree
    optimizer: Any  # optax state
    key: jax.Array  # uint32[2], the run's key; a step's dropout key is fold_in(key, step)


def state_shapes(model: Model, optimizer: optax.GradientTransformation) -> TrainState:
    """The state's shapes and dtypes, without computing any of it."""
    return jax.eval_shape(lambda: _fresh(model, optimizer, jax.random.key(0), None))


def state_shardings(shapes: TrainState, mesh: Mesh) -> Any:
    """A TrainState of NamedSharding: where each leaf of the state lies on the mesh."""
    whole: Any = sharding.replicated(mesh)
    return TrainState(step=whole, key=whole,
                      parameters=sharding.parameter_shardings(shapes.parameters, mesh),
                      optimizer=sharding.optimizer_shardings(shapes.optimizer, shapes.parameters, mesh))


def initialise(model: Model, optimizer: optax.GradientTransformation, mesh: Mesh, seed: int,
               parameters: Any = None) -> TrainState:
    """A state at step 0; parameters that are not given are drawn from the seed, in their shards."""
    shardings = state_shardings(state_shapes(model, optimizer), mesh)
    if parameters is not None:
        parameters = jax.device_put(parameters, shardings.parameters)
    create = jax.jit(lambda key, given: _fresh(model, optimizer, key, given), out_shardings=shardings)
    return create(jax.random.key(seed), parameters)


def _fresh(model: Model, optimizer: optax.GradientTransformation, key: jax.Array,
           parameters: Any) -> TrainState:
    initial, run = jax.random.split(key)
    parameters = model.init(initial) if parameters is None else parameters
    return TrainState(step=jnp.zeros((), jnp.int32), parameters=parameters,
                      optimizer=optimizer.init(parameters), key=jax.random.key_data(run))
