# SPDX-License-Identifier: Apache-2.0
"""Patterns come in; what they keep stays to the bit, has no optimizer state, and the rest is trained."""

import dataclasses

import jax
import numpy as np
import pytest

from t5tasks import sharding
from t5tasks.models.adapters import Lora
from t5tasks.training import partition as partitions
from t5tasks.training import state as states
from t5tasks.training.checkpoint import Checkpoints
from t5tasks.training.partition import partition
from t5tasks.training.step import make_train_step

LOSS = {"label_smoothing": 0.1, "z_loss": 1e-3, "chunk_tokens": 0}
SIZES = {"decoder_layers": 2, "tied_head": False}
MAPS = r"attention/(query|out)/kernel$"
EVERY = r"kernel$"


def names(tree) -> set[str]:
    return {sharding.path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)}


def moments(state) -> set[str]:
    """The paths that Adam's first moment has."""
    return names(state.optimizer[1][0].mu)


@pytest.fixture(scope="module")
def begun(run, quick_jit):
    """begun(frozen, lora, fresh, **model): the small decoder, what is trained of it, its first state and its step."""
    def make(frozen=(), lora=None, fresh=(), mesh=None, micro_batches=1, **changes):
        made = run(mesh=mesh, **SIZES, **changes)
        parts = partition(made.model, frozen, lora, fresh)
        shapes = jax.eval_shape(made.model.init, jax.random.key(0))
        random = np.random.RandomState(0)
        given = made.model.running_form(jax.tree.map(
            lambda leaf: ((leaf.ndim < 2) + 0.2 * random.randn(*leaf.shape)).astype(np.float32),
            made.model.unrolled_form_shapes(shapes)))
        state = states.initialise(made.model, made.optimizer, made.mesh, 0, given, parts)
        step = quick_jit(make_train_step(made.model, made.optimizer, LOSS, micro_batches, parts))
        return made, parts, state, step

    return make


def test_frozen_leaves_stay_to_the_bit_and_have_no_moments(begun, batch_of, same_arrays):
    made, parts, first, step = begun(("^embedding$", "layer_0/"))
    assert parts.kept == {path for path in names({**first.kept})}
    assert all(path == "embedding" or path.startswith("decoder/layer_0/") for path in parts.kept)
    state = first
    for _ in range(3):
        state, _ = step(state, made.place(batch_of(8)))
    same_arrays(state.kept, first.kept)
    assert moments(state) == names(state.parameters) and not moments(state) & parts.kept
    moved = jax.tree.map(lambda new, old: float(abs(new - old).max()), state.parameters, first.parameters)
    assert min(jax.tree.leaves(moved)) > 1e-6, moved


def test_what_is_trained_does_not_depend_on_what_is_kept_being_in_a_tree_of_its_own(begun, batch_of, same_arrays):
    """One step of SGD without clipping moves the trained leaves as training everything does."""
    sgd = (("name", "sgd"), ("learning_rate", 0.1), ("warmup", 0), ("clip_norm", 0.0))
    made, parts, first, step = begun(("^embedding$", "layer_0/"), optimizer=sgd, dropout=0.0)
    _, _, all_first, all_step = begun(optimizer=sgd, dropout=0.0)
    batch = made.place(batch_of(8))
    state, sums = step(first, batch)
    other, other_sums = all_step(all_first, batch)
    same_arrays(state.parameters, parts.split(other.parameters)[0], rtol=1e-5, atol=1e-7)
    assert float(sums["loss"]) == pytest.approx(float(other_sums["loss"]), rel=1e-6)
    assert float(sums["gradient_norm"]) < float(other_sums["gradient_norm"])


