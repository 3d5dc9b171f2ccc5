# SPDX-License-Identifier: Apache-2.0
"""Answers scored by the reference evaluation of SQuAD come in; ours agrees to the last digit, and by hand."""

import json
import pathlib

import numpy as np
import pytest

from t5tasks.metrics import counts as counting
from t5tasks.metrics import spans

FIXTURE = json.loads((pathlib.Path(__file__).parent / "fixtures" / "spans.json").read_text("utf-8"))
ROWS = FIXTURE["rows"]


def _figures(rows, threshold=None, version=2):
    answers = ["" if threshold is not None and row["difference"] > threshold else row["prediction"] for row in rows]
    counts = counting.total(spans.span_counts([answer], [row["answers"]], version)
                            for answer, row in zip(answers, rows, strict=True))
    return spans.span_figures(counts)


@pytest.mark.parametrize("threshold", [None, 0.0])
def test_version_2_is_the_reference_evaluation(threshold):
    wanted = FIXTURE["plain" if threshold is None else "threshold_0"]
    found = _figures(ROWS, threshold)
    names = {"exact_match": "exact", "f1": "f1", "answerable/exact_match": "HasAns_exact", "answerable/f1": "HasAns_f1",
             "unanswerable/exact_match": "NoAns_exact", "unanswerable/f1": "NoAns_f1"}
    assert {name: 100 * found[name] for name in names} == pytest.approx(
        {name: wanted[theirs] for name, theirs in names.items()}, abs=1e-6)
    assert 20 < wanted["f1"] < 80 and wanted["exact"] < wanted["f1"]


def test_version_1_is_the_reference_evaluation():
    found = _figures([row for row in ROWS if row["answers"]], version=1)
    assert {name: 100 * value for name, value in found.items()} == pytest.approx(
        {"exact_match": FIXTURE["version_1"]["exact"], "f1": FIXTURE["version_1"]["f1"]}, abs=1e-6)


def test_the_best_threshold_is_the_reference_evaluations():
    counts = counting.total(spans.threshold_counts([row["prediction"]], [row["answers"]], [row["difference"]])
                            for row in ROWS)
    found, wanted = spans.threshold_figures(counts), FIXTURE["threshold_0"]
    assert 100 * found["best_f1"] == pytest.approx(wanted["best_f1"], abs=1e-6)
    assert 100 * found["best_exact_match"] == pytest.approx(wanted["best_exact"], abs=1e-6)
    assert found["best_f1_threshold"] == wanted["best_f1_thresh"]
    assert found["best_exact_match_threshold"] == wanted["best_exact_thresh"]


def test_a_coarse_threshold_loses_little():
    """Differences of any size, between the steps and beyond them."""
    draw = np.random.default_rng(0)
    # To the reference, an answer of articles alone is an answer when it looks for a threshold, and none after.
    rows = [row for row in ROWS if bool(row["prediction"]) == bool(spans.normalise(row["prediction"]))]
    rows = [{**row, "difference": float(each)} for row, each in zip(rows, draw.normal(0, 20, len(rows)), strict=True)]
    counts = spans.threshold_counts([row["prediction"] for row in rows], [row["answers"] for row in rows],
                                    [row["difference"] for row in rows])
    found = spans.threshold_figures(counts)
    exact = max(_figures(rows, row["difference"])["f1"] for row in rows[::8])
    assert found["best_f1"] >= exact - 1.5 / len(rows)
    assert _figures(rows, found["best_f1_threshold"])["f1"] == pytest.approx(found["best_f1"])


@pytest.mark.parametrize(("answers", "threshold", "f1"), [
    ([(["x"], "x", 99.0)], spans.ALWAYS, 1.0), ([([], "x", -99.0)], spans.NEVER, 1.0),
    ([(["x"], "x", -1.0), ([], "y", 3.0)], -1.0, 1.0)])
def test_thresholds_at_both_ends(answers, threshold, f1):
    references, texts, differences = zip(*answers, strict=True)
    found = spans.threshold_figures(spans.threshold_counts(texts, references, differences))
    assert (found["best_f1_threshold"], found["best_f1"]) == (threshold, f1)


@pytest.mark.parametrize(("text", "normal"), [
    ("The  U.S.A.", "usa"), ("a.", ""), ("an-a", "ana"), ("«Théâtre»", "«théâtre»"),
    ("A theory\nof the man", "theory of man")])
def test_normal_forms_by_hand(text, normal):
    assert spans.normalise(text) == normal


def test_empty_answers():
    assert spans.word_f1("", [""]) == 1 and spans.word_f1("the", [""]) == 1 and spans.word_f1("x", [""]) == 0
    assert spans.word_f1("", [""], empty_counts=False) == 0
    assert spans.span_figures(spans.span_counts([""], [["the"]]))["f1"] == 1  # a reference without words is none
    assert spans.word_f1("in the old Paris", ["Paris", "London"]) == pytest.approx(2 * 1 / (3 + 1))


def test_what_does_not_fit():
    with pytest.raises(ValueError, match="1 predictions and references of 0, SQuAD version 2"):
        spans.span_counts(["x"], [])
    with pytest.raises(ValueError, match="without an answer cannot be scored as SQuAD 1.1 does; use version 2"):
        spans.span_counts(["x"], [[]], version=1)
    with pytest.raises(ValueError, match="no example was counted"):
        spans.span_figures(spans.span_counts([], []))
