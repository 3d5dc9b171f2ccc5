# SPDX-License-Identifier: Apache-2.0
"""Real paragraphs and questions come in; BM25 finds as many of the right ones as the package bm25s does."""

from t5tasks.data import sources
from t5tasks.metrics.retrieval import retrieval_counts, retrieval_figures
from t5tasks.retrieval.bm25 import Bm25

FILES = ("squad_v2/dev-v2.0-cs224n.json.gz", "xquad/xquad.en.json.gz", "squadshifts/new_wiki_v1.0.json.gz")
# bm25s 0.3.16 as it is installed (its own stop words; k1 1.5, b 0.75), by scripts/benchmarks/retrieval.py.
THEIRS = {"recall@1": 0.8544, "recall@5": 0.9532, "recall@20": 0.9847}


def test_recall_on_squad_paragraphs_is_that_of_bm25s(store, put, found, shared_data):
    records = {name: list(sources.read(f"file:{shared_data / name}?format=squad")) for name in FILES}
    texts = list(dict.fromkeys(record["context"] for name in FILES for record in records[name]))
    assert len(texts) == 1927
    places = {text: str(place) for place, text in enumerate(texts)}
    put(store, {str(place): text for place, text in enumerate(texts)})
    asked = records["xquad/xquad.en.json.gz"]
    ranking = Bm25(store).search([record["question"] for record in asked], 20)
    right = [[places[record["context"]]] for record in asked]
    figures = retrieval_figures(retrieval_counts(found(store, ranking), right))
    for name, value in THEIRS.items():
        assert figures[name] > value - 0.005
