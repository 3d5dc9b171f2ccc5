# SPDX-License-Identifier: Apache-2.0
"""A config file with a sweep() in; every cell of it trained and scored, as a table and a report, out.

    python -m t5tasks.sweep --config=configs/ablations/NAME.py --workdir=DIR [--only=REGEX] [--workers=N] [--dry_run]
    python -m t5tasks.sweep --config=FILE --workdir=DIR --runner=slurm|tpu|gke [--resource=...] [--dry_run]

How a sweep() is written stands in t5tasks/cells.py, what the workdir holds in t5tasks/results.py. Run again, the same
command runs what is missing and goes on with what was interrupted; --config.NAME=VALUE holds in every cell.
"""

import pathlib
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags
from rich.console import Console
from rich.live import Live
from rich.table import Table

from t5tasks import cells, command, comparison, sweep_report, workers
from t5tasks.cells import Cell
from t5tasks.results import Places
from t5tasks.schedule import FAILED, HEADINGS, Schedule
from t5tasks.training.writers import clock


class Status:
    """The status table: kept up to date on a terminal; elsewhere a line whenever a cell's state changes."""

    def __init__(self, schedule: Schedule, count: int) -> None:
        self._schedule, self._count, self._started = schedule, count, time.perf_counter()
        self._at_first = schedule.left
        self._console = Console(soft_wrap=True)
        self._live = Live(console=self._console, auto_refresh=False) if self._console.is_terminal else None
        self._told: dict[str, str] = {}

    def __enter__(self) -> "Status":
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._live:
            self._live.stop()

    def show(self) -> None:
        standings = [self._schedule.standing(cell) for cell in self._schedule.cells.values()]
        if self._live:
            table = Table(*HEADINGS, title=self._title())
            for standing in standings:
                table.add_row(*standing.columns())
            self._live.update(table, refresh=True)
            return
        for standing in standings:
            if self._told.get(standing.cell.id) != standing.state:
                self._told[standing.cell.id] = standing.state
                self._console.print("  ".join(filter(None, standing.columns()[:4])), markup=False, highlight=False)

    def _title(self) -> str:
        done, left = self._at_first - self._schedule.left, self._schedule.left
        text = f"{len(self._schedule.cells) - left} of {len(self._schedule.cells)} cells, {self._count} at a time"
        if done and left:
            text += f", about {clock((time.perf_counter() - self._started) / done * left)} left"
        return text


def run(schedule: Schedule, count: int) -> None:
    """Runs the cells to their end; whatever ends it early, no process is left behind."""
    try:
        with Status(schedule, count) as status:
            status.show()
            while schedule.left:
                schedule.step()
                status.show()
    finally:
        schedule.stop()


def matching(found: Iterable[Cell], only: str) -> list[Cell]:
    """The cells whose label or id the expression finds; ValueError where it finds none, or is none."""
    found = list(found)
    try:
        chosen = [cell for cell in found if re.search(only, cell.label) or re.search(only, cell.id)]
    except re.error as error:
        raise ValueError(f"--only={only} is no regular expression: {error}") from error
    if not chosen:
        raise ValueError(f"--only={only} matches none of {', '.join(cell.label for cell in found)}")
    return chosen


def listing(found: Iterable[Cell], schedule: Schedule) -> Table:
    """What would be run, and what is there."""
    table = Table("cell", "id", "training", "state")
    for cell in found:
        table.add_row(cell.label, cell.id, cell.training_id, schedule.standing(cell).state)
    return table


def tell(found: Sequence[Cell], folder: pathlib.Path, path: str, console: Console) -> None:
    """Writes the report of what is done and shows its table."""
    lines = comparison.lines(found, Places(folder))
    if not lines:
        return
    page = sweep_report.write(lines, found, folder, f"{pathlib.Path(path).stem}: a sweep")
    table = Table(*sweep_report.HEADINGS[:7])
    for line in lines:
        table.add_row(*sweep_report.columns(line)[:7])
    console.print(table)
    console.print(f"report: {page}", markup=False)


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    command.config_flag()
    flags.DEFINE_string("workdir", None, "folder of the sweep: cells, trained models and the report")
    flags.DEFINE_string("only", "", "regular expression on a cell's name or id")
    flags.DEFINE_integer("workers", 0, "cells at a time; 0 for one a core, one on an accelerator", lower_bound=0)
    flags.DEFINE_integer("retries", 1, "how often a cell that crashed is tried again", lower_bound=0)
    flags.DEFINE_bool("dry_run", False, "show the cells, and the commands of another runner, and run nothing")


def overridden() -> tuple[str, Mapping[str, Any]]:
    """The config file's path and the settings that the command line gives."""
    flag = flags.FLAGS["config"]
    return config_flags.get_config_filename(flag), config_flags.get_override_values(flag)


def main(_: list[str]) -> None:
    """The verb."""
    given = flags.FLAGS
    if given.config is None or not given.workdir:
        raise ValueError("sweep needs --config=FILE and --workdir=DIR")
    path, settings = overridden()
    folder, console = pathlib.Path(given.workdir), Console(soft_wrap=True)
    found = cells.read(path, settings)
    assert not isinstance(found, cells.Search)
    chosen = matching(found, given.only)
    count = given.workers or (1 if given.dry_run else min(workers.sensible(), len(chosen)))
    schedule = Schedule(chosen, folder, count, given.retries)
    if given.dry_run:
        console.print(listing(chosen, schedule))
        return
    try:
        run(schedule, count)
    finally:
        tell(found, folder, path, console)
    failed = [cell for cell in chosen if schedule.standing(cell).state == FAILED]
    if failed:
        first = failed[0]
        raise ValueError(f"{len(failed)} of {len(chosen)} cells failed; {first.label}: {schedule.errors[first.id]} "
                         f"(its log is {schedule.places.cell(first) / 'output.txt'})")


if __name__ == "__main__":
    define_flags()
    command.run(main)
