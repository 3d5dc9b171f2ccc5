# SPDX-License-Identifier: Apache-2.0
"""What tasks share that answer with one of a set of labels: their forms, predictions and metrics.

An encoder reads the class off its [CLS]; a decoder is asked how probable each label is as the
continuation of its prompt, a `template` with the record's fields and the `cue`. With `shots` it reads as many
answered examples first, one after the other: those of `examples`, or drawn by `shots_seed` from the training
records. They are dropped, the first of them first, where all would be too long.

    class_weights   what an example of each label counts in the loss, in the labels' order
    balanced        where those are not set: n / (C * n_c), of n training records those n_c with label c of C
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from t5tasks.data.features import Example, Piece, beginning, graded, special
from t5tasks.data.tokenizer import Tokenizer
from t5tasks.metrics import labels as label_metrics
from t5tasks.metrics.counts import Counts
from t5tasks.tasks import prompts
from t5tasks.tasks.task import CLASSES, LABEL_SCORING, Answer, Form, Lines, Options, Prediction, Record, Task

Words = Callable[[Record], Sequence[Piece]]  # of an encoder's input


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


def make(name: str, chapter: str, encoder: Words, roles: Mapping[str, str], options: Options) -> Task:
    """The task.

    Args:
      encoder: all the pieces of an encoder's input.
      roles: each field that the template holds → role of its piece.
      options: labels, template and cue.
    """
    fields = dict.fromkeys(roles, str)
    options = {**options, "shots": 0, "shots_seed": 0, "examples": (), "class_weights": (), "balanced": False}
    return Task(name=name, chapter=chapter, fields=fields, targets={"label": str}, options=options,
                forms=forms(encoder, roles), postprocess=postprocess, count=count, figures=figures, metric="accuracy",
                baselines=baselines, resolve=lambda options, load: resolve(options, load, tuple(fields)),
                bind=bind, weight=weight, lines=Lines.of(next(iter(fields)), "label") if len(fields) == 1 else None)


def forms(encoder: Words, roles: Mapping[str, str]) -> Mapping[str, Form]:
    """Both forms, of the arguments of `make`."""

    def encoder_example(record: Record, options: Options) -> Example:
        """Without a label the class is 0 and stands for nothing."""
        return Example(tuple(encoder(record)), label=label_index(record, options) or 0)

    def decoder_example(record: Record, options: Options) -> Example:
        """BOS, the examples, the template, then the label and EOS."""
        words = options["template"], options["cue"]
        pieces = [beginning("prompt"), *prompts.shots(*words, options["examples"], record, roles),
                  *prompts.worded(*words, record, roles)]
        if label_index(record, options) is not None:
            pieces += [Piece(f" {record['label']}", "target"), special("eos", "target")]
        return Example(tuple(pieces))

    return {"encoder": Form("encoder", "cls", CLASSES, encoder_example, graded()),
            "decoder": Form("decoder", "lm", LABEL_SCORING, decoder_example, graded("target"), label_texts,
                            asked=asked, shorten=shorten)}


def asked(record: Record) -> Record:
    """The record without its label, whose length would otherwise tell how many examples fit."""
    return {name: value for name, value in record.items() if name != "label"}


def shorten(record: Record, options: Options) -> tuple[Record, Options] | None:
    """With the first of the examples left out; None without any."""
    return (record, {**options, "examples": options["examples"][1:]}) if options["examples"] else None


def bind(form: Form, options: Options, tokenizer: Tokenizer) -> Form:
    """The form itself; ValueError where it is to read examples and cannot."""
    if options["examples"] and form.answers_by != LABEL_SCORING:
        raise ValueError(f"config.task.shots is {options['shots']} and config.task.examples has "
                         f"{len(options['examples'])}, but an {form.architecture} reads no examples; set "
                         "config.architecture to 'decoder', or shots to 0 and examples to ()")
    return form


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


def weight(record: Record, options: Options) -> float:
    """What the record's loss counts: its class's weight."""
    return float(options["class_weights"][label_index(record, options)]) if options["class_weights"] else 1.0


def resolve(options: Options, load: Callable[[], Iterable[Record]], fields: Sequence[str] = ()) -> Options:
    """Where they are not set, labels, balanced weights and examples of the training records.

    Raises:
      ValueError: fewer than two labels, an example or weights that do not fit them, too few records.
    """
    if not options["labels"]:
        options = {**options, "labels": _labels(load())}
    if options["balanced"] and not options["class_weights"]:
        options = {**options, "class_weights": _balanced(load(), options)}
    _check_weights(options)
    if options["shots"] < 0:
        raise ValueError(f"config.task.shots is {options['shots']}, expected 0 (none) or more")
    # A run keeps its examples; another number of them is another prompt.
    if options["shots"] and len(options["examples"]) != options["shots"]:
        drawn = prompts.draw(list(load()), fields, options["shots"], options["shots_seed"])
        options = {**options, "examples": drawn}
    for example in options["examples"]:
        if missing := [name for name in (*fields, "label") if not isinstance(example.get(name), str)]:
            raise ValueError(f"an example of config.task.examples has no text {missing[0]!r}; it needs "
                             f"{', '.join((*fields, 'label'))}, and has {', '.join(example) or 'none'}")
        label_index(example, options)
    return options


def _labels(records: Iterable[Record]) -> tuple[str, ...]:
    """Those of the training records, sorted."""
    found = tuple(sorted({str(record["label"]) for record in records}))
    if len(found) < 2:
        raise ValueError(f"the training records have {len(found)} label ({', '.join(found)}); "
                         "at least two are needed")
    return found


def _balanced(records: Iterable[Record], options: Options) -> tuple[float, ...]:
    """n / (C * n_c) of each label c; all together, the records count what they did."""
    counts = np.bincount([label_index(record, options) or 0 for record in records], minlength=len(options["labels"]))
    if not counts.all():
        raise ValueError(f"config.task.balanced is True, but no training record has the label "
                         f"{options['labels'][int(counts.argmin())]!r}; give class_weights, or other labels")
    return tuple(float(share) for share in counts.sum() / (len(counts) * counts))


def _check_weights(options: Options) -> None:
    given, labels = options["class_weights"], options["labels"]
    if given and (len(given) != len(labels) or not all(0 < each < np.inf for each in given)):
        raise ValueError(f"config.task.class_weights is {tuple(given)}; expected a number above 0 for each of "
                         f"{', '.join(labels)}, in this order")
