# SPDX-License-Identifier: Apache-2.0
"""A config and a TPU topology's name in; whether a step compiles and fits there, and how fast it could be, out.

    python -m t5tasks.train --config=configs/pods/text_generation_llama3_8b.py --dry_run=v5p:4x4x4

No TPU is needed, nor data (but where labels are to be found in them), nor weights: of config.pretrained, config.json is
read. What compiles is the program that `train` would run on full batches, with the compiler that would compile it.

The time is a roofline's: the largest of what arithmetic, memory and links between neighbours take, each at the data
sheet's rate; and, if nothing of it overlapped, their sum. A run lies between the two, or above where it waits for
something else. Links between slices are not counted.
"""

import dataclasses
import re
import sys
import time
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
from jax import ShapeDtypeStruct as Spec
from jax.sharding import Mesh

from t5tasks import experiment, fitting, pretrained, sharding, tasks
from t5tasks.data import tokenizer as tokenizers
from t5tasks.models import placement, stack
from t5tasks.models.adapters import Lora
from t5tasks.models.config import ModelConfig
from t5tasks.models.flops import forward_flops
from t5tasks.models.model import Model
from t5tasks.tasks.task import Form
from t5tasks.training import optimizer as optimizers
from t5tasks.training import partition as partitions
from t5tasks.training import program, topology
from t5tasks.training import state as states
from t5tasks.training.step import make_train_step
from t5tasks.training.topology import GIB, Topology

MOST_DOUBLINGS = 8


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is compiled."""

    config: ml_collections.ConfigDict
    form: Form
    model: Model
    mesh: Mesh
    place: Topology


@dataclasses.dataclass(frozen=True)
class Compiled:
    """A program for one batch size. Sizes are bytes on each device; `needed` also where it does not fit."""

    rows: int
    seconds: float
    needed: float
    fits: bool
    arguments: float = 0.0  # the state and the batch, which lie there all the time
    traffic: program.Traffic | None = None


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Seconds a step takes at the least, by what takes them, and operations of the whole step."""

    arithmetic: float
    memory: float
    links: float
    flops: float  # of the model's mathematics, see models/flops.py
    done: float  # with what is computed twice (rematerialise)

    @property
    def seconds(self) -> float:
        """Where all overlaps."""
        return max(self.arithmetic, self.memory, self.links)

    @property
    def seconds_apart(self) -> float:
        """Where nothing does."""
        return self.arithmetic + self.memory + self.links


