# SPDX-License-Identifier: Apache-2.0
"""Command lines come in; what a verb printed, its exit status and the run it left come out."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import pathlib
import sys
import types
from collections.abc import Callable

import pytest
from absl import flags

from t5tasks import command, evaluate, predict, processes, train

Verb = Callable[..., "Outcome"]

# The smallest that still does everything: dropout on, an evaluation and a checkpoint every third
# of six steps, several batches and lengths in each evaluation.
CONFIG = """
def get_config():
    from t5tasks.configuration import defaults
    config = defaults("{task}")
    config.architecture = "{architecture}"
    config.data.update(train="builtin:train?size=96", validation="builtin:validation?size=24",
                       test="builtin:test?size=24")
    config.tokenizer.size = 330
    config.model.update(width=16, heads=2, kv_heads=2, head_size=8, feed_forward=32, encoder_layers=1,
                        decoder_layers=1, dropout=0.1)
    config.batch.update(size=8, length=24, source_length=24, evaluation_size=8)
    config.train.update(steps=6, log_every=1, evaluate_every=3)
    config.optimizer.learning_rate = 1e-2
    config.decode.max_new_tokens = 6
    {more}
    return config
"""
SIGNALLED = """
import os, signal
from t5tasks import command, train

class Signalling(train.MetricsWriter):
    def write(self, step, kind, figures):
        super().write(step, kind, figures)
        if (step, kind) == ({step}, "train"):
            os.kill(os.getpid(), signal.{name})

train.MetricsWriter = Signalling
train.define_flags()
command.run(train.main)
"""


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a command left: its exit status and what it printed."""

    status: int
    output: str
    errors: str

    @property
    def mistake(self) -> str:
        """The one line that a user's mistake is told in; the process must have failed with it."""
        assert self.status == 1, (self.status, self.errors)
        lines = self.errors.splitlines()
        assert lines and lines[-1].startswith("error: "), self.errors
        assert not any(line.startswith("error: ") or "Traceback" in line for line in lines[:-1]), self.errors
        return lines[-1]


def run(verb: types.ModuleType, *arguments: object) -> Outcome:
    """Runs `python -m t5tasks.VERB ARGUMENTS` in this process."""
    defined, argv = set(flags.FLAGS), sys.argv
    output, errors = io.StringIO(), io.StringIO()
    # The config's own flags are made while the line is parsed, from sys.argv.
    sys.argv = [str(verb.__file__), *map(str, arguments)]
    try:
        verb.define_flags()
        with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
            command.run(verb.main)
    except SystemExit as exit:
        status = int(exit.code or 0)
    finally:
        sys.argv = argv
        for name in set(flags.FLAGS) - defined:
            if name == "config" or name.startswith("config.") or flags.FLAGS.find_module_defining_flag(
                    name) in (verb.__name__, processes.__name__):
                delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
    return Outcome(status, output.getvalue(), errors.getvalue())


@pytest.fixture(scope="module", autouse=True)
def _quick(quick_to_compile: None) -> None:
    """All programs of verbs are toys."""


@pytest.fixture(scope="session")
def verb() -> Verb:
    return run


@dataclasses.dataclass(frozen=True)
class Run:
    """A run of six steps: its config file, its workdir, and what its verbs said."""

    task: str
    architecture: str
    config: pathlib.Path
    workdir: pathlib.Path
    trained: Outcome
    evaluated: Outcome
    records: pathlib.Path  # the test records
    predicted: Outcome
    predictions: pathlib.Path

    @property
    def lines(self) -> list[dict]:
        return [json.loads(line) for line in self.predictions.read_text("utf-8").splitlines()]


def write_config(folder: pathlib.Path, task: str, architecture: str, more: str = "") -> pathlib.Path:
    path = folder / "config.py"
    path.write_text(CONFIG.format(task=task, architecture=architecture, more=more), "utf-8")
    return path


@pytest.fixture(scope="session")
def signalled() -> Callable[[int, str], str]:
    """The source of a train that sends itself a signal when it has written the metrics of a step."""
    return lambda step, name: SIGNALLED.format(step=step, name=name)


@pytest.fixture(scope="session")
def config_file() -> Callable[..., pathlib.Path]:
    """Writes the smallest config of a folder, a task and an architecture."""
    return write_config


def write_records(path: pathlib.Path, records: list[dict]) -> pathlib.Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return path


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Run]:
    """The finished run of a task and form; trained, evaluated and predicted when first asked for."""
    from t5tasks.data import sources
    done: dict[tuple[str, str], Run] = {}

    def finished(task: str, architecture: str) -> Run:
        if (task, architecture) not in done:
            folder = tmp_path_factory.mktemp(f"{task}_{architecture}")
            config, workdir = write_config(folder, task, architecture), folder / "run"
            records = write_records(folder / "test.jsonl", list(sources.read("builtin:test?size=24", task)))
            predictions = folder / "predictions.jsonl"
            done[task, architecture] = Run(
                task, architecture, config, workdir,
                run(train, f"--config={config}", f"--workdir={workdir}"),
                run(evaluate, f"--workdir={workdir}"), records,
                run(predict, f"--workdir={workdir}", f"--input={records}", f"--output={predictions}"), predictions)
        return done[task, architecture]

    return finished
