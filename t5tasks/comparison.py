# SPDX-License-Identifier: Apache-2.0
"""The cells of a sweep that are done in, a line for all seeds of each out, compared with the first.

Two things are said of a difference. The interval of a line's score is over its seeds: how much training varies. The
paired test is over the test records, with the models as they came out: how much the choice of records does.
"""

import dataclasses
import itertools
import json
import shlex
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from t5tasks import results
from t5tasks.cells import Cell, Overrides
from t5tasks.metrics import statistics
from t5tasks.metrics.statistics import Interval
from t5tasks.results import Places

EXAMPLES = 6


@dataclasses.dataclass(frozen=True)
class Against:
    """A line against the baseline: its score minus the baseline's over the seeds that both have."""

    difference: float
    low: float  # of the 95 % interval over records drawn with replacement
    high: float
    p: float  # of the paired permutation test


@dataclasses.dataclass(frozen=True)
class Line:
    """All seeds of a cell that are done."""

    name: str
    cells: tuple[Cell, ...]
    results: tuple[dict[str, Any], ...]
    scores: tuple[float, ...]
    interval: Interval
    against: Against | None  # None for the baseline itself, and where `untested` says why
    untested: str = ""

    @property
    def metric(self) -> str:
        return self.results[0]["metric"]

    def mean(self, *path: str) -> float:
        """The mean over seeds of a number of the results."""
        values = []
        for result in self.results:
            value: Any = result
            for name in path:
                value = value[name]
            values.append(float(value))
        return float(np.mean(values))


def lines(cells: Iterable[Cell], places: Places) -> list[Line]:
    """A line for each name among the cells, in their order; those without a finished seed are left out."""
    cells = list(cells)
    grouped: dict[str, list[tuple[Cell, dict[str, Any]]]] = {}
    for cell in cells:
        result = places.result(cell)
        if result is not None:
            grouped.setdefault(cell.name, []).append((cell, result))
    baseline = grouped.get(cells[0].name) if cells else None
    return [_line(name, found, baseline, places) for name, found in grouped.items()]


def _line(name: str, found: list[tuple[Cell, dict[str, Any]]], baseline: list[tuple[Cell, dict[str, Any]]] | None,
          places: Places) -> Line:
    scores = tuple(float(result["figures"][result["metric"]]) for _, result in found)
    against, untested = None, ""
    if baseline is None:
        untested = "the baseline is not done"
    elif baseline is not found:
        against, untested = _compare(found, baseline, places)
    return Line(name, tuple(cell for cell, _ in found), tuple(result for _, result in found), scores,
                statistics.t_interval(scores), against, untested)


def _compare(ours: list[tuple[Cell, dict[str, Any]]], theirs: list[tuple[Cell, dict[str, Any]]], places: Places
             ) -> tuple[Against | None, str]:
    pairs = [(mine, other) for mine, _ in ours for other, _ in theirs if mine.seed == other.seed]
    if not pairs:
        return None, "no seed is that of a baseline"
    (_, first), (_, second) = ours[0], theirs[0]
    for name in ("task", "metric", "records"):
        if first[name] != second[name]:
            return None, f"other {'test records' if name == 'records' else name}"
    task, options = results.counting(pairs[0][0], places)
    sides = [[places.counts(cell) for cell in side] for side in zip(*pairs, strict=True)]
    shapes = {tuple((name, value.shape) for name, value in counts.items()) for side in sides for counts in side}
    if len(shapes) != 1:
        return None, "its counts are of another shape"
    mine, other = ({name: sum((counts[name] for counts in side[1:]), side[0][name]) for name in side[0]}
                   for side in sides)
    if results.figure(task, options, mine) is None:
        return None, f"{task.metric} is not counted by record"

    def figure(counts: Any) -> float:
        return float(results.score(task, options, counts) or 0.0)  # of a draw without a single entity, say

    difference = figure(_total(mine)) - figure(_total(other))
    low, high = statistics.paired_bootstrap(figure, mine, other)
    return Against(difference, low, high, statistics.paired_permutation(figure, mine, other)), ""


def _total(stacked: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: value.sum(axis=0) for name, value in stacked.items()}


