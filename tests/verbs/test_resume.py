# SPDX-License-Identifier: Apache-2.0
"""Runs that were stopped come in; the same command makes of them what an undisturbed run is, to the bit."""

from __future__ import annotations

import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable

import jax
import numpy as np
import pytest

from t5tasks import evaluate, experiment, export, predict, resuming, train
from t5tasks.trained import load
from t5tasks.training.lock import sole_writer
from t5tasks.training.loop import Plan
from t5tasks.training.preemption import RUN_AGAIN

CHECKOUT = pathlib.Path(__file__).parents[2]
SAID_ONCE = ("loss", "nll", "accuracy", "gradient_norm", "learning_rate")


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


def validation_lines(workdir: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").open() if '"validation"' in line]


def kept_steps(workdir: pathlib.Path) -> list[int]:
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


def breaking(at: int, error: BaseException) -> type:
    """A writer of metrics that fails when it has written the step `at`."""

    class Breaking(train.MetricsWriter):
        def write(self, step: int, kind: str, figures: dict) -> None:
            super().write(step, kind, figures)
            if (step, kind) == (at, "train"):
                raise error

    return Breaking


def asking(number: int, at: int) -> type:
    """A writer of metrics that sends its own process a signal when it has written the step `at`."""

    class Asking(train.MetricsWriter):
        def write(self, step: int, kind: str, figures: dict) -> None:
            super().write(step, kind, figures)
            if (step, kind) == (at, "train"):
                os.kill(os.getpid(), number)

    return Asking


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
        runs: Callable, verb: Callable, signalled: Callable, monkeypatch: pytest.MonkeyPatch,
        tmp_path: pathlib.Path) -> None:
    run, workdir = runs("text_generation", "decoder"), tmp_path / "run"
    line = (f"--config={run.config}", f"--workdir={workdir}")
    with monkeypatch.context() as patched:
        patched.setattr(train, "MetricsWriter", breaking(4, KeyboardInterrupt()))
        told = verb(train, *line)
    assert (told.status, told.output, told.errors.splitlines()[-1]) == (130, "", "interrupted")
    killed = subprocess.run(
        [sys.executable, "-c", signalled(5, "SIGKILL"), *line], cwd=CHECKOUT, capture_output=True, text=True,
        timeout=300, env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"})  # as conftest sets it here
    assert killed.returncode == -signal.SIGKILL and "resuming at step 3 of 6" in killed.stderr, killed.stderr
    told = verb(train, *line)
    assert told.status == 0 and "resuming at step 3 of 6" in told.errors
    assert training_lines(workdir) == training_lines(run.workdir)
    assert bits(workdir) == bits(run.workdir)


def test_a_run_that_was_asked_to_stop_loses_no_step(
        config_file: Callable, verb: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """With dropout, packing and accumulation; asked between evaluations, and when one begins, which is made then when
    the run goes on. The metrics say so too, the best step included."""
    config = config_file(tmp_path, "text_generation", "decoder", """config.batch.update(packing=True, micro_batches=2,
                                                                     size=16)""")
    straight, workdir = ((f"--config={config}", f"--workdir={tmp_path / name}") for name in ("straight", "stopped"))
    assert verb(train, *straight).status == 0
    for number, at in ((signal.SIGTERM, 2), (signal.SIGINT, 3)):
        with monkeypatch.context() as patched:
            patched.setattr(train, "MetricsWriter", asking(number, at))
            began = time.monotonic()
            told = verb(train, *workdir)
        assert time.monotonic() - began < 60
        assert (told.status, told.output) == (RUN_AGAIN, "")
        assert told.errors.endswith(f"stopped: stopped by {number.name} after step {at} of 6, all saved; the same "
                                    "command goes on from there\n")
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    assert not [line for line in (tmp_path / "stopped" / "metrics.jsonl").open() if "validation" in line]
    told = verb(train, *workdir)
    assert told.status == 0 and "resuming at step 3 of 6" in told.errors
    assert training_lines(tmp_path / "stopped") == training_lines(tmp_path / "straight")
    assert validation_lines(tmp_path / "stopped") == validation_lines(tmp_path / "straight")
    assert bits(tmp_path / "stopped") == bits(tmp_path / "straight")
    assert kept_steps(tmp_path / "stopped") == kept_steps(tmp_path / "straight") == [3, 6]


def test_a_full_disk_is_told_in_a_line_and_the_step_before_is_as_it_was(
        runs: Callable, verb: Callable, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """Files may not grow beyond 16,000 bytes once step 3 is written; a checkpoint's are larger."""
    run, workdir = runs("classification", "encoder"), tmp_path / "run"
    line = (f"--config={run.config}", f"--workdir={workdir}")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    class Filling(train.MetricsWriter):
        def write(self, step: int, kind: str, figures: dict) -> None:
            super().write(step, kind, figures)
            if step == 4:
                while not (workdir / "checkpoints" / "3").exists():  # it is being written
                    time.sleep(0.05)
                resource.setrlimit(resource.RLIMIT_FSIZE, (16_000, limits[1]))

    with monkeypatch.context() as patched:
        patched.setattr(train, "MetricsWriter", Filling)
        try:
            told = verb(train, *line)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "the checkpoint of step 6 was not written: File too large" in told.mistake
    assert "MB are free in" in told.mistake and "step 3 is whole, and the same command goes on from it" in told.mistake
    told = verb(train, *line)
    assert told.status == 0 and "resuming at step 3 of 6" in told.errors
    assert training_lines(workdir) == training_lines(run.workdir) and bits(workdir) == bits(run.workdir)
    assert sorted(path.name for path in (workdir / "checkpoints").iterdir()) == ["3", "6"]


@pytest.fixture(scope="module")
def halfway(runs: Callable, verb: Callable, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A workdir whose latest checkpoint is the third step's."""
    workdir, whole = tmp_path_factory.mktemp("halfway") / "run", runs("classification", "encoder")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train, "MetricsWriter", breaking(4, OSError("the disk is full")))
        verb(train, f"--config={whole.config}", f"--workdir={workdir}")
    assert [path.name for path in (workdir / "checkpoints").iterdir()] == ["3"]
    return workdir


@pytest.mark.parametrize(("change", "named"), [
    ("batch.size=16", "batch.size was 8 when the run began and is 16 now"), ("seed=1", "seed was 0"),
    ("data.train=builtin:train?size=95", "data.train was 'builtin:train?size=96'"),
    ("batch.length=16", "batch.length was 24"), ("train.steps=7", "steps was 6")])
def test_other_data_or_another_order_are_refused(
        runs: Callable, verb: Callable, halfway: pathlib.Path, change: str, named: str) -> None:
    before = files(halfway)
    config = runs("classification", "encoder").config
    said = verb(train, f"--config={config}", f"--workdir={halfway}", f"--config.{change}").mistake
    assert f"cannot resume: {named}" in said and "another --workdir" in said and "--allow_data_change" in said
    assert files(halfway) == before


@pytest.mark.parametrize(("change", "named"), [
    ("tokenizer.size=340", "tokenizer.size was 330"), ("tokenizer.path=elsewhere", "tokenizer.path was ''"),
    ("optimizer.learning_rate=0.5", "optimizer.learning_rate was 0.01"), ("pretrained=elsewhere", "pretrained was ''")])
def test_another_model_or_tokenizer_is_refused_whatever_is_allowed(
        runs: Callable, verb: Callable, halfway: pathlib.Path, change: str, named: str) -> None:
    before = files(halfway)
    config = runs("classification", "encoder").config
    said = verb(train, f"--config={config}", f"--workdir={halfway}", f"--config.{change}",
                "--allow_data_change").mistake
    assert f"cannot resume: {named}" in said and "another --workdir" in said and "--allow_data_change" not in said
    assert files(halfway) == before


BEGAN = {"data.train": "a", "records": 9, "seed": 0, "batch": {"size": 8, "packing": True}, "tokenizer": "f00d",
         "data_shards": 2, "steps": 6, "task": {"labels": ["x"]}, "optimizer": {"name": "adamw"}}


@pytest.mark.parametrize("change", [
    {"data.train": "b"}, {"records": 8}, {"seed": 1}, {"batch": {"size": 4, "packing": True}}, {"tokenizer": "beef"},
    {"data_shards": 1}, {"batch": {"size": 8, "packing": False}}])
def test_every_field_of_the_data_can_be_allowed_to_change(change: dict) -> None:
    """The number of data shards is what processes, and the mesh over them, do to the order of packed data."""
    name = next(iter(change))
    with pytest.raises(ValueError, match=f"cannot resume: {name}.* was .* --allow_data_change"):
        resuming.changed(BEGAN, BEGAN | change)
    [told] = resuming.changed(BEGAN, BEGAN | change, allow_data_change=True)
    assert told.startswith(name) and resuming.changed(BEGAN, dict(BEGAN)) == []


@pytest.mark.parametrize("change", [{"task": {"labels": ["y"]}}, {"optimizer": {"name": "lion"}}])
def test_what_is_trained_for_never_is(change: dict) -> None:
    with pytest.raises(ValueError, match=f"cannot resume: {next(iter(change))}"):
        resuming.changed(BEGAN, BEGAN | {"seed": 1} | change, allow_data_change=True)


def test_data_shards_count_where_rows_are_packed(
        halfway: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As two processes would have them; unpacked, every process reads all rows, and may be one of any number."""
    config = experiment.given_or_saved(None, halfway)
    run, plan = experiment.build(config, halfway), Plan(6, 1, 3, 3)
    monkeypatch.setattr(resuming.sharding, "batch_part", lambda mesh: (0, 2))
    assert resuming.fingerprint(run, plan, 96)["data_shards"] == 1
    config.batch.packing = True
    assert resuming.fingerprint(run, plan, 96)["data_shards"] == 2


def test_other_data_that_are_allowed_are_read_from_their_beginning(
        runs: Callable, verb: Callable, halfway: pathlib.Path, tmp_path: pathlib.Path) -> None:
    workdir = pathlib.Path(shutil.copytree(halfway, tmp_path / "run"))
    config = runs("classification", "encoder").config
    line = (f"--config={config}", f"--workdir={workdir}", "--config.seed=1",
            "--config.data.train=builtin:train?size=80")
    told = verb(train, *line, "--allow_data_change")
    assert told.status == 0 and "resuming at step 3 of 6" in told.errors
    assert ("going on at step 3 with other data, read from their beginning: data.train was 'builtin:train?size=96' "
            "when the run began and is 'builtin:train?size=80' now; records was 96") in told.errors
    assert "seed was 0 when the run began and is 1 now" in told.errors
    again = verb(train, *line)  # which is this run from now on
    assert again.status == 0 and "finished at step 6 of 6" in again.output and again.errors == ""


def test_a_second_writer_is_refused_and_a_crashed_one_leaves_no_lock(
        runs: Callable, verb: Callable, halfway: pathlib.Path) -> None:
    line = (f"--config={runs('classification', 'encoder').config}", f"--workdir={halfway}", "--config.seed=1")
    (halfway / ".lock").write_text("process 1 on a host that is gone")  # what a killed run leaves
    assert "seed was 0" in verb(train, *line).mistake
    assert not (halfway / ".lock").exists()
    with sole_writer(halfway):
        before = files(halfway)
        said = verb(train, *line).mistake
        assert f"{halfway} is being written by process {os.getpid()} on {socket.gethostname()} since 20" in said
        assert "another --workdir" in said and files(halfway) == before
    assert "seed was 0" in verb(train, *line).mistake


def test_a_damaged_checkpoint_is_not_used(runs: Callable, verb: Callable, halfway: pathlib.Path, tmp_path: pathlib.Path
                                          ) -> None:
    """Nor by the verbs that only read: with no step left they say so."""
    workdir = pathlib.Path(shutil.copytree(halfway, tmp_path / "run"))
    [largest] = sorted((workdir / "checkpoints" / "3" / "parameters").rglob("*"), key=lambda path: path.stat().st_size
                       if path.is_file() else 0)[-1:]
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 4
    largest.write_bytes(data)
    given = f"--workdir={workdir}"
    for line in ((evaluate, given), (export, given, f"--output={tmp_path / 'out'}"),
                 (predict, given, "--input=builtin:test?size=4", f"--output={tmp_path / 'told.jsonl'}")):
        told = verb(*line)
        assert "checkpoints/3 is incomplete or damaged: parameters/" in told.errors
        assert "has no whole checkpoint" in told.mistake
    again = (train, f"--config={runs('classification', 'encoder').config}", f"--workdir={workdir}")
    for _ in range(2):  # nor is what was done lost by beginning again, unless that is asked for
        told = verb(*again)
        assert told.status == 1 and "only damaged-3.1: the run would begin again at step 0" in told.mistake
    shutil.rmtree(workdir / "checkpoints" / "damaged-3.1")
    assert verb(*again).status == 0
    assert bits(workdir) == bits(runs("classification", "encoder").workdir)


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
    assert kept == ([] if from_step == 1 else [3, 4])  # the best and the latest, and the one before
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
