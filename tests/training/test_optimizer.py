# SPDX-License-Identifier: Apache-2.0
"""Learning rates at key steps, what weight decay spares, and layers that are updated apart."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import sharding
from t5tasks.models.stack import stacked, unstacked
from t5tasks.training import optimizer as optimizers

SETTINGS = {"name": "adamw", "learning_rate": 0.5, "schedule": "constant", "warmup": 0, "final_fraction": 0.0,
            "weight_decay": 0.0, "clip_norm": 0.0, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8}


@pytest.mark.parametrize(("changes", "rates"), [
    ({"schedule": "constant"}, {0: 0.5, 50: 0.5, 100: 0.5}),
    ({"schedule": "constant", "warmup": 10}, {0: 0.0, 5: 0.25, 10: 0.5, 100: 0.5}),
    ({"schedule": "linear", "warmup": 0.2}, {0: 0.0, 10: 0.25, 20: 0.5, 60: 0.25, 100: 0.0}),
    ({"schedule": "linear", "final_fraction": 0.5}, {0: 0.5, 50: 0.375, 100: 0.25, 200: 0.25}),
    ({"schedule": "cosine", "warmup": 20, "final_fraction": 0.1},
     {10: 0.25, 20: 0.5, 40: 0.5 * (0.1 + 0.9 * (1 + np.cos(np.pi / 4)) / 2), 60: 0.275, 100: 0.05}),
    ({"schedule": "inverse_sqrt", "warmup": 25}, {5: 0.1, 25: 0.5, 100: 0.25, 400: 0.125}),
    ({"schedule": "inverse_sqrt"}, {0: 0.5, 3: 0.25}),
])
def test_learning_rates_at_key_steps(changes, rates):
    schedule = optimizers.schedule({**SETTINGS, **changes}, 100)
    for step, rate in rates.items():
        assert float(schedule(step)) == pytest.approx(rate, abs=1e-7), step


@pytest.mark.parametrize(("changes", "message"), [
    ({"name": "adam"}, "optimizer.name is 'adam'; did you mean 'adamw'? choices are adamw, adafactor"),
    ({"schedule": "cosin"}, "optimizer.schedule is 'cosin'; did you mean 'cosine'?"),
    ({"learning_rate": -1e-3}, "optimizer.learning_rate is -0.001; it must be positive"),
    ({"learning_rate": float("nan")}, "optimizer.learning_rate is nan; it must be positive"),
])
def test_wrong_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message.replace("?", "[?]")):
        optimizers.build({**SETTINGS, **changes}, 100)


def _parameters(sizes=((130, 140), (140,), (2, 3, 4), (4, 2, 3))):
    random = np.random.RandomState(0)
    wide, bias, out, query = ([random.randn(*size).astype(np.float32) for _ in range(3)] for size in sizes)
    layers = {f"layer_{index}": {"attention": {"query": {"kernel": query[index]}, "out": {"kernel": out[index]}},
                                 "feed_forward": {"up": {"kernel": wide[index], "bias": bias[index]}},
                                 "attention_norm": {"scale": bias[index]}} for index in range(3)}
    return {"decoder": layers, "embedding": wide[0][:3]}


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_weight_decay_spares_norms_and_biases(quick_jit, name):
    """Without gradients only decay moves anything."""
    optimizer = optimizers.build({**SETTINGS, "name": name, "weight_decay": 0.1, "learning_rate": 0.01}, 10)
    parameters = _parameters()
    still = jax.tree.map(np.zeros_like, parameters)
    updates, _ = quick_jit(lambda p: optimizer.update(still, optimizer.init(p), p))(parameters)
    layer, embedding = updates["decoder"]["layer_1"], updates["embedding"]
    for spared in (layer["feed_forward"]["up"]["bias"], layer["attention_norm"]["scale"]):
        assert (np.asarray(spared) == 0).all()
    up = parameters["decoder"]["layer_1"]["feed_forward"]["up"]
    for kernel, update in ((up["kernel"], layer["feed_forward"]["up"]["kernel"]),
                           (parameters["embedding"], embedding)):
        share = np.asarray(update) / kernel
        assert (share < 0).all() and np.ptp(share) < 1e-4 * abs(share.mean())


def test_gradients_are_clipped_by_their_global_norm():
    optimizer = optimizers.build({**SETTINGS, "name": "sgd", "beta1": 0.0, "learning_rate": 1.0, "clip_norm": 2.0}, 10)
    parameters = {"a": jnp.zeros(2), "b": jnp.zeros(1)}
    for size, factor in ((10.0, 2 / 30), (0.1, 1.0)):
        gradients = {"a": jnp.asarray([1.0, 2.0]) * size, "b": jnp.asarray([2.0]) * size}  # norm 3 size
        updates, _ = optimizer.update(gradients, optimizer.init(parameters), parameters)
        np.testing.assert_allclose(updates["a"], -gradients["a"] * factor, rtol=1e-5)


@pytest.mark.parametrize("name", optimizers.OPTIMIZERS)
def test_stacked_layers_are_updated_as_unstacked_ones(quick_jit, name):
    """A scanned model's steps are the unrolled one's: no statistic runs over the axis of layers."""
    optimizer = optimizers.build({**SETTINGS, "name": name, "weight_decay": 0.1, "clip_norm": 1.0}, 10)
    parameters = _parameters()
    gradients = jax.tree.map(lambda leaf: np.roll(leaf, 1) ** 2, parameters)
    gradients["decoder"]["layer_2"] = jax.tree.map(lambda leaf: leaf * 30, gradients["decoder"]["layer_2"])

    def two_updates(parameters, gradients):
        state = optimizer.init(parameters)
        _, state = optimizer.update(gradients, state, parameters)
        return optimizer.update(jax.tree.map(lambda leaf: -leaf / 2, gradients), state, parameters)

    apart = quick_jit(two_updates)(parameters, gradients)
    together = quick_jit(lambda *trees: unstacked(two_updates(*(stacked(tree) for tree in trees))))(
        parameters, gradients)
    assert jax.tree.structure(apart) == jax.tree.structure(together)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), apart, together)


def test_muon_moves_a_kernel_by_the_nearest_orthogonal_matrix(quick_jit):
    """One step: each kernel, heads and their sizes taken as one axis, moves by U V^T of its gradient (all singular
    values about 1), 0.2 sqrt(longer side) times the rate; whatever is no kernel of a layer moves as by AdamW."""
    settings = {**SETTINGS, "learning_rate": 0.01, "beta1": 0.9}
    parameters = _parameters()
    gradients = jax.tree.map(lambda leaf: np.roll(leaf, 1) ** 2 - 0.5, parameters)

    def first_update(name):
        optimizer = optimizers.build({**settings, "name": name}, 10)
        return quick_jit(lambda g, p: optimizer.update(g, optimizer.init(p), p)[0])(gradients, parameters)

    muon, adamw = first_update("muon"), first_update("adamw")
    layer, given = muon["decoder"]["layer_0"], gradients["decoder"]["layer_0"]
    for path, rows in ((("attention", "query"), 4), (("attention", "out"), 6), (("feed_forward", "up"), 130)):
        change, gradient = (np.asarray(tree[path[0]][path[1]]["kernel"]).reshape(rows, -1) for tree in (layer, given))
        left, _, right = np.linalg.svd(gradient, full_matrices=False)
        scaled = -change / (0.01 * 0.2 * max(gradient.shape) ** 0.5)
        sizes = np.linalg.svd(scaled, compute_uv=False)
        assert sizes.min() > 0.6 and sizes.max() < 1.3  # five Newton-Schulz steps end between about 0.7 and 1.2
        turned = left.T @ scaled @ right.T  # diagonal in the gradient's own directions
        np.testing.assert_allclose(turned, np.diag(np.diag(turned)), atol=2e-3)
    for path in ("embedding",), ("decoder", "layer_1", "feed_forward", "up", "bias"):
        ours, theirs = muon, adamw
        for key in path:
            ours, theirs = ours[key], theirs[key]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("form", [lambda tree: tree, stacked])
def test_both_parts_of_muons_state_lie_as_their_parameters(form):
    parameters = form(jax.tree.map(jnp.asarray, _parameters(((8, 16), (16,), (2, 4, 8), (8, 2, 4)))))
    mesh = sharding.make_mesh(2, 2, 2)
    shapes = jax.eval_shape(optimizers.build({**SETTINGS, "name": "muon"}, 10).init, parameters)
    placed = sharding.optimizer_shardings(shapes, parameters, mesh)
    theirs = {sharding.path_name(path): one.spec for path, one in
              jax.tree_util.tree_leaves_with_path(sharding.parameter_shardings(parameters, mesh))}
    met = set()
    for (path, shape), place in zip(jax.tree_util.tree_leaves_with_path(shapes), jax.tree.leaves(placed), strict=True):
        name = sharding.path_name(path)
        [own] = [mine for mine in theirs if name.endswith(f"/{mine}")] or [None]
        assert place.spec == (theirs[own] if own else jax.sharding.PartitionSpec()), name
        assert own or shape.shape in ((), (3,)), name  # a counter, and the coefficients of the iteration
        met.add(own)
    assert met == {*theirs, None}
