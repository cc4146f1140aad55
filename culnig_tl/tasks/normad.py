"""normad: is behaviour acceptable in one of 75 countries? (NormAd, Rao et al. 2024, arXiv 2404.12464)

It offers no control: the three options are always the same, and without the story nothing is left to ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .choice import choice_questions
from .countries import in_sentence
from .question import Question, Task
from .rows import Rows, first_half
from .sources import Source, read
from .wordings import Wording, check_blanks
from .wordings import wordings as package_wordings

NAME = "normad"
SOURCE = Source(
    "akhilayerukola/NormAd", None, "train", ("normad_etiquette_final_data*.csv", "*.csv", "data/*")
)
LICENCE = "not stated"
LABELS = {"yes": "0", "no": "1", "neutral": "2"}
OPTIONS = ("Yes", "No", "Neither: the customs there say nothing about it")


def load(*, data_dir: str | Path | None = None, wordings: tuple[Wording, ...] | None = None) -> Task:
    """The task, from the Hub or from a mirror."""
    rows = read(SOURCE, data_dir)
    given = wordings or package_wordings(NAME)
    check_blanks(NAME, given, frozenset({"story", "options"}), frozenset({"country", "country_name"}))
    return Task(NAME, tuple(questions_of(rows, given)), source=rows.origin, licence=LICENCE, culture=True)


def questions_of(rows: Rows, wordings: tuple[Wording, ...]) -> Iterator[Question]:
    """The questions of NormAd's rows; the first half per country and label is there to find neurons."""
    rows.need("ID", "Country", "Story", "Gold Label")
    ids, countries, stories = rows.ids("ID"), rows.countries("Country"), rows.texts("Story")
    labels = rows.one_of("Gold Label", LABELS)
    topics = rows.values("Subaxis") if "Subaxis" in rows.frame.columns else [None] * len(rows)
    half = first_half(rows.frame.assign(_country=countries, _label=labels), ["_country", "_label"]).tolist()
    for row_id, country, story, label, topic, in_neuron in zip(ids, countries, stories, labels, topics, half):
        yield from choice_questions(
            wordings,
            row_id=row_id,
            question=story,
            options=OPTIONS,
            answer=int(label),
            blanks={"story": story, "country": in_sentence(country), "country_name": country},
            stem=f"{story}\nIs this acceptable in {in_sentence(country)}?",
            task=NAME,
            cluster=row_id,
            country=country,
            group=topic if isinstance(topic, str) else None,
            split="neuron" if in_neuron else "test",
        )