def test_adapters_begin_as_the_model_and_move_alone(begun, batch_of, same_arrays):
    lora = Lora(rank=3, alpha=6.0, pattern=MAPS)
    made, parts, first, step = begun((), lora, ("head/words/kernel",))
    adapters = {f"decoder/layer_{layer}/attention/{name}/lora_{letter}" for layer in range(2)
                for name in ("query", "out") for letter in "ab"}
    assert names(first.parameters) == adapters | {"head/words/kernel"} == moments(first)
    _, _, plain, _ = begun()
    whole = parts.merge(first.parameters, first.kept)
    same_arrays(whole, plain.parameters)
    state, losses = first, []
    batch = made.place(batch_of(8))
    for _ in range(12):
        state, sums = step(state, batch)
        losses.append(float(sums["nll"] / sums["weight"]))
    same_arrays(state.kept, first.kept)
    assert losses[-1] < losses[1]
    moved = jax.tree.map(lambda new, old: float(abs(new - old).max()), state.parameters, first.parameters)
    assert min(jax.tree.leaves(moved)) > 1e-6, moved
    joined = jax.jit(parts.join)(state.parameters, state.kept)
    same_arrays(joined, parts.merge(state.parameters, state.kept), rtol=1e-6, atol=1e-6)


def test_micro_batches_of_adapters_are_one_batch(begun, batch_of, same_arrays):
    sgd = (("name", "sgd"), ("learning_rate", 0.1), ("warmup", 0))
    ends = []
    for parts in (1, 4):
        made, _, state, step = begun((), Lora(rank=3, pattern=MAPS), (), optimizer=sgd, dropout=0.0,
                                     micro_batches=parts)
        for _ in range(2):
            state, _ = step(state, made.place(batch_of(8)))
        ends.append(state)
    same_arrays(*ends, rtol=1e-5, atol=1e-6)


