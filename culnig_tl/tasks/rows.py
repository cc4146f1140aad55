"""Rows of a data set, read from a file and checked.

Every reader of the package uses this module, so that all errors say what is wrong in the same way: file, row,
column.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TaskError
from .countries import closest, is_known, unify

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

FILE_TYPES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")


def read_file(path: str | Path) -> Rows:
    """The rows of a JSONL, JSON, CSV, TSV or Parquet file. Raises `TaskError` naming file and line."""
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
            frame = pyarrow.parquet.read_table(path).to_pandas(ignore_metadata=True)
        except (OSError, pyarrow.ArrowException, ValueError) as error:
            raise TaskError(f"{path}: not a whole Parquet file ({short(error)})") from error
        if frame.columns.has_duplicates:
            raise TaskError(f"{path}: a column is there twice")
        return Rows(frame, str(path))
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(f"{path}: not readable as UTF-8 text ({short(error)})") from error
    if path.suffix.lower() in (".csv", ".tsv"):
        rows = _parse_csv(text, path)
    else:
        rows = _parse_json(text, path)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return Rows(
        pd.DataFrame(
            {column: pd.Series([row.get(column) for row in rows], dtype=object) for column in columns}
        ),
        str(path),
    )


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
            raise TaskError(f"{path}: broken JSON ({short(error)})") from error
    else:
        for number, line in enumerate(text.split("\n"), start=1):
            if not line.strip():
                continue
            try:
                rows.append(json.loads(line))
            except (ValueError, RecursionError) as error:
                raise TaskError(f"{path}, line {number}: broken JSON ({short(error)})") from error
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise TaskError(f"{path}, row {number}: a row is a JSON object, not {type(row).__name__}")
    return rows


class Rows:
    """Rows and where they came from. Its methods check a column; `TaskError` names file, row and column.

    Errors count rows from 1, without a header. `frame` keeps the file's row numbers (from 0) as its index.
    """

    def __init__(self, frame: pd.DataFrame, where: str, *, origin: str | None = None) -> None:
        self.frame = frame
        self.where = where
        self.origin = origin or where
        """Folder, file or Hub id: what a task names as its source."""

    def __len__(self) -> int:
        return len(self.frame)

    def pick(self, mask: Sequence[bool] | np.ndarray) -> Rows:
        """The rows where `mask` (one bool per row) is true."""
        return Rows(self.frame.loc[mask], self.where, origin=self.origin)

    def error(self, position: int, column: str, message: str) -> TaskError:
        """An error in the row at `position` of these rows."""
        return TaskError(f"{self.where}, row {self.frame.index[position] + 1}, column {column!r}: {message}")

    def need(self, *columns: str) -> None:
        """Raises `TaskError` unless there are rows and all these columns."""
        if not len(self.frame):
            raise TaskError(f"{self.where}: the file is empty")
        for column in columns:
            if column not in self.frame.columns:
                there = ", ".join(map(str, self.frame.columns)) or "none"
                raise TaskError(f"{self.where}: column {column!r} is missing, the columns are {there}")

    def values(self, column: str) -> list[Any]:
        """The column as plain Python values; None where a value is missing."""
        self.need(column)
        return [_plain(value) for value in self.frame[column].tolist()]

    def text(self, position: int, column: str, value: Any) -> str:
        """`value`, if it is text that is not blank."""
        if not isinstance(value, str):
            raise self.error(
                position, column, "is empty" if value is None else f"must be text, not {type(value).__name__}"
            )
        if not value.strip():
            raise self.error(position, column, "is empty")
        if not is_unicode(value):
            raise self.error(position, column, "holds half a character (a lone surrogate)")
        return value

    def texts(self, column: str) -> list[str]:
        """A column of text, none of it blank."""
        return [self.text(position, column, value) for position, value in enumerate(self.values(column))]

    def ids(self, column: str, *, unique: bool = True) -> list[str]:
        """A column of ids, text or whole numbers; with `unique` none of them twice."""
        out: list[str] = []
        seen: dict[str, int] = {}
        for position, value in enumerate(self.values(column)):
            if isinstance(value, (int, float)) and not isinstance(value, bool) and value == value // 1:
                value = str(int(value))
            text = self.text(position, column, value)
            if unique and text in seen:
                raise self.error(
                    position, column, f"{text!r} is already in row {self.frame.index[seen[text]] + 1}"
                )
            seen[text] = position
            out.append(text)
        return out

    def countries(self, column: str, *, among: Iterable[str] | None = None) -> list[str]:
        """A column of country names, unified (`countries.unify`); each must be known, and one of `among`."""
        unified: dict[str, str] = {}
        allowed = None if among is None else set(among)
        out: list[str] = []
        for position, name in enumerate(self.texts(column)):
            if name not in unified:
                country = unify(name)
                if allowed is not None and country not in allowed:
                    raise self.error(position, column, f"{name!r} is none of {', '.join(sorted(allowed))}")
                if not is_known(country):
                    near = closest(country)
                    raise self.error(
                        position,
                        column,
                        f"nobody knows the country {name!r}" + (f"; is it {near!r}?" if near else ""),
                    )
                unified[name] = country
            out.append(unified[name])
        return out

    def one_of(self, column: str, allowed: Mapping[Any, str]) -> list[str]:
        """A column of labels, translated by `allowed`."""
        out: list[str] = []
        for position, value in enumerate(self.values(column)):
            key = value.strip().lower() if isinstance(value, str) else value
            if isinstance(key, (list, dict, bool)) or key not in allowed:
                raise self.error(
                    position,
                    column,
                    "is empty" if value is None else f"{value!r} is none of {', '.join(map(repr, allowed))}",
                )
            out.append(allowed[key])
        return out

    def objects(self, column: str) -> list[dict[str, Any]]:
        """A column of JSON objects, as text or already parsed."""
        out: list[dict[str, Any]] = []
        for position, value in enumerate(self.values(column)):
            if isinstance(value, str):
                try:
                    value = json.loads(value)
                except (ValueError, RecursionError) as error:
                    raise self.error(position, column, f"broken JSON ({short(error)})") from error
                if not is_unicode(json.dumps(value, ensure_ascii=False)):
                    raise self.error(position, column, "holds half a character (a lone surrogate)")
            if not isinstance(value, dict):
                raise self.error(
                    position,
                    column,
                    "is empty" if value is None else f"must be a JSON object, not {type(value).__name__}",
                )
            out.append(value)
        return out


def first_of_each(frame: pd.DataFrame, by: list[str], count: int) -> np.ndarray:
    """Whether each row is among the first `count` of its group, in the frame's order: bool [row]."""
    return (frame.groupby(by, sort=False, dropna=False).cumcount() < count).to_numpy()


def first_half(frame: pd.DataFrame, by: list[str]) -> np.ndarray:
    """Whether each row is in the first half, rounded down, of its group: bool [row]."""
    groups = frame.groupby(by, sort=False, dropna=False)
    return groups.cumcount().to_numpy() < groups[by[0]].transform("size").to_numpy() // 2


def _plain(value: Any) -> Any:
    """A value without NumPy's and pandas' types; None for every kind of missing value."""
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if value is None or value != value or type(value).__name__ in ("NAType", "NaTType"):
        return None
    return value


def is_unicode(text: str) -> bool:
    """Whether text can be written as UTF-8; JSON escapes can hold half a character (a lone surrogate)."""
    return text.isascii() or not any("\ud800" <= sign <= "\udfff" for sign in text)


def short(error: BaseException | None) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
