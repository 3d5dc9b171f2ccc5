# SPDX-License-Identifier: Apache-2.0
"""Citations in texts, by example; and their precision and recall, by hand."""

import pytest

from t5tasks.metrics import counts as counting
from t5tasks.metrics.citations import citation_counts, citation_figures, cited, uncited


@pytest.mark.parametrize(("text", "numbers", "words"), [
    ("It opens on Monday [2], as do both [1][3].", [2, 1, 3], "It opens on Monday, as do both."),
    ("[1, 3] and [2; 3]", [1, 3, 2], "and"), ("no [x], a[i] or []", [], "no [x], a[i] or []"),
    (" twice [1] [1]\n", [1], "twice"), ("[12345678]", [], "[12345678]"),
])
def test_citations_are_read_and_taken_out(text, numbers, words):
    assert cited(text) == numbers and uncited(text) == words


def test_precision_and_recall_are_of_all_citations_together():
    parts = [citation_counts([["a", "b"], []], [["a"], ["c"]]), citation_counts([["c"]], [["c", "d", "e"]])]
    figures = citation_figures(counting.total(parts))
    assert figures == {"citation_precision": pytest.approx(2 / 3), "citation_recall": pytest.approx(2 / 5)}
    assert citation_figures(citation_counts([[]], [["a"]])) == {"citation_recall": 0}
    assert citation_figures(citation_counts([[]], [[]])) == {}
    with pytest.raises(ValueError, match="citations of 1 answers for 2 questions"):
        citation_counts([[]], [[], []])
    with pytest.raises(ValueError, match="no example was counted"):
        citation_figures(citation_counts([], []))
