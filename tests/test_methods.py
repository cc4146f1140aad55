"""Every method against a slow literal version of it, on plain Hugging Face models."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest
import torch

from culnig_tl import NeuronSet, describe, evaluate, load_model
from culnig_tl.data.neurons import SITES, Site
from culnig_tl.engine.prompts import Prompt, encode
from culnig_tl.errors import ScoreError
from culnig_tl.method.methods import integrated_gradients
from culnig_tl.method.methods.alignment import MEAN, Alignment, align
from culnig_tl.method.methods.patching import AttributionPatching
from culnig_tl.method.methods.registry import METHODS
from culnig_tl.tasks.question import Task

from . import families
from .helpers import plain_model, rows, score
from .oracles import other_methods

FAMILIES = ("llama", "gemma3-text", "gpt2")
"""Grouped keys; q/k-norm and sliding windows; an ungated MLP and fused weights."""


@pytest.fixture(scope="module")
def task():
    return families.questions(4)


def both(model, task):
    """(tokens, corrupted tokens, answer token, country) of every question."""
    controls = rows(model.tokenizer, task.control())
    return [
        (clean, corrupted, answer, country)
        for (clean, answer, country), (corrupted, _, _) in zip(rows(model.tokenizer, task), controls)
    ]


def summed(scores):
    """Each site's scores, summed over the countries: [layer, neuron]."""
    return {site: array.sum(0) for site, array in scores.arrays.items()}


def assert_close(mine, expected, tolerance=1e-4):
    """[layer, neuron] per site; errors are relative to the layer's largest value.

    It counts as a hundredth of the site's at least: some layers hardly matter.
    """
    largest = {
        site: max(float(abs(v).max()) for (s, _), v in expected.items() if s == site) for site, _ in expected
    }
    for (site, layer), values in expected.items():
        if Site(site) in mine:
            values = np.asarray(values, dtype=float)
            error = np.abs(mine[Site(site)][layer] - values).max() / max(
                np.abs(values).max(), 1e-2 * largest[site]
            )
            assert error < tolerance, (site, layer, error)


@pytest.mark.parametrize("family", FAMILIES)
def test_post_reads_behind_the_activation_function(family, loaded, checkpoints, task):
    model, plain = loaded(family), plain_model(checkpoints(family))
    found = score(model, task, method=["culnig-post", "culnig-sum-post", "culnig-mean-post"])
    expected: dict = {name: {} for name in found}
    for tokens, answer, _ in rows(model.tokenizer, task):
        seen, p = other_methods.look(plain, tokens, answer)
        for (site, layer), (activation, gradient) in seen.items():
            product = activation * gradient
            for name, value in (
                ("culnig-post", product.amax(0)),
                ("culnig-sum-post", product.sum(0)),
                ("culnig-mean-post", product.mean(0)),
            ):
                place = ("mlp.gate" if site == "mlp.post" else site, layer)
                if site != "mlp.gate" and site != "mlp.up":
                    expected[name][place] = expected[name].get(place, 0) + p * value
    for name, values in expected.items():
        assert_close(summed(found[name]), values)
    assert found["culnig-post"].metadata["read_at"] == {
        "mlp.gate": "mlp.post",
        **{s: s for s in ("attn.q", "attn.k", "attn.v")},
    }


@pytest.mark.parametrize("name", ["culnig", "culnig-sum", "culnig-mean-post"])
def test_control_questions_are_clamped(name, loaded, task):
    # Few tokens: among many, the largest attribution is hardly ever negative.
    short = Task("short", tuple(dataclasses.replace(q, control="Answer:") for q in task)).control()
    clamped = score(loaded("llama"), short, method=name)
    free = score(loaded("llama"), dataclasses.replace(short, is_control=False), method=name)
    assert clamped.metadata["clamped"] and min(a.min() for a in clamped.arrays.values()) >= 0
    assert not free.metadata["clamped"] and min(a.min() for a in free.arrays.values()) < 0


