# SPDX-License-Identifier: Apache-2.0
"""Rankings come in; trec_eval's figures, and those counted by hand, come out."""

import json
import math
import pathlib

import pytest

from t5tasks.metrics import counts as counting
from t5tasks.metrics.retrieval import retrieval_counts, retrieval_figures

CASES = json.loads((pathlib.Path(__file__).parent / "fixtures" / "retrieval.json").read_text())


def figures(found, relevant, places=(1, 5, 20)):
    return retrieval_figures(retrieval_counts([found], [relevant], places))


def test_each_question_measures_what_trec_eval_does():
    for case in CASES:
        ours = figures(case["found"], case["relevant"], (1, 5, 20, 40))
        expected = case["expected"] | {"mrr@40": case["reciprocal_rank"]}
        assert {name: ours[name] for name in expected} == pytest.approx(expected)


def test_means_add_up_over_batches():
    found, relevant = [case["found"] for case in CASES], [case["relevant"] for case in CASES]
    whole = retrieval_counts(found, relevant)
    parts = counting.total([retrieval_counts(found[:7], relevant[:7]), retrieval_counts(found[7:], relevant[7:])])
    assert retrieval_figures(parts) == pytest.approx(retrieval_figures(whole))
    expected = sum(case["expected"]["ndcg@5"] for case in CASES) / len(CASES)
    assert retrieval_figures(whole)["ndcg@5"] == pytest.approx(expected)


def test_by_hand():
    assert figures(["x", "a", "y", "b"], {"a", "b", "c"}, (1, 4)) == pytest.approx({
        "recall@1": 0, "mrr@1": 0, "ndcg@1": 0, "recall@4": 2 / 3, "mrr@4": 1 / 2,
        "ndcg@4": (1 / math.log2(3) + 1 / math.log2(5)) / (1 + 1 / math.log2(3) + 1 / 2)})
    assert figures([], ["a"], (5,)) == {"recall@5": 0, "mrr@5": 0, "ndcg@5": 0}


def test_a_document_found_by_two_passages_counts_once():
    assert figures(["x", "x", "a", "a"], ["a", "b"], (2, 4)) == figures(["x", "a"], ["a", "b"], (2, 4))
    assert figures(["x", "x", "a"], ["a"], (2,))["recall@2"] == 1


@pytest.mark.parametrize(("arguments", "message"), [
    (([["a"]], []), "1 rankings for 0 questions"),
    (([["a"]], [[]]), "question 0 has the relevant documents {}"),
    (([["a"]], [{"a": 0.0}]), "gains above 0"),
    (([["a"]], [["a"]], (0,)), "places are .0,."),
    (([["a"]], [["a"]], ()), "expected one or more"),
])
def test_what_cannot_be_measured_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        retrieval_counts(*arguments)


def test_no_question_has_no_figure():
    with pytest.raises(ValueError, match="no example was counted"):
        retrieval_figures(retrieval_counts([], []))
