# SPDX-License-Identifier: Apache-2.0
"""An experiment, parameters and records in; answers, predictions and metrics out.

Every process of a run goes through the same records in the same batches, whose rows are spread
over the whole mesh; the answers come back to each of them whole. So no process waits for one that
has run out of records, and every record counts exactly once.
"""

import collections
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks import constrained, decode, drafting, sharding
from t5tasks.data import batches
from t5tasks.data import features as feature_functions
from t5tasks.data.features import Features, Tokens
from t5tasks.experiment import Experiment, check_ids
from t5tasks.metrics import counts as counting
from t5tasks.metrics import text as text_metrics
from t5tasks.metrics.counts import Counts
from t5tasks.models.prepared import FORMS as WEIGHTS
from t5tasks.tasks.task import (
    CLASSES,
    GENERATION,
    LABEL_SCORING,
    SPANS,
    TAGS,
    Answer,
    Options,
    Prediction,
    Record,
    Task,
    Window,
)
from t5tasks.training import step as training_step

Batch = dict[str, np.ndarray]
METHODS = ("greedy", "sample", "beam")
PROCESSORS = ("repetition_penalty", "presence_penalty", "frequency_penalty", "no_repeat_ngram")
FILTERS = ("temperature", "top_k", "top_p", "min_p", "typical_p")
WINDOW = 32  # batches, in which records of like length stand together


def count(task: Task, options: Options, predictions: Iterable[tuple[Record, Prediction]]) -> Counts:
    """The summed counts of the task's metrics, made beside the predictions as those come."""
    counts: Counts = {}
    waiting: collections.deque[Future[Counts]] = collections.deque()
    with ThreadPoolExecutor(task.counters) as pool:
        try:
            for record, prediction in predictions:
                waiting.append(pool.submit(task.count, record, prediction, options))
                while waiting[0].done() and len(waiting) > 1:
                    counts = counting.add(counts, waiting.popleft().result())
            return counting.total([counts, *(future.result() for future in waiting)])
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise

@dataclasses.dataclass(frozen=True)
class Streamed:
    """An answer that is being written."""

    record: Record  # what was asked, without what had to be left out
    tokens: decode.Stream
    texts: Iterator[str]  # parts of the answer; joined, it is whole


