# SPDX-License-Identifier: Apache-2.0
"""A train state and where its data stands in; the same, bit for bit, out of a folder later.

Each step's folder holds three items: `parameters` and `optimizer` (in the unrolled form, whatever
form the model runs in) and `run` (step, PRNG key, data position, metrics, fingerprint). `parameters`
are all of the model's, also those that are kept as they are; of a run with adapters only what is
trained. Beside them lies a manifest of all files (manifest.py).

The two latest steps and the best one are kept: the one before the latest is what a run goes on from
where the latest turns out to be damaged. Writing is asynchronous; a step counts once it is whole.
"""

import contextlib
import pathlib
import re
import shutil
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from orbax.checkpoint import checkpoint_managers as managers

from t5tasks import sharding
from t5tasks.models.model import Model
from t5tasks.training import agreement, manifest
from t5tasks.training.partition import ALL, Partition
from t5tasks.training.state import TrainState, state_shardings

KEPT = 2  # latest steps
TO_USE = ("parameters", "run", "metrics")  # what of a step is read where it is not trained on


class NotSavedError(OSError):
    """A checkpoint could not be written."""


class Checkpoints:
    """The checkpoints of one run. Close it (or use it in a `with`) so that writing ends."""

    def __init__(self, folder: pathlib.Path, metric: str = "", higher_is_better: bool = True,
                 reading: bool = False) -> None:
        """Args:
          folder: where steps lie; made if need be.
          metric: the metric by which the best step is kept; empty keeps only the latest.
          reading: nothing is written, removed or put aside, and only what is needed to use a model is verified.
        """
        worst = -np.inf if higher_is_better else np.inf

        def figure(metrics: Mapping[str, float] | None) -> float:
            value = (metrics or {}).get(metric, worst)
            return value if higher_is_better else -value

        kept: list[Any] = [managers.LatestN(KEPT)]
        if metric:
            kept.append(managers.BestN(get_metric_fn=figure, n=1, keep_checkpoints_without_metrics=False))
        self._folder, self._figure, self._reading = epath.Path(folder.absolute()), figure, reading
        self._damage: dict[int, str] = {}  # of the steps that were verified
        self.written = -1  # the step whose writing was begun last
        self._manager = ocp.CheckpointManager(
            self._folder, item_handlers={
                "parameters": ocp.StandardCheckpointHandler(), "optimizer": ocp.StandardCheckpointHandler(),
                "run": ocp.JsonCheckpointHandler()}, options=ocp.CheckpointManagerOptions(
                preservation_policy=managers.AnyPreservationPolicy(kept), best_fn=figure, best_mode="max",
                read_only=reading, create=not reading, cleanup_tmp_directories=not reading,
                async_options=ocp.AsyncOptions(barrier_sync_fn=self._meet, post_finalization_callback=self._seal)))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Waits for writing to end; NotSavedError where it failed."""
        try:
            with self._told():
                self._manager.wait_until_finished()
        finally:
            self._manager.close()

    def check(self) -> None:
        """Raises NotSavedError where the writing of a step has failed in the meantime."""
        with self._told():
            self._manager.check_for_errors()

    def latest(self) -> int | None:
        """The newest step that is whole and undamaged; what is wrong with newer ones is told."""
        with self._told():
            self._manager.wait_until_finished()
        return next((step for step in sorted(self._manager.all_steps(), reverse=True) if self._is_sound(step)), None)

    def put_aside(self) -> list[str]:
        """Names of the damaged steps that this run, or one before it, has put aside."""
        return sorted(path.name for path in self._folder.glob("damaged-*"))

    def best(self) -> int | None:
        """The undamaged step with the best metric; the latest where none was measured."""
        with self._told():
            self._manager.wait_until_finished()
        figures = {step: self._figure(metrics) for step in self._manager.all_steps()
                   if (metrics := self._metrics(step)) is not None}
        order = sorted(figures, key=lambda step: (figures[step], step), reverse=True)
        best = next((step for step in order if self._is_sound(step)), None)
        return self.latest() if best is None else best

    def save(self, model: Model, state: TrainState, run: Mapping[str, Any],
             metrics: Mapping[str, float] | None = None, partition: Partition = ALL) -> None:
        """Starts writing the state; a step that is there is written again only if it had no metrics and now has.

        Args:
          run: JSON-ready, whatever else is needed to go on (the data's position, a fingerprint).
          metrics: of the latest evaluation, if this step was evaluated.

        Raises:
          NotSavedError: this step, or the one before it, cannot be written; earlier ones are as they were.
        """
        step = int(state.step)
        if step in self._manager.all_steps():
            with self._told():
                self._manager.wait_until_finished()
            if metrics is None or self._metrics(step) is not None:
                return
            self._manager.delete(step)
        known = {**run, "step": step, "key": np.asarray(state.key).tolist(), "evaluated": metrics is not None}
        with self._told():
            self._manager.wait_until_finished()
            self.written = step
            self._damage.pop(step, None)
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

    def _meet(self, *, key: str, timeout_ms: int) -> None:
        """Where the writing threads of several processes wait for each other, as when each has written its part."""
        if "async_write_complete" in key and jax.process_index():
            manifest.write_part(self._being_written(), jax.process_index())
        ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)

    def _seal(self) -> None:
        """What process 0 does last before a step gets its name."""
        manifest.seal(self._being_written(), jax.process_count())

    def _being_written(self) -> epath.Path:
        unfinished = sorted(self._folder.glob(f"{self.written}.orbax-checkpoint-tmp*"))
        return unfinished[-1] if unfinished else self._folder / str(self.written)

    def _metrics(self, step: int) -> Mapping[str, float] | None:
        try:
            return self._manager.metrics(step)
        except (OSError, ValueError):
            return None  # damaged, as its manifest will tell

    def _is_sound(self, step: int) -> bool:
        """Verifies a step, once; tells what is wrong with it and, where this run writes, puts it aside."""
        if step not in self._damage:
            items: Collection[str] = TO_USE if self._reading else ()
            self._damage[step] = damage = agreement.first(manifest.damage(
                self._folder / str(step), items, jax.process_index(), jax.process_count()))
            if damage:
                aside = "" if self._reading else f"; put aside as {self._put_aside(step)}"
                if jax.process_index() == 0:
                    print(f"{self._folder / str(step)} is incomplete or damaged: {damage}{aside}", file=sys.stderr)
        return not self._damage[step]

    def _put_aside(self, step: int) -> epath.Path:
        """Renames a step, so that it neither counts nor stands in the way of a new one; nothing is deleted."""
        number = 1
        while (aside := self._folder / f"damaged-{step}.{number}").exists():
            number += 1
        agreement.first("")  # all have looked
        if jax.process_index() == 0:
            (self._folder / str(step)).rename(aside)
        agreement.first("")  # it is done
        self._manager.reload()
        return aside

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Makes one line of whatever goes wrong in writing."""
        try:
            yield
        except Exception as error:
            if self._reading or isinstance(error, NotSavedError):
                raise
            known = re.search(r"No space left on device|File too large|Disk quota exceeded|Read-only file system"
                              r"|Permission denied|Input/output error", str(error))
            reason = known[0] if known else f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
            whole = [step for step in self._manager.all_steps(read=True) if step != self.written]
            last = f"step {max(whole)} is whole, and the same command goes on from it" if whole else "none is whole yet"
            raise NotSavedError(f"the checkpoint of step {self.written} was not written: {reason} ({self._free()}); "
                                f"{last} once there is room") from error

    def _free(self) -> str:
        try:
            return f"{shutil.disk_usage(self._folder).free / 1e6:,.0f} MB are free in {self._folder}"
        except OSError:
            return str(self._folder)
