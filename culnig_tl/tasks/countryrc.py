"""countryrc: reading comprehension whose answer is a country named in the passage; no culture need be known.

The passages are the package's own; those of the paper (CULNIG's ``data.json``) can be read instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import TaskError
from .choice import choice_questions
from .countries import COUNTRIES, SPECIFIC_COUNTRIES, in_sentence
from .facts import read_data
from .question import Question, Task, seeded_random
from .rows import read_file
from .wordings import Wording, check_blanks
from .wordings import wordings as package_wordings

NAME, PAPER_NAME = "countryrc", "countryrc-paper"
PAPER_HALF = 25
"""Passages in each half of the paper's file."""
NESTED = frozenset({"Indonesia", "West Java"})
"""One is part of the other, so they never appear in the same question."""
_OPENING = re.compile(r"(?:^|[.!?][\"'”]?\s+)[\"'“]?(?=\{(?:country|distractor)\})")


@dataclass(frozen=True)
class Passage:
    """A text with a blank ``{country}``, perhaps one ``{distractor}``; the country answers the question."""

    id: str
    text: str
    question: str

    @property
    def has_distractor(self) -> bool:
        return "{distractor}" in self.text

    def tell(self, country: str, distractor: str, *, articles: bool = True) -> str:
        """The text with its blanks filled in, grammatically: ``The USA was the only place ...``; or the bare
        names, without `articles`."""
        blanks = {"country": country, "distractor": distractor}
        if articles:
            blanks = {key: in_sentence(name) for key, name in blanks.items()}
        opening = {key: value[0].upper() + value[1:] for key, value in blanks.items()}
        starts = {match.end() for match in _OPENING.finditer(self.text)}
        return re.sub(
            r"\{(country|distractor)\}",
            lambda m: (opening if m.start() in starts else blanks)[m[1]],
            self.text,
        )


def load(*, wordings: tuple[Wording, ...] | None = None, path: str | Path | None = None) -> Task:
    """The task; `path` names a file of passages in the authors' format."""
    return _load(NAME, own_passages() if path is None else read_passages(path), wordings, path)


def load_paper(*, wordings: tuple[Wording, ...] | None = None, path: str | Path | None = None) -> Task:
    """The task with wrong options, names and number of rows as in the authors' scripts.

    The wrong options are three of all 15 other countries, so that the options alone give the answer away more
    often (only eight countries are ever right, and two of the three may be parts of one another); names have
    no article; and of the package's passages, 25 are in each half.
    """
    if path is not None:
        return _load(PAPER_NAME, read_passages(path), wordings, path)
    own = own_passages()
    half = len(own) // 2
    return _load(PAPER_NAME, (*own[:PAPER_HALF], *own[half : half + PAPER_HALF]), wordings, None)


def _load(
    name: str, passages: Sequence[Passage], wordings: tuple[Wording, ...] | None, path: str | Path | None
) -> Task:
    given = wordings or package_wordings(NAME)
    check_blanks(name, given, frozenset({"passage", "question", "options"}))
    source, licence = ("package", "MIT") if path is None else (str(path), "")
    return Task(name, tuple(questions_of(name, passages, given)), source=source, licence=licence)


def own_passages() -> tuple[Passage, ...]:
    """The package's passages: the first half is there to find neurons, the second to test them."""
    return tuple(Passage(**row) for row in read_data("countryrc.toml")["passage"])


def read_passages(path: str | Path) -> tuple[Passage, ...]:
    """Passages in the authors' format: id, context (``{country}``, ``{country_dummy}``) and question."""
    rows = read_file(path)
    rows.need("id", "context", "question")
    passages: list[Passage] = []
    for position, row in enumerate(zip(rows.ids("id"), rows.texts("context"), rows.texts("question"))):
        if "{country}" not in row[1]:
            raise rows.error(position, "context", "has no {country}")
        passages.append(Passage(row[0], row[1].replace("{country_dummy}", "{distractor}"), row[2]))
    if len(passages) < 2:
        raise TaskError(f"{path}: two passages or more are needed, one for each half")
    return tuple(passages)


def questions_of(name: str, passages: Sequence[Passage], wordings: tuple[Wording, ...]) -> Iterator[Question]:
    """Every passage about each of the eight countries, in every wording, for the task of that name."""
    draw = wrong_countries if name == NAME else any_wrong_countries
    for number, passage in enumerate(passages):
        for country in SPECIFIC_COUNTRIES:
            wrong = draw(passage.id, country)
            told = passage.tell(country, wrong[0], articles=name == NAME)
            yield from choice_questions(
                wordings,
                row_id=f"{passage.id}/{country}",
                question=passage.question,
                options=(country, *wrong),
                answer=0,
                blanks={"passage": told},
                stem=f"{told} {passage.question}",
                task=name,
                cluster=passage.id,
                country=country,
                group="two countries" if passage.has_distractor else "one country",
                split="neuron" if number < len(passages) // 2 else "test",
            )


def wrong_countries(passage_id: str, country: str) -> tuple[str, str, str]:
    """Three wrong options among BLEnD's 16; the first is the passage's second country, if it has one.

    Two are drawn from the eight countries that are asked about and one from all 16. If all three were drawn
    from the 16, the options would give the answer away, because only eight of them are ever right.
    """
    rng = seeded_random(NAME, passage_id, country)
    wrong: list[str] = []
    for pool in (SPECIFIC_COUNTRIES, SPECIFIC_COUNTRIES, COUNTRIES):
        used = {country, *wrong}
        barred = used | NESTED if used & NESTED else used
        wrong.append(rng.choice([c for c in pool if c not in barred]))
    rng.shuffle(wrong)
    return wrong[0], wrong[1], wrong[2]


def any_wrong_countries(passage_id: str, country: str) -> tuple[str, str, str]:
    """Three wrong options among BLEnD's other 15, as in the authors' scripts."""
    first, second, third = seeded_random(PAPER_NAME, passage_id, country).sample(
        [c for c in COUNTRIES if c != country], 3
    )
    return first, second, third
