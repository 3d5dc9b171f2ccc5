# SPDX-License-Identifier: Apache-2.0
"""Trained adapters in, a folder in PEFT's format out; and such a folder onto a loaded checkpoint.

    adapter_config.json          what PEFT needs to know: rank, alpha, names of modules
    adapter_model.safetensors    base_model.model.MODULE.lora_A.weight   [r, inputs]
                                 base_model.model.MODULE.lora_B.weight   [outputs, r]
                                 base_model.model.MODULE.weight ...      what was trained in full

MODULE is the reference's name (github.com/huggingface/peft, docs/source/developer_guides/checkpoint.md).
Where it is one tensor for several of our maps (Phi-3's qkv_proj), the n adapters of its parts make
one of rank n r: their A lie below each other, their B side by side, each on the outputs of its part.
"""

import collections
import dataclasses
import itertools
import math
import pathlib
import re
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from t5tasks.models import adapters
from t5tasks.models.adapters import A, B, Lora, input_axes
from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model, Parameters
from t5tasks.pretrained import families, files
from t5tasks.pretrained.forward import Pretrained
from t5tasks.pretrained.parameters import shapes
from t5tasks.pretrained.table import Row, Shape, Table
from t5tasks.pretrained.writing import new_folder, whole, write_json
from t5tasks.sharding import flat, nested

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
BEFORE = "base_model.model."

# The reference's classes for a model with one of our heads.
TASK_TYPES = {"cls": "SEQ_CLS", "token": "TOKEN_CLS", "span": "QUESTION_ANS", "none": "FEATURE_EXTRACTION"}

# Fields that change what an adapter computes, and the values with which it is plain LoRA.
PLAIN: dict[str, tuple[Any, ...]] = {
    "peft_type": ("LORA",), "bias": ("none",), "init_lora_weights": (True, False, "gaussian", "orthogonal", "eva"),
    **dict.fromkeys(("use_dora", "use_qalora", "use_bdlora", "lora_bias", "trainable_token_indices",
                     "target_parameters", "layer_replication", "alora_invocation_tokens", "arrow_config",
                     "kasa_config", "monteclora_config", "velora_config"), (False,))}


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """A tensor of the reference, and our parameters in it."""

    name: str
    row: Row
    paths: tuple[str, ...]

    @property
    def module(self) -> str:
        """Its name without `.weight` or `.bias`."""
        return self.name.rpartition(".")[0]

    def narrow(self, parts: Mapping[str, Shape], rank: int) -> tuple[Row, tuple[Shape, ...]]:
        """The row, and our shapes, of a tensor that has `rank` inputs in place of its own.

        Raises:
          ValueError: it is no linear map.
        """
        if self.row.tied or self.row.transform not in ("transpose", "flat") or len(parts[self.paths[0]]) < 2:
            raise ValueError(f"{self.module} is no linear map of its own, and has no adapter in PEFT's format")
        ours = tuple((rank, *parts[path][input_axes(path):]) for path in self.paths)
        return dataclasses.replace(self.row, inputs=1), ours


def save(folder: str | pathlib.Path, model: Model, trained: Parameters, lora: Lora, source: str | pathlib.Path,
         name: str | None = None) -> None:
    """Writes adapters, and what was trained in full beside them; all of it or nothing.

    Args:
      folder: must not exist, or be empty.
      trained: what training.partition calls so, in the model's running form.
      source: the pretrained folder that they were trained on.
      name: how others find that folder (base_model_name_or_path); by default by its path.

    Raises:
      ValueError: the folder is not empty, or something trained has no place in PEFT's format.
    """
    folder = new_folder(folder)
    config, arrays = _written(model, trained, lora, pathlib.Path(source), str(source) if name is None else name)
    with whole(folder) as partial:
        write_json(partial / CONFIG, config)
        # It writes an array's memory as it lies, whatever its strides.
        in_order = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        safetensors.numpy.save_file(in_order, partial / WEIGHTS, {"format": "pt"})


