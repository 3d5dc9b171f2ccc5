# SPDX-License-Identifier: Apache-2.0
"""Tiny random checkpoints come in; the reference's own answers go out, in every form of the model."""

import pathlib

import jax
import numpy as np
import pytest

from t5tasks import pretrained, sharding

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
CASES = sorted(path.name for path in FIXTURES.iterdir())
SIDES = ("right", "left")
F32 = {"compute_dtype": "float32"}  # on a GPU the default is bfloat16


def batch(name, side):
    """The inputs of a fixture's batch padded on that side, and what the reference answers."""
    with np.load(FIXTURES / name / "reference.npz") as reference:
        arrays = {key.removeprefix(f"{side}_"): reference[key]
                  for key in reference.files if key.startswith(side)}
    return arrays, arrays.pop("output")


def check(loaded, name):
    for side in SIDES:
        inputs, expected = batch(name, side)
        answer = loaded.forward(**inputs)
        assert answer.dtype == np.float32 and answer.shape == expected.shape
        np.testing.assert_allclose(answer, expected, rtol=0, atol=1e-4, err_msg=side)


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_the_reference_at_every_position(name):
    loaded = pretrained.load(FIXTURES / name, overrides=F32)
    assert loaded.new == ()
    check(loaded, name)


@pytest.mark.parametrize("name", ["bert_cls", "llama_untied", "t5_v1_1"])
def test_scanned_on_a_mesh_equals_the_reference(name):
    mesh = sharding.make_mesh(2, 2, 2)
    check(pretrained.load(FIXTURES / name, mesh=mesh, overrides=F32 | {"layer_loop": "scan"}), name)


@pytest.mark.parametrize(("name", "smallest"), [("bert_cls", 0.25), ("llama_untied", 0.25),
                                                ("t5_v1_1", 0.5)])
def test_every_form_holds_the_same_numbers_on_the_shards_of_the_table(name, smallest):
    mesh = sharding.make_mesh(2, 2, 2)
    plain = pretrained.load(FIXTURES / name)
    for loop in ("unroll", "scan"):
        loaded = pretrained.load(FIXTURES / name, mesh=mesh, overrides={"layer_loop": loop})
        wanted = sharding.parameter_shardings(loaded.parameters, mesh)
        placed = jax.tree.map(lambda array: array.sharding, loaded.parameters)
        assert placed == wanted
        host = jax.tree.map(np.asarray, loaded.parameters)
        jax.tree.map(np.testing.assert_array_equal, loaded.model.unrolled_form(host),
                     plain.parameters)
    sizes = [array.addressable_shards[0].data.size / array.size
             for array in jax.tree.leaves(loaded.parameters)]
    assert min(sizes) == smallest  # what two devices do not divide (three heads) stays whole


def test_padding_changes_nothing_where_there_is_text():
    loaded = pretrained.load(FIXTURES / "bert_token", overrides=F32)
    inputs, _ = batch("bert_token", "right")
    alone = loaded.forward(**{name: array[2:, :4] for name, array in inputs.items()})
    padded = loaded.forward(**inputs)[2:, :4]
    np.testing.assert_allclose(alone, padded, rtol=0, atol=1e-5)


def test_absent_inputs_are_those_of_the_reference():
    loaded = pretrained.load(FIXTURES / "bert_bare", overrides=F32)
    ids = np.arange(1, 12)[None]
    full = loaded.forward(input_ids=ids, attention_mask=np.ones_like(ids),
                          token_type_ids=np.zeros_like(ids), position_ids=np.arange(11)[None])
    np.testing.assert_allclose(loaded.forward(input_ids=ids), full, rtol=0, atol=1e-5)
    moved = loaded.forward(input_ids=ids, position_ids=np.arange(11)[None] + 1)
    assert np.abs(moved - full).max() > 0.01
