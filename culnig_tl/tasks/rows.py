"""Rows of a data set: found in a local mirror or on the Hub, read, and checked.

Every reader of the package goes through here, so that what is wrong with a file is said in one way: file, row, column.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TaskError
from .countries import closest, is_known, unify

if TYPE_CHECKING:
    import pandas as pd

log = logging.getLogger(__name__)

DATA_DIR = "CULNIG_DATA_DIR"
"""Environment variable that names a local mirror of the Hub's data sets."""
FILE_TYPES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


@dataclass(frozen=True)
class Source:
    """Where a data set lies on the Hub, and in a mirror of it."""

    hub_id: str
    config: str | None
    split: str
    files: tuple[str, ...]
    """Patterns of the raw files, most wanted first: read directly where `datasets` cannot build the data set."""
    moved_to: tuple[str, ...] = ()
    """Later Hub ids of the same data set."""

    @property
    def ids(self) -> tuple[str, ...]:
        return (self.hub_id, *self.moved_to)


def data_folder(data_dir: str | Path | None = None) -> Path | None:
    """The mirror that is asked for: `data_dir`, else what ``CULNIG_DATA_DIR`` names, else None (the Hub).

    Raises `TaskError` if that folder does not exist.
    """
    said = data_dir if data_dir is not None else os.environ.get(DATA_DIR) or None
    if said is None:
        return None
    folder = Path(said).expanduser()
    if not folder.is_dir():
        raise TaskError(f"data folder {folder} does not exist; it holds the Hub's data sets as <org>/<name>/")
    return folder


def find(source: Source, data_dir: str | Path | None = None) -> Path | None:
    """The data set's folder in the mirror; None if it is to come from the Hub. Raises `TaskError` if the mirror lacks it."""
    folder = data_folder(data_dir)
    if folder is None:
        return None
    for hub_id in source.ids:
        if (folder / hub_id).is_dir():
            return folder / hub_id
    raise TaskError(f"data folder {folder} has no {source.hub_id}; put the data set there, or leave the data folder out to use the Hub")


def read(source: Source, data_dir: str | Path | None = None) -> Rows:
    """The rows of a data set, through `datasets`, or from its raw files where that fails."""
    folder = find(source, data_dir)
    if folder is not None:
        try:
            return _build(str(folder), source, str(folder))
        except Exception as error:  # datasets lets errors of any kind through; the raw files decide
            log.debug("datasets cannot build %s: %r", folder, error)
            return _read_raw(folder, source, error)
    return _read_hub(source)


def _build(path: str, source: Source, where: str) -> Rows:
    import datasets

    builder = datasets.load_dataset_builder(path, source.config)
    builder.download_and_prepare()
    split = builder.as_dataset(split=source.split)
    files = [str(file) for file in (builder.config.data_files or {}).get(source.split, [])]
    if len(files) == 1:
        where = files[0].split("@")[0] if files[0].startswith("hf://") else files[0]
    frame = split.to_pandas()  # type: ignore[union-attr]
    return Rows(frame, where, origin=where if where == path else path)  # type: ignore[arg-type]


