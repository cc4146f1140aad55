"""miniculture: the package's own cultural facts, in the form of BLEnD.

Real facts about BLEnD's 16 countries and regions in its six topics, in our own words. Food, Work life and
Sport are there to find neurons, Education, Family and Holidays to test them, as in CULNIG.
"""

from __future__ import annotations

from .countries import COUNTRIES
from .facts import Fact, fact_questions, read_facts
from .question import Task
from .wordings import wordings

NAME = "miniculture"
FILES = ("food", "work_life", "sport", "education", "family", "holidays")
NEURON_TOPICS = ("Food", "Work life", "Sport")
TEMPLATE = 4
"""The wording that questions are asked in; the toy was trained on the others."""


def facts() -> tuple[Fact, ...]:
    """All facts, topic by topic."""
    return tuple(fact for file in FILES for fact in read_facts(f"{NAME}/{file}.toml", "country"))


def load() -> Task:
    """The task, sorted by country as BLEnD is."""
    wording = wordings(NAME)[TEMPLATE]
    rows = [
        question
        for fact in facts()
        if not fact.told
        for question in fact_questions(
            NAME,
            fact,
            wording,
            TEMPLATE,
            country=fact.subject,
            split="neuron" if fact.topic in NEURON_TOPICS else "test",
        )
    ]
    order = {country: i for i, country in enumerate(COUNTRIES)}
    rows.sort(key=lambda q: (order[q.country or ""], q.cluster))
    return Task(NAME, tuple(rows), source="package", licence="MIT", culture=True)
