# SPDX-License-Identifier: Apache-2.0
"""A folder's tensors and their table in, parameters on their devices out.

Each process looks only at those bytes of the files that its own devices hold; every number is
copied once, from the mapped file to its place on a shard.
"""

import collections
import concurrent.futures
import dataclasses
import functools
import os
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model, Parameters
from t5tasks.pretrained import copying
from t5tasks.pretrained.files import Tensors
from t5tasks.pretrained.table import Row, Shape, Table
from t5tasks.sharding import flat, nested, parameter_spec

# Parameters that a checkpoint may lack: they begin fresh, and are announced.
FRESH = ("head/pooler/", "head/classifier/", "head/transform", "head/bias")

THREADS = 16  # at most: more do not make memory faster
Index = tuple[slice, ...]
Key = tuple[tuple[int | None, int | None], ...]  # of an index; slices are no keys


@dataclasses.dataclass(frozen=True)
class Source:
    """Where one parameter comes from: a tensor, its row, and which part of it."""

    name: str
    row: Row
    part: int
    shapes: tuple[Shape, ...]  # of all parts

    def view(self, tensors: Tensors) -> np.ndarray:
        """The parameter as it lies in the file."""
        return self.row.view(tensors.view(self.name), self.shapes, self.part)


def load_parameters(tensors: Tensors, table: Table, model: Model, mesh: Mesh | None, seed: int,
                    fresh_classifier: bool) -> tuple[Parameters, tuple[str, ...]]:
    """Reads every parameter and puts it straight on its shards.

    Host memory holds two parameters' shards at a time, of which one is on its way to the devices.
    On a CPU the devices take the memory as it is.

    Args:
      fresh_classifier: the folder's classifier, if any, answers another question.

    Returns:
      The parameters in the model's running form, and the names of those that are new.

    Raises:
      ValueError: missing, unknown, misshapen or wrongly typed tensors, by name.
    """
    unrolled = shapes(model.config)
    sources = _plan(tensors, table, model.config, unrolled, fresh_classifier)
    missing = [path for path in unrolled if path not in sources]
    new = tuple(path for path in missing if path.startswith(FRESH))
    for path in missing:
        if path not in new or _partner(path) in sources:
            raise ValueError(_missing(path, table))
    leaves = _initialised(model, new, seed, mesh)
    on_their_way: collections.deque[_Parameter] = collections.deque()
    with concurrent.futures.ThreadPoolExecutor(min(THREADS, processors())) as pool:
        for path, shape in running_shapes(model).items():
            if path in new:
                continue
            is_stacked = "/layers/" in path
            depth = shape[0] if is_stacked else 1
            layers = [sources[path.replace("/layers/", f"/layer_{layer}/")] for layer in range(depth)]
            on_their_way.append(_Parameter(tensors, path, shape, is_stacked, layers, mesh, pool))
            if len(on_their_way) > 1:
                first = on_their_way.popleft()
                leaves[first.path] = first.placed()
        for last in on_their_way:
            leaves[last.path] = last.placed()
    return nested(leaves), new


class _Parameter:
    """One parameter on its way from the files to its shards."""

    def __init__(self, tensors: Tensors, path: str, shape: Shape, is_stacked: bool, layers: list[list[Source]],
                 mesh: Mesh | None, pool: concurrent.futures.Executor) -> None:
        """Starts copying.

        Args:
          layers: the tensors of each layer of a stack, or of the one parameter; where there are
            several they must be equal.
        """
        self.path, self._shape, self._tensors, self._layers = path, shape, tensors, layers
        self._sharding = _sharding(path, shape, mesh)
        self._shards: dict[Key, np.ndarray] = {}
        self._copies: list[concurrent.futures.Future[None]] = []
        for index in self._indices():
            if _key(index) in self._shards:
                continue
            size = tuple(len(range(*part.indices(length))) for part, length in zip(index, shape, strict=True))
            shard = self._shards[_key(index)] = copying.empty(size)
            outs = shard if is_stacked else [shard]
            here = layers[index[0]] if is_stacked else layers
            for out, sources in zip(outs, here, strict=True):
                self._fill(out, sources, index[1:] if is_stacked else index, pool)

    def placed(self) -> jax.Array:
        """The parameter, when all of it has been copied; raises ValueError where copies differ."""
        for copied in self._copies:
            copied.result()
        for sources in self._layers:
            for source in sources:
                self._tensors.forget(source.name)
        if self._sharding is None:
            (shard,) = self._shards.values()
            array = jax.device_put(shard)
        else:
            array = jax.make_array_from_callback(self._shape, self._sharding,
                                                 lambda index: self._shards[_key(index or ())])
        return array.block_until_ready()

    def _indices(self) -> Iterator[Index]:
        if self._sharding is None:
            yield (slice(None),) * len(self._shape)
        else:
            for index in self._sharding.addressable_devices_indices_map(self._shape).values():
                assert index is not None  # it is only where nothing is known of the shape
                yield index

    def _fill(self, out: np.ndarray, sources: list[Source], index: Index,
              pool: concurrent.futures.Executor) -> None:
        first, *others = sources
        view = _cut(first.view(self._tensors), index)
        self._tensors.expect(view, first.name)
        self._copies += [pool.submit(copying.copy, task) for task in copying.tasks(out, view)]
        self._copies += [pool.submit(_check_tied, self._tensors, first, other, index) for other in others]


