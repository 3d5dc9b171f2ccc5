# SPDX-License-Identifier: Apache-2.0
"""Text figures from summed counts equal sacreBLEU's on the whole corpus, however it is split."""

from __future__ import annotations

import gzip
import itertools
import math
import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from t5tasks.metrics import counts, text

PREDICTIONS = [
    "The cat sat on the mat.",
    "A dog, brown and small, runs!",
    "",
    "two  men are\tplaying chess",
    "U.S. prices rose 3.5% to $1,200.",
    "ein Mann mit Hut",
    ".",
]
REFERENCES = [
    ["The cat sat on a mat."],
    ["A small brown dog is running.", "A dog, small and brown, runs!"],
    ["Nothing was said."],
    ["Two men are playing chess.", "two men play chess", "two men are playing chess"],
    ["U.S. prices rose by 3.5% to $1,200.", "Prices in the U.S. rose 3.5%."],
    ["Ein Mann mit einem Hut.", ""],
    ["!"],
]
FIRST = [texts[:1] for texts in REFERENCES]

WORDS = st.lists(st.sampled_from(["a", "the", "dog", "Hund", "runs", ".", "3.5", "é", "犬"]))
SENTENCE = st.builds(" ".join, WORDS)
CORPUS = st.lists(
    st.tuples(SENTENCE, st.lists(SENTENCE, min_size=1, max_size=3)), min_size=1, max_size=8
)


def _streams(references: list[list[str]]) -> list[list[str | None]]:
    """Turns the references of each prediction into sacreBLEU's streams, padded with None."""
    width = max(len(texts) for texts in references)
    return [
        [texts[index] if index < len(texts) else None for texts in references]
        for index in range(width)
    ]


def _sharded(make: Callable, predictions: list, references: list, cuts: list[int]) -> counts.Counts:
    """Returns the sum of the counts of the parts between `cuts`, empty parts included."""
    edges = [0, *sorted(min(cut, len(predictions)) for cut in cuts), len(predictions)]
    return counts.total(
        make(predictions[start:stop], references[start:stop])
        for start, stop in itertools.pairwise(edges)
    )


@pytest.mark.parametrize("references", [FIRST, REFERENCES], ids=["one", "several"])
def test_bleu_is_sacrebleus_figure_and_signature(references: list[list[str]]) -> None:
    theirs = BLEU()
    score = theirs.corpus_score(PREDICTIONS, _streams(references))
    counted = text.bleu_counts(PREDICTIONS, references)
    figures = text.bleu_figures(counted)
    assert 10 < score.score < 90
    assert figures["bleu"] == pytest.approx(score.score, abs=1e-9)
    assert figures["bleu_brevity_penalty"] == pytest.approx(score.bp, abs=1e-12)
    assert figures["bleu_length_ratio"] == pytest.approx(score.ratio, abs=1e-12)
    precisions = [figures[f"bleu_precision_{order}"] for order in (1, 2, 3, 4)]
    assert precisions == pytest.approx(score.precisions, abs=1e-9)
    assert text.bleu_signature(counted) == str(theirs.get_signature())


def test_bleu_by_hand() -> None:
    # the cat sat here / the cat sat there: 3 of 4, 2 of 3, 1 of 2, and 0 of 1 smoothed to 1/2
    figures = text.bleu_figures(text.bleu_counts(["the cat sat here"], [["the cat sat there"]]))
    expected = 100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** (1 / 4)
    assert figures["bleu"] == pytest.approx(expected, abs=1e-9)
    # one word short of five: brevity penalty exp(1 − 5/4)
    short = text.bleu_figures(text.bleu_counts(["a b c d"], [["a b c d e"]]))
    assert short["bleu"] == pytest.approx(100 * math.exp(1 - 5 / 4), abs=1e-9)


