# SPDX-License-Identifier: Apache-2.0
"""A text in, any number of labels out: classification where `config.task.multi_label` is set.

    text   The plot drags, but what music!       labels   ["plot", "music"]

    encoder   [CLS] text [SEP]  → of [CLS] a probability for each label, by a sigmoid of its own; graded by
              the mean of their binary cross-entropies

The labels whose probability is `threshold` or more are the prediction; there may be none.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from t5tasks.data.features import Example, Piece, graded
from t5tasks.metrics import labels as label_metrics
from t5tasks.metrics.counts import Counts
from t5tasks.tasks.task import CLASSES, Answer, Form, Options, Prediction, Record, Task


def of(task: Task, encoder: Callable[[Record], Sequence[Piece]]) -> Task:
    """The task with a set of labels for one; `encoder` gives all the pieces of its input."""

    def example(record: Record, options: Options) -> Example:
        """Without labels there are none."""
        return Example(tuple(encoder(record)), labels=tuple(hot(record, options)))

    form = Form("encoder", "cls", CLASSES, example, graded(), independent=True,
                gold=lambda record, options: np.asarray(hot(record, options), np.float64))
    return dataclasses.replace(
        task, targets={"labels": list}, forms={"encoder": form}, postprocess=postprocess, count=count, figures=figures,
        metric="micro_f1", baselines=baselines, resolve=resolve, weight=lambda record, options: 1.0,
        lines=None)


def hot(record: Record, options: Options) -> list[int]:
    """1 for each of the record's labels, 0 for the others; ValueError lists the valid ones."""
    named, known = record.get("labels") or [], list(options["labels"])
    if unknown := [label for label in named if label not in known]:
        raise ValueError(f"unknown label {unknown[0]!r} of text {record['text']!r:.60}; valid labels are "
                         f"{', '.join(known)}")
    return [int(label in named) for label in known]


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"labels", "probabilities"}: the labels that reach the threshold, in their order, and all probabilities."""
    probabilities = {label: float(each) for label, each in zip(options["labels"], np.asarray(answer), strict=True)}
    return {"labels": [label for label, each in probabilities.items() if each >= options["threshold"]],
            "probabilities": probabilities}


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """One example's hits, false alarms and misses of each label."""
    return label_metrics.label_set_counts([hot(record, options)], [hot({**record, **prediction}, options)])


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """Micro and macro F1, subset accuracy, figures per label."""
    return label_metrics.label_set_figures(counts, options["labels"])


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """Micro F1 of always naming every label, and of always naming the most frequent one."""
    right = np.asarray([hot(record, options) for record in records])
    most = np.eye(right.shape[1], dtype=int)[right.sum(axis=0).argmax()]
    answers = {"every label": np.ones_like(right), "majority": np.broadcast_to(most, right.shape)}
    return {name: label_metrics.label_set_figures(label_metrics.label_set_counts(right, answer), options["labels"])[
        "micro_f1"] for name, answer in answers.items()}


def resolve(options: Options, load: Callable[[], Iterable[Record]]) -> Options:
    """Where no labels are set, those of the training records, sorted.

    Raises:
      ValueError: no labels, a threshold that is no probability, or an option that is for single labels.
    """
    for name in ("shots", "examples", "class_weights", "balanced"):
        if options[name]:
            raise ValueError(f"config.task.{name} is {options[name]!r}, which is for records with one label; take it "
                             "out, or set config.task.multi_label to False")
    if not 0 < options["threshold"] < 1:
        raise ValueError(f"config.task.threshold is {options['threshold']}, expected a number between 0 and 1")
    if options["labels"]:
        return options
    found = tuple(sorted({str(label) for record in load() for label in record["labels"]}))
    if not found:
        raise ValueError("the training records have no labels; give records with some, or set config.task.labels")
    return {**options, "labels": found}
