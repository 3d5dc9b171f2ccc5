# SPDX-License-Identifier: Apache-2.0
"""Tensors to be written, and where their numbers are, in; safetensors files out, one tensor at a time."""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from t5tasks.pretrained import copying, files
from t5tasks.pretrained.files import FLOATS, Tensors
from t5tasks.pretrained.table import Row, Shape


@dataclasses.dataclass(frozen=True)
class Target:
    """One tensor to be written.

    Attributes:
      name, type, shape: as its file will have it.
      base: the tensor of the source folder that it replaces, if any.
      row, paths, parts: how our parameters, of these shapes, make it; row is None where it is
        copied from the source as it stands.
    """

    name: str
    type: str
    shape: Shape
    base: str | None = None
    row: Row | None = None
    paths: tuple[str, ...] = ()
    parts: tuple[Shape, ...] = ()


@dataclasses.dataclass(frozen=True)
class Numbers:
    """Where the numbers come from: our parameters by their running paths, and the source folder."""

    leaves: Mapping[str, jax.Array]
    source: Tensors | None

    def size(self, target: Target) -> int:
        """How many bytes a target takes."""
        if target.row is None:
            return self._kept(target).size
        return FLOATS[target.type].itemsize * int(np.prod(target.shape, dtype=np.int64))

    def read(self, target: Target) -> np.ndarray:
        """uint8[bytes] of a target, as its file will have them."""
        if target.row is None:
            return self._kept(target)
        kind = FLOATS[target.type]
        bits = np.dtype(f"u{kind.itemsize}")  # copies of bits are fast, of bf16 numbers slow
        array = np.empty(target.shape, bits)
        if target.row.transform == "rows" and self.source is not None and target.base is not None:
            old = self.source.view(target.base)
            array[:] = old.astype(kind, copy=False).view(bits)[:len(array)]
        for part, path in enumerate(target.paths):
            view = target.row.view(array, target.parts, part)
            lying = np.argsort([-stride for stride in view.strides], kind="stable")
            numbers = _cast(self._gathered(path), kind, target.name).view(bits)
            for pieces in copying.tasks(view.transpose(lying), numbers.transpose(lying)):
                for out, piece in pieces:
                    out[...] = piece
        return array.reshape(-1).view(np.uint8)

    def _kept(self, target: Target) -> np.ndarray:
        assert self.source is not None and target.base is not None  # nothing else is copied
        return self.source.raw(target.base)

    def _gathered(self, path: str) -> np.ndarray:
        """f32, the whole of a parameter given by its unrolled path, on this host."""
        leaf = self.leaves.get(path)
        if leaf is None:
            layer = re.search(r"/layer_(\d+)/", path)
            assert layer is not None  # the parameters have been checked
            leaf = _layer(self.leaves[path.replace(layer[0], "/layers/")], int(layer[1]))
        if not leaf.is_fully_addressable and isinstance(leaf.sharding, NamedSharding):
            leaf = _replicating(leaf.sharding.mesh)(leaf)
        return np.asarray(leaf)


def new_folder(folder: str | pathlib.Path) -> pathlib.Path:
    """The folder's absolute path; raises ValueError unless it does not exist or is empty."""
    folder = pathlib.Path(folder).absolute()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} exists and is not empty; name a new folder")
    return folder


@contextlib.contextmanager
def whole(folder: pathlib.Path, here: bool = True) -> Iterator[pathlib.Path]:
    """A place to fill that becomes the folder at the end: so that is complete or absent, never half.

    Args:
      here: whether this process fills it; in others nothing is made.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        if here:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
        yield partial
        if here:
            partial.replace(folder)
    finally:
        if here:
            shutil.rmtree(partial, ignore_errors=True)


def write(folder: pathlib.Path, targets: Sequence[Target], numbers: Numbers, limit: int, here: bool) -> None:
    """Writes model.safetensors, or several files of at most `limit` bytes (or one tensor) and their index.

    Args:
      here: whether this process writes; the others only help to gather.
    """
    shards: list[list[Target]] = [[]]
    sizes = {target.name: numbers.size(target) for target in targets}
    for target in sorted(targets, key=lambda target: target.name):
        if shards[-1] and sum(sizes[other.name] for other in shards[-1]) + sizes[target.name] > limit:
            shards.append([])
        shards[-1].append(target)
    names = [files.WEIGHTS]
    if len(shards) > 1:
        stem = files.WEIGHTS.removesuffix(".safetensors")
        names = [f"{stem}-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        _write_file(folder / name, shard, sizes, numbers, here)
    if len(shards) > 1 and here:
        places = {target.name: name for name, shard in zip(names, shards, strict=True) for target in shard}
        write_json(folder / files.INDEX, {"metadata": {"total_size": sum(sizes.values())}, "weight_map": places})


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
    """Writes an object as the reference does: indented, its keys in order."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", "utf-8")


def _write_file(path: pathlib.Path, targets: Sequence[Target], sizes: Mapping[str, int], numbers: Numbers,
                here: bool) -> None:
    """One safetensors file (huggingface.co/docs/safetensors, "Format")."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}  # without which the reference refuses it
    # The widest numbers first: so each lies at a multiple of its own size.
    ordered = sorted(targets, key=lambda target: (-_width(target, sizes), target.name))
    end = 0
    for target in ordered:
        start, end = end, end + sizes[target.name]
        header[target.name] = {"dtype": target.type, "shape": target.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    if not here:
        for target in ordered:
            numbers.read(target)
        return
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for target in ordered:
            file.write(numbers.read(target).data)


def _width(target: Target, sizes: Mapping[str, int]) -> int:
    return sizes[target.name] // max(1, int(np.prod(target.shape, dtype=np.int64)))


def _cast(array: np.ndarray, kind: np.dtype[Any], name: str) -> np.ndarray:
    """The numbers in a file's format, rounded to the nearest; raises ValueError where they do not fit."""
    with np.errstate(over="ignore"):
        cast = array.astype(kind, copy=False)
    if kind == np.float16 and np.isinf(cast).any() and not np.isinf(array).any():
        raise ValueError(f"tensor {name!r} has numbers up to {np.abs(array).max():.3g}, beyond float16; save with "
                         "dtype='BF16' or 'F32'")
    return cast


@jax.jit
def _layer(stack: jax.Array, layer: int) -> jax.Array:
    return stack[layer]


@functools.lru_cache(maxsize=4)
def _replicating(mesh: jax.sharding.Mesh) -> Any:
    return jax.jit(lambda array: array, out_shardings=NamedSharding(mesh, PartitionSpec()))
