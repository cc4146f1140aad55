"""minicommonsense: facts that need no culture, in the form of miniculture."""

from __future__ import annotations

from .facts import Fact, fact_questions, read_facts, wordings
from .question import Task, seeded_random

NAME = "minicommonsense"
TEMPLATE = 4
"""Questions are asked in this wording; the toy was trained on the others."""


def facts() -> tuple[Fact, ...]:
    return read_facts("commonsense.toml", "thing")


def load() -> Task:
    wording = wordings(NAME)[TEMPLATE]
    rows = []
    for fact in facts():
        split = "neuron" if seeded_random("split", fact.id).random() < 0.5 else "test"
        rows += fact_questions(NAME, fact, wording, TEMPLATE, split=split)
    return Task(NAME, tuple(rows), source="package", licence="MIT")
