# SPDX-License-Identifier: Apache-2.0
"""A config and a TPU that is not there come in; what a step would need of it comes out."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import subprocess
import sys

import pytest

from t5tasks import sharding
from t5tasks.training import topology

CHECKOUT = pathlib.Path(__file__).parents[2]
LIBTPU = CHECKOUT / ".cache" / "libtpu"  # where scripts/test.sh puts it
needs_libtpu = pytest.mark.skipif(
    not (LIBTPU / "libtpu").is_dir() and importlib.util.find_spec("libtpu") is None,
    reason="libtpu, the compiler for TPUs, is absent: pip install 't5tasks[tpu]'")
SMALL = ("--config.model.encoder_layers=2", "--config.model.width=128", "--config.model.heads=2",
         "--config.model.kv_heads=2", "--config.model.feed_forward=256", "--config.tokenizer.size=1000",
         "--config.batch.size=64", "--config.batch.evaluation_size=64")


def dry_run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(LIBTPU), environment.get("PYTHONPATH", "")]))
    return subprocess.run([sys.executable, "-m", "t5tasks.train", "--config=configs/pods/nli_bert_large.py",
                           *arguments], cwd=CHECKOUT, env=environment, capture_output=True, text=True)


@needs_libtpu
def test_a_step_is_compiled_for_chips_that_are_not_there() -> None:
    told = dry_run(*SMALL, "--dry_run=v5e:2x2", "--config.mesh.fsdp=2", "--config.mesh.data=2")
    assert told.returncode == 0, told.stderr
    assert "4 devices of kind TPU v5 lite, mesh data 2 x fsdp 2 x tensor 1" in told.stdout
    assert re.search(r"compiles +yes", told.stdout) and re.search(r"all-(reduce|gather)", told.stdout)
    operations = re.search(r"operations +([\d.e+]+) a step", told.stdout)
    weights = 2 * (4 * 128 * 128 + 2 * 128 * 256)
    assert operations and float(operations[1]) == pytest.approx(
        6 * 64 * 128 * (weights + 2 * 2 * 128 * 128), rel=0.01)


@needs_libtpu
def test_a_step_that_does_not_fit_says_what_does() -> None:
    told = dry_run(*SMALL, "--config.model.encoder_layers=1", "--config.model.feed_forward=65536",
                   "--config.batch.size=16384", "--config.batch.evaluation_size=16384", "--dry_run=v5e:2x2")
    assert told.returncode == 1 and re.search(r"compiles +no: it would need [\d.]+ of 15.8 GiB", told.stdout)
    assert re.search(r"error: config.batch.size=16384 does not fit into v5e:2x2; \d+ does", told.stderr)


@pytest.fixture
def libtpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The compiler can be imported, and what it wants of the environment is taken back."""
    monkeypatch.syspath_prepend(LIBTPU)
    for variable, value in topology.ALONE.items():
        monkeypatch.setenv(variable, value)


@needs_libtpu
@pytest.mark.usefixtures("libtpu")
def test_slices_are_joined_by_data_alone() -> None:
    found = topology.find("v5e:2x2*2")
    mesh = sharding.make_mesh(2, 4, 1, found.devices)
    assert [{device.slice_index for device in row.flat} for row in mesh.devices] == [{0}, {1}]
    with pytest.raises(ValueError, match="2 slices.*mesh.data is 1"):
        sharding.make_mesh(1, 8, 1, found.devices)


@needs_libtpu
@pytest.mark.usefixtures("libtpu")
@pytest.mark.parametrize("chip", topology.CHIPS)
def test_every_chip_is_known_to_libtpu(chip: str) -> None:
    found = topology.find(f"{chip}:{'2x2' if chip in ('v5e', 'v6e') else '2x2x1'}")
    assert {device.device_kind for device in found.devices} == {found.chip.kind}
    assert len(found.devices) == (8 if chip == "tpu7x" else 4) and found.chip.flops > 1e14


@pytest.mark.parametrize("name", ["v9:2x2", "v5p", "v5p:4", "v5e:2x2*", "v5e:2x2x"])
def test_a_topology_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"no TPU topology; expected one such as v5p:4x4x8"):
        topology.find(name)