@given(CORPUS, st.lists(st.integers(0, 8), max_size=4))
def test_any_partition_gives_sacrebleus_corpus_bleu(corpus: list, cuts: list[int]) -> None:
    predictions, references = [pair[0] for pair in corpus], [pair[1] for pair in corpus]
    theirs = BLEU()
    expected = theirs.corpus_score(predictions, _streams(references)).score
    summed = _sharded(text.bleu_counts, predictions, references, cuts)
    assert text.bleu_figures(summed)["bleu"] == pytest.approx(expected, abs=1e-9)
    assert text.bleu_signature(summed) == str(theirs.get_signature())


@given(CORPUS, st.lists(st.integers(0, 8), max_size=4))
def test_any_partition_gives_sacrebleus_corpus_chrf(corpus: list, cuts: list[int]) -> None:
    predictions, references = [pair[0] for pair in corpus], [pair[1] for pair in corpus]
    theirs = CHRF()
    expected = theirs.corpus_score(predictions, _streams(references)).score
    summed = _sharded(text.chrf_counts, predictions, references, cuts)
    assert text.chrf_figures(summed)["chrf"] == pytest.approx(expected, abs=1e-9)
    assert text.chrf_signature(summed) == str(theirs.get_signature())


@pytest.mark.parametrize("tokenize", ["13a", "intl", "char", "zh", "none"])
def test_every_tokenizer_is_sacrebleus(tokenize: str) -> None:
    predictions, references = ["Das «Haus» ist 3,5 m hoch。狗在跑"], [["Das Haus: 3,5 m。狗跑了"]]
    theirs = BLEU(tokenize=tokenize)
    expected = theirs.corpus_score(predictions, _streams(references)).score
    counted = text.bleu_counts(predictions, references, tokenize)
    assert text.bleu_figures(counted)["bleu"] == pytest.approx(expected, abs=1e-9)
    assert text.bleu_signature(counted, tokenize) == str(theirs.get_signature())


def test_a_real_corpus_agrees_with_corpus_bleu_and_chrf(shared_data: pathlib.Path) -> None:
    with gzip.open(shared_data / "multi30k" / "test_2016_flickr.de.gz", "rt", "utf-8") as lines:
        german = lines.read().splitlines()
    # Predictions that are right in part: each sentence with every fifth word left out.
    predictions = [
        " ".join(word for place, word in enumerate(line.split(), 1) if place % 5)
        for line in german
    ]
    references = [[line] for line in german]
    cuts = [1, 17, 400, 401, 900]
    bleu = text.bleu_figures(_sharded(text.bleu_counts, predictions, references, cuts))["bleu"]
    chrf = text.chrf_figures(_sharded(text.chrf_counts, predictions, references, cuts))["chrf"]
    assert len(german) == 1000
    assert bleu == pytest.approx(sacrebleu.corpus_bleu(predictions, [german]).score, abs=1e-9)
    assert chrf == pytest.approx(sacrebleu.corpus_chrf(predictions, [german]).score, abs=1e-9)
    assert 40 < bleu < 80


def test_chrf_of_the_same_and_of_nothing_in_common() -> None:
    assert text.chrf_figures(text.chrf_counts(["a b c"], [["abc"]]))["chrf"] == pytest.approx(100)
    assert text.chrf_figures(text.chrf_counts(["abc"], [["xyz"]]))["chrf"] == 0
    # ab / abb: unigrams 2 of 2 and 2 of 3, bigrams 1 of 1 and 1 of 2; longer orders take no part
    recall = (2 / 3 + 1 / 2) / 2
    expected = 100 * 5 * recall / (4 + recall)
    got = text.chrf_figures(text.chrf_counts(["ab"], [["abb"]]))["chrf"]
    assert got == pytest.approx(expected, abs=1e-9)


