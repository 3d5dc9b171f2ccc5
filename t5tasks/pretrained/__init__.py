# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face model folder in, a model of ours with its parameters out.

    loaded = pretrained.load("folder", mesh=mesh)
    loaded.forward(input_ids=ids, attention_mask=mask)      # the logits, as the reference gives them
    loaded.model.apply(loaded.parameters, {"tokens": ids})  # the same, as the rest of the project asks

Each family is one module of this folder with a `FAMILY` (see `table.Family`); nobody else knows
foreign names. T5's language-model head, for one, is tied in some folders and not in others:
`read_config` says what the folder at hand means.
"""

import dataclasses
import functools
import importlib
import pathlib
import pkgutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from t5tasks.models.config import ModelConfig, from_mapping
from t5tasks.models.model import Model, Parameters
from t5tasks.pretrained import fields, files
from t5tasks.pretrained.table import Family, load_parameters

# What may differ from the folder's own values; anything else would be another model.
OVERRIDES = ("dropout", "max_length", "compute_dtype", "layer_loop", "rematerialise",
             "initializer_range", "pooling")

# The reference's names of inputs → ours, for each architecture.
INPUTS = {
    "encoder": {"input_ids": "tokens", "attention_mask": "segments", "token_type_ids": "token_types",
                "position_ids": "positions"},
    "decoder": {"input_ids": "tokens", "attention_mask": "segments", "position_ids": "positions"},
    "encoder_decoder": {"input_ids": "source_tokens", "attention_mask": "source_segments",
                        "decoder_input_ids": "tokens", "decoder_attention_mask": "segments"},
}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """A checkpoint as this project runs it."""

    model: Model
    parameters: Parameters
    tokenizer_folder: pathlib.Path
    new: tuple[str, ...]  # parameters that the folder lacks: they begin fresh
    padding: int | None = None  # the token id that takes no position (RoBERTa)

    def forward(self, **inputs: np.ndarray) -> np.ndarray:
        """What the reference's plain forward pass returns for the same inputs.

        Positions count padding on the left, as there, save where the family skips its token.

        Args:
          **inputs: integers[B, T] under the reference's names, those of INPUTS that the model has
            a use for; all but the token ids may be left out. An encoder-decoder's input_ids and
            attention_mask are [B, S].

        Returns:
          f32: language model [B, T, V], classifier [B, C], token classifier [B, T, C], question
          answering [2, B, T] (start logits, end logits), bare model [B, T, D].

        Raises:
          ValueError: unknown, missing, misshapen or out-of-range inputs.
        """
        ours = _inputs(self.model.config, inputs)
        if self.padding is not None and "positions" not in ours:
            real = ours["tokens"] != self.padding
            ours["positions"] = np.where(real, np.cumsum(real, axis=1) - 1, -1).astype(np.int32)
        logits = np.asarray(_forward(self.model, self.parameters, ours), np.float32)
        return np.moveaxis(logits, 1, 0) if self.model.config.head == "span" else logits


def load(
    folder: str | pathlib.Path, head: str | None = None, classes: int | None = None,
    mesh: Mesh | None = None, overrides: Mapping[str, Any] | None = None, seed: int = 0,
) -> Pretrained:
    """Reads a folder of config.json, safetensors and tokenizer files.

    Args:
      head: one of models.config.HEADS; by default the one that the architecture named in
        config.json has. A head that the folder lacks begins fresh, and is named in `new`.
      classes: C of a cls or token head, by default as config.json says; where it differs from the
        folder's, the classifier begins fresh.
      mesh: where the parameters go, by the rules of t5tasks.sharding; None: the default device.
      overrides: ModelConfig values to run it with, of those in OVERRIDES.
      seed: of the parameters that begin fresh.

    Raises:
      ValueError: a folder, a field, a tensor or a wish that cannot be honoured, by name.
    """
    folder = pathlib.Path(folder)
    foreign = files.read_config(folder)
    family = _family(foreign)
    tensors = files.Tensors(folder)
    model = Model(_config(foreign, family, tensors.names, head, classes, overrides))
    parameters, new = load_parameters(tensors, family.table, model, mesh, seed,
                                      _is_classifier_fresh(foreign, family, model.config))
    padding = family.padding(foreign) if family.padding else None
    return Pretrained(model, parameters, folder, new, padding)


def read_config(
    folder: str | pathlib.Path, head: str | None = None, classes: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ModelConfig:
    """The configuration that `load` would run the folder with; weights may be absent."""
    folder = pathlib.Path(folder)
    foreign = files.read_config(folder)
    has_weights = (folder / files.WEIGHTS).exists() or (folder / files.INDEX).exists()
    names = files.Tensors(folder).names if has_weights else None
    return _config(foreign, _family(foreign), names, head, classes, overrides)


@functools.cache
def _families() -> Mapping[str, Family]:
    """model_type → family, of every module here that has one."""
    families: dict[str, Family] = {}
    for module in sorted(pkgutil.iter_modules(__path__), key=lambda module: module.name):
        family = getattr(importlib.import_module(f"{__name__}.{module.name}"), "FAMILY", None)
        if family is not None:
            families |= dict.fromkeys(family.model_types, family)
    return families


def _family(foreign: fields.Foreign) -> Family:
    return fields.choice(foreign, "model_type", "", _families())


def _config(foreign: fields.Foreign, family: Family, names: tuple[str, ...] | None,
            head: str | None, classes: int | None, overrides: Mapping[str, Any] | None
            ) -> ModelConfig:
    values = family.config(foreign, names)
    head = _own_head(foreign, family) if head is None else head
    if head is None or head not in family.supported:
        asked = f"head is {head!r}" if head else f"architectures is {foreign.get('architectures')!r}"
        raise ValueError(f"{asked}, which does not load from a {foreign['model_type']} folder; ask for "
                         f"head={' or '.join(map(repr, family.supported))}")
    values |= {"head": head, **family.supported[head]}
    if head in ("cls", "token"):
        values["classes"] = fields.class_count(foreign) if classes is None else classes
    elif classes is not None:
        raise ValueError(f"classes is {classes}, but a {head} head has none; leave it out")
    values |= _checked_overrides(values, overrides or {})
    if head == "cls" and values.get("pooling") == "mean":
        values["pooler"] = "none"
    return from_mapping(values)


def _checked_overrides(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    for name in overrides:
        if name not in OVERRIDES:
            raise ValueError(f"model.{name} comes from the checkpoint and cannot be set; what can: "
                             f"{', '.join(OVERRIDES)}")
    longest = overrides.get("max_length", 0)
    if values["positions"] != "relative" and longest > values["max_length"]:
        raise ValueError(f"model.max_length is {longest}, but the checkpoint has positions for "
                         f"{values['max_length']} tokens; use at most that")
    return dict(overrides)


def _own_head(foreign: fields.Foreign, family: Family) -> str | None:
    """The head that the folder's architecture has; None where it names none that we know."""
    names = foreign.get("architectures") or ()
    return family.heads.get(names[0]) if isinstance(names, list) and len(names) == 1 else None


