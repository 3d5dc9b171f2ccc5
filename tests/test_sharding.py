# SPDX-License-Identifier: Apache-2.0
"""Eight devices in three meshes against one: the same numbers, each device holding its part."""

import dataclasses
import functools
import itertools
import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from t5tasks import sharding
from t5tasks.models import adapters
from t5tasks.models.config import HEADS, ModelConfig, Patches, Vision
from t5tasks.models.model import Model
from t5tasks.training import optimizer as optimizers
from t5tasks.training import state as states
from t5tasks.training.step import make_train_step

MESHES = [(8, 1, 1), (2, 2, 2), (1, 1, 8)]
SETTINGS = {"name": "adamw", "learning_rate": 1e-2, "schedule": "constant", "warmup": 0, "final_fraction": 0.0,
            "weight_decay": 0.1, "clip_norm": 1.0, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-3}
LOSS = {"label_smoothing": 0.1, "z_loss": 1e-3, "chunk_tokens": 0}
# Every size is a multiple of 8, so that each mesh splits each kernel; but there are two key heads.
CONFIG = ModelConfig(architecture="encoder_decoder", vocabulary=40, width=16, heads=8, kv_heads=2, head_size=4,
                     feed_forward=24, encoder_layers=1, decoder_layers=1, positions="relative", tied_head=False,
                     dropout=0.2, initializer_range=0.0)


def _mesh(sizes):
    return sharding.make_mesh(*sizes) if sizes else sharding.make_mesh(1, devices=jax.devices()[:1])


def _all_configs():
    """Every architecture with every norm and position kind, and every head; options on and off.

    A head's parameters depend neither on the stacks below it nor on their norms and positions.
    """
    stacks = itertools.product(("encoder", "decoder", "encoder_decoder"), ("layernorm", "rmsnorm"),
                               ("learned", "rotary", "relative"), ("none",))
    of_tokens = tuple(head for head in HEADS if head != "match")
    heads = itertools.product(("encoder",), ("layernorm", "rmsnorm"), ("learned",), of_tokens)
    for architecture, norm, positions, head in (*stacks, *heads):
        more = norm == "layernorm"
        yield ModelConfig(
            architecture=architecture, head=head, vocabulary=8, width=8, heads=2, kv_heads=1, head_size=4,
            feed_forward=8, max_length=8, norm=norm, positions=positions, biases=more, gated=more,
            final_norm=more, embedding_norm=more, token_types=2 * more, pooler="tanh" if more else "none",
            tied_head=not more, head_bias=more, head_transform=more,
            encoder_layers=int("encoder" in architecture), decoder_layers=int("decoder" in architecture))
    yield from _configs_with_images()


def _configs_with_images():
    """An encoder of images alone, beside a text encoder, and before a decoder."""
    sizes = {"vocabulary": 8, "width": 8, "heads": 2, "kv_heads": 2, "head_size": 4, "feed_forward": 8, "max_length": 8}
    tower = ModelConfig(architecture="encoder", head="none", encoder_layers=1, decoder_layers=0, positions="grid",
                        norm="layernorm", biases=True, layer_scale=True, patches=Patches(4, 2), **sizes)
    image = dataclasses.replace(tower, head="pooled", pooling="attention", projection=6)
    yield tower
    yield ModelConfig(architecture="encoder", head="match", encoder_layers=1, decoder_layers=0, head_bias=True,
                      projection=6, vision=Vision(image), **sizes)
    yield ModelConfig(decoder_layers=1, vision=Vision(tower, "mlp"), **sizes)


def test_exactly_one_rule_for_every_parameter_of_every_model():
    mesh, paths = _mesh((2, 2, 2)), {}
    for config in _all_configs():
        shapes = jax.eval_shape(Model(config).init, jax.random.key(0))
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
            paths[sharding.path_name(path)] = leaf.shape
    used = set()
    for name, shape in paths.items():
        matching = [pattern for pattern, _ in sharding.RULES if re.search(pattern, name)]
        assert len(matching) == 1, (name, matching)
        assert len(sharding.parameter_spec(name, shape, mesh)) <= len(shape)
        used.update(matching)
    assert used == {pattern for pattern, _ in sharding.RULES}, "a rule that no model needs"


def _whole_spec(name, shape, mesh):
    """One entry a dimension, with the ends that the shortest form leaves out."""
    spec = tuple(sharding.parameter_spec(name, shape, mesh))
    return spec + (None,) * (len(shape) - len(spec))


