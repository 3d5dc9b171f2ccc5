# SPDX-License-Identifier: Apache-2.0
"""Nothing in; every task and form trained and scored on the built-in world, as a table and a report, out.

    python -m t5tasks.quickstart [--workdir=runs/quickstart] [--only=REGEX] [--steps=N] [--workers=N]

The workdir holds a run per row (each a workdir of `t5tasks.train`, so a second call only reads them; what it
printed is in output.txt), report.md with the table, curves.svg, and an explanation per row of what was graded.
Models of this size keep one core busy and no more, so on a CPU every core trains a row of its own.
"""

import dataclasses
import json
import pathlib
import re
import time
from collections.abc import Iterator
from typing import Any

import ml_collections
from absl import flags
from rich.console import Console
from rich.table import Table

from t5tasks import (
    command,
    configuration,
    evaluate,
    experiment,
    explain,
    explanation,
    plots,
    predict,
    tasks,
    train,
    workers,
)
from t5tasks.configs import FOLDER
from t5tasks.trained import load
from t5tasks.training.writers import clock

EXAMPLES = 3


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table."""

    task: str
    architecture: str
    metric: str
    baseline: float  # the best that needs no model
    baseline_name: str
    score: float
    seconds: float
    folder: str

    def cells(self) -> tuple[str, ...]:
        return (self.task, self.architecture, self.metric, f"{self.baseline:.3g} ({self.baseline_name})",
                f"{self.score:.3g}", clock(self.seconds))


HEADINGS = ("task", "architecture", "metric", "chance", "score", "time")


def configs() -> list[ml_collections.ConfigDict]:
    """A config for every registered task and form, from configs/TASK.py.

    Raises:
      ValueError: a task without its file.
    """
    found = []
    for name in tasks.names():
        path = FOLDER / f"{name}.py"
        if not path.exists():
            raise ValueError(f"no {path}: every task has a config for the built-in world; run from a checkout")
        for architecture in tasks.get(name).forms:
            config = configuration.read(str(path))
            config.architecture = architecture
            found.append(config)
    return found


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> Row:
    """Trains one config, scores it on its test records, and leaves examples and an explanation."""
    started = time.perf_counter()
    done = workdir / "row.json"
    if done.exists():
        return _done(workdir)
    train.train(config, workdir)
    result = evaluate.evaluate(None, workdir)
    trained = load(None, workdir)
    task = trained.experiment.task
    (workdir / "examples.jsonl").unlink(missing_ok=True)
    predict.predict(trained, f"{result['source']}{'&' if '?' in result['source'] else '?'}limit={EXAMPLES}",
                    workdir / "examples.jsonl")
    shown = explain.explain(None, workdir, f"configs/{task.name}.py")
    (workdir / "explain.html").write_text(explanation.page(shown), "utf-8")
    best = max if task.higher_is_better else min
    baseline = best(result["baselines"], key=result["baselines"].__getitem__)
    row = Row(task.name, config.architecture, result["metric"], result["baselines"][baseline], baseline,
              result["figures"][result["metric"]], time.perf_counter() - started, workdir.name)
    experiment.write_json(done, dataclasses.asdict(row))
    return row


def name_of(config: ml_collections.ConfigDict) -> str:
    """The folder of a row: task and architecture."""
    return f"{config.task.name}-{config.architecture}"


def run_all(chosen: list[ml_collections.ConfigDict], folder: pathlib.Path, count: int) -> Iterator[Row]:
    """Every row as it is done; with more than one at a time, each in a process that keeps to a core of its own.

    Raises:
      ValueError: a row failed; with its name and where its output is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if count == 1:
        yield from (run(config, folder / name_of(config)) for config in chosen)
        return
    pool, waiting, ended = workers.Workers(count), list(chosen), 0
    try:
        while ended < len(chosen):
            while waiting and pool.free:
                config = waiting.pop(0)
                name = name_of(config)
                pool.start(name, folder / name / "output.txt", _run_apart, configuration.plain(config), folder / name)
            for done in pool.ended():
                if done.error:
                    raise ValueError(f"{done.name}: {done.error}; output.txt in {folder / done.name} has the rest")
                ended += 1
                yield _done(folder / done.name)
    finally:
        pool.stop()


