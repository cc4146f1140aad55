"""culturalbench: knowledge of 45 regions (CulturalBench-Easy, Chiu et al. 2024, arXiv 2410.02677)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from .choice import choice_questions, choice_wordings
from .question import Question, Task
from .rows import Rows, first_half
from .sources import Source, read
from .wordings import Wording

log = logging.getLogger(__name__)

NAME = "culturalbench"
SOURCE = Source(
    "kellycyy/CulturalBench",
    "CulturalBench-Easy",
    "test",
    ("CulturalBench-Easy.csv", "**/CulturalBench-Easy*"),
)
LICENCE = "CC BY 4.0"
OPTIONS = ("prompt_option_a", "prompt_option_b", "prompt_option_c", "prompt_option_d")
ANSWERS = {"a": "0", "b": "1", "c": "2", "d": "3"}


def load(*, data_dir: str | Path | None = None, wordings: tuple[Wording, ...] | None = None) -> Task:
    """The task, from the Hub or from a mirror."""
    rows = read(SOURCE, data_dir)
    given = choice_wordings(NAME, wordings)
    rows.need("data_idx", "prompt_question", *OPTIONS, "answer", "country")
    half = first_half(rows.frame, ["country"])
    whole = [
        None not in options and "None" not in options
        for options in zip(*(rows.values(column) for column in OPTIONS))
    ]
    for position in (position for position, is_whole in enumerate(whole) if not is_whole):
        log.warning(
            "culturalbench: left out, broken in the data set: %s",
            rows.error(position, "prompt_option_*", "an option is missing"),
        )
    kept = rows.pick(whole)
    questions = tuple(
        questions_of(kept, given, [bool(neuron) for neuron, is_whole in zip(half, whole) if is_whole])
    )
    return Task(
        NAME, questions, source=rows.origin, licence=LICENCE, culture=True, skipped=len(rows) - len(kept)
    )


def questions_of(rows: Rows, wordings: tuple[Wording, ...], neuron: list[bool]) -> Iterator[Question]:
    """The questions of CulturalBench's rows; `neuron` says which rows are there to find neurons."""
    columns = zip(
        rows.ids("data_idx"),
        rows.texts("prompt_question"),
        zip(*(rows.texts(option) for option in OPTIONS)),
        rows.one_of("answer", ANSWERS),
        rows.countries("country"),
        neuron,
    )
    for row_id, question, options, answer, country, in_neuron in columns:
        yield from choice_questions(
            wordings,
            row_id=row_id,
            question=question,
            options=options,
            answer=int(answer),
            task=NAME,
            cluster=row_id,
            country=country,
            split="neuron" if in_neuron else "test",
        )
