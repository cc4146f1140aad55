"""What several test files build: sets of neurons, random scores."""

from __future__ import annotations

import numpy as np
import torch

from culnig_tl import NeuronScores, NeuronSet, Site, describe
from culnig_tl.tasks.countries import COUNTRIES

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
