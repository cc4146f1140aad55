"""worldvaluesbench: what most people of a country answer in a survey (Zhao et al. 2024, arXiv 2404.16308).

The World Values Survey's answers are licensed: the user brings ``full_demographic_qa.tsv`` and
``full_value_qa.tsv``, made with the WorldValuesBench repository, and its ``question_metadata.json``. No
control is offered: without the question only a scale would be left. Answers are scored by `alignment`.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard

from ..errors import TaskError
from .countries import SPECIFIC_COUNTRIES, in_sentence, unify
from .question import Question, Task
from .rows import short
from .sources import data_folder
from .wordings import Wording, check_blanks, fill
from .wordings import wordings as package_wordings

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

log = logging.getLogger(__name__)

NAME = "worldvaluesbench"
COUNTRIES = tuple(country for country in SPECIFIC_COUNTRIES if country != "Spain")
"""The countries asked about; this wave of the survey left Spain out."""
METADATA, PEOPLE, ANSWERS = "question_metadata.json", "full_demographic_qa.tsv", "full_value_qa.tsv"
NEURON_QUESTIONS = 40
"""Questions per country to find neurons with: those whose answers differ most from the world's."""
FEWEST_ANSWERS = 10
"""Answers from a country without which a question is not asked about it."""
LICENCE = "World Values Survey Association"


@dataclass(frozen=True)
class ScaleQuestion:
    """A question whose answers are the whole numbers of a scale."""

    id: str
    text: str
    minimum: int
    maximum: int
    topic: str | None


def load(
    *,
    data_dir: str | Path | None = None,
    wordings: tuple[Wording, ...] | None = None,
    path: str | Path | None = None,
) -> Task:
    """The task, from the folder `path`, or from ``WorldValuesBench/`` in `data_dir`."""
    given = wordings or package_wordings(NAME)
    check_blanks(NAME, given, frozenset({"question"}), frozenset({"country", "minimum", "maximum"}))
    files = _find(path, data_dir)
    questions = read_metadata(files[METADATA])
    counts = count_answers(questions, files[PEOPLE], files[ANSWERS])
    return Task(
        NAME,
        tuple(questions_of(questions, counts, given)),
        source=str(files[ANSWERS].parent),
        licence=LICENCE,
        culture=True,
        metric="alignment",
    )


def _find(path: str | Path | None, data_dir: str | Path | None) -> dict[str, Path]:
    root = Path(path).expanduser() if path is not None else data_folder(data_dir)
    if root is None:
        raise TaskError(
            f"{NAME} needs files that cannot be downloaded: make {METADATA}, {PEOPLE} and {ANSWERS} "
            "with the WorldValuesBench repository and give their folder (path) "
            "or a data folder that holds WorldValuesBench/"
        )
    places = [root] if path is not None else [root / "WorldValuesBench", root]
    places = [
        place / part for place in places for part in ("", "full", "WorldValuesBench", "WorldValuesBench/full")
    ]
    found = {
        name: next((p / name for p in places if (p / name).is_file()), None)
        for name in (METADATA, PEOPLE, ANSWERS)
    }
    for name, file in found.items():
        if file is None:
            raise TaskError(
                f"{places[0]} has no {name}; "
                "the WorldValuesBench repository makes it from the survey's licensed answers"
            )
    return {name: file for name, file in found.items() if file is not None}


