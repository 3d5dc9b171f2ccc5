# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face folder in, its configuration and its tensors, one at a time, out.

Nothing is trusted: what a failed download leaves behind (a Git LFS pointer, an HTML page, half a
file), pickled weights, and index files that point out of the folder are refused in one line each.
"""

import dataclasses
import json
import mmap
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
from numpy.lib.array_utils import byte_bounds

from t5tasks.data.downloads import refuse_leftovers

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
# Each is exact in f32.
FLOATS = {"F32": np.dtype(np.float32), "BF16": jnp.dtype(jnp.bfloat16), "F16": np.dtype(np.float16)}


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file; raises ValueError where there is none."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: expected a Hugging Face model folder with {CONFIG}")
    refuse_leftovers(path, "a JSON file")
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:  # malformed JSON, or bytes that are not UTF-8
        raise ValueError(f"{path} is not readable JSON: {error}; download it again") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__}; expected a JSON object")
    return found


def read_config(folder: pathlib.Path) -> dict[str, Any]:
    """config.json as it stands, refused where it asks for code or for number formats of its own."""
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder; expected a Hugging Face model folder with {CONFIG}")
    foreign = read_json(folder / CONFIG)
    if foreign.get("auto_map"):
        raise ValueError(f"{folder / CONFIG}: auto_map asks to run code from the folder "
                         "(trust_remote_code), which is never done; delete auto_map to load it as the family "
                         f"{foreign.get('model_type')!r}, if it is one, or use a checkpoint without it")
    if foreign.get("quantization_config"):
        raise ValueError(f"{folder / CONFIG}: quantization_config is not supported; use the "
                         "checkpoint in float32, bfloat16 or float16")
    return foreign


@dataclasses.dataclass(frozen=True)
class Stored:
    """Where a tensor lies: its file, and its bytes there."""

    path: pathlib.Path
    type: str  # as safetensors calls it
    shape: tuple[int, ...]
    start: int
    stop: int


class Tensors:
    """The named tensors of a folder: one safetensors file, or the shards that an index names.

    Opening reads only the headers. Files are mapped into memory, so that of an array that `view`
    returns only those bytes are ever read from the disk that somebody looks at.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Raises ValueError: no safetensors files, damaged ones, or an index that misleads."""
        self._maps: dict[pathlib.Path, mmap.mmap] = {}
        if (folder / WEIGHTS).exists():
            self._stored = _header(folder / WEIGHTS)
        elif (folder / INDEX).exists():
            self._stored = self._indexed(folder)
        else:
            raise ValueError(_no_weights(folder))

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors, sorted."""
        return tuple(sorted(self._stored))

    def describe(self, name: str) -> str:
        """The tensor and its file, for an error."""
        return f"tensor {name!r} of {self._stored[name].path}"

    def stored(self, name: str) -> Stored:
        """The tensor's header, whatever its type."""
        return self._stored[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, from the header.

        Raises:
          ValueError: its numbers are not floats that f32 holds exactly.
        """
        stored = self._stored[name]
        if stored.type not in FLOATS:
            raise ValueError(f"{self.describe(name)} has type {stored.type}; expected one of "
                             f"{', '.join(FLOATS)}")
        return stored.shape

    def view(self, name: str) -> np.ndarray:
        """float[shape] of the type it has in the file, which stays on the disk until it is looked at."""
        stored = self._stored[name]
        return self.raw(name).view(FLOATS[stored.type]).reshape(stored.shape)

    def raw(self, name: str) -> np.ndarray:
        """uint8[bytes] of the tensor, mapped likewise."""
        stored = self._stored[name]
        if stored.path not in self._maps:
            with stored.path.open("rb") as file:
                self._maps[stored.path] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(self._maps[stored.path], np.uint8, stored.stop - stored.start, stored.start)

    def expect(self, view: np.ndarray, name: str) -> None:
        """Asks the system to fetch what a view of the tensor spans: a disk is fast when it knows early."""
        low, high = byte_bounds(view)
        offset = self._stored[name].start - self.raw(name).ctypes.data
        self._advise(name, "MADV_WILLNEED", low + offset, high + offset)

    def forget(self, name: str) -> None:
        """Gives the tensor's pages back: they no longer count as this process's memory."""
        self._advise(name, "MADV_DONTNEED", self._stored[name].start, self._stored[name].stop)

    def _advise(self, name: str, advice: str, start: int, stop: int) -> None:
        if hasattr(mmap, advice) and stop > start:  # not on every system
            first = start - start % mmap.PAGESIZE
            self._maps[self._stored[name].path].madvise(getattr(mmap, advice), first, stop - first)

    def _indexed(self, folder: pathlib.Path) -> dict[str, Stored]:
        index = folder / INDEX
        places = read_json(index).get("weight_map")
        if not isinstance(places, dict) or not places:
            raise ValueError(f"{index} has no weight_map from tensor names to files")
        paths = {}
        for name, file in places.items():
            parts = pathlib.PureWindowsPath(str(file))  # knows both kinds of slash, and drives
            if not isinstance(file, str) or parts.anchor or ".." in parts.parts or not parts.parts:
                raise ValueError(f"{index}: the file of tensor {name!r} is {file!r}; expected a file "
                                 "inside the folder")
            paths[name] = folder / file
            if not paths[name].is_file():
                raise ValueError(f"{paths[name]} does not exist, though {index.name} puts tensor "
                                 f"{name!r} there; download the missing shard")
        found: dict[str, Stored] = {}
        for path in sorted(set(paths.values())):
            stored = _header(path)
            listed = {name for name in paths if paths[name] == path}
            if {*stored} != listed:
                name = min({*stored} ^ listed)
                where = f"is in {path.name}" if name in stored else f"is not in {path.name}"
                raise ValueError(f"{index} and its shards disagree: tensor {name!r} {where}")
            found |= stored
        return found


def _header(path: pathlib.Path) -> dict[str, Stored]:
    """The tensors of one safetensors file (huggingface.co/docs/safetensors, "Format")."""
    refuse_leftovers(path, "a safetensors file")
    try:
        with safetensors.safe_open(path, "numpy"):  # checks that the header tells the truth
            pass
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or is no safetensors file ({error}); "
                         "download it again") from error
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    return {name: Stored(path, about["dtype"], tuple(about["shape"]),
                         *(8 + length + offset for offset in about["data_offsets"]))
            for name, about in header.items()}


def _no_weights(folder: pathlib.Path) -> str:
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        return (f"{folder} has only {pickles[0]}, which is not safetensors (pickles can run code when "
                "opened): load it once where you trust it, in PyTorch with transformers, and write "
                "the folder again with model.save_pretrained(folder, safe_serialization=True)")
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    found = f"found only {', '.join(others[:3])}" if others else "found no weights"
    return f"{folder} has neither {WEIGHTS} nor {INDEX} ({found})"
