"""A user's own task: one JSONL, CSV, TSV, Excel or Parquet file, one row per question.

Columns:
    question: the text.
    options: two to ten texts; a JSON list, or in CSV also separated by ``|``.
    answer: the right option's text.
    country: the country that the question is about. A file without it, or with every row blank, is a task
        that is not about cultures.
    id, cluster, topic, split ("neuron" or "test"): optional. Without `split` the task only tests neurons;
        without `cluster` every row is a cluster of its own.

What other benchmarks call these is understood where only one reading is possible, and the log says how it
was read: names of columns in `NAMES`, one column per option (``option_a``, ``choice1``, ``A``), and an answer
that is an option's letter or its index.

The task is named after the file. Questions are asked in the package's wordings for multiple choice, with the
options in an order drawn from the question's hash.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import TaskError
from .choice import choice_questions, choice_wordings
from .question import Question, Task
from .rows import Rows, read_file, short
from .wordings import Wording

log = logging.getLogger(__name__)

SPLITS = {"neuron": "neuron", "test": "test"}
NAMES: dict[str, tuple[str, ...]] = {
    "question": ("question", "query", "question_stem", "stem", "ctx", "prompt"),
    "options": ("options", "choices", "endings"),
    "answer": (
        "answer",
        "answerkey",
        "answer_key",
        "correct_answer",
        "correct",
        "gold",
        "label",
        "target",
        "answer_idx",
        "answer_index",
    ),
    "country": ("country",),
    "id": ("id",),
    "cluster": ("cluster",),
    "topic": ("topic",),
    "split": ("split",),
}
"""Column -> what files call it, whatever the case; of several that are there the first."""
_OPTION = re.compile(r"(?:(?:option|choice|answer|ending|op)[ _-]?)?([a-j]|\d{1,2})", re.IGNORECASE)
"""A column that holds one option: option_a, choice1, ending0, A."""
LETTERS = "ABCDEFGHIJ"


def load(
    path: str | Path, *, wordings: tuple[Wording, ...] | None = None, allow_regions: bool = False
) -> Task:
    """The task in a file. Raises `TaskError` naming file, row and column if something is wrong.

    Args:
        allow_regions: take a name that is no country's for a region: a group of countries, or a part of one.
    """
    name = Path(path).stem
    given = choice_wordings(name, wordings)
    rows = read_file(path)
    questions = tuple(questions_of(name, rows, given, allow_regions=allow_regions))
    return Task(name, questions, source=str(path), culture=any(q.country is not None for q in questions))


def questions_of(
    name: str, rows: Rows, wordings: tuple[Wording, ...], *, allow_regions: bool = False
) -> Iterator[Question]:
    """The questions of a file's rows."""
    columns = _columns(rows)
    single = [] if "options" in columns else _single_options(rows)
    if not single:
        columns = {"options": "options", **columns}
    rows.need(
        *(columns.get(key, key) for key in ("question", *(["options"] if not single else []), "answer"))
    )

    def optional(key: str, read: Callable[[str], Sequence[Any]]) -> Sequence[Any]:
        column = columns.get(key, key)
        return [None] * len(rows) if rows.blanks(column) else read(column)

    ids = [str(number + 1) for number in rows.frame.index]
    ids = [given or number for given, number in zip(optional("id", rows.ids), ids)]
    clusters = optional("cluster", lambda column: rows.ids(column, unique=False))
    splits = optional("split", lambda column: rows.one_of(column, SPLITS))
    topics = optional("topic", rows.texts)
    countries = optional("country", lambda column: rows.countries(column, allow_regions=allow_regions))
    texts = rows.texts(columns["question"])
    most = min(len(wording.labels) for wording in wordings)
    choices = _all_options(rows, columns, single, most)
    right = _answers(rows, columns["answer"], choices)
    _say_how(rows, columns, single)
    for position, row_id in enumerate(ids):
        yield from choice_questions(
            wordings,
            row_id=row_id,
            question=texts[position],
            options=choices[position][0],
            answer=right[position],
            task=name,
            cluster=clusters[position] or row_id,
            country=countries[position],
            group=topics[position],
            split=splits[position],
        )


def _columns(rows: Rows) -> dict[str, str]:
    """Column of `NAMES` -> its name in the file."""
    there: dict[str, str] = {}
    for column in map(str, rows.frame.columns):
        there.setdefault(column.strip().lower(), column)
    there |= {str(column): str(column) for column in rows.frame.columns if str(column) in NAMES}
    found = {
        key: next((there[name] for name in names if name in there), None) for key, names in NAMES.items()
    }
    return {key: column for key, column in found.items() if column is not None}


