# SPDX-License-Identifier: Apache-2.0
"""A run that was interrupted, moved to another mesh or kept by its best step: bit for bit the same."""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import sharding
from t5tasks.data import batches
from t5tasks.training.checkpoint import Checkpoints


def _steps_in(folder: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())


def _at(state, step: int):
    """The state as if it had come this far, recognisable by its embedding."""
    embedding = state.parameters["embedding"]
    moved = jax.device_put(np.asarray(embedding) + step, embedding.sharding)
    return dataclasses.replace(state, step=np.int32(step), parameters=state.parameters | {"embedding": moved})


@pytest.mark.parametrize("packing", [False, True], ids=["bucketed", "packed"])
def test_twenty_steps_are_ten_and_ten_more_after_a_restart(run, records, features, same_arrays, tmp_path, packing):
    """With dropout on and the data in the middle of an epoch and of a window."""
    made = run()
    assert made.model.config.dropout > 0
    shape = batches.Shape(8, 16, packing=packing)

    def go_on(state, iterator, steps):
        tokens, losses = [], []
        for _ in range(steps):
            batch = next(iterator)
            tokens.append(batch["tokens"])
            state, sums = made.step(state, made.place(batch))
            losses.append(float(sums["loss"]))
        return state, tokens, losses

    def data():
        return iter(batches.training_batches(records, features, shape, seed=5, window=3))

    straight, tokens, losses = go_on(made.first, data(), 20)

    iterator = data()
    half, _, first_losses = go_on(made.first, iterator, 10)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(made.model, half, {"data": iterator.get_state()})
    del iterator, half

    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 10
        known = checkpoints.run_of(10)
        restored = checkpoints.restore(made.model, made.shapes, made.mesh, 10)
    iterator = data()
    iterator.set_state(known["data"])
    resumed, last_tokens, last_losses = go_on(restored, iterator, 10)
    same_arrays(last_tokens, tokens[10:])
    assert first_losses + last_losses == losses
    same_arrays(resumed, straight)
    assert int(resumed.step) == 20


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    """A folder with a state from eight data shards, and that state."""
    made = run(mesh=sharding.make_mesh(8), vocabulary=64, width=32, heads=4, kv_heads=2, feed_forward=48)
    state, folder = _at(made.first, 7), tmp_path_factory.mktemp("saved")
    with Checkpoints(folder) as checkpoints:
        checkpoints.save(made.model, state, {"note": "as it was"})
    return folder, made, state


def test_a_checkpoint_moves_from_mesh_to_mesh(saved, same_arrays, tmp_path):
    """(8, 1, 1) → (4, 2, 1), saved there → (2, 2, 2): the same to the bit, in the shards of each."""
    folder, made, state = saved
    between, last = sharding.make_mesh(4, 2, 1), sharding.make_mesh(2, 2, 2)
    with Checkpoints(folder) as checkpoints, Checkpoints(tmp_path) as others:
        moved = checkpoints.restore(made.model, made.shapes, between, 7)
        assert moved.parameters["embedding"].sharding.mesh.shape == between.shape
        same_arrays(moved, state)
        others.save(made.model, moved, checkpoints.run_of(7))
        assert others.latest() == 7 and others.run_of(7)["note"] == "as it was"
        moved = others.restore(made.model, made.shapes, last, 7)
        parameters = others.restore_parameters(made.model, last, 7)
    same_arrays(moved, state)
    same_arrays(parameters, state.parameters)
    for tree in (moved.parameters, moved.optimizer[1][0].mu, parameters):
        kernel = tree["decoder"]["layer_0"]["feed_forward"]["up"]["kernel"]
        assert kernel.sharding == jax.sharding.NamedSharding(last, jax.sharding.PartitionSpec("fsdp", "tensor"))
        assert {shard.data.shape for shard in kernel.addressable_shards} == {(16, 24)}


def test_a_step_that_was_saved_before_its_evaluation_is_saved_again_with_it(run, tmp_path):
    made = run()
    with Checkpoints(tmp_path, "accuracy") as checkpoints:
        checkpoints.save(made.model, _at(made.first, 1), {"told": "first"}, {"accuracy": 0.5})
        checkpoints.save(made.model, _at(made.first, 2), {"told": "stopped"})
        assert checkpoints.best() == 1 and not checkpoints.run_of(2)["evaluated"]
        checkpoints.save(made.model, _at(made.first, 2), {"told": "evaluated"}, {"accuracy": 0.7})
        checkpoints.save(made.model, _at(made.first, 2), {"told": "never"}, {"accuracy": 0.1})
    with Checkpoints(tmp_path, "accuracy", reading=True) as checkpoints:
        assert checkpoints.best() == checkpoints.latest() == 2
        assert checkpoints.run_of(2)["told"] == "evaluated" and checkpoints.run_of(2)["evaluated"]


