# SPDX-License-Identifier: Apache-2.0
"""A family's table and a folder's tensors in, parameters on their devices out.

A table says, row by row, which foreign tensor becomes which of our parameters and how:

    Row("encoder.layer.{layer}.attention.self.query.weight",       # [N * H, D]
        "encoder/layer_{layer}/attention/query/kernel",            # [D, N, H]
        "transpose")

Every tensor of the folder must be named by a row or by the list of what is knowingly ignored;
every parameter must be found, save the heads that a bare encoder lacks.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping
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
FRESH = ("head/pooler/", "head/classifier/")

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of a family.

    Attributes:
      foreign: its name there; `{layer}` stands for a layer's number.
      ours: the parameter's path in the unrolled form, the same number in it.
      transform: `same`: the shapes agree, or theirs is ours flattened (a bias per head).
        `transpose`: theirs is [outputs, inputs], ours [inputs..., outputs...].
        `rows`: a table of positions, of which ours may keep only the first rows.
      inputs: how many of our first axes are inputs (transpose).
      tied: the row holds only where the language-model head is the embedding table.
    """

    foreign: str
    ours: str
    transform: str = "same"
    inputs: int = 1
    tied: bool = False

    def path(self, name: str) -> str | None:
        """Our path of the foreign tensor, None where the row is not about it."""
        found = _pattern(self.foreign).fullmatch(name)
        return found and self.ours.replace("{layer}", found[1] if found.groups() else "")

    def fits(self, foreign: Shape, ours: Shape) -> bool:
        """Whether a tensor of this foreign shape makes a parameter of our shape."""
        if self.transform == "rows":
            return len(foreign) == len(ours) and foreign[0] >= ours[0] and foreign[1:] == ours[1:]
        return foreign in (self.foreign_shape(ours), *([ours] if self.transform == "same" else []))

    def foreign_shape(self, ours: Shape) -> Shape:
        """The shape that their tensor must have for a parameter of our shape."""
        if self.transform == "transpose":
            return math.prod(ours[self.inputs:]), math.prod(ours[:self.inputs])
        return (math.prod(ours),) if self.ours.endswith("/bias") else ours

    def convert(self, array: np.ndarray, shape: Shape) -> np.ndarray:
        """Their array as our parameter of this shape."""
        if self.transform == "rows":
            return array[:shape[0]]
        return (array.T if self.transform == "transpose" else array).reshape(shape)


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
             ) -> tuple[str, Row] | None:
        """The parameter that a foreign tensor becomes, and how; None where it is not for us.

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
            path = row.path(name) or (row.path(self.prefix + name) if self.prefix else None)
            if path is None:
                continue
            if path in wanted and (tied or not row.tied):
                return path, row
            of_other_head |= path.startswith("head/") or row.tied
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
      supported: the heads that can be asked for.
    """

    model_types: tuple[str, ...]
    heads: Mapping[str, str]
    config: Callable[[Foreign, tuple[str, ...] | None], dict[str, Any]]
    table: Table
    supported: tuple[str, ...]


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
          fresh_classifier: bool) -> dict[str, list[tuple[str, Row]]]:
    """Our path → the tensors that hold it, each checked against the shape we expect."""
    sources: dict[str, list[tuple[str, Row]]] = {}
    for name in tensors.names:
        try:
            found = table.find(name, config, shapes)
        except ValueError as error:
            raise ValueError(f"unknown {tensors.describe(name)}: {error}; does config.json belong to "
                             "these weights?") from error
        if found is None or (fresh_classifier and found[0].startswith("head/classifier/")):
            continue
        path, row = found
        if not row.fits(tensors.shape(name), shapes[path]):
            raise ValueError(f"{tensors.describe(name)} has shape {tensors.shape(name)}; the "
                             f"configuration expects {row.foreign_shape(shapes[path])}")
        sources.setdefault(path, []).append((name, row))
    return sources


def _place(tensors: Tensors, sources: list[tuple[str, Row]], path: str, shape: Shape,
           mesh: Mesh | None) -> jax.Array:
    """One parameter, read, turned and put on its shards."""
    name, row = sources[0]
    array = row.convert(tensors.read(name), shape)
    for other, other_row in sources[1:]:
        if not np.array_equal(array, other_row.convert(tensors.read(other), shape)):
            raise ValueError(f"{tensors.describe(name)} and tensor {other!r} should be one and the "
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
             for row in table.rows if row.ours == general and not row.tied]
    return (f"missing tensor {' or '.join(map(repr, names))}, which becomes {path}; is the download "
            "complete, and does config.json belong to these weights?")
