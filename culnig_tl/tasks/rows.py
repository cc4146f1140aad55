"""Rows of a data set, read from a file and checked.

Every reader of the package uses this module, so that all errors say what is wrong in the same way: file, row,
column.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import TaskError
from .countries import is_known, known_names, nearest, unify

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

log = logging.getLogger(__name__)

SHEETS = (".csv", ".tsv", ".xlsx")
"""Ends of the names of files that spreadsheets write."""
FILE_TYPES = (".jsonl", ".json", *SHEETS, ".parquet")
NAMED_ROWS = 5
"""Rows that an error names."""


def read_file(path: str | Path) -> Rows:
    """The rows of a JSONL, JSON, CSV, TSV, Excel or Parquet file. Raises `TaskError` naming file and line."""
    import pandas as pd

    path = Path(path)
    kind = path.suffix.lower()
    if kind not in FILE_TYPES:
        raise TaskError(f"{path}: files of rows end in {', '.join(FILE_TYPES)}")
    if not path.is_file():
        raise TaskError(f"{path}: no such file")
    if kind == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            frame = pyarrow.parquet.read_table(path).to_pandas(ignore_metadata=True)
        except (OSError, pyarrow.ArrowException, ValueError) as error:
            raise TaskError(f"{path}: not a whole Parquet file ({short(error)})") from error
        if frame.columns.has_duplicates:
            raise TaskError(f"{path}: a column is there twice")
        return Rows(frame, str(path))
    rows = _with_header(read_sheet(path), path) if kind in SHEETS else _parse_json(_text(path), path)
    columns = list(dict.fromkeys(key for row in rows for key in row))
    return Rows(
        pd.DataFrame(
            {column: pd.Series([row.get(column) for row in rows], dtype=object) for column in columns}
        ),
        str(path),
    )


def read_sheet(path: Path) -> list[list[Any]]:
    """The lines of a CSV, TSV or Excel file, cell by cell, None for an empty one. Raises `TaskError`.

    A spreadsheet's habits are understood: a byte order mark, semicolons or tabs for commas, empty lines at
    the end, several sheets of which the first is read.
    """
    lines = _excel(path) if path.suffix.lower() == ".xlsx" else _csv(_text(path), path)
    lines = [[None if cell == "" else cell for cell in line] for line in lines if line]
    while lines and not any(cell is not None for cell in lines[-1]):
        lines.pop()
    if not lines:
        raise TaskError(f"{path}: the file is empty")
    return lines


def _text(path: Path) -> str:
    """The file's text: UTF-8, or UTF-16 where it begins with that mark."""
    try:
        content = path.read_bytes()
        return content.decode(
            "utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"
        )
    except (OSError, UnicodeDecodeError) as error:
        raise TaskError(
            f"{path}: not readable as UTF-8 text ({short(error)}); in Excel, save it as CSV UTF-8"
        ) from error


