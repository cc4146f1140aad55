"""minicommonsense: facts that need no culture, in the form of miniculture."""

from __future__ import annotations

from .facts import Fact, fact_questions, read_facts
from .question import Question, Task, seeded_random
from .wordings import wordings

NAME = "minicommonsense"
TEMPLATE = 4
"""The wording that questions are asked in; the toy was trained on the others."""


def facts() -> tuple[Fact, ...]:
    """All facts."""
    return read_facts("commonsense.toml", "thing")


def load() -> Task:
    """The task: half of the facts, drawn from their hashes, are there to find neurons."""
    wording = wordings(NAME)[TEMPLATE]
    rows: list[Question] = []
    for fact in facts():
        split = "neuron" if seeded_random("split", fact.id).random() < 0.5 else "test"
        rows += fact_questions(NAME, fact, wording, TEMPLATE, split=split)
    return Task(NAME, tuple(rows), source="package", licence="MIT")
