"""What a batch does to the scores of real weights in bfloat16: with padding much to single questions and
little to the neurons that are found, without padding nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from culnig_tl import NeuronScores, load_task, score_neurons
from culnig_tl.data.neurons import Site

pytestmark = pytest.mark.slow


def scored(model, batch_size) -> NeuronScores:
    """Twelve passages with two pairs of the same length among them, each in a row of its own."""
    task = load_task("countryrc", split="neuron", limit=12)
    alone = tuple(replace(q, country=f"question {i:02d}") for i, q in enumerate(task))
    return score_neurons(model, replace(task, questions=alone), batch_size=batch_size, progress=False)


@pytest.fixture(scope="module")
def rounded(real):
    """Scores of a bfloat16 model: one by one, in batches of one length, in one padded batch."""
    model = real("bfloat16")
    return {size: scored(model, size) for size in (1, "even", 12)}


def test_without_padding_a_question_scores_as_alone(rounded):
    sizes = rounded["even"].metadata["batch_sizes"]
    assert len(sizes) < 12, "no two questions share a batch"
    for site, array in rounded["even"].arrays.items():
        np.testing.assert_array_equal(array, rounded[1].arrays[site])


def test_with_padding_nearly_the_same_neurons_are_found(rounded):
    one, padded = (rounded[size].total(Site.MLP_GATE).ravel() for size in (1, 12))
    assert spearmanr(one, padded).statistic > 0.995
    count = len(one) // 100
    top = [set(np.argsort(-scores)[:count].tolist()) for scores in (one, padded)]
    assert len(top[0] & top[1]) / count > 0.9
