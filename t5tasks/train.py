# SPDX-License-Identifier: Apache-2.0
"""A config in, a trained model in a workdir out; run again, it goes on where it stopped.

    python -m t5tasks.train --config=configs/translation.py --workdir=DIR [--config.NAME=VALUE ...]

Exit status: 0 finished, 1 a mistake or a failure told in one line, 75 stopped by SIGTERM or SIGINT with all
saved (the same command goes on). With --dry_run=v5p:4x4x8 nothing is trained: see rehearsal.py.
"""

import dataclasses
import math
import pathlib
import platform
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax
from absl import flags

from t5tasks import beginning, command, experiment, processes, rehearsal, resuming, sharding
from t5tasks.data import batches
from t5tasks.experiment import Experiment
from t5tasks.inference import Predictor
from t5tasks.models import placement
from t5tasks.training import optimizer as optimizers
from t5tasks.training import partition as partitions
from t5tasks.training import state as states
from t5tasks.training.checkpoint import Checkpoints
from t5tasks.training.lock import sole_writer
from t5tasks.training.loop import Hooks, NonFiniteLossError, Plan, fit
from t5tasks.training.partition import Partition
from t5tasks.training.preemption import RUN_AGAIN, StoppedError, StopRequest
from t5tasks.training.state import TrainState
from t5tasks.training.step import make_train_step
from t5tasks.training.writers import MetricsWriter, ProgressLine


def train(config: ml_collections.ConfigDict, workdir: pathlib.Path, allow_data_change: bool = False
          ) -> dict[str, float]:
    """Trains to the end and returns the last evaluation's figures; see the module for resuming.

    Args:
      allow_data_change: go on although the data, or their order, are not those that the run began with; the new
        ones are read from their beginning.

    Raises:
      ValueError: whatever does not fit, in one line, or another run writes there. NonFiniteLossError: the loss
      diverged. NotSavedError: a checkpoint could not be written. StoppedError: by a signal, with all saved.
    """
    with StopRequest() as stop, sole_writer(workdir):
        if (saved := experiment.saved_config(workdir)) is not None:  # what the workdir keeps, it keeps
            resuming.check_kept(saved, config)
        run = experiment.build(config, workdir)
        records = run.training_rows(experiment.read_records(config.data.train, run.task, run.options))
        validation = _head(experiment.read_records(config.data.validation, run.task, run.options),
                           config.train.validation_records)
        plan = make_plan(config, run, records)
        optimizer = optimizers.build(config.optimizer, plan.steps)
        with Checkpoints(workdir / "checkpoints", run.task.metric, run.task.higher_is_better) as checkpoints:
            begun = _begin(run, plan, optimizer, len(records), checkpoints, allow_data_change)
            first = int(begun.state.step)
            if first >= plan.steps and not begun.evaluate_first:
                if jax.process_index() == 0:
                    print(f"{workdir}: finished at step {first} of {plan.steps}; {_summary(begun.figures)}")
                return begun.figures
            try:
                return _run(run, records, validation, plan, optimizer, begun, checkpoints, stop)
            except StoppedError:
                checkpoints.close()
                raise StoppedError(f"{workdir}: stopped by {stop.signal or 'a signal to another process'} after step "
                                   f"{max(first, checkpoints.written)} of {plan.steps}, all saved") from None


@dataclasses.dataclass(frozen=True)
class Begun:
    """Where a run begins, or goes on from."""

    state: TrainState
    parts: Partition
    identity: dict[str, Any]
    data: list[Any] | None = None  # where the data of each part stand; None at their beginning
    figures: dict[str, float] = dataclasses.field(default_factory=dict)  # of the last evaluation
    evaluate_first: bool = False  # the run was stopped before or in the evaluation that was due


