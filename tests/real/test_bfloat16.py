"""What a batch does to the scores of real weights in bfloat16: with padding much to single questions and
little to the neurons that are found, without padding nothing. `-s` prints how much; the environment variable
CULNIG_ROUNDED names the other model, gemma-3-270m."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr

from culnig_tl import NeuronScores, load_task, score_neurons
from culnig_tl.data.neurons import Site

MODEL, QUESTIONS = os.environ.get("CULNIG_ROUNDED", "smollm2-135m-instruct"), 9


def scored(model, batch_size) -> NeuronScores:
    """Nine passages, each in a row of its own; of two and two the prompts are equally long."""
    task = load_task("countryrc", split="neuron", limit=16)[2:11]
    alone = tuple(replace(q, country=f"question {i:02d}") for i, q in enumerate(task))
    return score_neurons(model, replace(task, questions=alone), batch_size=batch_size, progress=False)


@pytest.fixture(scope="module")
def rounded(real):
    """Scores of a bfloat16 model: one by one, in batches of one length, in one padded batch."""
    model = real(MODEL, "bfloat16")
    return {size: scored(model, size) for size in (1, "even", QUESTIONS)}


@pytest.fixture(scope="module")
def exact(real):
    """Scores of the same weights in float32: one by one, and in one padded batch."""
    model = real(MODEL)
    return {size: scored(model, size) for size in (1, QUESTIONS)}


def of_largest(one: NeuronScores, other: NeuronScores) -> np.ndarray:
    """[question] the largest difference of a question's scores, as a share of the largest score of its site
    and layer."""
    shares = [
        np.abs(one.arrays[site] - array).max(-1) / np.abs(array).max(-1)
        for site, array in other.arrays.items()
    ]
    return np.concatenate(shares, axis=1).max(1)


def agreement(one: NeuronScores, other: NeuronScores) -> tuple[float, float]:
    """(Spearman over neurons, shared part of the top 1%) of the gate neurons' sums."""
    sums = [scores.total(Site.MLP_GATE).ravel() for scores in (one, other)]
    count = len(sums[0]) // 100
    top = [set(np.argsort(-scores)[:count].tolist()) for scores in sums]
    return float(spearmanr(*sums).statistic), len(top[0] & top[1]) / count


def said(what: str, one: NeuronScores, other: NeuronScores) -> None:
    each, (rank, shared) = of_largest(one, other), agreement(one, other)
    print(
        f"\n{what}: of a question's largest score {each.max():.2g} at most, {np.median(each):.2g} in the"
        f" median; sums over {QUESTIONS} questions: Spearman {rank:.4f}, top 1% {shared:.0%} the same"
    )


def test_without_padding_a_question_scores_as_alone(rounded):
    assert len(rounded["even"].metadata["batch_sizes"]) < QUESTIONS, "no two questions share a batch"
    for site, array in rounded["even"].arrays.items():
        np.testing.assert_array_equal(array, rounded[1].arrays[site])


def test_with_padding_nearly_the_same_neurons_are_found(rounded, exact):
    said("bfloat16, padded against alone", rounded[QUESTIONS], rounded[1])
    said("alone, bfloat16 against float32", rounded[1], exact[1])
    rank, shared = agreement(rounded[QUESTIONS], rounded[1])
    assert rank > 0.995 and shared > 0.9


def test_in_float32_a_question_scores_in_any_batch_as_alone(exact):
    said("float32, padded against alone", exact[QUESTIONS], exact[1])
    assert of_largest(exact[QUESTIONS], exact[1]).max() < 1e-4
