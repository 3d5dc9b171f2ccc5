# SPDX-License-Identifier: Apache-2.0
"""A config file with a sweep() in; every cell of it trained and scored, as a table and a report, out.

    python -m t5tasks.sweep --config=configs/ablations/NAME.py --workdir=DIR [--only=REGEX] [--workers=N] [--dry_run]
    python -m t5tasks.sweep --config=FILE --workdir=DIR --runner=slurm|tpu|gke [--resource=...] [--dry_run]

How a sweep() is written stands in t5tasks/cells.py, what the workdir holds in t5tasks/results.py. Run again, the same
command runs what is missing and goes on with what was interrupted; --config.NAME=VALUE holds in every cell.
"""

import contextlib
import pathlib
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import config_flags
from rich.console import Console
from rich.live import Live
from rich.table import Table

from t5tasks import cells, command, comparison, search, submission, sweep_report, workers
from t5tasks.cells import Cell
from t5tasks.results import Places
from t5tasks.schedule import FAILED, HEADINGS, Schedule
from t5tasks.training.writers import clock


class Status:
    """The status table: kept up to date on a terminal; elsewhere a line whenever a cell's state changes."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule, self._started = schedule, time.perf_counter()
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
        total, left = len(self._schedule.cells), self._schedule.left
        done = self._at_first - left
        text = f"{total - left} of {total} cells, {self._schedule.limit} at a time"
        if done and left:
            text += f", about {clock((time.perf_counter() - self._started) / done * left)} left"
        return text


def run(schedule: Schedule, status: Status) -> None:
    """Runs the cells to their end."""
    while schedule.left:
        schedule.step()
        status.show()


def submit(made: submission.Submission, schedule: Schedule, status: Status) -> None:
    """Hands cells to a cluster and waits for their results; interrupted, they go on there."""
    for path, text in made.files.items():
        pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
        pathlib.Path(path).write_text(text)
    for arguments in made.commands:
        if subprocess.run(arguments, check=False).returncode:
            raise ValueError(f"{shlex.join(arguments)} failed, see above")
    while any(schedule.places.result(cell) is None for cell in schedule.cells.values()):
        status.show()
        time.sleep(10)


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


def tell(found: Sequence[Cell], folder: pathlib.Path, path: str) -> None:
    """Writes the report of what is done and shows its table."""
    lines, console = comparison.lines(found, Places(folder)), Console(soft_wrap=True)
    if not lines:
        return
    page = sweep_report.write(lines, found, folder, f"{pathlib.Path(path).stem}: a sweep")
    table = Table(*sweep_report.HEADINGS)
    for line in lines:
        table.add_row(*sweep_report.columns(line))
    console.print(table)
    console.print(f"report: {page}", markup=False)


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    command.config_flag()
    flags.DEFINE_string("workdir", None, "folder of the sweep: cells, trained models and the report")
    flags.DEFINE_string("only", "", "regular expression on a cell's name or id")
    flags.DEFINE_integer("workers", 0, "cells at a time; 0 for one a core, one on an accelerator", lower_bound=0)
    flags.DEFINE_integer("retries", 1, "how often a cell that crashed is tried again", lower_bound=0)
    flags.DEFINE_enum("runner", "local", ["local", *submission.RUNNERS], "where cells run, see t5tasks/submission.py")
    flags.DEFINE_string("resource", "", "what another runner needs: options of sbatch, TPU VMs, or an image")
    flags.DEFINE_bool("report", True, "write the report at the end")
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
    folder = pathlib.Path(given.workdir)
    made = cells.read(path, settings)
    if isinstance(made, cells.Search):
        if given.only or given.runner != "local" or given.dry_run:
            raise ValueError("a search draws its cells one after another: it has no --only, --dry_run or other "
                             "--runner")
        search.require()
        schedule = Schedule([], folder, min(given.workers or workers.sensible(), made.trials), given.retries)
        with ending(schedule, lambda: list(schedule.cells.values()), path), Status(schedule) as status:
            search.run(made, path, settings, schedule, status.show)
        return
    chosen = matching(made, given.only)
    # What is shown, or handed to a cluster, needs no workers here.
    count = given.workers or (1 if given.dry_run or given.runner != "local" else workers.sensible())
    schedule = Schedule(chosen, folder, min(count, len(chosen)), given.retries)
    handed = None if given.runner == "local" else handed_over(schedule, path, settings)
    if given.dry_run:
        Console(soft_wrap=True).print(listing(chosen, schedule))
        if handed:
            print(handed.told())
        return
    with ending(schedule, lambda: made, path), Status(schedule) as status:
        status.show()
        if handed:
            submit(handed, schedule, status)
        else:
            run(schedule, status)


def handed_over(schedule: Schedule, path: str, settings: Mapping[str, Any]) -> submission.Submission:
    """What runs the missing cells on the cluster that --runner names; ValueError where none is missing."""
    given, folder = flags.FLAGS, schedule.places.folder
    missing = [cell.id for cell in schedule.cells.values() if not schedule.state(cell)]
    if not missing:
        raise ValueError(f"all {len(schedule.cells)} cells are done; --runner=local writes the report")
    verb = [sys.executable if given.runner == "slurm" else "python", "-m", "t5tasks.sweep", f"--config={path}",
            f"--workdir={folder.absolute()}", "--workers=1", f"--retries={given.retries}", "--noreport",
            *(f"--config.{name}={value}" for name, value in settings.items())]
    return submission.submission(given.runner, missing, verb, folder, given.workers, given.resource)


@contextlib.contextmanager
def ending(schedule: Schedule, found: Callable[[], Sequence[Cell]], path: str) -> Iterator[None]:
    """However a sweep ends, no process is left behind and what is done is reported; ValueError if a cell failed."""
    try:
        yield
    finally:
        schedule.stop()
        if flags.FLAGS.report:
            tell(found(), schedule.places.folder, path)
    _require_done(schedule)


def _require_done(schedule: Schedule) -> None:
    """Raises ValueError with the first cell that failed, if any did."""
    failed = [cell for cell in schedule.cells.values() if schedule.state(cell) == FAILED]
    if failed:
        first = failed[0]
        raise ValueError(f"{len(failed)} of {len(schedule.cells)} cells failed; {first.label}: "
                         f"{schedule.errors[first.id]} (its log is {schedule.places.cell(first) / 'output.txt'})")


if __name__ == "__main__":
    define_flags()
    command.run(main)
