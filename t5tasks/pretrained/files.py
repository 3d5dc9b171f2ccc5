# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face folder in, its configuration and its tensors, one at a time, out.

Nothing is trusted: what a failed download leaves behind (a Git LFS pointer, an HTML page, half a
file), pickled weights, and index files that point out of the folder are refused in one line each.
"""

import json
import pathlib
from typing import Any

import numpy as np
import safetensors

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.msgpack", "*.h5")
FLOATS = ("F32", "BF16", "F16")  # each is exact in f32


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object in a JSON file; raises ValueError where there is none."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: expected a Hugging Face model folder with {CONFIG}")
    _refuse_leftovers(path)
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
                         "(trust_remote_code), which is never done; use a checkpoint without it")
    if foreign.get("quantization_config"):
        raise ValueError(f"{folder / CONFIG}: quantization_config is not supported; use the "
                         "checkpoint in float32, bfloat16 or float16")
    return foreign


class Tensors:
    """The named tensors of a folder: one safetensors file, or the shards that an index names.

    Opening reads only the headers; `read` brings one tensor into host memory.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        """Raises ValueError: no safetensors files, damaged ones, or an index that misleads."""
        self._files: dict[pathlib.Path, Any] = {}
        self._places: dict[str, pathlib.Path] = {}
        if (folder / WEIGHTS).exists():
            self._places = {name: folder / WEIGHTS for name in _names(self._open(folder / WEIGHTS))}
        elif (folder / INDEX).exists():
            self._places = self._indexed(folder)
        else:
            raise ValueError(_no_weights(folder))

    @property
    def names(self) -> tuple[str, ...]:
        """All tensors, sorted."""
        return tuple(sorted(self._places))

    def describe(self, name: str) -> str:
        """The tensor and its file, for an error."""
        return f"tensor {name!r} of {self._places[name]}"

    def shape(self, name: str) -> tuple[int, ...]:
        """The tensor's shape, from the header.

        Raises:
          ValueError: its numbers are not floats that f32 holds exactly.
        """
        header = self._files[self._places[name]].get_slice(name)
        if header.get_dtype() not in FLOATS:
            raise ValueError(f"{self.describe(name)} has type {header.get_dtype()}; expected one of "
                             f"{', '.join(FLOATS)}")
        return tuple(header.get_shape())

    def read(self, name: str) -> np.ndarray:
        """f32[shape], the tensor in host memory."""
        return self._files[self._places[name]].get_tensor(name).astype(np.float32, copy=False)

    def _open(self, path: pathlib.Path) -> Any:
        if path not in self._files:
            _refuse_leftovers(path)
            try:
                self._files[path] = safetensors.safe_open(path, "numpy")
            except safetensors.SafetensorError as error:
                raise ValueError(f"{path} is damaged or is no safetensors file ({error}); "
                                 "download it again") from error
        return self._files[path]

    def _indexed(self, folder: pathlib.Path) -> dict[str, pathlib.Path]:
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
        for path in sorted(set(paths.values())):
            stored = _names(self._open(path))
            listed = {name for name in paths if paths[name] == path}
            if stored != listed:
                name = min(stored ^ listed)
                where = f"is in {path.name}" if name in stored else f"is not in {path.name}"
                raise ValueError(f"{index} and its shards disagree: tensor {name!r} {where}")
        return paths


def _names(file: Any) -> set[str]:
    return set(file.keys())


def _refuse_leftovers(path: pathlib.Path) -> None:
    """Raises ValueError where a download left something else under the file's name."""
    with path.open("rb") as file:
        opening = file.read(64).lstrip().lower()
    if opening.startswith(b"version https://git-lfs"):
        raise ValueError(f"{path} is a Git LFS pointer, not the file: fetch it with `git lfs pull`")
    if opening.startswith((b"<!doctype", b"<html")):
        raise ValueError(f"{path} is an HTML page, not the file: download the raw file")
    if not opening:
        raise ValueError(f"{path} is empty: download it again")


def _no_weights(folder: pathlib.Path) -> str:
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if pickles:
        return (f"{folder} has only {pickles[0]}, which is not safetensors (pickles can run code when "
                "opened): load it once where you trust it, in PyTorch with transformers, and write "
                "the folder again with model.save_pretrained(folder, safe_serialization=True)")
    others = sorted(path.name for path in folder.glob("*.safetensors"))
    found = f"found only {', '.join(others[:3])}" if others else "found no weights"
    return f"{folder} has neither {WEIGHTS} nor {INDEX} ({found})"
