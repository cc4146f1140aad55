"""miniparaphrase, minianswers and minisynonyms: tasks about words alone, without facts.

The first two have the form of GLUE's MRPC and QNLI: do two sentences say the same, and does a sentence answer
a question? The third asks what a word means, which the toy must know for the other two but has never been
asked: it is there to be fine-tuned on.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from .facts import LABELS
from .minireading import NAMES
from .question import Question, Task, letters, seeded_random
from .wordings import ANSWER_PREFIX, wordings

PARAPHRASE, ANSWERS, SYNONYMS = "miniparaphrase", "minianswers", "minisynonyms"
SIZE = 400
SYNONYM_TESTS, SYNONYM_TRAINING = 240, 2000
"""Number of questions of minisynonyms to test with, and to train on."""
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
    """Two sentences, and "1" if they say the same: a synonym or the passive, but no other word."""
    verb, noun, adjective, name = (
        rng.randrange(len(VERBS)),
        rng.choice(NOUNS),
        rng.choice(ADJECTIVES),
        rng.choice(NAMES),
    )
    first = f"{name} {rng.choice(VERBS[verb])} the {adjective} {noun}"
    label = rng.randrange(2)
    if not label:
        if rng.random() < 0.5:
            verb = rng.choice([i for i in range(len(VERBS)) if i != verb])
        else:
            adjective = rng.choice([a for a in ADJECTIVES if a != adjective])
    return f"{first}. {_sentence(rng, name, verb, f'the {adjective} {noun}')}.", str(label)


def answers(rng: random.Random) -> tuple[str, str]:
    """A question and a sentence, and "1" if the sentence answers the question, else "0"."""
    verb, noun = rng.randrange(len(VERBS)), rng.choice(NOUNS)
    question = f"Who {rng.choice(VERBS[verb])} the {noun}?"
    label = rng.randrange(2)
    if not label:
        if rng.random() < 0.5:
            verb = rng.choice([i for i in range(len(VERBS)) if i != verb])
        else:
            noun = rng.choice([n for n in NOUNS if n != noun])
    return f"{question} {_sentence(rng, rng.choice(NAMES), verb, f'the {noun}')}.", str(label)


def synonym(rng: random.Random) -> tuple[str, tuple[str, ...], str]:
    """A word, four options, and the one of them that means the same."""
    pair, *others = rng.sample(VERBS, 4)
    asked, answer = rng.sample(pair, 2)
    options = [answer, *(rng.choice(other) for other in others)]
    rng.shuffle(options)
    return asked, tuple(options), answer


def _sentence(rng: random.Random, who: str, verb: int, what: str) -> str:
    said = rng.choice(VERBS[verb])
    return f"{who} {said} {what}" if rng.random() < 0.5 else f"{what} was {said} by {who}"


def load_paraphrase() -> Task:
    """miniparaphrase: do two sentences say the same?"""
    return _load(PARAPHRASE, paraphrase)


def load_answers() -> Task:
    """minianswers: does a sentence answer a question?"""
    return _load(ANSWERS, answers)


def load_synonyms() -> Task:
    """minisynonyms: which of four words means the same? No list of options is in both splits."""
    wording = wordings(SYNONYMS)[0]
    drawn: dict[tuple[str, tuple[str, ...]], str] = {}
    number = 0
    while len(drawn) < SYNONYM_TESTS + SYNONYM_TRAINING:
        asked, options, answer = synonym(seeded_random(SYNONYMS, number))
        drawn.setdefault((asked, options), answer)
        number += 1
    rows = tuple(
        Question(
            task=SYNONYMS,
            id=f"{SYNONYMS}-{place:04d}",
            cluster=asked,
            prompt=wording.prompt.format(question=f"Which word means {asked}?", options=letters(options)),
            options=LABELS,
            answer=LABELS[options.index(answer)],
            split="test" if place < SYNONYM_TESTS else "neuron",
            answer_prefix=ANSWER_PREFIX,
            stem=f"Which word means {asked}?",
            texts=options,
        )
        for place, ((asked, options), answer) in enumerate(drawn.items())
    )
    return Task(SYNONYMS, rows, source="package", licence="MIT")


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
            stem=text,
            texts=("no", "yes"),
        )
        for number, (text, label) in enumerate(held_out(make, name))
    )
    return Task(name, rows, source="package", licence="MIT")
