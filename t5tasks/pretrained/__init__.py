# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face model folder in, a model of ours with its parameters out.

    loaded = pretrained.load("folder", mesh=mesh)
    loaded.forward(input_ids=ids, attention_mask=mask)      # the logits, as the reference gives them
    loaded.model.apply(loaded.parameters, {"tokens": ids})  # the same, as the rest of the project asks

Each family is one module of this folder with a `FAMILY`, or several relatives with `FAMILIES` (see
`table.Family`); nobody else knows foreign names. T5's language-model head, for one, is tied in some
folders and not in others: `read_config` says what the folder at hand means.
"""

import functools
import importlib
import pathlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from t5tasks.models.config import ModelConfig, from_mapping
from t5tasks.models.model import Model
from t5tasks.pretrained import fields, files
from t5tasks.pretrained.forward import Pretrained
from t5tasks.pretrained.table import Family, load_parameters

# What may differ from the folder's own values; anything else would be another model.
OVERRIDES = ("dropout", "max_length", "compute_dtype", "layer_loop", "rematerialise",
             "initializer_range", "pooling")


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
        members = vars(importlib.import_module(f"{__name__}.{module.name}"))
        for family in members.get("FAMILIES", (members["FAMILY"],) if "FAMILY" in members else ()):
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
