# SPDX-License-Identifier: Apache-2.0
"""Functions to call come in; each runs in a process of its own on a core of its own, and how it ended comes out.

Models of the built-in world keep one core busy and no more, so on a CPU every core does a job of its own. A job that
crashes, whatever kills it, takes no other with it; jobs end when the process that started them does.
"""

import collections
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from multiprocessing import connection
from typing import Any

from t5tasks import command


@dataclasses.dataclass(frozen=True)
class Ended:
    """A job that is over; `error` is empty where it went well, else one line."""

    name: str
    error: str


@dataclasses.dataclass
class _Running:
    process: Any
    told: connection.Connection
    core: int


def cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def sensible() -> int:
    """How many jobs at a time: one a core on a CPU, one on an accelerator, whose memory a process takes whole.

    Another process looks, for one that has begun JAX holds the device.
    """
    platform = os.environ.get("JAX_PLATFORMS", "")
    if not platform:
        asked = subprocess.run([sys.executable, "-c", "import jax; print(jax.default_backend())"],
                               capture_output=True, text=True, check=False)
        platform = asked.stdout.strip()
    return len(cores()) if platform == "cpu" else 1


class Workers:
    """At most `count` jobs at a time; more than one keep to a core each (as long as there are cores)."""

    def __init__(self, count: int) -> None:
        self._spawn = multiprocessing.get_context("spawn")  # a fork of a process in which JAX has begun would hang
        alone = count == 1
        self._cores = collections.deque([-1] if alone else itertools.islice(itertools.cycle(cores()), count))
        self._running: dict[str, _Running] = {}

    @property
    def free(self) -> int:
        """How many more jobs may be started."""
        return len(self._cores)

    def start(self, name: str, output: pathlib.Path, call: Callable[..., Any], *arguments: Any) -> None:
        """Calls a function of a module in another process; what it prints, libraries too, is added to `output`."""
        output.parent.mkdir(parents=True, exist_ok=True)
        core = self._cores.popleft()
        told, tell = self._spawn.Pipe(duplex=False)
        process = self._spawn.Process(target=_apart, args=(core, output, tell, call, arguments), name=name)
        process.start()
        tell.close()
        self._running[name] = _Running(process, told, core)

    def ended(self, seconds: float | None = None) -> list[Ended]:
        """The jobs that are over since the last call; waits for the first, but for `seconds` at most."""
        by_sentinel = {running.process.sentinel: name for name, running in self._running.items()}
        return [self._end(by_sentinel[sentinel]) for sentinel in connection.wait(list(by_sentinel), seconds)
                if isinstance(sentinel, int)]

    def stop(self, name: str | None = None) -> None:
        """Kills one job, or all; train and predict go on later from what they have written."""
        for each in [name] if name else list(self._running):
            if each in self._running:
                self._running[each].process.kill()
                self._end(each)

    def _end(self, name: str) -> Ended:
        running = self._running.pop(name)
        running.process.join()
        code = running.process.exitcode
        try:
            error = str(running.told.recv()) if running.told.poll() else ""
        except EOFError:
            error = ""
        running.told.close()
        self._cores.appendleft(running.core)
        if not error and code:
            error = f"killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return Ended(name, error)


def _apart(core: int, output: pathlib.Path, tell: connection.Connection, call: Callable[..., Any],
           arguments: tuple[Any, ...]) -> None:
    """The life of a worker."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    with open(output, "a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if core >= 0 and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})  # before JAX begins, which makes a thread for every core that it may use
    command.prepare()
    try:
        call(*arguments)
    except Exception as error:
        traceback.print_exc()
        tell.send(" ".join(f"{error}".split()) or type(error).__name__)
        sys.exit(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    connection.wait([parent.sentinel])
    os._exit(1)
