# SPDX-License-Identifier: Apache-2.0
"""Chapter 11's retriever: a question and passages in, the passages in the order of their likeness to it out.

    question      What does the shop of Mia in Oslo sell?
    passages      [{"id": "leo-oslo", "text": "Leo sells hats."}, {"id": "mia-oslo", "text": "Mia sells kites."}]
    passage_ids   ["mia-oslo"], the right ones; the first of them is trained on

    encoder   [CLS] question [SEP]   [CLS] passage [SEP] …  → a vector of each text, compared by their cosine

The texts of a record stand side by side in one sequence, but none sees another, and each has positions from 0. In
training a question is to be nearer to its passage than to all other passages of the batch, over all devices
(`training.contrastive`): the right ones of other questions, and of every record the first `hard_negatives` that are
wrong. With `index`, those that BM25 finds for the question come behind the record's own (`augmentation`). A record
without a right passage is left out.

A run of this task is an encoder for `python -m t5tasks.index --encoder=WORKDIR`.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from t5tasks.data.features import Example, Piece, Several, graded, special
from t5tasks.metrics.counts import Counts
from t5tasks.metrics.retrieval import retrieval_counts, retrieval_figures
from t5tasks.retrieval.store import searched
from t5tasks.tasks.passages import numbered
from t5tasks.tasks.task import SIMILARITY, Answer, Form, Options, Prediction, Record, Task

PLACES = (1, 5, 20)


def _passages(record: Record) -> list[tuple[str, str, int]]:
    """Of each passage its id, what is embedded, and a number above 0 that tells it from others: by its id, if it has
    one, so that no passage of the right document is a wrong one. ValueError for a passage without a text."""
    found = []
    for given, passage in zip(record["passages"], numbered(record), strict=True):
        text = searched(passage["title"], passage["text"])
        known = f"id {passage['id']}" if given.get("id") is not None else f"text {text}"
        digest = hashlib.blake2b(known.encode("utf-8", "surrogatepass"), digest_size=4).digest()
        found.append((passage["id"], text, int.from_bytes(digest) % 2**31 or 1))
    return found


def _right(record: Record) -> set[str]:
    return {str(id) for id in record.get("passage_ids") or ()}


def example(record: Record, options: Options) -> Example:
    """The question with one right passage and wrong ones; or, where nobody says which is right, with all of them.

    Places without a passage have the name 0 and no tokens.
    """
    passages, right = _passages(record), _right(record)
    count = options["passages"]
    if record.get("passage_ids") is not None:
        count = 1 + options["hard_negatives"]
        wrong = [passage for passage in passages if passage[0] not in right]
        passages = [passage for passage in passages if passage[0] in right][:1] + wrong
    shown = passages[:count]
    pieces, numbers = _text(options["question_prefix"] + record["question"], "question"), [1] * 3
    for number, (_, text, _) in enumerate(shown, 2):
        pieces += _text(options["passage_prefix"] + text, "passage")
        numbers += [number] * 3
    names = [name for _, _, name in shown] + [0] * (count - len(shown))
    there = bool(passages) and passages[0][0] in right
    return Example(tuple(pieces), several=Several(tuple(numbers), tuple(names), there, options["length"]))


def _text(text: str, role: str) -> list[Piece]:
    return [special("cls", role), Piece(text, role, trim=True), special("sep", role)]


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"ranking", "scores"}: the ids of the first `passages` passages, the likest first, and their cosines."""
    ids = [id for id, _, _ in _passages(record)[:options["passages"]]]
    scores = np.asarray(answer, np.float64)[:len(ids)]
    order = np.argsort(-scores, kind="stable")
    return {"ranking": [ids[place] for place in order], "scores": [float(scores[place]) for place in order]}


def gold(record: Record, options: Options) -> Answer:
    """1 for the right passages, 0 for others."""
    right = [float(id in _right(record)) for id, _, _ in _passages(record)[:options["passages"]]]
    return np.asarray(right + [-1.0] * (options["passages"] - len(right)))


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """What one ranking adds; a record without a right passage adds nothing."""
    right = _right(record)
    return retrieval_counts([prediction["ranking"]] if right else [], [right] if right else [], PLACES)


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """recall@k, mrr@k and ndcg@k among the passages that each record has."""
    return retrieval_figures(counts)


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """recall@1 of any order, on average; passages that an index found stand behind the right one."""
    shown = [([id for id, _, _ in _passages(record)[:options["passages"]]], _right(record)) for record in records
             if _right(record)]
    if not shown:
        return {}
    return {"chance": float(np.mean([len({*ids} & right) / len(right) / max(len(ids), 1) for ids, right in shown]))}


def resolve(options: Options, load: Callable[[], Iterable[Record]]) -> Options:
    """The options as they are; ValueError for one out of range."""
    for name, least in (("passages", 1), ("hard_negatives", 0), ("length", 3)):
        if options[name] < least:
            raise ValueError(f"config.task.{name} is {options[name]!r}, expected {least} or more")
    return options


TASK = Task(
    name="dense_retriever", chapter="11", fields={"question": str, "passages": list}, targets={"passage_ids": list},
    # passages: how many of a record's are ranked. hard_negatives: how many wrong ones a question is trained with
    # besides those of other questions. length: tokens of a text that are read, special ones included, where
    # config.batch.length holds all texts of a record. The prefixes stand before each text, as some encoders want
    # ("query: "). index, retriever: what finds more passages.
    options={"passages": 4, "hard_negatives": 1, "length": 256, "question_prefix": "", "passage_prefix": "",
             "index": "", "retriever": "bm25", "reranker": "", "reranker_label": "yes", "rerank_depth": 50},
    forms={"encoder": Form("encoder", "none", SIMILARITY, example, graded(), gold=gold)},
    postprocess=postprocess, count=count, figures=figures, metric="recall@1", baselines=baselines, resolve=resolve)


