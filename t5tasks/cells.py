# SPDX-License-Identifier: Apache-2.0
"""A config file with a sweep() in, the cells of its table out: resolved configs, each with an id and a name.

A file defines get_config(), the settings that cells have in common, and sweep(), a list of what each changes:

    def sweep():
        from t5tasks.cells import named, product, seeds, values
        return product(named({"encoder": {"architecture": "encoder"}, "decoder": {"architecture": "decoder"}}),
                       values("optimizer.learning_rate", [1e-3, 3e-3]), seeds(3))

A cell is a dict: "optimizer.learning_rate" and the like are settings; "config" is another config file (its path from
the sweep's file) to begin from instead, as another task has to; "name" is what the table calls it, otherwise its
settings. Cells that differ in `seed` alone are one line of the table. The first cell is the baseline.

A cell's id is a hash of its resolved settings, so neither the order of keys nor names of files matter. What only acts
when answers are made (`decode`, `data.test` and what the task lists as `Task.answering`) is no part of its training:
cells that differ in it alone share one trained model, which was trained and whose best checkpoint was picked with
what their common base says.
"""

import dataclasses
import hashlib
import itertools
import json
import math
import pathlib
import random
import runpy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import ml_collections

from t5tasks import configuration, tasks
from t5tasks.data.text_files import nearest

Overrides = dict[str, Any]
RESERVED = ("name", "config")


@dataclasses.dataclass(frozen=True)
class Cell:
    """One run of a sweep. The dicts are settings as `configuration.plain` gives them."""

    name: str  # of its line in the table: all of its seeds have it
    overrides: Overrides
    settings: dict[str, Any]
    training: dict[str, Any]  # the settings that it is trained with
    base: str  # the config file that it begins from
    given: Overrides  # the settings that it changes there, those of the command line too
    trained_by: Overrides  # those of them that it is trained with

    @property
    def id(self) -> str:
        return digest(self.settings)

    @property
    def training_id(self) -> str:
        return digest(self.training)

    @property
    def seed(self) -> int:
        return int(self.settings["seed"])

    @property
    def label(self) -> str:
        """The name with the seed, what `--only` is matched with."""
        return f"{self.name}, seed={self.seed}" if "seed" in self.overrides else self.name


@dataclasses.dataclass(frozen=True)
class Search:
    """A space to look for the best in, see t5tasks/search.py; `fixed` is what all trials have."""

    space: Mapping[str, "Range"]
    trials: int
    prune: bool
    fixed: Overrides
    seed: int


@dataclasses.dataclass(frozen=True)
class Range:
    """Values that a setting may take: from low to high, or one of the options."""

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    options: tuple[Any, ...] = ()


# What a sweep() is written with.


def values(setting: str, choices: Iterable[Any]) -> list[Overrides]:
    """[{setting: choice}, ...]."""
    return [{setting: choice} for choice in choices]


def seeds(count: int) -> list[Overrides]:
    """[{"seed": 0}, {"seed": 1}, ...]."""
    return values("seed", range(count))


def named(cells: Mapping[str, Overrides]) -> list[Overrides]:
    """The cells, each called by its key."""
    return [{**overrides, "name": name} for name, overrides in cells.items()]


def log_uniform(setting: str, low: float, high: float, count: int, seed: int = 0) -> list[Overrides]:
    """`count` samples of a setting, the same each time, whose logarithm is uniform between those of low and high.

    They are given with three digits, as one would write them. Raises ValueError unless 0 < low < high.
    """
    _check_range(setting, low, high, log=True)
    generator = random.Random(seed)
    return values(setting, [float(f"{math.exp(generator.uniform(math.log(low), math.log(high))):.3g}")
                            for _ in range(count)])


def product(*axes: Sequence[Overrides]) -> list[Overrides]:
    """Every combination of a cell of each axis, the last axis changing fastest; ValueError for a setting of two."""
    return [_joined(parts) for parts in itertools.product(*axes)]


def zipped(*axes: Sequence[Overrides]) -> list[Overrides]:
    """The first cells of all axes together, the second ones, and so on; ValueError where one axis is longer."""
    if len({len(axis) for axis in axes}) > 1:
        raise ValueError(f"axes of {' and '.join(str(len(axis)) for axis in axes)} cells cannot be zipped; "
                         "give all the same number, or use product")
    return [_joined(parts) for parts in zip(*axes, strict=True)]


def uniform(low: float, high: float, log: bool = False) -> Range:
    """A range for `search`; ValueError unless low < high, and 0 < low where log."""
    _check_range("a range", low, high, log)
    return Range(low, high, log)


def choice(*options: Any) -> Range:
    """Options for `search`."""
    return Range(options=options)


def search(space: Mapping[str, Range], trials: int, prune: bool = True, seed: int = 0, **fixed: Any) -> Search:
    """What a sweep() may return in place of cells: so many trials of settings that Optuna draws.

    Args:
      prune: end a trial early where its validation score is below the median of others at that step.
      fixed: as in a cell; names with a dot need `**{"train.steps": 100}`.
    """
    if trials < 1 or not space:
        raise ValueError(f"a search of {trials} trials over {len(space)} settings; expected one or more of both")
    return Search(dict(space), trials, prune, dict(fixed), seed)