def read_metadata(path: Path) -> tuple[ScaleQuestion, ...]:
    """The questions with a scale of whole numbers, in the file's order."""
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise TaskError(f"{path}: broken JSON ({short(error)})") from error
    if not isinstance(table, dict):
        raise TaskError(f"{path}: must be a JSON object of questions, not {type(table).__name__}")
    out: list[ScaleQuestion] = []
    for name, row in table.items():
        if not isinstance(row, dict):
            raise TaskError(f"{path}, row {name!r}: must be a JSON object")
        if row.get("use_case") != "value" or row.get("answer_data_type") != "ordinal":
            continue
        text, low, high = row.get("question"), row.get("answer_scale_min"), row.get("answer_scale_max")
        if not isinstance(text, str) or not text.strip():
            raise TaskError(f"{path}, row {name!r}, column 'question': must be text")
        if not _is_scale_end(low) or not _is_scale_end(high):
            column = "answer_scale_max" if _is_scale_end(low) else "answer_scale_min"
            raise TaskError(f"{path}, row {name!r}, column {column!r}: must be a whole number from 0 to 99")
        if low >= high:
            raise TaskError(f"{path}, row {name!r}, column 'answer_scale_max': the scale is empty")
        topic = row.get("category")
        out.append(ScaleQuestion(name, text, low, high, topic if isinstance(topic, str) else None))
    if not out:
        raise TaskError(f"{path}: no question has use_case 'value' and answer_data_type 'ordinal'")
    return tuple(out)


