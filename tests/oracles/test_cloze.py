"""The cloze form against its literal version, on the families."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from culnig_tl import NeuronSet, describe, evaluate, exact_effects
from culnig_tl.data.neurons import SITES, Site
from culnig_tl.method.cloze_answers import renormalised
from culnig_tl.tasks.question import Task

from ..builders import questions_with_texts
from ..helpers import difference, largest_error, plain_model, score
from . import cloze

FAMILIES = ("llama", "qwen3", "phi3", "gemma3-text", "gpt2", "gpt-neox")
"""Grouped keys; q/k-norm; fused weights; sliding windows and soft caps; an ungated MLP; heads side by side."""
NORMALISATIONS = ("unconditional", "sum", "length")
METHODS = {"culnig": "max", "culnig-sum": "sum", "culnig-mean": "mean"}


@pytest.fixture(scope="module")
def task():
    return questions_with_texts(4).cloze()


def tensors(found):
    """As `largest_error` takes them."""
    return {key: value.double().numpy() for key, value in found.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_equal_the_literal_method(family, loaded, checkpoints, task):
    model = loaded(family)
    expected = tensors(cloze.scores(plain_model(checkpoints(family)), model.tokenizer, task))
    sites = list(describe(model).widths)
    assert {Site(site) for _, site, _ in expected} == set(sites)
    padded = score(model, task, sites=sites, batch_size=len(task))
    alone = score(model, task, sites=sites, batch_size=1)
    assert largest_error(padded, expected) < 1e-4
    assert largest_error(alone, expected) < 1e-4


@pytest.mark.parametrize("family", ("llama", "gpt2"))
def test_scores_equal_the_literal_method_in_float64(family, loaded, checkpoints, task):
    model = loaded(family, dtype="float64")
    plain = plain_model(checkpoints(family), torch.float64)
    expected = tensors(cloze.scores(plain, model.tokenizer, task[:2]))
    sites = list(describe(model).widths)
    assert largest_error(score(model, task[:2], sites=sites, batch_size=1), expected) < 1e-6


def test_the_questions_are_padded_and_of_different_lengths(loaded, task):
    tokenizer = loaded("llama").tokenizer
    asked = [cloze.encoded(tokenizer, q.prompt, text) for q in task for text in q.texts]
    assert len({len(context) for context, _ in asked}) > 2
    assert len({len(text) for _, text in asked}) > 2
    assert len({len(q.texts) for q in task}) > 1


@pytest.mark.parametrize("native", (True, False))
def test_both_attention_kernels_give_the_literal_scores(native, loaded, checkpoints, task, monkeypatch):
    from culnig_tl.engine import run
    from culnig_tl.engine.probe import Probe

    if not native:
        monkeypatch.setattr(run, "probe_gradients", lambda *_, **__: Probe(native=False, padding=True))
    model = loaded("llama")
    found = score(model, task)
    assert found.metadata["native_attention"] is native
    expected = cloze.scores(plain_model(checkpoints("llama")), model.tokenizer, task)
    expected = {key: value for key, value in tensors(expected).items() if Site(key[1]) in SITES}
    assert largest_error(found, expected) < 1e-4


@pytest.mark.parametrize("normalise", NORMALISATIONS)
@pytest.mark.parametrize("method", METHODS)
def test_each_aggregation_and_normalisation(method, normalise, loaded, checkpoints, task):
    model, plain = loaded("qwen3"), plain_model(checkpoints("qwen3"))
    expected = cloze.scores(plain, model.tokenizer, task, how=METHODS[method], normalise=normalise)
    found = score(model, task.normalised(normalise), method=method, sites=list(describe(model).widths))
    assert largest_error(found, tensors(expected)) < 1e-4


def test_control_questions_have_no_prior_and_are_clamped_at_zero(loaded, checkpoints, task):
    model, plain = loaded("qwen3"), plain_model(checkpoints("qwen3"))
    control = task.control()
    expected = tensors(cloze.scores(plain, model.tokenizer, control, clamp=True))
    free = tensors(cloze.scores(plain, model.tokenizer, control))
    found = score(model, control, sites=list(describe(model).widths))
    assert found.metadata["clamped"] and min(a.min() for a in found.arrays.values()) >= 0
    assert largest_error(found, expected) < 1e-4
    sums = tensors(cloze.scores(plain, model.tokenizer, control, how="sum"))
    assert any(vector.min() < 0 for vector in [*free.values(), *sums.values()])


def test_a_control_of_sums_is_clamped_question_by_question(loaded, checkpoints, task):
    model, plain = loaded("llama"), plain_model(checkpoints("llama"))
    control = task.control()
    expected = tensors(cloze.scores(plain, model.tokenizer, control, how="sum", clamp=True))
    free = tensors(cloze.scores(plain, model.tokenizer, control, how="sum"))
    assert any(vector.min() < 0 for vector in free.values())
    found = score(model, control, method="culnig-sum", sites=list(describe(model).widths))
    assert largest_error(found, expected) < 1e-4


def test_a_prompt_of_one_s_own_and_a_longer_control(loaded, checkpoints):
    model, plain = loaded("llama"), plain_model(checkpoints("llama"))
    asked = questions_with_texts(3).cloze("They ask: {question} We say:", "We say so:")
    expected = tensors(cloze.scores(plain, model.tokenizer, asked))
    assert largest_error(score(model, asked, sites=list(describe(model).widths)), expected) < 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_likelihoods_equal_the_literal_ones(family, loaded, checkpoints, task):
    model, plain = loaded(family), plain_model(checkpoints(family))
    for batch_size in (1, len(task)):
        table = evaluate(model, task, batch_size=batch_size, progress=False).table
        for row, question in zip(table.itertuples(), task):
            for mine, prompt in ((row.log_likelihoods, question.prompt), (row.priors, question.control)):
                theirs = cloze.likelihoods(plain, model.tokenizer, prompt, question.texts)
                np.testing.assert_allclose(mine, theirs, atol=1e-4)


@pytest.mark.parametrize("normalise", NORMALISATIONS)
def test_probabilities_equal_the_literal_ones(normalise, loaded, checkpoints, task):
    model, plain = loaded("llama"), plain_model(checkpoints("llama"))
    expected = [cloze.question(plain, model.tokenizer, q, normalise)[1] for q in task]
    result = evaluate(model, task.normalised(normalise), progress=False)
    assert result.table["p_answer"].to_numpy() == pytest.approx(expected, abs=1e-5)
    other = renormalised(evaluate(model, task, progress=False), normalise)
    assert other.table["p_answer"].to_numpy() == pytest.approx(expected, abs=1e-5)
    assert score(model, task.normalised(normalise)).p_answer == pytest.approx(
        [sum(p for p, q in zip(expected, task) if q.country == c) for c in sorted(task.countries)], abs=1e-4
    )


def test_an_option_that_is_the_right_one_elsewhere_changes_p(loaded, checkpoints, task):
    """P is of the right option, wherever it stands."""
    plain, tokenizer = plain_model(checkpoints("llama")), loaded("llama").tokenizer
    turned = Task(task.name, tuple(replace(q, answer=q.options[-1]) for q in task))
    assert [q.answer for q in turned] != [q.answer for q in task]
    expected = tensors(cloze.scores(plain, tokenizer, turned))
    found = score(loaded("llama"), turned, sites=list(describe(loaded("llama")).widths))
    assert largest_error(found, expected) < 1e-4


# -------------------------------------------------------------------------------------- methods that are not CULNIG


def summed(found):
    """(site, layer) -> a vector of neurons, over countries."""
    return {
        (site.value, layer): array[:, layer].sum(0)
        for site, array in found.arrays.items()
        for layer in range(array.shape[1])
    }


def assert_close(mine, theirs, tolerance):
    for place, vector in theirs.items():
        vector = vector.detach().numpy()
        assert np.abs(mine[place] - vector).max() <= tolerance * np.abs(vector).max(), place


@pytest.mark.parametrize("family", ("llama", "phi3", "gemma3-text"))
def test_exact_effects_equal_the_literal_ones(family, loaded, checkpoints, task):
    model, plain = loaded(family), plain_model(checkpoints(family))
    few = [("mlp.gate", 0, 5), ("mlp.gate", 1, 2), ("attn.q", 1, 7), ("attn.k", 0, 3), ("attn.v", 2, 3)]
    found = exact_effects(model, task[:2], NeuronSet.from_indices(few), progress=False)
    for (site, layer, neuron), column in found.neurons.columns.items():
        for row, question in zip(found.drops, task):
            expected = cloze.exact_effect(plain, model.tokenizer, question, site, layer, neuron)
            assert row[column] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("method", "everywhere"), [("ig", False), ("ig-all", True)])
def test_integrated_gradients_equal_the_literal_ones(method, everywhere, loaded, checkpoints, task):
    model, plain = loaded("llama"), plain_model(checkpoints("llama"))
    found = summed(score(model, task[1:2], method=method))
    for site, path in {
        "mlp.gate": "mlp.down_proj",
        "attn.q": "self_attn.q_proj",
        "attn.v": "self_attn.v_proj",
    }.items():
        expected = cloze.integrated_gradients(
            plain, model.tokenizer, task[1], f"model.layers.1.{path}",
            reads_input=site == "mlp.gate", everywhere=everywhere,
        )  # fmt: skip
        assert_close(found, {(site, 1): expected}, 5e-4)


@pytest.mark.parametrize(
    ("method", "literal"),
    [("mean-difference", cloze.mean_difference), ("atp", cloze.attribution_patching)],
)
@pytest.mark.parametrize("family", ("llama", "phi3", "gpt2"))
def test_methods_that_compare_with_the_control_equal_the_literal_ones(
    method, literal, family, loaded, checkpoints, task
):
    model, plain = loaded(family), plain_model(checkpoints(family))
    expected: dict = {}
    for question in task:
        for place, vector in literal(plain, model.tokenizer, question).items():
            expected[place] = expected.get(place, 0) + vector
    for size in (1, len(task)):
        found = score(model, task, method=method, sites=list(describe(model).widths), batch_size=size)
        assert_close(summed(found), expected, 2e-4)


@pytest.mark.parametrize("method", ["culnig", "atp", "mean-difference"])
@pytest.mark.parametrize("normalise", ["unconditional", "sum"])
def test_a_row_for_every_option_gives_the_same(method, normalise, loaded, task, monkeypatch):
    """What models are asked that do not keep to masks or positions."""
    model, asked = loaded("llama"), task.normalised(normalise)
    together = score(model, asked, method=method)
    monkeypatch.setattr("culnig_tl.engine.cloze._not_in_one_row", lambda *_: "it is a test")
    apart = score(model, asked, method=method)
    assert difference(apart, together) < 1e-4
