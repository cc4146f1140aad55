"""miniparaphrase and minianswers: two 0/1 tasks about words alone, without facts.

In the form of GLUE's MRPC and QNLI: do two sentences say the same, and does a sentence answer a question?
"""

from __future__ import annotations

import random
from collections.abc import Callable

from .facts import ANSWER_PREFIX, wordings
from .minireading import NAMES
from .question import Question, Task, seeded_random

PARAPHRASE, ANSWERS = "miniparaphrase", "minianswers"
SIZE = 400
VERBS = (
    ("found", "discovered"),
    ("fixed", "repaired"),
    ("bought", "purchased"),
    ("closed", "shut"),
    ("threw", "tossed"),
    ("saw", "noticed"),
)
NOUNS = ("lamp", "basket", "ladder", "mirror", "kettle", "blanket", "bottle", "drawer")
ADJECTIVES = ("small", "heavy", "old", "clean", "broken", "red")


def paraphrase(rng: random.Random) -> tuple[str, str]:
    """Two sentences and "1" if they say the same: a synonym or the passive keeps it, another verb or adjective does not."""
    verb, noun, adjective, name = rng.randrange(len(VERBS)), rng.choice(NOUNS), rng.choice(ADJECTIVES), rng.choice(NAMES)
    first = f"{name} {rng.choice(VERBS[verb])} the {adjective} {noun}"
    label = rng.randrange(2)
    if not label:
        if rng.random() < 0.5:
            verb = rng.choice([i for i in range(len(VERBS)) if i != verb])
        else:
            adjective = rng.choice([a for a in ADJECTIVES if a != adjective])
    return f"{first}. {_sentence(rng, name, verb, f'the {adjective} {noun}')}.", str(label)


def answers(rng: random.Random) -> tuple[str, str]:
    """A question, a sentence, and "1" if the sentence answers it."""
    verb, noun = rng.randrange(len(VERBS)), rng.choice(NOUNS)
    question = f"Who {rng.choice(VERBS[verb])} the {noun}?"
    label = rng.randrange(2)
    if not label:
        if rng.random() < 0.5:
            verb = rng.choice([i for i in range(len(VERBS)) if i != verb])
        else:
            noun = rng.choice([n for n in NOUNS if n != noun])
    return f"{question} {_sentence(rng, rng.choice(NAMES), verb, f'the {noun}')}.", str(label)


def _sentence(rng: random.Random, who: str, verb: int, what: str) -> str:
    said = rng.choice(VERBS[verb])
    return f"{who} {said} {what}" if rng.random() < 0.5 else f"{what} was {said} by {who}"


def load_paraphrase() -> Task:
    return _load(PARAPHRASE, paraphrase)


def load_answers() -> Task:
    return _load(ANSWERS, answers)


def held_out(make: Callable[[random.Random], tuple[str, str]], name: str) -> list[tuple[str, str]]:
    """The pairs that the task asks, never trained on."""
    pairs: dict[str, str] = {}
    number = 0
    while len(pairs) < SIZE:
        text, label = make(seeded_random(name, number))
        pairs.setdefault(text, label)
        number += 1
    return list(pairs.items())


def _load(name: str, make: Callable[[random.Random], tuple[str, str]]) -> Task:
    wording = wordings(name)[0]
    rows = tuple(
        Question(
            task=name,
            id=f"{name}-{number:03d}",
            cluster=f"{name}-{number:03d}",
            prompt=wording.prompt.format(question=text),
            options=("0", "1"),
            answer=label,
            answer_prefix=ANSWER_PREFIX,
        )
        for number, (text, label) in enumerate(held_out(make, name))
    )
    return Task(name, rows, source="package", licence="MIT")
