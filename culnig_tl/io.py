"""Files that are written whole or not at all, say what they hold, and are written by one run at a time."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import logging
import mmap
import os
import re
import socket
import stat
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import quote

from .errors import FileError, StudyError

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

log = logging.getLogger(__name__)

TEMPORARY = ".tmp"
"""End of the names of files that are being written; one that stays behind is a killed process's."""
LONGEST_NAME = 100
"""Bytes of a name that `file_name` leaves as it is; file systems take 255, and ours get endings."""
ROWS_PER_BYTE, SIZE_PER_BYTE = 8, 1_000
"""Most rows, and most bytes of columns, that a table may claim to hold for each byte of its file."""

# ---------------------------------------------------------------------------------------------------- writing


def write(path: str | Path, content: bytes) -> Path:
    """Writes a temporary file beside `path`, flushes it to disk and renames it, so that no half file remains.

    A link at `path` is replaced, not followed. Raises `OSError`, in the system's words, naming `path`.
    """
    path = Path(path)
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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
        if (
            isinstance(error, OSError) and error.errno is not None
        ):  # a full disk names no file, a read-only folder the temporary one
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise
    return path


def check_place(path: str | Path, *, folder: bool = False) -> None:
    """Raises `OSError`, as `write` would hours later, where no file can be written to `path`, or, of a
    `folder`, into it. Nothing is made."""
    above = Path(path).absolute()
    while not os.path.lexists(above):
        above = above.parent
    kind = None
    there = above == Path(path).absolute()
    if not above.is_dir() and (folder or not there):
        kind = errno.ENOTDIR
    elif above.is_dir() and there and not folder:
        kind = errno.EISDIR
    elif not os.access(above, os.W_OK):
        fixed = os.name == "posix" and os.statvfs(above).f_flag & os.ST_RDONLY
        kind = errno.EROFS if fixed else errno.EACCES
    if kind is not None:
        raise OSError(kind, os.strerror(kind), str(above))


_PAGE = '<head><meta name="generator" content="culnig_tl">'


def write_page(path: str | Path, page: str) -> Path:
    """Writes an HTML page that says of itself that this package wrote it, as `is_own_page` asks."""
    return write(path, page.replace("<head>", _PAGE, 1).encode(errors="replace"))


_FORMULA = "=+-@\t\r\n＝＋－＠"
"""First characters of what spreadsheets compute; the wide ones too, as OWASP says."""


def plain_cell(cell: Any) -> Any:
    """A cell that no spreadsheet takes for a formula: text that begins as one does is preceded by an
    apostrophe, as OWASP advises. `written_cell` takes it away again."""
    if isinstance(cell, tuple):  # a column's name of several levels
        return tuple(map(plain_cell, cell))
    return f"'{cell}" if isinstance(cell, str) and cell.lstrip("'")[:1] in tuple(_FORMULA) else cell


def written_cell(cell: Any) -> Any:
    """What `plain_cell` was given."""
    marked = isinstance(cell, str) and cell[:1] == "'" and cell.lstrip("'")[:1] in tuple(_FORMULA)
    return cell[1:] if marked else cell


def csv_of(table: pd.DataFrame, *, index: bool = False) -> str:
    """A table as CSV in which no cell is a formula to a spreadsheet (see `plain_cell`). All CSV files of the
    package are written here."""
    import pandas as pd

    whole = table.reset_index() if index else table
    kept = whole.copy()
    for at, kind in enumerate(whole.dtypes):  # by position: two columns may have one name
        if not pd.api.types.is_numeric_dtype(kind):
            kept.isetitem(at, whole.iloc[:, at].astype(object).map(plain_cell))
    named = kept.set_axis([plain_cell(name) for name in kept.columns], axis=1)
    content = named.to_csv(index=False)
    if "\r" in content:  # which quotes cells that would otherwise begin a line of their own
        content = named.to_csv(index=False, lineterminator="\r\n")
    return content


def remark(text: str) -> str:
    """A line above a table that is no formula to a spreadsheet either, which cuts it at commas and
    semicolons: where a piece would be one, the line is quoted."""
    if re.search(f"[,;\t][{re.escape(_FORMULA)}]", text):
        text = '"' + text.replace('"', '""') + '"'
    return f"{text}\n"


def is_own_page(path: Path) -> bool:
    """Whether `write_page` wrote it."""
    with path.open("rb") as stream:
        return _PAGE.encode() in stream.read(4096)


