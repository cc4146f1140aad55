"""The package against the literal method, on every family."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from culnig_tl import describe
from culnig_tl.data.neurons import SITES, Site
from culnig_tl.tasks.question import Task

from .. import families
from ..helpers import largest_error, plain_model, rows, score
from . import literal

NATIVE = {"llama", "qwen3", "falcon3", "gemma3-text", "gemma3"}
"""Families whose attention runs in PyTorch's kernel; the others' weights are fused."""


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_equals_the_literal_method(family, loaded, checkpoints):
    task = families.questions(4)
    model = loaded(family)
    sites = list(describe(model).widths)
    asked = rows(model.tokenizer, task)
    expected = literal.scores(plain_model(checkpoints(family)), asked)
    assert {Site(site) for _, site, _ in expected} == set(sites)
    assert len(expected) == 3 * len(sites) * describe(model).layers

    lengths = {len(tokens) for tokens, _, _ in asked}
    assert len(lengths) > 1 and min(lengths) > 8, "padding and sliding windows take part"
    padded = score(model, task, sites=sites, batch_size=len(task))
    alone = score(model, task, sites=sites, batch_size=1)
    assert padded.metadata["native_attention"] == (family in NATIVE)
    assert largest_error(padded, expected) < 1e-4
    assert largest_error(alone, expected) < 1e-4


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_equals_the_literal_method_in_float64(family, loaded, checkpoints):
    task = families.questions(2)
    model = loaded(family, dtype="float64")
    sites = list(describe(model).widths)
    expected = literal.scores(plain_model(checkpoints(family), torch.float64), rows(model.tokenizer, task))
    assert largest_error(score(model, task, sites=sites, batch_size=1), expected) < 1e-6


def test_control_questions_are_clamped_at_zero(loaded, checkpoints, task):
    model = loaded("qwen3")
    # Few tokens: among many, the largest attribution is hardly ever negative.
    control = Task(task.name, tuple(replace(q, control="Answer:") for q in task[:4])).control()
    expected = literal.scores(plain_model(checkpoints("qwen3")), rows(model.tokenizer, control), clamp=True)
    scores = score(model, control)
    assert scores.metadata["clamped"] and min(a.min() for a in scores.arrays.values()) >= 0
    assert any(
        min(v) < 0
        for v in literal.scores(plain_model(checkpoints("qwen3")), rows(model.tokenizer, control)).values()
    )
    assert largest_error(scores, {key: v for key, v in expected.items() if Site(key[1]) in SITES}) < 1e-4
