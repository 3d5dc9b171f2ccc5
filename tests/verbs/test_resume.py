# SPDX-License-Identifier: Apache-2.0
"""Runs that were stopped come in; the same command makes of them what an undisturbed run is, to the bit."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable

import jax
import numpy as np
import pytest

from t5tasks import evaluate, train
from t5tasks.trained import load

CHECKOUT = pathlib.Path(__file__).parents[2]
SAID_ONCE = ("loss", "nll", "accuracy", "gradient_norm", "learning_rate")
# A train that kills itself when it has written the metrics of the fifth step.
KILLED = """
import os, signal
from t5tasks import command, train

class Killing(train.MetricsWriter):
    def write(self, step, kind, figures):
        super().write(step, kind, figures)
        if (step, kind) == (5, "train"):
            os.kill(os.getpid(), signal.SIGKILL)

train.MetricsWriter = Killing
train.define_flags()
command.run(train.main)
"""


def bits(workdir: pathlib.Path) -> dict[str, bytes]:
    """Every parameter of the latest step, by its path."""
    trained = load(None, workdir, "latest")
    assert trained.step == 6
    return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes()
            for path, leaf in jax.tree_util.tree_flatten_with_path(trained.parameters)[0]}


def training_lines(workdir: pathlib.Path) -> list[dict]:
    """metrics.jsonl, but for how fast it went."""
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    return [{name: line[name] for name in ("step", *SAID_ONCE)} for line in lines if line["kind"] == "train"]


def breaking(at: int, error: BaseException) -> type:
    """A writer of metrics that fails when it has written the step `at`."""

    class Breaking(train.MetricsWriter):
        def write(self, step: int, kind: str, figures: dict) -> None:
            super().write(step, kind, figures)
            if (step, kind) == (at, "train"):
                raise error

    return Breaking


def files(folder: pathlib.Path) -> dict[pathlib.Path, tuple[bytes, int]]:
    return {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_says_so_and_changes_nothing(runs: Callable, verb: Callable) -> None:
    run = runs("text_generation", "decoder")
    before = files(run.workdir)
    told = verb(train, f"--config={run.config}", f"--workdir={run.workdir}")
    assert told.status == 0 and told.output.startswith(f"{run.workdir}: finished at step 6 of 6; loss ")
    assert told.errors == "" and files(run.workdir) == before


@pytest.mark.parametrize(("task", "architecture", "stop"), [
    ("classification", "encoder", 2), ("translation", "encoder_decoder", 5)])
def test_a_run_that_broke_off_ends_like_one_that_did_not(
        runs: Callable, verb: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path,
        task: str, architecture: str, stop: int) -> None:
    run, workdir = runs(task, architecture), tmp_path / "run"
    line = (f"--config={run.config}", f"--workdir={workdir}")
    with monkeypatch.context() as patched:
        patched.setattr(train, "MetricsWriter", breaking(stop, OSError("the disk is full")))
        assert verb(train, *line).mistake == "error: the disk is full"
    assert [entry["step"] for entry in training_lines(workdir)] == [*range(1, stop + 1)]
    told = verb(train, *line)
    assert told.status == 0 and ("resuming at step 3 of 6" in told.errors) == (stop > 3), told.errors
    assert training_lines(workdir) == training_lines(run.workdir)
    assert [entry["step"] for entry in training_lines(workdir)] == [1, 2, 3, 4, 5, 6]
    assert bits(workdir) == bits(run.workdir)


def test_a_run_that_was_interrupted_and_killed_ends_like_one_that_was_not(
        runs: Callable, verb: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    run, workdir = runs("text_generation", "decoder"), tmp_path / "run"
    line = (f"--config={run.config}", f"--workdir={workdir}")
    with monkeypatch.context() as patched:
        patched.setattr(train, "MetricsWriter", breaking(4, KeyboardInterrupt()))
        told = verb(train, *line)
    assert (told.status, told.output, told.errors.splitlines()[-1]) == (130, "", "interrupted")
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, *line], cwd=CHECKOUT, capture_output=True, text=True, timeout=300,
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"})  # as conftest sets it here
    assert killed.returncode == -signal.SIGKILL and "resuming at step 3 of 6" in killed.stderr, killed.stderr
    told = verb(train, *line)
    assert told.status == 0 and "resuming at step 3 of 6" in told.errors
    assert training_lines(workdir) == training_lines(run.workdir)
    assert bits(workdir) == bits(run.workdir)


@pytest.fixture(scope="module")
def halfway(runs: Callable, verb: Callable, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A workdir whose latest checkpoint is the third step's."""
    workdir = tmp_path_factory.mktemp("halfway") / "run"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train, "MetricsWriter", breaking(4, OSError("the disk is full")))
        verb(train, f"--config={runs('classification', 'encoder').config}", f"--workdir={workdir}")
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["3"]
    return workdir


