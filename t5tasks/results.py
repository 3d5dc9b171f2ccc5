# SPDX-License-Identifier: Apache-2.0
"""A cell of a sweep in, its trained model, scores and predictions out, as files that say what is there already.

    DIR/trained/ID/        a workdir of t5tasks.train, shared by the cells that train alike; done.json when it has ended
    DIR/cells/ID/          config.json, output.txt (what it printed, all attempts), and when it is done, last of all
                           result.json, with records.jsonl (each test record, its prediction and score) and counts.npz
                           (what each record adds to the metric's counts)
"""

import dataclasses
import json
import os
import pathlib
import time
from typing import Any

import numpy as np

from t5tasks import cells, configuration, evaluate, experiment, tasks, train
from t5tasks.cells import Cell
from t5tasks.metrics import statistics
from t5tasks.metrics.counts import Counts, total
from t5tasks.tasks.task import Options, Prediction, Record, Task


@dataclasses.dataclass(frozen=True)
class Places:
    """Where a sweep's cells are."""

    folder: pathlib.Path

    def cell(self, cell: Cell) -> pathlib.Path:
        return self.folder / "cells" / cell.id

    def trained(self, cell: Cell) -> pathlib.Path:
        return self.folder / "trained" / cell.training_id

    def result(self, cell: Cell) -> dict[str, Any] | None:
        """What `run` wrote; None while it has not ended."""
        path = self.cell(cell) / "result.json"
        return json.loads(path.read_text()) if path.exists() else None

    def is_trained(self, cell: Cell) -> bool:
        return (self.trained(cell) / "done.json").exists()

    def records(self, cell: Cell) -> list[dict[str, Any]]:
        """{"record", "prediction", "score"} of each test record of a cell that is done."""
        lines = (self.cell(cell) / "records.jsonl").read_text("utf-8").splitlines()
        return [json.loads(line) for line in lines]

    def counts(self, cell: Cell) -> dict[str, np.ndarray]:
        """The counts of each test record, [N, ...] a name."""
        with np.load(self.cell(cell) / "counts.npz", allow_pickle=False) as stacked:
            return dict(stacked)

    def metrics(self, cell: Cell, kind: str) -> list[dict[str, Any]]:
        """The lines of a kind, train or validation, that its training has written so far."""
        path = self.trained(cell) / "metrics.jsonl"
        if not path.exists():
            return []
        lines = path.read_text().split("\n")[:-1]  # what follows the last line's end is half a line
        return [entry for entry in map(json.loads, lines) if entry["kind"] == kind]


def run(cell: Cell, folder: pathlib.Path) -> None:
    """Trains a cell unless that has been done, evaluates it and writes its result.

    Raises:
      ValueError: as `train` and `evaluate`.
    """
    places = Places(folder)
    own, trained = places.cell(cell), places.trained(cell)
    experiment.write_json(own / "config.json", cell.settings)
    if not places.is_trained(cell):
        train.train(configuration.from_plain(cell.training), trained)
        experiment.write_json(trained / "done.json", {"training": cell.training_id})
    seen: list[tuple[Record, Prediction, Counts]] = []
    started = time.perf_counter()
    result = evaluate.evaluate(configuration.from_plain(cell.settings), trained,
                               tell=lambda *counted: seen.append(counted))
    seconds = time.perf_counter() - started
    task, options = counting(cell, places)
    result |= {"task": task.name, "higher_is_better": task.higher_is_better,
               "records": cells.digest([_shown(record) for record, _, _ in seen]),
               "cost": {**training_cost(places.metrics(cell, "train")), "evaluation_seconds": seconds}}
    arrays: dict[str, Any] = dict(statistics.stack([counts for _, _, counts in seen]))
    np.savez_compressed(own / "counts.npz", allow_pickle=False, **arrays)
    _write_lines(own / "records.jsonl", [
        {"record": _shown(record), "prediction": _shown(prediction), "score": score(task, options, counts)}
        for record, prediction, counts in seen])
    experiment.write_json(own / "result.json", result)


def counting(cell: Cell, places: Places) -> tuple[Task, Options]:
    """The task of a trained cell and its options, with what its training records told, as `Task.figures` needs them."""
    config = configuration.from_plain(cell.settings)
    options = experiment.known_options(config, experiment.saved_config(places.trained(cell)))
    return tasks.get(config.task.name, config.task), options


def score(task: Task, options: Options, counts: Counts) -> float | None:
    """The task's metric of some counts; None where they have none (no entity is present, or it is of tokens)."""
    try:
        return task.figures(counts, options).get(task.metric)
    except ValueError:
        return None


def figure(task: Task, options: Options, stacked: dict[str, np.ndarray]) -> float | None:
    """The metric of all records' counts, as `score`."""
    return score(task, options, total({name: value[index] for name, value in stacked.items()}
                                      for index in range(len(next(iter(stacked.values()), ())))))


def training_cost(lines: list[dict[str, Any]]) -> dict[str, float]:
    """Steps, seconds (compilation with them, evaluations and saves not) and operations of a training.

    Each line speaks for the steps since the one before, so that an interrupted training counts in full.
    """
    steps = seconds = flops = 0.0
    for line in lines:
        taken, steps = line["step"] - steps, line["step"]
        seconds += taken * line["seconds_per_step"]
        flops += taken * line["flops_per_step"]
    return {"steps": steps, "training_seconds": seconds, "training_flops": flops}


def _shown(value: Any) -> Any:
    """A record or prediction as JSON has it; of images and the like the type."""
    return json.loads(json.dumps(value, default=lambda other: f"({type(other).__name__})"))


def _write_lines(path: pathlib.Path, values: list[Any]) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text("".join(json.dumps(value, ensure_ascii=False) + "\n" for value in values), "utf-8")
    partial.replace(path)
