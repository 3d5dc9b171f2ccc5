# SPDX-License-Identifier: Apache-2.0
"""A trained classifier of pairs in, a function that says how well passages answer questions out.

It reads a passage as its premise and a question as its hypothesis, so that it is trained as any run of `nli` is, on
records {"premise": passage, "hypothesis": question, "label": "yes" or "no"}, say.
"""

from collections.abc import Sequence

import numpy as np

from t5tasks.inference import Predictor
from t5tasks.retrieval.fusion import PairScores
from t5tasks.trained import Trained

TASK = "nli"


def pair_scores(trained: Trained, label: str) -> PairScores:
    """Args:
      trained: a run of the task nli, an encoder or a decoder.
      label: the one of its labels whose probability is the score.

    Raises:
      ValueError: another task, or a label that it does not have.
    """
    run = trained.experiment
    labels = list(run.options.get("labels", ()))
    if run.task.name != TASK or label not in labels:
        raise ValueError(f"a run of {run.task.name} with the labels {', '.join(labels) or 'none'} cannot score pairs "
                         f"by {label!r}; expected one of {TASK}, and one of its labels")
    predictor, place = Predictor(run), labels.index(label)

    def scores(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        """f64[N], the probability of the label for each (question, passage)."""
        records = [{"premise": passage, "hypothesis": question} for question, passage in pairs]
        return np.asarray([answer[place] for answer in predictor.answers(trained.parameters, records)], np.float64)

    return scores