def _run_apart(settings: dict[str, Any], folder: pathlib.Path) -> None:
    run(configuration.from_plain(settings), folder)


def _done(workdir: pathlib.Path) -> Row:
    return Row(**json.loads((workdir / "row.json").read_text()))


def report(rows: list[Row], folder: pathlib.Path) -> pathlib.Path:
    """Writes report.md and curves.svg; returns the report's path."""
    lines = ["# Quickstart on the built-in world", "",
             "| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    lines += ["| " + " | ".join(row.cells()) + " |" for row in rows]
    lines += ["", "`chance` is the best score that needs no model, with its name in brackets.", ""]
    if _curves(rows, folder / "curves.svg"):
        lines += ["![validation loss by step](curves.svg)", ""]
    for row in rows:
        answers = (folder / row.folder / "examples.jsonl").read_text().splitlines()
        lines += [f"## {row.task}, {row.architecture}", "",
                  f"What was seen and graded: [explain.html]({row.folder}/explain.html). First answers:", "",
                  "```json", *answers, "```", ""]
    path = folder / "report.md"
    path.write_text("\n".join(lines))
    return path


def _curves(rows: list[Row], path: pathlib.Path) -> bool:
    """Validation loss against step, one line a run; False without matplotlib ([report])."""
    if not plots.available():
        return False
    series = []
    for row in rows:
        lines = (path.parent / row.folder / "metrics.jsonl").read_text().splitlines()
        points = [entry for entry in map(json.loads, lines) if entry["kind"] == "validation"]
        series.append((f"{row.task}, {row.architecture}", [p["step"] for p in points], [p["loss"] for p in points]))
    path.write_text(plots.curves(series, "step", "validation loss (nats per graded target)", from_zero=True), "utf-8")
    return True


def define_flags() -> None:
    """The verb's flags; not defined on import, so that verbs can be imported together."""
    flags.DEFINE_string("workdir", "runs/quickstart", "folder for the runs and the report")
    flags.DEFINE_string("only", "", "regular expression on task/architecture")
    flags.DEFINE_integer("steps", 0, "train this many steps each; 0 for what the configs say", lower_bound=0)
    flags.DEFINE_integer("workers", 0, "rows at a time; 0 for one a core, one on an accelerator", lower_bound=0)


def main(_: list[str]) -> None:
    """The verb."""
    given = flags.FLAGS
    folder = pathlib.Path(given.workdir)
    chosen = [config for config in configs() if re.search(given.only, f"{config.task.name}/{config.architecture}")]
    if not chosen:
        raise ValueError(f"--only={given.only} matches no task/architecture")
    for config in chosen:
        if given.steps:
            config.train.steps = given.steps
    count = min(given.workers or workers.sensible(), len(chosen))
    console, started = Console(soft_wrap=True), time.perf_counter()
    console.print(f"{len(chosen)} rows, {count} at a time; each tells its steps in {folder}/ROW/output.txt",
                  markup=False)
    rows: dict[str, Row] = {}
    for row in run_all(chosen, folder, count):
        rows[row.folder] = row
        left = (time.perf_counter() - started) / len(rows) * (len(chosen) - len(rows))
        console.print(f"[{len(rows)}/{len(chosen)}] {row.folder}: {row.metric} {row.score:.3g}, {clock(row.seconds)}"
                      + (f"; about {clock(left)} left" if left else ""), markup=False)
    rows = {name: rows[name] for name in map(name_of, chosen)}
    table = Table(*HEADINGS, title="built-in world, held-out combinations")
    for row in rows.values():
        table.add_row(*row.cells())
    console.print(table, no_wrap=True, crop=False)
    print(f"report: {report(list(rows.values()), folder)}")


if __name__ == "__main__":
    define_flags()
    command.run(main)
