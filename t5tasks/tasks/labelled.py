# SPDX-License-Identifier: Apache-2.0
"""What tasks share that answer with one of a set of labels: their forms, predictions and metrics.

An encoder reads the class off its [CLS]; a decoder is asked how probable each label is as the
continuation of its prompt, which ends with a cue.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from t5tasks.data.features import Example, Piece, graded, special
from t5tasks.metrics import labels as label_metrics
from t5tasks.metrics.counts import Counts
from t5tasks.tasks.task import CLASSES, LABEL_SCORING, Answer, Form, Options, Prediction, Record

Words = Callable[[Record], Sequence[Piece]]  # of an encoder's input, or before a decoder's cue


def label_index(record: Record, options: Options) -> int | None:
    """The record's class; None without a label; ValueError lists the valid ones."""
    label = record.get("label")
    if label is None:
        return None
    labels = list(options["labels"])
    if label not in labels:
        name, text = next((pair for pair in record.items() if pair[0] != "label"), ("text", ""))
        raise ValueError(f"unknown label {label!r} of {name} {text!r:.60}; valid labels are {', '.join(labels)}")
    return labels.index(label)


def forms(encoder: Words, decoder: Words) -> Mapping[str, Form]:
    """Both forms; `encoder` gives all the pieces of its input, `decoder` those between BOS and the cue."""

    def encoder_example(record: Record, options: Options) -> Example:
        """Without a label the class is 0 and stands for nothing."""
        return Example(tuple(encoder(record)), label=label_index(record, options) or 0)

    def decoder_example(record: Record, options: Options) -> Example:
        """BOS text, a line with the cue, then the label and EOS."""
        pieces = [special("bos", "prompt"), *decoder(record), Piece(f"\n{options['cue']}", "prompt")]
        if label_index(record, options) is not None:
            pieces += [Piece(f" {record['label']}", "target"), special("eos", "target")]
        return Example(tuple(pieces))

    return {"encoder": Form("encoder", "cls", CLASSES, encoder_example, graded()),
            "decoder": Form("decoder", "lm", LABEL_SCORING, decoder_example, graded("target"), label_texts)}


def label_texts(options: Options) -> Sequence[str]:
    """What the decoder form may continue its prompt with, in the order of the labels."""
    return [f" {label}" for label in options["labels"]]


def postprocess(record: Record, answer: Answer, options: Options) -> Prediction:
    """{"label", "score", "probabilities"}: the most probable label, its probability, all of them."""
    probabilities = [float(p) for p in np.asarray(answer)]
    best = int(np.argmax(probabilities))
    return {"label": options["labels"][best], "score": probabilities[best],
            "probabilities": dict(zip(options["labels"], probabilities, strict=True))}


def count(record: Record, prediction: Prediction, options: Options) -> Counts:
    """One example's entry in the confusion matrix and in its bin of confidence."""
    target = label_index(record, options)
    probabilities = [prediction["probabilities"][label] for label in options["labels"]]
    return label_metrics.label_counts(np.asarray([target]), np.asarray([probabilities]))


def figures(counts: Counts, options: Options) -> dict[str, float]:
    """Accuracy, macro F1, figures per class, calibration error."""
    return label_metrics.label_figures(counts, options["labels"])


def baselines(records: Sequence[Record], options: Options) -> dict[str, float]:
    """Accuracy of a uniform guess, and of always naming the most frequent label."""
    indices = [label_index(record, options) or 0 for record in records]
    return {"chance": 1 / len(options["labels"]),
            "majority": float(np.bincount(indices).max() / len(indices))}


def resolve(options: Options, load: Callable[[], Iterable[Record]]) -> Options:
    """Where no labels are set, those of the training records, sorted."""
    if options["labels"]:
        return options
    found = tuple(sorted({str(record["label"]) for record in load()}))
    if len(found) < 2:
        raise ValueError(f"the training records have {len(found)} label ({', '.join(found)}); "
                         "at least two are needed")
    return {**options, "labels": found}


# What every such task is made with, beside its name, fields and forms.
MACHINERY: Mapping[str, Any] = {
    "targets": {"label": str}, "postprocess": postprocess, "count": count, "figures": figures,
    "metric": "accuracy", "baselines": baselines, "resolve": resolve}
