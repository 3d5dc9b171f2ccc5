# SPDX-License-Identifier: Apache-2.0
"""ROUGE against the package on real summaries, against counts by hand, and in other scripts."""

import pathlib

import numpy as np
import pytest
from rouge_score import rouge_scorer

from t5tasks.data import sources
from t5tasks.metrics import counts as counting
from t5tasks.metrics.rouge import KINDS, rouge_counts, rouge_figures, rouge_signature

DATA = pathlib.Path(__file__).parents[2].parent / "shared" / "data"


def test_scores_are_the_packages_on_real_summaries():
    """Lead sentences of real abstracts, all references: the mean of the best F-measures, to 1e-6."""
    if not DATA.exists():
        pytest.skip(f"no {DATA}: the real data sets are not beside this checkout")
    records = list(sources.load(f"file:{DATA}/scitldr/SciTLDR-A/test.jsonl.gz?limit=120"))
    scorer = rouge_scorer.RougeScorer(list(KINDS), use_stemmer=True)
    expected = np.zeros(4)
    for record in records:
        prediction, texts = "\n".join(record["source"][:2]), [text for text in record["target"] if text.strip()]
        lines = [text.replace(". ", ".\n") for text in texts]
        scores = scorer.score_multi(lines, prediction)
        expected += [scores[kind].fmeasure for kind in KINDS]
    found = counting.total(
        rouge_counts(["\n".join(record["source"][:2])],
                     [[text.replace(". ", ".\n") for text in record["target"] if text.strip()]]) for record in records)
    figures = rouge_figures(found)
    assert [figures[kind] for kind in KINDS] == pytest.approx(list(100 * expected / len(records)), abs=1e-6)


def test_scores_by_hand():
    """the cat sat / a cat sat down: two words shared of three and four, one pair of two and three."""
    found = rouge_figures(rouge_counts(["the cat sat"], [["a cat sat down"]]))
    assert found["rouge1"] == found["rougeL"] == pytest.approx(100 * 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert found["rouge2"] == pytest.approx(100 * 2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))


def test_sentences_in_another_order_share_them_all_but_not_their_sequence():
    found = rouge_figures(rouge_counts(["Two birds fly. One fish swims."], [["One fish swims. Two birds fly."]]))
    assert found["rougeLsum"] == pytest.approx(100) and found["rougeL"] == pytest.approx(50)


@pytest.mark.parametrize("text", ["今天天气很好", "Сегодня хорошая погода", "カメラを買った"])
def test_other_scripts_need_the_unicode_tokenizer(text):
    assert rouge_figures(rouge_counts([text], [[text]]))["rouge1"] == 0
    assert rouge_figures(rouge_counts([text], [[text]], "unicode"))["rouge1"] == pytest.approx(100)


def test_what_cannot_be_scored_is_refused():
    with pytest.raises(ValueError, match="1 predictions and 2 lists of references"):
        rouge_counts(["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match="and a reference in each"):
        rouge_counts(["a"], [[]])
    with pytest.raises(ValueError, match="no ROUGE tokenizer is called 'french': expected english or unicode"):
        rouge_counts(["a"], [["a"]], "french")
    assert "tok:unicode|stems:no" in rouge_signature("unicode")
