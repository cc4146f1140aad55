"""The package against the literal method, and what must not change a score."""

from __future__ import annotations

import transformers as hf

import numpy as np
import pytest
import torch
from culnig_tl import describe, score_neurons
from culnig_tl.neurons import Site

from . import families
from .oracles import literal


def plain_model(folder, dtype=torch.float32):
    """The checkpoint as plain transformers loads it, multimodal ones whole."""
    config = hf.AutoConfig.from_pretrained(folder)
    kind = hf.Gemma3ForConditionalGeneration if config.model_type == "gemma3" else hf.AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=dtype).eval()


def rows(tokenizer, task):
    """(tokens, answer token, country) by the letter: the answer is the token that prompt + label has more."""
    made = []
    for question in task:
        tokens = tokenizer(question.prompt)["input_ids"]
        with_label = tokenizer(question.prompt + question.answer)["input_ids"]
        assert with_label[:-1] == tokens
        made.append((tokens, with_label[-1], question.country))
    return made


def largest_error(scores, expected):
    """The largest error over (country, site, layer), each against that vector's largest value."""
    errors = []
    for (country, site, layer), vector in expected.items():
        mine = scores.of(country)[Site(site)][layer]
        errors.append(np.abs(mine - np.array(vector)).max() / np.abs(vector).max())
    return max(errors)


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_equals_the_literal_method(family, loaded, checkpoints):
    task = families.questions(5)
    model = loaded(family)
    sites = list(describe(model).widths)
    plain = plain_model(checkpoints(family))
    expected = literal.scores(plain, rows(model.tokenizer, task))
    assert {Site(site) for _, site, _ in expected} == set(sites)
    assert len(expected) == 3 * len(sites) * describe(model).layers

    lengths = {len(tokens) for tokens, _, _ in rows(model.tokenizer, task)}
    assert len(lengths) > 1 and min(lengths) > 8, "padding and sliding windows take part"
    padded = score_neurons(model, task, sites=sites, batch_size=len(task), progress=False)
    alone = score_neurons(model, task, sites=sites, batch_size=1, progress=False)
    assert largest_error(padded, expected) < 1e-4
    assert largest_error(alone, expected) < 1e-4


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_equals_the_literal_method_in_float64(family, loaded, checkpoints):
    task = families.questions(3)
    model = loaded(family, dtype="float64")
    sites = list(describe(model).widths)
    expected = literal.scores(plain_model(checkpoints(family), torch.float64), rows(model.tokenizer, task))
    scores = score_neurons(model, task, sites=sites, batch_size=1, progress=False)
    assert largest_error(scores, expected) < 1e-6
