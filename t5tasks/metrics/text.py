# SPDX-License-Identifier: Apache-2.0
"""Texts and their references, or token losses, come in; BLEU, chrF, matches, perplexity go out.

BLEU and chrF are not means over sentences: their figure is a function of n-gram counts summed over
the corpus. Those sums are the counts here, so the figure of any sharded evaluation is the figure
that sacreBLEU (Post 2018, "A Call for Clarity in Reporting BLEU Scores") gives for the whole.

References are a list of lists: `references[i]` holds every reference of `predictions[i]`.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from sacrebleu.metrics import BLEU, CHRF

from t5tasks.metrics.counts import Counts, as_counts, require_examples

BLEU_ORDER = 4
# Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation": n-grams of up to 6
# characters, recall weighted beta = 2 times.
CHRF_ORDER = 6
CHRF_BETA = 2


def bleu_counts(
    predictions: Sequence[str], references: Sequence[Sequence[str]], tokenize: str = "13a"
) -> Counts:
    """Counts matched and possible word n-grams and lengths, as sacreBLEU does.

    Args:
      predictions: N texts, detokenised.
      references: for each of them one text or more.
      tokenize: sacreBLEU's name of a tokenizer: 13a (its default), zh, char, intl, none, …

    Returns:
      {"bleu_correct": int64[4], "bleu_total": int64[4], "bleu_lengths": int64[2] (predictions,
      closest references), "bleu_references": int64[3] (see `_reference_counts`)}.

    Raises:
      ValueError: lengths differ, a prediction has no reference, or an unknown tokenizer.
    """
    _check_pairs(predictions, references)
    metric = _bleu(tokenize)
    correct, possible = np.zeros(BLEU_ORDER, np.int64), np.zeros(BLEU_ORDER, np.int64)
    lengths = np.zeros(2, np.int64)
    for prediction, texts in zip(predictions, references, strict=True):
        # The statistics of one sentence are public only on its score. The score itself is unused.
        score = metric.sentence_score(prediction, list(texts))
        correct += np.asarray(score.counts, np.int64)
        possible += np.asarray(score.totals, np.int64)
        lengths += np.asarray([score.sys_len, score.ref_len], np.int64)
    return {
        "bleu_correct": correct,
        "bleu_total": possible,
        "bleu_lengths": lengths,
        "bleu_references": _reference_counts(references),
    }


def bleu_figures(counts: Counts) -> dict[str, float]:
    """Turns summed `bleu_counts` into corpus BLEU, 0 to 100, with exponential smoothing.

    Returns bleu, bleu_brevity_penalty (0 to 1), bleu_length_ratio (predictions to references) and
    bleu_precision_1 to _4 (0 to 100). Raises ValueError when no example was counted.
    """
    require_examples(float(counts["bleu_references"][0]), "BLEU")
    prediction_length, reference_length = (int(length) for length in counts["bleu_lengths"])
    score = BLEU.compute_bleu(
        correct=[int(count) for count in counts["bleu_correct"]],
        total=[int(count) for count in counts["bleu_total"]],
        sys_len=prediction_length,
        ref_len=reference_length,
        smooth_method="exp",
        max_ngram_order=BLEU_ORDER,
    )
    figures = {
        "bleu": float(score.score),
        "bleu_brevity_penalty": float(score.bp),
        "bleu_length_ratio": float(score.ratio),
    }
    for order, precision in enumerate(score.precisions, start=1):
        figures[f"bleu_precision_{order}"] = float(precision)
    return figures


def bleu_signature(counts: Counts, tokenize: str = "13a") -> str:
    """Returns sacreBLEU's signature of the figure: `nrefs:1|case:mixed|eff:no|tok:13a|…`.

    `tokenize` is what `bleu_counts` was given. Raises ValueError for an unknown tokenizer, or when
    no example was counted.
    """
    _check_tokenizer(tokenize)
    return _signature(BLEU(tokenize=tokenize), counts["bleu_references"], "the BLEU signature")


def chrf_counts(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> Counts:
    """Counts character n-grams of predictions, of references and of both; white space is ignored.

    Where a prediction has several references, the one with the best sentence chrF counts, as in
    sacreBLEU.

    Returns:
      {"chrf_ngrams": int64[6, 3] (row n − 1: n-grams of predictions, references, matched),
      "chrf_references": int64[3] (see `_reference_counts`)}.

    Raises:
      ValueError: lengths differ, or a prediction has no reference.
    """
    _check_pairs(predictions, references)
    ngrams = np.zeros((CHRF_ORDER, 3), np.int64)
    for prediction, texts in zip(predictions, references, strict=True):
        candidates = [_character_matches(prediction, text) for text in texts]
        ngrams += max(candidates, key=_chrf)  # the first of equals
    return {"chrf_ngrams": ngrams, "chrf_references": _reference_counts(references)}


def chrf_figures(counts: Counts) -> dict[str, float]:
    """Turns summed `chrf_counts` into {"chrf": 0 to 100}; ValueError when none was counted."""
    require_examples(float(counts["chrf_references"][0]), "chrF")
    return {"chrf": _chrf(counts["chrf_ngrams"])}


def chrf_signature(counts: Counts) -> str:
    """Returns sacreBLEU's signature of the figure; ValueError when no example was counted."""
    return _signature(CHRF(), counts["chrf_references"], "the chrF signature")


