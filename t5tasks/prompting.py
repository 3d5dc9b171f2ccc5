# SPDX-License-Identifier: Apache-2.0
"""Records come in; the prompts that a model is given, in batches over the whole mesh, go out.

Every process of a run goes through the same records in the same batches, whose rows are spread
over the whole mesh; the answers come back to each of them whole.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import numpy as np

from t5tasks import sharding
from t5tasks.data import batches
from t5tasks.data import features as feature_functions
from t5tasks.data.features import Example, Features
from t5tasks.experiment import Experiment
from t5tasks.tasks.task import Record

Batch = Features
WINDOW = 32  # batches, in which records of like length stand together


Numbered = tuple[list[Any], Batch]  # what each row answers, and the rows


class Prompts:
    """The prompts of an experiment whose answers take at most `new_tokens`."""

    def __init__(self, experiment: Experiment, new_tokens: int) -> None:
        self.experiment = experiment
        self.new_tokens = new_tokens
        self._start = jax.jit(experiment.model.start, static_argnums=(1, 2))

    @property
    def shape(self) -> batches.Shape:
        """As in evaluation, with few lengths where answers are written; a decoder's prompt leaves room for its own."""
        config = self.experiment.model.config
        shape = dataclasses.replace(self.experiment.evaluation_shape, coarse=self.new_tokens > 0)
        if config.architecture != "decoder" or config.positions not in ("learned", "sinusoidal"):
            return shape
        return dataclasses.replace(shape, length=min(shape.length, config.max_length - self.new_tokens))

    def fitted(self, record: Record) -> tuple[Record, Example]:
        """The record as it is asked, without what had to be left out, and how the form sees it."""
        return self.experiment.fitted(self.experiment.form.asked(record), self.shape.length)

    def features(self, record: Record) -> Features:
        """What the model is given of a record: tokens int32[T], and source_tokens int32[S] beside an encoder, images
        and prefix where the model sees images (`Experiment.pictures`)."""
        experiment, shape = self.experiment, self.shape
        example = self.fitted(record)[1]
        if example.source:
            source = feature_functions.tokenise(example.source, experiment.tokenizer.source, shape.source_length)
            experiment.check_ids(source.ids, "source_tokens")
            return {"source_tokens": source.ids, "tokens": np.asarray([experiment.start], np.int32)}
        pieces = feature_functions.prompt(experiment.shown(example).pieces, experiment.form.loss_mask)
        tokens = feature_functions.tokenise(pieces, experiment.tokenizer, shape.length)
        experiment.check_ids(tokens.ids, "tokens")
        return {"tokens": tokens.ids, **experiment.pictures(record, example, tokens, len(tokens.ids))}

    def cache(self, parameters: Any, rows: int, slots: int, inputs: dict[str, jax.Array] | None = None) -> Any:
        """An empty cache of `rows` rows of `slots` tokens, with the inputs' sources or images read."""
        return self._start(parameters, rows, slots) if inputs is None else self._start(parameters, rows, slots, inputs)

    def lengths(self, batch: Batch) -> jax.Array:
        """int32[B]: tokens of each prompt, 1 for the rows that only fill the batch."""
        return self.place({"lengths": np.maximum(batch["segments"].sum(1), 1).astype(np.int32)})["lengths"]

    def place(self, batch: Batch) -> dict[str, jax.Array]:
        """A batch on the mesh, of which each process has the same and puts its part."""
        return sharding.global_batch({name: self._mine(rows) for name, rows in batch.items()}, self.experiment.mesh)

    def ahead(self, numbered: Iterable[Numbered]) -> Iterator[Numbered]:
        """The same batches, whose images are read by other threads while the ones before are in use."""

        def read(item: Numbered) -> Numbered:
            if "images" in item[1]:
                self._mine(item[1]["images"])  # which is kept
            return item

        return batches.made_ahead(read, numbered, 1)

    def gather(self, array: jax.Array) -> np.ndarray:
        """The whole of a batch's answers, on every process."""
        if jax.process_count() > 1:
            array = jax.jit(lambda value: value, out_shardings=sharding.replicated(self.experiment.mesh))(array)
        return np.asarray(array)

    def _mine(self, rows: np.ndarray) -> np.ndarray:
        """The rows that this process puts on its devices."""
        chosen = sharding.part_rows(self.experiment.mesh, len(rows))
        if len(chosen) == chosen[-1] - chosen[0] + 1:
            return rows[chosen[0] : chosen[-1] + 1]
        return np.concatenate([rows[row : row + 1] for row in chosen])  # images are read by slices