def _is_classifier_fresh(foreign: fields.Foreign, family: Family, config: ModelConfig) -> bool:
    """Whether the folder's classifier, if it has one, is not the one asked for."""
    if foreign.get("architectures") and _own_head(foreign, family) != config.head:
        return True
    return config.head in ("cls", "token") and fields.class_count(foreign) != config.classes


@functools.partial(jax.jit, static_argnums=0)
def _forward(model: Model, parameters: Parameters, inputs: dict[str, jax.Array]) -> jax.Array:
    # A span head is not told of the padding: the reference does not mask its logits.
    known = None if model.config.head == "span" else inputs
    return model.logits(parameters, model.hidden(parameters, inputs), known)


def _inputs(config: ModelConfig, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The reference's inputs under our names, as int32, checked: on a device indexing is silent."""
    absent = {"token_types"} if not config.token_types else set()
    absent |= {"positions"} if config.positions == "relative" else set()
    names = {theirs: ours for theirs, ours in INPUTS[config.architecture].items()
             if ours not in absent}
    limits = {"tokens": config.vocabulary, "source_tokens": config.vocabulary,
              "token_types": config.token_types, "segments": 2, "source_segments": 2,
              "positions": config.max_length}
    ours = {}
    for name, array in given.items():
        if name not in names:
            raise ValueError(f"unknown input {name!r}; this model takes {', '.join(names)}")
        array = np.asarray(array)
        if array.ndim != 2 or array.dtype.kind not in "iub" or not array.size:
            raise ValueError(f"{name} is {array.dtype}{list(array.shape)}; expected integers of two "
                             "dimensions, examples and tokens")
        limit = limits[names[name]]
        if array.min() < 0 or array.max() >= limit:
            raise ValueError(f"{name} has values from {array.min()} to {array.max()}; expected 0 to "
                             f"{limit - 1}")
        ours[names[name]] = array.astype(np.int32)
    _check_shapes(config, names, ours)
    return ours


def _check_shapes(config: ModelConfig, names: Mapping[str, str], ours: Mapping[str, np.ndarray]
                  ) -> None:
    theirs = {our: their for their, our in names.items()}
    for tokens in ("tokens", "source_tokens"):
        if tokens in theirs and tokens not in ours:
            raise ValueError(f"the input {theirs[tokens]} is missing")
    for name, array in ours.items():
        tokens = "source_tokens" if name.startswith("source_") else "tokens"
        if array.shape != ours[tokens].shape:
            raise ValueError(f"{theirs[name]} is {list(array.shape)}, but {theirs[tokens]} is "
                             f"{list(ours[tokens].shape)}; expected the same shape")
        if array.shape[1] > config.max_length and config.positions in ("learned", "sinusoidal"):
            raise ValueError(f"{theirs[name]} is {array.shape[1]} tokens long; the model has positions "
                             f"for {config.max_length}")
        if array.shape[0] != ours["tokens"].shape[0]:
            raise ValueError(f"{theirs[name]} has {array.shape[0]} examples, {theirs['tokens']} "
                             f"{ours['tokens'].shape[0]}")