@pytest.mark.parametrize(("change", "named"), [
    ("batch.size=16", "batch.size was 8 when the run began and is 16 now"), ("seed=1", "seed was 0"),
    ("data.train=builtin:train?size=95", "data.train was 'builtin:train?size=96'"),
    ("tokenizer.size=340", "tokenizer.size was 330"), ("tokenizer.path=elsewhere", "tokenizer.path was ''"),
    ("optimizer.learning_rate=0.5", "optimizer.learning_rate was 0.01"), ("train.steps=7", "steps was 6"),
    ("pretrained=elsewhere", "pretrained was ''"), ("batch.length=16", "batch.length was 24")])
def test_a_resumed_run_must_be_the_same_run(
        runs: Callable, verb: Callable, halfway: pathlib.Path, change: str, named: str) -> None:
    before = files(halfway)
    config = runs("classification", "encoder").config
    said = verb(train, f"--config={config}", f"--workdir={halfway}", f"--config.{change}").mistake
    assert f"cannot resume: {named}" in said and "another --workdir" in said
    assert files(halfway) == before


def test_other_labels_are_other_classes(runs: Callable, verb: Callable, halfway: pathlib.Path) -> None:
    config = runs("classification", "encoder").config
    said = verb(train, f"--config={config}", f"--workdir={halfway}",
                "--config.task.labels=('worsened','improved','negative','positive')").mistake
    assert "cannot resume: task.labels was ['improved', 'negative', 'positive', 'worsened']" in said


@pytest.mark.filterwarnings("ignore:overflow encountered in cast")  # of the learning rate, as meant
@pytest.mark.parametrize(("where", "from_step"), [("loss", 5), ("update", 1)])
def test_what_is_not_a_number_is_never_saved(
        runs: Callable, verb: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path,
        where: str, from_step: int) -> None:
    run, workdir = runs("classification", "encoder"), tmp_path / "run"
    line = [f"--config={run.config}", f"--workdir={workdir}", "--config.train.checkpoint_every=1"]
    original = train.make_train_step

    def poisoned(*arguments: object) -> Callable:
        step = original(*arguments)

        def take(state: object, batch: dict) -> tuple:
            weights = jax.numpy.where(state.step >= from_step - 1, np.nan, batch["weights"])
            return step(state, batch | {"weights": weights})

        return take

    if where == "loss":
        monkeypatch.setattr(train, "make_train_step", poisoned)
        said = verb(train, *line).mistake
        assert f"loss nan, gradient norm nan at step {from_step}: training stopped" in said
    else:  # a finite gradient, and a learning rate beyond float32
        said = verb(train, *line, "--config.optimizer.learning_rate=1e39", "--config.optimizer.warmup=0").mistake
        assert "parameters are no numbers after step 1" in said
    assert "lower config.optimizer.learning_rate" in said
    kept = sorted(int(path.name) for path in (workdir / "checkpoints").glob("[0-9]*"))
    assert kept == ([] if from_step == 1 else [3, 4])  # the best and the latest
    for step in kept:
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(
            load(None, workdir, "best" if step == 3 else "latest").parameters))
    if kept:
        assert json.loads(verb(evaluate, f"--workdir={workdir}", "--checkpoint=latest").output)["step"] == 4


def test_a_skipped_batch_is_left_out(
        runs: Callable, verb: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    run, workdir = runs("classification", "encoder"), tmp_path / "run"
    original = train.make_train_step

    def poisoned(*arguments: object) -> Callable:
        step = original(*arguments)
        return lambda state, batch: step(state, batch | {
            "weights": jax.numpy.where(state.step == 1, np.nan, batch["weights"])})

    monkeypatch.setattr(train, "make_train_step", poisoned)
    told = verb(train, f"--config={run.config}", f"--workdir={workdir}", "--config.train.on_nan=skip")
    assert told.status == 0 and "skipped a batch: loss nan, gradient norm nan at step 2" in told.errors
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(load(None, workdir).parameters))
