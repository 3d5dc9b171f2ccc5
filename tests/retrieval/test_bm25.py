# SPDX-License-Identifier: Apache-2.0
"""Texts and questions come in; the scores that the formula gives, term by term, come out of a search."""

import collections
import math
import random

import numpy as np
import pytest

from t5tasks.retrieval.bm25 import Bm25
from t5tasks.retrieval.store import Store
from t5tasks.retrieval.terms import terms

K1, B = 1.2, 0.75


def expected(texts, question):
    """{id: score}, by the formula in bm25.py."""
    split = {id: collections.Counter(terms(text)) for id, text in texts.items()}
    mean = sum(sum(counts.values()) for counts in split.values()) / len(split)
    scores = {}
    for id, counts in split.items():
        total = 0.0
        for term in terms(question):
            having = sum(term in other for other in split.values())
            often = counts[term]
            rarity = math.log(1 + (len(split) - having + 0.5) / (having + 0.5))
            total += rarity * often / (often + K1 * (1 - B + B * sum(counts.values()) / mean))
        if total:
            scores[id] = total
    return scores


def check(store, retriever, texts, questions, count=1000):
    ranking = retriever.search(questions, count)
    names = {number: passage.document for number, passage in store.passages(ranking.numbers.ravel()).items()}
    for row, question in enumerate(questions):
        found = {names[number]: score for number, score in ranking.row(row)}
        assert found == pytest.approx(expected(texts, question), rel=1e-5), question
        scores = [score for _, score in ranking.row(row)]
        assert scores == sorted(scores, reverse=True)


def made(count, seed=0):
    """Texts of words that are the rarer the later they come in the alphabet."""
    draw = random.Random(seed)
    return {f"{seed}/{number}": " ".join(chr(97 + min(int(draw.expovariate(0.2)), 25)) * 2 for _ in
                                         range(draw.randrange(1, 30))) for number in range(count)}


QUESTIONS = ["aa", "bb zz", "aa aa cc", "nothing known", "", "hh kk pp!"]


def test_scores_are_the_formulas(store, put):
    texts = made(200)
    put(store, texts)
    check(store, Bm25(store), texts, QUESTIONS)


def test_changes_of_the_store_are_seen_and_equal_a_new_index(store, put, tmp_path):
    texts = made(60)
    put(store, texts)
    retriever = Bm25(store)
    check(store, retriever, texts, QUESTIONS)
    changes = made(5, seed=1) | {"0/3": "zz zz new"}
    put(store, changes)
    with store.writing():
        store.remove(["0/7", "0/8"])
    texts = {id: text for id, text in (texts | changes).items() if id not in ("0/7", "0/8")}
    check(store, retriever, texts, [*QUESTIONS, "new"])
    with Store(tmp_path / "fresh", "whole") as fresh:
        put(fresh, texts)
        check(fresh, Bm25(fresh), texts, [*QUESTIONS, "new"])


def test_the_best_are_found_and_of_equals_the_first(store, put, found):
    put(store, {"a": "red door", "b": "red", "c": "red", "d": "red red", "e": "blue"})
    retriever = Bm25(store)
    assert found(store, retriever.search(["red"], 10)) == [["d", "b", "c", "a"]]
    for count in (1, 2, 3):
        assert found(store, retriever.search(["red"], count)) == [["d", "b", "c", "a"][:count]]


def test_a_large_batch_is_answered_as_its_questions_alone(store, put):
    put(store, made(80))
    retriever = Bm25(store)
    questions = [text for text in made(150, seed=2).values()]
    together = retriever.search(questions, 7)
    for row in range(0, 150, 13):
        alone = retriever.search([questions[row]], 7)
        np.testing.assert_array_equal(alone.numbers[0], together.numbers[row])
        np.testing.assert_array_equal(alone.scores[0], together.scores[row])


def test_an_empty_index_finds_nothing(store, put, found):
    retriever = Bm25(store)
    assert found(store, retriever.search(["red", ""], 3)) == [[], []]
    assert retriever.search([], 3).numbers.shape == (0, 3)
    put(store, {"a": "... !"})  # without a word
    assert found(store, retriever.search(["red"], 3)) == [[]]
    put(store, {"b": "red"})
    assert found(store, retriever.search(["red"], 3)) == [["b"]]
    with store.writing():
        store.remove(["a", "b"])
    assert found(store, retriever.search(["red"], 3)) == [[]]


@pytest.mark.parametrize(("k1", "b"), [(-1, 0.5), (1, 1.5), (1, -0.1)])
def test_settings_out_of_range_are_refused(store, k1, b):
    with pytest.raises(ValueError, match="expected k1 of 0 or more and b from 0 to 1"):
        Bm25(store, k1, b)


def test_no_passages_cannot_be_asked_for(store):
    with pytest.raises(ValueError, match="0 passages were asked for"):
        Bm25(store).search(["red"], 0)
