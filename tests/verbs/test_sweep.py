# SPDX-License-Identifier: Apache-2.0
"""Files with a sweep() come in; their cells, which of them run, and what is reported come out."""

from __future__ import annotations

import csv
import json
import math
import pathlib
import re
import signal
import sys
from collections.abc import Callable

import pytest

from t5tasks import cells, comparison, configs, plots, results, schedule, submission, sweep, workers
from t5tasks.schedule import DONE, FAILED, Schedule
from t5tasks.training.lock import Lock

SWEEP = '''

def sweep():
    from t5tasks.cells import choice, log_uniform, named, product, search, seeds, uniform, values, zipped
    return {made}
'''
FOUR = ('product(named({"plain": {"decode.length_normalised": False}, "by <length>": {"decode.length_normalised": '
        'True}}), seeds(2))')


@pytest.fixture
def file(tmp_path: pathlib.Path, config_file: Callable) -> Callable[[str], str]:
    """Writes the smallest config of a classification by label scoring with this sweep()."""
    def write(made: str, more: str = "") -> str:
        path = config_file(tmp_path, "classification", "decoder", more)
        path.write_text(path.read_text() + SWEEP.format(made=made))
        return str(path)
    return write


class Inline:
    """Workers that run a job in this process, when asked what has ended; `failing`: how often a job fails first."""

    ran: list[str]
    failing: dict[str, int]
    call: Callable | None = None

    def __init__(self, count: int) -> None:
        self._started: list[tuple] = []
        self._count = count

    @property
    def free(self) -> int:
        return self._count - len(self._started)

    def start(self, name: str, output: pathlib.Path, call: Callable, *arguments: object) -> None:
        self._started.append((name, call, arguments))

    def ended(self, seconds: float) -> list[workers.Ended]:
        started, self._started = self._started, []
        return [self._run(*job) for job in started]

    def _run(self, name: str, call: Callable, arguments: tuple) -> workers.Ended:
        type(self).ran.append(name)
        if self.failing.get(name, 0):
            self.failing[name] -= 1
            return workers.Ended(name, "out of luck")
        (type(self).call or call)(*arguments)
        return workers.Ended(name, "")

    def stop(self, name: str | None = None) -> None:
        """Nothing runs."""


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> type[Inline]:
    Inline.ran, Inline.failing, Inline.call = [], {}, None
    monkeypatch.setattr(workers, "Workers", Inline)
    return Inline


def pretend(cell: cells.Cell, folder: pathlib.Path) -> None:
    """A run of no time: the nearer the rate to 0.01, the better."""
    places = results.Places(folder)
    score = -abs(math.log10(cell.settings["optimizer"]["learning_rate"]) + 2)
    places.trained(cell).mkdir(parents=True, exist_ok=True)
    (places.trained(cell) / "metrics.jsonl").write_text(
        json.dumps({"kind": "validation", "step": 1, "accuracy": score}) + "\n")
    (places.trained(cell) / "done.json").write_text("{}")
    (places.cell(cell) / "result.json").write_text(json.dumps(
        {"step": 1, "metric": "accuracy", "figures": {"accuracy": score}}))


def drain(made: Schedule, most: int = 20) -> None:
    for _ in range(most):
        if not made.left:
            return
        made.step(0)


# Cells.


def test_helpers_make_axes_and_join_them():
    rates, numbers = cells.values("optimizer.learning_rate", [1e-3, 1e-2]), cells.seeds(2)
    assert cells.product(rates, numbers) == [
        {"optimizer.learning_rate": 1e-3, "seed": 0}, {"optimizer.learning_rate": 1e-3, "seed": 1},
        {"optimizer.learning_rate": 1e-2, "seed": 0}, {"optimizer.learning_rate": 1e-2, "seed": 1}]
    assert cells.zipped(rates, numbers) == [{"optimizer.learning_rate": 1e-3, "seed": 0},
                                            {"optimizer.learning_rate": 1e-2, "seed": 1}]
    assert cells.product(cells.named({"a": {"seed": 1}}), cells.named({"b": {"x": 2}})) == [
        {"name": "a, b", "seed": 1, "x": 2}]
    drawn = [cell["x"] for cell in cells.log_uniform("x", 1e-4, 1e-1, 400)]
    assert drawn == [cell["x"] for cell in cells.log_uniform("x", 1e-4, 1e-1, 400)] and len(set(drawn)) > 300
    # A third of them in each decade, give or take three standard deviations.
    assert all(abs(sum(low <= x < 10 * low for x in drawn) - 400 / 3) < 29 for low in (1e-4, 1e-3, 1e-2))
    with pytest.raises(ValueError, match="2 and 3 cells cannot be zipped"):
        cells.zipped(rates, cells.seeds(3))
    with pytest.raises(ValueError, match="'seed' is set by two axes"):
        cells.product(numbers, numbers)
    with pytest.raises(ValueError, match="0 < low < high"):
        cells.log_uniform("x", 0, 1, 2)


