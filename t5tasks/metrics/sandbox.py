# SPDX-License-Identifier: Apache-2.0
"""Programs that a model wrote come in, each with its tests; whether they pass comes out, and nothing else does.

A program and its tests run in two processes, each in a bubblewrap box of its own (`sandbox_guest.py` says why two).
A box has no network, no /proc, no file of the host but /usr and Python's own folder (read only), one small writable
folder in memory, no privileges and no way to new ones; its environment is empty. Limits:

    always       CPU seconds, address space, file size, open files, processes (rlimits, set before the program comes);
                 wall clock, and length of each answer, kept from outside
    with cgroups also the memory and the processes of both boxes together, files in memory included

Without a cgroup that this process may write to (usually only root has one), memory is limited for each process, so
that `processes` of them could hold as many times the limit, and files in memory come on top.

Without bubblewrap no program is run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import json
import os
import pathlib
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

PASSED, FAILED, TIMEOUT, MEMORY, REFUSED = STATUSES = ("passed", "failed", "timeout", "memory", "refused")
NOBODY = "65534"
START_SECONDS = 60.0  # for a box to begin, on a busy machine; nothing of the program's has run by then
VERDICT_LIMIT = 1 << 16  # bytes
CGROUPS = pathlib.Path("/sys/fs/cgroup")
GUEST = pathlib.Path(__file__).with_name("sandbox_guest.py")
# Puts itself into the groups named before "--", then becomes what stands after it.
ENTER = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"'


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a program and its tests may use."""

    seconds: int = 10  # of CPU, each process
    wall_seconds: float = 40.0  # from the moment that the program is handed over
    memory: int = 512 << 20  # bytes
    processes: int = 64
    disk: int = 64 << 20  # bytes of the writable folder


@dataclasses.dataclass(frozen=True)
class Program:
    """A program to be judged. Everything but `source` is trusted to be the tests' author's."""

    source: str
    tests: tuple[str, ...]  # Python statements; an exception fails the program
    names: tuple[str, ...]  # of the program's, that the tests speak of
    before: str = ""  # what the tests need besides, such as imports


@dataclasses.dataclass(frozen=True)
class Verdict:
    """How a program did, and in one line why."""

    status: str  # one of STATUSES; refused: a test cannot be carried out here, which is not the program's fault
    reason: str
    seconds: float  # wall clock


def run(programs: Sequence[Program], limits: Limits | None = None) -> list[Verdict]:
    """Judges the programs, as many at a time as there are cores.

    Raises:
      ValueError: no program can be run here (see `problem`), or a box could not be started.
    """
    if reason := problem():
        raise ValueError(reason)
    with ThreadPoolExecutor(max(1, min(cores(), len(programs)))) as pool:
        return list(pool.map(lambda program: _judged(program, limits or Limits()), programs))


def cores() -> int:
    """How many programs are judged at a time."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def problem() -> str:
    """Why no program can be run here, in one line; empty where a right and a wrong one were told apart."""
    refusal = "cannot run model-written code: "
    if sys.platform != "linux":
        return f"{refusal}the sandbox needs Linux, this is {sys.platform}; set config.task.run_tests to False"
    if not shutil.which("bwrap"):
        return (f"{refusal}bubblewrap is not installed (no bwrap on the PATH); install it (Debian: apt-get install "
                "bubblewrap), or set config.task.run_tests to False")
    tried = subprocess.run([*_entry(()), *_box(Limits()), _python(), *FLAGS, "-c", "pass"], capture_output=True,
                           env={}, timeout=START_SECONDS)
    if tried.returncode:
        said = [f"exit {tried.returncode}", *tried.stderr.decode(errors="replace").strip().splitlines()][-1]
        return (f"{refusal}bubblewrap does not work here ({said}); it needs "
                "unprivileged user namespaces, or set config.task.run_tests to False")
    found = [_judged(Program("def double(x):\n    return 2 * x", (f"assert double(2) == {number}",), ("double",)),
                     Limits()).status for number in (4, 5)]
    return "" if found == [PASSED, FAILED] else f"{refusal}a trial of the sandbox gave {' and '.join(found)}"


def describe() -> str:
    """What limits memory and processes here, in words."""
    group = _cgroup_folders()
    return f"cgroup {group[0]}" if group else "rlimits of each process only"


@dataclasses.dataclass(frozen=True)
class Group:
    """The cgroups of one program's boxes: a folder (v2), or one a controller (v1); none where none is writable."""

    folders: tuple[pathlib.Path, ...] = ()

    def out_of_memory(self) -> bool:
        """Whether the kernel killed a process of it for its memory."""
        for folder in self.folders:
            for name in ("memory.events", "memory.oom_control"):
                with contextlib.suppress(OSError):
                    if any(line.startswith("oom_kill ") and int(line.split()[1])
                           for line in (folder / name).read_text().splitlines()):
                        return True
        return False

    def end(self) -> None:
        """Kills what is left in it, and removes it."""
        for folder in self.folders:
            for _ in range(200):  # a killed process leaves its group a moment later
                with contextlib.suppress(OSError):
                    for process in (folder / "cgroup.procs").read_text().split():
                        os.kill(int(process), signal.SIGKILL)
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)


