# SPDX-License-Identifier: Apache-2.0
"""Cells of a sweep in; those that are missing are run beside each other, and how each stands comes out.

Two sweeps on one folder share the work: a cell, and a training that several cells share, is locked by the sweep that
runs it, and the others take what is left, then wait.
"""

import collections
import dataclasses
import json
import pathlib
from collections.abc import Iterable

from t5tasks import results, workers
from t5tasks.cells import Cell
from t5tasks.results import Places
from t5tasks.training.lock import Lock
from t5tasks.training.writers import clock

WAITING, TRAINING, EVALUATING, ELSEWHERE = "waiting", "training", "evaluating", "elsewhere"
DONE, FAILED, PRUNED = "done", "failed", "pruned"
OVER = (DONE, FAILED, PRUNED)


@dataclasses.dataclass(frozen=True)
class Standing:
    """A line of the status table."""

    cell: Cell
    state: str
    step: str = ""
    score: str = ""
    left: str = ""

    def columns(self) -> tuple[str, ...]:
        return self.cell.label, self.state, self.step, self.score, self.left


HEADINGS = ("cell", "state", "step", "score", "left")


class Schedule:
    """Runs cells until each is done or has failed once more often than `retries`."""

    def __init__(self, cells: Iterable[Cell], folder: pathlib.Path, count: int, retries: int) -> None:
        self.cells = {cell.id: cell for cell in cells}
        self.errors: dict[str, str] = {}  # of cells that failed, by id: the last error in one line
        self.places = Places(folder)
        self._workers, self._retries = workers.Workers(count), retries
        self.limit = count  # cells at a time
        self._locks: dict[str, list[Lock]] = {}  # of what this process runs
        self._attempts: collections.Counter[pathlib.Path] = collections.Counter()
        self._over = {id: DONE for id, cell in self.cells.items() if self.places.result(cell)}
        self._elsewhere: set[str] = set()

    @property
    def left(self) -> int:
        """How many cells are not over."""
        return len(self.cells) - len(self._over)

    def add(self, cell: Cell, state: str = "") -> None:
        """One more cell, or one that is over with a state."""
        self.cells[cell.id] = cell
        if state or self.places.result(cell):
            self._over[cell.id] = state or DONE

    def state(self, cell: Cell) -> str:
        """How a cell ended; empty while it has not."""
        return self._over.get(cell.id, "")

    def step(self, seconds: float = 0.5) -> list[Cell]:
        """Starts what can be, waits for `seconds` or until a cell ends, and returns those that are over since."""
        before = set(self._over)
        self._start()
        for ended in self._workers.ended(seconds):
            self._settle(ended)
        return [self.cells[id] for id in self._over if id not in before]

    def prune(self, cell: Cell) -> None:
        """Ends a cell before it is done."""
        self._workers.stop(cell.id)
        self._release(cell.id)
        self._over[cell.id] = PRUNED

    def stop(self) -> None:
        """Ends all; a later schedule goes on where they were."""
        self._workers.stop()
        for id in list(self._locks):
            self._release(id)

    def standing(self, cell: Cell) -> Standing:
        """How a cell stands, from what it has written so far."""
        result = self.places.result(cell)
        if result:
            return Standing(cell, DONE, str(result["step"]), f"{result['figures'][result['metric']]:.4g}")
        state = self._over.get(cell.id) or (ELSEWHERE if cell.id in self._elsewhere else WAITING)
        if cell.id in self._locks:
            state = EVALUATING if self.places.is_trained(cell) else TRAINING
        if state in (WAITING, FAILED):
            return Standing(cell, state)
        lines = self.places.metrics(cell, "train")
        steps = self._steps(cell)
        step = lines[-1]["step"] if lines else 0
        left = clock((steps - step) * lines[-1]["seconds_per_step"]) if lines and state == TRAINING else ""
        return Standing(cell, state, f"{step}/{steps}" if steps else "", self._validation(cell), left)

    def _steps(self, cell: Cell) -> int:
        path = self.places.trained(cell) / "plan.json"
        return int(json.loads(path.read_text())["steps"]) if path.exists() else 0

    def _validation(self, cell: Cell) -> str:
        """The latest score in training, in brackets, as it is of other records."""
        task, _ = results.counting(cell, self.places)
        scores = [entry[task.metric] for entry in self.places.metrics(cell, "validation") if task.metric in entry]
        return f"({scores[-1]:.4g})" if scores else ""

    def _start(self) -> None:
        for cell in self.cells.values():
            if not self._workers.free:
                return
            if cell.id in self._over or cell.id in self._locks:
                continue
            if self._failed(cell):
                self._over[cell.id] = FAILED
                self.errors.setdefault(cell.id, "its training failed, see the other cells of it")
                continue
            self._take(cell)

    def _take(self, cell: Cell) -> None:
        """Starts a cell unless another runs it, or the training that it shares."""
        folders = [self.places.cell(cell), *(() if self.places.is_trained(cell) else (self.places.trained(cell),))]
        taken: list[Lock] = []
        for folder in folders:
            try:
                taken.append(Lock.take(folder / "lock"))
            except BlockingIOError:
                for other in taken:
                    other.release()
                ours = any(running.training_id == cell.training_id for running in map(self.cells.get, self._locks)
                           if running is not None)
                if not ours:
                    self._elsewhere.add(cell.id)
                return
        self._elsewhere.discard(cell.id)
        self._locks[cell.id] = taken
        if self.places.result(cell):  # made elsewhere since
            self._release(cell.id)
            self._over[cell.id] = DONE
            return
        self._workers.start(cell.id, self.places.cell(cell) / "output.txt", results.run, cell, self.places.folder)

    def _settle(self, ended: workers.Ended) -> None:
        cell = self.cells[ended.name]
        self._release(cell.id)
        if self.places.result(cell):
            self._over[cell.id] = DONE
            self.errors.pop(cell.id, None)
            return
        self._attempts[self._attempted(cell)] += 1
        self.errors[cell.id] = ended.error or "it ended without a result"
        if self._failed(cell):
            self._over[cell.id] = FAILED

    def _attempted(self, cell: Cell) -> pathlib.Path:
        """What an attempt was at: the cells of a training share theirs."""
        return self.places.cell(cell) if self.places.is_trained(cell) else self.places.trained(cell)

    def _failed(self, cell: Cell) -> bool:
        return self._attempts[self._attempted(cell)] > self._retries

    def _release(self, id: str) -> None:
        for lock in self._locks.pop(id, []):
            lock.release()
