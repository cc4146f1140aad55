"""A user's own task: one JSONL, CSV or Parquet file, one row per question.

Columns:
    question: the text.
    options: two to ten texts; a JSON list, or in CSV also separated by ``|``.
    answer: the right option's text.
    country: the country that the question is about; blank in every row of a task that is not about cultures.
    id, cluster, topic, split ("neuron" or "test"): optional. Without `split` the task only tests neurons;
        without `cluster` every row is a cluster of its own.

The task is named after the file. Questions are asked in the package's wordings for multiple choice, with the
options in an order drawn from the question's hash.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .choice import choice_questions, choice_wordings
from .question import Question, Task
from .rows import Rows, read_file, short
from .wordings import Wording

SPLITS = {"neuron": "neuron", "test": "test"}


def load(path: str | Path, *, wordings: tuple[Wording, ...] | None = None) -> Task:
    """The task in a file. Raises `TaskError` naming file, row and column if something is wrong."""
    name = Path(path).stem
    given = choice_wordings(name, wordings)
    rows = read_file(path)
    questions = tuple(questions_of(name, rows, given))
    return Task(name, questions, source=str(path), culture=any(q.country is not None for q in questions))


def questions_of(name: str, rows: Rows, wordings: tuple[Wording, ...]) -> Iterator[Question]:
    """The questions of a file's rows."""
    rows.need("question", "options", "answer", "country")
    ids = rows.ids("id") if "id" in rows.frame.columns else [str(number + 1) for number in rows.frame.index]
    clusters = rows.ids("cluster", unique=False) if "cluster" in rows.frame.columns else ids
    splits = rows.one_of("split", SPLITS) if "split" in rows.frame.columns else [None] * len(rows)
    topics = rows.texts("topic") if "topic" in rows.frame.columns else [None] * len(rows)
    countries = _countries(rows)
    most = min(len(wording.labels) for wording in wordings)
    columns = zip(
        ids,
        clusters,
        rows.texts("question"),
        rows.values("options"),
        rows.values("answer"),
        countries,
        topics,
        splits,
    )
    for position, (row_id, cluster, question, given, answer, country, topic, split) in enumerate(columns):
        options = _options(rows, position, given)
        if not 2 <= len(options) <= most:
            raise rows.error(position, "options", f"holds {len(options)} options, it takes 2 to {most}")
        if len(set(options)) < len(options):
            raise rows.error(position, "options", "holds an option twice")
        right = rows.text(position, "answer", _as_text(answer)).strip()
        if right not in options:
            raise rows.error(
                position, "answer", f"{right!r} is no option, the options are {', '.join(options)}"
            )
        yield from choice_questions(
            wordings,
            row_id=row_id,
            question=question,
            options=options,
            answer=options.index(right),
            task=name,
            cluster=cluster,
            country=country,
            group=topic,
            split=split,
        )


def _countries(rows: Rows) -> list[str | None]:
    if all(value is None for value in rows.values("country")):
        return [None] * len(rows)
    return [*rows.countries("country")]


def _options(rows: Rows, position: int, given: Any) -> list[str]:
    if isinstance(given, str):
        if given.lstrip().startswith("["):
            try:
                given = json.loads(given)
            except (ValueError, RecursionError) as error:
                raise rows.error(position, "options", f"broken JSON ({short(error)})") from error
        else:
            given = given.split("|")
    if not isinstance(given, list):
        raise rows.error(
            position,
            "options",
            "is empty" if given is None else f"must be a list, not {type(given).__name__}",
        )
    return [rows.text(position, "options", _as_text(option)).strip() for option in given]


def _as_text(value: Any) -> Any:
    """A number as text, whole ones without the ".0" that a table gives them; anything else as it is."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