def test_an_id_is_of_the_settings_alone(file, tmp_path):
    first = cells.read(file('[{"seed": 1, "train.steps": 7}, {"seed": 2}]'))
    other = tmp_path / "other.py"
    other.write_text(pathlib.Path(file('[{"name": "x", "train.steps": 7, "seed": 1}, {"seed": 2}]')).read_text())
    assert [cell.id for cell in cells.read(str(other))] == [cell.id for cell in first]
    # A default that is set, and a whole number for a rate, change nothing.
    one, = cells.read(file('[{"optimizer.learning_rate": 1, "model.dropout": 0.1}]'))
    same, = cells.read(file('[{"optimizer.learning_rate": 1.0}]'))
    assert one.id == same.id != first[0].id


def test_cells_that_decode_alone_share_their_training(file):
    made = cells.read(file(FOUR))
    assert len({cell.id for cell in made}) == 4
    assert [cell.training_id for cell in made] == [made[0].training_id, made[1].training_id] * 2
    assert made[0].training_id != made[1].training_id
    assert [cell.label for cell in made] == ["plain, seed=0", "plain, seed=1", "by <length>, seed=0",
                                             "by <length>, seed=1"]


def test_a_cell_may_begin_from_another_file_and_flags_hold_in_all(file):
    path = file('[{"architecture": "encoder"}, {"config": "../" + __import__("os").path.basename('
                '__import__("os").getcwd()) + "/none.py"}]')
    with pytest.raises(ValueError, match="no config file .*none.py"):
        cells.read(path)
    ner = configs.FOLDER / "ner.py"
    made = cells.read(file(f'[{{"architecture": "encoder"}}, {{"config": {str(ner)!r}, "name": "another task"}}]'),
                      {"train.steps": 3})
    assert [cell.settings["task"]["name"] for cell in made] == ["classification", "ner"]
    assert {cell.settings["train"]["steps"] for cell in made} == {3}


@pytest.mark.parametrize(("made", "mistake"), [
    ('[{"train.stepz": 4}]', "cell 'stepz=4': no setting 'train.stepz'; did you mean train.steps"),
    ('[{"train.steps": "many"}]', "train.steps is 'many' (str), expected int"),
    ('[{"task.name": "nli"}]', "task.name cannot be set"),
    ('[{"architecture": "encoder_decoder"}]', "has no 'encoder_decoder' form"),
    ('[{"seed": 1, "name": "a"}, {"seed": 1, "name": "b"}]', "'a, seed=1' and 'b, seed=1' are the same config"),
    ('[{"train.steps": 1, "name": "a"}, {"train.steps": 2, "name": "a"}]', "are called 'a'"),
    ("[]", "expected a list of dicts"),
    ("1 / 0", "sweep() fails: ZeroDivisionError"),
])
def test_mistakes_are_told_in_a_line_before_anything_runs(file, verb, tmp_path, made, mistake):
    told = verb(sweep, f"--config={file(made)}", f"--workdir={tmp_path / 'out'}")
    assert mistake in told.mistake
    assert not (tmp_path / "out").exists()


def test_a_file_without_a_sweep_is_told(config_file, tmp_path, verb):
    told = verb(sweep, f"--config={config_file(tmp_path, 'ner', 'encoder')}", f"--workdir={tmp_path}")
    assert "has no sweep()" in told.mistake


# Which cells run.


def test_only_missing_cells_run_and_crashed_ones_are_tried_again(file, inline, tmp_path):
    made = cells.read(file('values("optimizer.learning_rate", [1e-3, 1e-2, 1e-1])'))
    inline.call, inline.failing = staticmethod(pretend), {made[1].id: 1, made[2].id: 9}
    first = Schedule(made, tmp_path, 2, retries=1)
    drain(first)
    assert [first.state(cell) for cell in made] == [DONE, DONE, FAILED]
    assert {cell.id: inline.ran.count(cell.id) for cell in made} == {made[0].id: 1, made[1].id: 2, made[2].id: 2}
    assert first.errors == {made[2].id: "out of luck"}
    inline.ran.clear()
    inline.failing.clear()
    again = Schedule(made, tmp_path, 2, retries=0)
    drain(again)
    assert inline.ran == [made[2].id] and not again.left


