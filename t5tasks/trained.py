# SPDX-License-Identifier: Apache-2.0
"""A workdir, or a config that names a pretrained folder, in; its experiment and parameters out."""

import dataclasses
import json
import pathlib
from typing import Any

import jax
import ml_collections

from t5tasks import beginning, experiment
from t5tasks.experiment import Experiment
from t5tasks.training.checkpoint import Checkpoints


@dataclasses.dataclass(frozen=True)
class Trained:
    experiment: Experiment
    parameters: Any
    step: int  # 0 for weights as they were published
    adapters: Any = None  # what was trained, where that was not all: it has been added to the parameters


def load(config: ml_collections.ConfigDict | None, workdir: pathlib.Path | None, checkpoint: str = "best"
         ) -> Trained:
    """Puts a model together to be used.

    Args:
      config: settings; None for those saved in the workdir.
      workdir: of a run; None, or one without checkpoints, for config.pretrained as it is.
      checkpoint: best or latest.

    Raises:
      ValueError: neither holds a model, or the checkpoint's model is not the config's.
    """
    config = experiment.given_or_saved(config, workdir)
    steps = workdir / "checkpoints" if workdir is not None else None
    if workdir is None or steps is None or not steps.exists():
        return _published(config, workdir)
    run = experiment.build(_as_begun(config, workdir), workdir)
    saved = json.loads((workdir / "model.json").read_text())
    with Checkpoints(steps, run.task.metric, run.task.higher_is_better, reading=True) as checkpoints:
        step = checkpoints.best() if checkpoint == "best" else checkpoints.latest()
        if step is None:
            raise ValueError(f"{steps} has no whole checkpoint yet; run python -m t5tasks.train first")
        parameters, adapters = _restored(run, checkpoints, step)
        tuned = run.task.tune(run.options, checkpoints.run_of(step).get("figures", {}))
    if difference := experiment.differing(run.model.config, saved):
        raise ValueError(f"the checkpoint of {workdir} is another model: {difference}")
    return Trained(dataclasses.replace(run, options=tuned), parameters, step, adapters)


def _as_begun(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> ml_collections.ConfigDict:
    """The config with what the checkpoints' content depends on as the workdir has it."""
    saved = experiment.saved_config(workdir)
    if saved is None:
        return config
    config = config.copy_and_resolve_references()
    config.lora.update(saved.lora)
    config.train.frozen = saved.train.frozen
    return config


def _restored(run: Experiment, checkpoints: Checkpoints, step: int) -> tuple[Any, Any]:
    """All parameters of a step, adapters added to the weights that they were trained on; and these adapters."""
    if not run.config.lora.rank:
        return checkpoints.restore_parameters(run.model, run.mesh, step), None
    base, parts = beginning.load_base(run, checkpoints.run_of(step)["fingerprint"]["base"])
    shapes = jax.eval_shape(parts.begin, *parts.split(base.parameters), jax.random.key(0))
    trained = checkpoints.restore_parameters(run.model, run.mesh, step, shapes)
    return parts.merge(trained, parts.split(base.parameters)[1]), trained


def _published(config: ml_collections.ConfigDict, workdir: pathlib.Path | None) -> Trained:
    if not config.pretrained:
        raise ValueError(f"nothing to load: {workdir} has no checkpoints and config.pretrained is empty")
    run = experiment.build(config, None)
    loaded = beginning.load_pretrained(run)
    if loaded.new:
        raise ValueError(f"{config.pretrained} has no {', '.join(loaded.new)}: the model must be trained "
                         "for this task first (python -m t5tasks.train)")
    return Trained(run, loaded.parameters, 0)