def exact_match_counts(
    predictions: Sequence[str],
    references: Sequence[Sequence[str]],
    normalise: Callable[[str], str] = str.strip,
) -> Counts:
    """Counts the predictions that equal one of their references, both after `normalise`.

    Returns:
      {"exact_match_hits": int64[], "exact_match_examples": int64[]}.

    Raises:
      ValueError: lengths differ, or a prediction has no reference.
    """
    _check_pairs(predictions, references)
    hits = [
        normalise(prediction) in {normalise(text) for text in texts}
        for prediction, texts in zip(predictions, references, strict=True)
    ]
    return as_counts({"exact_match_hits": sum(hits), "exact_match_examples": len(hits)})


def exact_match_figures(counts: Counts) -> dict[str, float]:
    """Turns summed counts into {"exact_match": 0 to 1}; ValueError when none was counted."""
    examples = int(counts["exact_match_examples"])
    require_examples(examples, "exact match")
    return {"exact_match": int(counts["exact_match_hits"]) / examples}


def token_counts(losses: ArrayLike, correct: ArrayLike, weights: ArrayLike) -> Counts:
    """Sums the losses and hits of graded tokens; a weight is 1 for them and 0 for all others.

    Args:
      losses: float[...], −ln p(target) of each token. Where the weight is 0 it may be anything.
      correct: bool[...], whether the most probable token was the target.
      weights: float[...], the loss mask.

    Returns:
      {"token_loss": float64[], "token_correct": float64[], "token_count": float64[]}.

    Raises:
      ValueError: shapes differ, or a weight is negative or not a number.
    """
    loss, hit, weight = (np.asarray(value, np.float64) for value in (losses, correct, weights))
    if not loss.shape == hit.shape == weight.shape:
        raise ValueError(
            f"losses, correct and weights have shapes {loss.shape}, {hit.shape} and "
            f"{weight.shape}; expected the same shape three times"
        )
    if not (weight >= 0).all():
        raise ValueError("a weight is negative or not a number; expected 0 or a positive number")
    graded = weight > 0
    return {
        # Not loss * weight over everything: 0 times an infinite loss of padding is NaN.
        "token_loss": np.asarray((loss[graded] * weight[graded]).sum()),
        "token_correct": np.asarray((hit[graded] * weight[graded]).sum()),
        "token_count": np.asarray(weight.sum()),
    }


def token_figures(counts: Counts) -> dict[str, float]:
    """Turns summed `token_counts` into loss (nats a token), perplexity and token accuracy.

    Perplexity is exp(loss), infinite where that overflows; it compares only models that share a
    tokenizer. Raises ValueError when no token was graded.
    """
    tokens = float(counts["token_count"])
    require_examples(tokens, "perplexity")
    loss = float(counts["token_loss"]) / tokens
    # ln of the largest float64 is 709.78; math.exp raises beyond it.
    perplexity = math.inf if loss > 709.78 else math.exp(loss)
    accuracy = float(counts["token_correct"]) / tokens
    return {"loss": loss, "perplexity": perplexity, "token_accuracy": accuracy}


