# SPDX-License-Identifier: Apache-2.0
"""Counts add up exactly, whatever they are made of and however they are grouped."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5tasks.metrics import counts


def test_integers_stay_integers_and_floats_become_float64() -> None:
    got = counts.as_counts(
        {
            "flag": np.array([True, False]),
            "small": np.int8(7),
            "python": 3,
            "half": np.float16(0.5),
            "device": jnp.asarray([0.25, 2.0], jnp.bfloat16),
        }
    )
    assert {name: value.dtype.name for name, value in got.items()} == {
        "flag": "int64",
        "small": "int64",
        "python": "int64",
        "half": "float64",
        "device": "float64",
    }
    assert got["flag"].tolist() == [1, 0]
    assert got["device"].tolist() == [0.25, 2.0]


def test_sums_that_float32_loses_are_kept() -> None:
    # 2**24 + 1 has no float32; a sum in the device's dtype would stay at 2**24 for ever.
    tokens = [{"tokens": np.float32(2**24)}, {"tokens": np.float32(1)}, {"tokens": np.float32(1)}]
    assert float(counts.total(tokens)["tokens"]) == 2**24 + 2


@given(st.lists(st.lists(st.integers(-(2**40), 2**40), min_size=2, max_size=2), max_size=8))
def test_grouping_and_order_change_nothing(rows: list[list[int]]) -> None:
    parts = [{"a": np.array(row), "b": np.array(row[0])} for row in rows]
    whole = counts.total(parts)
    assert counts.total(reversed(parts)).keys() == whole.keys()
    middle = len(parts) // 2
    grouped = counts.add(counts.total(parts[:middle]), counts.total(parts[middle:]))
    for name in whole:
        np.testing.assert_array_equal(counts.total(reversed(parts))[name], whole[name])
        np.testing.assert_array_equal(grouped[name], whole[name])
    if parts:
        assert whole["a"].tolist() == [sum(row[0] for row in rows), sum(row[1] for row in rows)]


def test_nothing_is_neutral_and_arguments_are_left_alone() -> None:
    one = {"hits": np.array([1, 2])}
    assert counts.add({}, one)["hits"].tolist() == [1, 2]
    assert counts.add(one, {})["hits"].tolist() == [1, 2]
    assert counts.add(one, one)["hits"].tolist() == [2, 4]
    assert one["hits"].tolist() == [1, 2]
    assert counts.total([]) == {}


def test_counts_of_different_metrics_are_refused() -> None:
    with pytest.raises(ValueError, match="different metrics.*'hits'.*'misses'"):
        counts.add({"hits": 1}, {"misses": 1})
    with pytest.raises(ValueError, match=r"'hits' has shape \(2,\).*\(3,\)"):
        counts.add({"hits": np.zeros(2)}, {"hits": np.zeros(3)})
    with pytest.raises(ValueError, match="'name' has dtype"):
        counts.as_counts({"name": "translation"})
