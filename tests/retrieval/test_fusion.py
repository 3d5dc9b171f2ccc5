# SPDX-License-Identifier: Apache-2.0
"""Rankings come in; what reciprocal ranks or a reader of pairs make of them comes out."""

import numpy as np
import pytest

from t5tasks import sharding
from t5tasks.retrieval.bm25 import Bm25
from t5tasks.retrieval.dense import Dense
from t5tasks.retrieval.fusion import Hybrid, Reranked
from t5tasks.retrieval.ranking import NONE, Ranking


class Given:
    """Finds what it was given, whatever the question; notes how many it was asked for."""

    def __init__(self, *rows):
        self.rows, self.asked = rows, []

    def search(self, questions, count):
        self.asked.append(count)
        numbers = np.full((len(questions), count), NONE, np.int64)
        for place, row in enumerate(self.rows):
            numbers[place, :len(row)] = row[:count]
        return Ranking(numbers, np.where(numbers == NONE, -np.inf, 1.0).astype(np.float32))


def test_fusion_adds_up_reciprocal_ranks():
    hybrid = Hybrid([Given([5, 3, 8], [1]), Given([3, 9], [])], depth=3, constant=60)
    ranking = hybrid.search(["one", "two"], 4)
    assert ranking.numbers.tolist() == [[3, 5, 9, 8], [1, NONE, NONE, NONE]]
    np.testing.assert_allclose(ranking.scores[0], [1 / 62 + 1 / 61, 1 / 61, 1 / 62, 1 / 63], rtol=1e-6)
    assert np.isneginf(ranking.scores[1, 1:]).all()
    weighted = Hybrid([Given([5, 3, 8], [1]), Given([3, 9], [])], constant=1, weights=(4, 1)).search(["one", "two"], 2)
    assert weighted.numbers.tolist() == [[5, 3], [1, NONE]]
    np.testing.assert_allclose(weighted.scores[0], [4 / 2, 4 / 3 + 1 / 2], rtol=1e-6)


def test_only_so_many_of_each_count_but_as_many_as_are_asked_for():
    deep, shallow = Given([1, 2, 3]), Given([3])
    assert Hybrid([deep, shallow], depth=2).search(["one"], 2).numbers.tolist() == [[1, 3]]
    Hybrid([deep, shallow], depth=2).search(["one"], 5)
    assert deep.asked == shallow.asked == [2, 5]


def test_a_hybrid_finds_what_either_finds(store, put, letters, found):
    put(store, {"words": "the red door", "letters": "deer rot od", "none": "zzz"}, letters)
    retrievers = Bm25(store), Dense(store, letters, sharding.make_mesh())
    [hybrid] = found(store, Hybrid(retrievers).search(["red door"], 3))
    assert hybrid == ["words", "letters", "none"]


def test_a_reader_of_pairs_orders_what_was_found(store, put, found):
    put(store, {"a": "one", "b": "three", "c": "seventeen", "d": "unread"})
    seen = []

    def longest(pairs):
        seen.extend(pairs)
        return np.asarray([len(text) for _, text in pairs])

    reranked = Reranked(Given([1, 2, 3, 4], [2]), store, longest, depth=3)
    ranking = reranked.search(["x", "y"], 2)
    assert found(store, ranking) == [["c", "b"], ["b"]]
    assert ranking.scores[0].tolist() == [9, 5]
    assert seen == [("x", "one"), ("x", "three"), ("x", "seventeen"), ("y", "three")]


def test_a_passage_that_was_removed_meanwhile_is_not_read(store, put, found):
    put(store, {"a": "one", "b": "two"})
    reranked = Reranked(Given([1, 2, 99]), store, lambda pairs: np.zeros(len(pairs)))
    assert found(store, reranked.search(["x"], 5)) == [["a", "b"]]


@pytest.mark.parametrize("settings", [{"retrievers": []}, {"depth": 0}, {"constant": -1}, {"weights": [1, 2]},
                                      {"weights": [0]}])
def test_fusions_that_cannot_be_are_refused(settings):
    with pytest.raises(ValueError, match="expected one or more retrievers, a weight above 0 for each"):
        Hybrid(**{"retrievers": [Given([1])], **settings})


def test_nothing_to_read_again_is_refused(store):
    with pytest.raises(ValueError, match="0 passages are to be read again"):
        Reranked(Given([1]), store, len, depth=0)