@functools.lru_cache(maxsize=8)
def _bleu(tokenize: str) -> BLEU:
    """Returns sacreBLEU's metric, for sentence statistics only.

    `effective_order` and `force` change none of these; they keep sacreBLEU from warning.
    """
    _check_tokenizer(tokenize)
    return BLEU(tokenize=tokenize, effective_order=True, force=True)


def _check_tokenizer(tokenize: str) -> None:
    known = sorted(BLEU.TOKENIZERS)
    if tokenize not in known:
        near = difflib.get_close_matches(tokenize, known, n=3, cutoff=0.3) or known
        raise ValueError(f"no sacreBLEU tokenizer is called {tokenize!r}; did you mean {near}?")


def _reference_counts(references: Sequence[Sequence[str]]) -> np.ndarray:
    """Returns int64[3]: N, the sum of the numbers of references, and the sum of their squares.

    All N examples have the same number of references exactly when N · squares = sum² (the
    variance is zero then), so that the signature's `nrefs` can be told from sums.
    """
    numbers = np.asarray([len(texts) for texts in references], np.int64)
    return np.asarray([len(references), numbers.sum(), (numbers**2).sum()], np.int64)


def _signature(metric: BLEU | CHRF, references: np.ndarray, what: str) -> str:
    """Returns the signature of `metric` for the numbers of references counted."""
    examples, number, squares = (int(count) for count in references)
    require_examples(examples, what)
    if examples * squares == number**2:
        one_each = [["a"]] * (number // examples)
        metric.corpus_score(["a"], one_each)  # a signature exists only after a score
    else:
        metric.corpus_score(["a", "a"], [["a", "a"], ["a", None]])  # type: ignore[list-item]
    return str(metric.get_signature())


def _check_pairs(predictions: Sequence[str], references: Sequence[Sequence[str]]) -> None:
    """Raises ValueError unless there is a list of at least one reference a prediction."""
    if isinstance(predictions, str) or len(predictions) != len(references):
        raise ValueError(
            f"{len(predictions)} predictions and {len(references)} lists of references were "
            "given; expected a list of texts and as many lists of references"
        )
    for index, texts in enumerate(references):
        if isinstance(texts, str) or not texts:
            raise ValueError(
                f"references[{index}] is {texts!r}; expected a list of one or more texts"
            )


def _character_ngrams(text: str) -> list[Counter[str]]:
    """Returns the n-grams of `text` without its white space, for n = 1 to 6."""
    joined = "".join(text.split())
    return [
        Counter(joined[start : start + order] for start in range(len(joined) - order + 1))
        for order in range(1, CHRF_ORDER + 1)
    ]


def _character_matches(prediction: str, reference: str) -> np.ndarray:
    """Returns int64[6, 3] for one pair: n-grams of the prediction, the reference and both.

    An order that the reference is too short for is left out on both sides.
    """
    rows = []
    for ours, theirs in zip(
        _character_ngrams(prediction), _character_ngrams(reference), strict=True
    ):
        possible = ours.total() if theirs else 0
        rows.append([possible, theirs.total(), (ours & theirs).total()])
    return np.asarray(rows, np.int64)


def _chrf(ngrams: np.ndarray) -> float:
    """Returns chrF, 0 to 100: the F-score of the mean precision and mean recall over the orders.

    An order takes part when both sides have n-grams of it (sacreBLEU's `eff:yes`).
    """
    used = (ngrams[:, 0] > 0) & (ngrams[:, 1] > 0)
    if not used.any():
        return 0.0
    predicted, referenced, matched = ngrams[used].astype(np.float64).T
    precision, recall = (matched / predicted).mean(), (matched / referenced).mean()
    if precision + recall == 0:
        return 0.0
    weight = CHRF_BETA**2
    return float(100 * (1 + weight) * precision * recall / (weight * precision + recall))