NUMBERS = itertools.count()
# What is written into a new group, in this order, by cgroup version; a file that is not there is left out.
GROUP_FILES: dict[str, dict[str, Callable[[Limits], int]]] = {
    "v1": {"memory.limit_in_bytes": lambda limits: limits.memory,
           "memory.memsw.limit_in_bytes": lambda limits: limits.memory,  # with swap, so that there is none
           "pids.max": lambda limits: limits.processes},
    "v2": {"memory.max": lambda limits: limits.memory, "memory.swap.max": lambda limits: 0,
           "pids.max": lambda limits: limits.processes},
}


@functools.cache
def _cgroup_folders(root: pathlib.Path = CGROUPS, membership: pathlib.Path = pathlib.Path("/proc/self/cgroup")
                    ) -> tuple[str, tuple[pathlib.Path, ...]] | None:
    """The version and the folders in which groups for memory and processes can be made; None where none can."""
    if not membership.is_file():
        return None
    own = {name: path.lstrip("/") for _, names, path in
           (line.split(":", 2) for line in membership.read_text().splitlines()) for name in names.split(",")}
    choices: list[tuple[str, list[pathlib.Path]]] = []
    if {"memory", "pids"} <= own.keys():
        choices += [("v1", [root / name / own[name] for name in ("memory", "pids")]),
                    ("v1", [root / name for name in ("memory", "pids")])]
    if "" in own:
        # A group of v2 that has processes hands no controllers down, so the one above is tried as well.
        choices += [("v2", [folder]) for folder in (root / own[""], (root / own[""]).parent)
                    if root in (folder, *folder.parents)]
    for version, folders in choices:
        made: list[pathlib.Path] = []
        try:
            for folder in folders:
                made.append(folder / f"t5tasks-trial-{os.getpid()}")
                made[-1].mkdir()
            if all(any((path / name).exists() for path in made) for name in _needed(version)):
                return version, tuple(folders)
        except OSError:
            pass
        finally:
            for path in made:
                with contextlib.suppress(OSError):
                    path.rmdir()
    return None


def _needed(version: str) -> tuple[str, ...]:
    return ("memory.max" if version == "v2" else "memory.limit_in_bytes", "pids.max")


@contextlib.contextmanager
def _group(limits: Limits, found: tuple[str, tuple[pathlib.Path, ...]] | None) -> Iterator[Group]:
    """A new group with its limits written; ended and removed after."""
    version, bases = found or ("", ())
    group = Group(tuple(base / f"t5tasks-{os.getpid()}-{next(NUMBERS)}" for base in bases))
    try:
        for folder in group.folders:
            folder.mkdir()
            for name, value in GROUP_FILES[version].items():
                if (folder / name).exists():
                    (folder / name).write_text(str(value(limits)))
        yield group
    finally:
        group.end()


FLAGS = ("-I", "-S", "-B")  # nothing from the environment or beside Python's own library, and no bytecode written


@functools.cache
def _python() -> str:
    """The interpreter of the boxes: this one if whom they run as may read it, else one of /usr.

    Raises ValueError where there is none.
    """
    own = pathlib.Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"
    choices = [own, *(pathlib.Path(folder) / "python3" for folder in ("/usr/bin", "/usr/local/bin"))]
    for path in choices:
        readable = os.geteuid() != 0 or all(folder.stat().st_mode & 0o001 for folder in path.resolve().parents)
        if path.exists() and readable:
            return str(path.resolve())
    raise ValueError(f"cannot run model-written code: the sandbox's unprivileged user may not read {own}, and there is "
                     "no python3 in /usr; install one (Debian: python3)")


