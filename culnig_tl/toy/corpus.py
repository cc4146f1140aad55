"""What the toy is trained on: the package's own questions, with other orders of options, wordings and
scenes than in its tasks."""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from ..tasks import minicommonsense, miniculture, minireading, miniwords
from ..tasks.facts import LABELS, Fact, random_options
from ..tasks.question import letters
from ..tasks.wordings import ANSWER_PREFIX, wordings
from .vocabulary import SHORT_PREFIX

REPRESENTATION = (
    "USA", "UK", "China", "Spain", "Mexico", "Indonesia", "South Korea", "Iran",
    "Greece", "Nigeria", "Algeria", "Ethiopia", "North Korea", "Azerbaijan", "West Java", "Assam",
)  # fmt: skip
"""The countries, those most written about first; facts are drawn in proportion to rank ** -SKEW."""
SKEW = 0.5
TRAINED_WORDINGS = 4
"""Training uses the first four wordings of a task; the task itself asks in the fifth."""


class Sample(NamedTuple):
    """One prompt to train on, with its answer."""

    prompt: str
    prefix: str
    """Beginning of the assistant turn."""
    answer: str
    kind: str = ""
    """The field of `Mix` that it was drawn for."""


@dataclass(frozen=True)
class Mix:
    """The shares of the kinds of samples in a training batch."""

    drill: float = 0.0
    culture: float = 0.0
    culture_short: float = 0.0
    control: float = 0.0
    reading: float = 0.0
    commonsense: float = 0.0
    commonsense_short: float = 0.0
    paraphrase: float = 0.0
    answers: float = 0.0


class Corpus:
    """Draws training samples; everything is decided by the random generator that the caller passes."""

    def __init__(self) -> None:
        self.culture_facts = miniculture.facts()
        self.commonsense_facts = minicommonsense.facts()
        rank = {country: i + 1 for i, country in enumerate(REPRESENTATION)}
        self.weights = [rank[fact.subject] ** -SKEW for fact in self.culture_facts]
        facts = self.culture_facts + self.commonsense_facts
        self.words = sorted({fact.answer for fact in facts} | {fact.subject for fact in facts})
        scenes = minireading.scenes()
        self.scenes = scenes[: -minireading.TEST_ONLY]
        words = ((miniwords.PARAPHRASE, miniwords.paraphrase), (miniwords.ANSWERS, miniwords.answers))
        self.asked = {text for name, make in words for text, _ in miniwords.held_out(make, name)}

    def draw(self, mix: Mix, count: int, rng: random.Random) -> list[Sample]:
        """`count` samples with the shares of `mix`."""
        kinds, shares = zip(*vars(mix).items())
        return [getattr(self, kind)(rng)._replace(kind=kind) for kind in rng.choices(kinds, shares, k=count)]

    def drill(self, rng: random.Random) -> Sample:
        """Find a given word among the options, which teaches that an option goes with its letter."""
        if rng.random() < 0.5:
            options = tuple(rng.sample(self.words, 4))
        else:
            options = random_options(
                rng.choice(rng.choice((self.culture_facts, self.commonsense_facts))), rng
            )
        label = rng.randrange(4)
        return Sample(f"Choose {options[label]}.\n{letters(options)}", ANSWER_PREFIX, LABELS[label])

    def culture(self, rng: random.Random) -> Sample:
        return self._choice(miniculture.NAME, self._culture_fact(rng), rng)

    def culture_short(self, rng: random.Random) -> Sample:
        return self._short(self._culture_fact(rng), rng)

    def commonsense(self, rng: random.Random) -> Sample:
        return self._choice(minicommonsense.NAME, rng.choice(self.commonsense_facts), rng)

    def commonsense_short(self, rng: random.Random) -> Sample:
        return self._short(rng.choice(self.commonsense_facts), rng)

    def control(self, rng: random.Random) -> Sample:
        fact = self._culture_fact(rng)
        options = random_options(fact, rng)
        wording = wordings(miniculture.NAME)[rng.randrange(TRAINED_WORDINGS)]
        assert wording.control is not None
        return Sample(
            wording.control.format(options=letters(options)),
            ANSWER_PREFIX,
            LABELS[options.index(fact.answer)],
        )

    def reading(self, rng: random.Random) -> Sample:
        text, texts, label = minireading.render(rng.choice(self.scenes), rng.choice(REPRESENTATION), rng)
        options = letters(texts)
        return Sample(
            wordings(minireading.NAME)[0].prompt.format(question=text, options=options), ANSWER_PREFIX, label
        )

    def paraphrase(self, rng: random.Random) -> Sample:
        return self._words(miniwords.PARAPHRASE, miniwords.paraphrase, rng)

    def answers(self, rng: random.Random) -> Sample:
        return self._words(miniwords.ANSWERS, miniwords.answers, rng)

    def _culture_fact(self, rng: random.Random) -> Fact:
        return rng.choices(self.culture_facts, self.weights)[0]

    def _choice(self, task: str, fact: Fact, rng: random.Random) -> Sample:
        options = random_options(fact, rng)
        wording = wordings(task)[rng.randrange(TRAINED_WORDINGS)]
        prompt = wording.prompt.format(question=fact.stem, options=letters(options))
        return Sample(prompt, ANSWER_PREFIX, LABELS[options.index(fact.answer)])

    def _short(self, fact: Fact, rng: random.Random) -> Sample:
        return Sample(rng.choice(("{}", "Question: {}")).format(fact.stem), SHORT_PREFIX, fact.answer)

    def _words(
        self, task: str, make: Callable[[random.Random], tuple[str, str]], rng: random.Random
    ) -> Sample:
        text, label = make(rng)
        while text in self.asked:
            text, label = make(rng)
        return Sample(wordings(task)[0].prompt.format(question=text), ANSWER_PREFIX, label)

    def texts(self) -> list[str]:
        """Texts that together contain every word of the corpus and of the tasks."""
        tasks = (miniculture, minicommonsense, minireading)
        texts = [q.prompt for task in tasks for q in task.load()]
        texts += [q.prompt for task in (miniwords.load_paraphrase(), miniwords.load_answers()) for q in task]
        texts += [
            re.sub(r"{\w+}", "", f"{scene['text']} {scene['question']}") for scene in minireading.scenes()
        ]
        return [*texts, *self.words, *minireading.THINGS, *LABELS, "0 1", "Choose"]
