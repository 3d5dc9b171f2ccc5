# SPDX-License-Identifier: Apache-2.0
"""An experiment, parameters and records in; answers, predictions and metrics out.

Every process of a run goes through the same records in the same batches, whose rows are spread
over the whole mesh; the answers come back to each of them whole. So no process waits for one that
has run out of records, and every record counts exactly once.
"""

import collections
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks import decode, drafting, sharding
from t5tasks.data import batches
from t5tasks.data.features import Features, Tokens
from t5tasks.experiment import Experiment
from t5tasks.metrics import counts as counting
from t5tasks.metrics import text as text_metrics
from t5tasks.metrics.counts import Counts
from t5tasks.models import placement
from t5tasks.prompting import WINDOW, Batch, Prompts
from t5tasks.scoring import Scorer
from t5tasks.tasks.task import (
    GENERATION,
    LABEL_SCORING,
    SIMILARITY,
    SPANS,
    Answer,
    Options,
    Prediction,
    Record,
    Task,
    Window,
)
from t5tasks.training import contrastive
from t5tasks.training import step as training_step
from t5tasks.writing import Streamed, Writer

# A record, what was predicted of it, and what that adds to the metrics.
Counted = tuple[Record, Prediction, Counts]


def counted(task: Task, options: Options, predictions: Iterable[tuple[Record, Prediction]]) -> Iterator[Counted]:
    """Each prediction with its counts of the task's metrics, made beside the predictions as those come."""
    waiting: collections.deque[tuple[Record, Prediction, Future[Counts]]] = collections.deque()
    with ThreadPoolExecutor(task.counters) as pool:
        try:
            for record, prediction in predictions:
                waiting.append((record, prediction, pool.submit(task.count, record, prediction, options)))
                while waiting[0][2].done() and len(waiting) > 1:
                    record, prediction, future = waiting.popleft()
                    yield record, prediction, future.result()
            for record, prediction, future in waiting:
                yield record, prediction, future.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def count(task: Task, options: Options, predictions: Iterable[tuple[Record, Prediction]],
          tell: Callable[[Record, Prediction, Counts], None] = lambda *counted: None) -> Counts:
    """The summed counts of the task's metrics; `tell` is called with each record's."""
    counts: Counts = {}
    for record, prediction, own in counted(task, options, predictions):
        tell(record, prediction, own)
        counts = counting.add(counts, own)
    return counts