def test_an_adapter_lies_as_its_kernel_does():
    """A as the kernel's inputs, B as its outputs, and the rank whole; also under a first axis of layers."""
    mesh, seen = _mesh((2, 2, 2)), 0
    for config in _all_configs():
        shapes = jax.eval_shape(Model(config).init, jax.random.key(0))
        for path, leaf in jax.tree_util.tree_leaves_with_path(shapes):
            name = sharding.path_name(path)
            if not name.endswith("/kernel"):
                continue
            inputs = adapters.input_axes(name)
            for prefix, axes in ((name, ()), (f"decoder/layers/{name}", (4,))):
                if axes and "^" in next(pattern for pattern, _ in sharding.RULES if re.search(pattern, name)):
                    continue  # heads are in no stack
                spec = _whole_spec(prefix, (*axes, *leaf.shape), mesh)[len(axes):]
                a = _whole_spec(prefix.replace("kernel", "lora_a"), (*axes, *leaf.shape[:inputs], 3), mesh)
                b = _whole_spec(prefix.replace("kernel", "lora_b"), (*axes, 3, *leaf.shape[inputs:]), mesh)
                whole = (None,) * len(axes)
                assert a == (*whole, *spec[:inputs], None) and b == (*whole, None, *spec[inputs:]), name
            seen += 1
    assert seen > 100
    with pytest.raises(ValueError, match="0 sharding rules match parameter 'decoder/layer_0/gate/lora_a'"):
        sharding.parameter_spec("decoder/layer_0/gate/lora_a", (4, 3), mesh)


def test_a_parameter_without_a_rule_is_an_error():
    with pytest.raises(ValueError, match="0 sharding rules match parameter 'decoder/layer_0/gate'"):
        sharding.parameter_spec("decoder/layer_0/gate", (4,), _mesh((2, 2, 2)))
    with pytest.raises(ValueError, match="has 2 dimensions, the parameter is \\(8,\\)"):
        sharding.parameter_spec("embedding", (8,), _mesh((2, 2, 2)))


def test_what_a_mesh_does_not_divide_stays_whole_and_layers_are_never_split():
    mesh, kernel = _mesh((1, 2, 4)), "decoder/layer_0/attention/key/kernel"
    assert sharding.parameter_spec(kernel, (16, 4, 8), mesh) == PartitionSpec("fsdp", "tensor")
    assert sharding.parameter_spec(kernel, (16, 2, 8), mesh) == PartitionSpec("fsdp")
    stacked = kernel.replace("layer_0", "layers")
    assert sharding.parameter_spec(stacked, (4, 16, 4, 8), mesh) == PartitionSpec(None, "fsdp", "tensor")
    assert sharding.parameter_spec(kernel, (16, 4, 8), _mesh((8, 1, 1))) == PartitionSpec()  # axes of one device


@pytest.mark.parametrize(("sizes", "message"), [
    ((3, 1, 1), "a mesh of data=3 fsdp=1 tensor=1 does not use the 8 devices exactly"),
    ((-1, 3, 1), "a mesh of data=-1 fsdp=3 tensor=1 does not use the 8 devices"),
    ((-1, 16, 1), "does not use the 8 devices exactly; set sizes whose product is 8"),
    ((-1, -1, 1), "mesh sizes are data=-1 fsdp=-1 tensor=1; each must be positive, and at most one -1"),
    ((8, 0, 1), "mesh sizes are data=8 fsdp=0 tensor=1"),
])
def test_a_mesh_that_does_not_use_the_devices_is_refused(sizes, message):
    with pytest.raises(ValueError, match=message):
        sharding.make_mesh(*sizes)


def test_the_rest_of_the_devices_is_filled_in():
    assert dict(sharding.make_mesh(-1, 2, 2).shape) == {"data": 2, "fsdp": 2, "tensor": 2}
    assert dict(sharding.make_mesh().shape) == {"data": 8, "fsdp": 1, "tensor": 1}


def test_a_batch_that_the_mesh_does_not_divide_is_refused():
    mesh = _mesh((2, 2, 2))
    sharding.check_batch(mesh, 12)
    with pytest.raises(ValueError, match="config.batch.size is 6, which the mesh's 4 batch shards "
                                         r"\(data 2 x fsdp 2\) do not divide; use a multiple of 4"):
        sharding.check_batch(mesh, 6, "config.batch.size")


