"""Perplexity of plain text against the Hugging Face model's own loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from culnig_tl import NeuronSet, ablate, load_model
from culnig_tl.analyses.plain_text import TextComparison, compare_text
from culnig_tl.engine.models import tokenizer_of
from culnig_tl.errors import ScoreError
from culnig_tl.method.plain_text import TextLoss, passages, text_loss

from .builders import some_neurons
from .helpers import plain_model

TEXTS = ["the cat sat on the mat and looked at the rain", "two and two are four", "a"]


def test_it_is_the_plain_models_loss(loaded, checkpoints):
    model, plain = loaded("llama"), plain_model(checkpoints("llama"))
    found, nats = text_loss(model, TEXTS), []
    for text in TEXTS:
        ids = torch.tensor([tokenizer_of(model)(text)["input_ids"]])
        if ids.shape[1] > 1:
            with torch.no_grad():
                nats.append(float(plain(ids, labels=ids).loss) * (ids.shape[1] - 1))
    np.testing.assert_allclose(found.nats, nats, rtol=1e-4)
    assert found.perplexity == pytest.approx(math.exp(sum(nats) / sum(found.tokens)), rel=1e-4)


def test_a_set_is_suppressed_meanwhile_and_not_afterwards(loaded):
    model = loaded("llama")
    neurons, before = some_neurons(model), text_loss(model, TEXTS)
    with ablate(model, neurons):
        expected = text_loss(model, TEXTS)
    found = text_loss(model, TEXTS, ablate=neurons)
    np.testing.assert_allclose(found.nats, expected.nats, rtol=1e-5)
    assert found.nats != before.nats and text_loss(model, TEXTS) == before
    assert text_loss(model, TEXTS, ablate=NeuronSet.from_indices([])) == before


def test_the_difference_is_a_ratio_of_sums_and_lies_in_its_interval():
    base, other = TextLoss((10.0, 20.0, 60.0), (10, 10, 20)), TextLoss((15.0, 20.0, 90.0), (10, 10, 20))
    value, low, high = other.beyond(base)
    assert value == pytest.approx(35 / 40) and low <= value <= high and low >= 0
    with pytest.raises(ScoreError, match="same passages"):
        other.beyond(TextLoss((1.0,), (5,)))


def test_passages_are_separated_by_blank_lines(tmp_path):
    (tmp_path / "mine.txt").write_text("one\ntwo\n\n  \n\nthree\n", encoding="utf-8")
    assert passages(tmp_path / "mine.txt") == ["one two", "three"]
    assert len(passages()) == 12
    (tmp_path / "none.txt").write_text("\n\n", encoding="utf-8")
    with pytest.raises(ScoreError, match="holds no text"):
        passages(tmp_path / "none.txt")
    with pytest.raises(ScoreError, match="cannot be read"):
        passages(tmp_path / "missing.txt")


def test_long_passages_are_cut_into_windows(loaded):
    found = text_loss(loaded("llama"), [" ".join(TEXTS) * 60])
    assert len(found.tokens) > 1 and max(found.tokens) < 256


def compared(general: tuple[float, ...], *random: tuple[float, ...]) -> TextComparison:
    tokens = (10, 20, 30, 40)
    base = TextLoss((10.0, 20.0, 30.0, 40.0), tokens)
    losses = [TextLoss(nats, tokens) for nats in random]
    return TextComparison(base, {"culture-general": TextLoss(general, tokens)}, losses)


def test_a_loss_is_taken_beyond_random_sets():
    found = compared((20.0, 40.0, 60.0, 80.0), (10.0, 20.0, 30.0, 40.0), (15.0, 30.0, 45.0, 60.0))
    excess, low, high = found.beyond_random("culture-general")
    assert excess == pytest.approx((200 - 125) / 100) and low <= excess <= high
    assert found.table().loc["culture-general", "perplexity"] == pytest.approx(math.exp(2.0))


@pytest.mark.parametrize(
    ("general", "said"),
    [
        ((20.0, 40.0, 60.0, 80.0), "Plain text suffers too"),
        ((8.0, 16.0, 24.0, 32.0), "Plain text suffers less"),
        ((9.0, 22.0, 27.0, 44.0), "No loss on plain text beyond random sets is shown"),
    ],
)
def test_words_follow_the_interval(general, said):
    assert compared(general, (10.0, 20.0, 30.0, 40.0)).sentence("culture-general").startswith(said)


def test_sets_are_compared_by_their_losses(loaded):
    model = loaded("llama")
    neurons, other = some_neurons(model), some_neurons(model, seed=1)
    found = compare_text(model, {"mine": neurons}, [other])
    if found is None:
        pytest.skip("the vocabulary of the test model lacks the text")
    assert found.sets["mine"] == text_loss(model, ablate=neurons)
    assert found.random == [text_loss(model, ablate=other)]


def test_a_model_without_the_words_is_left_out():
    assert compare_text(load_model("toy", device="cpu"), {}) is None
