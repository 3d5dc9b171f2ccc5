# SPDX-License-Identifier: Apache-2.0
"""Seeds and paired counts with known intervals and p-values come in; they come out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from t5tasks.metrics import statistics


def mean(counts):
    return float(counts["hits"] / counts["examples"])


def stacked(hits):
    return {"hits": np.asarray(hits), "examples": np.ones(len(hits), np.int64)}


def test_the_interval_is_student_s():
    """By hand: mean 2, s = 1, t(2) = 4.303 at 97.5 %, √3 = 1.732, so 2 ± 2.484."""
    found = statistics.t_interval([1.0, 2.0, 3.0])
    assert (found.mean, found.n) == (2.0, 3)
    assert (found.low, found.high) == pytest.approx((2 - 2.48414, 2 + 2.48414), abs=1e-5)
    values = np.random.default_rng(0).normal(size=9)
    low, high = stats.ttest_1samp(values, 0).confidence_interval(0.99)
    found = statistics.t_interval(values, 0.99)
    assert (found.low, found.high) == pytest.approx((low, high))


def test_one_value_has_no_interval_and_none_no_mean():
    found = statistics.t_interval([0.5])
    assert found.mean == 0.5 and found.n == 1 and math.isnan(found.low) and math.isnan(found.high)
    with pytest.raises(ValueError, match="no values"):
        statistics.t_interval([])


def test_few_records_are_permuted_exactly():
    """Five records, all won: of 32 assignments two are as different, 2/32."""
    assert statistics.paired_permutation(mean, stacked([1] * 5), stacked([0] * 5)) == 2 / 32
    assert statistics.paired_permutation(mean, stacked([1, 0, 1]), stacked([1, 0, 1])) == 1
    ours, theirs = [0.9, 0.1, 0.7, 0.4, 0.8, 0.6, 0.3], [0.2, 0.3, 0.1, 0.5, 0.2, 0.1, 0.9]
    found = statistics.paired_permutation(mean, stacked(ours), stacked(theirs))
    peer = stats.permutation_test((ours, theirs), lambda a, b, axis: np.mean(a - b, axis=axis), vectorized=True,
                                  permutation_type="samples", n_resamples=np.inf)
    assert found == pytest.approx(peer.pvalue)


def test_many_records_are_permuted_by_samples():
    """McNemar's exact test is what it tends to for hits and misses: 30 against 12 of 42 that differ."""
    ours, theirs = [1] * 30 + [0] * 12 + [1] * 60, [0] * 30 + [1] * 12 + [1] * 60
    found = statistics.paired_permutation(mean, stacked(ours), stacked(theirs), rounds=4000)
    assert found == pytest.approx(stats.binomtest(12, 42).pvalue, abs=0.005)
    assert found == statistics.paired_permutation(mean, stacked(theirs), stacked(ours), rounds=4000)
    assert statistics.paired_permutation(mean, stacked([1] * 50), stacked([0] * 50), rounds=99) == 0.01


def test_the_figure_may_be_no_mean():
    """F1 of sums: of two systems that differ on one record in twelve, not of means of records' F1."""
    def f1(counts):
        return 2 * counts["right"] / (counts["present"] + counts["found"])

    ours = {"right": np.eye(12)[0] * 9 + 1, "present": np.full(12, 10), "found": np.full(12, 10)}
    theirs = {"right": np.ones(12), "present": np.full(12, 10), "found": np.full(12, 10)}
    # Only where the first record changes sides matters: it makes ±9/120 of every assignment.
    assert statistics.paired_permutation(f1, ours, theirs, rounds=4096) == 1
    low, high = statistics.paired_bootstrap(f1, ours, theirs, rounds=2000)
    assert low == 0 and high == pytest.approx(27 / 120)  # the record is drawn 0 to 3 times in 95 % of the draws


def test_the_bootstrap_s_interval_is_that_of_the_paired_mean():
    generator = np.random.default_rng(1)
    theirs = generator.random(300)
    ours = theirs + 0.1 + 0.05 * generator.normal(size=300)
    low, high = statistics.paired_bootstrap(mean, stacked(ours), stacked(theirs), rounds=4000)
    error = float(np.std(ours - theirs, ddof=1) / math.sqrt(300))
    centre = float(np.mean(ours - theirs))
    assert (low, high) == pytest.approx((centre - 1.96 * error, centre + 1.96 * error), abs=0.2 * error)


def test_unequal_records_are_refused():
    with pytest.raises(ValueError, match="same records"):
        statistics.paired_bootstrap(mean, stacked([1, 0]), stacked([1]))
    with pytest.raises(ValueError, match="same records"):
        statistics.paired_permutation(mean, stacked([]), stacked([]))
