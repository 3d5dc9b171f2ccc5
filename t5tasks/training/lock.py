# SPDX-License-Identifier: Apache-2.0
"""A workdir in, the right to write it out: one run has it, and it ends with the process, however that ends."""

import contextlib
import errno
import fcntl
import os
import pathlib
import socket
import sys
import time
from collections.abc import Iterator

import jax

from t5tasks.training import agreement

NAME = ".lock"
UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS}  # of file systems that know no locks


@contextlib.contextmanager
def sole_writer(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the workdir, for all processes of a run; process 0 has the lock, the others its word.

    Raises:
      ValueError: on all processes, where another run writes there; its host and process are named.
    """
    held, refusal, new = None, "", not workdir.exists()
    if jax.process_index() == 0:
        try:
            held = _lock(workdir)
        except ValueError as error:
            refusal = str(error)
    if refusal := agreement.first(refusal):
        raise ValueError(refusal)
    try:
        yield
    finally:
        if held is not None:
            (workdir / NAME).unlink(missing_ok=True)  # still locked: whoever waits for this file looks again
            os.close(held)
            if new:
                with contextlib.suppress(OSError):
                    workdir.rmdir()  # where nothing came of it


def _lock(workdir: pathlib.Path) -> int | None:
    """The descriptor of the locked file; None where the file system has no locks."""
    workdir.mkdir(parents=True, exist_ok=True)
    path = workdir / NAME
    while True:
        held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not os.path.exists(path) or not os.path.samestat(os.fstat(held), os.stat(path)):
                os.close(held)  # its last owner has removed it meanwhile
                continue
            os.ftruncate(held, 0)
            with contextlib.suppress(OSError):  # no room to say who: the lock holds all the same
                os.write(held, f"process {os.getpid()} on {socket.gethostname()} since "
                               f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}".encode())
            return held
        except OSError as error:
            owner = os.pread(held, 200, 0).decode(errors="replace")
            os.close(held)
            if isinstance(error, BlockingIOError):
                raise ValueError(f"{workdir} is being written by {owner or 'another process'}; wait for it, stop it, "
                                 "or use another --workdir") from None
            if error.errno not in UNSUPPORTED:
                raise
            print(f"{workdir}: the file system has no locks ({error.strerror}); see to it that no other run writes "
                  "there", file=sys.stderr)
            return None
