# SPDX-License-Identifier: Apache-2.0
"""Kernels and adapters come in; W + scale * A B goes out, in either form of layers, and its gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks.models import adapters
from t5tasks.models.adapters import Lora


@pytest.fixture
def random():
    return np.random.RandomState(0)


@pytest.fixture
def trees(random):
    """What is trained and what is kept: adapters of two maps with three axes, a head in full."""
    def draw(*shape):
        return jnp.asarray(random.randn(*shape), jnp.float32)

    kept = {"embedding": draw(7, 4), "layer_0": {"attention": {
        "query": {"kernel": draw(4, 3, 2), "bias": draw(3, 2)}, "out": {"kernel": draw(3, 2, 4)}}}}
    trained = {"head": {"kernel": draw(4, 2)}, "layer_0": {"attention": {
        "query": {"lora_a": draw(4, 5), "lora_b": draw(5, 3, 2)},
        "out": {"lora_a": draw(3, 2, 5), "lora_b": draw(5, 4)}}}}
    return trained, kept


def test_a_map_with_its_adapter_is_the_map_and_scale_times_a_low_rank_one(trees, random):
    trained, kept = trees
    whole = adapters.joined(trained, kept, 0.5)
    attention, pair = whole["layer_0"]["attention"], trained["layer_0"]["attention"]
    x, mixed = random.randn(4), random.randn(3, 2)
    expected = np.einsum("d,dnh->nh", x, kept["layer_0"]["attention"]["query"]["kernel"]) + 0.5 * np.einsum(
        "r,rnh->nh", x @ pair["query"]["lora_a"], pair["query"]["lora_b"])
    np.testing.assert_allclose(np.einsum("d,dnh->nh", x, attention["query"]["kernel"]), expected, rtol=1e-5, atol=1e-5)
    expected = np.einsum("nh,nhd->d", mixed, kept["layer_0"]["attention"]["out"]["kernel"]) + 0.5 * (
        np.einsum("nh,nhr->r", mixed, pair["out"]["lora_a"]) @ pair["out"]["lora_b"])
    answer = np.einsum("nh,nhd->d", mixed, attention["out"]["kernel"])
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)


def test_what_has_no_adapter_is_the_very_same_array(trees):
    trained, kept = trees
    for whole in (adapters.joined(trained, kept, 0.5), adapters.merged(trained, kept, 0.5)):
        assert whole["embedding"] is kept["embedding"] and whole["head"]["kernel"] is trained["head"]["kernel"]
        query = whole["layer_0"]["attention"]["query"]
        assert query["bias"] is kept["layer_0"]["attention"]["query"]["bias"] and {*query} == {"kernel", "bias"}
    assert {*kept["layer_0"]["attention"]["query"]} == {"kernel", "bias"}


def test_stacked_layers_are_each_layer(trees, random):
    one, two = ({"lora_a": random.randn(3, 2, 5), "lora_b": random.randn(5, 4), "kernel": random.randn(3, 2, 4)}
                for _ in range(2))
    apart = [adapters.add(*(jnp.asarray(layer[name]) for name in ("kernel", "lora_a", "lora_b")), 0.5)
             for layer in (one, two)]
    together = adapters.add(*(jnp.stack([one[name], two[name]]) for name in ("kernel", "lora_a", "lora_b")), 0.5)
    np.testing.assert_allclose(together, jnp.stack(apart), rtol=1e-6, atol=1e-6)


def test_an_adapter_begins_without_effect_and_with_a_gradient(trees, random):
    _, kept = trees
    path = "encoder/layer_0/attention/out/kernel"
    leaves = adapters.begin({path: (3, 2, 4)}, 5, jax.random.key(1))
    a, b = (leaves[path.replace("kernel", name)] for name in ("lora_a", "lora_b"))
    assert a.shape == (3, 2, 5) and b.shape == (5, 4) and not b.any()
    bound = 6**-0.5  # of six inputs
    assert np.abs(a).max() < bound and np.abs(a).max() > 0.8 * bound and abs(a.mean()) < bound / 3
    kernel, x = kept["layer_0"]["attention"]["out"]["kernel"], jnp.asarray(random.randn(3, 2), jnp.float32)

    def loss(a, b):
        return jnp.sum(jnp.einsum("nh,nhd->d", x, adapters.add(kernel, a, b, 2.0)) ** 2)

    of_a, of_b = jax.grad(loss, (0, 1))(a, b)
    y = np.einsum("nh,nhd->d", x, kernel)
    np.testing.assert_allclose(of_b, 2.0 * np.outer(np.einsum("nh,nhr->r", x, a), 2 * y), rtol=1e-4, atol=1e-5)
    assert not of_a.any()  # through B, which is zero


def test_an_adapter_depends_on_its_path_and_the_key_alone():
    shapes = {f"encoder/layer_{i}/attention/query/kernel": (4, 3, 2) for i in range(2)}
    shapes |= {"head/words/kernel": (4, 7)}
    apart = adapters.begin(shapes, 5, jax.random.key(1))
    alone = adapters.begin({"head/words/kernel": (4, 7)}, 5, jax.random.key(1))
    stacked = adapters.begin({"encoder/layers/attention/query/kernel": (2, 4, 3, 2)}, 5, jax.random.key(1))
    first, second = (apart[f"encoder/layer_{i}/attention/query/lora_a"] for i in range(2))
    np.testing.assert_array_equal(stacked["encoder/layers/attention/query/lora_a"], jnp.stack([first, second]))
    assert stacked["encoder/layers/attention/query/lora_b"].shape == (2, 5, 3, 2)
    np.testing.assert_array_equal(alone["head/words/lora_a"], apart["head/words/lora_a"])
    assert not np.array_equal(first, second)
    other = adapters.begin(shapes, 5, jax.random.key(2))
    assert not np.array_equal(other["head/words/lora_a"], apart["head/words/lora_a"])


def test_the_scale_is_alpha_by_rank_or_by_its_root():
    assert Lora(8, 16.0).scale == 2.0 and Lora(16, 16.0, rank_stabilised=True).scale == 4.0 and Lora().scale == 0.0


@pytest.mark.parametrize(("given", "said"), [({"rank": -1}, "lora.rank is -1"), ({"alpha": 0.0}, "lora.alpha is 0.0"),
                                             ({"alpha": float("nan")}, "lora.alpha is nan")])
def test_settings_that_are_none_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        Lora(**given)


def test_an_adapter_of_another_model_is_refused():
    with pytest.raises(ValueError, match="no kernel"):
        adapters.joined({"gate": {"lora_a": jnp.ones((2, 1)), "lora_b": jnp.ones((1, 2))}}, {"up": {}}, 1.0)
