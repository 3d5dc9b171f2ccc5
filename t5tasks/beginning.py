# SPDX-License-Identifier: Apache-2.0
"""An experiment in; the pretrained weights that it begins from, and what of the model it trains, out."""

import dataclasses

from t5tasks import experiment, pretrained
from t5tasks.experiment import Experiment
from t5tasks.models.adapters import Lora
from t5tasks.pretrained.resizing import resize
from t5tasks.training import partition as partitions
from t5tasks.training.partition import Partition


def load_pretrained(run: Experiment) -> pretrained.Pretrained:
    """The pretrained folder's weights on the experiment's mesh, under its head and with rows for all
    its tokens.

    Raises:
      ValueError: the folder cannot be read, or is not the one that the workdir began from.
    """
    config, shape = run.config, run.model.config
    overrides = {name: getattr(shape, name) for name in (*experiment.RUNNING, *experiment.HEAD)}
    loaded = pretrained.load(experiment.pretrained_folder(config), head=run.form.head,
                             classes=shape.classes if shape.head in ("cls", "token") else None, mesh=run.mesh,
                             overrides=overrides, seed=config.seed)
    loaded = resize(loaded, shape.vocabulary, config.seed)
    if loaded.model != run.model:
        raise ValueError(f"{config.pretrained} is another model than the one that {run.workdir} began from: "
                         f"{experiment.differing(shape, dataclasses.asdict(loaded.model.config))}")
    return loaded


def trained_parts(run: Experiment, base: pretrained.Pretrained | None) -> Partition:
    """What config.train.frozen and config.lora leave to be trained of the model.

    Args:
      base: the pretrained weights; with adapters, what is new in them is trained in full.
    """
    fresh = [name.partition("[")[0] for name in base.new] if base is not None else ()
    return partitions.partition(run.model, run.config.train.frozen, Lora(**run.config.lora), fresh)


def load_base(run: Experiment, identity: str) -> tuple[pretrained.Pretrained, Partition]:
    """The weights that the adapters of the workdir are added to, and what is trained of them.

    Raises:
      ValueError: config.pretrained cannot be read, or has other weights than when the run began.
    """
    try:
        base = load_pretrained(run)
    except ValueError as error:
        raise ValueError(f"the checkpoints of {run.workdir} hold adapters alone, which need the weights of "
                         f"config.pretrained: {error}") from error
    parts = trained_parts(run, base)
    if partitions.identity(run.model, parts.split(base.parameters)[1]) != identity:
        raise ValueError(f"{run.config.pretrained} has other weights than those that the adapters of {run.workdir} "
                         "were trained on; give config.pretrained the folder with the same ones")
    return base, parts