def load(folder: str | pathlib.Path, base: Pretrained) -> Pretrained:
    """The base with the adapters of a folder added to its kernels, and what was trained in full put in.

    Raises:
      ValueError: a field, a tensor or a module that cannot be honoured, by name.
    """
    trained, scale = read(folder, base)
    model, given = base.model, flat(trained)
    whole = adapters.merged(trained, model.unrolled_form(base.parameters), scale)
    parameters = jax.tree.map(lambda leaf, old: jax.device_put(leaf, old.sharding), model.running_form(whole),
                              base.parameters)
    return dataclasses.replace(base, parameters=parameters,
                               new=tuple(path for path in base.new if path.partition("[")[0] not in given))


def read(folder: str | pathlib.Path, base: Pretrained) -> tuple[Parameters, float]:
    """The adapters of a folder, and what was trained in full, as `models.adapters.joined` takes them.

    Returns:
      f32 arrays in the unrolled form, and the scale.

    Raises:
      ValueError: as `load`.
    """
    folder = pathlib.Path(folder)
    settings = files.read_json(folder / CONFIG)
    lora = _settings(settings, folder / CONFIG)
    config = base.model.config
    table = families.find(files.read_config(base.tokenizer_folder), config.head).table
    parts, arrays = shapes(config), _arrays(folder / WEIGHTS)
    leaves: dict[str, np.ndarray] = {}
    for name in sorted(arrays):
        inner = name.removeprefix(BEFORE)
        try:
            if inner == name:
                raise ValueError(f"expected a name that begins with {BEFORE}")
            if inner.endswith((".lora_A.weight", ".lora_B.weight")):
                module = inner[:-len(".lora_A.weight")]
                a, b = (arrays.get(f"{BEFORE}{module}.lora_{letter}.weight") for letter in "AB")
                if a is None or b is None:
                    raise ValueError("its other half is missing")
                scale = _scale(module, b.shape[-1], lora, settings) / lora.scale
                made = _adapters_in(module, a, b, table, config, parts, scale)
            else:
                made = _in_full(inner, arrays[name], table, config, parts)
        except ValueError as error:
            raise ValueError(f"tensor {name!r} of {folder / WEIGHTS}: {error}") from error
        for path, array in made.items():
            if path in leaves and not np.array_equal(leaves[path], array):
                raise ValueError(f"tensor {name!r} of {folder / WEIGHTS} should be the same as another one, both being "
                                 f"{path}, but differs")
        leaves |= made
    return nested({path: jnp.asarray(leaf) for path, leaf in leaves.items()}), lora.scale


def _scale(module: str, rank: int, lora: Lora, settings: Mapping[str, Any]) -> float:
    """What a module's A B is multiplied by; the first pattern that its name ends in says its alpha."""
    alphas = settings.get("alpha_pattern") or {}
    alpha = next((alphas[key] for key in alphas if re.match(rf"(.*\.)?({key})$", module)), lora.alpha)
    return dataclasses.replace(lora, rank=rank, alpha=float(alpha)).scale


