# SPDX-License-Identifier: Apache-2.0
"""Questions in, the passages that share their rare words out, by BM25.

The score of a passage is the sum, over the terms t of the question, each as often as it stands there, of

    log(1 + (N - n_t + 0.5) / (n_t + 0.5)) * f / (f + k1 * (1 - b + b * length / mean length))

where n_t of N passages have the term and this one has it f times: BM25 as Lucene computes it (Robertson and Zaragoza
2009, doi.org/10.1561/1500000019; the variants in doi.org/10.1007/978-3-030-45442-5_4). All that does not depend on the
question is computed beforehand, for every term of every passage (arxiv.org/abs/2407.03618), so that a search adds up
columns of a sparse matrix.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import scipy.sparse

from t5tasks.retrieval import terms
from t5tasks.retrieval.ranking import Ranking, check_count, ranked
from t5tasks.retrieval.store import Store

AT_ONCE = 64  # questions whose scores are held together


@dataclasses.dataclass(frozen=True)
class Occurrences:
    """Where terms occur: M pairs of a term and a passage, sorted by term, then by passage."""

    numbers: np.ndarray  # int64[N], the passages' numbers, ascending
    lengths: np.ndarray  # int64[N], terms in each
    terms: np.ndarray  # uint64[M]
    rows: np.ndarray  # int32[M], the passage as an index of `numbers`
    often: np.ndarray  # uint32[M]

    @classmethod
    def of(cls, numbers: np.ndarray, sizes: np.ndarray, counts: np.ndarray) -> "Occurrences":
        """Sorts what `Store.counts` gives."""
        rows = np.repeat(np.arange(len(numbers), dtype=np.int32), sizes)
        lengths = np.bincount(rows, counts["count"], len(numbers)).astype(np.int64)
        order = np.argsort(counts["term"], kind="stable")
        return cls(numbers, lengths, counts["term"][order], rows[order], counts["count"][order])

    def followed_by(self, other: "Occurrences") -> "Occurrences":
        """These passages and the other's, whose numbers are greater."""
        if not len(self.numbers) or not len(other.numbers):
            return self if len(self.numbers) else other
        places = np.searchsorted(self.terms, other.terms, side="right")
        return Occurrences(
            np.concatenate([self.numbers, other.numbers]), np.concatenate([self.lengths, other.lengths]),
            np.insert(self.terms, places, other.terms),
            np.insert(self.rows, places, other.rows + np.int32(len(self.numbers))),
            np.insert(self.often, places, other.often))

    def among(self, numbers: np.ndarray) -> "Occurrences":
        """Those of the passages with these numbers."""
        kept = np.isin(self.numbers, numbers, assume_unique=True)
        if kept.all():
            return self
        rows, places = np.cumsum(kept, dtype=np.int32) - 1, kept[self.rows]
        return Occurrences(self.numbers[kept], self.lengths[kept], self.terms[places], rows[self.rows[places]],
                           self.often[places])


@dataclasses.dataclass(frozen=True)
class Scores:
    """What each term adds to the scores of the passages that have it."""

    numbers: np.ndarray  # int64[N]
    terms: np.ndarray  # uint64[U], ascending
    weights: scipy.sparse.csr_array  # f32[U, N]

    @classmethod
    def of(cls, found: Occurrences, k1: float, b: float) -> "Scores":
        first = np.flatnonzero(np.diff(found.terms, prepend=~found.terms[:1]))
        starts = np.append(first, len(found.terms))
        passages = np.diff(starts)
        rarity = np.log1p((len(found.numbers) - passages + 0.5) / (passages + 0.5)).astype(np.float32)
        mean = max(float(found.lengths.mean()), 1.0) if len(found.lengths) else 1.0
        least = (k1 * (1 - b + b * found.lengths / mean)).astype(np.float32)
        often = found.often.astype(np.float32)
        weights = np.repeat(rarity, passages) * (often / (often + least[found.rows]))
        matrix = scipy.sparse.csr_array((weights, found.rows, starts), shape=(len(first), len(found.numbers)))
        return cls(found.numbers, found.terms[first], matrix)

    def of_questions(self, questions: Sequence[str]) -> scipy.sparse.csr_array:
        """f32[Q, N], the scores of the passages that share a term with a question."""
        counted = [terms.counts(question) for question in questions]
        asked = np.concatenate([np.zeros(0, terms.COUNTS), *counted])
        places = np.searchsorted(self.terms, asked["term"])
        known = places < len(self.terms)
        known[known] = self.terms[places[known]] == asked["term"][known]
        owners = np.repeat(np.arange(len(questions)), [len(each) for each in counted])
        entries = asked["count"][known].astype(np.float32), (owners[known], places[known])
        return scipy.sparse.csr_array(entries, shape=(len(questions), len(self.terms))) @ self.weights


class Bm25:
    """A retriever of a store's passages; what has changed in the store is read before each search."""

    def __init__(self, store: Store, k1: float = 1.2, b: float = 0.75) -> None:
        """Args:
          k1: how much more a term counts that stands there again; at 0 no more at all.
          b: from 0 to 1, how much passages longer than others are held to say the same at greater length.

        Raises:
          ValueError: settings out of range.
        """
        if k1 < 0 or not 0 <= b <= 1:
            raise ValueError(f"BM25 with k1={k1} and b={b}; expected k1 of 0 or more and b from 0 to 1")
        self._store, self._k1, self._b = store, k1, b
        self._generation = -1
        self._occurrences = Occurrences.of(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, terms.COUNTS))
        self._scores = Scores.of(self._occurrences, k1, b)

    def refresh(self) -> None:
        """Takes in what others have written since the last search."""
        with self._store.reading():
            if self._generation == (generation := self._store.generation):
                return
            known = self._occurrences
            last = int(known.numbers[-1]) if len(known.numbers) else -1
            known = known.followed_by(Occurrences.of(*self._store.counts(after=last)))
            if len(known.numbers) != self._store.size("passages"):
                known = known.among(self._store.numbers("passages"))
        self._occurrences, self._generation = known, generation
        self._scores = Scores.of(known, self._k1, self._b)

    def search(self, questions: Sequence[str], count: int) -> Ranking:
        """The passages with the best scores, f32; those that share no term with the question are not found."""
        check_count(count)
        self.refresh()
        found = []
        for first in range(0, len(questions), AT_ONCE):
            scores = self._scores.of_questions(questions[first:first + AT_ONCE])
            for start, stop in itertools.pairwise(scores.indptr):
                found.append(_best(scores.indices[start:stop], scores.data[start:stop], count))
        return ranked([list(zip(self._scores.numbers[rows].tolist(), values.tolist(), strict=True))
                       for rows, values in found], count)


def _best(rows: np.ndarray, scores: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows with the greatest scores, at least `count` of them where there are so many, and these scores."""
    if len(rows) <= count:
        return rows, scores
    place = len(scores) - count
    chosen = scores >= np.partition(scores, place)[place]
    return rows[chosen], scores[chosen]
