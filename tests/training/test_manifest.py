# SPDX-License-Identifier: Apache-2.0
"""Steps that were damaged come in; what is told of them, and the last good one, go out."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from etils import epath

from t5tasks.training import manifest
from t5tasks.training.checkpoint import Checkpoints


def _files(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _flip(path: pathlib.Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.fixture(scope="module")
def whole(run, tmp_path_factory):
    """A folder with the steps 0 and 1, of which 0 is the best."""
    folder = tmp_path_factory.mktemp("whole") / "checkpoints"
    made = run()
    with Checkpoints(folder, "accuracy") as checkpoints:
        for step, figure in ((0, 0.9), (1, 0.5)):
            checkpoints.save(made.model, dataclasses.replace(made.first, step=np.int32(step)), {"at": step},
                             {"accuracy": figure})
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    return pathlib.Path(shutil.copytree(whole, tmp_path / "checkpoints"))


def test_every_file_but_the_library_s_own_label_is_in_the_manifest(whole):
    entries = json.loads((whole / "1" / manifest.NAME).read_text())
    present = {str(path.relative_to(whole / "1")) for path in _files(whole / "1")}
    assert present - {*entries} == manifest.REWRITTEN and {*entries} < present
    assert {path.split("/")[0] for path in entries} == {"parameters", "optimizer", "run", "metrics"}
    assert manifest.damage(epath.Path(whole / "1")) == ""


def test_a_flipped_bit_in_any_file_is_found(folder):
    """Also by the one of several processes that looks at that file."""
    step = folder / "1"
    for path in _files(step):
        if path.name in manifest.REWRITTEN or not path.stat().st_size:
            continue
        before, name = path.read_bytes(), str(path.relative_to(step))
        _flip(path)
        told = [manifest.damage(epath.Path(step), (), process, 3) for process in range(3)]
        assert sorted(told) == ["", "", f"{name} has other bytes than were written"]
        path.write_bytes(before)
    assert manifest.damage(epath.Path(step)) == ""


def _cut(step):
    path = max(_files(step / "parameters"), key=lambda path: path.stat().st_size)
    path.write_bytes(path.read_bytes()[:-1])


def _lose(step):
    max(_files(step / "optimizer"), key=lambda path: path.stat().st_size).unlink()


def _half_copied(step):
    shutil.rmtree(step / "optimizer")
    (step / manifest.NAME).unlink()


def _empty(step):
    shutil.rmtree(step)
    step.mkdir()


@pytest.mark.parametrize(("harm", "message"), [
    (lambda step: _flip(max(_files(step / "parameters"), key=lambda path: path.stat().st_size)),
     "has other bytes than were written"),
    (_cut, "instead of"), (_lose, "is missing"), (_half_copied, "manifest.json is missing"),
    (_empty, "manifest.json is missing"), (lambda step: _flip(step / "run" / "metadata"), "run/metadata has other"),
    (lambda step: (step / manifest.NAME).write_text("{"), "cannot be read"),
], ids=["flip", "cut", "lost", "half", "empty", "run", "manifest"])
def test_a_damaged_newest_step_is_put_aside_and_the_one_before_is_used(run, folder, capsys, harm, message):
    made = run()
    harm(folder / "1")
    with Checkpoints(folder, "accuracy", reading=True) as checkpoints:
        assert checkpoints.latest() == (1 if harm is _lose else 0)  # the optimizer's state, which is not read
    told = capsys.readouterr().err
    assert (told == "") == (harm is _lose) and (folder / "1").exists()  # who reads puts nothing aside
    with Checkpoints(folder, "accuracy") as checkpoints:
        assert checkpoints.latest() == checkpoints.best() == 0
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and "checkpoints/1 is incomplete or damaged: " in told and message in told
        assert checkpoints.run_of(0)["at"] == 0
        checkpoints.save(made.model, dataclasses.replace(made.first, step=np.int32(1)), {"at": "again"},
                         {"accuracy": 0.4})
        assert checkpoints.latest() == 1 and checkpoints.run_of(1)["at"] == "again"
    assert sorted(path.name for path in folder.iterdir()) == ["0", "1", "damaged-1.1"]


def test_a_damaged_best_step_gives_way_to_the_next(folder, capsys):
    _flip(max(_files(folder / "0" / "parameters"), key=lambda path: path.stat().st_size))
    with Checkpoints(folder, "accuracy", reading=True) as checkpoints:
        assert checkpoints.best() == 1
    assert "checkpoints/0 is incomplete or damaged" in capsys.readouterr().err


def test_the_parts_of_several_processes_make_one_manifest(tmp_path):
    """Each hashes its own files; those that no process owns are process 0's."""
    step = epath.Path(tmp_path / "5")
    for name in ("parameters/ocdbt.process_0/d/a", "parameters/ocdbt.process_1/d/b", "parameters/_METADATA", "run/x"):
        (step / name).parent.mkdir(parents=True, exist_ok=True)
        (step / name).write_text(name)
    manifest.write_part(step, 1)
    manifest.seal(step, 2)
    entries = json.loads((step / manifest.NAME).read_text())
    assert len(entries) == 4 and not (step / "manifest.1.json").exists()
    assert [manifest.damage(step, (), process, 2) for process in range(2)] == ["", ""]
    (step / "run/x").write_text("RUN/x")
    assert manifest.damage(step, ("parameters",)) == "" and "run/x has other bytes" in manifest.damage(step)
