# SPDX-License-Identifier: Apache-2.0
"""Vectors and questions come in; the same passages come out as a sort of all products in NumPy gives."""

import dataclasses

import jax
import numpy as np
import pytest

from t5tasks import sharding
from t5tasks.retrieval import dense
from t5tasks.retrieval.dense import Dense
from t5tasks.retrieval.store import Document

WIDTH = 16


@dataclasses.dataclass(frozen=True)
class Table:
    """An embedder of texts that are seeds: "7" is a random vector, the same each time."""

    fingerprint: str = "table"
    dimension: int = WIDTH

    def questions(self, texts):
        return np.asarray([np.random.default_rng(int(text)).normal(size=WIDTH) for text in texts],
                          np.float32).reshape(-1, WIDTH)

    passages = questions


@pytest.fixture(autouse=True)
def little_room(monkeypatch):
    monkeypatch.setattr(dense, "LEAST_ROWS", 8)
    monkeypatch.setattr(dense, "ADDED_AT_ONCE", 16)


@pytest.fixture(params=[(1, 1, 1), (8, 1, 1), (2, 2, 2)], ids=str)
def mesh(request):
    sizes = request.param
    return sharding.make_mesh(*sizes, devices=jax.devices()[:int(np.prod(sizes))])


def add(store, seeds):
    """A document for each of the seeds, whose vector is the seed's."""
    with store.writing():
        store.claim("table")
        for seed in seeds:
            store.put(Document(str(seed), "", str(seed), [(0, len(str(seed)))]), Table().passages([str(seed)]))


def check(store, retriever, seeds, count):
    """Compares with a stable sort of all products."""
    questions = [str(10_000 + number) for number in range(9)]
    ranking = retriever.search(questions, count)
    vectors = Table().passages([str(seed) for seed in seeds]).astype(np.float16).astype(np.float32)
    products = Table().questions(questions) @ vectors.T
    order = np.argsort(-products, axis=1, kind="stable")[:, :count]
    names = {number: passage.document for number, passage in store.passages(ranking.numbers.ravel()).items()}
    assert [[names[number] for number, _ in ranking.row(row)] for row in range(len(questions))] == [
        [str(seeds[place]) for place in row] for row in order]
    np.testing.assert_allclose(ranking.scores[:, :len(seeds)], np.take_along_axis(products, order, 1), rtol=1e-5,
                               atol=1e-6)


def test_search_equals_a_sort_of_all_products_through_every_change(store, mesh):
    seeds = list(range(50))
    add(store, seeds)
    retriever = Dense(store, Table(), mesh)
    check(store, retriever, seeds, 5)
    check(store, retriever, seeds, 60)  # more than there are
    add(store, range(50, 60))  # into the room there is, or past it
    seeds += range(50, 60)
    check(store, retriever, seeds, 5)
    with store.writing():
        store.remove(["3", "59"])
    add(store, range(60, 100))
    seeds = [seed for seed in seeds if seed not in (3, 59)] + list(range(60, 100))
    check(store, retriever, seeds, 5)


def test_a_few_more_passages_recompile_nothing(store, monkeypatch):
    monkeypatch.setattr(dense, "LEAST_ROWS", 32)
    mesh = sharding.make_mesh()
    add(store, range(50))
    retriever = Dense(store, Table(), mesh)
    check(store, retriever, list(range(50)), 5)
    add(store, range(50, 52))
    check(store, retriever, list(range(52)), 5)
    before = dense._search.cache_info().misses, dense._written._cache_size()
    add(store, range(52, 57))
    check(store, retriever, list(range(57)), 5)
    assert (dense._search.cache_info().misses, dense._written._cache_size()) == before


def test_of_equal_vectors_the_first_is_found_first(store, put, letters, found, mesh):
    put(store, {"a": "xy", "b": "yx", "c": "z", "d": "x y"}, letters)
    assert found(store, Dense(store, letters, mesh).search(["xy"], 3)) == [["a", "b", "d"]]


def test_approximate_search_finds_what_it_promises(store, mesh):
    seeds = list(range(100))
    add(store, seeds)
    questions = [str(10_000 + number) for number in range(40)]
    exact = Dense(store, Table(), mesh).search(questions, 5).numbers
    near = Dense(store, Table(), mesh, approximate=0.9).search(questions, 5).numbers
    assert np.mean([len({*one} & {*other}) / 5 for one, other in zip(exact, near, strict=True)]) >= 0.9


def test_an_empty_index_finds_nothing(store, letters, found):
    with store.writing():
        store.claim("letters")
    retriever = Dense(store, letters, sharding.make_mesh())
    assert found(store, retriever.search(["a"], 3)) == [[]]
    assert retriever.search([], 3).numbers.shape == (0, 3)


def test_another_embedder_and_no_vectors_are_refused(store, put, letters):
    mesh = sharding.make_mesh()
    put(store, {"a": "one"})
    with pytest.raises(ValueError, match="has no vectors"):
        Dense(store, letters, mesh)
    with store.writing():
        store.claim("letters")
    with pytest.raises(ValueError, match="another encoder .fingerprint letters, this one's is other"):
        Dense(store, dataclasses.replace(letters, fingerprint="other"), mesh)
    with pytest.raises(ValueError, match="expected 0 for exact search or a share below 1"):
        Dense(store, letters, mesh, approximate=1.0)
