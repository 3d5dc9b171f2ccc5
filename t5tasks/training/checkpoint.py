# SPDX-License-Identifier: Apache-2.0
"""A train state and where its data stands in; the same, bit for bit, out of a folder later.

Each step's folder holds three items: `parameters` and `optimizer` (in the unrolled form, whatever
form the model runs in) and `run` (step, PRNG key, data position, metrics, fingerprint). `parameters`
are all of the model's, also those that are kept as they are; of a run with adapters only what is
trained. The latest and the best step are kept. Writing is asynchronous; a step counts once it is whole.
"""

import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as managers

from t5tasks import sharding
from t5tasks.models.model import Model
from t5tasks.training.partition import ALL, Partition
from t5tasks.training.state import TrainState, state_shardings


class Checkpoints:
    """The checkpoints of one run. Close it (or use it in a `with`) so that writing ends."""

    def __init__(self, folder: pathlib.Path, metric: str = "", higher_is_better: bool = True) -> None:
        """Args:
          folder: where steps lie; made if need be.
          metric: the metric by which the best step is kept; empty keeps only the latest.
        """
        worst = -np.inf if higher_is_better else np.inf

        def figure(metrics: Mapping[str, float] | None) -> float:
            value = (metrics or {}).get(metric, worst)
            return value if higher_is_better else -value

        kept: list[Any] = [managers.LatestN(1)]
        if metric:
            kept.append(managers.BestN(get_metric_fn=figure, n=1, keep_checkpoints_without_metrics=False))
        self._manager = ocp.CheckpointManager(
            folder.absolute(), item_handlers={
                "parameters": ocp.StandardCheckpointHandler(), "optimizer": ocp.StandardCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler()}, options=ocp.CheckpointManagerOptions(
                preservation_policy=managers.AnyPreservationPolicy(kept), best_fn=figure, best_mode="max"))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Waits for writing to end."""
        self._manager.wait_until_finished()
        self._manager.close()

    def latest(self) -> int | None:
        """The newest whole step."""
        return self._manager.latest_step()

    def best(self) -> int | None:
        """The step with the best metric; the latest where none was measured."""
        step = self._manager.best_step()
        return self._manager.latest_step() if step is None else step

    def save(self, model: Model, state: TrainState, run: Mapping[str, Any],
             metrics: Mapping[str, float] | None = None, partition: Partition = ALL) -> None:
        """Starts writing the state.

        Args:
          run: JSON-ready, whatever else is needed to go on (the data's position, a fingerprint).
          metrics: of the latest evaluation, if this step was evaluated.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            return
        known = {**run, "step": step, "key": np.asarray(state.key).tolist()}
        self._manager.save(step, args=ocp.args.Composite(
            parameters=ocp.args.StandardSave(model.unrolled_form(
                partition.stored(state.parameters, state.kept))),
            optimizer=ocp.args.StandardSave(model.unrolled_form(state.optimizer)),
            run=ocp.args.JsonSave(known)), metrics=dict(metrics) if metrics else None)

    def run_of(self, step: int) -> dict[str, Any]:
        """What `save` was given as `run`, with step and key."""
        return self._manager.restore(step, args=ocp.args.Composite(run=ocp.args.JsonRestore()))["run"]

    def restore(self, model: Model, shapes: TrainState, mesh: jax.sharding.Mesh, step: int,
                partition: Partition = ALL, base: Any = None) -> TrainState:
        """The state of a step, each leaf straight on its shards.

        Args:
          base: with adapters, the parameters that the run began from; they are not copied.

        Raises:
          ValueError: the checkpoint has other parameters; the first that differs is named.
        """
        run, shardings = self.run_of(step), state_shardings(shapes, mesh)
        stored = jax.eval_shape(partition.stored, shapes.parameters, shapes.kept)
        trained, kept = partition.restored(self.restore_parameters(model, mesh, step, stored), base)
        unrolled = model.unrolled_form_shapes(shapes.optimizer)
        placed = sharding.optimizer_shardings(unrolled, model.unrolled_form_shapes(shapes.parameters), mesh)
        moments = self._restore_item(step, "optimizer", unrolled, placed)
        place = jax.jit(lambda tree: jax.tree.map(jnp.asarray, tree), out_shardings=sharding.replicated(mesh))
        return TrainState(
            step=place(np.int32(run["step"])), key=place(np.asarray(run["key"], np.uint32)),
            parameters=trained, kept=kept, optimizer=jax.device_put(model.running_form(moments), shardings.optimizer))

    def restore_parameters(self, model: Model, mesh: jax.sharding.Mesh, step: int, shapes: Any = None) -> Any:
        """Only the parameters of a step, in the form the model runs on.

        Args:
          shapes: of what the checkpoint should hold; by default all parameters of the model.
        """
        shapes = jax.eval_shape(model.init, jax.random.key(0)) if shapes is None else shapes
        unrolled = model.unrolled_form_shapes(shapes)
        self._check(step, unrolled)
        tree = self._restore_item(step, "parameters", unrolled, sharding.parameter_shardings(unrolled, mesh))
        return jax.device_put(model.running_form(tree), sharding.parameter_shardings(shapes, mesh))

    def _restore_item(self, step: int, name: str, shapes: Any, placed: Any) -> Any:
        targets = jax.tree.map(
            lambda shape, place: jax.ShapeDtypeStruct(shape.shape, shape.dtype, sharding=place), shapes, placed)
        return self._manager.restore(step, args=ocp.args.Composite(
            **{name: ocp.args.StandardRestore(targets)}))[name]

    def _check(self, step: int, expected: Any) -> None:
        """Compares names, shapes and dtypes: orbax would cast, and pad what does not fit."""
        stored = sharding.flat(self._manager.item_metadata(step)["parameters"].tree)
        wanted = sharding.flat(expected)
        for path in sorted({*wanted, *stored}):
            here, there = wanted.get(path), stored.get(path)
            if here is not None and there is not None and here.shape == tuple(there.shape) \
                    and here.dtype == there.dtype:
                continue
            def describe(leaf: Any) -> str:
                return "no such parameter" if leaf is None else f"{leaf.dtype}{list(leaf.shape)}"
            raise ValueError(f"the checkpoint at step {step} does not fit the config: parameter {path} is "
                             f"{describe(there)} in the checkpoint, {describe(here)} in the config")