def test_rows_of_a_batch_lie_over_data_and_fsdp():
    mesh, rows = _mesh((2, 2, 2)), np.arange(24).reshape(8, 3)
    placed = sharding.global_batch({"tokens": rows}, mesh)["tokens"]
    np.testing.assert_array_equal(placed, rows)
    assert {shard.data.shape for shard in placed.addressable_shards} == {(2, 3)}


@pytest.fixture(scope="module")
def runs(quick_jit):
    """runs[mesh]: the state at step 0 and after each of three steps, and each step's sums."""
    random = np.random.RandomState(0)
    batch = {name: random.randint(1, CONFIG.vocabulary, size=(8, 9)).astype(np.int32)
             for name in ("tokens", "targets", "source_tokens")}
    lengths = random.randint(4, 10, size=(8, 1))
    batch |= {"segments": (np.arange(9) < lengths).astype(np.int32),
              "source_segments": (np.arange(9) < lengths[::-1]).astype(np.int32)}
    batch["weights"] = batch["segments"].astype(np.float32)
    model, optimizer = Model(CONFIG), optimizers.build(SETTINGS, 3)
    given = jax.tree.map(lambda leaf: ((leaf.ndim < 2) + 0.2 * random.randn(*leaf.shape)).astype(np.float32),
                         jax.eval_shape(model.init, jax.random.key(0)))

    def go(sizes):
        mesh = _mesh(sizes)
        state = states.initialise(model, optimizer, mesh, 3, given)
        step, history = quick_jit(make_train_step(model, optimizer, LOSS)), []
        for _ in range(3):
            after, sums = step(state, sharding.global_batch(batch, mesh))
            history.append((state, sums))
            state = after
        return [*history, (state, None)]

    return {sizes: go(sizes) for sizes in [None, *MESHES]}


