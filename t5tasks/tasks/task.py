# SPDX-License-Identifier: Apache-2.0
"""What a task is: its record's fields in, pieces, a loss mask, predictions and metrics out."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from t5tasks.data.features import Example, LossMask, Tokens, prompt
from t5tasks.data.tokenizer import Tokenizer
from t5tasks.metrics.counts import Counts

Record = Mapping[str, Any]
Options = Mapping[str, Any]
Prediction = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Window:
    """What a model says of one window of a record: for SPANS f64[2, T], the logits of each token to begin
    and to end the span; for TAGS f64[T, C], each token's probabilities."""

    tokens: Tokens
    values: np.ndarray


# What a model says to one example: a text, several where config.decode.samples asks for them, probabilities
# f64[C] over the task's labels, likenesses f64[G] to each of G passages, or what it says of each window.
Answer = str | tuple[str, ...] | np.ndarray | list[Window]

CLASSES, LABEL_SCORING, GENERATION, SPANS, TAGS = "classes", "label scoring", "generation", "spans", "tags"
SIMILARITY = "similarity"
# The token that stands in a sequence where a model sees a part of an image.
IMAGE = "<image>"
SHOT = "shot"  # the role of an example before what is asked, which is another record's text


@dataclasses.dataclass(frozen=True)
class Form:
    """One way to cast a task: an architecture, a head, and how its answer is read."""

    architecture: str  # encoder, decoder or encoder_decoder
    head: str  # a head of models.config.HEADS
    answers_by: str  # CLASSES, LABEL_SCORING, GENERATION, SPANS, TAGS or SIMILARITY
    preprocess: Callable[[Record, Options], Example]  # without the target fields: the prompt
    loss_mask: LossMask  # roles of T tokens → f32[T]
    label_texts: Callable[[Options], Sequence[str]] | None = None  # LABEL_SCORING's continuations
    # What is asked: the record without its answer, where that is no field of its own (a dialogue's last turn).
    asked: Callable[[Record], Record] = lambda record: record
    # The same with less of what may be left out (a dialogue's oldest turns, the first of the examples before what
    # is asked), None where nothing may.
    shorten: Callable[[Record, Options], tuple[Record, Options] | None] = lambda record, options: None
    # Names of the special tokens that end an answer, EOS aside: those that a chat template ends its turns with.
    ends: tuple[str, ...] = ()
    # Whether each class of a cls head has a probability of its own (a sigmoid), instead of a share of one (a softmax).
    independent: bool = False
    # The right answer to a record, where it is not what the generic `Form.right` finds.
    gold: Callable[[Record, Options], Answer] | None = None

    def right(self, record: Record, options: Options) -> Answer:
        """The answer of a model that makes no mistake, from the record's targets.

        It is the text of the graded pieces at the end, or all probability on the one label.
        """
        if self.gold is not None:
            return self.gold(record, options)
        example = self.preprocess(record, options)
        if example.label is not None:
            return np.eye(len(options["labels"]))[example.label]
        answer = example.pieces[len(prompt(example.pieces, self.loss_mask)):]
        text = "".join(piece.text for piece in answer)
        if self.label_texts is None:
            return text
        return np.asarray([label == text for label in self.label_texts(options)], np.float64)

    @property
    def windowed(self) -> bool:
        """Whether a long record is seen in several windows."""
        return self.answers_by in (SPANS, TAGS)


@dataclasses.dataclass(frozen=True)
class Lines:
    """How plain text is asked and answered line by line: a line makes a record, a field of the prediction is a line."""

    record: Callable[[str, Options], Record]
    answer: str

    @classmethod
    def of(cls, field: str, answer: str) -> "Lines":
        """Lines whose text is one field of the record."""
        return cls(lambda text, options: {field: text}, answer)


