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


class Lock:
    """A file that one process at a time has; it is free again when that process ends, however it does.

    Held by flock, which file systems of one machine and NFS 4 know; not those of buckets.
    """

    def __init__(self, path: pathlib.Path, descriptor: int | None) -> None:
        self._path, self._descriptor = path, descriptor

    @classmethod
    def take(cls, path: pathlib.Path) -> "Lock":
        """The lock; its folder is made if need be.

        Raises:
          BlockingIOError: another process has it; the text says which, where that is known.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            held = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                owner = os.pread(held, 200, 0).decode(errors="replace")
                os.close(held)
                if isinstance(error, BlockingIOError):
                    raise BlockingIOError(owner or "another process") from None
                if error.errno not in UNSUPPORTED:
                    raise
                print(f"{path.parent}: the file system has no locks ({error.strerror}); see to it that no other run "
                      "writes there", file=sys.stderr)
                return cls(path, None)
            try:
                ours = os.path.samestat(os.fstat(held), os.stat(path))
            except FileNotFoundError:
                ours = False
            if not ours:  # its last owner has removed it meanwhile
                os.close(held)
                continue
            os.ftruncate(held, 0)
            with contextlib.suppress(OSError):  # no room to say who: the lock holds all the same
                os.write(held, f"process {os.getpid()} on {socket.gethostname()} since "
                               f"{time.strftime('%Y-%m-%d %H:%M:%S %Z')}".encode())
            return cls(path, held)

    def release(self) -> None:
        """Sets it free."""
        if self._descriptor is not None:
            self._path.unlink(missing_ok=True)  # still locked: whoever waits for this file looks again
            os.close(self._descriptor)
            self._descriptor = None


@contextlib.contextmanager
def sole_writer(workdir: pathlib.Path) -> Iterator[None]:
    """Holds the workdir, for all processes of a run; process 0 has the lock, the others its word.

    Raises:
      ValueError: on all processes, where another run writes there; its host and process are named.
    """
    held, refusal, new = None, "", not workdir.exists()
    if jax.process_index() == 0:
        try:
            held = Lock.take(workdir / NAME)
        except BlockingIOError as owner:
            refusal = f"{workdir} is being written by {owner}; wait for it, stop it, or use another --workdir"
    if refusal := agreement.first(refusal):
        raise ValueError(refusal)
    try:
        yield
    finally:
        if held is not None:
            held.release()
            if new:
                with contextlib.suppress(OSError):
                    workdir.rmdir()  # where nothing came of it