def _csv(text: str, path: Path) -> list[list[str]]:
    """The lines of a CSV file, separated by what separates its header: where there is no comma in it, perhaps
    by semicolons or tabs. A first line that begins with ``# `` is one cell."""
    said = re.match(r"sep=(.)\r?\n", text)  # a line that Excel itself understands
    text = text[said.end() :] if said else text
    remark, _, rest = text.partition("\n") if text.startswith("# ") else ("", "", text)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    header = next((line for line in rest.splitlines() if line.strip() and not line.startswith('"# ')), "")
    if said:
        delimiter = said[1]
    elif delimiter not in header and (other := max(";\t,", key=header.count)) in header:
        delimiter = other
        log.info("%s: read as separated by %r", path, other)
    try:
        lines = list(csv.reader(io.StringIO(rest, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        hint = "; is it separated by semicolons?" if ";" in header and delimiter != ";" else ""
        raise TaskError(f"{path}: not a whole {path.suffix[1:].upper()} file ({error}){hint}") from error
    return [[remark.rstrip("\r")], *lines] if remark else lines


def _excel(path: Path) -> list[list[Any]]:
    """The lines of the first sheet."""
    import pandas as pd

    try:
        sheets = pd.read_excel(
            path, sheet_name=None, header=None, dtype=object, keep_default_na=False, na_values=[""]
        )
    except ImportError as error:
        raise TaskError(f"{path}: Excel files need openpyxl: pip install openpyxl") from error
    except Exception as error:  # a broken archive raises errors of zipfile, XML and openpyxl
        raise TaskError(f"{path}: not a whole Excel file ({short(error)})") from error
    filled = {str(name): sheet for name, sheet in sheets.items() if len(sheet)}
    if not filled:
        return []
    name, sheet = next(iter(filled.items()))
    if len(filled) > 1:
        log.warning("%s: the sheet %r is read, not %s", path, name, ", ".join(map(repr, [*filled][1:])))
    return [[_plain(cell) for cell in line] for line in sheet.to_numpy(dtype=object).tolist()]


def _with_header(lines: list[list[Any]], path: Path) -> list[dict[str, Any]]:
    header = ["" if cell is None else str(cell).strip() for cell in lines[0]]
    while header and not header[-1]:  # columns without a name and without a value
        if any(cell is not None for line in lines for cell in line[len(header) - 1 : len(header)]):
            break
        header.pop()
    if len(set(header)) < len(header):
        raise TaskError(f"{path}: the header names a column twice")
    for number, line in enumerate(lines[1:], start=1):
        extra = any(cell is not None for cell in line[len(header) :])
        if len(line) < len(header) or extra:
            raise TaskError(f"{path}, row {number}: {len(line)} fields, the header has {len(header)}")
    return [dict(zip(header, line)) for line in lines[1:]]


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
                hint = "; is the file separated by semicolons?" if ";" in there else ""
                raise TaskError(f"{self.where}: column {column!r} is missing, the columns are {there}{hint}")

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

    def blanks(self, column: str) -> bool:
        """Whether the column is not there, or blank in every row. Raises `TaskError`, naming rows, where it
        is blank in some of them."""
        if column not in self.frame.columns:
            return True
        values = self.values(column)
        blank = [value is None or (isinstance(value, str) and not value.strip()) for value in values]
        if any(blank) and not all(blank):
            rows = [str(self.frame.index[i] + 1) for i, empty in enumerate(blank) if empty]
            more = f" and {len(rows) - NAMED_ROWS} more" if len(rows) > NAMED_ROWS else ""
            named = f"row{'s' * (len(rows) > 1)} {', '.join(rows[:NAMED_ROWS])}{more}"
            raise TaskError(
                f"{self.where}, {named}, column {column!r}: is empty, and given in the other rows: fill in"
                " all of them or none"
            )
        return all(blank)

    def countries(
        self, column: str, *, among: Iterable[str] | None = None, allow_regions: bool = False
    ) -> list[str]:
        """A column of country names, unified (`countries.unify`); each must be known, and one of `among`.

        With `allow_regions` a name that is no country's is a region of its own; the log names them.
        """
        unified: dict[str, str] = {}
        allowed = None if among is None else set(among)
        regions: dict[str, None] = {}
        out: list[str] = []
        for position, name in enumerate(self.texts(column)):
            if name not in unified:
                country = unify(name)
                if allowed is not None and country not in allowed:
                    raise self.error(position, column, f"{name!r} is none of {', '.join(sorted(allowed))}")
                if not is_known(country):
                    near = nearest(country)
                    if not allow_regions:
                        raise self.error(position, column, _unknown_country(name, near))
                    regions[f"{country} (is it {near[0]}?)" if near else country] = None
                unified[name] = country
            out.append(unified[name])
        if regions:
            log.warning("%s: regions, not countries: %s", self.where, ", ".join(regions))
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


def _unknown_country(name: str, near: Sequence[str]) -> str:
    maybe = f"; is it {' or '.join(map(repr, near))}?" if near else "."
    return (
        f"nobody knows the country {name!r}{maybe} A group or a part of countries needs --allow-regions"
        f" (allow_regions=True). Known are, by name, ISO code and official name: {', '.join(known_names())}"
    )


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
