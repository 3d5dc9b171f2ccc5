# SPDX-License-Identifier: Apache-2.0
"""Two forms of a stack, three ways to keep its activations: the same numbers each time."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from t5tasks.models import stack
from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model

BOTH = {"name": "relative encoder-decoder", "encoder_layers": 1}
SLIDING = {"name": "sliding decoder", "decoder_layers": 3}


def _same(one, other, **tolerance):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), one, other)


@pytest.fixture(scope="module")
def loss_and_gradient(quick_jit):
    """loss_and_gradient(model): a function of parameters and inputs, compiled once."""
    return functools.cache(lambda model: quick_jit(jax.value_and_grad(
        lambda parameters, inputs: jnp.sum(jnp.sin(model.apply(parameters, inputs))))))


@pytest.mark.parametrize("changes", [
    {"layer_loop": "scan"}, {"layer_loop": "scan", "rematerialise": "full"}, {"rematerialise": "dots"}],
    ids=lambda changes: " ".join(changes.values()))
@pytest.mark.parametrize("kind", [BOTH, SLIDING], ids=lambda kind: kind["name"])
def test_scanning_and_rematerialising_change_no_value_and_no_gradient(
        family, inputs_of, loss_and_gradient, kind, changes):
    plain = family(**kind, layer_loop="unroll")
    model = Model(dataclasses.replace(plain.config, **changes))
    inputs = inputs_of(plain.config)
    loss, gradient = loss_and_gradient(plain.model)(plain.parameters, inputs)
    other_loss, other_gradient = loss_and_gradient(model)(model.running_form(plain.parameters), inputs)
    np.testing.assert_allclose(other_loss, loss, rtol=1e-5)
    _same(model.unrolled_form(other_gradient), gradient, atol=2e-5, rtol=1e-4)


def test_a_scanned_model_decodes_as_the_unrolled_one(family, inputs_of):
    plain, scanned = (family(**BOTH, layer_loop=form) for form in ("unroll", "scan"))
    inputs = inputs_of(plain.config, rows=2, length=3)
    stacked = scanned.model.running_form(plain.parameters)
    steps = [made.step(parameters, inputs["tokens"], jnp.asarray([3, 2]),
                       made.start(parameters, 2, 5, inputs))
             for made, parameters in ((plain, plain.parameters), (scanned, stacked))]
    _same(steps[0], steps[1], atol=1e-5)


def test_dropout_differs_between_scanned_layers(family):
    """Layers that add constants, 1 and 10, show in the sum which entries each of them dropped."""
    scanned = family("rotary decoder", layer_loop="scan", biases=True, dropout=0.5, head="none", final_norm=False)
    parameters = jax.tree.map(jnp.zeros_like, scanned.parameters)
    parameters["decoder"]["layers"]["feed_forward"]["down"]["bias"] = jnp.asarray([[1.0] * 24, [10.0] * 24])
    tokens = jnp.zeros((8, 16), jnp.int32)
    hidden = np.asarray(scanned.apply(parameters, {"tokens": tokens}, jax.random.key(0))) / 2
    assert set(np.unique(hidden)) == {0, 1, 10, 11}
    first, second = hidden % 2 == 1, hidden >= 10
    for share in (first.mean(), second.mean(), (first == second).mean()):
        assert share == pytest.approx(0.5, abs=0.05)


SMALL = ModelConfig(vocabulary=11, width=6, heads=3, kv_heads=3, head_size=2, feed_forward=5, decoder_layers=2,
                    encoder_layers=1, architecture="encoder_decoder", initializer_range=0.0)


def _random_like(shapes):
    random = np.random.RandomState(0)
    return jax.tree.map(lambda leaf: random.standard_normal(leaf.shape).astype(np.float32), shapes)


def _kernels(tree):
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", tree)


@pytest.mark.parametrize("optimizer", [
    None, optax.adamw(1e-3), optax.chain(optax.clip_by_global_norm(1.0), optax.lion(1e-3)),
    optax.sgd(1e-3, momentum=0.9),
    optax.masked(optax.adam(1e-3), _kernels)],
    ids=["parameters", "adamw", "lion", "sgd", "masked"])
def test_stacking_and_unstacking_undo_each_other(quick_jit, optimizer):
    """For parameters and for what optimizers keep of them; both forms are the optimizer's own."""
    unrolled = jax.eval_shape(Model(dataclasses.replace(SMALL, layer_loop="unroll")).init, jax.random.key(0))
    scanned = jax.eval_shape(Model(dataclasses.replace(SMALL, layer_loop="scan")).init, jax.random.key(0))
    if optimizer is not None:
        unrolled, scanned = (jax.eval_shape(optimizer.init, shapes) for shapes in (unrolled, scanned))
    tree = _random_like(unrolled)
    stacked, back, again, untouched = quick_jit(lambda tree: (
        stack.stacked(tree), stack.unstacked(stack.stacked(tree)),
        stack.stacked(stack.unstacked(stack.stacked(tree))), stack.unstacked(tree)))(tree)
    assert jax.tree.structure(stacked) == jax.tree.structure(scanned)
    assert jax.tree.map(np.shape, stacked) == jax.tree.map(np.shape, scanned)
    _same(back, tree, rtol=0)
    _same(again, stacked, rtol=0)
    _same(untouched, tree, rtol=0)


