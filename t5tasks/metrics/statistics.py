# SPDX-License-Identifier: Apache-2.0
"""Scores of several seeds, or counts of the same records by two systems, come in; intervals and p-values go out.

The figure of a system is a function of its summed counts (see counts.py), which need not be a mean over records: BLEU
and entity F1 are none. So what is drawn are records, and the figure is taken of the sums of each draw.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy import stats

from t5tasks.metrics.counts import Counts

Figure = Callable[[Counts], float]
Stacked = Mapping[str, np.ndarray]  # each count of N records, [N, ...]


@dataclasses.dataclass(frozen=True)
class Interval:
    """A mean and the ends of its interval, which are NaN where there is one value only."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """The mean of n independent values and mean ± t(n − 1) · s / √n, s their standard deviation (Student 1908).

    Raises ValueError when there is no value.
    """
    if not len(values):
        raise ValueError("an interval was asked for over no values")
    numbers = np.asarray(values, np.float64)
    n, mean = len(numbers), float(numbers.mean())
    if n == 1:
        return Interval(mean, math.nan, math.nan, n)
    half = float(stats.t.ppf((1 + level) / 2, n - 1) * numbers.std(ddof=1) / math.sqrt(n))
    return Interval(mean, mean - half, mean + half, n)


def stack(parts: Sequence[Counts]) -> dict[str, np.ndarray]:
    """The counts of N records, one array [N, ...] a name; those that are 0 in all of them are kept."""
    return {name: np.stack([part[name] for part in parts]) for name in (parts[0] if parts else {})}


def paired_permutation(figure: Figure, ours: Stacked, theirs: Stacked, rounds: int = 1000, seed: int = 0) -> float:
    """The two-sided p-value of the difference of two systems' figures over the same N records.

    In every round each record's counts change sides or stay, by a fair coin (approximate randomisation, Noreen 1989;
    Yeh 2000, arxiv.org/abs/cs/0008005): p = (1 + rounds at least as different as observed) / (1 + rounds). Where all
    2^N assignments are no more than `rounds`, each is taken once and p is exact.

    Raises:
      ValueError: the systems were not counted over the same number of records, or over none.
    """
    n = _records(ours, theirs)
    if n < 31 and 2**n <= rounds:
        swapped = (np.arange(2**n)[:, None] >> np.arange(n)) & 1
        extra = 0
    else:
        swapped = np.random.default_rng(seed).integers(0, 2, (rounds, n))
        extra = 1
    observed = abs(_difference(figure, _sums(ours, np.ones((1, n))), _sums(theirs, np.ones((1, n))))[0])
    sides = [{name: _weighted(ours[name], first) + _weighted(theirs[name], 1 - first) for name in ours}
             for first in (1 - swapped, swapped)]
    differences = np.abs(_difference(figure, *sides))
    # Sums of floats in another order are not equal to the last bit.
    as_different = int((differences >= observed - 1e-9 * max(observed, 1e-9)).sum())
    return (extra + as_different) / (extra + len(swapped))


def paired_bootstrap(figure: Figure, ours: Stacked, theirs: Stacked, rounds: int = 1000, level: float = 0.95,
                     seed: int = 0) -> tuple[float, float]:
    """The ends of the interval of our figure minus theirs, by percentiles over records drawn with replacement.

    See Koehn 2004, "Statistical Significance Tests for Machine Translation Evaluation". Raises ValueError as
    `paired_permutation`.
    """
    n = _records(ours, theirs)
    drawn = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), rounds)
    differences = _difference(figure, _sums(ours, drawn), _sums(theirs, drawn))
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _records(ours: Stacked, theirs: Stacked) -> int:
    sizes = {len(values) for side in (ours, theirs) for values in side.values()}
    if len(sizes) != 1 or 0 in sizes or ours.keys() != theirs.keys():
        raise ValueError(f"systems counted over {sorted(sizes)} records cannot be compared in pairs; expected the same "
                         "counts of the same records, at least one")
    return sizes.pop()


def _weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """[N, ...] and [R, N] → [R, ...]: each round's sum."""
    return np.tensordot(weights.astype(np.float64), values.astype(np.float64), axes=1)


def _sums(stacked: Stacked, weights: np.ndarray) -> dict[str, np.ndarray]:
    return {name: _weighted(values, weights) for name, values in stacked.items()}


def _difference(figure: Figure, ours: Stacked, theirs: Stacked) -> np.ndarray:
    """f64[R]: our figure minus theirs in each round."""
    def figures(side: Stacked) -> list[float]:
        rounds = len(next(iter(side.values())))
        return [figure({name: values[index] for name, values in side.items()}) for index in range(rounds)]

    return np.asarray(figures(ours)) - np.asarray(figures(theirs))
