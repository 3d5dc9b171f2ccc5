# SPDX-License-Identifier: Apache-2.0
"""Questions and passages found for them in, an exact quote of one of them for each question out.

A run of `extractive_qa` reads every passage by itself, and the spans of all passages compete by

    score = start + end logit - those of no answer in the same passage - rank_weight * ln(rank)

where the third term is left out for a run of version 1, which has not learnt what it means. Logits of different
passages are compared as they are, without a softmax for each (arxiv.org/abs/1902.01718, section 3.2); the last term
says how much rarer the right passage is at lower ranks.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from t5tasks.inference import Predictor
from t5tasks.metrics.spans import ALWAYS
from t5tasks.tasks import extractive_qa
from t5tasks.tasks.task import Prediction, Record
from t5tasks.trained import Trained

TASK = "extractive_qa"
# Of the questions of SQuAD 2.0 to which BM25 finds the paragraph, the share it finds at rank r falls as r ** -2.4.
RANK_WEIGHT = 2.4


class Reader:
    """A trained run of extractive QA that answers from several passages."""

    def __init__(self, trained: Trained, rank_weight: float = RANK_WEIGHT) -> None:
        """Raises ValueError for a run of another task, or a weight below 0."""
        if trained.experiment.task.name != TASK or rank_weight < 0:
            raise ValueError(f"a run of {trained.experiment.task.name} with the rank weight {rank_weight} cannot "
                             f"quote; expected one of {TASK}, and 0 or more")
        self._trained, self._weight = trained, rank_weight
        self._predictor = Predictor(trained.experiment)

    def predictions(self, records: Iterable[Record]) -> Iterator[tuple[Record, Prediction]]:
        """Each record {"question", "passages"} with what is quoted, in the shape of the task `rag`.

        {"answer", "citations", "unknown_citations", "passages", "left_out", "score", "start", "end"}: the passage of
        the quote is the one citation; start and end are characters of its document (of its text, where the passage
        does not say where it stands), and None with an empty answer. A run of version 2 gives none where the best
        score is below minus its threshold.
        """
        given = list(records)
        pairs = [{"question": record["question"], "context": passage["text"]}
                 for record in given for passage in record["passages"]]
        answers = self._predictor.answers(self._trained.parameters, pairs)
        for record in given:
            numbered = [{"number": number, **passage} for number, passage in enumerate(record["passages"], 1)]
            yield record, self._best(record["question"], numbered, [next(answers) for _ in numbered])

    def _best(self, question: str, passages: Sequence[Mapping[str, Any]], answers: Sequence[Any]) -> Prediction:
        options = self._trained.experiment.options
        answerable = options["version"] == 1
        best, score = None, -ALWAYS
        for passage, windows in zip(passages, answers, strict=True):
            nothing, spans = extractive_qa.candidates(
                {"question": question, "context": passage["text"]}, windows, options)
            for (start, end), total in list(spans.items())[:1]:  # the best of the passage
                own = total - (0.0 if answerable else nothing) - self._weight * float(np.log(passage["number"]))
                if own > score:
                    best, score = (passage, start, end), own
        found: Prediction = {"answer": "", "citations": [], "unknown_citations": [], "passages": list(passages),
                             "left_out": 0, "score": score, "start": None, "end": None}
        if best is None or (not answerable and score < -options["threshold"]):
            return found
        passage, start, end = best
        first = passage.get("start") or 0
        return {**found, "answer": passage["text"][start:end], "citations": [passage], "start": first + start,
                "end": first + end}
