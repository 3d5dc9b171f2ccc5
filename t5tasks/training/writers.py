# SPDX-License-Identifier: Apache-2.0
"""Figures of a step in, lines of metrics.jsonl, TensorBoard scalars and a progress line out."""

import json
import pathlib
import time
from collections.abc import Mapping
from typing import Any

import tensorboardX
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn


class MetricsWriter:
    """Appends to DIR/metrics.jsonl and DIR/tensorboard; only one process of a run makes one."""

    def __init__(self, folder: pathlib.Path, from_step: int) -> None:
        """Drops what an interrupted run wrote after the step that is now continued from."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines() if _step(line) <= from_step]
            path.write_text("".join(line + "\n" for line in lines))
        self._lines = path.open("a")
        self._board = tensorboardX.SummaryWriter(str(folder / "tensorboard"), purge_step=from_step + 1)

    def write(self, step: int, kind: str, figures: Mapping[str, float]) -> None:
        """One line {"step", "kind", ...} and one scalar `kind/name` a figure."""
        self._lines.write(json.dumps({"step": step, "kind": kind, **figures}) + "\n")
        self._lines.flush()
        for name, value in figures.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)

    def close(self) -> None:
        self._lines.close()
        self._board.close()


def _step(line: str) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 2**62  # half a line, from a run that was killed while writing it


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    minutes, rest = divmod(int(max(seconds, 0)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class ProgressLine:
    """A bar on a terminal; elsewhere a plain line now and then. A total of 0 is one not known."""

    def __init__(self, title: str, total: int, completed: int, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet)
        self._title, self._total, self._printed = title, total, 0.0
        self._began, self._began_at = time.perf_counter(), completed
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(bar_width=24),
            TextColumn("{task.fields[count]} {task.fields[text]}"), console=self.console,
            disable=not self.console.is_terminal)
        self._task = self._bar.add_task(title, total=total or None, completed=completed,
                                        count=self._count(completed), text="compiling")

    def __enter__(self) -> "ProgressLine":
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def update(self, step: int, text: str) -> None:
        self._bar.update(self._task, completed=step, count=self._count(step), text=text)
        due = time.monotonic() - self._printed > 10 or step == self._total
        if not self.console.is_terminal and due:
            self._printed = time.monotonic()
            self.console.print(f"{self._title} {self._count(step)} {text}", soft_wrap=True, highlight=False)

    def tell(self, done: int, what: str = "") -> None:
        """`update` with how many a second since the line began and the time left (gone, of an unknown total)."""
        seconds = time.perf_counter() - self._began
        rate = max(done - self._began_at, 1) / max(seconds, 1e-9)
        time_told = f"{clock((self._total - done) / rate)} left" if self._total else clock(seconds)
        self.update(done, f"{what}{', ' if what else ''}{rate:,.1f} a second, {time_told}")

    def _count(self, step: int) -> str:
        return f"{step}/{self._total}" if self._total else str(step)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._bar.console.print(text, soft_wrap=True, highlight=False)
