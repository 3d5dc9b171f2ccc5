# SPDX-License-Identifier: Apache-2.0
"""Optimizer settings in, an optax gradient transformation and its learning-rate schedule out."""

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import optax

from t5tasks import sharding
from t5tasks.models import stack

OPTIMIZERS = ("adamw", "adafactor", "lion", "sgd")
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
    if name == "adamw":
        inner = optax.adamw(rate, b1=settings["beta1"], b2=settings["beta2"], eps=settings["epsilon"],
                            weight_decay=decay, mask=decays)
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