def _read_hub(source: Source) -> Rows:
    import datasets

    failed: Exception | None = None
    for hub_id in source.ids:
        try:
            return _build(hub_id, source, f"{hub_id} on the Hub")
        except (ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
            failed = failed or error
        except Exception as error:  # a builder that fails: take the raw files
            log.warning("datasets cannot build %s (%s); reading its files", hub_id, _short(error))
            try:
                return _read_raw(_download(hub_id, source), source, error, origin=hub_id)
            except (OSError, ValueError) as second:
                failed = second
    raise TaskError(
        f"cannot read {source.hub_id} from the Hub ({_short(failed)}); "
        f"for a local copy give a data folder (data_dir, --data-dir or {DATA_DIR}) that holds {source.hub_id}/"
    ) from failed


def _download(hub_id: str, source: Source) -> Path:
    import huggingface_hub

    folder = Path()
    for pattern in source.files:
        folder = Path(huggingface_hub.snapshot_download(hub_id, repo_type="dataset", allow_patterns=[pattern]))
        if any(folder.glob(pattern)):
            break
    return folder


def _read_raw(folder: Path, source: Source, reason: Exception, origin: str | None = None) -> Rows:
    for pattern in source.files:
        found = sorted(folder.glob(pattern))
        if found:
            import pandas as pd

            parts = [read_file(file) for file in found]
            frame = pd.concat([part.frame for part in parts], ignore_index=True) if len(parts) > 1 else parts[0].frame
            return Rows(frame, str(found[0]) if len(found) == 1 else str(folder), origin=origin or str(folder))
    raise TaskError(
        f"{folder} holds no readable {source.config or source.hub_id}, split {source.split!r} ({_short(reason)}), and no {source.files[0]}"
    ) from reason


def read_file(path: str | Path) -> Rows:
    """The rows of one JSONL, JSON, CSV, TSV or Parquet file. Raises `TaskError` that names the file, and the line if it can."""
    import pandas as pd

    path = Path(path)
    if path.suffix.lower() not in FILE_TYPES:
        raise TaskError(f"{path}: files of rows end in {', '.join(FILE_TYPES)}")
    if not path.is_file():
        raise TaskError(f"{path}: no such file")
    if path.suffix.lower() == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            frame = pyarrow.parquet.read_table(path).to_pandas()
        except (OSError, pyarrow.ArrowException, ValueError) as error:
            raise TaskError(f"{path}: not a whole Parquet file ({_short(error)})") from error
        return Rows(frame, str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: not readable as UTF-8 text ({_short(error)})") from error
    if path.suffix.lower() in (".csv", ".tsv"):
        rows = _parse_csv(text, path)
    else:
        rows = _parse_json(text, path)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return Rows(pd.DataFrame({column: pd.Series([row.get(column) for row in rows], dtype=object) for column in columns}), str(path))


def _parse_csv(text: str, path: Path) -> list[dict[str, Any]]:
    dialect = "excel-tab" if path.suffix.lower() == ".tsv" else "excel"
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), dialect=dialect, strict=True))
    except csv.Error as error:
        raise TaskError(f"{path}: not a whole {path.suffix[1:].upper()} file ({error})") from error
    lines = [line for line in lines if line]
    if not lines:
        raise TaskError(f"{path}: the file is empty")
    header = lines[0]
    if len(set(header)) < len(header):
        raise TaskError(f"{path}: the header names a column twice")
    for number, line in enumerate(lines[1:], start=1):
        if len(line) != len(header):
            raise TaskError(f"{path}, row {number}: {len(line)} fields, the header has {len(header)}")
    return [{key: value or None for key, value in zip(header, line)} for line in lines[1:]]


def _parse_json(text: str, path: Path) -> list[dict[str, Any]]:
    if not text.strip():
        raise TaskError(f"{path}: the file is empty")
    rows: list[Any] = []
    if text.lstrip().startswith("["):
        try:
            rows = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TaskError(f"{path}: broken JSON ({_short(error)})") from error
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise TaskError(f"{path}, line {number}: broken JSON ({_short(error)})") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise TaskError(f"{path}, row {number}: a row is a JSON object, not {type(row).__name__}")
    return rows


