# SPDX-License-Identifier: Apache-2.0
"""Nothing comes in; a small decoder, settings, records of mixed length and one-device states go out."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np
import optax
import pytest

from t5tasks import sharding
from t5tasks.data import batches
from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model
from t5tasks.training import optimizer as optimizers
from t5tasks.training import state as states
from t5tasks.training.step import make_train_step

CONFIG = ModelConfig(vocabulary=32, max_length=16, width=16, heads=2, kv_heads=1, head_size=8, feed_forward=24,
                     decoder_layers=1, dropout=0.2, biases=True, norm="layernorm", initializer_range=0.0)
OPTIMIZER = {"name": "adamw", "learning_rate": 3e-3, "schedule": "cosine", "warmup": 4, "final_fraction": 0.1,
             "weight_decay": 0.1, "clip_norm": 1.0, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8}
LOSS = {"label_smoothing": 0.1, "z_loss": 1e-3, "chunk_tokens": 0}


def _random_like(shapes, seed: int = 0):
    """NumPy parameters: drawing them with `Model.init` would take seconds to compile."""
    random = np.random.RandomState(seed)
    return jax.tree.map(
        lambda leaf: ((leaf.ndim < 2) + 0.2 * random.randn(*leaf.shape)).astype(np.float32), shapes)


@dataclasses.dataclass(frozen=True)
class Run:
    """One way to train the small model; what takes long to make is made when asked for."""

    model: Model
    optimizer: optax.GradientTransformation
    mesh: jax.sharding.Mesh
    micro_batches: int
    jit: Callable

    @functools.cached_property
    def shapes(self) -> states.TrainState:
        return states.state_shapes(self.model, self.optimizer)

    @functools.cached_property
    def first(self) -> states.TrainState:
        """The state at step 0, the same numbers for either form of layers."""
        given = self.model.running_form(_random_like(self.model.unrolled_form_shapes(self.shapes.parameters)))
        return states.initialise(self.model, self.optimizer, self.mesh, 0, given)

    @functools.cached_property
    def step(self) -> Callable:
        return self.jit(make_train_step(self.model, self.optimizer, LOSS, self.micro_batches))

    def place(self, batch):
        return sharding.global_batch(batch, self.mesh)


@pytest.fixture(scope="session")
def run(quick_jit):
    """run(optimizer=..., micro_batches=..., mesh=..., **model): a `Run`, made once."""

    @functools.cache
    def make(optimizer=(), micro_batches=1, mesh=None, **changes) -> Run:
        mesh = sharding.make_mesh(1, devices=jax.devices()[:1]) if mesh is None else mesh
        built = optimizers.build({**OPTIMIZER, **dict(optimizer)}, 20)
        return Run(Model(dataclasses.replace(CONFIG, **changes)), built, mesh, micro_batches, quick_jit)

    return make


@pytest.fixture(scope="session")
def records():
    """40 sequences of 4 to 17 tokens, some long in every batch: all are padded to the same length."""
    random = np.random.RandomState(1)
    return [random.randint(1, CONFIG.vocabulary, size=random.randint(4, 18)).astype(np.int32) for _ in range(40)]


@pytest.fixture(scope="session")
def features():
    """One record's features: next tokens as targets, the first two ungraded."""

    def make(record):
        weights = np.ones(len(record) - 1, np.float32)
        weights[:2] = 0
        return {"tokens": record[:-1], "targets": record[1:], "weights": weights}

    return make


@pytest.fixture(scope="session")
def batch_of(records, features):
    """batch_of(rows): the first records as one padded batch."""
    return lambda rows: batches.padded([features(record) for record in records[:rows]], batches.Shape(rows, 16))


@pytest.fixture(scope="session")
def same_arrays():
    """same_arrays(one, other, **tolerance): equal trees, to the bit without a tolerance."""

    def compare(one, other, **tolerance):
        assert jax.tree.structure(one) == jax.tree.structure(other)
        for (path, left), right in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
            check = np.testing.assert_allclose if tolerance else np.testing.assert_array_equal
            check(np.asarray(left), np.asarray(right), err_msg=sharding.path_name(path), **tolerance)

    return compare
