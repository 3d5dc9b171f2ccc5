# SPDX-License-Identifier: Apache-2.0
"""Flags or a cluster's environment in, this process joined to the others of its run out.

    python -m t5tasks.train ... --coordinator=HOST:PORT --processes=2 --process=0     # and on the other host: 1

Without flags a run is found where a launcher has put it: on the hosts of a TPU slice (or several), in a Slurm step
(srun) or under Open MPI's mpirun. Anywhere else a process stands for itself. A process that fails ends at once, so
that the others, whose heartbeats then go unanswered, end too: a restart goes on from the last checkpoint.
"""

import contextlib
import os
import pathlib
import sys
import traceback
from collections.abc import Iterator, Mapping

import jax
from absl import flags

from t5tasks import command
from t5tasks.training.preemption import RUN_AGAIN

HEARTBEAT = 20  # seconds without a sign of life after which the others give a process up


def define_flags() -> None:
    """--coordinator, --processes and --process."""
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0, where several processes do one run")
    flags.DEFINE_integer("processes", None, "how many processes do the run", lower_bound=1)
    flags.DEFINE_integer("process", None, "which of them this one is, from 0", lower_bound=0)


@contextlib.contextmanager
def joined() -> Iterator[None]:
    """Joins the processes of the run while a verb is at work; must come before anything is computed.

    Raises:
      ValueError: only some of the flags were given, or they do not fit together.
    """
    given = flags.FLAGS
    if not start(given.coordinator, given.processes, given.process, os.environ):
        yield
        return
    try:
        yield
    except SystemExit as ended:
        if not isinstance(ended.code, int) or ended.code != RUN_AGAIN:  # to which all processes come together
            _leave(ended.code if isinstance(ended.code, int) else 1)
        jax.distributed.shutdown()
        raise
    except BaseException as error:
        if (status := command.told(error)) is None:
            traceback.print_exception(error)
        _leave(status or 1)
    jax.distributed.shutdown()


def start(coordinator: str | None, processes: int | None, process: int | None, environment: Mapping[str, str]) -> str:
    """Joins the others, if there are any; returns how they were found, empty where this process is alone."""
    flagged = {"--coordinator": coordinator, "--processes": processes, "--process": process}
    missing = [name for name, value in flagged.items() if value is None]
    if 0 < len(missing) < len(flagged):
        raise ValueError(f"{', '.join(missing)} is missing: several processes are started with --coordinator=HOST:PORT "
                         "--processes=N --process=I, all three")
    if processes is not None and process is not None and process >= processes:
        raise ValueError(f"--process is {process}, of --processes={processes}; the last is {processes - 1}")
    method = "flags" if coordinator else found(environment)
    if not method or processes == 1:
        return ""
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from training/preemption.py
    jax.distributed.initialize(
        coordinator, processes, process, heartbeat_timeout_seconds=HEARTBEAT,
        cluster_detection_method={"flags": "deactivate", "slurm": "slurm", "ompi": "ompi"}.get(method))
    return method


def found(environment: Mapping[str, str]) -> str:
    """What has started this process as one of several: slurm, ompi or tpu; empty where nothing has.

    A batch script of Slurm's is no step of it, and a single TPU host has no others.
    """
    def several(name: str) -> bool:
        return environment.get(name, "").isdigit() and int(environment[name]) > 1

    if several("SLURM_NTASKS") and "SLURM_STEP_NODELIST" in environment and "SLURM_LOCALID" in environment:
        return "slurm"
    if several("OMPI_COMM_WORLD_SIZE") and "OMPI_MCA_orte_hnp_uri" in environment:
        return "ompi"
    if environment.get("JAX_PLATFORMS", "tpu").split(",")[0] not in ("", "tpu"):
        return ""
    hosts = [host for host in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if host]
    return "tpu" if len(hosts) > 1 or several("MEGASCALE_NUM_SLICES") or _is_tpu_vm() else ""


def _is_tpu_vm() -> bool:
    """Whether this is a machine of Google's cloud with TPU chips; its metadata know the other hosts."""
    maker = pathlib.Path("/sys/class/dmi/id/product_name")
    chips = [*pathlib.Path("/dev").glob("accel[0-9]*"), *pathlib.Path("/dev/vfio").glob("[0-9]*")]
    with contextlib.suppress(OSError):
        return bool(chips) and maker.read_text().startswith("Google")
    return False


def _leave(status: int) -> None:
    """Ends the process at once: a shutdown in order would wait for the others, who may be waiting for this one."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