class Rows:
    """Rows with the place they came from; its methods check a column and raise `TaskError` that names file, row and column.

    Rows count from 1, without a header. `frame` keeps the file's row number (from 0) as its index when rows are left out.
    """

    def __init__(self, frame: pd.DataFrame, where: str, *, origin: str | None = None) -> None:
        self.frame = frame
        self.where = where
        self.origin = origin or where
        """Folder, file or Hub id: what a task names as its source."""

    def __len__(self) -> int:
        return len(self.frame)

    def pick(self, mask: pd.Series) -> Rows:
        """The rows where `mask` is true."""
        return Rows(self.frame[mask], self.where, origin=self.origin)

    def error(self, position: int, column: str, message: str) -> TaskError:
        """What is wrong in the row at `position` of these rows."""
        return TaskError(f"{self.where}, row {self.frame.index[position] + 1}, column {column!r}: {message}")

    def need(self, *columns: str) -> None:
        """Raise unless there are rows and all these columns."""
        for column in columns:
            if column not in self.frame.columns:
                raise TaskError(f"{self.where}: column {column!r} is missing, the columns are {', '.join(map(str, self.frame.columns)) or 'none'}")
        if not len(self.frame):
            raise TaskError(f"{self.where}: the file is empty")

    def values(self, column: str) -> list[Any]:
        """The column as plain Python values; None where a value is missing."""
        return [_plain(value) for value in self.frame[column].tolist()]

    def texts(self, column: str) -> list[str]:
        """A column of text, none of it blank."""
        values = self.frame[column].tolist()
        for position, value in enumerate(values):
            if not isinstance(value, str):
                raise self.error(position, column, "is empty" if _plain(value) is None else f"must be text, not {type(_plain(value)).__name__}")
            if not value.strip():
                raise self.error(position, column, "is empty")
        return values

    def ids(self, column: str, *, unique: bool = True) -> list[str]:
        """A column of ids, text or whole numbers, none of them twice."""
        out: list[str] = []
        seen: dict[str, int] = {}
        for position, value in enumerate(self.values(column)):
            if isinstance(value, float) and value.is_integer():
                value = int(value)
            if isinstance(value, bool) or not isinstance(value, (str, int)):
                raise self.error(position, column, "is empty" if value is None else f"must be text or a whole number, not {type(value).__name__}")
            text = str(value)
            if not text.strip():
                raise self.error(position, column, "is empty")
            if unique and text in seen:
                raise self.error(position, column, f"{text!r} is already in row {self.frame.index[seen[text]] + 1}")
            seen[text] = position
            out.append(text)
        return out

    def countries(self, column: str, *, among: Iterable[str] | None = None) -> list[str]:
        """A column of country names, unified. Raises for one that nobody knows, or that is not `among`."""
        unified: dict[str, str] = {}
        allowed = None if among is None else set(among)
        out = []
        for position, name in enumerate(self.texts(column)):
            if name not in unified:
                country = unify(name)
                if allowed is not None and country not in allowed:
                    raise self.error(position, column, f"{name!r} is none of {', '.join(sorted(allowed))}")
                if not is_known(country):
                    near = closest(country)
                    raise self.error(position, column, f"nobody knows the country {name!r}" + (f"; is it {near!r}?" if near else ""))
                unified[name] = country
            out.append(unified[name])
        return out

    def one_of(self, column: str, allowed: Mapping[Any, str]) -> list[str]:
        """A column of labels, translated by `allowed`."""
        out = []
        for position, value in enumerate(self.values(column)):
            key = value.strip().lower() if isinstance(value, str) else int(value) if isinstance(value, float) and value.is_integer() else value
            if isinstance(key, (list, dict)) or key not in allowed:
                raise self.error(position, column, "is empty" if value is None else f"{value!r} is none of {', '.join(map(repr, allowed))}")
            out.append(allowed[key])
        return out

    def objects(self, column: str) -> list[dict[str, Any]]:
        """A column of JSON objects, as text or already parsed."""
        out = []
        for position, value in enumerate(self.values(column)):
            if isinstance(value, str):
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError) as error:
                    raise self.error(position, column, f"broken JSON ({_short(error)})") from error
            if not isinstance(value, dict):
                raise self.error(position, column, "is empty" if value is None else f"must be a JSON object, not {type(value).__name__}")
            out.append(value)
        return out


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if value is None or value != value or type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value


def _short(error: BaseException | None) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