def best(found: Sequence[Line]) -> Line:
    """The line with the best mean, the first of equals."""
    pick = max if found[0].results[0]["higher_is_better"] else min
    return pick(found, key=lambda line: line.interval.mean)


def command(cell: Cell, workdir: str) -> str:
    """What trains a cell and scores it again, without the sweep, as two commands for a shell."""
    def flags(given: Overrides) -> list[str]:
        return [shlex.quote(f"--config.{name}={tuple(value) if isinstance(value, list) else value}")
                for name, value in given.items()]

    begin = [f"--config={shlex.quote(cell.base)}", f"--workdir={shlex.quote(workdir)}"]
    return "\n".join(" ".join(["python -m", f"t5tasks.{verb}", *begin, *flags(given)])
                     for verb, given in (("train", cell.trained_by), ("evaluate", cell.given)))


@dataclasses.dataclass(frozen=True)
class Curve:
    """The validation score of a training by step, the mean of its seeds."""

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


def curves(found: Sequence[Line], places: Places) -> tuple[str, list[Curve]]:
    """The figure's name, the metric or else the loss, and a curve for each training; lines that share it are joined."""
    named: dict[tuple[str, ...], tuple[list[str], list[list[dict[str, Any]]]]] = {}
    for line in found:
        key = tuple(sorted(cell.training_id for cell in line.cells))
        names, _ = named.setdefault(key, ([], [places.metrics(cell, "validation") for cell in line.cells]))
        names.append(line.name)
    entries = [entry for _, seeds in named.values() for seed in seeds for entry in seed]
    metrics = {line.metric for line in found}
    metric = metrics.pop() if len(metrics) == 1 else "loss"
    shown = metric if all(metric in entry for entry in entries) else "loss"
    made = []
    for names, seeds in named.values():
        steps = sorted(set.intersection(*({int(entry["step"]) for entry in seed} for seed in seeds)))
        values = [float(np.mean([entry[shown] for seed in seeds for entry in seed if entry["step"] == step]))
                  for step in steps]
        made.append(Curve(" / ".join(names), tuple(steps), tuple(values)))
    return shown, made


@dataclasses.dataclass(frozen=True)
class Disagreement:
    """A test record of which lines make different things: each line's prediction and score, of its first seed."""

    number: int
    record: dict[str, Any]
    answers: tuple[tuple[str, dict[str, Any], float | None], ...]


def disagreements(found: Sequence[Line], places: Places, count: int = EXAMPLES) -> list[Disagreement]:
    """The records of which scores differ most, first those of which each line is the better one in turn."""
    if len(found) < 2 or len({line.results[0]["records"] for line in found}) > 1:
        return []
    rows = list(zip(*(places.records(line.cells[0]) for line in found), strict=True))
    spreads = {}
    for number, row in enumerate(rows):
        scores = [each["score"] for each in row]
        known = [score for score in scores if score is not None]
        if len(known) == len(scores) and max(known) > min(known):
            spreads[number] = (int(np.argmax(scores)), max(known) - min(known))
        elif not known and any(each["prediction"] != row[0]["prediction"] for each in row):
            spreads[number] = (0, 0.0)
    ranked = [sorted((number for number, (winner, _) in spreads.items() if winner == line),
                     key=lambda number: (-spreads[number][1], number)) for line in range(len(found))]
    turns = [number for turn in itertools.zip_longest(*ranked) for number in turn if number is not None]
    return [Disagreement(number, rows[number][0]["record"],
                         tuple((line.name, each["prediction"], each["score"])
                               for line, each in zip(found, rows[number], strict=True))) for number in turns[:count]]


def environments(found: Sequence[Line], places: Places) -> list[tuple[dict[str, Any], list[str]]]:
    """Each environment that trained cells, with their labels; the command is left out."""
    grouped: dict[str, list[str]] = {}
    for cell in (cell for line in found for cell in line.cells):
        path = places.trained(cell) / "environment.json"
        environment = json.loads(path.read_text()) if path.exists() else {}
        environment.pop("command", None)
        grouped.setdefault(json.dumps(environment, sort_keys=True), []).append(cell.label)
    return [(json.loads(environment), labels) for environment, labels in grouped.items()]