def _written(model: Model, trained: Parameters, lora: Lora, source: pathlib.Path, base_name: str
             ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """adapter_config.json, and the tensors."""
    foreign = files.read_config(source)
    table, parts = families.find(foreign, model.config.head).table, shapes(model.config)
    leaves = {path: np.asarray(leaf, np.float32) for path, leaf in flat(model.unrolled_form(trained)).items()}
    known = {path: _tensors_of(path, table, model.config, parts) for path in parts}
    maps = {tensors[0].module: tensors[0] for path, tensors in known.items() if path.endswith("/kernel") and tensors}
    pairs = {name: _pair_of(tensor, leaves, parts) for name, tensor in maps.items()
             if any(_beside(path, A) in leaves for path in tensor.paths)}
    full = _full_tensors({path for path in leaves if not path.endswith((f"/{A}", f"/{B}"))}, leaves, known, parts)
    arrays = {f"{BEFORE}{name}.lora_{letter}.weight": array for name, pair in pairs.items()
              for letter, array in zip("AB", pair, strict=True)} | {BEFORE + name: full[name] for name in full}
    ranks = {name: len(a) for name, (a, _) in pairs.items()}
    usual = collections.Counter(ranks.values()).most_common(1)[0][0]
    # An adapter of rank n r still has the scale of one of rank r.
    alphas = {rank: lora.alpha * (rank / lora.rank) ** (0.5 if lora.rank_stabilised else 1) for rank in ranks.values()}
    special = {name: rank for name, rank in ranks.items() if rank != usual}
    return {
        "peft_type": "LORA", "task_type": _task_type(model.config), "base_model_name_or_path": base_name,
        "r": usual, "lora_alpha": alphas[usual], "use_rslora": lora.rank_stabilised,
        "rank_pattern": special, "alpha_pattern": {name: alphas[rank] for name, rank in special.items()},
        "target_modules": _targets({*pairs}, {*maps}),
        "modules_to_save": _whole_modules(full, known) or None,
        "fan_in_fan_out": all(maps[name].row.transform == "flat" for name in pairs),
        "lora_dropout": 0.0, "bias": "none", "init_lora_weights": True, "inference_mode": True}, arrays


def _task_type(config: ModelConfig) -> str | None:
    """The task's name there; a masked-language head has none."""
    words = {"decoder": "CAUSAL_LM", "encoder_decoder": "SEQ_2_SEQ_LM"}.get(config.architecture)
    return words if config.head == "lm" else TASK_TYPES.get(config.head)


def _targets(chosen: set[str], maps: set[str]) -> list[str]:
    """What PEFT finds the modules by: the last parts of their names where that is enough, else the names."""
    last = {name.rpartition(".")[2] for name in chosen}
    return sorted(last if {name for name in maps if name.rpartition(".")[2] in last} == chosen else chosen)


def _tensors_of(path: str, table: Table, config: ModelConfig, parts: Mapping[str, Shape]) -> list[_Tensor]:
    """The reference's tensors that hold a parameter."""
    found = re.search(r"/layer_(\d+)/", path)
    number, tensors = found[1] if found else "", []
    for row in table.rows:
        paths = tuple(ours.replace("{layer}", number) for ours in row.parts)
        tied = config.head == "lm" and config.tied_head
        fits = path in paths and all(other in parts for other in paths) and (tied or not row.tied)
        if fits and (row.where is None or row.where(config)):
            name = row.foreign.replace("{layer}", number)
            tensors.append(_Tensor(name.removeprefix(table.prefix) if config.head == "none" else name, row, paths))
    return [tensor for tensor in tensors if tensor.row.where is not None] or tensors


def _pair_of(tensor: _Tensor, leaves: Mapping[str, np.ndarray], parts: Mapping[str, Shape]
             ) -> tuple[np.ndarray, np.ndarray]:
    """f32[n r, inputs] and f32[outputs, n r], of the n parts of a tensor that have adapters."""
    adapted = [path for path in tensor.paths if _beside(path, A) in leaves]
    a = np.concatenate([array.reshape(-1, array.shape[-1]).T for path in adapted
                        for array in [leaves[_beside(path, A)]]])
    row, ours = tensor.narrow(parts, len(a))
    b, start = np.zeros(row.foreign_shape(ours), np.float32), 0
    for path in adapted:
        half = leaves[_beside(path, B)]
        row.view(b, ours, tensor.paths.index(path))[start:start + len(half)] = half
        start += len(half)
    return a, b.T if row.transform == "flat" else b


def _full_tensors(paths: Collection[str], leaves: Mapping[str, np.ndarray], known: Mapping[str, list[_Tensor]],
                  parts: Mapping[str, Shape]) -> dict[str, np.ndarray]:
    """What was trained in full, by all its names."""
    arrays = {}
    for path in sorted(paths):
        for tensor in known[path]:
            ours = tuple(parts[part] for part in tensor.paths)
            array = arrays[tensor.name] = np.empty(tensor.row.foreign_shape(ours), np.float32)
            for part, other in enumerate(tensor.paths):
                if other not in paths:
                    raise ValueError(f"{path} was trained in full, but {tensor.name} holds {other} too, which was not: "
                                     "PEFT's format has no place for it; export the model merged")
                tensor.row.view(array, ours, part)[...] = leaves[other]
    return arrays


def _whole_modules(trained: Collection[str], known: Mapping[str, list[_Tensor]]) -> list[str]:
    """The outermost modules of which every tensor was trained in full: PEFT keeps nothing smaller."""
    modules, names = set(), {tensor.name for tensors in known.values() for tensor in tensors}
    for name in trained:
        around = itertools.accumulate(name.split(".")[:-1], lambda outer, inner: f"{outer}.{inner}")
        missing = ""
        for module in around:
            missing = next((other for other in sorted(names) if other.startswith(f"{module}.")
                            and other not in trained), "")
            if not missing:
                modules.add(module)
                break
        if missing:
            raise ValueError(f"{name} was trained in full, but {missing} was not, and PEFT's format keeps whole "
                             "modules; export the model merged")
    return sorted(modules)


def _beside(path: str, name: str) -> str:
    """The path of an adapter's part, by that of its kernel."""
    return f"{path.rpartition('/')[0]}/{name}"


def _settings(settings: Mapping[str, Any], path: pathlib.Path) -> Lora:
    """The adapters that adapter_config.json describes; raises ValueError where they are not plain LoRA."""
    for name, values in PLAIN.items():
        value = settings.get(name)
        if value not in (None, [], {}) and value not in values:
            raise ValueError(f"{path}: {name} is {value!r}, which is not supported; expected "
                             f"{' or '.join(map(repr, values))}")
    rank, alpha = settings.get("r", 8), settings.get("lora_alpha", 8)
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise ValueError(f"{path}: r is {rank!r}; expected a positive whole number")
    alphas = settings.get("alpha_pattern") or {}
    for value in (alpha, *alphas.values()):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"{path}: an alpha is {value!r}; expected a positive number")
    return Lora(rank, float(alpha), bool(settings.get("use_rslora")))


