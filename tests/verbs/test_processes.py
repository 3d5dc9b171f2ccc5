# SPDX-License-Identifier: Apache-2.0
"""Flags and environments come in; runs of one process, of two, and of two and then one, which are the same, go out."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from t5tasks import processes, train
from t5tasks.training.preemption import RUN_AGAIN

CHECKOUT = pathlib.Path(__file__).parents[2]
SLURM = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0",
         "SLURM_STEP_NODELIST": "node[1-2]", "JAX_PLATFORMS": "cpu"}
MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1", "OMPI_MCA_orte_hnp_uri": "4096.0;tcp://10.0.0.1:1",
       "JAX_PLATFORMS": "cpu"}


@pytest.mark.parametrize(("environment", "found"), [
    ({}, ""), ({"JAX_PLATFORMS": "cpu", "TPU_WORKER_HOSTNAMES": "a,b"}, ""),
    ({"TPU_WORKER_HOSTNAMES": "localhost"}, ""),
    ({"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"}, "tpu"), ({"MEGASCALE_NUM_SLICES": "2"}, "tpu"),
    (SLURM, "slurm"), (SLURM | {"SLURM_NTASKS": "1"}, ""), (MPI, "ompi"), (MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, ""),
    ({name: value for name, value in SLURM.items() if name != "SLURM_STEP_NODELIST"}, "")])
def test_a_run_is_found_where_a_launcher_has_put_it_and_never_guessed(
        environment: dict, found: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch script of Slurm's is no step, and one of one process has no others."""
    monkeypatch.setattr(processes, "_is_tpu_vm", lambda: False)
    assert processes.found(environment) == found


@pytest.mark.parametrize(("given", "message"), [
    (("here:1", None, None), "--processes, --process is missing"), ((None, 2, 0), "--coordinator is missing"),
    (("here:1", 2, 2), "--process is 2, of --processes=2; the last is 1")])
def test_flags_are_given_together(given: tuple, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        processes.start(*given, {})


def test_one_process_is_alone() -> None:
    assert processes.start("here:1", 1, 0, {}) == "" and processes.start(None, None, None, {}) == ""


def started(number: int, port: int, script: str, *line: str) -> subprocess.Popen:
    """One of two processes, with four of the eight devices."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *line, f"--coordinator=localhost:{port}", "--processes=2",
         f"--process={number}"], cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "4", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"})  # as conftest sets it


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        return found.getsockname()[1]


def lines(workdir: pathlib.Path) -> dict[tuple[int, str], dict]:
    """metrics.jsonl, but for how fast it went."""
    read = [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    return {(line["step"], line["kind"]): {
        name: value for name, value in line.items() if isinstance(value, float) and "second" not in name
        and name != "mfu"}
        for line in read}


@pytest.fixture(scope="module")
def pair(runs: Callable, config_file: Callable, signalled: Callable, tmp_path_factory: pytest.TempPathFactory) -> tuple:
    """The config, its workdir, and the two processes that were asked to stop in it after the fourth step."""
    folder = tmp_path_factory.mktemp("pair")
    tokenizer = runs("classification", "encoder").workdir / "tokenizer"
    config = config_file(folder, "classification", "encoder", f"""config.tokenizer.path = {str(tokenizer)!r}
    config.data.validation = "builtin:validation?size=21"
""")
    port, workdir = free_port(), folder / "run"
    both = [started(number, port, signalled(4, "SIGTERM"), f"--config={config}", f"--workdir={workdir}")
            for number in range(2)]
    try:
        said = [process.communicate(timeout=400) for process in both]
    finally:
        for process in both:
            process.kill()
    return config, workdir, [process.returncode for process in both], [errors for _, errors in said]


def test_two_processes_stop_at_the_same_step_with_all_saved(pair: tuple) -> None:
    """Only the first was asked to; the second prints nothing."""
    _, workdir, statuses, errors = pair
    assert statuses == [RUN_AGAIN, RUN_AGAIN], errors
    last = int(errors[0].split("stopped by SIGTERM after step ")[1].split()[0])
    assert last in (4, 5) and "of 6, all saved; the same command goes on from there" in errors[0], errors[0]
    assert "stopped" not in errors[1] and "error" not in errors[1]
    assert {path.name for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()} == {"3", str(last)}
    entries = json.loads((workdir / "checkpoints" / str(last) / "manifest.json").read_text())
    assert {path.split("/")[1] for path in entries if "ocdbt.process_" in path} >= {
        "ocdbt.process_0", "ocdbt.process_1"}


def test_two_processes_are_one_and_what_they_left_one_goes_on_with(
        pair: tuple, verb: Callable, tmp_path: pathlib.Path) -> None:
    """The same losses, gradients and, of 21 records in batches of 8, the same validation as one process has with
    eight devices; unpacked data stand in the same order in any number of processes."""
    config, workdir, _, _ = pair
    assert verb(train, f"--config={config}", f"--workdir={tmp_path / 'one'}").status == 0
    told = verb(train, f"--config={config}", f"--workdir={workdir}")
    assert told.status == 0 and "resuming at step" in told.errors, told.errors
    one, two = lines(tmp_path / "one"), lines(workdir)
    assert one.keys() == two.keys() and (3, "validation") in one and (6, "train") in one
    for place, figures in one.items():
        assert figures.keys() == two[place].keys()
        for name, value in figures.items():
            np.testing.assert_allclose(two[place][name], value, rtol=2e-5, atol=1e-6, err_msg=f"{place} {name}")


def test_a_process_that_is_asked_before_its_first_step_ends_at_once() -> None:
    """Also where Python's own handlers are not run: the main thread waits in one call, as for a compilation."""
    script = """
import ctypes, os, signal, threading
from t5tasks.training.preemption import StopRequest
with StopRequest():
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    mutex = ctypes.create_string_buffer(64)
    for _ in range(2):
        ctypes.CDLL(None).pthread_mutex_lock(mutex)
"""
    ended = subprocess.run([sys.executable, "-c", script], cwd=CHECKOUT, capture_output=True, text=True, timeout=55)
    assert (ended.returncode, ended.stderr) == (
        RUN_AGAIN, f"stopped by {signal.SIGTERM.name} before the first step: nothing to save\n")
