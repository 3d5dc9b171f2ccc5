# SPDX-License-Identifier: Apache-2.0
"""Logits through `warp` keep what sorting would keep, on random, peaked, flat and tied rows."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t5tasks import decode
from t5tasks.decode.process import suppress

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
RANDOM = np.random.RandomState(1)
ROWS = {
    "random": RANDOM.randn(1000) * 2,
    "peaked": np.where(np.arange(1000) == 77, 40.0, RANDOM.randn(1000)),
    "steep": -np.arange(1000.0) * 0.7,
    "flat": 1e-3 * RANDOM.randn(1000),
    "equal": np.zeros(1000),
    "tied": np.round(RANDOM.randn(1000) * 2),
    "zeros of both signs": np.where(np.arange(1000) % 2, -0.0, 0.0) - (np.arange(1000) > 700),
    "masked": np.where(np.arange(1000) % 3, -np.inf, RANDOM.randn(1000)),
    "lowest": np.where(np.arange(1000) % 3, np.finfo(np.float32).min, RANDOM.randn(1000)),
    "far": 1e4 + 30 * RANDOM.randn(1000),
}


def kept_by_sorting(logits, temperature, top_k, top_p):
    """bool[V] by the definition, in float64; ties stay together."""
    scaled = (logits.astype(np.float64) - logits.max()) / temperature
    scaled = np.where(scaled < np.finfo(np.float32).min, -np.inf, scaled)
    if top_k:
        kth = np.sort(scaled)[::-1][min(top_k, len(scaled)) - 1]
        scaled = np.where(scaled >= kth, scaled, -np.inf)
    if top_p < 1:
        weights = np.exp(scaled - scaled.max())
        ascending = np.sort(weights)
        dropped = np.cumsum(ascending) / weights.sum() <= 1 - top_p
        dropped[-1] = False
        scaled = np.where(weights >= ascending[~dropped][0], scaled, -np.inf)
    return scaled > -np.inf


@pytest.mark.parametrize("name", ROWS)
def test_keeps_the_set_that_sorting_keeps(name):
    row = ROWS[name].astype(np.float32)
    cases = [(t, k, p) for t in (0.3, 1.0, 1.7) for k in (0, 1, 7, 300, 999, 1000, 5000)
             for p in (1.0, 0.999, 0.9, 0.503, 0.1, 1e-4, 0.0)]
    temperature, top_k, top_p = zip(*cases, strict=True)
    settings = decode.settings(len(cases), temperature=temperature, top_k=top_k, top_p=top_p)
    out = np.asarray(jax.jit(decode.warp)(np.tile(row, (len(cases), 1)), settings))
    for case, warped in zip(cases, out, strict=True):
        expected = kept_by_sorting(row, *case)
        assert np.array_equal(warped > -np.inf, expected), case
        scaled = (row.astype(np.float64) - row.max()) / case[0]
        np.testing.assert_allclose(warped[expected], scaled[expected], rtol=1e-6, atol=1e-6)


def test_a_wide_vocabulary_keeps_the_set_that_sorting_keeps():
    logits = np.random.RandomState(2).randn(6, 32128).astype(np.float32) * 2.5
    top_k, top_p = [0, 0, 0, 50, 1000, 20000], [0.9, 0.5, 0.99, 0.95, 1.0, 0.8]
    settings = decode.settings(6, temperature=1.0, top_k=top_k, top_p=top_p)
    kept = np.asarray(jax.jit(decode.warp)(logits, settings)) > -np.inf
    for row in range(6):
        expected = kept_by_sorting(logits[row], 1.0, top_k[row], top_p[row])
        assert np.array_equal(kept[row], expected), row


@pytest.mark.parametrize("name", ROWS)
def test_typical_and_min_p_keep_the_set_that_sorting_keeps(name):
    """In float64; a token whose distance from the entropy float32 cannot tell from the last kept one may differ."""
    row = ROWS[name].astype(np.float32)
    cases = [(t, m, p) for t in (0.5, 1.0, 1.6) for m in (0.0, 0.01, 0.3, 1.0)
             for p in (1.0, 0.97, 0.7, 0.303, 0.05, 1e-5)]
    temperature, min_p, typical_p = zip(*cases, strict=True)
    settings = decode.settings(len(cases), temperature=temperature, min_p=min_p, typical_p=typical_p)
    out = np.asarray(jax.jit(decode.warp)(np.tile(row, (len(cases), 1)), settings))
    told_apart = 0
    for (temperature, least, mass), warped in zip(cases, out, strict=True):
        scaled = (row.astype(np.float64) - row.max()) / temperature
        scaled[(scaled < np.finfo(np.float32).min) | (np.exp(scaled) < least)] = -np.inf
        probabilities = np.exp(scaled) / np.exp(scaled).sum()
        held = probabilities > 0
        information = -np.log(probabilities, where=held, out=np.full(len(row), np.inf))
        distance = np.abs(information - (probabilities[held] * information[held]).sum())
        order = np.argsort(distance, kind="stable")
        reached = np.cumsum(probabilities[order])
        last = distance[order[np.argmax(reached >= mass - 1e-6)]] if mass < 1 else np.inf
        sure = np.abs(distance - last) > 1e-4 * np.maximum(distance, 1) if mass < 1 else np.ones(len(row), bool)
        sure &= scaled > -80  # below, float32 has no probability
        assert np.array_equal((warped > -np.inf)[sure], ((distance <= last) & (scaled > -np.inf))[sure])
        assert (warped > -np.inf).any()
        told_apart += (held & sure & (distance > last)).any()
    assert told_apart or name in ("peaked", "equal")


def test_probabilities_are_those_of_transformers():
    cases = json.loads((FIXTURES / "warp.json").read_text())["cases"]
    logits = np.stack([(np.random.RandomState(case["seed"]).randn(1, 700)[0] * case["scale"])
                       for case in cases]).astype(np.float32)
    settings = decode.settings(len(cases), **{
        name: [case[name] for case in cases] for name in ("temperature", "top_k", "top_p")})
    out = jax.nn.softmax(decode.warp(logits, settings), axis=-1)
    for case, row in zip(cases, np.asarray(out), strict=True):
        assert np.flatnonzero(row).tolist() == case["kept"]
        np.testing.assert_allclose(row[case["kept"]], case["probabilities"], atol=1e-6)


def test_ties_at_the_kth_place_are_all_kept():
    logits = jnp.array([[3.0, 1.0, 1.0, 2.0, 1.0, 0.0]])
    kept = decode.warp(logits, decode.settings(1, temperature=1.0, top_k=3)) > -jnp.inf
    assert kept.tolist() == [[True, True, True, True, True, False]]


def test_the_picture_of_the_nucleus():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.125, 0.125]]))
    kept = decode.warp(logits, decode.settings(1, temperature=1.0, top_p=0.6)) > -jnp.inf
    assert kept.tolist() == [[True, True, False, False]]


@pytest.mark.parametrize("setting", [{"top_p": 0.0}, {"top_p": 1e-6}, {"top_k": 1}])
def test_only_the_best_is_left(setting):
    logits = np.random.RandomState(3).randn(5, 200).astype(np.float32)
    kept = decode.warp(logits, decode.settings(5, temperature=1.0, **setting)) > -jnp.inf
    assert np.array_equal(kept, np.arange(200) == logits.argmax(-1)[:, None])


def test_no_sort_is_compiled():
    text = jax.jit(decode.warp).lower(jnp.zeros((2, 500)), decode.settings(2)).compile().as_text()
    assert " sort(" not in text and "TopK" not in text


def test_suppress_takes_out_the_named_tokens_of_the_named_rows():
    logits = jnp.arange(8.0).reshape(2, 4)
    out = suppress(logits, jnp.array([1, -1]), jnp.array([True, False]))
    assert out.tolist() == [[0, -np.inf, 2, 3], [4, 5, 6, 7]]


@pytest.mark.parametrize(("given", "said"), [
    ({"temperature": -0.1}, "temperature is -0.1, expected a number from 0"),
    ({"temperature": np.nan}, "temperature is nan"),
    ({"temperature": [1.0, np.inf]}, "temperature is inf"),
    ({"top_k": -1}, "top_k is -1, expected a whole number from 0"),
    ({"top_k": 2.5}, "top_k is 2.5"),
    ({"top_p": 1.01}, "top_p is 1.01, expected a number from 0 to 1"),
    ({"max_new": 0}, "max_new is 0"),
    ({"min_new": [0, 9], "max_new": 8}, "sequence 1 has min_new 9 above its max_new 8"),
    ({"top_p": [0.1, 0.2, 0.3]}, "top_p has shape (3,), expected one number or 2"),
])
def test_settings_out_of_range_are_refused(given, said):
    with pytest.raises(ValueError) as error:
        decode.settings(2, **given)
    assert said in str(error.value)


def test_settings_are_one_value_a_sequence():
    made = decode.settings(2, temperature=[0, 0.5], top_k=7)
    assert made.temperature.tolist() == [0.0, 0.5] and made.top_k.tolist() == [7, 7]
    assert (made.temperature.dtype, made.top_k.dtype) == (np.float32, np.int32)
