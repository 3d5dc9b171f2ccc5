# SPDX-License-Identifier: Apache-2.0
"""A folder's config.json in, its family and our `ModelConfig` out.

The folder of this module is the registry: each module of it with a `FAMILY`, or several relatives
with `FAMILIES`, is one (see `table.Family`).
"""

import functools
import importlib
import pathlib
import pkgutil
from collections.abc import Mapping
from typing import Any

from t5tasks.models.config import ModelConfig, from_mapping
from t5tasks.pretrained import fields
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.table import Family

# What may differ from the folder's own values; anything else would be another model.
OVERRIDES = ("dropout", "attention_dropout", "max_length", "compute_dtype", "layer_loop", "rematerialise",
             "initializer_range", "pooling")


@functools.cache
def known() -> Mapping[str, tuple[Family, ...]]:
    """model_type → families, of every module here that has one."""
    families: dict[str, tuple[Family, ...]] = {}
    package = __name__.rpartition(".")[0]
    for module in sorted(pkgutil.iter_modules([str(pathlib.Path(__file__).parent)]), key=lambda module: module.name):
        members = vars(importlib.import_module(f"{package}.{module.name}"))
        for family in members.get("FAMILIES", (members["FAMILY"],) if "FAMILY" in members else ()):
            for name in family.model_types:
                families[name] = (*families.get(name, ()), family)
    return families


def find(foreign: Foreign, head: str | None = None) -> Family:
    """The first family of the file's model_type with the head asked for; else with its architecture.

    Raises:
      ValueError: a model_type that we do not know.
    """
    families: tuple[Family, ...] = fields.choice(foreign, "model_type", "", known())
    for family in families:
        if (own_head(foreign, family) is not None) if head is None else head in family.supported:
            return family
    return families[0]


def config(foreign: Foreign, family: Family, names: tuple[str, ...] | None, head: str | None = None,
           classes: int | None = None, overrides: Mapping[str, Any] | None = None) -> ModelConfig:
    """What a folder is run with; the arguments are those of `pretrained.load`.

    Args:
      names: of the folder's tensors, None where they are not known.
    """
    values = family.config(foreign, names)
    head = own_head(foreign, family) if head is None else head
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


def own_head(foreign: Foreign, family: Family) -> str | None:
    """The head that the folder's architecture has; None where it names none that we know."""
    names = foreign.get("architectures") or ()
    return family.heads.get(names[0]) if isinstance(names, list) and len(names) == 1 else None


def is_classifier_fresh(foreign: Foreign, family: Family, config: ModelConfig) -> bool:
    """Whether the folder's classifier, if it has one, is not the one asked for."""
    if foreign.get("architectures") and own_head(foreign, family) != config.head:
        return True
    return config.head in ("cls", "token") and fields.class_count(foreign) != config.classes
