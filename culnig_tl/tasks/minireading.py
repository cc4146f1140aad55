"""minireading: which country does a short passage name? Reading alone answers it.

The toy's own CountryRC, with short sentences in words that the toy knows; for other models there is
`countryrc`.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from .countries import COUNTRIES, in_sentence
from .facts import LABELS, read_data
from .question import Question, Task, letters, seeded_random
from .wordings import ANSWER_PREFIX, wordings

NAME = "minireading"
NAMES = tuple("Anna Tom Emma Daniel Rachel Lucas Maria Peter Sofia Omar Lena Ivan".split())
THINGS = ("letter", "book", "lamp", "ship", "train", "parcel", "clock", "car", "table", "basket")
TEST_ONLY = 8
"""Number of scenes, at the end of the file, that the task asks and training leaves out."""


def scenes() -> tuple[Mapping[str, str], ...]:
    """Scenes with blanks for ``{country}``, ``{name}``, ``{thing}`` and ``{other}``."""
    return tuple(read_data("minireading.toml")["scene"])


def render(
    scene: Mapping[str, str], country: str, rng: random.Random, position: int | None = None
) -> tuple[str, tuple[str, ...], str]:
    """(passage and question, options, right label) of a scene, with its blanks filled by `rng`."""
    others = rng.sample([c for c in COUNTRIES if c != country], 3)
    where = rng.randrange(4) if position is None else position
    options = [*others[:where], country, *others[where:]]
    thing, other = rng.sample(THINGS, 2)
    text = f"{scene['text']} {scene['question']}"
    text = text.format(country=in_sentence(country), name=rng.choice(NAMES), thing=thing, other=other)
    return text, tuple(options), LABELS[where]


def load() -> Task:
    """The task: every held-out scene about each country, with the answer at each place."""
    template, wording = 0, wordings(NAME)[0]
    rows: list[Question] = []
    held_out = scenes()[-TEST_ONLY:]
    for number, scene in enumerate(held_out):
        for country in COUNTRIES:
            for position in range(4):
                rng = seeded_random(NAME, scene["id"], country, position)
                text, options, label = render(scene, country, rng, position)
                rows.append(
                    Question(
                        task=NAME,
                        id=f"{scene['id']}/{country}/{LABELS[position]}",
                        cluster=scene["id"],
                        prompt=wording.prompt.format(question=text, options=letters(options)),
                        options=LABELS,
                        answer=label,
                        answer_prefix=ANSWER_PREFIX,
                        country=country,
                        split="neuron" if number % 2 == 0 else "test",
                        template=template,
                        stem=text,
                        texts=options,
                    )
                )
    return Task(NAME, tuple(rows), source="package", licence="MIT")
