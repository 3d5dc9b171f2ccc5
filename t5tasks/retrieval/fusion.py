# SPDX-License-Identifier: Apache-2.0
"""Rankings of several retrievers in, one ranking out; and one ranking in, the same passages in a better order out."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from t5tasks.retrieval.ranking import Ranking, Retriever, check_count, ranked
from t5tasks.retrieval.store import Store

# Questions with a passage's text each → float[N]: how well the passage answers the question.
PairScores = Callable[[Sequence[tuple[str, str]]], np.ndarray]


class Hybrid:
    """Reciprocal rank fusion (doi.org/10.1145/1571941.1572114): a passage's score is the sum of
    weight / (constant + rank) over the retrievers that find it, whatever their own scores mean."""

    def __init__(self, retrievers: Sequence[Retriever], depth: int = 100, constant: float = 60.0,
                 weights: Sequence[float] = ()) -> None:
        """Args:
          depth: passages of each retriever that count.
          constant: 60 in the paper; the smaller, the more the first ranks count.
          weights: of the retrievers; by default 1 each, as in the paper.

        Raises:
          ValueError: settings out of range.
        """
        weights = tuple(weights) or (1.0,) * len(retrievers)
        if not retrievers or depth < 1 or constant < 0 or len(weights) != len(retrievers) or min(weights) <= 0:
            raise ValueError(f"a fusion of {len(retrievers)} retrievers with weights {weights}, {depth} deep, with the "
                             f"constant {constant}; expected one or more retrievers, a weight above 0 for each, 1 or "
                             "deeper, and 0 or greater")
        self._retrievers, self._depth, self._constant, self._weights = retrievers, depth, constant, weights

    def search(self, questions: Sequence[str], count: int) -> Ranking:
        """The passages with the best sums, f32."""
        check_count(count)
        rankings = [retriever.search(questions, max(self._depth, count)) for retriever in self._retrievers]
        fused = []
        for question in range(len(questions)):
            sums: dict[int, float] = defaultdict(float)
            for ranking, weight in zip(rankings, self._weights, strict=True):
                for rank, (number, _) in enumerate(ranking.row(question), 1):
                    sums[number] += weight / (self._constant + rank)
            fused.append(list(sums.items()))
        return ranked(fused, count)


class Reranked:
    """What another retriever finds, ordered by a model that reads question and passage together."""

    def __init__(self, retriever: Retriever, store: Store, scores: PairScores, depth: int = 50) -> None:
        """Args:
          depth: how many of its passages are read.
        """
        if depth < 1:
            raise ValueError(f"{depth} passages are to be read again; expected 1 or more")
        self._retriever, self._store, self._scores, self._depth = retriever, store, scores, depth

    def search(self, questions: Sequence[str], count: int) -> Ranking:
        """The passages that the model likes best, with its scores; at most `depth` are found."""
        check_count(count)
        candidates = self._retriever.search(questions, self._depth)
        passages = self._store.passages(set(candidates.numbers.ravel().tolist()))
        pairs = [(question, number) for question in range(len(questions))
                 for number, _ in candidates.row(question) if number in passages]
        values = self._scores([(questions[question], passages[number].searched) for question, number in pairs])
        found: list[list[tuple[int, float]]] = [[] for _ in questions]
        for (question, number), value in zip(pairs, values, strict=True):
            found[question].append((number, float(value)))
        return ranked(found, count)
