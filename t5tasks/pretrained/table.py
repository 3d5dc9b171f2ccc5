# SPDX-License-Identifier: Apache-2.0
"""A tensor's name in a folder in, the parameters that it holds and how it holds them out.

A table says, row by row, which foreign tensor becomes which of our parameters and how:

    Row("encoder.layer.{layer}.attention.self.query.weight",       # [N * H, D]
        "encoder/layer_{layer}/attention/query/kernel",            # [D, N, H]
        "transpose")

Some families keep several linear maps in one tensor; such a row leads to several parameters:

    Row("model.layers.{layer}.mlp.gate_up_proj.weight",            # [2 F, D]
        ("decoder/layer_{layer}/feed_forward/gate/kernel",         # [D, F]
         "decoder/layer_{layer}/feed_forward/up/kernel"),
        "transpose")

Every tensor of the folder must be named by a row or by the list of what is knowingly ignored. A
row sees a tensor as our parameter without moving a number, so that one rule both reads and writes.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from t5tasks.models.config import ModelConfig
from t5tasks.pretrained.fields import Foreign

Shape = tuple[int, ...]
Config = Callable[[Foreign, tuple[str, ...] | None], dict[str, Any]]
Where = Callable[[ModelConfig], bool]


@dataclasses.dataclass(frozen=True)
class Row:
    """One tensor of a family.

    Attributes:
      foreign: its name there; `{layer}` stands for a layer's number.
      ours: the parameter's path in the unrolled form, the same number in it; several paths where
        the tensor holds several parameters, one after another along its outputs.
      transform: `same`: the shapes agree, or theirs is ours flattened (a bias per head), also
        behind first axes of 1. `transpose`: theirs is [outputs, inputs], ours [inputs...,
        outputs...]. `flat`: theirs is [inputs, outputs]. `convolution`: theirs is [D, channels,
        height, width], ours [height, width, channels, D]. `rows`: a table of positions, of which
        ours may keep only the first rows.
      inputs: how many of our first axes are inputs (transpose, flat).
      interleaved: the parameters take turns head by head (GPT-NeoX).
      tied: the row holds only where the language-model head is the embedding table.
      ones: how many first axes of 1 theirs has, where no folder tells (same).
      where: of which models it is the name, where several rows lead to one parameter and no folder
        tells which is meant; None for any.
    """

    foreign: str
    ours: str | tuple[str, ...]
    transform: str = "same"
    inputs: int = 1
    interleaved: bool = False
    tied: bool = False
    where: Where | None = None
    ones: int = 0

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
            ones = len(foreign) - len(ours[0])
            return foreign in ((1,) * ones + ours[0], self.foreign_shape(ours))
        return foreign == self.foreign_shape(ours)

    def foreign_shape(self, ours: Sequence[Shape]) -> Shape:
        """The shape that their tensor must have for parameters of our shapes."""
        if self.transform == "convolution":
            return ours[0][::-1][:2] + ours[0][:2]
        outputs = sum(math.prod(shape[self.inputs:]) for shape in ours)
        if self.transform in ("transpose", "flat"):
            inputs = math.prod(ours[0][:self.inputs])
            return (inputs, outputs) if self.transform == "flat" else (outputs, inputs)
        shape = (sum(map(math.prod, ours)),) if self.parts[0].endswith("/bias") else ours[0]
        return (1,) * self.ones + shape

    def view(self, array: np.ndarray, ours: Sequence[Shape], part: int) -> np.ndarray:
        """Their array seen as the one of our parameters that it holds as that part.

        No number moves: what is written to the view of an empty array makes it theirs.
        """
        if self.transform == "rows":
            return array[:ours[part][0]]
        if self.transform == "convolution":
            return array.transpose(2, 3, 1, 0)
        turned = self.transform in ("transpose", "flat")
        array = array.T if self.transform == "flat" else array  # outputs first
        inputs = self.inputs if turned else 0
        if self.interleaved:
            heads, size = ours[part][-2:]
            array = array.reshape(heads, len(ours), size, *array.shape[1:], copy=False)[:, part]
        elif len(ours) > 1:
            ends = np.cumsum([0] + [math.prod(shape[inputs:]) for shape in ours])
            array = array[ends[part]:ends[part + 1]]
        shape = ours[part][inputs:] + ours[part][:inputs]
        outputs = len(shape) - inputs
        return array.reshape(shape, copy=False).transpose(*range(outputs, len(shape)), *range(outputs))


def linear(foreign: str, ours: str, inputs: int = 1, where: Where | None = None) -> tuple[Row, Row]:
    """The rows of a PyTorch linear map: weight [outputs, inputs] and bias."""
    return (Row(f"{foreign}.weight", f"{ours}/kernel", "transpose", inputs, where=where),
            Row(f"{foreign}.bias", f"{ours}/bias", where=where))


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
        name = self._renamed(name)
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

    def full_name(self, name: str, row: Row) -> str:
        """What the row calls a tensor that `find` found: without older spelling, with the prefix."""
        name = self._renamed(name)
        return name if row.paths(name) else self.prefix + name

    def _renamed(self, name: str) -> str:
        for pattern, replacement in self.renames:
            name = re.sub(pattern, replacement, name)
        return name


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
      written: ModelConfig → the fields of a config.json for a model that came from no folder; what
        they cannot say need not be looked at. None where such a model is not written so.
    """

    model_types: tuple[str, ...]
    heads: Mapping[str, str]
    config: Config
    table: Table
    supported: Mapping[str, Mapping[str, Any]]
    padding: Callable[[Foreign], int] | None = None
    written: Callable[[ModelConfig], dict[str, Any]] | None = None
