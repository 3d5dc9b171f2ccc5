# SPDX-License-Identifier: Apache-2.0
"""Cells of a sweep and a cluster's name in; the files and commands that run each cell there, out.

Every cell is this very verb with --only=ID, so that locks, retries and resuming are those of the local runner; results
are files of a folder that all machines see. These runners are checked by the commands that they print, not against a
cluster of any kind.

    slurm    an array job; --resource holds options of sbatch ("--gres=gpu:1 --time=4:00:00")
    tpu      --resource names TPU VMs as NAME:ZONE,NAME:ZONE; each is dealt its share of the cells, one after another
    gke      an Indexed Job; --resource is IMAGE:TAG,CLAIM: what holds t5tasks, and the persistent volume claim that is
             mounted on the workdir
"""

import dataclasses
import json
import pathlib
import shlex
from collections.abc import Sequence

RUNNERS = ("slurm", "tpu", "gke")


@dataclasses.dataclass(frozen=True)
class Submission:
    """Files to write, by their paths, and then commands to run."""

    files: dict[str, str]
    commands: tuple[tuple[str, ...], ...]

    def told(self) -> str:
        """All of it as text for a person."""
        parts = [f"# {path}\n{text.rstrip()}\n" for path, text in self.files.items()]
        return "\n".join([*parts, *(shlex.join(command) for command in self.commands)])


def submission(runner: str, ids: Sequence[str], verb: Sequence[str], folder: pathlib.Path, count: int, resource: str
               ) -> Submission:
    """What runs the cells.

    Args:
      verb: the command that is given one more flag, --only.
      count: cells at a time, 0 for all.

    Raises:
      ValueError: a resource that the runner cannot do without, or that it does not understand.
    """
    folder = folder.absolute()
    if runner == "slurm":
        return _slurm(ids, verb, folder, count, resource)
    return (_tpu if runner == "tpu" else _gke)(ids, verb, folder, count, resource)


def _slurm(ids: Sequence[str], verb: Sequence[str], folder: pathlib.Path, count: int, resource: str) -> Submission:
    script = folder / "submit" / "sweep.sbatch"
    at_a_time = f"%{count}" if count else ""
    text = "\n".join([
        "#!/usr/bin/env bash", "#SBATCH --job-name=t5tasks-sweep", f"#SBATCH --array=0-{len(ids) - 1}{at_a_time}",
        f"#SBATCH --output={folder}/submit/%a.txt", f"cells=({' '.join(ids)})",
        f"exec {shlex.join(verb)} --only=\"^${{cells[$SLURM_ARRAY_TASK_ID]}}$\"", ""])
    return Submission({str(script): text}, (("sbatch", *shlex.split(resource), str(script)),))


def _tpu(ids: Sequence[str], verb: Sequence[str], folder: pathlib.Path, count: int, resource: str) -> Submission:
    machines = [machine.split(":") for machine in resource.split(",")]
    if not all(len(machine) == 2 and all(machine) for machine in machines):
        raise ValueError(f"--resource is {resource!r}; --runner=tpu needs TPU VMs as NAME:ZONE,NAME:ZONE")
    commands = []
    for number, (name, zone) in enumerate(machines):
        own = ids[number::len(machines)]
        if own:
            only = shlex.join([*verb, f"--only=^({'|'.join(own)})$"])
            commands.append(("gcloud", "compute", "tpus", "tpu-vm", "ssh", name, f"--zone={zone}", "--worker=all",
                             f"--command=cd {shlex.quote(str(pathlib.Path.cwd()))} && "
                             f"nohup {only} > {shlex.quote(f'{folder}/submit-{name}.txt')} 2>&1 &"))
    return Submission({}, tuple(commands))


def _gke(ids: Sequence[str], verb: Sequence[str], folder: pathlib.Path, count: int, resource: str) -> Submission:
    image, _, claim = resource.partition(",")
    if not image or not claim:
        raise ValueError(f"--resource is {resource!r}; --runner=gke needs IMAGE:TAG,CLAIM")
    script = f"cells=({' '.join(ids)}); exec {shlex.join(verb)} --only=\"^${{cells[$JOB_COMPLETION_INDEX]}}$\""
    container = {"name": "cell", "image": image, "command": ["bash", "-c", script],
                 "volumeMounts": [{"name": "workdir", "mountPath": str(folder)}]}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"generateName": "t5tasks-sweep-"},
           "spec": {"completionMode": "Indexed", "completions": len(ids), "parallelism": count or len(ids),
                    "template": {"spec": {"restartPolicy": "OnFailure", "containers": [container], "volumes": [
                        {"name": "workdir", "persistentVolumeClaim": {"claimName": claim}}]}}}}
    path = folder / "submit" / "job.json"
    return Submission({str(path): json.dumps(job, indent=2) + "\n"}, (("kubectl", "create", "-f", str(path)),))