def test_eight_devices_train_adapters_as_one(begun, batch_of, same_arrays):
    """Scanned there and unrolled here."""
    even = {"vocabulary": 64, "width": 32, "heads": 8, "kv_heads": 4, "feed_forward": 48, "dropout": 0.0,
            "optimizer": (("epsilon", 1e-3),)}  # a small one makes much of the last bits
    lora, ends = Lora(rank=3, pattern=EVERY), []
    for mesh, loop in ((None, "unroll"), (sharding.make_mesh(2, 2, 2), "scan")):
        made, parts, state, step = begun((), lora, (), mesh=mesh, layer_loop=loop, **even)
        for _ in range(2):
            state, sums = step(state, made.place(batch_of(8)))
        ends.append((made.model.unrolled_form(state.parameters), sums))
        if mesh is not None:
            for tree in (state.parameters, state.optimizer[1][0].nu):
                layers = tree["decoder"]["layers"]
                for leaf, spec in ((layers["feed_forward"]["up"]["lora_a"], (None, "fsdp", None)),
                                   (layers["feed_forward"]["up"]["lora_b"], (None, None, "tensor")),
                                   (layers["attention"]["out"]["lora_a"], (None, "tensor", None, None)),
                                   (layers["attention"]["out"]["lora_b"], (None, None, "fsdp"))):
                    expected = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(*spec))
                    assert leaf.sharding.is_equivalent_to(expected, leaf.ndim)
            merged = parts.merge(state.parameters, state.kept)
            lies = jax.tree.map(lambda leaf, place: leaf.sharding.is_equivalent_to(place, leaf.ndim), merged,
                                sharding.parameter_shardings(merged, mesh))
            assert all(jax.tree.leaves(lies))
    same_arrays(*ends, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("frozen", [(), ("^embedding$", "layer_0/")], ids=["adapters", "frozen"])
def test_ten_steps_and_ten_more_after_a_restart_are_twenty(begun, batch_of, same_arrays, tmp_path, frozen):
    lora = None if frozen else Lora(rank=3, pattern=MAPS)
    made, parts, first, step = begun(frozen, lora)
    batches = [made.place(batch_of(8)), made.place(batch_of(16))]

    def go_on(state, start):
        for number in range(start, start + 10):
            state, _ = step(state, batches[number % 2])
        return state

    half = go_on(first, 0)
    straight = go_on(half, 10)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(made.model, half, {}, partition=parts)
        checkpoints._manager.wait_until_finished()
        stored = names(checkpoints._manager.item_metadata(10)["parameters"].tree)
    assert stored == (names(parts.join(first.parameters, first.kept)) if frozen else names(first.parameters))
    assert parts.adapted or stored >= parts.kept
    shapes = states.state_shapes(made.model, made.optimizer, parts)
    base = None if frozen else parts.join(*parts.split(begun()[2].parameters))
    with Checkpoints(tmp_path) as checkpoints:
        restored = checkpoints.restore(made.model, shapes, made.mesh, 10, parts, base)
    same_arrays(restored, half)
    same_arrays(go_on(restored, 10), straight)


def test_a_scanned_stack_is_all_trained_or_all_kept(run):
    scanned, unrolled = (run(layer_loop=loop, **SIZES).model for loop in ("scan", "unroll"))
    parts = partition(scanned, ("layer_[01]/attention/",))
    assert parts.kept and all(path.startswith("decoder/layers/attention/") for path in parts.kept)
    assert partitions.layers_differ(scanned, ("layer_0/",))
    assert partitions.layers_differ(scanned, (), Lora(rank=1, pattern="layer_1/attention/query/kernel"))
    assert not partitions.layers_differ(scanned, ("attention",))
    assert not partitions.layers_differ(unrolled, ("layer_0/",))
    with pytest.raises(ValueError, match="decoder/layer_0/attention/key/bias differs from other layers; set "
                                         "config.model.layer_loop to unroll"):
        partition(scanned, ("layer_0/",))


@pytest.mark.parametrize(("frozen", "lora", "fresh", "said"), [
    (("layer_7/",), None, (), r"config.train.frozen is 'layer_7/', which matches no parameter; paths are such as"),
    (("^embeding$",), None, (), r"paths are such as embedding"),
    (("(",), None, (), r"config.train.frozen is '\(', which is no regular expression"),
    (("",), None, (), "which freezes every parameter of the model"),
    ((), Lora(2, pattern="attention/querry"), (), r"config.lora.pattern is 'attention/querry', which matches no "
                                                 r"parameter; .*decoder/layer_0/attention/query/kernel"),
    ((), Lora(2, pattern="^embedding$"), (), "config.lora.pattern is '.embedding.', which matches no"),
    (("query",), Lora(2, pattern="query"), (), "all that it matches is frozen"),
    ((), Lora(2, pattern="head/words"), ("head/words/kernel",), "all that it matches is frozen or trained in full"),
])
def test_what_leaves_nothing_to_do_is_refused(run, frozen, lora, fresh, said):
    with pytest.raises(ValueError, match=said) as error:
        partition(run(**SIZES).model, frozen, lora, fresh)
    assert "\n" not in str(error.value)


def test_frozen_kernels_have_no_adapter_and_frozen_heads_are_not_fresh(run):
    parts = partition(run(**SIZES).model, ("layer_0/", "head"), Lora(2, pattern="query"), ("head/words/kernel",))
    assert parts.adapted == {"decoder/layer_1/attention/query/kernel"} and "head/words/kernel" in parts.kept


def test_an_identity_sees_every_bit_and_neither_mesh_nor_form(begun):
    made, _, state, _ = begun()
    parameters = state.parameters
    known = partitions.identity(made.model, parameters)
    scanned, _, other, _ = begun(mesh=sharding.make_mesh(2, 2, 2), layer_loop="scan")
    assert partitions.identity(scanned.model, other.parameters) == known
    kernel = parameters["decoder"]["layer_1"]["attention"]["out"]["kernel"]
    bits = np.asarray(kernel).view(np.uint32).copy()
    bits[1, 3, 5] ^= 1
    swapped = np.asarray(kernel).copy()
    swapped[0, 0, 0], swapped[0, 0, 1] = kernel[0, 0, 1], kernel[0, 0, 0]
    for changed in (bits.view(np.float32), swapped):
        tree = jax.tree.map(lambda leaf: changed if leaf is kernel else leaf, parameters)  # noqa: B023
        assert partitions.identity(made.model, tree) != known


def test_without_patterns_everything_is_trained(run, same_arrays):
    made = run()
    assert partition(made.model) == partitions.ALL
    parameters = made.first.parameters
    assert partitions.ALL.join(parameters, {}) is parameters and partitions.ALL.split(parameters)[1] == {}
    assert dataclasses.replace(made.first).kept == {}