@pytest.mark.parametrize("optimizer", ["adamw", "adafactor", "muon"])
def test_either_form_of_layers_restores_the_other(run, same_arrays, tmp_path, optimizer):
    """Adafactor's factored and unfactored statistics too, and the two parts of Muon's."""
    sizes = {"width": 128, "feed_forward": 136} if optimizer == "adafactor" else {}
    sizes |= {"decoder_layers": 2, "biases": False}
    name = (("name", optimizer),)
    scanned, unrolled = (run(optimizer=name, layer_loop=form, **sizes) for form in ("scan", "unroll"))
    random = np.random.RandomState(0)
    state = dataclasses.replace(scanned.first, optimizer=jax.tree.map(
        lambda leaf: jnp.asarray(random.standard_normal(leaf.shape) * 100, leaf.dtype), scanned.first.optimizer))
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(scanned.model, state, {})
    with Checkpoints(tmp_path) as checkpoints:
        apart = checkpoints.restore(unrolled.model, unrolled.shapes, unrolled.mesh, 0)
        again = checkpoints.restore(scanned.model, scanned.shapes, scanned.mesh, 0)
    same_arrays(again, state)
    same_arrays(unrolled.first.parameters, apart.parameters)
    same_arrays(scanned.model.running_form(apart.optimizer), state.optimizer)
    assert jax.tree.map(np.shape, apart.optimizer) == jax.tree.map(np.shape, unrolled.first.optimizer)


@pytest.mark.parametrize(("changes", "message"), [
    ({"feed_forward": 40}, r"parameter decoder/layer_0/feed_forward/down/kernel is "
                           r"float32\[24, 16\] in the checkpoint, float32\[40, 16\] in the config"),
    ({"decoder_layers": 2}, r"parameter decoder/layer_1/attention/key/bias is no such parameter in the checkpoint, "
                            r"float32\[1, 8\] in the config"),
    ({"biases": False}, r"parameter decoder/final_norm/bias is float32\[16\] in the checkpoint, "
                        r"no such parameter in the config"),
    ({"tied_head": False}, r"parameter head/words/kernel is no such parameter"),
])
def test_a_wrong_checkpoint_names_the_first_parameter_that_differs(run, tmp_path, changes, message):
    made, other = run(), run(**changes)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(made.model, made.first, {})
    with Checkpoints(tmp_path) as checkpoints:
        for restore in (lambda: checkpoints.restore(other.model, other.shapes, other.mesh, 0),
                        lambda: checkpoints.restore_parameters(other.model, other.mesh, 0)):
            with pytest.raises(ValueError, match=f"checkpoint at step 0 does not fit the config: {message}"):
                restore()


@pytest.mark.parametrize(("higher", "figures", "best"), [(True, [1, 5, 2, 5, 3], 4), (False, [9, 2, 4, 8, 7], 2)])
def test_the_two_latest_and_the_best_step_are_kept(run, same_arrays, tmp_path, higher, figures, best):
    made = run()
    with Checkpoints(tmp_path, "accuracy", higher) as checkpoints:
        for step, figure in enumerate(figures, 1):
            checkpoints.save(made.model, _at(made.first, step), {}, {"accuracy": figure, "other": -figure})
        checkpoints.save(made.model, _at(made.first, 6), {})  # not evaluated: never the best
    assert _steps_in(tmp_path) == [best, 5, 6]
    with Checkpoints(tmp_path, "accuracy", higher) as checkpoints:
        assert (checkpoints.best(), checkpoints.latest()) == (best, 6)
        kept = checkpoints.restore_parameters(made.model, made.mesh, best)
    same_arrays(kept, _at(made.first, best).parameters)


def test_without_a_metric_only_the_two_latest_are_kept(run, tmp_path):
    made = run()
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() is None
        for step in (1, 2, 2, 3):
            checkpoints.save(made.model, _at(made.first, step), {}, {"accuracy": -step})
        assert checkpoints.latest() == checkpoints.best() == 3
    assert _steps_in(tmp_path) == [2, 3]
