# SPDX-License-Identifier: Apache-2.0
"""Questions in, the passages of an index that bear on them out; and records in, the same with these passages out."""

import functools
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from t5tasks import index, reranking, trained
from t5tasks.retrieval.fusion import Reranked
from t5tasks.retrieval.store import Passage
from t5tasks.tasks.task import Options, Record

AT_ONCE = 256  # questions searched together


class Finder:
    """An open index with the retriever, and perhaps a reranker, that the options name.

    It belongs to the thread that made it.
    """

    def __init__(self, options: Options) -> None:
        """Args:
          options: index, its folder; retriever, of `index.RETRIEVERS`; reranker, the workdir of a run of nli, or empty,
            with reranker_label and rerank_depth.

        Raises:
          ValueError: no such index, retriever or run.
        """
        self.index = index.open_index(options["index"])
        self._retriever = self.index.retriever(options["retriever"])
        if options["reranker"]:
            run = trained.load(None, pathlib.Path(options["reranker"]))
            self._retriever = Reranked(self._retriever, self.index.store,
                                       reranking.pair_scores(run, options["reranker_label"]), options["rerank_depth"])

    def find(self, questions: Sequence[str], count: int) -> list[list[Passage]]:
        """The `count` best passages of each question, best first."""
        ranking = self._retriever.search(questions, count)
        passages = self.index.store.passages(set(ranking.numbers.ravel().tolist()))
        return [[passages[number] for number, _ in ranking.row(row) if number in passages]
                for row in range(len(questions))]


@functools.lru_cache(maxsize=1)  # of one run; each source of it asks again
def _finder(*settings: tuple[str, Any]) -> Finder:
    return Finder(dict(settings))


def finder(options: Options) -> Finder:
    """The finder of these options, opened once."""
    names = ("index", "retriever", "reranker", "reranker_label", "rerank_depth")
    return _finder(*((name, options[name]) for name in names))


def described(passage: Passage) -> dict[str, Any]:
    """A passage as records have it: {"id": its document's, "title", "text", "start", "end"}, characters there."""
    return {"id": passage.document, "title": passage.title, "text": passage.text, "start": passage.start,
            "end": passage.stop}


def augmented(records: Iterable[Record], options: Options) -> Iterator[dict[str, Any]]:
    """Yields each record with the passages found for its question, as many as options["passages"].

    With options["hard_negatives"] they come behind the record's own, which must be right, and are wrong: of other
    documents than the record's passage_ids, and without any of its answers in them (arxiv.org/abs/2004.04906,
    section 3.2). As many are sought as there may be right ones before them.

    Raises:
      ValueError: what `Finder` raises; a record without a question.
    """
    found = finder(options)
    numbered = enumerate(records)
    wrong = "hard_negatives" in options
    while group := list(itertools.islice(numbered, AT_ONCE)):
        for number, record in group:
            if not isinstance(record.get("question"), str):
                raise ValueError(f"record {number} has no question to search for in {options['index']}; it has "
                                 f"{', '.join(record) or 'none'}")
        count = max(options["passages"], 1)
        rows = found.find([record["question"] for _, record in group], 4 * count if wrong else count)
        for (_, record), row in zip(group, rows, strict=True):
            if wrong:
                passages = [*(record.get("passages") or ()), *_wrong(record, row)][:count]
            else:
                passages = [described(passage) for passage in row[:options["passages"]]]
            yield {**record, "passages": passages}


def _wrong(record: Mapping[str, Any], found: Sequence[Passage]) -> list[dict[str, Any]]:
    """Those found that do not answer the record's question."""
    right = {str(id) for id in record.get("passage_ids") or ()}
    answers = [answer.casefold() for answer in record.get("answers") or () if isinstance(answer, str)]
    return [described(passage) for passage in found if passage.document not in right
            and not any(answer in passage.text.casefold() for answer in answers)]