class Predictor:
    """Answers records with one set of parameters; programs are compiled once a shape."""

    def __init__(self, experiment: Experiment, pulse: Callable[[], None] = lambda: None) -> None:
        """Args:
          pulse: called before every batch (of several processes, at the same one on each); what it raises, ends it.

        Raises:
          ValueError: decode settings out of range.
        """
        self.experiment, self._pulse = experiment, pulse
        method = experiment.form.answers_by
        writer = Writer(experiment)  # which checks config.decode, whatever the form
        self._writer = writer if method == GENERATION else None
        self._scorer = Scorer(experiment) if method == LABEL_SCORING else None
        answering = self._writer or self._scorer
        self._prompts = answering.prompts if answering else Prompts(experiment, 0)
        probabilities = method != SPANS  # whose windows are compared by their logits

        def values(parameters: Any, inputs: dict[str, jax.Array]) -> jax.Array:
            if method == SIMILARITY:
                return contrastive.similarities(experiment.model, parameters, inputs)
            logits = experiment.model.apply(parameters, inputs).astype(jnp.float32)
            if experiment.form.independent:
                return jax.nn.sigmoid(logits)
            return jax.nn.softmax(logits, axis=-1) if probabilities else logits

        self._values = jax.jit(values, out_shardings=sharding.replicated(experiment.mesh))
        self._sums = jax.jit(placement.on(experiment.mesh, functools.partial(
            training_step.loss_sums, experiment.model,
            settings={**experiment.config.loss, "label_smoothing": 0.0, "z_loss": 0.0})))

    @property
    def guesses(self) -> drafting.Tally | None:
        """How many tokens were guessed ahead, and how many rightly; None where none are."""
        return None if self._writer is None else self._writer.guesses

    def answers(self, parameters: Any, records: Iterable[Record], skip: int = 0) -> Iterator[Answer]:
        """One answer a record, in their order; the first `skip` are left out.

        Every record stands in the batch, or has the neighbours in the slots, that it would have without
        `skip`: among others, its answer could differ in the last bits.
        """
        if self._writer is not None:
            parameters = self._writer.prepared(parameters)
            if self._writer.refills:
                for answered in self._writer.answers_in_slots(parameters, records, skip):
                    self._pulse()
                    yield answered
                return
        size = WINDOW * self._prompts.shape.size
        first = skip - skip % size
        numbered = enumerate(itertools.islice(records, first, None), first)
        answer = self._answering(parameters)
        while group := list(itertools.islice(numbered, size)):
            yield from self._answers_of(answer, group, skip)

    def _answering(self, parameters: Any) -> Callable[[Batch, list[int]], list[Answer]]:
        """What answers a batch of prompts, of which the first have these numbers."""
        if self._writer is not None:
            return functools.partial(self._writer.answers, parameters)
        if (scorer := self._scorer) is None:
            return lambda batch, indices: self._classes(parameters, batch)
        parameters = self.experiment.model.prepared(parameters, self._prompts.shape.size,
                                                    self.experiment.config.decode.weights)
        prior = scorer.prior(parameters)
        return lambda batch, indices: scorer.answers(parameters, batch, prior)

    def _answers_of(self, answer: Callable[[Batch, list[int]], list[Answer]], group: list[tuple[int, Record]],
                    skip: int) -> Iterator[Answer]:
        """Answers to numbered records from number `skip` on, whose batches hold no others."""
        rows = {(index, number): row for index, record in group for number, row in enumerate(self._rows(record))}
        missing = collections.Counter(index for index, _ in rows)
        found: dict[int, dict[int, Any]] = collections.defaultdict(dict)
        next_index = max(group[0][0], skip)
        stream = ((key, features) for key, (features, _) in rows.items())
        for keys, batch in self._prompts.ahead(
                batches.evaluation_batches(stream, self._prompts.shape, len(rows))):
            self._pulse()
            indices = [index for index, _ in keys]
            if max(indices) < skip:
                continue
            for (index, number), value in zip(keys, answer(batch, indices), strict=False):
                found[index][number] = value
            missing.subtract(indices)
            while next_index in missing and not missing[next_index]:
                values = sorted(found.pop(next_index).items())
                yield self._joined([value for _, value in values],
                                   [rows[next_index, number][1] for number, _ in values])
                next_index += 1

    def _joined(self, values: list[Any], tokens: list[Tokens | None]) -> Answer:
        """A record's answer of those to its rows."""
        if not self.experiment.form.windowed:
            return values[0]
        axis = -1 if self.experiment.form.answers_by == SPANS else 0  # of the tokens, padding at its end
        return [Window(own, value.take(range(len(own.ids)), axis))
                for value, own in zip(values, tokens, strict=True) if own is not None]

    def predictions(self, parameters: Any, records: Iterable[Record], skip: int = 0
                    ) -> Iterator[tuple[Record, Prediction]]:
        """Each record but the first `skip` with its prediction in the guide's shape, in order."""
        seen: list[Record] = []

        def remembered() -> Iterator[Record]:
            for index, record in enumerate(records):
                if index >= skip:
                    seen.append(record)
                yield record

        for answer in self.answers(parameters, remembered(), skip):
            record = seen.pop(0)
            asked = self._prompts.fitted(record)[0] if self.experiment.form.head == "lm" else record
            yield record, self.experiment.task.postprocess(asked, answer, self.experiment.options)

    def conversation(self, parameters: Any) -> decode.Conversation:
        """An empty dialogue with the model, for `stream`.

        Raises ValueError for a form or settings whose answer is no single text that can be shown while it is written.
        """
        return self._speaker.conversation(parameters)

    def stream(self, conversation: decode.Conversation, record: Record, number: int = 0) -> Streamed:
        """What `predictions` gives for the record at that place among others, as it is written.

        Raises ValueError where the prompt is too long although all that may be left out is.
        """
        return self._speaker.stream(conversation, record, number)

    @property
    def _speaker(self) -> Writer:
        if self._writer is None or self.experiment.form.architecture != "decoder":
            raise ValueError(f"the {self.experiment.form.architecture} form of {self.experiment.task.name} cannot "
                             "converse; a decoder that writes its answers does")
        return self._writer

    def evaluate(self, parameters: Any, records: Sequence[Record],
                 tell: Callable[[Record, Prediction, Counts], None] = lambda *counted: None) -> Counts:
        """The summed counts of the task's metrics over the records; `tell` is called with each record's."""
        run = self.experiment
        return count(run.task, run.task.known(records, run.options), self.predictions(parameters, records), tell)

    def token_counts(self, parameters: Any, records: Iterable[Record]) -> Counts:
        """Loss and hits of the graded tokens (of the examples, for a cls head), without decoding."""
        rows = ((index, features) for index, record in enumerate(records)
                for features, _, _ in self.experiment.windows(record))
        total = dict.fromkeys(("token_loss", "token_correct", "token_count"), 0.0)
        for _, batch in self._prompts.ahead(batches.evaluation_batches(rows, self.experiment.evaluation_shape)):
            self._pulse()
            sums = jax.device_get(self._sums(parameters, self._prompts.place(batch)))
            for name, part in (("token_loss", "nll"), ("token_correct", "correct"), ("token_count", "weight")):
                total[name] += float(sums[part])
        return counting.as_counts(total)

    def unigram_perplexity(self, records: Iterable[Record]) -> float:
        """The least perplexity of the graded tokens that a model without context can reach: that of their own
        frequencies."""
        seen = np.zeros(self.experiment.model.config.vocabulary)
        for record in records:
            features = self.experiment.features(record)[0]
            graded = features["weights"] > 0
            np.add.at(seen, features["targets"][graded], features["weights"][graded])
        shares = seen[seen > 0] / seen.sum()
        return float(np.exp(-np.sum(shares * np.log(shares))))

    def figures(self, counts: Counts, tokens: Counts) -> dict[str, float]:
        """All figures: the task's, and loss, perplexity and accuracy of graded tokens."""
        return {**self.experiment.task.figures(counts, self.experiment.options),
                **text_metrics.token_figures(tokens)}

    def _rows(self, record: Record) -> list[tuple[Features, Tokens | None]]:
        """What the model is given of a record without its targets: one row, or one of each window."""
        form, targets = self.experiment.form, self.experiment.task.targets
        if form.head == "lm":
            return [(self._prompts.features(record), None)]
        unlabelled = {name: value for name, value in record.items() if name not in targets}
        return [(features, tokens) for features, tokens, _ in self.experiment.windows(unlabelled)]

    def _classes(self, parameters: Any, batch: Batch) -> list[Answer]:
        inputs = {name: rows for name, rows in batch.items() if name not in training_step.LABELS}
        return list(np.asarray(self._values(parameters, self._prompts.place(inputs)), np.float64))
