# SPDX-License-Identifier: Apache-2.0
"""Label figures agree with values worked out by hand and do not depend on sharding or padding."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from t5tasks.metrics import counts, labels

NAMES = ("entailment", "neutral", "contradiction")
TARGETS = np.array([0, 0, 0, 1, 1, 2])
PREDICTIONS = np.array([0, 0, 1, 1, 2, 1])


def test_the_confusion_matrix_is_its_picture() -> None:
    confusion = labels.confusion_counts(TARGETS, PREDICTIONS, 3)["confusion"]
    assert confusion.dtype == np.int64
    assert confusion.tolist() == [
        [2, 1, 0],
        [0, 1, 1],
        [0, 1, 0],
    ]


def test_figures_by_hand() -> None:
    figures = labels.label_figures(labels.confusion_counts(TARGETS, PREDICTIONS, 3), NAMES)
    expected = {
        "accuracy": 3 / 6,
        "majority_baseline": 3 / 6,
        # entailment: P 2/2, R 2/3, F 4/5; neutral: P 1/3, R 1/2, F 2/5; contradiction: all 0
        "macro_f1": (4 / 5 + 2 / 5 + 0) / 3,
        "precision/entailment": 1.0,
        "recall/entailment": 2 / 3,
        "f1/entailment": 4 / 5,
        "precision/neutral": 1 / 3,
        "recall/neutral": 1 / 2,
        "f1/neutral": 2 / 5,
        "precision/contradiction": 0.0,
        "recall/contradiction": 0.0,
        "f1/contradiction": 0.0,
    }
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=1e-15), name


def test_a_label_that_never_occurs_counts_as_zero_in_macro_f1() -> None:
    figures = labels.label_figures(labels.confusion_counts([0, 0], [0, 0], 2), ("yes", "no"))
    assert figures["accuracy"] == 1.0
    assert figures["f1/no"] == 0.0
    assert figures["macro_f1"] == 0.5


def test_calibration_by_hand() -> None:
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6], [0.5, 0.5]])
    counted = labels.calibration_counts([0, 1, 1, 1], probabilities)
    # 0.9 is in (13/15, 14/15]; 0.6 is the upper edge of (8/15, 9/15]; 0.5 is in (7/15, 8/15]
    assert counted["bin_examples"].tolist() == [0] * 7 + [1, 1] + [0] * 4 + [2, 0]
    assert counted["bin_correct"].tolist() == [0] * 7 + [0, 1] + [0] * 4 + [1, 0]
    # (|0 − 0.5| · 1 + |1 − 0.6| · 1 + |1/2 − 0.9| · 2) / 4
    expected = (0.5 + 0.4 + 0.8) / 4
    assert labels.expected_calibration_error(counted) == pytest.approx(expected, abs=1e-12)


def test_a_perfectly_calibrated_model_has_no_calibration_error() -> None:
    # 1,000 answers at confidence 0.7, 700 of them right
    probabilities = np.tile([0.7, 0.3], (1000, 1))
    targets = (np.arange(1000) >= 700).astype(int)
    error = labels.expected_calibration_error(labels.calibration_counts(targets, probabilities))
    assert error == pytest.approx(0, abs=1e-12)
    certain = labels.calibration_counts(targets, np.tile([1.0, 0.0], (1000, 1)))
    assert labels.expected_calibration_error(certain) == pytest.approx(0.3, abs=1e-12)


def test_confidence_one_half_and_one_stay_inside_the_bins() -> None:
    counted = labels.calibration_counts([0, 0], [[1.0, 0.0], [0.5, 0.5]])
    assert counted["bin_examples"].sum() == 2
    assert counted["bin_examples"][14] == 1


@given(
    seed=st.integers(0, 2**32 - 1),
    examples=st.integers(1, 40),
    classes=st.integers(2, 5),
    cuts=st.lists(st.integers(0, 40), max_size=6),
)
def test_any_partition_with_padding_gives_the_same_figures(
    seed: int, examples: int, classes: int, cuts: list[int]
) -> None:
    draw = np.random.default_rng(seed)
    probabilities = draw.dirichlet(np.ones(classes), examples)
    targets = draw.integers(classes, size=examples)
    names = [str(index) for index in range(classes)]
    whole = labels.label_figures(labels.label_counts(targets, probabilities), names)

    parts = []
    edges = [0, *sorted(min(cut, examples) for cut in cuts), examples]
    for start, stop in itertools.pairwise(edges):
        padding = int(draw.integers(3))
        parts.append(
            labels.label_counts(
                np.concatenate([targets[start:stop], np.full(padding, -100)]),
                np.concatenate(
                    [probabilities[start:stop], np.full((padding, classes), np.nan)]
                ),
                valid=np.arange(stop - start + padding) < stop - start,
            )
        )
    summed = counts.total(parts)
    correct = int((probabilities.argmax(axis=1) == targets).sum())
    assert whole["accuracy"] == correct / examples
    figures = labels.label_figures(summed, names)
    assert figures.keys() == whole.keys()
    for name, value in whole.items():
        assert figures[name] == pytest.approx(value, abs=1e-12), name


def test_no_examples_have_counts_and_no_figures() -> None:
    nothing = labels.label_counts(np.zeros(0, int), np.zeros((0, 3)))
    assert nothing["confusion"].tolist() == [[0] * 3] * 3
    some = labels.label_counts(TARGETS, np.eye(3)[PREDICTIONS])
    assert counts.add(some, nothing)["confusion"].tolist() == some["confusion"].tolist()
    with pytest.raises(ValueError, match="accuracy was asked for, but no example was counted"):
        labels.label_figures(nothing, NAMES)
    with pytest.raises(ValueError, match="calibration error was asked for"):
        labels.expected_calibration_error(nothing)


@pytest.mark.parametrize(
    ("targets", "probabilities", "message"),
    [
        ([0, 3], [[1, 0, 0], [1, 0, 0]], "target 3 is not a label index; expected 0 to 2"),
        ([0, -100], [[1, 0, 0], [1, 0, 0]], "target -100 is not a label index"),
        ([0], [[1, 0, 0], [1, 0, 0]], "do not fit"),
        ([0], [[2.0, -1.0, 0.0]], "row 0 of the probabilities"),
        ([0, 0], [[1, 0, 0], [3.0, 1.0, 2.0]], "row 1 of the probabilities.*softmax"),
        ([0], [[np.nan, 0, 1]], "row 0 of the probabilities"),
        ([0.5], [[1, 0, 0]], "targets have dtype float64"),
        ([0], [1.0], r"probabilities have shape \(1,\)"),
    ],
)
def test_bad_input_is_named(targets: list, probabilities: list, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        labels.label_counts(targets, probabilities)


def test_a_wrong_number_of_names_is_named() -> None:
    with pytest.raises(ValueError, match=r"2 label names.*\(3, 3\)"):
        labels.label_figures(labels.confusion_counts(TARGETS, PREDICTIONS, 3), ("yes", "no"))