@dataclasses.dataclass(frozen=True)
class Task:
    """A chapter of the guide.

    Attributes:
      fields: type of each field that a record must have to be predicted.
      targets: those it needs besides to be trained on or scored.
      options: names and defaults of what a config may set under `config.task`.
      postprocess: answer → the prediction in the guide's shape.
      count: record, prediction → what the example adds to the metrics.
      figures: summed counts → metrics by name.
      metric: the one figure that picks the best checkpoint; higher is better unless it is a loss
        or perplexity.
      baselines: records → figures of `metric` that need no model (chance, majority, copy).
      resolve: options, a loader of the training records → options with what only those can tell
        (the labels, examples for the prompt); it loads them only if something is open.
      notes: summed counts → texts to be quoted with figures (sacreBLEU's signatures).
      bind: a form, options, a tokenizer → the form as it is with that tokenizer (a chat template of its own).
      control: texts of control tokens that a tokenizer trained for the task gets.
      counters: how many records may be counted at a time; more than one only pays where counting waits for
        other processes.
      known: all records that are evaluated, options → options with what `count` has to know of all of them.
      variant: the task that some options make of it (sets of labels, code that is run); the task itself is None.
      pictures: fields that hold images; a record may lack them.
      model: settings of config.model that a config of the task begins with.
      weight: record, options → what its loss counts in training; figures count every record alike.
      lines: how plain text is answered line by line; None where a record is more than a text, or an answer more
        than a line.
      answering: options that training does not depend on: they act when an answer is read.
      tune: options, a checkpoint's figures of the validation records → options with what is tuned on these.
    """

    name: str
    chapter: str
    fields: Mapping[str, type]
    targets: Mapping[str, type]
    options: Mapping[str, Any]
    forms: Mapping[str, Form]
    postprocess: Callable[[Record, Answer, Options], Prediction]
    count: Callable[[Record, Prediction, Options], Counts]
    figures: Callable[[Counts, Options], dict[str, float]]
    metric: str
    baselines: Callable[[Sequence[Record], Options], dict[str, float]]
    resolve: Callable[[Options, Callable[[], Iterable[Record]]], Options] = lambda options, load: options
    notes: Callable[[Counts, Options], dict[str, str]] = lambda counts, options: {}
    bind: Callable[[Form, Options, Tokenizer], Form] = lambda form, options, tokenizer: form
    control: tuple[str, ...] = ()
    counters: int = 1
    pictures: tuple[str, ...] = ()
    model: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    known: Callable[[Sequence[Record], Options], Options] = lambda records, options: options
    variant: Callable[[Options], "Task | None"] = lambda options: None
    weight: Callable[[Record, Options], float] = lambda record, options: 1.0
    tune: Callable[[Options, Mapping[str, float]], Options] = lambda options, figures: options
    lines: Lines | None = None
    answering: tuple[str, ...] = ()

    @property
    def higher_is_better(self) -> bool:
        """Whether a larger figure of `metric` is the better one."""
        return not any(word in self.metric for word in ("loss", "perplexity", "error"))

    def form(self, architecture: str) -> Form:
        """The form for an architecture; ValueError lists those there are."""
        if architecture not in self.forms:
            raise ValueError(f"task {self.name} has no {architecture!r} form; "
                             f"config.architecture may be {', '.join(self.forms)}")
        return self.forms[architecture]

    def check(self, record: Record, where: str, targets: bool = True) -> None:
        """Raises ValueError, naming record and field, unless the record has what the task reads."""
        for field, kind in {**self.fields, **(self.targets if targets else {})}.items():
            if record.get(field) is None:
                raise ValueError(f"{where}: no field {field!r}; a record of {self.name} needs "
                                 f"{', '.join({**self.fields, **self.targets})}, this one has "
                                 f"{', '.join(record) or 'none'}")
            if not isinstance(record[field], kind):
                raise ValueError(f"{where}: field {field!r} is {type(record[field]).__name__} "
                                 f"{record[field]!r:.60}, expected {kind.__name__}")


def samples(answer: Answer) -> tuple[str, ...]:
    """The texts of an answer in words, one or several."""
    return answer if isinstance(answer, tuple) else (str(answer),)