def test_cells_wait_for_the_training_that_they_share(file, inline, tmp_path):
    made = cells.read(file(FOUR))
    inline.call = staticmethod(pretend)
    both = Schedule(made, tmp_path, 4, retries=0)
    both.step(0)
    assert inline.ran == [made[0].id, made[1].id]  # one of each training, though there were four places
    both.step(0)
    assert sorted(inline.ran) == sorted(cell.id for cell in made)


def test_two_sweeps_do_not_both_run_a_cell(file, inline, tmp_path):
    made = cells.read(file("seeds(2)"))
    inline.call = staticmethod(pretend)
    theirs = Lock.take(results.Places(tmp_path).cell(made[0]) / "lock")
    ours = Schedule(made, tmp_path, 2, retries=0)
    ours.step(0)
    assert inline.ran == [made[1].id] and ours.standing(made[0]).state == schedule.ELSEWHERE
    pretend(made[0], tmp_path)  # the other sweep has done it
    theirs.release()
    drain(ours)
    assert not ours.left and inline.ran == [made[1].id]


def test_a_job_that_dies_is_told_and_takes_no_other_with_it(tmp_path):
    pool, ended = workers.Workers(3), {}
    for name, call, *arguments in (("said", print, "hello"), ("wrong", int, "x"),
                                   ("killed", signal.raise_signal, signal.SIGKILL)):
        pool.start(name, tmp_path / f"{name}.txt", call, *arguments)
    while len(ended) < 3:
        ended |= {each.name: each.error for each in pool.ended()}
    assert ended == {"said": "", "wrong": "invalid literal for int() with base 10: 'x'",
                     "killed": "killed by signal 9"}
    assert (tmp_path / "said.txt").read_text() == "hello\n" and "Traceback" in (tmp_path / "wrong.txt").read_text()
    assert pool.free == 3


# A whole sweep.


def test_a_sweep_is_trained_scored_and_reported(file, inline, tmp_path, verb):
    folder = tmp_path / "out"
    arguments = [f"--config={file(FOUR)}", f"--workdir={folder}", "--workers=2"]
    told = verb(sweep, *arguments)
    assert told.status == 0, told.errors
    made, places = cells.read(file(FOUR)), results.Places(folder)
    assert len(list((folder / "trained").iterdir())) == 2 and sorted(inline.ran) == sorted(cell.id for cell in made)
    for cell in made:
        result, records = places.result(cell), places.records(cell)
        assert result["figures"]["accuracy"] == pytest.approx(sum(each["score"] for each in records) / 24)
        assert result["cost"]["steps"] == 6 and result["cost"]["training_flops"] > 0 and result["parameters"] > 0
        assert {len(values) for values in places.counts(cell).values()} == {24}
    page, markdown = (folder / "report.html").read_text(), (folder / "report.md").read_text()
    assert "by &lt;length&gt;" in page and "<length>" not in page and r"by \<length\>" in markdown
    assert not re.search(r"<script|(?:src|href)=.https?:", page)
    rows = list(csv.DictReader((folder / "report.csv").open()))
    assert [row["cell"] for row in rows] == [cell.name for cell in made] and {row["done"] for row in rows} == {"1"}
    line, other = comparison.lines(made, places)
    assert line.against is None and other.interval.n == 2 and 0 < other.against.p <= 1
    assert other.against.difference == pytest.approx(other.interval.mean - line.interval.mean)
    for shown in comparison.disagreements([line, other], places):
        assert len({score for _, _, score in shown.answers}) == 2
    # What is done is only read.
    inline.ran.clear()
    assert verb(sweep, *arguments).status == 0 and not inline.ran
    # What was interrupted after its training comes to the same.
    before = places.result(made[3])
    (places.cell(made[3]) / "result.json").unlink()
    (places.trained(made[3]) / "done.json").unlink()
    assert verb(sweep, *arguments, "--only=by.*seed=1").status == 0 and inline.ran == [made[3].id]
    assert places.result(made[3])["figures"] == before["figures"]
    # The best config's commands are the verbs' own.
    commands = comparison.command(made[2], str(tmp_path / "best")).splitlines()
    assert commands[0].startswith("python -m t5tasks.train") and "length_normalised" not in commands[0]
    assert "--config.decode.length_normalised=True" in commands[1]


