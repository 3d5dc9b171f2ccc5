# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face model folder in, a model of ours with its parameters out; and back.

    loaded = pretrained.load("folder", mesh=mesh)
    loaded.forward(input_ids=ids, attention_mask=mask)      # the logits, as the reference gives them
    loaded.model.apply(loaded.parameters, {"tokens": ids})  # the same, as the rest of the project asks
    pretrained.save("export", loaded.model, loaded.parameters, source="folder")

Each family is one module of this folder with a `FAMILY`, or several relatives with `FAMILIES` (see
`table.Family`); nobody else knows foreign names. T5's language-model head, for one, is tied in some
folders and not in others: `read_config` says what the folder at hand means.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model
from t5tasks.pretrained import families, files
from t5tasks.pretrained.export import save
from t5tasks.pretrained.families import OVERRIDES
from t5tasks.pretrained.forward import Pretrained
from t5tasks.pretrained.parameters import load_parameters

__all__ = ["OVERRIDES", "Pretrained", "load", "read_config", "save"]


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
    family = families.find(foreign, head)
    tensors = files.Tensors(folder)
    model = Model(families.config(foreign, family, tensors.names, head, classes, overrides))
    parameters, new = load_parameters(tensors, family.table, model, mesh, seed,
                                      families.is_classifier_fresh(foreign, family, model.config))
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
    return families.config(foreign, families.find(foreign, head), names, head, classes, overrides)
