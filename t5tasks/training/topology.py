# SPDX-License-Identifier: Apache-2.0
"""A TPU pod's name in; its devices, none of which has to be there, and what each of them can do, out.

    v5p:4x4x8      128 chips, as Cloud TPU names topologies
    v5e:16x16*2    two slices of 256 chips, joined by the data centre's network
"""

import dataclasses
import importlib.util
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from t5tasks.training.peak import device_flops

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a program can count on, of each device that JAX shows.

    Figures of cloud.google.com/tpu/docs/system-architecture-tpu-vm and, of a link, jax-ml.github.io/scaling-book.

    Attributes:
      kind: as JAX calls it.
      memory: bytes that libtpu's compiler gives to a program, which is less than the data sheet's.
      bandwidth: bytes a second from and to that memory.
      link: bytes a second, one way, of one link to a neighbour.
      options: that make a device a chip, where it would be a core.
    """

    kind: str
    memory: float
    bandwidth: float
    link: float
    options: tuple[tuple[str, str], ...] = ()

    @property
    def flops(self) -> float:
        """Dense bf16 operations a second."""
        return device_flops(self.kind)


CHIPS = {
    "v4": Chip("TPU v4", 30.75 * GIB, 1228e9, 45e9, (("chip_config_name", "megacore"),)),
    "v5e": Chip("TPU v5 lite", 15.75 * GIB, 819e9, 45e9),
    "v5p": Chip("TPU v5", 95.74 * GIB, 2765e9, 90e9),
    "v6e": Chip("TPU v6 lite", 31.25 * GIB, 1638e9, 90e9),
    "tpu7x": Chip("TPU7x", 94.75 * GIB, 3690e9, 100e9),  # each of a chip's two cores
}
# libtpu would ask the cloud where it is, and let one process of the machine in.
ALONE = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "TPU_WORKER_ID": "0",
         "TPU_ACCELERATOR_TYPE": "v5p-8", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}


@dataclasses.dataclass(frozen=True)
class Topology:
    """Devices to compile for. `slices` of them are alike, and only slower links join one to another."""

    name: str
    chip: Chip
    slices: int
    devices: tuple[Any, ...]


def find(name: str) -> Topology:
    """The devices of a pod.

    Raises:
      ValueError: a name that is none, or libtpu, which knows them, is not installed.
    """
    parts = re.fullmatch(r"(\w+):(\d+(?:x\d+){1,2})(?:\*(\d+))?", name)
    if not parts or parts[1] not in CHIPS:
        raise ValueError(f"{name!r} is no TPU topology; expected one such as v5p:4x4x8, or v5e:16x16*2 for two slices, "
                         f"of {', '.join(CHIPS)}")
    if importlib.util.find_spec("libtpu") is None:
        raise ValueError("compiling for TPUs without one needs libtpu: pip install 't5tasks[tpu]'")
    for variable, value in ALONE.items():
        os.environ.setdefault(variable, value)
    chip, slices = CHIPS[parts[1]], int(parts[3] or 1)
    options: dict[str, Any] = dict(chip.options)
    if slices > 1:
        options["num_slices"] = slices
    try:
        found = topologies.get_topology_desc(platform="tpu", topology_name=f"{parts[1]}:{parts[2]}", **options)
    except jax.errors.JaxRuntimeError as error:
        raise ValueError(f"libtpu knows no topology {name}: {error}") from error
    return Topology(name, chip, slices, tuple(found.devices))
