# SPDX-License-Identifier: Apache-2.0
"""Prompts come in; the probability of each of a task's labels as what follows them goes out."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from t5tasks import decode
from t5tasks.data import batches
from t5tasks.data import features as feature_functions
from t5tasks.experiment import Experiment
from t5tasks.prompting import WINDOW, Batch, Prompts
from t5tasks.tasks.task import Answer


class Scorer:
    """Answers by label scoring; `prompts` leave room for the longest label."""

    def __init__(self, experiment: Experiment) -> None:
        """Raises ValueError for settings out of range."""
        prior = experiment.config.decode.prior
        if not all(isinstance(text, str) for text in prior):
            raise ValueError(f"config.decode.prior is {tuple(prior)}, expected texts")
        self._experiment = experiment
        self._labels, self._lengths = _label_tokens(experiment)
        self.prompts = Prompts(experiment, self._labels.shape[1])

    def answers(self, parameters: Any, batch: Batch, prior: np.ndarray | None) -> list[Answer]:
        """f64[L] for each row of a batch of prompts; `prior` is what `prior` gives."""
        by_length = self._experiment.config.decode.length_normalised
        sums = self._sums(parameters, batch)
        return list(np.asarray(decode.normalise(sums, self._lengths, by_length, prior), np.float64))

    def prior(self, parameters: Any) -> np.ndarray | None:
        """f32[L]: the log of the labels' mean probability after the texts of config.decode.prior, if any.

        Each text stands in every field of a record, in the task's own prompt.
        """
        fields, texts = self._experiment.task.fields, self._experiment.config.decode.prior
        prompts = enumerate(self.prompts.features(dict.fromkeys(fields, text)) for text in texts)
        sums = [self._sums(parameters, batch)[:len(indices)] for indices, batch
                in batches.evaluation_batches(prompts, self.prompts.shape, WINDOW)]
        return None if not texts else np.asarray(np.logaddexp.reduce(np.concatenate(sums), axis=0) - np.log(len(texts)))

    def _sums(self, parameters: Any, batch: Batch) -> np.ndarray:
        """f32[B, L]: the log-probability of each label after each prompt of a batch."""
        model, prompts = self._experiment.model, self.prompts
        rows, width = batch["tokens"].shape
        chunk = self._experiment.config.decode.prefill_chunk
        cache = prompts.cache(parameters, rows, decode.capacity(width, prompts.new_tokens, chunk))
        return prompts.gather(decode.log_probabilities(
            model.step, model.score, parameters, prompts.place(batch)["tokens"], prompts.lengths(batch), cache,
            self._labels, self._lengths, prefill_chunk=chunk))


def _label_tokens(experiment: Experiment) -> tuple[jax.Array, jax.Array]:
    """int32[L, M] and int32[L]: each label's tokens after the prompt's last text."""
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
