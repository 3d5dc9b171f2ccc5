# SPDX-License-Identifier: Apache-2.0
"""A config with its form, and a mesh or a model, in; one clear line for settings that do not fit together, out."""

import jax
import ml_collections

from t5tasks import sharding, sight
from t5tasks.models.config import ModelConfig
from t5tasks.tasks.task import Form


def check_batch(config: ml_collections.ConfigDict, form: Form, mesh: jax.sharding.Mesh) -> None:
    """Raises ValueError for settings of batches that the form or the mesh cannot have."""
    _check_head(config, form)
    sight.check(config)
    for name in ("size", "evaluation_size"):
        sharding.check_batch(mesh, config.batch[name], f"config.batch.{name}")


def check_model(config: ml_collections.ConfigDict, form: Form, shape: ModelConfig) -> None:
    """Raises ValueError for settings that the model cannot have."""
    _check_lengths(config, shape)
    _check_graded(config, form, shape)


def _check_head(config: ml_collections.ConfigDict, form: Form) -> None:
    if config.batch.packing and form.head != "lm":
        kind = {"cls": "[CLS]"}.get(form.head, form.head)
        raise ValueError(f"config.batch.packing is True, but a {kind} head has one answer a row; set it to False")
    if config.loss.label_smoothing and form.head == "span":
        raise ValueError(f"config.loss.label_smoothing is {config.loss.label_smoothing}, but the classes of a span "
                         "head are the positions of a text, padding included; set it to 0")


def _check_graded(config: ml_collections.ConfigDict, form: Form, shape: ModelConfig) -> None:
    """Raises ValueError for a config.loss.graded that is none, or that the form cannot have."""
    graded = config.loss.graded
    if graded not in ("answer", "all"):
        raise ValueError(f"config.loss.graded is {graded!r}; expected 'answer' or 'all'")
    if graded == "all" and (form.architecture, form.head) != ("decoder", "lm"):
        raise ValueError(f"config.loss.graded is 'all', but the {form.architecture} form of {config.task.name} has "
                         "nothing besides its answer to grade; set it to 'answer'")
    if graded == "all" and shape.vision is not None and shape.vision.prefix:
        raise ValueError("config.loss.graded is 'all', but what this model's prompt is made of sees what comes after "
                         "it (vision.prefix), which it would copy; set it to 'answer'")


def _check_lengths(config: ml_collections.ConfigDict, shape: ModelConfig) -> None:
    """Learned positions end somewhere; rotary and relative ones do not."""
    if shape.positions not in ("learned", "sinusoidal"):
        return
    if shape.head == "none":  # several texts in a row, each with positions of its own
        if config.task.length > shape.max_length:
            raise ValueError(f"config.task.length is {config.task.length}, the model has {shape.max_length} positions; "
                             "set it to at most that")
        return
    for name in ("length", "source_length"):
        read = name == "length" or shape.architecture == "encoder_decoder"
        if read and config.batch[name] > shape.max_length:
            raise ValueError(f"config.batch.{name} is {config.batch[name]}, the model has "
                             f"{shape.max_length} positions; set it to at most that")