def _begin(run: Experiment, plan: Plan, optimizer: Any, records: int, checkpoints: Checkpoints,
           allow_data_change: bool) -> Begun:
    """The state of the last good checkpoint, or a first one."""
    assert run.workdir is not None
    latest, identity = checkpoints.latest(), resuming.fingerprint(run, plan, records)
    if latest is None and (aside := checkpoints.put_aside()):
        raise ValueError(f"{run.workdir / 'checkpoints'} has no whole checkpoint, only {', '.join(aside)}: the run "
                         "would begin again at step 0; put a step back from a copy, or remove them to begin again")
    if latest is None:
        state, parts = _first_state(run, optimizer)
        if parts.adapted:
            identity["base"] = partitions.identity(run.model, state.kept)
        if jax.process_index() == 0:
            experiment.save(run)
            experiment.write_json(run.workdir / "environment.json", environment())
        return Begun(state, parts, identity)
    known = checkpoints.run_of(latest)
    changes = resuming.changed(known["fingerprint"], identity, allow_data_change)
    if changes and jax.process_index() == 0:
        print(f"going on at step {latest} with other data, read from their beginning: {'; '.join(changes)}",
              file=sys.stderr)
        experiment.save(run)
    state, parts = _restored_state(run, optimizer, checkpoints, latest)
    due = latest % plan.evaluate_every == 0 or latest == plan.steps
    return Begun(state, parts, known["fingerprint"] | identity, None if changes else known["data"],
                 known.get("figures", {}), due and not known.get("evaluated"))


def _run(run: Experiment, records: Any, validation: Any, plan: Plan, optimizer: Any, begun: Begun,
         checkpoints: Checkpoints, stop: StopRequest) -> dict[str, float]:
    config, workdir, parts = run.config, run.workdir, begun.parts
    assert workdir is not None
    part = sharding.batch_part(run.mesh)
    data = iter(batches.training_batches(records, run.training_features, run.shape, config.seed, *part,
                                         config.batch.window))
    first = int(begun.state.step)
    if begun.data is not None:
        resuming.go_on(data, begun.data, part[0])
    predictor = Predictor(run, stop.pulse)
    latest_figures = dict(begun.figures)
    lead = jax.process_index() == 0
    experiment.write_json(workdir / "plan.json", dataclasses.asdict(plan))
    writer = MetricsWriter(workdir, first) if lead else None
    progress = ProgressLine(run.task.name, plan.steps, first, quiet=not lead)
    finite = jax.jit(lambda parameters: jnp.isfinite(optax.tree.norm(parameters)))

    def check(state: TrainState) -> None:
        """A finite loss and gradient can still give an update that overflows."""
        if not finite(state.parameters):
            raise NonFiniteLossError(
                f"parameters are no numbers after step {int(state.step)}: training stopped, the last checkpoint "
                "is good; lower config.optimizer.learning_rate")

    def evaluate(state: TrainState) -> dict[str, float]:
        check(state)
        parameters = parts.merge(state.parameters, state.kept)
        figures = predictor.figures(predictor.evaluate(parameters, validation),
                                    predictor.token_counts(parameters, validation))
        latest_figures.clear()
        latest_figures.update(figures)
        progress.say(f"step {int(state.step)} validation {_summary(figures, run.task.metric)}")
        return figures

    def save(state: TrainState, metrics: Mapping[str, float] | None) -> None:
        check(state)
        checkpoints.save(run.model, state, {"data": resuming.positions(data, *part), "fingerprint": begun.identity,
                                            "figures": dict(latest_figures)}, metrics, parts)

    def asked_to_stop() -> bool:
        checkpoints.check()
        return stop.reached()

    compiled = jax.jit(placement.on(run.mesh, make_train_step(
        run.model, optimizer, config.loss, config.batch.micro_batches, parts)), donate_argnums=0)

    def step(state: TrainState, batch: dict[str, jax.Array]) -> Any:
        taken = compiled(state, batch)
        stop.nothing_to_save = False
        return taken

    hooks = Hooks(place=lambda batch: sharding.global_batch(batch, run.mesh), evaluate=evaluate, save=save,
                  learning_rate=optimizers.schedule(config.optimizer, plan.steps), stop=asked_to_stop)
    with progress:
        if first:
            progress.say(f"resuming at step {first} of {plan.steps}")
        fit(begun.state, step, data, run.model.config, plan, hooks, writer, progress, begun.evaluate_first)
    if writer:
        writer.close()
    return dict(latest_figures)


def make_plan(config: ml_collections.ConfigDict, run: Experiment, records: Sequence[Any]) -> Plan:
    """Steps of the run and its intervals, zeros in the config filled in."""
    train = config.train
    rows = rows_per_epoch(run, records)  # an error where none is graded: the run would never end
    steps = train.steps or math.ceil(train.epochs * rows / config.batch.size)
    evaluate_every = train.evaluate_every or max(math.ceil(steps / 4), 1)
    return Plan(steps=steps, log_every=max(train.log_every, 1), evaluate_every=evaluate_every,
                checkpoint_every=train.checkpoint_every or evaluate_every, on_nan=train.on_nan)


