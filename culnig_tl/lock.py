"""One run at a time in a place: a second one is told, a killed one blocks nobody."""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StudyError

log = logging.getLogger(__name__)


@contextmanager
def locked(path: Path, what: str, *, shared: bool = False) -> Iterator[None]:
    """Holds the lock in `path` while it lasts; the file says who does.

    The system keeps the lock (flock), not the file: it is gone with the process that held it, however that ended, on every
    machine that sees the folder through a file system with locks.

    Args:
        what: for the message, e.g. "the study in runs/toy".
        shared: others that share it may hold it too.

    Raises:
        StudyError: another process holds it. OSError: the file cannot be written.
    """
    if sys.platform == "win32":
        log.warning("Windows has no flock: nothing prevents a second run in %s", path.parent)
        yield
        return
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(handle, 200, 0).decode(errors="replace").strip()
            os.close(handle)
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise StudyError(
                    f"{what} is being worked on{f' by {holder}' if holder else ''}: wait for it, or stop it"
                ) from None
            log.warning(
                "%s: this file system has no locks (%s); see to it that one run at a time works there",
                path,
                error.strerror,
            )
            yield
            return
        if _is_still(path, handle):
            break
        os.close(handle)  # whoever held it has just removed the file
    try:
        holder = f"process {os.getpid()} on {socket.gethostname()}\n".encode()
        os.ftruncate(handle, 0)
        os.pwrite(handle, holder, 0)
        yield
    finally:
        if not shared or _alone(handle):
            path.unlink(missing_ok=True)
        os.close(handle)


def _is_still(path: Path, handle: int) -> bool:
    """Whether the path leads to the file that was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _alone(handle: int) -> bool:
    """Whether nobody shares the lock; if so, it is not shared any more."""
    import fcntl

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