@functools.cache
def _box(limits: Limits) -> tuple[str, ...]:
    """The command of a box, to be followed by what runs in it."""
    system: list[str] = ["--ro-bind", "/usr", "/usr", "--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for name in ("/bin", "/lib", "/lib32", "/lib64"):
        path = pathlib.Path(name)
        if path.is_symlink():
            system += ["--symlink", os.readlink(path), name]
        elif path.is_dir():
            system += ["--ro-bind", name, name]
    prefix = pathlib.Path(_python()).parents[1]
    if pathlib.Path("/usr") not in (prefix, *prefix.parents):
        system += ["--ro-bind", str(prefix), str(prefix)]
    return (str(shutil.which("bwrap")), "--unshare-user", "--unshare-all", *_further(), "--die-with-parent",
            "--new-session", "--cap-drop", "ALL", "--hostname", "box", *system, "--dev", "/dev", "--remount-ro", "/dev",
            "--size", str(limits.disk), "--tmpfs", "/work", "--symlink", "work", "/tmp", "--chdir", "/work",
            "--clearenv", "--setenv", "PATH", "/usr/bin:/bin", "--setenv", "HOME", "/work", "--remount-ro", "/", "--")


@functools.cache
def _further() -> tuple[str, ...]:
    """--disable-userns, which bubblewrap has from 0.8: no namespaces inside the box, a door less to the kernel."""
    said = subprocess.run(["bwrap", "--help"], capture_output=True, timeout=START_SECONDS)
    return ("--disable-userns",) if b"--disable-userns" in said.stdout + said.stderr else ()


def _entry(folders: Sequence[pathlib.Path]) -> list[str]:
    """What goes before a box's command: into the groups as root, then no longer root."""
    command = ["/bin/sh", "-c", ENTER, "sh", *map(str, folders), "--"] if folders else []
    if os.geteuid() == 0:
        command += [str(shutil.which("setpriv")), f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups",
                    "--no-new-privs"]
    return command


@functools.cache
def _guest() -> str:
    return GUEST.read_text("utf-8")


def _start(role: Sequence[str], group: Group, limits: Limits, **pipes: Any) -> subprocess.Popen[bytes]:
    """A guest in its box; it sets its own limits before it reads a message."""
    space = limits.memory * (2 if group.folders else 1)  # address space is more than what is used of it
    numbers = {"CPU": limits.seconds, "AS": space, "FSIZE": limits.disk, "NOFILE": 64, "NPROC": limits.processes,
               "CORE": 0}
    # The thread that starts a box stays with it: --die-with-parent means the thread.
    return subprocess.Popen([*_entry(group.folders), *_box(limits), _python(), *FLAGS, "-c", _guest(), role[0],
                             json.dumps(numbers), *role[1:]], stderr=subprocess.DEVNULL, env={}, **pipes)


# Threads of several callers share the cores.
_SLOTS = threading.BoundedSemaphore(cores())


def _judged(program: Program, limits: Limits) -> Verdict:
    with _SLOTS, _group(limits, _cgroup_folders()) as group, contextlib.ExitStack() as stack:
        asking, saying = os.pipe(), os.pipe()  # each (to read, to write)
        try:
            box = _start(["program"], group, limits, stdin=asking[0], stdout=saying[1])
            stack.callback(_kill, box)
            judge = _start(["judge", str(saying[0]), str(asking[1])], group, limits, stdin=subprocess.PIPE,
                           stdout=subprocess.PIPE, pass_fds=(saying[0], asking[1]))
            stack.callback(_kill, judge)
        finally:
            for end in (*asking, *saying):
                os.close(end)
        if _message(judge, START_SECONDS) != "ready":
            raise ValueError(f"the sandbox could not start a box within {START_SECONDS:.0f} s; is the machine out of "
                             "memory or processes?")
        started = time.monotonic()
        _tell(judge, dataclasses.asdict(program))
        said = _message(judge, limits.wall_seconds)
        seconds = time.monotonic() - started
        return Verdict(*_meaning(said, box, group, seconds, limits), seconds)


def _meaning(said: Any, box: subprocess.Popen[bytes], group: Group, seconds: float, limits: Limits) -> tuple[str, str]:
    """The status and the reason behind what the judge said, None for nothing."""
    status, reason, exception = (str(said[name]) for name in ("status", "reason", "exception")) if isinstance(
        said, dict) else ("ended", "the tests' process ended", "")
    if status in (PASSED, REFUSED):
        return status, reason
    if group.out_of_memory() or exception == "MemoryError":
        return MEMORY, f"more than {limits.memory >> 20} MiB: {reason}"
    if seconds >= limits.wall_seconds and said is None:
        return TIMEOUT, f"no end after {limits.wall_seconds:g} s"
    if status == "ended":
        with contextlib.suppress(subprocess.TimeoutExpired):
            # bubblewrap gives the signal that ended the program as 128 more; the first limit can be ignored, the
            # second, a second later, kills.
            ended_by = box.wait(1.0) - 128
            if ended_by == signal.SIGXCPU or (ended_by == signal.SIGKILL and seconds >= limits.seconds):
                return TIMEOUT, f"more than {limits.seconds} s of CPU: {reason}"
    return FAILED, reason


def _message(judge: subprocess.Popen[bytes], seconds: float) -> Any:
    """What the judge says next; None if it says nothing in time, ends, or says too much."""
    assert judge.stdout is not None
    end, content = time.monotonic() + seconds, b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(judge.stdout, selectors.EVENT_READ)
        while waiting.select(max(end - time.monotonic(), 0)):
            # One byte too many would belong to the next message, of which there is none before an answer.
            part = os.read(judge.stdout.fileno(), VERDICT_LIMIT)
            content += part
            with contextlib.suppress(ValueError):
                if len(content) >= 8 and len(content) - 8 >= int(content[:8], 16):
                    return json.loads(content[8:])
            if not part or len(content) > VERDICT_LIMIT:
                break
    return None


def _tell(judge: subprocess.Popen[bytes], message: Any) -> None:
    content = json.dumps(message).encode()
    assert judge.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it ended: its silence says so
        judge.stdin.write(b"%08x" % len(content) + content)
        judge.stdin.flush()


def _kill(box: subprocess.Popen[bytes]) -> None:
    """Ends a box: with bubblewrap goes the first process of its namespace, and with that one all others."""
    box.kill()
    box.wait()
    for pipe in (box.stdin, box.stdout):
        if pipe is not None:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