def _check_tied(tensors: Tensors, first: Source, other: Source, index: Index) -> None:
    """Raises ValueError unless two tensors hold the same parameter, in so far as it is read here."""
    if not copying.is_same(_cut(first.view(tensors), index), _cut(other.view(tensors), index)):
        raise ValueError(f"{tensors.describe(first.name)} and tensor {other.name!r} should be one and the "
                         "same by config.json (tied), but differ; if they are meant to, say so "
                         "there (tie_word_embeddings)")


def _cut(array: np.ndarray, index: Index) -> np.ndarray:
    """The part of an array, an array also where that has no axis."""
    whole: tuple[Any, ...] = (*index, ...)
    return array[whole]


def processors() -> int:
    """How many of the machine's processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _key(index: Index) -> Key:
    return tuple((part.start, part.stop) for part in index)


def _plan(tensors: Tensors, table: Table, config: ModelConfig, shapes: Mapping[str, Shape],
          fresh_classifier: bool) -> dict[str, list[Source]]:
    """Our path → the tensors that hold it, each checked against the shape we expect."""
    sources: dict[str, list[Source]] = {}
    for name in tensors.names:
        try:
            found = table.find(name, config, shapes)
        except ValueError as error:
            raise ValueError(f"unknown {tensors.describe(name)}: {error}; does config.json belong to "
                             "these weights?") from error
        if found is None or (fresh_classifier and found[0][0].startswith("head/classifier/")):
            continue
        paths, row = found
        ours = tuple(shapes[path] for path in paths)
        if not row.fits(tensors.shape(name), ours):
            raise ValueError(f"{tensors.describe(name)} has shape {tensors.shape(name)}; the "
                             f"configuration expects {row.foreign_shape(ours)}")
        for part, path in enumerate(paths):
            sources.setdefault(path, []).append(Source(name, row, part, ours))
    return sources


def _initialised(model: Model, names: tuple[str, ...], seed: int, mesh: Mesh | None
                 ) -> dict[str, jax.Array]:
    """The named parameters as the model would begin with them; no other one is computed."""
    return _initialiser(model, names, mesh)(jax.random.key(seed)) if names else {}


@functools.lru_cache(maxsize=16)
def _initialiser(model: Model, names: tuple[str, ...], mesh: Mesh | None
                 ) -> Callable[[jax.Array], dict[str, jax.Array]]:
    def initialise(key: jax.Array) -> dict[str, jax.Array]:
        leaves = flat(model.init(key))
        return {name: leaves[name] for name in names}

    all_shapes = shapes(model.config)
    shardings = {name: _sharding(name, all_shapes[name], mesh) for name in names}
    return jax.jit(initialise, out_shardings=None if mesh is None else shardings)


def _sharding(path: str, shape: Shape, mesh: Mesh | None) -> NamedSharding | None:
    return None if mesh is None else NamedSharding(mesh, parameter_spec(path, shape, mesh))


@functools.lru_cache(maxsize=64)
def shapes(config: ModelConfig) -> Mapping[str, Shape]:
    """Path → shape of every parameter in the unrolled form.

    Layers after the first are all alike, so that two are traced, however deep the model.
    """
    shallow = Model(dataclasses.replace(_shallow(config), layer_loop="unroll"))
    traced = flat(jax.eval_shape(lambda: shallow.init(jax.random.key(0))))
    found = {}
    for path, leaf in traced.items():
        second = re.search(r"(\w+)/layer_1/", path)
        layers = range(1, 2)
        if second:
            of = config.vision.tower if config.vision is not None and path.startswith("vision/") else config
            layers = range(1, getattr(of, f"{second[1]}_layers"))
        for layer in layers:
            found[path.replace("/layer_1/", f"/layer_{layer}/")] = leaf.shape
    return found


def _shallow(config: ModelConfig) -> ModelConfig:
    vision = config.vision and dataclasses.replace(config.vision, tower=_shallow(config.vision.tower))
    return dataclasses.replace(config, encoder_layers=min(2, config.encoder_layers),
                               decoder_layers=min(2, config.decoder_layers), vision=vision)


def running_shapes(model: Model) -> dict[str, Shape]:
    """`shapes` in the form that the model runs on."""
    unrolled = nested({path: jax.ShapeDtypeStruct(shape, np.float32) for path, shape in shapes(model.config).items()})
    return {path: leaf.shape for path, leaf in flat(jax.eval_shape(model.running_form, unrolled)).items()}


def _partner(path: str) -> str:
    """The other parameter of a linear map: one alone is a damaged folder, not a missing head."""
    return path.replace("/kernel", "/bias") if path.endswith("/kernel") else path.replace("/bias", "/kernel")


def _missing(path: str, table: Table) -> str:
    layer = re.search(r"/layer_(\d+)/", path)
    general = re.sub(r"/layer_\d+/", "/layer_{layer}/", path)
    names = [row.foreign.replace("{layer}", layer[1] if layer else "")
             for row in table.rows if general in row.parts and not row.tied]
    return (f"missing tensor {' or '.join(map(repr, names))}, which becomes {path}; is the download "
            "complete, and does config.json belong to these weights?")
