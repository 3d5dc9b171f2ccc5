# SPDX-License-Identifier: Apache-2.0
"""A family's table and a folder's tensors in, parameters on their devices out.

A table says, row by row, which foreign tensor becomes which of our parameters and how:

    Row("encoder.layer.{layer}.attention.self.query.weight",       # [N * H, D]
        "encoder/layer_{layer}/attention/query/kernel",            # [D, N, H]
        "transpose")

Some families keep several linear maps in one tensor; such a row leads to several parameters:

    Row("model.layers.{layer}.mlp.gate_up_proj.weight",            # [2 F, D]
        ("decoder/layer_{layer}/feed_forward/gate/kernel",         # [D, F]
         "decoder/layer_{layer}/feed_forward/up/kernel"),
        "transpose")

Every tensor of the folder must be named by a row or by the list of what is knowingly ignored;
every parameter must be found, save the heads that a bare encoder lacks.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding

from t5tasks.models.config import ModelConfig
from t5tasks.models.model import Model, Parameters
from t5tasks.pretrained.fields import Foreign
from t5tasks.pretrained.files import Tensors
from t5tasks.sharding import parameter_spec, path_name

# Parameters that a checkpoint may lack: they begin fresh, and are announced.
FRESH = ("head/pooler/", "head/classifier/", "head/transform", "head/bias")

Shape = tuple[int, ...]
Config = Callable[[Foreign, tuple[str, ...] | None], dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of a family.

    Attributes:
      foreign: its name there; `{layer}` stands for a layer's number.
      ours: the parameter's path in the unrolled form, the same number in it; several paths where
        the tensor holds several parameters, one after another along its outputs.
      transform: `same`: the shapes agree, or theirs is ours flattened (a bias per head), also
        behind a first axis of 1. `transpose`: theirs is [outputs, inputs], ours [inputs...,
        outputs...]. `flat`: theirs is [inputs, outputs]. `rows`: a table of positions, of which
        ours may keep only the first rows.
      inputs: how many of our first axes are inputs (transpose, flat).
      interleaved: the parameters take turns head by head (GPT-NeoX).
      tied: the row holds only where the language-model head is the embedding table.
    """

    foreign: str
    ours: str | tuple[str, ...]
    transform: str = "same"
    inputs: int = 1
    interleaved: bool = False
    tied: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """`ours` as a tuple, also where it is one path."""
        return (self.ours,) if isinstance(self.ours, str) else self.ours

    def paths(self, name: str) -> tuple[str, ...] | None:
        """Our paths of the foreign tensor, None where the row is not about it."""
        found = _pattern(self.foreign).fullmatch(name)
        layer = found[1] if found and found.groups() else ""
        return tuple(path.replace("{layer}", layer) for path in self.parts) if found else None

    def fits(self, foreign: Shape, ours: Sequence[Shape]) -> bool:
        """Whether a tensor of this foreign shape makes parameters of our shapes."""
        if self.transform == "rows":
            return len(foreign) == len(ours[0]) and foreign[0] >= ours[0][0] and foreign[1:] == ours[0][1:]
        if self.transform == "same" and len(ours) == 1:
            return foreign in (ours[0], (1, *ours[0]), self.foreign_shape(ours))
        return foreign == self.foreign_shape(ours)

    def foreign_shape(self, ours: Sequence[Shape]) -> Shape:
        """The shape that their tensor must have for parameters of our shapes."""
        outputs = sum(math.prod(shape[self.inputs:]) for shape in ours)
        if self.transform in ("transpose", "flat"):
            shape = math.prod(ours[0][:self.inputs]), outputs
            return shape if self.transform == "flat" else shape[::-1]
        return (sum(map(math.prod, ours)),) if self.parts[0].endswith("/bias") else ours[0]

    def convert(self, array: np.ndarray, ours: Sequence[Shape], part: int) -> np.ndarray:
        """The one of our parameters that their array holds as that part."""
        shape = ours[part]
        if self.transform == "rows":
            return array[:shape[0]]
        if self.transform == "flat":
            array = array.T
        if len(ours) > 1:
            array = self._part(array, ours, part)
        return (array.T if self.transform in ("transpose", "flat") else array).reshape(shape)

    def _part(self, array: np.ndarray, ours: Sequence[Shape], part: int) -> np.ndarray:
        """The rows of one part of an array whose first axis is all outputs."""
        if self.interleaved:
            heads = array.reshape(ours[part][-2], len(ours), ours[part][-1], *array.shape[1:])
            return heads[:, part].reshape(-1, *array.shape[1:])
        inputs = self.inputs if self.transform in ("transpose", "flat") else 0
        ends = np.cumsum([0] + [math.prod(shape[inputs:]) for shape in ours])
        return array[ends[part]:ends[part + 1]]