def file_name(name: str) -> str:
    """`name` as the name of a file that lies in no other folder, whatever a task is called.

    Long ones, and those of other scripts are, keep their beginning and end in a hash.
    """
    quoted = quote(name.encode(errors="surrogatepass"), safe=" ()-_").replace(".", "%2E")
    if len(quoted) <= LONGEST_NAME:
        return quoted
    return f"{quoted[: LONGEST_NAME - 17]}~{hashlib.sha256(quoted.encode()).hexdigest()[:16]}"


def written_as(path: Path) -> Path | None:
    """The file that a temporary one was to become; None for any other file."""
    found = re.fullmatch(rf"\.(.+)\.[a-z0-9_]{{8}}{re.escape(TEMPORARY)}", path.name)
    return path.with_name(found[1]) if found else None


def inside(folder: Path, name: str | Path) -> Path:
    """``folder / name``, where that leads to no other folder. Raises `FileError` where a link is on the way.

    The folder itself is taken as it is.
    """
    path = folder
    for part in Path(name).parts:
        path = path / part
        if part == os.pardir or path.is_symlink() or Path(name).is_absolute():
            raise FileError(f"{path} leads out of {folder}: remove it, or choose another folder")
    return path


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


# ---------------------------------------------------------------------------------------------------- reading


