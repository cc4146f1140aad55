"""What several test files build: sets of neurons, questions to be answered in words, random scores."""

from __future__ import annotations

import numpy as np
import torch

from culnig_tl import NeuronScores, NeuronSet, Site, describe
from culnig_tl.tasks.countries import COUNTRIES
from culnig_tl.tasks.question import Question, Task

TOKENS = torch.tensor([[1, 40, 97, 130, 201, 77, 300, 12, 44, 350, 90, 91]])


def run(model, tokens=TOKENS):
    """Logits at all positions."""
    with torch.no_grad():
        return model(tokens)


def some_neurons(model, *, share=0.25, sites=None, seed=0) -> NeuronSet:
    """A share of the neurons of every site and layer, one at least."""
    rng, info = np.random.default_rng(seed), describe(model)
    rows = []
    for site in sites or info.widths:
        width = info.widths[site]
        for layer in range(info.layers):
            drawn = rng.choice(width, size=max(1, int(share * width)), replace=False)
            rows += [(site, layer, int(i)) for i in drawn]
    return NeuronSet.from_indices(rows)


# ------------------------------------------------------------------------------- questions for the cloze form

FOODS = ("rice", "bread and soup", "noodles", "football, cricket and golf", "tea")


def questions_with_texts(count: int = 6, *, task: str = "words", options: int | None = None) -> Task:
    """Letters questions that can be asked in the cloze form: stems and options of different lengths, and of
    three and four options (or so many), about three countries."""
    made = []
    for i in range(count):
        country, width = ("Japan", "Spain", "Mexico")[i % 3], options or 3 + i % 2
        texts = tuple(FOODS[(i + k) % len(FOODS)] for k in range(width))
        stem = " ".join(["Think."] * (i % 4) + [f"What do people in {country} eat at New Year?"])
        labels = "ABCDE"[:width]
        lines = "\n".join(f"{label}. {text}" for label, text in zip(labels, texts))
        made.append(
            Question(
                task=task,
                id=f"{task}-{i}",
                cluster=f"c{i // 2}",
                prompt=f"{stem}\n{lines}\nAnswer:",
                options=tuple(labels),
                answer=labels[i % width],
                country=country,
                control=f"{lines}\nAnswer:",
                stem=stem,
                texts=texts,
            )
        )
    return Task(task, tuple(made), source="tests", culture=True)


# ---------------------------------------------------------------------------------------------- random scores

WIDTHS = {Site.MLP_GATE: 40, Site.ATTN_Q: 20, Site.ATTN_K: 10, Site.ATTN_V: 10}


def scores(
    seed: int, *, task="culture", countries=COUNTRIES, widths=WIDTHS, layers=4, clusters=30, values=None
) -> NeuronScores:
    """Normally distributed scores, or all of one value; every country has a number of clusters of its own."""
    rng = np.random.default_rng(seed)
    arrays = {}
    for site, width in widths.items():
        drawn = rng.normal(size=(len(countries), layers, width)).astype(np.float32)
        arrays[site] = drawn if values is None else np.full_like(drawn, values)
    own = tuple(5 + i for i in range(len(countries)))
    metadata = {"model": "m", "revision": "r", "task": task, "fingerprint": "f", "aggregation": "max"}
    return NeuronScores(arrays, tuple(countries), own, (1.0,) * len(countries), clusters, own, metadata)


CULTURE = scores(0)
CONTROL = scores(1, task="culture:control", clusters=30)
READING = scores(2, task="countryrc", clusters=7)


# ---------------------------------------------------------------------------------------------- short answers
