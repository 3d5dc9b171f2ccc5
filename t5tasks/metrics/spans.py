# SPDX-License-Identifier: Apache-2.0
"""Answers found in a text and their references come in; SQuAD's exact match and F1 go out.

As the evaluations of SQuAD 1.1 (arxiv.org/abs/1606.05250, section 6.1) and 2.0 (arxiv.org/abs/1806.03822)
compute them, but from 0 to 1. Words are compared in lower case, without punctuation and articles; of
several references the best one counts. In 2.0 an empty answer is an answer: right where a question has
none, wrong elsewhere. In 1.1 an empty answer shares no word with anything.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from t5tasks.metrics.counts import Counts, require_examples

# Where answers and the absence of one are told apart: bins of the difference of their scores.
FINEST, WIDEST = 1 / 32, 32.0
BINS = int(2 * WIDEST / FINEST)
ALWAYS, NEVER = 1e9, -1e9  # thresholds under which everything, or nothing, is answered

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalise(text: str) -> str:
    """Lower case, then without ASCII punctuation, then without articles, words apart by one blank.

    Punctuation goes first, so "a." loses its point and then counts as an article.
    """
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(prediction: str, references: Sequence[str]) -> bool:
    """Whether the prediction equals one of the references, all normalised."""
    return normalise(prediction) in {normalise(text) for text in references}


def word_f1(prediction: str, references: Sequence[str], empty_counts: bool = True) -> float:
    """The F1 of the words that prediction and reference share, of the best reference.

    Args:
      empty_counts: whether two texts without words agree (SQuAD 2.0) or share nothing (1.1).
    """
    return max((_f1(normalise(prediction).split(), normalise(text).split(), empty_counts)
                for text in references), default=0.0)


def _f1(predicted: list[str], wanted: list[str], empty_counts: bool) -> float:
    if not predicted or not wanted:
        return float(empty_counts and predicted == wanted)
    shared = sum((Counter(predicted) & Counter(wanted)).values())
    return 2 * shared / (len(predicted) + len(wanted))


def span_counts(predictions: Sequence[str], references: Sequence[Sequence[str]], version: int = 2) -> Counts:
    """Counts right answers to questions that have one, and to those that have none.

    Args:
      predictions: N answers; an empty one says that there is none.
      references: of each its right answers; none where the question has no answer.
      version: 2, or 1 for SQuAD 1.1, where every question has an answer.

    Returns:
      {"span_examples": int64[2], "span_exact": int64[2], "span_f1": float64[2]}: of questions with an
      answer and of those without.

    Raises:
      ValueError: lengths or version do not fit, or a question without an answer in version 1.
    """
    if len(predictions) != len(references) or version not in (1, 2):
        raise ValueError(f"{len(predictions)} predictions and references of {len(references)}, SQuAD version "
                         f"{version}; expected as many of both, and version 1 or 2")
    examples, exact, f1 = np.zeros(2, np.int64), np.zeros(2, np.int64), np.zeros(2)
    for prediction, texts in zip(predictions, references, strict=True):
        wanted, unanswerable = _wanted(texts, version)
        kind = int(unanswerable)
        examples[kind] += 1
        exact[kind] += exact_match(prediction, wanted)
        f1[kind] += word_f1(prediction, wanted, version == 2)
    return {"span_examples": examples, "span_exact": exact, "span_f1": f1}


def _wanted(texts: Sequence[str], version: int) -> tuple[Sequence[str], bool]:
    """The references that count, and whether the question has no answer."""
    if version == 1:
        if not texts:
            raise ValueError("a question without an answer cannot be scored as SQuAD 1.1 does; use version 2")
        return texts, False
    with_words = [text for text in texts if normalise(text)]
    return (with_words or [""]), not texts


def span_figures(counts: Counts) -> dict[str, float]:
    """exact_match and f1 of all questions; answerable/… and unanswerable/… of those there are of a kind.

    Raises ValueError when no example was counted.
    """
    examples, exact, f1 = (np.asarray(counts[name], np.float64) for name in ("span_examples", "span_exact", "span_f1"))
    require_examples(float(examples.sum()), "exact match")
    figures = {"exact_match": float(exact.sum() / examples.sum()), "f1": float(f1.sum() / examples.sum())}
    if examples[1]:
        for kind, name in enumerate(("answerable", "unanswerable")):
            if examples[kind]:
                figures[f"{name}/exact_match"] = float(exact[kind] / examples[kind])
                figures[f"{name}/f1"] = float(f1[kind] / examples[kind])
    return figures


def threshold_counts(answers: Sequence[str], references: Sequence[Sequence[str]], differences: ArrayLike) -> Counts:
    """Counts what any threshold between answering and not would give.

    Args:
      answers: N best answers, whether or not they would be given.
      references: as in `span_counts`.
      differences: float[N], score of no answer minus that of the answer.

    Returns:
      {"threshold_exact", "threshold_f1": float64[2048]}: what answering the questions of each bin of
      differences adds to the sums of exact matches and F1 of leaving all unanswered, and
      {"threshold_examples": int64[2]}, with and without an answer.
    """
    numbers = np.asarray(differences, np.float64)
    bins = np.clip(np.ceil((numbers + WIDEST) / FINEST).astype(np.int64) - 1, 0, BINS - 1)
    exact, f1, examples = np.zeros(BINS), np.zeros(BINS), np.zeros(2, np.int64)
    for answer, texts, place in zip(answers, references, bins, strict=True):
        wanted, unanswerable = _wanted(texts, 2)
        examples[int(unanswerable)] += 1
        exact[place] += -bool(answer) if unanswerable else exact_match(answer, wanted)
        f1[place] += -bool(answer) if unanswerable else word_f1(answer, wanted)
    return {"threshold_exact": exact, "threshold_f1": f1, "threshold_examples": examples}


def threshold_figures(counts: Counts) -> dict[str, float]:
    """The best figures that a threshold reaches, and the threshold: answer where the difference is at most it.

    Of equally good ones the lowest is taken, as in SQuAD 2.0's own evaluation; ours lie 1/32 apart, from −32
    to 32. Returns best_exact_match, best_exact_match_threshold, best_f1, best_f1_threshold.
    """
    examples = np.asarray(counts["threshold_examples"], np.float64)
    require_examples(float(examples.sum()), "the threshold of no answer")
    figures = {}
    for name, figure in (("exact", "exact_match"), ("f1", "f1")):
        sums = examples[1] + np.concatenate([[0.0], np.cumsum(counts[f"threshold_{name}"])])
        best = int(np.argmax(sums > sums.max() - 1e-9))
        figures[f"best_{figure}"] = float(sums[best] / examples.sum())
        figures[f"best_{figure}_threshold"] = _edge(best)
    return figures


def _edge(answered: int) -> float:
    """The threshold under which exactly the first bins are answered."""
    return NEVER if answered == 0 else ALWAYS if answered == BINS else answered * FINEST - WIDEST