def _joined(parts: Iterable[Overrides]) -> Overrides:
    joined: Overrides = {}
    for part in parts:
        if both := joined.keys() & part.keys() - {"name"}:
            raise ValueError(f"{min(both)!r} is set by two axes of a sweep; let one of them set it")
        name = ", ".join(filter(None, (joined.get("name"), part.get("name"))))
        joined = {**joined, **part} | ({"name": name} if name else {})
    return joined


def _check_range(what: str, low: float, high: float, log: bool) -> None:
    if not low < high or (log and low <= 0):
        raise ValueError(f"{what} is from {low} to {high}; expected {'0 < ' if log else ''}low < high")


# From what it returned to cells.


def digest(values: Any) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


def read(path: str, flags: Mapping[str, Any] | None = None) -> list[Cell] | Search:
    """The cells of a config file's sweep(), or the search that it describes.

    Args:
      flags: settings given on the command line, which hold in every cell.

    Raises:
      ValueError: in one line: no sweep(), a setting that is none, two cells that are the same.
    """
    configuration.read(path)  # tells what is wrong with the file by its line
    define = None if path.endswith(".json") else runpy.run_path(path).get("sweep")
    if define is None:
        raise ValueError(f"{path} has no sweep(); a config file defines it beside get_config(), see t5tasks/cells.py")
    try:
        made = define()
    except Exception as error:
        raise ValueError(f"{path}: sweep() fails: {type(error).__name__}: {error}") from error
    return made if isinstance(made, Search) else expand(path, made, flags)


def expand(path: str, made: Sequence[Overrides], flags: Mapping[str, Any] | None = None) -> list[Cell]:
    """A sweep's cells, resolved; see `read`."""
    if not made or not all(isinstance(overrides, Mapping) for overrides in made):
        raise ValueError(f"{path}: sweep() gives {made!r:.60}; expected a list of dicts, one a cell")
    known: dict[str, Cell] = {}
    shared = {name for name in made[0] if all(other.get(name) == made[0][name] for other in made)}
    for overrides in made:
        cell = resolve(path, overrides, flags or {}, _name(overrides, shared if len(made) > 1 else set()))
        if (twin := known.setdefault(cell.id, cell)) is not cell:
            raise ValueError(f"{path}: the cells {twin.label!r} and {cell.label!r} are the same config"
                             + (", as flags hold in every cell" if flags else ""))
    lines: dict[str, str] = {}
    for cell in known.values():
        line = digest({**cell.settings, "seed": 0})
        if lines.setdefault(cell.name, line) != line:
            raise ValueError(f"{path}: two cells that differ in more than their seed are called {cell.name!r}; "
                             "give each a name of its own")
    return list(known.values())


def resolve(path: str, overrides: Overrides, flags: Mapping[str, Any], name: str) -> Cell:
    """One cell; ValueError for a setting that is unknown or of a wrong type."""
    base = path
    if "config" in overrides:
        base = str(pathlib.Path(path).parent / overrides["config"])
    config = configuration.read(base)
    for setting, value in flags.items():
        put(config, setting, value, "--config.")
    training = config.copy_and_resolve_references()
    own = {setting: value for setting, value in overrides.items() if setting not in RESERVED and setting not in flags}
    trained_by = {setting: value for setting, value in own.items() if not _answers(config, setting)}
    for settings, changed in ((config, own), (training, trained_by)):
        for setting, value in changed.items():
            put(settings, setting, value, f"{path}: cell {name!r}: ")
    tasks.get(config.task.name).form(config.architecture)
    return Cell(name, dict(overrides), configuration.plain(config), configuration.plain(training), base,
                {**flags, **own}, {**flags, **trained_by})


def put(config: ml_collections.ConfigDict, setting: str, value: Any, where: str) -> None:
    """Sets one setting of a config; ValueError, beginning with `where`, for one that is none or of another type."""
    *outer, last = setting.split(".")
    inner: Any = config
    for name in outer:
        inner = inner.get(name) if isinstance(inner, ml_collections.ConfigDict) else None
    if setting == "task.name":
        raise ValueError(f"{where}{setting} cannot be set: another task has other settings; set 'config' to a file")
    if not isinstance(inner, ml_collections.ConfigDict) or last not in inner:
        every = [f"{group}.{name}" for group, held in config.items() if isinstance(held, ml_collections.ConfigDict)
                 for name in held] + [name for name, held in config.items()
                                      if not isinstance(held, ml_collections.ConfigDict)]
        raise ValueError(f"{where}no setting {setting!r}; {nearest(setting, every)}")
    try:
        inner[last] = tuple(value) if isinstance(value, list) else value
    except TypeError as error:
        raise ValueError(f"{where}{setting} is {value!r} ({type(value).__name__}), expected "
                         f"{type(inner[last]).__name__}") from error


def _answers(config: ml_collections.ConfigDict, setting: str) -> bool:
    """Whether a setting only acts when answers are made."""
    answering = {f"task.{name}" for name in tasks.get(config.task.name).answering}
    return setting.startswith("decode.") or setting == "data.test" or setting in answering


def _name(overrides: Overrides, shared: set[str]) -> str:
    """What the table calls a cell: its own name, or what it sets that not all do, the seed apart."""
    if "name" in overrides:
        return str(overrides["name"])
    told = [f"{setting.rpartition('.')[2]}={value}" for setting, value in overrides.items()
            if setting != "seed" and setting not in shared]
    return ", ".join(told) or "base"