def test_a_dry_run_shows_cells_and_commands(file, inline, tmp_path, verb):
    arguments = [f"--config={file(FOUR)}", f"--workdir={tmp_path / 'out'}", "--dry_run"]
    ids = [cell.id for cell in cells.read(file(FOUR))]
    local = verb(sweep, *arguments)
    assert local.status == 0 and all(id in local.output for id in ids) and not inline.ran
    slurm = verb(sweep, *arguments, "--runner=slurm", "--resource=--gres=gpu:1", "--workers=2",
                 "--config.train.steps=3").output
    made = cells.read(file(FOUR), {"train.steps": 3})
    assert "#SBATCH --array=0-3%2\n" in slurm and f"cells=({' '.join(cell.id for cell in made)})" in slurm
    assert "--config.train.steps=3" in slurm and re.search(r"^sbatch --gres=gpu:1 .*sweep.sbatch$", slurm, re.M)
    assert not (tmp_path / "out").exists()


def test_clusters_are_handed_every_cell_once(tmp_path):
    verb, ids = ["python", "-m", "t5tasks.sweep"], [f"{number:012x}" for number in range(5)]
    made = submission.submission("tpu", ids, verb, tmp_path, 0, "a:us-1,b:eu-2")
    assert [command[5] for command in made.commands] == ["a", "b"]
    assert sorted(re.findall(r"[0-9a-f]{12}", " ".join(command[-1].split("--only=")[1]
                                                       for command in made.commands))) == ids
    job = json.loads(next(iter(submission.submission("gke", ids, verb, tmp_path, 2, "t5tasks:1,disk").files.values())))
    assert (job["spec"]["completions"], job["spec"]["parallelism"]) == (5, 2)
    assert " ".join(ids) in job["spec"]["template"]["spec"]["containers"][0]["command"][2]
    for runner in ("tpu", "gke"):
        with pytest.raises(ValueError, match="--resource is 'x'; "):
            submission.submission(runner, ids, verb, tmp_path, 0, "x")


# Searches.


SEARCH = ('search({"optimizer.learning_rate": uniform(1e-4, 1.0, log=True), "optimizer.beta1": choice(0.8, 0.9)}, '
          'trials=12)')


def test_a_search_comes_near_the_best_and_goes_on(file, inline, tmp_path, verb):
    pytest.importorskip("optuna")
    inline.call = staticmethod(pretend)
    arguments = [f"--config={file(SEARCH)}", f"--workdir={tmp_path / 'out'}", "--workers=1", "--noreport"]
    assert verb(sweep, *arguments).status == 0
    assert len(inline.ran) == 12
    scores = [json.loads(path.read_text())["figures"]["accuracy"]
              for path in (tmp_path / "out" / "cells").glob("*/result.json")]
    assert max(scores) > -0.5  # a random rate is 1 away on average
    inline.ran.clear()
    assert verb(sweep, *arguments).status == 0 and not inline.ran


def test_a_search_without_optuna_is_told(file, tmp_path, verb, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    told = verb(sweep, f"--config={file(SEARCH)}", f"--workdir={tmp_path / 'out'}")
    assert "a search needs optuna" in told.mistake


def test_drawings_do_without_colour_and_follow_the_ground():
    pytest.importorskip("matplotlib")
    drawn = plots.curves([("one & two", [1, 2], [0.1, 0.2]), ("three", [1, 2], [0.3, 0.1])], "step", "score")
    assert drawn.startswith("<svg") and "one &amp; two" in drawn and "prefers-color-scheme: dark" in drawn
    assert plots.INK not in drawn and not any(colour in drawn for colour in plots.SERIES)
    assert "stroke-dasharray" in drawn  # the second line is broken
    assert drawn == plots.curves([("one & two", [1, 2], [0.1, 0.2]), ("three", [1, 2], [0.3, 0.1])], "step", "score")


# The list of configs.


def test_configs_are_listed_with_their_purpose_and_printed():
    listed = configs.files()
    assert "nli" in listed and any(name.startswith("ablations/") for name in listed)
    assert all(configs.purpose(path) for path in listed.values())
    told = configs.resolved(configs.find("ablations/ner_subwords"))
    assert '"label_all": false' in told and "all subwords, seed=2" in told
    with pytest.raises(ValueError, match="no config 'nly'; did you mean nli"):
        configs.find("nly")