def linear(foreign: str, ours: str, inputs: int = 1) -> tuple[Row, Row]:
    """The rows of a PyTorch linear map: weight [outputs, inputs] and bias."""
    return (Row(f"{foreign}.weight", f"{ours}/kernel", "transpose", inputs),
            Row(f"{foreign}.bias", f"{ours}/bias"))


def norm(foreign: str, ours: str) -> tuple[Row, Row]:
    """The rows of a norm: weight and, for a LayerNorm, bias."""
    return Row(f"{foreign}.weight", f"{ours}/scale"), Row(f"{foreign}.bias", f"{ours}/bias")


@functools.cache
def _pattern(foreign: str) -> re.Pattern[str]:
    return re.compile(re.escape(foreign).replace(r"\{layer\}", r"(0|[1-9]\d*)"))


@dataclasses.dataclass(frozen=True)
class Table:
    """All tensors of a family.

    Attributes:
      rows: where two lead to one parameter, the tensors must be equal.
      prefix: what stands before the names of the rows in some folders only.
      renames: pattern and replacement, for names of older folders.
      ignored: patterns of what is knowingly not read (buffers, heads that we do not have).
    """

    rows: tuple[Row, ...]
    prefix: str = ""
    renames: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()

    def find(self, name: str, config: ModelConfig, wanted: Mapping[str, Any]
             ) -> tuple[tuple[str, ...], Row] | None:
        """The parameters that a foreign tensor becomes, and how; None where it is not for us.

        Args:
          name: as it stands in the folder.
          wanted: our paths, as keys.

        Raises:
          ValueError: no row and no line of the ignored is about it, or it is for a layer that the
            configuration does not have.
        """
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        tied = config.head == "lm" and config.tied_head
        of_other_head = any(re.fullmatch(pattern, name) for pattern in self.ignored)
        for row in self.rows:
            paths = row.paths(name) or (row.paths(self.prefix + name) if self.prefix else None)
            if paths is None:
                continue
            if all(path in wanted for path in paths) and (tied or not row.tied):
                return paths, row
            of_other_head |= paths[0].startswith("head/") or row.tied
        if of_other_head:
            return None
        raise ValueError(f"no part of this model is called {name!r}")


@dataclasses.dataclass(frozen=True)
class Family:
    """What `pretrained` knows about one family of checkpoints.

    Attributes:
      model_types: the `model_type` of config.json that it answers to.
      heads: architecture's name there → our head; others are refused unless a head is asked for.
      config: fields of config.json and the tensors' names (None: not known) → ModelConfig values,
        all but the head's; raises ValueError naming a field that we do not honour.
      table: the tensors.
      supported: the heads that can be asked for, and ModelConfig values that only that head has.
      padding: the token id that takes no position of its own (RoBERTa), None where positions
        count every token.
    """

    model_types: tuple[str, ...]
    heads: Mapping[str, str]
    config: Config
    table: Table
    supported: Mapping[str, Mapping[str, Any]]
    padding: Callable[[Foreign], int] | None = None


@dataclasses.dataclass(frozen=True)
class Source:
    """Where one parameter comes from: a tensor, its row, and which part of it."""

    name: str
    row: Row
    part: int
    shapes: tuple[Shape, ...]  # of all parts

    def read(self, tensors: Tensors) -> np.ndarray:
        """The parameter in host memory."""
        return self.row.convert(tensors.read(self.name), self.shapes, self.part)