def rows_per_epoch(run: Experiment, records: Sequence[Any], sample: int = 2000) -> float:
    """Rows that one pass over the records fills: records, or packed rows judged by a sample.

    Raises:
      ValueError: no record of the sample has anything graded.
    """
    indices = experiment.spread(len(records), sample)
    made = [run.training_features(records[int(index)]) for index in indices]
    kept = [features for features in made if features is not None]
    if not kept:
        raise ValueError(f"none of {len(made)} records of {run.config.data.train} has a graded token "
                         f"within batch.length {run.config.batch.length}; look with python -m t5tasks.explain")
    rows = len(records) * len(kept) / len(made)
    if not run.shape.packing:
        return rows
    filled = max(np.mean([len(f[name]) for f in kept]) / length for name, length in (
        ("tokens", run.shape.length), ("source_tokens", run.shape.source_length)) if name in kept[0])
    return rows * float(filled)


def _first_state(run: Experiment, optimizer: Any) -> tuple[TrainState, Partition]:
    base = beginning.load_pretrained(run) if run.config.pretrained else None
    lead = jax.process_index() == 0
    if base is not None and base.new and lead:
        print(f"new parameters, not in {run.config.pretrained}: {', '.join(base.new)}", file=sys.stderr)
    parts = beginning.trained_parts(run, base)
    parameters = None if base is None else base.parameters
    state = states.initialise(run.model, optimizer, run.mesh, run.config.seed, parameters, parts)
    if parts.kept and lead:
        trained, kept = (sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (state.parameters, state.kept))
        print(f"training {trained:,} parameters, {kept:,} stay as they are", file=sys.stderr)
    return state, parts


def _restored_state(run: Experiment, optimizer: Any, checkpoints: Checkpoints, step: int
                    ) -> tuple[TrainState, Partition]:
    base = None
    if run.config.lora.rank:
        base, parts = beginning.load_base(run, checkpoints.run_of(step)["fingerprint"]["base"])
    else:
        parts = beginning.trained_parts(run, None)
    shapes = states.state_shapes(run.model, optimizer, parts)
    return checkpoints.restore(run.model, shapes, run.mesh, step, parts, base and base.parameters), parts


def environment() -> dict[str, Any]:
    """Versions and devices, for the record."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "datasets", "tokenizers",
                "sentencepiece", "numpy")
    return {"python": platform.python_version(), "platform": platform.platform(),
            "devices": [device.device_kind for device in jax.devices()], "processes": jax.process_count(),
            "packages": {name: metadata.version(name) for name in packages}, "command": sys.argv}


def _head(records: Any, count: int) -> Any:
    return records.select(range(min(count, len(records)))) if count else records


def _summary(figures: Mapping[str, float], first: str = "") -> str:
    """The main figure first, then the scalar rest that people look at."""
    shown = [name for name in (first, "loss", "perplexity", "token_accuracy") if name in figures]
    return "  ".join(f"{name} {figures[name]:.4f}" for name in shown)


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    command.config_flag()
    processes.define_flags()
    flags.DEFINE_string("workdir", None, "folder of the run: config, tokenizer, checkpoints, metrics")
    flags.DEFINE_string("dry_run", "", "train nothing: compile a step for a TPU topology, such as v5p:4x4x8, and tell "
                        "what it needs (see t5tasks/rehearsal.py)")
    flags.DEFINE_bool("allow_data_change", False, "go on although the data or their order are no longer those that "
                      "the run began with")


def main(_: list[str]) -> None:
    """The verb."""
    given = flags.FLAGS
    if given.config is None or not (given.workdir or given.dry_run):
        raise ValueError("train needs --config=FILE and --workdir=DIR")
    if given.dry_run:
        rehearsal.rehearse(given.config, given.dry_run)
        return
    with processes.joined():
        try:
            train(given.config, pathlib.Path(given.workdir), given.allow_data_change)
        except StoppedError as stopped:
            if jax.process_index() == 0:
                print(f"{stopped}; the same command goes on from there", file=sys.stderr)
            sys.exit(RUN_AGAIN)


if __name__ == "__main__":
    define_flags()
    command.run(main)
