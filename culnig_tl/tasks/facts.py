"""Facts with wrong options beside them: what the package's own multiple-choice tasks are made of."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..errors import TaskError
from .countries import in_sentence
from .question import Question, letters, seeded_random
from .wordings import ANSWER_PREFIX, DATA, Wording, tomllib

LABELS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Fact:
    """One fact, and what can stand beside its answer as a wrong option."""

    question_id: str
    topic: str | None
    subject: str
    """The country or thing that fills the stem."""
    stem: str
    answer: str
    distractors: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{self.question_id}/{self.subject}"

    @property
    def told(self) -> bool:
        """Whether the question gives its own answer away ("Which local word means school in the UK?").

        Such a fact is not asked; its answer is only a wrong option of others.
        """
        return re.search(rf"\b{re.escape(self.answer)}\b", self.stem) is not None


@cache
def read_data(name: str) -> Mapping[str, Any]:
    """A TOML file of the package's own data, e.g. ``miniculture/food.toml``."""
    file = DATA
    for part in name.split("/"):
        file = file / part
    return tomllib.loads(file.read_text(encoding="utf-8"))


def read_facts(name: str, placeholder: str) -> tuple[Fact, ...]:
    """The facts of a data file: each question's stem, filled with each subject.

    Wrong options are the first answers of the other subjects, except those that are among this subject's own.
    """
    facts: list[Fact] = []
    data = read_data(name)
    for row in data["question"]:
        firsts = {subject: answers[0] for subject, answers in row["answers"].items()}
        for subject, answers in row["answers"].items():
            wrong = tuple(sorted(set(firsts.values()) - set(answers)))
            if len(wrong) < 3:
                raise TaskError(f"{name}: {row['id']}/{subject} has {len(wrong)} wrong options, 3 are needed")
            stem = row["stem"].replace("{" + placeholder + "}", in_sentence(subject))
            facts.append(Fact(row["id"], data.get("topic"), subject, stem, answers[0], wrong))
    return tuple(facts)


def option_orders(fact: Fact) -> Iterator[tuple[str, ...]]:
    """The four lists of options of a fact: the answer once in each place, with new wrong options."""
    for position in range(4):
        rng = seeded_random("options", fact.id, position)
        options = rng.sample(fact.distractors, 3)
        options.insert(position, fact.answer)
        yield tuple(options)


def random_options(fact: Fact, rng: random.Random) -> tuple[str, ...]:
    """Options in a random order that `option_orders` does not use, for training."""
    while True:
        options = [*rng.sample(fact.distractors, 3), fact.answer]
        rng.shuffle(options)
        if tuple(options) not in set(option_orders(fact)):
            return tuple(options)


def fact_questions(task: str, fact: Fact, wording: Wording, template: int, **more: Any) -> Iterator[Question]:
    """The four questions about a fact; `more` holds further fields of theirs."""
    for position, options in enumerate(option_orders(fact)):
        filled = {"question": fact.stem, "options": letters(options)}
        yield Question(
            task=task,
            id=f"{fact.id}/{LABELS[position]}",
            cluster=fact.question_id,
            prompt=wording.prompt.format(**filled),
            control=wording.control.format(**filled) if wording.control else None,
            options=LABELS,
            answer=LABELS[position],
            answer_prefix=ANSWER_PREFIX,
            group=fact.topic,
            template=template,
            stem=fact.stem,
            texts=options,
            **more,
        )
