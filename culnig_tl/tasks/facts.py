"""Facts with their wrong options: what the multiple-choice tasks of the package's own data are made of."""

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
from .wordings import ANSWER_PREFIX, DATA, Wording, tomllib, wordings

LABELS = ("A", "B", "C", "D")
__all__ = [
    "ANSWER_PREFIX",
    "LABELS",
    "Fact",
    "Wording",
    "fact_questions",
    "option_orders",
    "random_options",
    "read_data",
    "read_facts",
    "wordings",
]


@dataclass(frozen=True)
class Fact:
    """One thing that is so, and what may stand beside it as a wrong option."""

    question_id: str
    topic: str | None
    subject: str
    """The country, or the thing, that fills the stem."""
    stem: str
    answer: str
    distractors: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{self.question_id}/{self.subject}"

    @property
    def told(self) -> bool:
        """Whether the question says its own answer ("Which local word means school in the UK?"): then it is not asked, and
        serves as a wrong option alone."""
        return re.search(rf"\b{re.escape(self.answer)}\b", self.stem) is not None


@cache
def read_data(name: str) -> Mapping[str, Any]:
    """A TOML file of the package's own data, e.g. ``miniculture/food.toml``."""
    file = DATA
    for part in name.split("/"):
        file = file / part
    return tomllib.loads(file.read_text(encoding="utf-8"))


def read_facts(name: str, placeholder: str) -> tuple[Fact, ...]:
    """The facts of a data file: each question's stem filled with each subject.

    A wrong option is the first answer of another subject that is not among this subject's own answers.
    """
    facts = []
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
    """The four option lists under which a fact is asked: the answer at A, B, C and D once, other wrong options each time."""
    for position in range(4):
        rng = seeded_random("options", fact.id, position)
        options = rng.sample(fact.distractors, 3)
        options.insert(position, fact.answer)
        yield tuple(options)


def random_options(fact: Fact, rng: random.Random) -> tuple[str, ...]:
    """Options in a random order that `option_orders` does not use, so that nothing of the task is seen in training."""
    while True:
        options = [*rng.sample(fact.distractors, 3), fact.answer]
        rng.shuffle(options)
        if tuple(options) not in set(option_orders(fact)):
            return tuple(options)


def fact_questions(task: str, fact: Fact, wording: Wording, template: int, **fields) -> Iterator[Question]:
    """The four questions on a fact."""
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
            **fields,
        )
