# SPDX-License-Identifier: Apache-2.0
"""A signal to any process of a run in, one step at which all of them stop out.

SIGTERM (what a scheduler sends before it takes a machine away) and SIGINT ask a run to stop: it ends the step in
hand, saves and exits with RUN_AGAIN. Nothing is lost, and the same command goes on. Several processes add up their
flags on the devices, beside the step, and read the sum a step later, when it is there: all stop at the same one, and
none waits. A signal that comes before there is anything to save ends the process at once, also within a compilation,
where Python's own handlers are not run.
"""

import functools
import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

RUN_AGAIN = 75  # EX_TEMPFAIL: stopped on request, all saved, the same command goes on
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StoppedError(Exception):
    """The run was asked to stop, and has."""


class StopRequest:
    """Whether the run has been asked to stop. Use it in a `with`; it handles signals meanwhile."""

    def __init__(self) -> None:
        self.signal = ""  # the name of the one that came
        self.nothing_to_save = True  # until the first step is done
        self._previous: dict[int, Any] = {}
        self._heard: jax.Array | None = None
        self._pipe: tuple[int, int] | None = None
        self._wakeup = -1

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # only there signals can be handled
            self._pipe = os.pipe()
            for end in self._pipe:
                os.set_blocking(end, end == self._pipe[0])
            self._wakeup = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            threading.Thread(target=self._watch, args=(self._pipe[0],), daemon=True).start()
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._pipe is not None:
            signal.set_wakeup_fd(self._wakeup)
            os.close(self._pipe[1])  # which ends the watching thread

    def reached(self) -> bool:
        """Whether to stop after this step; the same on all processes, which call it once a step."""
        if jax.process_count() == 1:
            return bool(self.signal)
        heard, self._heard = self._heard, _any(bool(self.signal))
        return heard is not None and bool(heard)

    def reached_now(self) -> bool:
        """The same, for places where all processes wait for their devices anyway."""
        return bool(self.signal) if jax.process_count() == 1 else bool(_any(bool(self.signal)))

    def pulse(self) -> None:
        """Raises StoppedError where the run is to stop now; all processes call it at the same places."""
        if self.reached_now():
            raise StoppedError

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.signal and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: somebody is in a hurry
        self.signal = signal.Signals(number).name

    def _watch(self, reading: int) -> None:
        """Ends the process on a signal while there is nothing to save: it may be compiling for minutes."""
        while numbers := os.read(reading, 1):
            if numbers[0] in SIGNALS and self.nothing_to_save:
                print(f"stopped by {signal.Signals(numbers[0]).name} before the first step: nothing to save",
                      file=sys.stderr, flush=True)
                os._exit(RUN_AGAIN)
        os.close(reading)


@functools.cache
def _flags() -> tuple[NamedSharding, Any]:
    """A place for a flag a device, and the program that tells whether one is up."""
    mesh = jax.make_mesh((jax.device_count(),), ("all",), axis_types=(AxisType.Auto,))
    return (NamedSharding(mesh, PartitionSpec("all")),
            jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec())))


def _any(flag: bool) -> jax.Array:
    """int32[], not yet computed: 1 where any process has its flag up."""
    place, highest = _flags()
    mine = np.full(jax.local_device_count(), flag, np.int32)
    return highest(jax.make_array_from_process_local_data(place, mine, (jax.device_count(),)))