def test_layers_are_stacked_in_their_order():
    """Ten and more layers: names sort as numbers, not as text."""
    tree = {f"layer_{index}": {"kernel": np.full(2, index)} for index in range(12)}
    stacked = stack.stacked({"decoder": tree, "embedding": np.zeros(3)})
    np.testing.assert_array_equal(stacked["decoder"]["layers"]["kernel"][:, 0], np.arange(12))
    assert set(stacked) == {"decoder", "embedding"}


def test_fresh_parameters_are_the_same_in_either_form(quick_jit):
    config = dataclasses.replace(SMALL, architecture="decoder", encoder_layers=0)
    unrolled, scanned = (Model(dataclasses.replace(config, layer_loop=form)) for form in ("unroll", "scan"))
    one, other = quick_jit(lambda key: (unrolled.init(key), scanned.init(key)))(jax.random.key(0))
    _same(jax.device_get(scanned.unrolled_form(other)), one, rtol=1e-6)  # fused otherwise, so to the last bit
    second = quick_jit(unrolled.init)(jax.random.key(1))
    kernels = [parameters["decoder"][f"layer_{index}"]["feed_forward"]["up"]["kernel"]
               for parameters in (one, second) for index in range(2)]
    for index, kernel in enumerate(kernels):
        assert all(not np.array_equal(kernel, rest) for rest in kernels[index + 1:])


@pytest.mark.parametrize(("initializer_range", "deviations"), [
    (0.0, {"embedding": 64**-0.5, "query": 64**-0.5, "out": 48**-0.5, "up": 64**-0.5, "down": 96**-0.5}),
    (0.02, dict.fromkeys(("embedding", "query", "out", "up", "down"), 0.02))])
def test_fresh_parameters_have_the_deviation_they_should(quick_jit, initializer_range, deviations):
    """1 / sqrt(fan in), or BERT's fixed range; norms start at 1, biases at 0."""
    config = ModelConfig(vocabulary=300, width=64, heads=3, kv_heads=3, head_size=16, feed_forward=96,
                         decoder_layers=1, initializer_range=initializer_range, norm="layernorm", biases=True)
    parameters = quick_jit(Model(config).init)(jax.random.key(0))
    layer = parameters["decoder"]["layer_0"]
    found = {"embedding": parameters["embedding"], "up": layer["feed_forward"]["up"]["kernel"],
             "down": layer["feed_forward"]["down"]["kernel"], "query": layer["attention"]["query"]["kernel"],
             "out": layer["attention"]["out"]["kernel"]}
    for name, deviation in deviations.items():
        assert np.std(found[name]) == pytest.approx(deviation, rel=0.06), name
    assert (layer["attention_norm"]["scale"] == 1).all() and (layer["attention"]["query"]["bias"] == 0).all()
