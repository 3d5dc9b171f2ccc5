# SPDX-License-Identifier: Apache-2.0
"""Answers with the passages that they cite in, whether the passages entail them, in the judgement of a run of NLI, out.

The premise is the cited passages, one after the other, the hypothesis question and answer ("{question} {answer}", the
idea of arxiv.org/abs/2204.04991). What this cannot do: the judge errs as often as it does on its own test set, and more
on text unlike what it was trained on; question and answer are no sentence, as a judge mostly knows them; of premises
longer than it reads the end is cut off; an answer that no passage bears out is unfaithful even where it is true, and
one that is borne out may still be wrong.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from t5tasks.inference import Predictor
from t5tasks.tasks.task import Prediction, Record
from t5tasks.trained import Trained

TASK = "nli"
STATEMENT = "{question} {answer}"


class Judge:
    """A run of NLI that is asked whether answers follow from passages."""

    def __init__(self, trained: Trained, label: str = "entailment", statement: str = STATEMENT) -> None:
        """Args:
          trained: a run of the task nli, an encoder or a decoder.
          label: the one of its labels that says so.
          statement: what the hypothesis is, with {question} and {answer} in it.

        Raises:
          ValueError: another task, a label that it does not have, or a statement without the answer.
        """
        run = trained.experiment
        labels = list(run.options.get("labels", ()))
        if run.task.name != TASK or label not in labels:
            raise ValueError(f"a run of {run.task.name} with the labels {', '.join(labels) or 'none'} cannot say what "
                             f"is {label!r}; expected one of {TASK}, and one of its labels")
        if "{answer}" not in statement:
            raise ValueError(f"the statement {statement!r} has no {{answer}} in it")
        self._trained, self._place, self._statement = trained, labels.index(label), statement
        self._predictor = Predictor(run)

    def entailed(self, predictions: Sequence[tuple[Record, Prediction]]) -> Iterator[bool]:
        """Of each answer whether it is entailed by the passages it cites; False where it cites none."""
        asked = [_pair(record, prediction, self._statement) for record, prediction in predictions
                 if prediction["citations"]]
        answers = self._predictor.answers(self._trained.parameters, asked)
        for _, prediction in predictions:
            yield bool(prediction["citations"]) and int(np.argmax(np.asarray(next(answers)))) == self._place


def _pair(record: Record, prediction: Prediction, statement: str) -> Record:
    texts = [f"{title}: {text}" if title else text for title, text in
             ((passage.get("title"), passage["text"]) for passage in prediction["citations"])]
    said = statement.replace("{question}", record["question"]).replace("{answer}", prediction["answer"])
    return {"premise": " ".join(texts), "hypothesis": said}