def load_parameters(tensors: Tensors, table: Table, model: Model, mesh: Mesh | None, seed: int,
                    fresh_classifier: bool) -> tuple[Parameters, tuple[str, ...]]:
    """Reads every parameter and puts it straight on its shards.

    Host memory holds one tensor at a time.

    Args:
      fresh_classifier: the folder's classifier, if any, answers another question.

    Returns:
      The parameters in the model's running form, and the names of those that are new.

    Raises:
      ValueError: missing, unknown, misshapen or wrongly typed tensors, by name.
    """
    unrolled = Model(dataclasses.replace(model.config, layer_loop="unroll"))
    shapes = _shapes(unrolled)
    sources = _plan(tensors, table, model.config, shapes, fresh_classifier)
    missing = [path for path in shapes if path not in sources]
    new = tuple(path for path in missing if path.startswith(FRESH))
    for path in missing:
        if path not in new or _partner(path) in sources:
            raise ValueError(_missing(path, table))
    leaves = _initialised(model, new, seed, mesh)
    for path, shape in _shapes(model).items():
        if path in new:
            continue
        sharding = _sharding(path, shape, mesh)
        if "/layers/" in path:
            layers = [path.replace("/layers/", f"/layer_{layer}/") for layer in range(shape[0])]
            placed = [_place(tensors, sources[name], name, shapes[name], mesh) for name in layers]
            leaves[path] = _stacking(sharding)(*placed)
        else:
            leaves[path] = _place(tensors, sources[path], path, shape, mesh)
    return _nested(leaves), new


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


def _place(tensors: Tensors, sources: list[Source], path: str, shape: Shape, mesh: Mesh | None) -> jax.Array:
    """One parameter, read, turned and put on its shards."""
    first, *others = sources
    array = first.read(tensors)
    for other in others:
        if not np.array_equal(array, other.read(tensors)):
            raise ValueError(f"{tensors.describe(first.name)} and tensor {other.name!r} should be one and the "
                             "same by config.json (tied), but differ; if they are meant to, say so "
                             "there (tie_word_embeddings)")
    sharding = _sharding(path, shape, mesh)
    if sharding is None:
        return jnp.asarray(array)
    return jax.make_array_from_callback(shape, sharding, lambda index: np.ascontiguousarray(array[index]))


def _initialised(model: Model, names: tuple[str, ...], seed: int, mesh: Mesh | None
                 ) -> dict[str, jax.Array]:
    """The named parameters as the model would begin with them; no other one is computed."""
    return _initialiser(model, names, mesh)(jax.random.key(seed)) if names else {}


@functools.lru_cache(maxsize=16)
def _initialiser(model: Model, names: tuple[str, ...], mesh: Mesh | None
                 ) -> Callable[[jax.Array], dict[str, jax.Array]]:
    def initialise(key: jax.Array) -> dict[str, jax.Array]:
        leaves = _flat(model.init(key))
        return {name: leaves[name] for name in names}

    shapes = _shapes(model)
    shardings = {name: _sharding(name, shapes[name], mesh) for name in names}
    return jax.jit(initialise, out_shardings=None if mesh is None else shardings)


@functools.lru_cache(maxsize=64)
def _stacking(sharding: NamedSharding | None) -> Callable[..., jax.Array]:
    return jax.jit(lambda *layers: jnp.stack(layers), out_shardings=sharding)


def _sharding(path: str, shape: Shape, mesh: Mesh | None) -> NamedSharding | None:
    return None if mesh is None else NamedSharding(mesh, parameter_spec(path, shape, mesh))


@functools.lru_cache(maxsize=16)
def _shapes(model: Model) -> Mapping[str, Shape]:
    leaves = _flat(jax.eval_shape(model.init, jax.random.key(0)))
    return {path: leaf.shape for path, leaf in leaves.items()}


def _flat(tree: Any) -> dict[str, Any]:
    return {path_name(path): leaf for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]}


def _nested(leaves: Mapping[str, jax.Array]) -> Parameters:
    tree: Parameters = {}
    for path, leaf in sorted(leaves.items()):
        *folders, last = path.split("/")
        node = tree
        for folder in folders:
            node = node.setdefault(folder, {})
        node[last] = leaf
    return tree


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