@contextmanager
def reading(path: Path, what: str) -> Iterator[None]:
    """For the block that reads a file: whatever is wrong with it becomes one `FileError` that names it.

    Args:
        what: what the file should hold, e.g. "scores".
    """
    if not path.is_file():
        raise FileError(f"no such file of {what}: {path}")
    try:
        yield
    except BaseException as error:  # readers of files raise anything, and panic in Rust
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise FileError(f"{path} is not a file of {what}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """The start of the error's message, or its name where it has none."""
    line = (str(error).strip() or type(error).__name__).splitlines()[0]
    if isinstance(error, KeyError):
        line = f"it lacks {line}"
    return line if len(line) <= 200 else f"{line[:200]}..."


# ---------------------------------------------------------------------------------------------------- seals

_SEAL = b"culnig_tl blake2b "
_DIGITS = 32
BLANK_SEAL = (_SEAL + b"0" * _DIGITS).decode()
"""Stands in a file's header until `seal` puts the checksum of the whole file there."""


def seal(content: bytes) -> bytes:
    """`content`, in which `BLANK_SEAL` stands once, with its checksum in that place."""
    start = _seal_in(content)
    if start is None:
        raise ValueError("there is no place for a checksum in it")
    return content[:start] + _checksum(content, start) + content[start + _DIGITS :]


def check_seal(path: Path, *, needed: bool = True) -> bool:
    """Whether the file has a checksum, read before anything else of it is.

    Raises `ValueError` where the file is not what the checksum says, or has none and one is `needed`.
    """
    with path.open("rb") as stream:
        if os.fstat(stream.fileno()).st_size:
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                start = _seal_in(content)
                if start is not None:
                    if _checksum(content, start) != content[start : start + _DIGITS]:
                        raise ValueError("its checksum says that it has changed since it was written")
                    return True
    if needed:
        raise ValueError("it has no checksum: it is damaged, or of another program or version")
    return False


def _seal_in(content: bytes | mmap.mmap) -> int | None:
    """Where the checksum begins. Raises `ValueError` where several are there."""
    found = [match.end() for match in re.finditer(re.escape(_SEAL) + rb"(?=[0-9a-f]{32})", content)]
    if len(found) > 1:
        raise ValueError("it holds several checksums")
    return found[0] if found else None


def _checksum(content: bytes | mmap.mmap, start: int) -> bytes:
    """Of all bytes but its own."""
    digest = hashlib.blake2b(digest_size=_DIGITS // 2)
    with memoryview(content) as view:
        digest.update(view[:start])
        digest.update(view[start + _DIGITS :])
    return digest.hexdigest().encode()


# ---------------------------------------------------------------------------------- safetensors and Parquet


def write_tensors(path: str | Path, tensors: Mapping[str, Any], said: Mapping[str, Any]) -> Path:
    """Writes NumPy arrays or tensors as safetensors, with `said` as JSON and a checksum in the header."""
    import numpy as np

    header = {**said, "seal": BLANK_SEAL}  # in one entry: safetensors writes several in any order
    metadata = {"culnig_tl": json.dumps(header, ensure_ascii=False, sort_keys=True)}
    of_numpy = any(isinstance(tensor, np.ndarray) for tensor in tensors.values())
    save: Any = importlib.import_module(f"safetensors.{'numpy' if of_numpy else 'torch'}").save
    return write(path, seal(save(dict(tensors), metadata=metadata)))


@contextmanager
def open_tensors(path: Path, framework: str) -> Iterator[tuple[dict[str, Any], Any]]:
    """(what the header of `write_tensors` says, safetensors' open file); the checksum is verified first.

    Raises `ValueError`, or what safetensors raises, for any other file.
    """
    from safetensors import safe_open

    check_seal(path)
    with safe_open(path, framework=framework) as stream:
        said = json.loads((stream.metadata() or {})["culnig_tl"])
        if not isinstance(said, dict):
            raise ValueError("its header is not one of this package")
        yield said, stream


def write_parquet(path: str | Path, table: pa.Table, said: Mapping[str, Any]) -> Path:
    """Writes a Parquet file with `said` as JSON in its schema, where `read_parquet` finds it, and a checksum
    of the whole file."""
    import pyarrow.parquet as pq

    header = json.dumps(dict(said), ensure_ascii=False).encode()
    known = {**(table.schema.metadata or {}), b"culnig_tl": header, b"seal": BLANK_SEAL.encode()}
    buffer = BytesIO()
    pq.write_table(table.replace_schema_metadata(known), buffer)
    return write(path, seal(buffer.getvalue()))


def read_parquet(
    path: Path, needed: Sequence[str], others: Sequence[str] = (), *, sealed: bool = True
) -> tuple[pd.DataFrame, bytes | None]:
    """(the columns `needed` and, as far as they are there, `others`; what the schema says under "culnig_tl").

    Nothing else is read: no other column, and no index or type that the file would have pandas make. The
    checksum is verified before Arrow sees the file.

    Args:
        sealed: refuse a file without a checksum; otherwise one that others wrote, without our header, is read
            as well.

    Raises:
        ValueError: a column of `needed` is missing, the checksum is not the file's, or its header claims more
            than the file can hold. For a file that is not Parquet, Arrow raises errors of many kinds.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    has_seal = check_seal(path, needed=sealed)
    size = path.stat().st_size
    with pq.ParquetFile(path) as stream:
        schema, known = stream.schema_arrow, stream.metadata
    names = schema.names
    missing = [name for name in needed if name not in names]
    if missing:
        raise ValueError(f"it has no column {missing[0]!r}")
    wanted = [*needed, *(name for name in others if name in names)]
    groups = [known.row_group(i) for i in range(known.num_row_groups)]
    claimed = sum(g.column(i).total_uncompressed_size for g in groups for i in range(g.num_columns))
    if known.num_rows > ROWS_PER_BYTE * size or claimed > SIZE_PER_BYTE * size:
        raise ValueError(f"it claims {known.num_rows:,} rows and {claimed:,} bytes, and has {size:,} bytes")
    said = (schema.metadata or {}).get(b"culnig_tl")
    if said is not None and not has_seal:
        raise ValueError("it has no checksum: it is damaged, or of another program or version")
    words = [name for name in wanted if pa.types.is_string(schema.field(name).type)]
    with pq.ParquetFile(path, read_dictionary=words) as stream:  # a word once, however often it is repeated
        table = stream.read(columns=wanted)
    frame = table.to_pandas(ignore_metadata=True)
    for name in words:
        frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame, said


# ------------------------------------------------------------------------------------------------------ locks

_LOCK = re.compile(r"$|process \d+ on ")


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
            if _is_still(path, stream) and (not shared or _alone(stream)):
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
        stream = _open_lock(path)
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


def _open_lock(path: Path) -> IO[bytes]:
    """The file, made where it is missing. Raises `FileError` where a link, or anything but a lock of this
    package, is there: it would be overwritten."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
    flags |= getattr(os, "O_NONBLOCK", 0) | getattr(
        os, "O_BINARY", 0
    )  # a pipe does not wait, Windows does not rewrite
    foreign = FileError(f"{path} is no lock of this program: move it away, or choose another folder")
    if path.is_symlink() or path.is_dir():
        raise foreign
    stream = os.fdopen(os.open(path, flags, 0o666), "a+b", buffering=0)
    about = os.fstat(stream.fileno())
    if not stat.S_ISREG(about.st_mode) or about.st_nlink > 1 or not _LOCK.match(_holder(stream)):
        stream.close()
        raise foreign
    return stream


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
        return os.path.samestat(os.lstat(path), os.fstat(stream.fileno()))
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