def rehearse(config: ml_collections.ConfigDict, name: str) -> None:
    """Prints the report.

    Raises:
      ValueError: settings or a topology that do not fit together, or a step that does not fit into memory.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_enable_compilation_cache", False)  # programs for machines that are not there
    plan = make_plan(config, topology.find(name))
    for line in described(plan):
        print(line, flush=True)
    first = compiled(plan, config.batch.size)
    for line in report(plan, first):
        print(line, flush=True)
    largest = largest_batch(plan, first)
    if largest is None:
        least = smallest(plan)
        raise ValueError(f"not even config.batch.size={least} fits into {name}; use more chips, a larger mesh.fsdp or "
                         "mesh.tensor, config.model.rematerialise=full or an optimizer with a smaller state")
    kept = f", {largest.needed / GIB:.1f} of {plan.place.chip.memory / GIB:.1f} GiB"
    print(f"largest batch that fits    {largest.rows:,} rows of those tried{kept}")
    if not first.fits:
        raise ValueError(f"config.batch.size={first.rows} does not fit into {name}; {largest.rows} does")


def make_plan(config: ml_collections.ConfigDict, place: Topology) -> Plan:
    """What would be trained there, and how it would lie on the devices; ValueError as `experiment.build`."""
    task = tasks.get(config.task.name, config.task)
    form = task.form(config.architecture)
    options = experiment.known_options(config, None)
    options = task.resolve(options, lambda: experiment.read_records(config.data.train, task, options))
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor, place.devices)
    fitting.check_batch(config, form, mesh)
    if form.head == "none":
        raise ValueError(f"a dry run of {task.name} is not there yet: its batches hold several texts a row")
    shape = _shape(config, form, experiment.class_count(form, options))
    fitting.check_model(config, form, shape)
    return Plan(config, form, Model(shape), mesh, place)


def _shape(config: ml_collections.ConfigDict, form: Form, classes: int | None) -> ModelConfig:
    """The model as it would run on a TPU."""
    vocabulary = config.tokenizer.size
    if config.tokenizer.path:
        vocabulary = tokenizers.load(config.tokenizer.path).vocabulary_size
    if config.pretrained:
        shape = pretrained.read_config(experiment.pretrained_folder(config), head=form.head, classes=classes,
                                       overrides=experiment.running_settings(config))
        shape = dataclasses.replace(shape, vocabulary=max(shape.vocabulary, vocabulary * bool(config.tokenizer.path)))
    else:
        shape = experiment.sized_model(config, form, classes, vocabulary, vocabulary - 1)
    # What "auto" would be there; here the backend is a CPU.
    dtype = "bfloat16" if shape.compute_dtype == "auto" else shape.compute_dtype
    shape = dataclasses.replace(shape, compute_dtype=dtype)
    if shape.layer_loop == "auto":
        differ = partitions.layers_differ(Model(shape), config.train.frozen, Lora(**config.lora))
        scans = stack.scans_where_fast(shape) and not differ
        shape = dataclasses.replace(shape, layer_loop="scan" if scans else "unroll")
    return shape


def batch_specs(plan: Plan, rows: int) -> dict[str, Spec]:
    """The shapes, dtypes and places of a full batch with so many rows, as `data.batches` makes them."""
    batch, shape, head = plan.config.batch, plan.model.config, plan.form.head
    sharding_ = sharding.batch_sharding(plan.mesh)
    sides = {"": batch.length}
    if plan.form.architecture == "encoder_decoder":
        sides["source_"] = batch.source_length
    found: dict[str, tuple[tuple[int, ...], Any]] = {}
    for side, length in sides.items():
        for name in ("tokens", "segments", *(("positions",) if batch.packing else ())):
            found[side + name] = ((rows, length), jnp.int32)
    if shape.token_types and plan.form.architecture == "encoder":
        found["token_types"] = ((rows, batch.length), jnp.int32)
    by_head: dict[str, tuple[int, ...]] = {"cls": (rows,), "span": (rows, 2)}
    targets = by_head.get(head, (rows, batch.length))
    found |= {"targets": (targets, jnp.int32), "weights": (targets, jnp.float32)}
    if shape.vision is not None and (patches := shape.vision.tower.patches) is not None:
        pixels = patches.image_size
        found["images"] = ((rows, 1, pixels, pixels, patches.channels), jnp.float32)
        if shape.vision.prefix:
            found["prefix"] = ((rows, batch.length), jnp.bool_)
    return {name: Spec(size, dtype, sharding=sharding_) for name, (size, dtype) in found.items()}


def state_specs(plan: Plan) -> tuple[Any, Any, partitions.Partition]:
    """The shapes and places of a training state, its optimizer, and what of the model is trained."""
    config, model = plan.config, plan.model
    paths = sharding.flat(model.unrolled_form_shapes(jax.eval_shape(model.init, jax.random.key(0))))
    fresh = [path for path in paths if path.startswith("head/")] if model.config.head != "lm" else []
    parts = partitions.partition(model, config.train.frozen, Lora(**config.lora), fresh)
    optimizer = optimizers.build(config.optimizer, max(config.train.steps, 1))
    shapes = states.state_shapes(model, optimizer, parts)
    placed = jax.tree.map(lambda leaf, place: Spec(leaf.shape, leaf.dtype, sharding=place),
                          shapes, states.state_shardings(shapes, plan.mesh))
    return placed, optimizer, parts


def compiled(plan: Plan, rows: int) -> Compiled:
    """Compiles a training step on batches of so many rows."""
    config = plan.config
    state, optimizer, parts = state_specs(plan)
    step = placement.on(plan.mesh, make_train_step(
        plan.model, optimizer, config.loss, config.batch.micro_batches, parts))
    started = time.perf_counter()
    lowered = jax.jit(step, donate_argnums=0).lower(state, batch_specs(plan, rows))
    try:
        made = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        return Compiled(rows, time.perf_counter() - started, _wanted(str(error)), False)
    seconds, sizes, text = time.perf_counter() - started, made.memory_analysis(), made.as_text()
    assert sizes is not None and text is not None
    needed = sizes.peak_memory_in_bytes + sizes.generated_code_size_in_bytes
    return Compiled(rows, seconds, needed, True, sizes.argument_size_in_bytes,
                    program.traffic(text, len(plan.place.devices)))


def _wanted(error: str) -> float:
    """Bytes that a program which did not fit asked for; 0 where the compiler does not say."""
    found = re.search(r"(?:Used|required[^(]*\() ?([\d.]+)([GMK])", error)
    return float(found[1]) * {"G": GIB, "M": 2**20, "K": 2**10}[found[2]] if found else 0.0


def estimate(plan: Plan, made: Compiled) -> Estimate:
    """The roofline of a step, see the module."""
    assert made.traffic is not None
    config, chip, devices = plan.model.config, plan.place.chip, len(plan.place.devices)
    batch = plan.config.batch
    source = batch.source_length if config.architecture == "encoder_decoder" else 0
    images, size = 0, (0, 0)
    if config.vision is not None and (patches := config.vision.tower.patches) is not None:
        images, size = made.rows, (patches.image_size, patches.image_size)
    forward = forward_flops(config, made.rows * batch.length, batch.length, made.rows * source, source, images, size)
    done = forward * (4 if config.rematerialise == "full" else 3)
    return Estimate(done / devices / chip.flops, made.traffic.memory / chip.bandwidth,
                    made.traffic.sent / (2 * chip.link), 3 * forward, done)


def largest_batch(plan: Plan, first: Compiled) -> Compiled | None:
    """The most rows of those that doubling, or halving, comes to; None where not even the fewest fit."""
    best = first if first.fits else None
    for rows in _sizes(plan, first):
        print(f"trying {rows:,} rows", file=sys.stderr, flush=True)
        made = compiled(plan, rows)
        if made.fits:
            best = made
        if made.fits != first.fits:
            break
    return best


def smallest(plan: Plan) -> int:
    """The fewest rows that the mesh and micro-batches can share."""
    return plan.mesh.shape["data"] * plan.mesh.shape["fsdp"] * plan.config.batch.micro_batches


def _sizes(plan: Plan, first: Compiled) -> Iterator[int]:
    rows = first.rows
    for _ in range(MOST_DOUBLINGS):
        rows = rows * 2 if first.fits else rows // 2
        if rows % smallest(plan):
            return
        yield rows


def described(plan: Plan) -> list[str]:
    """What is about to be compiled, as lines."""
    shape, batch, sizes = plan.model.config, plan.config.batch, plan.mesh.shape
    parameters = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(plan.model.init, jax.random.key(0))))
    two_sided = plan.form.architecture == "encoder_decoder"
    length = f"{batch.source_length} + {batch.length}" if two_sided else batch.length
    return [f"{plan.place.name:<27}{len(plan.place.devices)} devices of kind {plan.place.chip.kind}, "
            f"mesh data {sizes['data']} x fsdp {sizes['fsdp']} x tensor {sizes['tensor']}",
            f"model                      {shape.architecture}, {parameters:,} parameters, {shape.compute_dtype}, "
            f"{'scanned' if shape.layer_loop == 'scan' else 'unrolled'} layers, rematerialise {shape.rematerialise}, "
            f"{plan.config.optimizer.name}",
            f"batch                      {batch.size:,} rows of {length} tokens in {batch.micro_batches} parts"]


def report(plan: Plan, made: Compiled) -> list[str]:
    """What compiling has shown, as lines."""
    memory = plan.place.chip.memory
    used = f"{made.needed / GIB:.1f} of {memory / GIB:.1f} GiB"
    if made.traffic is None:
        return [f"compiles                   no: it would need {used} on each device ({made.seconds:.0f} s)"]
    found, chips = estimate(plan, made), len(plan.place.devices) * plan.place.chip.flops
    lines = [f"compiles                   yes, in {made.seconds:.0f} s",
             f"memory of each device      {used}, {100 * made.needed / memory:.0f} %: state and batch "
             f"{made.arguments / GIB:.1f}, the rest while it computes",
             f"operations                 {found.flops:.3g} a step, {found.done:.3g} with what is computed twice"]
    for opcode, (count, size, sent) in sorted(made.traffic.collectives.items()):
        lines.append(f"{opcode:<27}{count:,} times, {size / GIB:.2f} GiB on each device, which sends {sent / GIB:.2f}")
    lines += [
        f"step time, by roofline     {found.seconds:.3f} s if all overlaps, {found.seconds_apart:.3f} s if nothing "
        f"does: arithmetic {found.arithmetic:.3f}, memory {found.memory:.3f}, links {found.links:.3f}",
        f"MFU, by roofline           {100 * found.flops / found.seconds / chips:.0f} %, "
        f"{100 * found.flops / found.seconds_apart / chips:.0f} % if nothing overlaps"]
    return lines