class Predictor:
    """Answers records with one set of parameters; programs are compiled once a shape."""

    def __init__(self, experiment: Experiment) -> None:
        """Raises ValueError for decode settings out of range."""
        self.experiment = experiment
        settings = experiment.config.decode
        if settings.method not in METHODS:
            raise ValueError(f"config.decode.method is {settings.method!r}, expected one of "
                             f"{', '.join(METHODS)}")
        if settings.samples < 1 or (settings.samples > 1 and settings.method != "sample"):
            raise ValueError(f"config.decode.samples is {settings.samples} and config.decode.method "
                             f"{settings.method!r}; several samples need the method sample, and there is at least one")
        if settings.method == "beam" and settings.stop:
            raise ValueError(f"config.decode.stop is {tuple(settings.stop)}, which beam search does not know; "
                             "use greedy or sample, or leave it out")
        if settings.weights not in WEIGHTS:
            raise ValueError(f"config.decode.weights is {settings.weights!r}, expected one of {', '.join(WEIGHTS)}")
        if settings.method == "beam":
            decode.check_beams(settings.beams, 1, settings.beam_groups, settings.early_stopping,
                               settings.diversity_penalty)
        if not all(isinstance(text, str) for text in settings.prior):
            raise ValueError(f"config.decode.prior is {tuple(settings.prior)}, expected texts")
        self._choice = functools.cache(self._make_choice)
        self._choice(1)
        self._automaton = constrained.automaton(experiment)
        self._drafting = drafting.find(experiment)
        self.guesses = drafting.Tally() if self._drafting else None
        if settings.slots < 0:
            raise ValueError(f"config.decode.slots is {settings.slots}, expected 0 (static batches) or more")
        if self._refills:
            sharding.check_batch(experiment.mesh, settings.slots, "config.decode.slots")
        self._start = jax.jit(experiment.model.start, static_argnums=(1, 2))
        probabilities = experiment.form.answers_by != SPANS  # whose windows are compared by their logits

        def values(parameters: Any, inputs: dict[str, jax.Array]) -> jax.Array:
            logits = experiment.model.apply(parameters, inputs).astype(jnp.float32)
            return jax.nn.softmax(logits, axis=-1) if probabilities else logits

        self._values = jax.jit(values, out_shardings=sharding.replicated(experiment.mesh))
        self._sums = jax.jit(functools.partial(
            training_step.loss_sums, experiment.model,
            settings={"label_smoothing": 0.0, "z_loss": 0.0,
                      "chunk_tokens": experiment.config.loss.chunk_tokens}))

    def answers(self, parameters: Any, records: Iterable[Record], skip: int = 0) -> Iterator[Answer]:
        """One answer a record, in their order; the first `skip` are left out.

        Every record stands in the batch, or has the neighbours in the slots, that it would have without
        `skip`: among others, its answer could differ in the last bits.
        """
        method = self.experiment.form.answers_by
        if method != CLASSES:
            parameters = self._decoding_form(parameters)
        if self._refills:
            yield from self._texts_of_slots(parameters, records, skip)
            return
        size = WINDOW * self._prompt_shape.size
        first = skip - skip % size
        numbered = enumerate(itertools.islice(records, first, None), first)
        answer = self._answering(parameters)
        while group := list(itertools.islice(numbered, size)):
            yield from self._answers_of(answer, group, skip)

    def _answering(self, parameters: Any) -> Callable[[Batch, list[int]], list[Answer]]:
        """What answers a batch of prompts, of which the first have these numbers."""
        method = self.experiment.form.answers_by
        if method == LABEL_SCORING:
            return functools.partial(self._labels, parameters, prior=self._prior(parameters))
        return functools.partial(self._classes if method in (CLASSES, TAGS, SPANS) else self._texts, parameters)

    def _answers_of(self, answer: Callable[[Batch, list[int]], list[Answer]], group: list[tuple[int, Record]],
                    skip: int) -> Iterator[Answer]:
        """Answers to numbered records from number `skip` on, whose batches hold no others."""
        rows = {(index, number): row for index, record in group for number, row in enumerate(self._rows(record))}
        missing = collections.Counter(index for index, _ in rows)
        found: dict[int, dict[int, Any]] = collections.defaultdict(dict)
        next_index = max(group[0][0], skip)
        stream = ((key, features) for key, (features, _) in rows.items())
        for keys, batch in batches.evaluation_batches(stream, self._prompt_shape, len(rows)):
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

    def _decoding_form(self, parameters: Any) -> Any:
        """The parameters as decoding reads them fastest; made for each pass, so that none outlives training's own."""
        settings = self.experiment.config.decode
        batch = settings.slots if self._refills else self._prompt_shape.size
        rows = batch * (settings.beams if settings.method == "beam" else settings.samples)
        return self.experiment.model.prepared(parameters, rows, settings.weights)

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
            yield record, self.experiment.task.postprocess(record, answer, self.experiment.options)

    def conversation(self, parameters: Any) -> decode.Conversation:
        """An empty dialogue with the model, for `stream`: prompts as long as in `predictions`, and their replies.

        Raises ValueError for settings whose answer is no single text that can be shown while it is written.
        """
        experiment, settings = self.experiment, self.experiment.config.decode
        if experiment.form.architecture != "decoder" or experiment.form.answers_by != GENERATION:
            raise ValueError(f"the {experiment.form.architecture} form of {experiment.task.name} cannot converse; "
                             "a decoder that writes its answers does")
        if settings.method == "beam" or settings.samples > 1:
            raise ValueError(f"config.decode.method is {settings.method!r} with {settings.samples} samples; a reply "
                             "that is shown while it is written needs greedy or sample, and samples=1")
        parameters = experiment.model.prepared(parameters, 1, settings.weights)
        return decode.Conversation(
            experiment.model.step, parameters, lambda slots: self._start(parameters, 1, slots),
            self._prompt_shape.length + self._new_tokens, **(
                {"prefill_chunk": settings.prefill_chunk} if settings.prefill_chunk else {}))

    def stream(self, conversation: decode.Conversation, record: Record, number: int = 0) -> "Streamed":
        """What `predictions` gives for the record at that place among others, as it is written.

        Raises ValueError where the prompt is too long although all that may be left out is.
        """
        experiment, length = self.experiment, self._prompt_shape.length
        record, example = experiment.fitted(experiment.form.asked(record), length)
        pieces = feature_functions.prompt(example.pieces, experiment.form.loss_mask)
        prompt = feature_functions.tokenise(pieces, experiment.tokenizer).ids
        if len(prompt) > length:
            raise ValueError(f"the prompt has {len(prompt)} tokens without all that may be left out of it, expected at "
                             f"most {length}; shorten it, or raise config.batch.length where the model reads more")
        check_ids(prompt, experiment.model.config.vocabulary, "tokens")
        ids = prompt.tolist()
        tokens = conversation.reply(
            ids, self._choice(1), self._keys([number], 1, 1), max_new_tokens=self._new_tokens, eos=self._ends,
            pad=experiment.pad, pieces=self._pieces,
            constraint=constrained.constraint(experiment, self._automaton, [ids], 1, 1))
        parts = decode.texts(tokens, experiment.tokenizer, [ids], experiment.config.decode.stop)
        return Streamed(record, tokens, (part for part, in parts))

    def evaluate(self, parameters: Any, records: Iterable[Record]) -> Counts:
        """The summed counts of the task's metrics over the records."""
        run = self.experiment
        return count(run.task, run.options, self.predictions(parameters, records))

    def token_counts(self, parameters: Any, records: Iterable[Record]) -> Counts:
        """Loss and hits of the graded tokens (of the examples, for a cls head), without decoding."""
        rows = ((index, features) for index, record in enumerate(records)
                for features, _, _ in self.experiment.windows(record))
        total = dict.fromkeys(("token_loss", "token_correct", "token_count"), 0.0)
        for _, batch in batches.evaluation_batches(rows, self.experiment.evaluation_shape):
            sums = jax.device_get(self._sums(parameters, self._place(batch)))
            for name, part in (("token_loss", "nll"), ("token_correct", "correct"), ("token_count", "weight")):
                total[name] += float(sums[part])
        return counting.as_counts(total)

    def unigram_perplexity(self, records: Iterable[Record]) -> float:
        """The least perplexity of the graded tokens that a model without context can reach: that of their own
        frequencies."""
        seen = np.zeros(self.experiment.model.config.vocabulary)
        for record in records:
            features = self.experiment.features(record)[0]
            np.add.at(seen, features["targets"], features["weights"])
        shares = seen[seen > 0] / seen.sum()
        return float(np.exp(-np.sum(shares * np.log(shares))))

    def figures(self, counts: Counts, tokens: Counts) -> dict[str, float]:
        """All figures: the task's, and loss, perplexity and accuracy of graded tokens."""
        return {**self.experiment.task.figures(counts, self.experiment.options),
                **text_metrics.token_figures(tokens)}

    @functools.cached_property
    def _label_tokens(self) -> tuple[jax.Array, jax.Array]:
        """int32[L, M] and int32[L]: each label's tokens after the prompt's last text."""
        experiment = self.experiment
        assert experiment.form.label_texts is not None
        rows: list[list[int]] = []
        cue = feature_functions.Piece("\n", "prompt")
        for text in experiment.form.label_texts(experiment.options):
            tokens = feature_functions.tokenise(
                (cue, feature_functions.Piece(text, "target"), feature_functions.special("eos", "target")),
                experiment.tokenizer)
            rows.append([int(token) for token, role in zip(tokens.ids, tokens.roles, strict=True)
                         if role == "target"])
        lengths = np.asarray([len(row) for row in rows], np.int32)
        labels = np.zeros((len(rows), lengths.max()), np.int32)
        for index, row in enumerate(rows):
            labels[index, : len(row)] = row
        return jnp.asarray(labels), jnp.asarray(lengths)

    @property
    def _new_tokens(self) -> int:
        if self.experiment.form.answers_by == LABEL_SCORING:
            return self._label_tokens[0].shape[1]
        return self.experiment.config.decode.max_new_tokens

    @property
    def _prompt_shape(self) -> batches.Shape:
        """As in evaluation; a decoder's prompt leaves room for its answer."""
        shape, config = self.experiment.evaluation_shape, self.experiment.model.config
        if config.architecture != "decoder" or config.positions not in ("learned", "sinusoidal"):
            return shape
        return dataclasses.replace(shape, length=min(shape.length, config.max_length - self._new_tokens))

    def _rows(self, record: Record) -> list[tuple[Features, Tokens | None]]:
        """What the model is given of a record without its targets: one row, or one of each window."""
        form, targets = self.experiment.form, self.experiment.task.targets
        if form.head == "lm":
            return [(self._prompt(record), None)]
        unlabelled = {name: value for name, value in record.items() if name not in targets}
        return [(features, tokens) for features, tokens, _ in self.experiment.windows(unlabelled)]

    def _prompt(self, record: Record) -> Features:
        experiment, shape = self.experiment, self._prompt_shape
        example = experiment.example(experiment.form.asked(record), shape.length)
        if example.source:
            source = feature_functions.tokenise(example.source, experiment.tokenizer.source, shape.source_length)
            check_ids(source.ids, experiment.model.config.vocabulary, "source_tokens")
            return {"source_tokens": source.ids, "tokens": np.asarray([experiment.start], np.int32)}
        pieces = feature_functions.prompt(example.pieces, experiment.form.loss_mask)
        tokens = feature_functions.tokenise(pieces, experiment.tokenizer, shape.length)
        check_ids(tokens.ids, experiment.model.config.vocabulary, "tokens")
        return {"tokens": tokens.ids}

    def _classes(self, parameters: Any, batch: Batch, indices: list[int]) -> list[Answer]:
        inputs = {name: rows for name, rows in batch.items() if name not in training_step.LABELS}
        return list(np.asarray(self._values(parameters, self._place(inputs)), np.float64))

    def _labels(self, parameters: Any, batch: Batch, indices: list[int], prior: np.ndarray | None) -> list[Answer]:
        sums, by_length = self._label_sums(parameters, batch), self.experiment.config.decode.length_normalised
        return list(np.asarray(decode.normalise(sums, self._label_tokens[1], by_length, prior), np.float64))

    def _label_sums(self, parameters: Any, batch: Batch) -> np.ndarray:
        """f32[B, L]: the log-probability of each label after each prompt of a batch."""
        model, (labels, lengths) = self.experiment.model, self._label_tokens
        prompt = self._place(batch)
        rows, width = batch["tokens"].shape
        chunk = self.experiment.config.decode.prefill_chunk
        cache = self._start(parameters, rows, decode.capacity(width, self._new_tokens, chunk))
        return self._gather(decode.log_probabilities(
            model.step, model.score, parameters, prompt["tokens"], self._lengths(batch), cache, labels, lengths,
            prefill_chunk=chunk))

    def _prior(self, parameters: Any) -> np.ndarray | None:
        """f32[L]: the log of the labels' mean probability after the texts of config.decode.prior, if any.

        Each text stands in every field of a record, in the task's own prompt.
        """
        fields, texts = self.experiment.task.fields, self.experiment.config.decode.prior
        prompts = enumerate(self._prompt(dict.fromkeys(fields, text)) for text in texts)
        sums = [self._label_sums(parameters, batch)[:len(indices)] for indices, batch
                in batches.evaluation_batches(prompts, self._prompt_shape, WINDOW)]
        return None if not texts else np.asarray(np.logaddexp.reduce(np.concatenate(sums), axis=0) - np.log(len(texts)))

    def _texts(self, parameters: Any, batch: Batch, indices: list[int]) -> list[Answer]:
        """Generated texts, special tokens left out."""
        experiment = self.experiment
        settings = experiment.config.decode
        rows, width = batch["tokens"].shape
        inputs = self._place(batch)
        guessed = self._drafting.tokens if self._drafting else 0
        slots = decode.capacity(width, settings.max_new_tokens + guessed, settings.prefill_chunk)
        cache = self._start(parameters, rows, slots, inputs)
        arguments = (experiment.model.step, parameters, inputs["tokens"], self._lengths(batch), cache)
        ends = {"max_new_tokens": settings.max_new_tokens, "eos": self._ends,
                "pad": experiment.pad, "prefill_chunk": settings.prefill_chunk}
        samples = settings.samples
        choice = self._choice(rows * samples)
        prompts = [batch["tokens"][row][batch["segments"][row] > 0].tolist() for row in range(len(indices))]
        ends["constraint"] = constrained.constraint(experiment, self._automaton, prompts, rows, samples)
        if settings.method == "beam":
            beams = decode.search(*arguments, beams=settings.beams, length_penalty=settings.length_penalty,
                                  early_stopping=settings.early_stopping, settings=choice,
                                  groups=settings.beam_groups, diversity_penalty=settings.diversity_penalty, **ends)
            tokens, lengths = beams.tokens[:, 0], beams.lengths[:, 0]
        else:
            generated = self._generated(*arguments, choice, self._keys(indices, rows, samples), len(indices), inputs,
                                        {**ends, "samples": samples, "pieces": self._pieces})
            tokens, lengths = generated.tokens, generated.lengths
        written, ends_at = self._gather(tokens), self._gather(lengths)
        return [self._answer(prompt, [written[place][:ends_at[place]].tolist()
                                      for place in range(row * samples, (row + 1) * samples)])
                for row, prompt in enumerate(prompts)]

    @property
    def _refills(self) -> bool:
        """Whether texts are written in slots that are refilled at once (config.decode.slots).

        Beam search and constraints have no slots; several processes, or a model whose heads are spread
        over a mesh (tensor above 1), keep to static batches, where all devices know without asking what comes next.
        """
        experiment, settings = self.experiment, self.experiment.config.decode
        return (settings.slots > 0 and settings.method != "beam" and self._automaton is None
                and experiment.form.answers_by not in (CLASSES, LABEL_SCORING)
                and jax.process_count() == 1 and experiment.mesh.shape["tensor"] == 1)

    def _texts_of_slots(self, parameters: Any, records: Iterable[Record], skip: int) -> Iterator[Answer]:
        """As `answers`. The slots run empty after each window, so that the next begins alike for any `skip`."""
        experiment, window = self.experiment, WINDOW * self.experiment.config.decode.slots
        settings = experiment.config.decode
        first = skip - skip % window
        rows = ((index, self._prompt(record))
                for index, record in enumerate(itertools.islice(records, first, None), first))
        while group := list(itertools.islice(rows, window)):
            # The short ones first: while none is long, a step costs less (decode.continuous).
            order = sorted(group, key=lambda row: len(row[1]["tokens"]))
            found = decode.generate_all(
                experiment.model.step, experiment.model.start, parameters, self._slot_prompts(order), self._slots,
                eos=self._ends, pad=experiment.pad, pieces=self._pieces)
            texts = {index: self._answer(row["tokens"].tolist(), [
                text.tokens[: text.lengths].tolist() for text in itertools.islice(found, settings.samples)])
                for index, row in order}
            for index, _ in group:
                if index >= skip:
                    yield texts[index]

    def _slot_prompts(self, rows: list[tuple[int, Features]]) -> Iterator[decode.Prompt]:
        """A prompt for each sample of each record, a record's side by side."""
        shape, choice = self._prompt_shape, jax.device_get(self._choice(1))
        samples, window = self.experiment.config.decode.samples, WINDOW * self.experiment.config.decode.slots
        keys = iter(np.asarray(self._keys([index for index, _ in rows], window, samples)))
        for index, row in rows:
            inputs = None
            if "source_tokens" in row:
                padded = batches.padded([row], shape, 1)
                inputs = {name: padded[name][0] for name in ("source_tokens", "source_segments")}
            for key in itertools.islice(keys, samples):
                yield decode.Prompt(row["tokens"], choice, key, inputs, f"record {index}")

    @functools.cached_property
    def _slots(self) -> decode.Slots:
        experiment, shape = self.experiment, self._prompt_shape
        inputs, widths = None, batches.ladder(shape.length)
        if shape.source_length:
            longest = np.zeros(shape.source_length, np.int32)
            inputs, widths = {"source_tokens": longest, "source_segments": longest}, [1]
        one = experiment.mesh.size == 1
        return decode.Slots(experiment.config.decode.slots, widths, self._new_tokens, inputs=inputs,
                            capacities=[widths[-1] // part + self._new_tokens for part in (4, 2)],
                            sharding=None if one else sharding.batch_sharding(experiment.mesh))

    def _generated(self, step: Any, parameters: Any, prompt: jax.Array, lengths: jax.Array, cache: Any,
                   choice: decode.Settings, keys: jax.Array, records: int, inputs: dict[str, jax.Array],
                   options: dict[str, Any]) -> decode.Generated:
        """The texts, guessed ahead where config.decode says so; rows after the first `records` are filler."""
        if self._drafting is None or self.guesses is None:
            return decode.generate(step, parameters, prompt, lengths, cache, choice, keys, **options)
        draft, memory = self._drafting.begin(inputs, cache.capacity)
        generated, acceptance = decode.speculate(
            step, self.experiment.model.verify, parameters, prompt, lengths, cache, draft, memory, choice, keys,
            draft_tokens=self._drafting.tokens, **options)
        texts = records * options["samples"]
        self.guesses.add(*jax.tree.map(lambda rows: self._gather(rows)[:texts], (acceptance, generated.lengths)))
        return generated

    def _make_choice(self, rows: int) -> decode.Settings:
        """What config.decode says of choosing tokens, for as many rows; ValueError where out of range."""
        settings, tokenizer = self.experiment.config.decode, self.experiment.tokenizer
        filters = FILTERS if settings.method == "sample" else ()
        # A word is spelled otherwise at the start of a text than after a space.
        words = [tokenizer.encode(text).ids for word in settings.bad_words for text in (word, f" {word}")]
        return decode.settings(
            rows, **{name: settings[name] for name in (*filters, *PROCESSORS)},
            min_new=settings.min_new_tokens, max_new=settings.max_new_tokens,
            bad_words=[ids for index, ids in enumerate(words) if ids not in words[:index]],
            forced=tokenizer.encode(settings.prefix).ids if settings.prefix else None,
            forced_eos=tokenizer.special["eos"] if settings.forced_eos else -1, stop=list(settings.stop),
            vocabulary=self.experiment.model.config.vocabulary)

    @functools.cached_property
    def _ends(self) -> np.ndarray:
        """int32[E]: the ids that end an answer, EOS first."""
        tokenizer = self.experiment.tokenizer
        ids = [tokenizer.special["eos"], *(feature_functions.special_id(tokenizer, name)
                                           for name in self.experiment.form.ends)]
        return np.asarray(list(dict.fromkeys(ids)), np.int32)

    @functools.cached_property
    def _pieces(self) -> decode.Pieces | None:
        """The bytes of each token, where stop strings need them."""
        settings, tokenizer = self.experiment.config.decode, self.experiment.tokenizer
        return decode.pieces(decode.token_bytes(tokenizer)) if settings.stop else None

    def _answer(self, prompt: list[int], samples: list[list[int]]) -> Answer:
        """The text of one sample, or those of several."""
        tokenizer, stop = self.experiment.tokenizer, self.experiment.config.decode.stop
        texts = tuple(decode.cut(decode.continuation(tokenizer, prompt, ids), stop) for ids in samples)
        return texts if len(texts) > 1 else texts[0]

    def _keys(self, indices: list[int], rows: int, samples: int) -> jax.Array:
        """uint32[rows * samples, 2]: a record's keys depend on the seed and its number alone, not on its batch."""
        base = jax.random.key(self.experiment.config.seed)

        def one(number: jax.Array, sample: jax.Array) -> jax.Array:
            key = jax.random.fold_in(base, number)
            return jnp.where(sample > 0, jax.random.key_data(jax.random.fold_in(key, sample)), jax.random.key_data(key))

        numbers = np.asarray([*indices, *[0] * (rows - len(indices))], np.uint32)
        return jax.vmap(one)(jnp.asarray(np.repeat(numbers, samples)),
                             jnp.asarray(np.tile(np.arange(samples, dtype=np.uint32), rows)))

    def _lengths(self, batch: Batch) -> jax.Array:
        """int32[B]: tokens of each prompt, 1 for the rows that only fill the batch."""
        return self._place({"lengths": np.maximum(batch["segments"].sum(1), 1).astype(np.int32)})["lengths"]

    def _place(self, batch: Batch) -> dict[str, jax.Array]:
        rows = len(next(iter(batch.values())))
        part = rows // jax.process_count()
        mine = slice(jax.process_index() * part, (jax.process_index() + 1) * part)
        return sharding.global_batch({name: rows[mine] for name, rows in batch.items()}, self.experiment.mesh)

    def _gather(self, array: jax.Array) -> np.ndarray:
        """The whole of a batch's answers, on every process."""
        if jax.process_count() > 1:
            array = jax.jit(lambda value: value, out_shardings=sharding.replicated(self.experiment.mesh))(array)
        return np.asarray(array)