@pytest.mark.parametrize("family", FAMILIES)
def test_attribution_patching(family, loaded, checkpoints, task):
    model, plain = loaded(family), plain_model(checkpoints(family))
    expected: dict = {}
    for clean, corrupted, answer, _ in both(model, task):
        for place, values in other_methods.attribution_patching(plain, clean, corrupted, answer).items():
            expected[place] = expected.get(place, 0) + values
    for batch_size in (1, len(task)):
        found = score(model, task, method="atp", batch_size=batch_size)
        assert_close(summed(found), expected, 2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_integrated_gradients(family, loaded, checkpoints):
    task = families.questions(1)
    model, plain = loaded(family), plain_model(checkpoints(family))
    found = score(model, task, method=["ig", "ig-all"])
    layer = describe(model).layers - 1 if family == "llama" else 0
    for name, scores in found.items():
        for site in SITES:
            read = "mlp.post" if site == Site.MLP_GATE else site.value
            expected = sum(
                other_methods.integrated_gradients(
                    plain, tokens, answer, read, layer, everywhere=name == "ig-all"
                )
                for tokens, answer, _ in rows(model.tokenizer, task)
            )
            assert_close(summed(scores), {(site.value, layer): expected}, 5e-4)


@pytest.mark.parametrize("site", [Site.MLP_GATE, Site.ATTN_V])
def test_integrated_gradients_add_up_to_zeroing_the_whole_site(site, loaded, monkeypatch):
    """Completeness: over one site's neurons of one layer they sum to P less P with all of them zeroed."""
    finer = functools.partial(integrated_gradients.Integration, steps=100)
    monkeypatch.setattr(integrated_gradients, "Integration", finer)
    task, model = families.questions(1), loaded("llama")
    found = score(model, task, method="ig-all", sites=[site])
    whole = NeuronSet.from_indices([(site, 1, i) for i in range(describe(model).widths[site])])
    base, without = (
        evaluate(model, task, ablate=neurons, progress=False).table["p_answer"].sum()
        for neurons in (None, whole)
    )
    assert found.total(site)[1].sum() == pytest.approx(base - without, rel=0.05, abs=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_recomputed_patterns_of_queries_and_keys(family, loaded, checkpoints):
    task = families.questions(1)
    model, plain = loaded(family), plain_model(checkpoints(family))
    plain.set_attn_implementation("eager")
    found = summed(score(model, task, method="atp-qk"))
    usual = summed(score(model, task, method="atp"))
    ((clean, corrupted, answer, _),) = both(model, task)
    config = plain.config.get_text_config()
    heads = config.num_attention_heads
    for site, owners in (
        (Site.ATTN_Q, heads),
        (Site.ATTN_K, getattr(config, "num_key_value_heads", None) or heads),
    ):
        largest = np.abs(found[site][1]).max()
        for index in (0, 3, found[site].shape[1] // 2, found[site].shape[1] - 1):
            expected = other_methods.pattern_patching(
                plain, clean, corrupted, answer, site.value, 1, index, heads, owners
            )
            assert found[site][1, index] == pytest.approx(expected, abs=2e-4 * float(largest))
        assert np.abs(found[site] - usual[site]).max() > 1e-3 * largest, "the correction changes q and k"
    for site in (Site.MLP_GATE, Site.ATTN_V):
        np.testing.assert_array_equal(found[site], usual[site])


@pytest.mark.parametrize("family", FAMILIES)
def test_lape(family, loaded, checkpoints):
    task, model = families.questions(6), loaded(family)
    plain, info = plain_model(checkpoints(family)), describe(model)
    counts = {c: [[0] * info.widths[Site.MLP_GATE] for _ in range(info.layers)] for c in task.countries}
    tokens = dict.fromkeys(task.countries, 0)
    for row, answer, country in rows(model.tokenizer, task):
        tokens[country] += len(row)
        for (site, layer), (activation, _) in other_methods.look(plain, row, answer)[0].items():
            if site == "mlp.gate":
                for position in activation.tolist():
                    for neuron, value in enumerate(position):
                        counts[country][layer][neuron] += value > 0
    expected = other_methods.lape(counts, tokens)
    found = score(model, task, method="lape")
    assert found.sites == (Site.MLP_GATE,)
    for country in task.countries:
        np.testing.assert_allclose(found.of(country)[Site.MLP_GATE], np.array(expected[country]), atol=1e-6)
    assert (found.total(Site.MLP_GATE) > 0).mean() <= 0.05 * len(task.countries), "the rest is dismissed"


def test_cape_is_lape_without_language_neurons(loaded):
    model, task = loaded("llama"), families.questions(6)
    language = families.questions(9, task="language")
    found = score(model, task, method=["lape", "cape"], language=language)
    beside = score(model, language, method="lape")
    total = beside.total(Site.MLP_GATE)
    chosen = set(np.argsort(-total, axis=None, kind="stable")[: int(total.size * 0.01)].tolist())
    removed = 0
    for row in range(len(task.countries)):
        culture, pure = (found[name].arrays[Site.MLP_GATE][row].ravel() for name in ("lape", "cape"))
        theirs = beside.arrays[Site.MLP_GATE][row].ravel()
        for neuron in range(culture.size):
            taken = neuron in chosen and theirs[neuron] > 0
            assert pure[neuron] == (0 if taken else culture[neuron])
            removed += bool(taken and culture[neuron] > 0)
    assert removed, "something was there to be taken away"


def test_mean_difference(loaded, checkpoints, task):
    model, plain = loaded("llama"), plain_model(checkpoints("llama"))
    expected: dict = {}
    for clean, corrupted, answer, _ in both(model, task):
        here, there = (
            other_methods.look(plain, clean, answer)[0],
            other_methods.look(plain, corrupted, answer)[0],
        )
        for place in here:
            expected[place] = expected.get(place, 0) + here[place][0].mean(0) - there[place][0].mean(0)
    assert_close(summed(score(model, task, method="mean-difference")), expected, 1e-5)


def test_random_is_seeded(loaded, task):
    one, again, other = (score(loaded("llama"), task, method="random", seed=s) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.arrays[Site.ATTN_Q], again.arrays[Site.ATTN_Q])
    assert not np.array_equal(one.arrays[Site.ATTN_Q], other.arrays[Site.ATTN_Q])


ONE_PASS = [name for name in METHODS if name not in ("ig", "ig-all", "atp-qk", "cape")]


@pytest.mark.parametrize("name", ["culnig", "culnig-mean-post", "atp", "lape", "mean-difference"])
def test_together_equals_alone(name, loaded, task):
    together = score(loaded("qwen3"), task, method=ONE_PASS, batch_size=2)[name]
    alone = score(loaded("qwen3"), task, method=name, batch_size=2)
    for site, array in alone.arrays.items():
        np.testing.assert_allclose(
            together.arrays[site], array, rtol=1e-5, atol=1e-7 * np.abs(array).max() + 1e-12
        )


@pytest.mark.parametrize(
    ("names", "controls"),
    [(ONE_PASS, 1), (["culnig", "culnig-sum", "culnig-mean-post"], 0)],
    ids=["all of one pass", "no method that compares"],
)
def test_methods_share_one_pass(names, controls, loaded, task):
    """More batches take one pass of the questions each, and one of their controls where a method compares
    with them."""
    model, passes = loaded("qwen3"), []
    with model.hooks(fwd_hooks=[("hook_embed", lambda embedded, hook: passes.append(len(embedded)))]):
        score(model, task, method=names, batch_size=len(task))
        whole = len(passes)
        score(model, task, method=names, batch_size=1)
    assert len(passes) - 2 * whole == (len(task) - 1) * (1 + controls)


def test_memory_that_runs_out_in_the_middle_loses_nothing(loaded, task, monkeypatch):
    names = ["culnig", "culnig-sum", "atp", "lape"]
    usual = score(loaded("llama"), task, method=names, batch_size=len(task))
    calls, original = [], AttributionPatching.term

    def short_of_memory(self, seen):
        calls.append(len(seen.p_answer))
        if len(calls) == 5:
            raise torch.OutOfMemoryError("out of memory")
        return original(self, seen)

    monkeypatch.setattr(AttributionPatching, "term", short_of_memory)
    halved = score(loaded("llama"), task, method=names, batch_size=len(task))
    assert min(calls) == len(task) // 2
    for name in names:
        for site, array in usual[name].arrays.items():
            np.testing.assert_allclose(
                halved[name].arrays[site], array, rtol=1e-4, atol=1e-5 * np.abs(array).max()
            )


def test_a_neuron_that_is_always_zero_has_no_score(checkpoints, task):
    plain = plain_model(checkpoints("llama"))
    with torch.no_grad():
        plain.model.layers[1].mlp.gate_proj.weight[5] = 0
        plain.model.layers[1].self_attn.v_proj.weight[3] = 0
    model = load_model(hf_model=plain, tokenizer=families.tokenizer())
    names = [name for name in METHODS if name != "random"]
    for name, scores in score(model, task[:2], method=names, language=task[:2]).items():
        assert scores.total(Site.MLP_GATE)[1, 5] == 0, name
        if Site.ATTN_V in scores.arrays:
            assert scores.total(Site.ATTN_V)[1, 3] == 0, name


def test_alignment():
    assert align([1, 5, 6, 7, 8, 9], [1, 8, 9]) == ([0, MEAN, MEAN, MEAN, 1, 2], 2)
    assert align([1, 2, 3], [1, 2, 3]) == ([0, 1, 2], 3)
    assert align([7, 7, 7], [7, 7]) == ([MEAN, 0, 1], 2), "the suffix first: no position is given twice"
    assert align([1, 2], [3, 4]) == ([MEAN, MEAN], 0)
    question = families.questions(1)[0]
    prompts = [Prompt(question, tokens, 0, ()) for tokens in ((1, 5, 6, 8, 9), (1, 8, 9))]
    others = [Prompt(question, tokens, 0, ()) for tokens in ((1, 8, 9), (8, 9))]
    batch = Alignment.of(prompts, others, torch.device("cpu"))
    assert batch.index.tolist() == [[0, MEAN, MEAN, 1, 2], [MEAN, MEAN, MEAN, 1, 2]]
    placed = batch.place(torch.tensor([[[10.0], [20.0], [40.0]], [[99.0], [2.0], [4.0]]]))
    assert placed[0, :, 0].tolist() == [10, 30, 30, 20, 40] and placed[1, 2:, 0].tolist() == [3, 2, 4]


def test_the_control_is_aligned_on_real_prompts(loaded, task):
    prompts, others = (encode(loaded("llama").tokenizer, t.questions) for t in (task, task.control()))
    for clean, corrupted in zip(prompts, others):
        index, suffix = align(clean.tokens, corrupted.tokens)
        assert suffix > 5 and index[0] == 0 and MEAN in index
        assert all(clean.tokens[i] == corrupted.tokens[j] for i, j in enumerate(index) if j != MEAN)


@pytest.mark.parametrize(
    ("names", "message"),
    [(["culnick"], "did you mean 'culnig'"), ([], "no method"), (["cape"], "language")],
    ids=["unknown", "none", "no language task"],
)
def test_a_method_that_cannot_be_used_is_a_clear_error(names, message, loaded, task):
    with pytest.raises(ScoreError, match=message):
        score(loaded("llama"), task, method=names)


def test_a_site_that_the_model_lacks_is_a_clear_error(loaded, task):
    with pytest.raises(ScoreError, match="no site mlp.up"):
        score(loaded("gpt2"), task, sites=["mlp.up"])


def test_a_method_that_compares_needs_a_control(loaded, task):
    bare = Task("bare", tuple(dataclasses.replace(q, control=None) for q in task))
    with pytest.raises(ScoreError, match="bare has none"):
        score(loaded("llama"), bare, method="atp")


def test_lape_needs_countries(loaded, task):
    with pytest.raises(ScoreError, match="compares countries"):
        score(loaded("llama"), task.filter(lambda q: q.country == "Spain"), method="lape")
