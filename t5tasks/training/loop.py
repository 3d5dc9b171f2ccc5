# SPDX-License-Identifier: Apache-2.0
"""A state, a step function and batches in; a trained state out, with figures and saves on the way."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from t5tasks.models.config import ModelConfig
from t5tasks.models.flops import forward_flops
from t5tasks.training.peak import peak_flops
from t5tasks.training.preemption import StoppedError
from t5tasks.training.state import TrainState
from t5tasks.training.writers import MetricsWriter, ProgressLine, clock

Batch = dict[str, np.ndarray]


class NonFiniteLossError(ValueError):
    """The loss or a gradient stopped being a number."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to run and how often to do what, in steps."""

    steps: int
    log_every: int
    evaluate_every: int
    checkpoint_every: int
    on_nan: str = "stop"  # or "skip": leave the batch out and go on

    def __post_init__(self) -> None:
        if self.on_nan not in ("stop", "skip"):
            raise ValueError(f"config.train.on_nan is {self.on_nan!r}, expected stop or skip")
        if self.steps < 1:
            raise ValueError(f"the run has {self.steps} steps; set config.train.steps or epochs higher")


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What the loop calls; each gets the state as it stands."""

    place: Callable[[Batch], dict[str, jax.Array]]  # host rows → the global batch
    evaluate: Callable[[TrainState], dict[str, float]]
    save: Callable[[TrainState, Mapping[str, float] | None], None]
    learning_rate: Callable[[int], Any]
    stop: Callable[[], bool] = lambda: False  # asked after every step: whether the run ends with it for now


class Interval:
    """Sums over the steps since the last log line."""

    def __init__(self, config: ModelConfig) -> None:
        self._config = config
        self.clear()

    def clear(self) -> None:
        self._sums: dict[str, float] = {}
        self._tokens = self._flops = 0.0
        self._steps = self.finite_steps = 0
        self._start = time.perf_counter()

    def pause(self, seconds: float) -> None:
        """Leaves out time that was not training (an evaluation, a save)."""
        self._start += seconds

    def count(self, batch: Batch, parts: int) -> None:
        """Adds a batch's tokens and operations, taking the other parts of the global batch for like this one."""
        tokens, source = int((batch["segments"] > 0).sum()), 0
        length, source_length = batch["tokens"].shape[1], 0
        if "source_segments" in batch:
            source, source_length = int((batch["source_segments"] > 0).sum()), batch["source_tokens"].shape[1]
        self._tokens += parts * (tokens + source)
        self._flops += 3 * parts * forward_flops(
            self._config, tokens, length, source, source_length, *self._images(batch))
        self._steps += 1

    def _images(self, batch: Batch) -> tuple[int, tuple[int, int]]:
        """How many images stand among the tokens, and their height and width."""
        vision = self._config.vision
        if vision is None or "images" not in batch:
            return 0, (0, 0)
        height, width = batch["images"].shape[2:4]
        return int((batch["tokens"] == vision.image_token).sum()) // vision.features(height, width), (height, width)

    def add(self, sums: Mapping[str, float]) -> None:
        """Adds a step's sums, once the device has them."""
        for name in ("loss", "nll", "correct", "weight", "gradient_norm"):
            self._sums[name] = self._sums.get(name, 0.0) + float(sums[name])
        self.finite_steps += 1

    def figures(self, learning_rate: float) -> dict[str, float]:
        """Means over the interval's finite steps: loss and accuracy per graded target, speed, utilisation."""
        seconds = max(time.perf_counter() - self._start, 1e-9)
        weight = max(self._sums["weight"], 1e-9)
        figures = {
            "loss": self._sums["loss"] / weight, "nll": self._sums["nll"] / weight,
            "accuracy": self._sums["correct"] / weight,
            "gradient_norm": self._sums["gradient_norm"] / self.finite_steps, "learning_rate": learning_rate,
            "tokens_per_second": self._tokens / seconds, "seconds_per_step": seconds / self._steps,
            "flops_per_step": self._flops / self._steps}
        if peak_flops():
            figures["mfu"] = self._flops / seconds / peak_flops()
        return figures


def fit(state: TrainState, step: Callable[..., Any], batches: Iterator[Batch], config: ModelConfig,
        plan: Plan, hooks: Hooks, writer: MetricsWriter | None, progress: ProgressLine,
        evaluate_first: bool = False) -> TrainState:
    """Trains from state.step to plan.steps.

    The device is one step ahead of the host: a step's sums are read after the next has started,
    and always before an evaluation or a save, so that nothing non-finite is ever written.

    Args:
      evaluate_first: the evaluation after state.step is still to be made.

    Raises:
      NonFiniteLossError: at the first step whose loss or gradient is not a number (on_nan stop).
      StoppedError: hooks.stop or an evaluation asked for it; the state has been given to hooks.save.
    """
    interval, pending = Interval(config), []  # type: tuple[Interval, list[tuple[int, Any]]]

    def settle(leave: int) -> None:
        while len(pending) > leave:
            number, sums = pending.pop(0)
            sums = jax.device_get(sums)
            if not sums["finite"]:
                text = (f"loss {float(sums['loss']):g}, gradient norm {float(sums['gradient_norm']):g} at "
                        f"step {number}")
                if plan.on_nan == "stop":
                    raise NonFiniteLossError(
                        f"{text}: training stopped, the last checkpoint is good; lower "
                        "config.optimizer.learning_rate, or set config.train.on_nan=skip")
                progress.say(f"skipped a batch: {text}")
                continue
            interval.add(sums)

    def look(number: int, evaluate: bool) -> None:
        """Evaluates and saves; a run that is stopped meanwhile is saved as one whose evaluation is due."""
        try:
            metrics = hooks.evaluate(state) if evaluate else None
        except StoppedError:
            hooks.save(state, None)
            raise
        if metrics is not None and writer:
            writer.write(number, "validation", metrics)
        hooks.save(state, metrics)

    started, first = time.perf_counter(), int(state.step)
    if evaluate_first:
        look(first, True)
        interval.clear()
    for number in range(first + 1, plan.steps + 1):
        batch = next(batches)
        placed = hooks.place(batch)
        interval.count(batch, len(placed["tokens"]) // len(batch["tokens"]))
        state, sums = step(state, placed)
        pending.append((number, sums))
        settle(leave=1)
        last = number == plan.steps
        if number == first + 1:  # the step that compiled
            settle(leave=0)
            started = time.perf_counter()
        if number % plan.log_every == 0 or last:
            settle(leave=0)
            if interval.finite_steps:  # else all of them were skipped
                figures = interval.figures(float(hooks.learning_rate(number - 1)))
                left = (time.perf_counter() - started) / max(number - first - 1, 1) * (plan.steps - number)
                progress.update(number, _line(figures, left))
                if writer:
                    writer.write(number, "train", figures)
            interval.clear()
        evaluate, save = (last or number % every == 0 for every in (plan.evaluate_every, plan.checkpoint_every))
        stop = hooks.stop() and not last
        if evaluate or save or stop:
            settle(leave=0)
            pause = time.perf_counter()
            look(number, evaluate)
            interval.pause(time.perf_counter() - pause)
            started += time.perf_counter() - pause
        if stop:
            raise StoppedError
    return state


def _line(figures: Mapping[str, float], left: float) -> str:
    mfu = f" mfu {100 * figures['mfu']:.0f}%" if "mfu" in figures else ""
    return (f"loss {figures['loss']:.4f} lr {figures['learning_rate']:.2e} "
            f"{figures['tokens_per_second']:,.0f} tokens/s{mfu} left {clock(left)}")
