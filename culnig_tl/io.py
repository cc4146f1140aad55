"""Files that are written whole or not at all, say what they hold, and are written by one run at a time."""

from __future__ import annotations

import json
import logging
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from .errors import StudyError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger(__name__)

TEMPORARY = ".tmp"
"""End of the names of files that are being written; one that stays behind is a killed process's."""

MOST_ROWS = 100_000_000
"""Most rows of a table that is read: a file of a few bytes can claim any number."""

# ---------------------------------------------------------------------------------------------------- writing


def write(path: str | Path, content: bytes) -> Path:
    """Writes a temporary file beside `path`, flushes it to disk and renames it, so that no half file remains.

    Raises `OSError`, in the system's words, naming `path`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary: str | None = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=TEMPORARY)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
        _flush_folder(path.parent)
    except BaseException as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        if isinstance(error, OSError):  # a full disk names no file, a read-only folder the temporary one
            error.filename, error.filename2 = str(path), None
        raise
    return path


def file_name(name: str) -> str:
    """`name` as the name of a file that lies in no other folder, whatever a task is called."""
    return quote(name, safe=" ()-_").replace(".", "%2E")


def sweep(folder: Path) -> None:
    """Removes half-written files of killed processes below a folder. Nobody else may be writing there."""
    for path in folder.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Brings the new name itself to disk, on systems that can open folders."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ---------------------------------------------------------------------------------------------------- Parquet


def write_parquet(path: str | Path, table: pa.Table, said: Mapping[str, Any]) -> Path:
    """Writes a Parquet file with `said` as JSON in its schema, where `read_parquet` finds it."""
    import pyarrow.parquet as pq

    header = json.dumps(dict(said), ensure_ascii=False).encode()
    buffer = BytesIO()
    pq.write_table(
        table.replace_schema_metadata({**(table.schema.metadata or {}), b"culnig_tl": header}), buffer
    )
    return write(path, buffer.getvalue())


def read_parquet(
    path: Path, needed: Sequence[str], others: Sequence[str] = ()
) -> tuple[pd.DataFrame, bytes | None]:
    """(the columns `needed` and, as far as they are there, `others`; what the schema says under "culnig_tl").

    Nothing else is read: no other column, and no index or type that the file would have pandas make.

    Raises:
        ValueError: a column of `needed` is missing, or there are more rows than any study has. For a file
            that is not Parquet, Arrow raises `ValueError`, `OSError`, `TypeError` or `NotImplementedError`.
    """
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as stream:
        names = stream.schema_arrow.names
        missing = [name for name in needed if name not in names]
        if missing:
            raise ValueError(f"it has no column {missing[0]!r}")
        if stream.metadata.num_rows > MOST_ROWS:
            raise ValueError(f"it claims to hold {stream.metadata.num_rows:,} rows")
        table = stream.read(columns=[*needed, *(name for name in others if name in names)])
        said = (stream.schema_arrow.metadata or {}).get(b"culnig_tl")
    return table.to_pandas(ignore_metadata=True), said


# ------------------------------------------------------------------------------------------------------ locks


@contextmanager
def locked(path: Path, what: str, *, shared: bool = False) -> Iterator[None]:
    """Holds the lock in the file `path` while the block runs; the file says which process holds it.

    The operating system keeps the lock, not the file: it ends with the process that held it, however that
    ended, on every machine that sees the folder through a file system with locks. Where there are none, a
    warning is logged.

    Args:
        what: for the message, e.g. "the study in runs/toy".
        shared: let others hold it too, as long as they share it.

    Raises:
        StudyError: another process holds it. OSError: the file cannot be written.
    """
    stream = _acquire(path, what, shared)
    if stream is None:
        yield
        return
    try:
        stream.truncate(0)
        stream.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        if os.name == "posix":  # removed while it is locked, so that it cannot be the next holder's
            if not shared or _alone(stream):
                path.unlink(missing_ok=True)
            stream.close()
        else:  # an open file cannot be removed, not by another process either
            stream.close()
            with suppress(PermissionError):
                path.unlink(missing_ok=True)


def _acquire(path: Path, what: str, shared: bool) -> IO[bytes] | None:
    """The open file with the lock; None where the file system has no locks."""
    import portalocker

    path.parent.mkdir(parents=True, exist_ok=True)
    flags = portalocker.LockFlags.SHARED if shared else portalocker.LockFlags.EXCLUSIVE
    while True:
        stream = path.open("a+b", buffering=0)
        try:
            portalocker.lock(stream, flags | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.AlreadyLocked:
            by = f" by {holder}" if (holder := _holder(stream)) else ""
            stream.close()
            raise StudyError(f"{what} is being worked on{by}: wait for it, or stop it") from None
        except portalocker.LockException as error:
            stream.close()
            why = getattr(error.__cause__, "strerror", None) or error
            log.warning("%s: this file system has no locks (%s); run one at a time there", path, why)
            return None
        if _is_still(path, stream):
            return stream
        stream.close()  # its last holder has just removed the file


def _holder(stream: IO[bytes]) -> str:
    """What the file says of its holder; nothing where the system lets nobody else read a locked file."""
    try:
        stream.seek(0)
        return stream.read(200).decode(errors="replace").strip()
    except PermissionError:
        return ""


def _is_still(path: Path, stream: IO[bytes]) -> bool:
    """Whether the path still leads to the file that was opened."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(stream.fileno()))
    except FileNotFoundError:
        return False


def _alone(stream: IO[bytes]) -> bool:
    """Whether nobody shares the lock; if so, it is shared no longer."""
    import portalocker

    try:
        portalocker.lock(stream, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.LockException:
        return False
    return True
