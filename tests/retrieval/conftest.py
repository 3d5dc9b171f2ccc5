# SPDX-License-Identifier: Apache-2.0
"""A folder comes in; an empty store in it, documents of a passage each and an embedder of letters come out."""

import dataclasses

import numpy as np
import pytest

from t5tasks.retrieval.store import Document, Store


@dataclasses.dataclass(frozen=True)
class Letters:
    """An embedder without a model: how often each letter occurs, as a vector of length 1."""

    fingerprint: str = "letters"
    dimension: int = 26

    def questions(self, texts):
        counts = np.asarray([[text.lower().count(chr(97 + letter)) for letter in range(26)] for text in texts],
                            np.float32).reshape(-1, 26)
        return counts / np.maximum(np.linalg.norm(counts, axis=1, keepdims=True), 1e-6)

    passages = questions


@pytest.fixture
def letters():
    return Letters()


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path, "whole") as store:
        yield store


@pytest.fixture
def put():
    """Puts {id: text} into a store, each text one passage without a title, in one transaction."""
    def put(store, texts, embedder=None):
        with store.writing():
            if embedder is not None:
                store.claim(embedder.fingerprint)
            for id, text in texts.items():
                vectors = None if embedder is None else embedder.passages([text])
                store.put(Document(id, "", text, [(0, len(text))]), vectors)

    return put


@pytest.fixture
def found():
    """The documents' ids of each question's ranking, best first."""
    def found(store, ranking):
        passages = store.passages(ranking.numbers.ravel())
        return [[passages[number].document for number, _ in ranking.row(question)]
                for question in range(len(ranking.numbers))]

    return found
