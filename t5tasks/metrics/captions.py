# SPDX-License-Identifier: Apache-2.0
"""Captions and what people wrote of the same images come in; CIDEr, as counts that add up, goes out.

CIDEr-D (arxiv.org/abs/1411.5726, sections 5 and 8) as pycocoevalcap computes it, whose figure this is: 0 to 10,
of which papers often print the hundredfold. How much a word tells depends on how many images it is written of,
so the references are gone through twice: first for `frequencies`, which add up too, then for the counts.

Words are found as in pycocoevalcap, which runs Stanford's PTBTokenizer (a Java program) and drops
punctuation; `words` splits ordinary captions alike, see there for what it does not know.
"""

import collections
import dataclasses
import math
import re
from collections.abc import Iterable, Sequence

import numpy as np

from t5tasks.metrics.counts import Counts, require_examples

ORDER = 4  # n-grams of up to so many words
SIGMA = 6.0  # of the Gaussian that punishes another length
SCALE = 10.0

Ngrams = dict[tuple[str, ...], int]
# A word's last part that is a word of its own, and words that are two.
PARTS = re.compile(r"(?<=[^\W_])(n't|'(?:s|m|re|ve|ll|d))(?![^\W_])")
TWO_WORDS = re.compile(r"\b(can)(not)\b|\b(gon|wan|got)(na|ta)\b|\b(lem|gim)(me)\b|(?<!\w)('t)(is|was)\b")
ABBREVIATIONS = "mr|mrs|ms|dr|prof|st|jr|sr|vs|etc|ft|mt|ave|inc|co|ltd|corp|dept|approx"
TOKEN = re.compile(rf"""
    (?:[^\W\d_]\.){{2,}}                                  # p.m., u.s.
  | (?<!\w)(?:{ABBREVIATIONS}|no(?=\.\s?\d))\.  # mr., no. 5
  | (?:n't|'(?:s|m|re|ve|ll|d|t))(?!\w)                   # what PARTS has split off
  | \w+(?:(?:[-/.@]|(?<=\d)[,:](?=\d)|(?<=[^\W\d])'(?=[^\W\d]))\w+)*
  | [?!]{{2,}} | \S""", re.VERBOSE)
BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
DROPPED = frozenset("""'"`.?!,:;-–—…“”‘""")
SIGNS = str.maketrans({"’": "'", "£": "#", "€": "$"})


def words(caption: str) -> list[str]:
    """Lower-cased words as PTBTokenizer and pycocoevalcap have them; brackets stay, under their names.

        "It isn't Tom's dog (a black-and-white one)!"
        → it is n't tom 's dog -lrb- a black-and-white one -rrb-

    Not known are rarer abbreviations, markup, and a comma before a number without a space.
    """
    text = caption.lower().translate(SIGNS)
    text = PARTS.sub(r" \1", text)
    text = TWO_WORDS.sub(lambda found: " ".join(part for part in found.groups() if part), text)
    return [BRACKETS.get(token, token) for token in TOKEN.findall(text) if token not in DROPPED]


@dataclasses.dataclass(frozen=True)
class Frequencies:
    """Of how many images each n-gram is written, and how many images there are."""

    images: int = 0
    ngrams: collections.Counter[tuple[str, ...]] = dataclasses.field(default_factory=collections.Counter)

    def __add__(self, other: "Frequencies") -> "Frequencies":
        return Frequencies(self.images + other.images, self.ngrams + other.ngrams)

    def vector(self, ngrams: Ngrams) -> list[dict[tuple[str, ...], float]]:
        """How much each n-gram tells, times how often it stands there; a dict for each n."""
        found: list[dict[tuple[str, ...], float]] = [{} for _ in range(ORDER)]
        whole = math.log(self.images)
        for ngram, count in ngrams.items():
            found[len(ngram) - 1][ngram] = count * (whole - math.log(max(1, self.ngrams[ngram])))
        return found


def frequencies(references: Iterable[Sequence[str]]) -> Frequencies:
    """Counts the images that n-grams are written of; `references` holds each image's captions."""
    images, ngrams = 0, collections.Counter[tuple[str, ...]]()
    for captions in references:
        images += 1
        ngrams.update({ngram for caption in captions for ngram in _ngrams(caption)})
    return Frequencies(images, ngrams)


def cider_counts(predictions: Sequence[str], references: Sequence[Sequence[str]], known: Frequencies) -> Counts:
    """Sums the scores of the captions.

    Args:
      predictions: N captions, one an image.
      references: of each image what people wrote, one caption or more.
      known: the frequencies in all references of the evaluation, not only in these.

    Returns:
      {"cider_sum": float64[], "cider_examples": int64[]}.

    Raises:
      ValueError: lengths differ, an image has no reference, or the frequencies are of fewer images than these.
    """
    if isinstance(predictions, str) or len(predictions) != len(references) or not all(references):
        raise ValueError(f"{len(predictions)} predictions and {len(references)} lists of references: expected as "
                         "many, and a reference in each")
    if known.images < len(predictions):
        raise ValueError(f"the frequencies are of {known.images} images, fewer than the {len(predictions)} "
                         "predictions; make them of all references of the evaluation")
    scores = [_score(prediction, captions, known)
              for prediction, captions in zip(predictions, references, strict=True)]
    return {"cider_sum": np.asarray(math.fsum(scores), np.float64), "cider_examples": np.asarray(len(scores))}


def cider_figures(counts: Counts) -> dict[str, float]:
    """{"cider"}, the mean over the images, 0 to 10; ValueError when none was counted."""
    examples = int(counts["cider_examples"])
    require_examples(examples, "CIDEr")
    return {"cider": float(counts["cider_sum"]) / examples}


def cider_signature() -> str:
    """What to quote with the score."""
    return f"cider:D|n:{ORDER}|sigma:{SIGMA:g}|scale:{SCALE:g}|df:references|tok:ptb-like,lower,no punctuation"


def _score(prediction: str, captions: Sequence[str], known: Frequencies) -> float:
    """10 times the mean, over captions and n, of the clipped cosine times the Gaussian of the lengths' difference."""
    written = _ngrams(prediction)
    ours = known.vector(written)
    total = 0.0
    for caption in captions:
        theirs_written = _ngrams(caption)
        theirs = known.vector(theirs_written)
        away = _length(written) - _length(theirs_written)
        total += math.exp(-away**2 / (2 * SIGMA**2)) * sum(map(_similarity, ours, theirs))
    return SCALE * total / ORDER / len(captions)


def _similarity(ours: dict[tuple[str, ...], float], theirs: dict[tuple[str, ...], float]) -> float:
    """The cosine, where what the caption says more often than the reference counts as often as there."""
    product = sum(min(value, theirs[ngram]) * theirs[ngram] for ngram, value in ours.items() if ngram in theirs)
    norms = math.sqrt(sum(value**2 for value in ours.values()) * sum(value**2 for value in theirs.values()))
    return product / norms if norms else 0.0


def _length(ngrams: Ngrams) -> int:
    """How long a caption counts as: its pairs of neighbouring words, as in pycocoevalcap."""
    return sum(count for ngram, count in ngrams.items() if len(ngram) == 2)


def _ngrams(caption: str) -> Ngrams:
    found = words(caption)
    return collections.Counter(tuple(found[start:start + order]) for order in range(1, ORDER + 1)
                               for start in range(len(found) - order + 1))