def _arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Every tensor of a small file, in f32."""
    if not path.is_file():
        raise ValueError(f"{path} does not exist: expected adapters that PEFT saved as safetensors")
    try:
        return {name: np.asarray(array, np.float32) for name, array in safetensors.numpy.load_file(path).items()}
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path} is damaged or is no safetensors file ({error}); download it again") from error


def _found(name: str, table: Table, config: ModelConfig, parts: Mapping[str, Shape]) -> _Tensor:
    known = table.find(name, config, parts)
    if known is None:
        raise ValueError(f"this model has no {name}")
    return _Tensor(name, known[1], known[0])


def _in_full(name: str, array: np.ndarray, table: Table, config: ModelConfig, parts: Mapping[str, Shape]
             ) -> dict[str, np.ndarray]:
    tensor = _found(name, table, config, parts)
    ours = tuple(parts[path] for path in tensor.paths)
    if not tensor.row.fits(array.shape, ours):
        raise ValueError(f"it has shape {array.shape}; the model expects {tensor.row.foreign_shape(ours)} (where "
                         "tokens were added, resize the model first)")
    return {path: tensor.row.view(array, ours, part) for part, path in enumerate(tensor.paths)}


def _adapters_in(module: str, a: np.ndarray, b: np.ndarray, table: Table, config: ModelConfig,
                 parts: Mapping[str, Shape], scale: float) -> dict[str, np.ndarray]:
    """Our adapters of every part of a module; each has all of its rank."""
    tensor = _found(f"{module}.weight", table, config, parts)
    rank = b.shape[-1]
    row, ours = tensor.narrow(parts, rank)
    inputs = parts[tensor.paths[0]][:input_axes(tensor.paths[0])]
    outputs = sum(math.prod(shape[1:]) for shape in ours)
    if a.shape != (rank, math.prod(inputs)) or b.shape != (outputs, rank):
        raise ValueError(f"it and its lora_B have shapes {a.shape} and {b.shape}; the model expects [rank, "
                         f"{math.prod(inputs)}] and [{outputs}, rank]")
    b = b.T if row.transform == "flat" else b
    leaves = {}
    for part, path in enumerate(tensor.paths):
        leaves[_beside(path, A)] = a.T.reshape(*inputs, rank)
        leaves[_beside(path, B)] = row.view(b, ours, part) * np.float32(scale)
    return leaves