def _close(one, other, **tolerance):
    for (path, left), right in zip(jax.tree_util.tree_leaves_with_path(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(np.asarray(left), np.asarray(right), err_msg=sharding.path_name(path), **tolerance)


@pytest.fixture(scope="module")
def drawn():
    """drawn(mesh): a fresh state of a small encoder, drawn from seed 3 where it lies."""
    config = dataclasses.replace(CONFIG, architecture="encoder", head="cls", decoder_layers=0, gated=False,
                                 positions="rotary")
    model, optimizer = Model(config), optimizers.build(SETTINGS, 3)
    return functools.cache(lambda sizes: states.initialise(model, optimizer, _mesh(sizes), seed=3))


def test_eight_devices_draw_the_parameters_of_one(drawn):
    _close(drawn((2, 2, 2)), drawn(None), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("sizes", MESHES, ids=str)
def test_eight_devices_train_as_one(runs, sizes):
    """Loss and gradient norm of three steps with dropout on, moments of the gradients, parameters."""
    for (_, sums), (_, expected) in zip(runs[sizes][:3], runs[None][:3], strict=True):
        _close(sums, expected, rtol=1e-5)
    (state, _), (expected_state, _) = runs[sizes][3], runs[None][3]
    _close(state, expected_state, rtol=1e-5, atol=1e-5)
    first = runs[None][0][0].parameters
    moved = jax.tree.map(lambda new, old: float(np.abs(np.asarray(new) - np.asarray(old)).max()),
                         expected_state.parameters, first)
    assert max(jax.tree.leaves(moved)) > 1e-2


@pytest.mark.parametrize(("sizes", "when"), [((2, 2, 2), 0), ((2, 2, 2), 3), ((1, 1, 8), 3)], ids=str)
def test_no_device_holds_a_whole_kernel(runs, drawn, sizes, when):
    """Parameters and moments lie as the rules say: as drawn (0), and after three steps."""
    state, mesh = runs[sizes][3][0] if when else drawn(sizes), _mesh(sizes)
    kernels = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.parameters):
        name = sharding.path_name(path)
        expected = jax.sharding.NamedSharding(mesh, sharding.parameter_spec(name, leaf.shape, mesh))
        assert leaf.sharding.is_equivalent_to(expected, leaf.ndim), name
        shared_heads = re.search(r"attention/(key|value)", name) and sizes == (1, 1, 8)
        if name.endswith(("kernel", "embedding")) and not shared_heads:
            assert max(shard.data.size for shard in leaf.addressable_shards) * 2 <= leaf.size, name
            kernels += 1
    assert kernels >= 7
    for moments in (state.optimizer[1][0].mu, state.optimizer[1][0].nu):
        same = jax.tree.map(lambda moment, leaf: moment.sharding.is_equivalent_to(leaf.sharding, leaf.ndim),
                            moments, state.parameters)
        assert all(jax.tree.leaves(same))
    stack = state.parameters["decoder" if when else "encoder"]
    kernel = stack["layer_0"]["feed_forward"]["up"]["kernel"]
    assert {shard.data.size for shard in kernel.addressable_shards} == {kernel.size // (sizes[1] * sizes[2])}


def test_a_device_needs_no_room_for_the_whole_model_while_it_is_drawn(quick_jit):
    """By the compiler's account of the program that draws the parameters."""
    config = dataclasses.replace(CONFIG, vocabulary=4096, width=64, dropout=0.0, decoder_layers=1, biases=False,
                                 architecture="decoder", encoder_layers=0, tied_head=True)
    model, mesh = Model(config), _mesh((1, 2, 4))
    placed = sharding.parameter_shardings(jax.eval_shape(model.init, jax.random.key(0)), mesh)
    memory = quick_jit(model.init, out_shardings=placed).lower(jax.random.key(0)).compile().memory_analysis()
    whole = 4 * config.vocabulary * config.width
    assert memory.output_size_in_bytes + memory.temp_size_in_bytes < 0.75 * whole


def test_an_optimizers_state_lies_as_its_parameter_or_whole():
    """Adafactor's factored statistics have other shapes; counters have none."""
    mesh = _mesh((2, 2, 2))
    parameters = {"embedding": jnp.zeros((256, 128)), "head": {"classifier": {"kernel": jnp.zeros((128, 3))}}}
    for optimizer, expected in ((optax.adamw(1e-3), {"mu", "nu"}), (optax.lion(1e-3), {"mu"}),
                                (optax.sgd(1e-3, momentum=0.9), {"trace"}), (optax.adafactor(1e-3), {"v"})):
        shapes = jax.eval_shape(optimizer.init, parameters)
        placed = sharding.optimizer_shardings(shapes, parameters, mesh)
        split = set()
        for (path, shape), place in zip(jax.tree_util.tree_leaves_with_path(shapes), jax.tree.leaves(placed),
                                        strict=True):
            name = sharding.path_name(path)
            if shape.shape == (256, 128):
                assert place.spec == PartitionSpec("tensor", "fsdp"), name
            elif shape.shape == (128, 3):
                assert place.spec == PartitionSpec("fsdp"), name
                split.add(name.split("/")[1] if name[0].isdigit() else name.split("/")[0])
            else:
                assert place.spec == PartitionSpec(), name
        assert {part for part in expected if any(part in found for found in split)} == expected, split


@dataclasses.dataclass(frozen=True, eq=False)
class OfProcesses:
    """What `batch_part` asks of a mesh, over devices of several processes in their order."""

    shape: dict
    devices: np.ndarray


@pytest.mark.parametrize(("sizes", "processes", "part", "rows"), [
    ((8, 1, 1), [0, 0, 0, 0, 1, 1, 1, 1], (0, 2), [0, 1, 2, 3]),
    ((2, 2, 2), [1, 1, 1, 1, 0, 0, 0, 0], (1, 2), [4, 5, 6, 7]),
    ((1, 1, 8), [0, 0, 0, 0, 1, 1, 1, 1], (0, 1), [*range(8)]),
    ((2, 1, 4), [1, 1, 0, 0, 3, 3, 2, 2], (0, 2), [0, 1, 2, 3]),
    ((8, 1, 1), [0, 1, 0, 1, 0, 1, 0, 1], (0, 2), [0, 2, 4, 6])])
def test_a_process_has_the_rows_that_its_devices_hold(sizes, processes, part, rows):
    """Processes that share the rows (a tensor axis that spans them) have the same part; rows may lie apart."""
    devices = np.array([types.SimpleNamespace(process_index=index) for index in processes]).reshape(sizes)
    mesh = OfProcesses(dict(zip(sharding.AXES, sizes, strict=True)), devices)
    assert sharding.batch_part(mesh) == part
    assert sharding.part_rows(mesh, 8).tolist() == rows


def test_rows_that_processes_share_by_halves_are_refused():
    devices = np.array([types.SimpleNamespace(process_index=index) for index in (0, 0, 0, 1, 1, 1)])
    mesh = OfProcesses({"data": 3, "fsdp": 1, "tensor": 2}, devices.reshape(3, 1, 2))
    with pytest.raises(ValueError, match="data=3 fsdp=1 tensor=2 gives some of the 2 processes rows that only a part"):
        sharding.batch_part(mesh)
