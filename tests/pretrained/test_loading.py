# SPDX-License-Identifier: Apache-2.0
"""Views in any order and format come in; the same numbers, each moved once and into little memory, go out."""

import dataclasses
import itertools
import json
import math
import pathlib
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from t5tasks import pretrained, sharding
from t5tasks.models.model import Model
from t5tasks.pretrained import copying, parameters
from t5tasks.pretrained.table import Row

FIXTURES = pathlib.Path(__file__).parent / "fixtures"


def numbers(shape, dtype=np.float32, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def copied(view):
    out = copying.empty(view.shape)
    out[...] = np.nan
    tasks = list(copying.tasks(out, view))
    for task in tasks:
        copying.copy(task)
    return out, tasks


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
@pytest.mark.parametrize("shape", [(), (7,), (5, 33), (40, 3, 17), (2, 3, 5, 16)])
def test_a_view_in_any_order_is_copied(shape, dtype):
    array = numbers(shape, dtype)
    for order in itertools.permutations(range(len(shape))):
        view = array.transpose(order)
        for cut in (slice(None), slice(1, None), slice(None, 4)):
            part = view[(*(cut,) * len(shape), ...)]
            out, _ = copied(part)
            assert out.dtype == np.float32 and out.ctypes.data % copying.ALIGNMENT == 0
            np.testing.assert_array_equal(out, part.astype(np.float32))


def test_every_half_precision_number_is_widened_exactly():
    bits = np.arange(2**16, dtype=np.uint16).reshape(2**8, 2**8).T
    for dtype in (np.float16, jnp.bfloat16):
        view = bits.view(dtype)
        np.testing.assert_array_equal(copied(view)[0], view.astype(np.float32))


def test_large_copies_are_shared_out_and_small_ones_are_not():
    view = numbers((1500, 1100)).T
    out, tasks = copied(view)
    np.testing.assert_array_equal(out, view)
    assert len(tasks) == math.ceil(view.nbytes / copying.TASK) > 1
    assert len(copied(numbers((30, 40)).T)[1]) == 1


def test_equal_views_are_the_same_and_one_number_tells():
    left = numbers((700, 900)).T
    right = left.astype(jnp.bfloat16)
    assert copying.is_same(left, left.copy()) and not copying.is_same(left, right)
    assert copying.is_same(right.astype(np.float32), right)
    other = left.copy()
    other[899, 699] += 1
    assert not copying.is_same(left, other)


# ours, foreign as written out by hand
ROWS = [
    (Row("a", "b/kernel"), [(4, 6)], lambda x: x),
    (Row("a", "b/scale"), [(6,)], lambda x: x[None]),
    (Row("a", "b/bias"), [(3, 5)], lambda x: x.reshape(15)),
    (Row("a", "b/kernel", "transpose"), [(4, 3, 5)], lambda x: x.reshape(4, 15).T),
    (Row("a", "b/kernel", "transpose", 2), [(3, 5, 4)], lambda x: x.reshape(15, 4).T),
    (Row("a", "b/kernel", "flat"), [(4, 3, 5)], lambda x: x.reshape(4, 15)),
    (Row("a", "b/kernel", "convolution"), [(2, 2, 3, 5)], lambda x: np.einsum("xycd->dcxy", x)),
    (Row("a", ("b/kernel", "c/kernel"), "transpose"), [(4, 6, 5), (4, 2, 5)],
     lambda x, y: np.concatenate([x.reshape(4, 30).T, y.reshape(4, 10).T])),
    (Row("a", ("b/kernel", "c/kernel"), "flat"), [(4, 3, 5), (4, 2, 5)],
     lambda x, y: np.concatenate([x.reshape(4, 15), y.reshape(4, 10)], 1)),
    (Row("a", ("b/bias", "c/bias")), [(3, 5), (2, 5)], lambda x, y: np.concatenate([x.ravel(), y.ravel()])),
    (Row("a", ("b/kernel", "c/kernel"), "transpose", interleaved=True), [(4, 3, 5)] * 2,
     lambda x, y: np.stack([x, y], 2).reshape(4, 30).T),
    (Row("a", ("b/bias", "c/bias"), interleaved=True), [(3, 5)] * 2, lambda x, y: np.stack([x, y], 1).ravel()),
]


@pytest.mark.parametrize(("row", "shapes", "written"), ROWS, ids=lambda case: getattr(case, "transform", None))
def test_a_row_reads_what_it_writes(row, shapes, written):
    ours = [numbers(shape, seed=seed) for seed, shape in enumerate(shapes)]
    theirs = np.ascontiguousarray(written(*ours))
    assert row.fits(theirs.shape, shapes)
    made = np.empty_like(theirs)
    for part, array in enumerate(ours):
        np.testing.assert_array_equal(row.view(theirs, shapes, part), array)
        assert np.shares_memory(row.view(made, shapes, part), made)
        row.view(made, shapes, part)[...] = array
    np.testing.assert_array_equal(made, theirs)


@pytest.mark.parametrize("name", sorted(path.name for path in FIXTURES.iterdir()))
def test_the_layers_that_are_not_traced_have_the_shapes_of_those_that_are(name):
    config = pretrained.read_config(FIXTURES / name)
    for loop in ("unroll", "scan") if config.first_norm else ("unroll",):
        model = Model(dataclasses.replace(config, layer_loop=loop))
        traced = sharding.flat(jax.eval_shape(model.init, jax.random.key(0)))
        assert parameters.running_shapes(model) == {path: leaf.shape for path, leaf in traced.items()}


@pytest.fixture
def wide(tmp_path):
    """A Llama of 8 layers and 13 MB in bf16, whose largest parameter takes 1 MB in f32."""
    width, feed_forward, layers = 256, 1024, 8
    shapes = {"model.embed_tokens.weight": (1000, width), "model.norm.weight": (width,)}
    for layer in range(layers):
        start = f"model.layers.{layer}."
        shapes |= {f"{start}self_attn.{name}_proj.weight": (width, width) for name in "qkvo"}
        shapes |= {f"{start}mlp.{name}_proj.weight": (feed_forward, width) for name in ("gate", "up")}
        shapes |= {f"{start}mlp.down_proj.weight": (width, feed_forward), f"{start}input_layernorm.weight": (width,),
                   f"{start}post_attention_layernorm.weight": (width,)}
    safetensors.numpy.save_file({name: numbers(shape, jnp.bfloat16) for name, shape in shapes.items()},
                                tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({
        "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": width, "vocab_size": 1000,
        "intermediate_size": feed_forward, "num_attention_heads": 4, "num_hidden_layers": layers,
        "tie_word_embeddings": True}))
    return tmp_path


def peak(function):
    """What a function returns, and how many bytes NumPy and Python held at most meanwhile."""
    function()  # what stays in caches is not counted
    tracemalloc.start()
    try:
        return function(), tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_host_memory_stays_near_the_largest_parameter(wide, tmp_path):
    loaded, read = peak(lambda: pretrained.load(wide))
    sizes = [array.nbytes for array in jax.tree.leaves(loaded.parameters)]
    # A CPU's devices keep the memory that was filled, so that the parameters themselves are in it.
    assert sum(sizes) > 20 * max(sizes) and read < sum(sizes) + 3 * max(sizes)
    places = itertools.count()
    _, written = peak(lambda: pretrained.save(
        tmp_path / f"export{next(places)}", loaded.model, loaded.parameters, wide))
    assert written < 3 * max(sizes)
