# SPDX-License-Identifier: Apache-2.0
"""Checkpoints and larger vocabularies come in; the same checkpoints with rows for new tokens go out."""

import pathlib

import jax
import numpy as np
import pytest

from t5tasks import pretrained, sharding
from t5tasks.pretrained.resizing import resize

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
F32 = {"compute_dtype": "float32"}


@pytest.mark.parametrize(("name", "tables", "new"), [
    ("llama_tied", {"embedding": 0}, ("embedding[199:204]",)),
    ("llama_untied", {"embedding": 0, "head/words/kernel": 1},
     ("embedding[199:204]", "head/words/kernel[:, 199:204]")),
    ("bert_masked", {"embedding": 0, "head/bias": 0}, ("embedding[199:204]", "head/bias[199:204]")),
])
def test_old_rows_stay_and_new_ones_begin_near_their_mean(name, tables, new):
    loaded = pretrained.load(FIXTURES / name, overrides=F32)
    grown = resize(loaded, 204, seed=3)
    assert grown.model.config.vocabulary == 204 and grown.new == new
    before, after = (dict(jax.tree_util.tree_leaves_with_path(tree.parameters)) for tree in (loaded, grown))
    for path, old in before.items():
        if (key := sharding.path_name(path)) not in tables:
            assert after[path] is old
            continue
        old, table = (np.moveaxis(np.asarray(leaf), tables[key], 0) for leaf in (old, after[path]))
        np.testing.assert_array_equal(table[:199], old)
        noise = (table[199:] - old.mean(0)) / old.std(0)
        assert len(noise) == 5 and np.abs(noise).max() < 5 * 1e-5**0.5
        if noise.size > 50:
            assert noise.std() == pytest.approx(1e-5**0.5, rel=0.3) and len(np.unique(noise)) == noise.size


def test_answers_on_old_tokens_stay_and_new_tokens_are_average_ones():
    loaded = pretrained.load(FIXTURES / "llama_untied", overrides=F32)
    grown = resize(loaded, 204)
    ids = np.arange(1, 12)[None]
    before, after = loaded.forward(input_ids=ids), grown.forward(input_ids=ids)
    np.testing.assert_allclose(after[..., :199], before, rtol=0, atol=1e-5)
    np.testing.assert_allclose(after[..., 199:], before.mean(-1, keepdims=True).repeat(5, -1), atol=0.1)
    grown.forward(input_ids=np.full((1, 3), 203))


def test_the_seed_decides_and_no_change_is_none():
    loaded = pretrained.load(FIXTURES / "llama_tied")
    tables = [np.asarray(resize(loaded, 203, seed).parameters["embedding"]) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(tables[0], tables[1])
    assert not np.array_equal(tables[0], tables[2])
    assert resize(loaded, 199) is loaded
    with pytest.raises(ValueError, match="a vocabulary of 198 is smaller than the checkpoint's 199"):
        resize(loaded, 198)


def test_on_a_mesh_rows_lie_where_the_rules_say():
    """199 rows lie whole, 204 over the tensor axis."""
    mesh = sharding.make_mesh(2, 2, 2)
    loaded = pretrained.load(FIXTURES / "llama_untied", mesh=mesh, overrides=F32 | {"layer_loop": "scan"})
    grown = resize(loaded, 204)
    placed = jax.tree.map(lambda leaf: leaf.sharding, grown.parameters)
    assert placed == sharding.parameter_shardings(grown.parameters, mesh)
    assert grown.parameters["embedding"].addressable_shards[0].data.shape == (102, 12)
    alone = resize(pretrained.load(FIXTURES / "llama_untied", overrides=F32), 204)
    np.testing.assert_allclose(grown.parameters["embedding"], alone.parameters["embedding"], rtol=1e-6, atol=1e-6)
