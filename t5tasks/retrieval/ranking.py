# SPDX-License-Identifier: Apache-2.0
"""Scores of passages in, the best of them for each question out; and what every retriever promises."""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

import numpy as np

NONE = -1  # the number where a question has no more passages


@dataclasses.dataclass(frozen=True)
class Ranking:
    """The best passages of each question, best first."""

    numbers: np.ndarray  # int64[Q, K]; NONE where there are no more
    scores: np.ndarray  # f32[Q, K]; -inf there

    def row(self, question: int) -> list[tuple[int, float]]:
        """Number and score of the passages found for a question."""
        return [(int(number), float(score)) for number, score
                in zip(self.numbers[question], self.scores[question], strict=True) if number != NONE]


class Retriever(Protocol):
    """What finds passages, by whatever means."""

    def search(self, questions: Sequence[str], count: int) -> Ranking:
        """The `count` best passages of each question, or as many as there are, at the time of asking."""


def check_count(count: int) -> None:
    """Raises ValueError for a number of passages that nobody can want."""
    if count < 1:
        raise ValueError(f"{count} passages were asked for; expected 1 or more")


def ranked(found: Sequence[Sequence[tuple[int, float]]], count: int) -> Ranking:
    """A ranking of (number, score) pairs in any order; of equal scores the smaller number first."""
    numbers = np.full((len(found), count), NONE, np.int64)
    scores = np.full((len(found), count), -np.inf, np.float32)
    for question, pairs in enumerate(found):
        best = sorted(pairs, key=lambda pair: (-pair[1], pair[0]))[:count]
        numbers[question, :len(best)] = [number for number, _ in best]
        scores[question, :len(best)] = [score for _, score in best]
    return Ranking(numbers, scores)
