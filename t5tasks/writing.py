# SPDX-License-Identifier: Apache-2.0
"""Prompts come in; the texts that a model writes after them, as config.decode has them chosen, go out."""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks import constrained, decode, drafting, sharding
from t5tasks.data import batches
from t5tasks.data import features as feature_functions
from t5tasks.data.features import Features
from t5tasks.experiment import Experiment
from t5tasks.models.prepared import FORMS as WEIGHTS
from t5tasks.prompting import WINDOW, Batch, Prompts
from t5tasks.tasks.task import Answer, Record

METHODS = ("greedy", "sample", "beam")
PROCESSORS = ("repetition_penalty", "presence_penalty", "frequency_penalty", "no_repeat_ngram")
FILTERS = ("temperature", "top_k", "top_p", "min_p", "typical_p")


@dataclasses.dataclass(frozen=True)
class Streamed:
    """An answer that is being written."""

    record: Record  # what was asked, without what had to be left out
    tokens: decode.Stream
    texts: Iterator[str]  # parts of the answer; joined, it is whole
    read: int  # tokens of the prompt that were read
    reused: int  # tokens of the prompt that the cache had


class Writer:
    """Answers by generation."""

    def __init__(self, experiment: Experiment) -> None:
        """Raises ValueError for decode settings out of range."""
        self.experiment = experiment
        self.prompts = Prompts(experiment, experiment.config.decode.max_new_tokens)
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
        self._choice = functools.cache(self._make_choice)
        self._choice(1)
        self._automaton = constrained.automaton(experiment)
        self._drafting = drafting.find(experiment)
        self.guesses = drafting.Tally() if self._drafting else None
        if settings.slots < 0:
            raise ValueError(f"config.decode.slots is {settings.slots}, expected 0 (static batches) or more")
        if self.refills:
            sharding.check_batch(experiment.mesh, settings.slots, "config.decode.slots")

    def prepared(self, parameters: Any) -> Any:
        """The parameters as decoding reads them fastest; made for each pass, so that none outlives training's own."""
        settings = self.experiment.config.decode
        rows = self.prompts.shape.size * (settings.beams if settings.method == "beam" else settings.samples)
        rows = settings.slots if self.refills else rows
        return self.experiment.model.prepared(parameters, rows, settings.weights)

    @property
    def refills(self) -> bool:
        """Whether texts are written in slots that are refilled at once (config.decode.slots).

        Beam search and constraints have no slots; several processes, or a model whose heads are spread
        over a mesh (tensor above 1), keep to static batches, where all devices know without asking what comes next.
        """
        experiment, settings = self.experiment, self.experiment.config.decode
        return (settings.slots > 0 and settings.method != "beam" and self._automaton is None
                and experiment.sight is None
                and jax.process_count() == 1 and experiment.mesh.shape["tensor"] == 1)

    def answers(self, parameters: Any, batch: Batch, indices: list[int]) -> list[Answer]:
        """Generated texts, special tokens left out."""
        experiment = self.experiment
        settings = experiment.config.decode
        rows, width = batch["tokens"].shape
        inputs = self.prompts.place(batch)
        guessed = self._drafting.tokens if self._drafting else 0
        slots = decode.capacity(width, settings.max_new_tokens + guessed, settings.prefill_chunk)
        cache = self.prompts.cache(parameters, rows, slots, inputs)
        arguments = (experiment.model.step, parameters, inputs["tokens"], self.prompts.lengths(batch), cache)
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
        written, ends_at = self.prompts.gather(tokens), self.prompts.gather(lengths)
        return [self._answer(prompt, [written[place][:ends_at[place]].tolist()
                                      for place in range(row * samples, (row + 1) * samples)])
                for row, prompt in enumerate(prompts)]

    def answers_in_slots(self, parameters: Any, records: Iterable[Record], skip: int) -> Iterator[Answer]:
        """As `answers`. The slots run empty after each window, so that the next begins alike for any `skip`."""
        experiment, window = self.experiment, WINDOW * self.experiment.config.decode.slots
        settings = experiment.config.decode
        first = skip - skip % window
        rows = ((index, self.prompts.features(record))
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

    def conversation(self, parameters: Any) -> decode.Conversation:
        """An empty dialogue with the model, for `stream`: prompts as long as in `predictions`, and their replies.

        Raises ValueError for settings whose answer is no single text that can be shown while it is written.
        """
        experiment, settings = self.experiment, self.experiment.config.decode
        if settings.method == "beam" or settings.samples > 1:
            raise ValueError(f"config.decode.method is {settings.method!r} with {settings.samples} samples; a reply "
                             "that is shown while it is written needs greedy or sample, and samples=1")
        parameters = experiment.model.prepared(parameters, 1, settings.weights)
        return decode.Conversation(
            experiment.model.step, parameters, lambda slots: self.prompts.cache(parameters, 1, slots),
            self.prompts.shape.length + self.prompts.new_tokens, **(
                {"prefill_chunk": settings.prefill_chunk} if settings.prefill_chunk else {}))

    def stream(self, conversation: decode.Conversation, record: Record, number: int = 0) -> Streamed:
        """What `predictions` gives for the record at that place among others, as it is written.

        Raises ValueError where the prompt is too long although all that may be left out is.
        """
        experiment, length = self.experiment, self.prompts.shape.length
        record, example = experiment.fitted(experiment.form.asked(record), length)
        pieces = feature_functions.prompt(experiment.shown(example).pieces, experiment.form.loss_mask)
        prompt = feature_functions.tokenise(pieces, experiment.tokenizer)
        if len(prompt.ids) > length:
            raise ValueError(f"the prompt has {len(prompt.ids)} tokens without all that may be left out of it, "
                             f"expected at most {length}; shorten it, or raise config.batch.length where the model "
                             "reads more")
        experiment.check_ids(prompt.ids, "tokens")
        ids = prompt.ids.tolist()
        options: dict[str, Any] = {"max_new_tokens": self.prompts.new_tokens, "eos": self._ends, "pad": experiment.pad,
                   "pieces": self._pieces,
                   "constraint": constrained.constraint(experiment, self._automaton, [ids], 1, 1)}
        choice, keys = self._choice(1), self._keys([number], 1, 1)
        if seen := experiment.pictures(record, example, prompt, len(ids)):
            tokens = self._shown({"tokens": prompt.ids, **seen}, conversation.params, choice, keys, options)
            read, reused = len(ids), 0
        else:
            tokens = conversation.reply(ids, choice, keys, **options)
            read, reused = conversation.prefilled, conversation.reused
        parts = decode.texts(tokens, experiment.tokenizer, [ids], experiment.config.decode.stop)
        return Streamed(record, tokens, (part for part, in parts), read, reused)

    def _shown(self, row: Features, parameters: Any, choice: decode.Settings, keys: jax.Array, options: dict[str, Any]
               ) -> decode.Stream:
        """The answer to one prompt with images, which is read whole: the next one's may be others."""
        model, chunk = self.experiment.model, self.experiment.config.decode.prefill_chunk
        inputs = {name: jnp.asarray(rows[:]) for name, rows in batches.padded([row], self.prompts.shape, 1).items()}
        slots = decode.capacity(inputs["tokens"].shape[1], self.prompts.new_tokens, chunk)
        cache = self.prompts.cache(parameters, 1, slots, inputs)
        return decode.stream(model.step, parameters, inputs["tokens"], jnp.asarray([len(row["tokens"])], jnp.int32),
                             cache, choice, keys, prefill_chunk=chunk, **options)

    def _slot_prompts(self, rows: list[tuple[int, Features]]) -> Iterator[decode.Prompt]:
        """A prompt for each sample of each record, a record's side by side."""
        shape, choice = self.prompts.shape, jax.device_get(self._choice(1))
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
        experiment, shape = self.experiment, self.prompts.shape
        inputs, widths = None, batches.ladder(shape.length)
        if shape.source_length:
            longest = np.zeros(shape.source_length, np.int32)
            inputs, widths = {"source_tokens": longest, "source_segments": longest}, [1]
        one = experiment.mesh.size == 1
        return decode.Slots(experiment.config.decode.slots, widths, self.prompts.new_tokens, inputs=inputs,
                            capacities=[widths[-1] // part + self.prompts.new_tokens for part in (4, 2)],
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
        self.guesses.add(*jax.tree.map(lambda rows: self.prompts.gather(rows)[:texts], (acceptance, generated.lengths)))
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