def _single_options(rows: Rows) -> list[str]:
    """The columns that hold one option each, in the order of their letters or numbers; empty unless there are
    two of one style or more, without a gap."""
    styles: dict[str, dict[int, str]] = {}
    for column in map(str, rows.frame.columns):
        if match := _OPTION.fullmatch(column.strip()):
            mark = match[1].lower()
            style = column.strip()[: -len(mark)].lower() + ("#" if mark.isdigit() else "a")
            place = int(mark) if mark.isdigit() else ord(mark) - ord("a")
            styles.setdefault(style, {})[place] = column
    whole = [
        style
        for style in styles.values()
        if len(style) > 1 and sorted(style) == list(range(min(style), min(style) + len(style)))
    ]
    return [column for _, column in sorted(whole[0].items())] if len(whole) == 1 else []


def _say_how(rows: Rows, columns: Mapping[str, str], single: Sequence[str]) -> None:
    """Logs which columns were taken for which, where their names are not the package's own."""
    other = [f"{column!r} is the {key}" for key, column in columns.items() if column != key and key != "id"]
    if single:
        other.append(f"{', '.join(map(repr, single))} are the options")
    if other:
        log.warning("%s: read as follows: %s", rows.where, "; ".join(other))


def _all_options(
    rows: Rows, columns: Mapping[str, str], single: Sequence[str], most: int
) -> list[tuple[list[str], Sequence[str]]]:
    """(options, their letters) of every row."""
    if single:
        cells = zip(*(rows.values(column) for column in single))
        given: list[Any] = [[cell for cell in row if cell is not None] for row in cells]
        column = single[-1]
    else:
        column = columns["options"]
        given = rows.values(column)
    found = []
    for position, value in enumerate(given):
        options, letters = _options(rows, position, column, value)
        if not 2 <= len(options) <= most:
            raise rows.error(position, column, f"holds {len(options)} options, it takes 2 to {most}")
        if len(set(options)) < len(options):
            raise rows.error(position, column, "holds an option twice")
        found.append((options, letters))
    return found


def _answers(rows: Rows, column: str, choices: Sequence[tuple[list[str], Sequence[str]]]) -> list[int]:
    """The right option's place in every row: by its text, else by its letter, else by its index.

    One reading must do for all rows. Raises `TaskError` for a row that none fits, and where an index may
    count from 0 or from 1.
    """
    said = [
        rows.text(position, column, _as_text(v)).strip() for position, v in enumerate(rows.values(column))
    ]
    read: dict[str, list[int | None]] = {
        kind: [way(text, *choice) for text, choice in zip(said, choices)] for kind, way in _READINGS.items()
    }
    fit = [kind for kind, places in read.items() if None not in places]
    if not fit:
        best = max(read.values(), key=lambda places: sum(place is not None for place in places))
        position = best.index(None)
        options = ", ".join(choices[position][0])
        raise rows.error(position, column, f"{said[position]!r} is no option, the options are {options}")
    kind = fit[0]
    if kind.startswith("index") and len(fit) > 1:
        raise TaskError(
            f"{rows.where}, column {column!r}: an index that may count from 0 or from 1: write the option's"
            " text"
        )
    if kind != "text":
        log.warning("%s: %r is read as the right option's %s", rows.where, column, kind)
    return [place for place in read[kind] if place is not None]


def _by_text(text: str, options: list[str], letters: Sequence[str]) -> int | None:
    return options.index(text) if text in options else None


def _by_letter(text: str, options: list[str], letters: Sequence[str]) -> int | None:
    letter = text.strip("().: ").upper()
    return letters.index(letter) if letter in letters else None


def _from(first: int) -> Callable[[str, list[str], Sequence[str]], int | None]:
    def place(text: str, options: list[str], letters: Sequence[str]) -> int | None:
        return int(text) - first if text.isdecimal() and first <= int(text) < first + len(options) else None

    return place


_READINGS = {"text": _by_text, "letter": _by_letter, "index from 0": _from(0), "index from 1": _from(1)}


def _options(rows: Rows, position: int, column: str, given: Any) -> tuple[list[str], Sequence[str]]:
    """(options, their letters): of a list, of text with ``|``, or of ``{"text": [...], "label": [...]}`` as
    in ARC and CommonsenseQA."""
    if isinstance(given, str):
        if given.lstrip().startswith(("[", "{")):
            try:
                given = json.loads(given)
            except (ValueError, RecursionError) as error:
                raise rows.error(position, column, f"broken JSON ({short(error)})") from error
        else:
            given = given.split("|")
    letters: Any = None
    if isinstance(given, dict) and isinstance(given.get("text"), list):
        given, letters = given["text"], given.get("label")
    elif isinstance(given, list) and given and all(isinstance(option, dict) for option in given):
        given, letters = zip(*((option.get("text"), option.get("label")) for option in given))
        given = list(given)
    if not isinstance(given, list):
        kind = "is empty" if given is None else f"must be a list, not {type(given).__name__}"
        raise rows.error(position, column, kind)
    options = [rows.text(position, column, _as_text(option)).strip() for option in given]
    named = (
        [str(_as_text(mark)).strip().upper() for mark in letters]
        if isinstance(letters, (list, tuple))
        else []
    )
    return options, named if len(set(named)) == len(options) else LETTERS[: len(options)]


def _as_text(value: Any) -> Any:
    """A number as text, whole ones without the ".0" that a table gives them; anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
