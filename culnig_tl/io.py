"""Writing files so that a killed process never leaves half of one."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TEMPORARY = ".tmp"
"""End of the names of files that are being written. One that still stands belonged to a process that was killed."""

MOST_ROWS = 100_000_000
"""Of a table that is read: a file of a few bytes can claim any number."""


def write(path: str | Path, content: bytes) -> Path:
    """Writes beside the place, flushes to disk, renames. Raises `OSError`, as the system says it, naming the file."""
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
        if isinstance(error, OSError):  # a full disk says no name, a read-only folder the temporary one
            error.filename, error.filename2 = str(path), None
        raise
    return path


def file_name(name: str) -> str:
    """A name that leads nowhere else, whatever a task is called."""
    return quote(name, safe=" ()-_").replace(".", "%2E")


def write_parquet(path: str | Path, table: pa.Table, said: Mapping[str, Any]) -> Path:
    """Writes a Parquet file that carries `said` as JSON in its schema, where `read_parquet` finds it."""
    import pyarrow.parquet as pq

    kept = {
        **(table.schema.metadata or {}),
        b"culnig_tl": json.dumps(dict(said), ensure_ascii=False).encode(),
    }
    buffer = BytesIO()
    pq.write_table(table.replace_schema_metadata(kept), buffer)
    return write(path, buffer.getvalue())


def read_parquet(
    path: Path, needed: Sequence[str], others: Sequence[str] = ()
) -> tuple[pd.DataFrame, bytes | None]:
    """(the columns of a Parquet file that are asked for, what its schema says under "culnig_tl").

    Nothing else is read of it: no other column, no index or type that the file would have pandas make.

    Raises:
        ValueError: no Parquet file, a column that is needed and not there, more rows than any study has. Errors of Arrow are
            `ValueError`, `OSError`, `TypeError` or `NotImplementedError`.
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


def sweep(folder: Path) -> None:
    """Removes what killed processes left half-written in a folder and those under it. Nobody else may be writing there."""
    for path in folder.rglob(f".*{TEMPORARY}"):
        path.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """The new name itself is on disk too, where the system can open folders."""
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