def test_exact_match_by_hand() -> None:
    counted = text.exact_match_counts(
        [" Paris ", "paris", "42", ""], [["Paris"], ["Paris"], ["41", "42"], [""]]
    )
    assert text.exact_match_figures(counted) == {"exact_match": 3 / 4}
    folded = text.exact_match_counts(["paris"], [["Paris"]], normalise=str.casefold)
    assert text.exact_match_figures(folded) == {"exact_match": 1.0}


def test_perplexity_by_hand_and_ungraded_tokens_change_nothing() -> None:
    # two graded tokens of probability 1/2 and 1/8: perplexity sqrt(16) = 4
    weights = np.array([0, 1, 1, 0], np.float32)
    correct = np.array([True, True, False, True])
    losses = np.array([np.nan, math.log(2), math.log(8), np.inf])
    figures = text.token_figures(text.token_counts(losses, correct, weights))
    assert figures["perplexity"] == pytest.approx(4, abs=1e-12)
    assert figures["loss"] == pytest.approx(math.log(4), abs=1e-12)
    assert figures["token_accuracy"] == 0.5


def test_perplexity_of_parts_is_weighted_by_tokens_not_by_batches() -> None:
    long = text.token_counts(jnp.full((2, 3), 1.0), jnp.ones((2, 3), bool), jnp.ones((2, 3)))
    short = text.token_counts(jnp.full((1, 1), 8.0), jnp.zeros((1, 1), bool), jnp.ones((1, 1)))
    figures = text.token_figures(counts.add(long, short))
    assert figures["loss"] == pytest.approx((6 * 1 + 8) / 7, abs=1e-12)
    assert figures["token_accuracy"] == pytest.approx(6 / 7, abs=1e-12)


def test_an_overflowing_perplexity_is_infinite_and_a_nan_loss_shows() -> None:
    one = np.ones(1)
    assert text.token_figures(text.token_counts(one * 1e4, one, one))["perplexity"] == math.inf
    figures = text.token_figures(text.token_counts(one * np.nan, one, one))
    assert math.isnan(figures["loss"])
    assert math.isnan(figures["perplexity"])


def test_no_examples_have_counts_and_no_figures() -> None:
    for make, figure in (
        (text.bleu_counts, text.bleu_figures),
        (text.chrf_counts, text.chrf_figures),
        (text.exact_match_counts, text.exact_match_figures),
    ):
        nothing = make([], [])
        some = make(PREDICTIONS, FIRST)
        assert figure(counts.add(nothing, some)) == figure(some)
        with pytest.raises(ValueError, match="no example was counted"):
            figure(nothing)
    with pytest.raises(ValueError, match="no example was counted"):
        text.bleu_signature(text.bleu_counts([], []))
    with pytest.raises(ValueError, match="not every target is masked"):
        text.token_figures(text.token_counts(np.ones(3), np.ones(3), np.zeros(3)))


def test_a_corpus_of_empty_predictions_scores_zero() -> None:
    assert text.bleu_figures(text.bleu_counts([""], [["a b c d"]]))["bleu"] == 0
    assert text.chrf_figures(text.chrf_counts([""], [["a b c d"]]))["chrf"] == 0


def test_bad_input_is_named() -> None:
    with pytest.raises(ValueError, match="1 predictions and 2 lists of references"):
        text.bleu_counts(["a"], [["a"], ["b"]])
    with pytest.raises(ValueError, match=r"references\[0\] is 'a'; expected a list"):
        text.chrf_counts(["a"], ["a"])
    with pytest.raises(ValueError, match=r"references\[1\] is \[\]"):
        text.exact_match_counts(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="no sacreBLEU tokenizer is called '13b'.*'13a'"):
        text.bleu_counts(["a"], [["a"]], tokenize="13b")
    with pytest.raises(ValueError, match="expected the same shape"):
        text.token_counts(np.ones(2), np.ones(3), np.ones(2))
    with pytest.raises(ValueError, match="a weight is negative"):
        text.token_counts(np.ones(2), np.ones(2), np.array([1.0, -1.0]))