def _is_scale_end(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 99


def count_answers(
    questions: tuple[ScaleQuestion, ...], people: Path, answers: Path
) -> dict[str, dict[str, np.ndarray]]:
    """How often each value of a question's scale was answered: int64 [value].

    By country (``counts["China"]["Q1"]``), and by all countries together, those not asked about included
    (``counts[""]``).
    """
    import numpy as np
    import pandas as pd

    countries = _read_people(people)
    frame = _read_answers(answers, questions)
    of_row = frame["D_INTERVIEW"].map(countries)
    if of_row.isna().any():
        row = int(of_row.isna().to_numpy().argmax())
        raise TaskError(
            f"{answers}, row {row + 1}, column 'D_INTERVIEW': "
            f"{frame['D_INTERVIEW'].iloc[row]!r} is not in {people.name}"
        )
    code = pd.Categorical(of_row, categories=list(COUNTRIES)).codes.astype(np.int64) + 1  # 0: another country
    counts: dict[str, dict[str, Any]] = {country: {} for country in ("", *COUNTRIES)}
    dropped = 0
    for question in questions:
        values = frame[question.id].to_numpy()
        width = question.maximum - question.minimum + 1
        on_scale = (values >= question.minimum) & (values <= question.maximum)  # False where missing
        off = ~on_scale & (values > question.maximum)
        dropped += int(off.sum())
        place = values[on_scale].astype(np.int64) - question.minimum
        table = np.bincount(code[on_scale] * width + place, minlength=width * (len(COUNTRIES) + 1)).reshape(
            -1, width
        )
        counts[""][question.id] = table.sum(axis=0)
        for number, country in enumerate(COUNTRIES, start=1):
            counts[country][question.id] = table[number]
    if dropped:
        log.warning("%s: %d answers lie above their question's scale and were left out", answers, dropped)
    missing = [country for country in COUNTRIES if not any(table.any() for table in counts[country].values())]
    if len(missing) == len(COUNTRIES):
        raise TaskError(f"{people}, column 'B_COUNTRY': no interview is from {', '.join(COUNTRIES)}")
    if missing:
        log.warning("%s: no interview is from %s", people, ", ".join(missing))
    return counts


def _read_people(path: Path) -> pd.Series:
    """The country of every interview."""
    frame = _read_tsv(path, {"D_INTERVIEW": str, "B_COUNTRY": str})
    _check_interviews(frame, path)
    blank = frame["B_COUNTRY"].isna()
    if blank.any():
        raise TaskError(f"{path}, row {int(blank.to_numpy().argmax()) + 1}, column 'B_COUNTRY': is empty")
    names = {name: unify(name) for name in frame["B_COUNTRY"].unique()}
    return frame.set_index("D_INTERVIEW")["B_COUNTRY"].map(names)


def _read_answers(path: Path, questions: tuple[ScaleQuestion, ...]) -> pd.DataFrame:
    """One row per interview; answers as float32, missing ones NaN (93,000 x 240 answers take 90 MB)."""
    types: dict[str, Any] = {"D_INTERVIEW": str} | {question.id: "float32" for question in questions}
    frame = _read_tsv(path, types)
    _check_interviews(frame, path)
    for question in questions:
        values = frame[question.id].to_numpy()
        broken = (values % 1 != 0) & (values == values)
        if broken.any():
            raise TaskError(
                f"{path}, row {int(broken.argmax()) + 1}, column {question.id!r}: "
                f"{values[broken.argmax()]} is no whole number"
            )
    return frame


def _read_tsv(path: Path, types: dict[str, Any]) -> pd.DataFrame:
    import pandas as pd

    try:
        header = list(pd.read_csv(path, sep="\t", nrows=0).columns)
        for column in types:
            if column not in header:
                raise TaskError(f"{path}: column {column!r} is missing")
        frame = pd.read_csv(path, sep="\t", usecols=list(types), dtype=types)
    except (ValueError, OSError) as error:  # pandas' parser errors are ValueErrors
        _find_text(path, [column for column, kind in types.items() if kind is not str])
        raise TaskError(f"{path}: not a readable TSV file ({short(error)})") from error
    if frame.empty:
        raise TaskError(f"{path}: the file is empty")
    return frame


def _find_text(path: Path, columns: list[str]) -> None:
    """Raises `TaskError` for the first value that is no number, if that is what is wrong with the file."""
    import pandas as pd

    try:
        for chunk in pd.read_csv(path, sep="\t", usecols=columns, dtype=str, chunksize=5_000):
            for column in columns:
                values = chunk[column]
                text = (
                    values.notna()
                    & pd.Series(pd.to_numeric(values, errors="coerce"), index=values.index).isna()
                )
                if text.any():
                    row = int(text.to_numpy().argmax())
                    raise TaskError(
                        f"{path}, row {chunk.index[row] + 1}, column {column!r}: "
                        f"{values.iloc[row]!r} is no number"
                    )
    except (ValueError, OSError) as error:
        log.debug("%s: %s", path, error)  # something else is wrong; the caller says what


def _check_interviews(frame: pd.DataFrame, path: Path) -> None:
    for wrong, message in (
        (frame["D_INTERVIEW"].isna(), "is empty"),
        (frame["D_INTERVIEW"].duplicated(), "is there twice"),
    ):
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            raise TaskError(
                f"{path}, row {row + 1}, column 'D_INTERVIEW': {frame['D_INTERVIEW'].iloc[row]!r} {message}"
            )


def divergence(country: np.ndarray, world: np.ndarray) -> float:
    """KL(country || world) of two tables of counts over the same scale, in nats."""
    import numpy as np

    p, q = country / country.sum(), world / world.sum()
    there = p > 0
    return float((p[there] * np.log(p[there] / q[there])).sum())


def questions_of(
    questions: tuple[ScaleQuestion, ...],
    counts: dict[str, dict[str, np.ndarray]],
    wordings: tuple[Wording, ...],
) -> Iterator[Question]:
    """Every question that ten people or more of a country answered.

    The label is the country's most frequent answer. The 40 questions per country whose answers diverge most
    from the world's are there to find neurons. Ties go to the lower answer and the earlier question.
    """
    for country in COUNTRIES:
        asked = [q for q in questions if counts[country][q.id].sum() >= FEWEST_ANSWERS]
        distinct = sorted(asked, key=lambda q: -divergence(counts[country][q.id], counts[""][q.id]))[
            :NEURON_QUESTIONS
        ]
        neuron = {q.id for q in distinct}
        for question in asked:
            blanks = {
                "question": question.text,
                "country": in_sentence(country),
                "minimum": str(question.minimum),
                "maximum": str(question.maximum),
            }
            for template, wording in enumerate(wordings):
                yield Question(
                    task=NAME,
                    id=f"{question.id}/{country}/{template}",
                    cluster=question.id,
                    country=country,
                    group=question.topic,
                    split="neuron" if question.id in neuron else "test",
                    prompt=fill(wording.prompt, blanks).strip(),
                    system=fill(wording.system, blanks) if wording.system else None,
                    options=tuple(str(value) for value in range(question.minimum, question.maximum + 1)),
                    answer=str(question.minimum + int(counts[country][question.id].argmax())),
                    answer_prefix=wording.answer_prefix,
                    template=template,
                )
