# SPDX-License-Identifier: Apache-2.0
"""Optimizer settings in, an optax gradient transformation and its learning-rate schedule out."""

import difflib
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax
import optax.contrib

from t5tasks import sharding
from t5tasks.models import stack

OPTIMIZERS = ("adamw", "adafactor", "lion", "muon", "sgd")
SCHEDULES = ("constant", "linear", "cosine", "inverse_sqrt")


def choose(value: str, choices: tuple[str, ...], name: str) -> str:
    """The value itself if it is one of the choices; ValueError with the nearest otherwise."""
    if value in choices:
        return value
    nearest = difflib.get_close_matches(value, choices, n=1)
    hint = f"did you mean {nearest[0]!r}? " if nearest else ""
    raise ValueError(f"{name} is {value!r}; {hint}choices are {', '.join(choices)}")


def schedule(settings: Mapping[str, Any], steps: int) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then constant, linear or cosine to
    `final_fraction` of the peak at `steps`, or peak * sqrt(warmup / step).

    Args:
      settings: learning_rate, schedule, warmup (steps, or a fraction of `steps` below 1),
        final_fraction.
      steps: length of the run.
    """
    kind = choose(settings["schedule"], SCHEDULES, "optimizer.schedule")
    peak, warmup = settings["learning_rate"], settings["warmup"]
    warmup = int(warmup * steps) if 0 < warmup < 1 else int(warmup)
    rest, final = max(steps - warmup, 1), settings["final_fraction"]
    if kind == "constant":
        after: Callable[..., Any] = optax.constant_schedule(peak)
    elif kind == "linear":
        after = optax.linear_schedule(peak, peak * final, rest)
    elif kind == "cosine":
        after = optax.cosine_decay_schedule(peak, rest, alpha=final)
    else:
        start = max(warmup, 1)
        def after(step: Any) -> Any:
            return peak * (start / (step + start)) ** 0.5
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), after], [warmup])


def decays(parameters: Any) -> Any:
    """True for the parameters that weight decay shrinks: all but norms and biases."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not re.search(r"(scale|bias)$", sharding.path_name(path)), parameters)


def matrices(parameters: Any) -> Any:
    """Which axes of a kernel are its inputs and its outputs for Muon (kellerjordan.github.io/posts/muon), which
    turns the update of each matrix into the nearest orthogonal one; None for what AdamW updates: tables, norms,
    biases and heads. An axis of layers is neither, so each layer is a matrix of its own."""

    def axes(path: Any, value: Any) -> Any:
        name, last = sharding.path_name(path), value.ndim - 1
        if not re.search(r"attention/\w+/kernel$|feed_forward/\w+/kernel$", name):
            return None
        if re.search(r"/(query|key|value)/kernel$", name):
            return optax.contrib.MuonDimensionNumbers((last - 2,), (last - 1, last))
        inputs = (last - 2, last - 1) if name.endswith("/out/kernel") else (last - 1,)
        return optax.contrib.MuonDimensionNumbers(inputs, (last,))

    return jax.tree_util.tree_map_with_path(axes, parameters)


def as_large_as_adamw(updates: Any, _: Any) -> Any:
    """Orthogonal updates times 0.2 sqrt(longer side), so that one learning rate and one weight decay serve both
    (arxiv.org/abs/2502.16982, section 2.2)."""

    def scaled(update: jax.Array, axes: Any) -> jax.Array:
        sides = (math.prod(update.shape[axis] for axis in some) for some in (axes.reduction_axis, axes.output_axis))
        return update * (0.2 * max(sides) ** 0.5)

    return jax.tree.map(scaled, updates, matrices(updates))


def by_layer(inner: optax.GradientTransformation) -> optax.GradientTransformation:
    """Shows `inner` each layer's arrays apart: Adafactor takes means over whole arrays, which must
    not run over the layers that a scanned model stacks. Its state is kept in the parameters' form."""

    def in_form_of(tree: Any, parameters: Any) -> Any:
        scanned = any("layers" in sharding.path_name(path).split("/")
                      for path, _ in jax.tree_util.tree_flatten_with_path(parameters)[0])
        return stack.stacked(tree) if scanned else tree

    def init(parameters: Any) -> Any:
        return in_form_of(inner.init(stack.unstacked(parameters)), parameters)

    def update(updates: Any, state: Any, parameters: Any = None) -> tuple[Any, Any]:
        changes, after = inner.update(*(stack.unstacked(tree) for tree in (updates, state, parameters)))
        return in_form_of(changes, parameters), in_form_of(after, parameters)

    return optax.GradientTransformation(init, update)


def build(settings: Mapping[str, Any], steps: int) -> optax.GradientTransformation:
    """Clipping, the named optimizer and its schedule, as one transformation.

    Raises:
      ValueError: an unknown optimizer or schedule, or a learning rate that is not positive.
    """
    name = choose(settings["name"], OPTIMIZERS, "optimizer.name")
    if not settings["learning_rate"] > 0:
        raise ValueError(f"optimizer.learning_rate is {settings['learning_rate']}; it must be positive")
    rate, decay = schedule(settings, steps), settings["weight_decay"]
    if name in ("adamw", "muon"):
        inner = optax.adamw(rate, b1=settings["beta1"], b2=settings["beta2"], eps=settings["epsilon"],
                            weight_decay=decay, mask=decays)
        if name == "muon":
            kernels = optax.chain(
                optax.contrib.scale_by_muon(beta=settings["beta1"], eps=settings["epsilon"],
                                            weight_dimension_numbers=matrices),
                optax.stateless(as_large_as_adamw), optax.add_decayed_weights(decay, mask=decays),
                optax.scale_by_learning_rate(rate))
            inner = optax.partition({"kernels": kernels, "rest": inner}, lambda parameters: jax.tree.map(
                lambda _, axes: "kernels" if axes else "rest", parameters, matrices(parameters)))
    elif name == "adafactor":
        inner = by_layer(optax.adafactor(rate, weight_decay_rate=decay or None, weight_decay_mask=decays))
    elif name == "lion":
        inner = optax.lion(rate, b1=settings["beta1"], b2=settings["beta2"], weight_decay=decay, mask=decays)
    else:
        inner = optax.chain(optax.add_decayed_weights(decay, mask=decays),
                            optax.sgd(rate, momentum=settings["beta1"]))
    if settings["clip_norm"]:
        return optax.chain(optax.clip_by_global_norm(settings["clip_norm"]), inner)
    return inner
