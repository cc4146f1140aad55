"""Exact effects against ablating one neuron at a time."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from culnig_tl import NeuronSet, ablate, describe, evaluate, exact_effects
from culnig_tl.data.neurons import SITES, Site
from culnig_tl.data.statistics import clustered_mean
from culnig_tl.engine.prompts import Prompt
from culnig_tl.errors import NeuronError, ScoreError
from culnig_tl.method import fanout
from culnig_tl.method.asking import asking
from culnig_tl.method.exact import all_neurons, stratified_sample

from . import families


@pytest.fixture(scope="module")
def task():
    return families.questions(2)


def one_at_a_time(model, task, neurons):
    base = evaluate(model, task, progress=False).table["p_answer"].to_numpy()
    columns = []
    for site, layer, neuron in zip(neurons.table["site"], neurons.table["layer"], neurons.table["neuron"]):
        with ablate(model, NeuronSet.from_indices([(site, layer, neuron)])):
            columns.append(base - evaluate(model, task, progress=False).table["p_answer"].to_numpy())
    return np.stack(columns, axis=1), base


@pytest.mark.parametrize(
    "family",
    [
        pytest.param(f, marks=() if f in ("llama", "gemma3", "gpt2", "phi3") else pytest.mark.slow)
        for f in families.FAMILIES
    ],
)
def test_equals_ablating_one_at_a_time(family, loaded, task):
    model = loaded(family)
    neurons = stratified_sample(describe(model), tuple(describe(model).widths), each=1)
    found = exact_effects(model, task, neurons, progress=False)
    expected, base = one_at_a_time(model, task, neurons)
    np.testing.assert_allclose(found.p_answer, base, rtol=1e-5)
    np.testing.assert_allclose(found.drops, expected, atol=1e-3 * np.abs(expected).max() + 1e-7)
    assert np.abs(expected).max() > 2e-5, "the neurons have effects to speak of"
    assert len(neurons) == describe(model).layers * len(describe(model).widths)


def test_small_batches_and_models_that_cannot_fan_out_give_the_same(loaded, task, monkeypatch):
    model = loaded("llama")
    neurons = stratified_sample(describe(model), each=5)
    usual = exact_effects(model, task, neurons, progress=False)
    monkeypatch.setitem(fanout.TOKENS_PER_BATCH, "cpu", 100)
    np.testing.assert_allclose(
        exact_effects(model, task, neurons, progress=False).drops, usual.drops, atol=1e-7
    )
    monkeypatch.setattr("culnig_tl.method.exact.fans_out", lambda *a: False)
    np.testing.assert_allclose(
        exact_effects(model, task, neurons, progress=False).drops, usual.drops, atol=1e-7
    )


def test_fanning_out_is_refused_where_it_is_wrong(loaded, task, monkeypatch, caplog):
    model = loaded("llama")
    one = asking(model, [Prompt(task[0], tuple(range(6, 30)), 5, ())])
    assert fanout.fans_out(one, SITES)
    original = fanout.ask_rows

    def wrong(*given, **how):
        said = original(*given, **how)
        return replace(said, compared=said.compared * 1.01)

    monkeypatch.setattr(fanout, "ask_rows", wrong)
    assert not fanout.fans_out(one, SITES) and "logits differ" in caplog.text


def test_all_neurons_of_a_small_model(loaded, task, tmp_path):
    model = loaded("gpt2")
    info = describe(model)
    whole = all_neurons(info)
    assert len(whole) == info.layers * sum(info.widths[site] for site in SITES)
    found = exact_effects(model, task, progress=False)
    assert found.drops.shape == (2, len(whole)) and found.neurons.provenance.layers == info.layers
    np.testing.assert_allclose(found.neurons.table["score"], found.mean, rtol=1e-5, atol=1e-8)
    table = found.to_dataframe()
    mean, se, _ = clustered_mean(found.drops[:, 7].astype(float), np.array([q.cluster for q in task]))
    assert table.loc[7, "effect"] == pytest.approx(mean) and (
        table.loc[7, "se"] == pytest.approx(se) or np.isnan(se)
    )
    for suffix in (".parquet", ".csv"):
        path = found.save(tmp_path / f"truth{suffix}")
        read = pd.read_parquet(path) if suffix == ".parquet" else pd.read_csv(path)
        np.testing.assert_allclose(read["effect"], table["effect"])
    assert "2 questions" in str(found)


def test_a_sample_is_even_over_sites_and_layers(loaded):
    info = describe(loaded("llama"))
    sample = stratified_sample(info, each=3, seed=1)
    assert (sample.counts(["site", "layer"]) == 3).all() and len(sample) == 3 * info.layers * len(SITES)
    assert sample == stratified_sample(info, each=3, seed=1) and sample != stratified_sample(
        info, each=3, seed=2
    )
    assert len(stratified_sample(info, [Site.ATTN_K], each=10_000)) == info.layers * info.widths[Site.ATTN_K]


def test_bad_requests_are_clear_errors(loaded, task, tmp_path):
    model = loaded("llama")
    with pytest.raises(NeuronError, match="at least one neuron"):
        stratified_sample(describe(model), each=0)
    with pytest.raises(NeuronError, match="occurs once"):
        exact_effects(model, task, NeuronSet.from_indices([]), progress=False)
    with pytest.raises(ScoreError, match="no question"):
        exact_effects(model, task[:0], progress=False)
    found = exact_effects(model, task[:1], NeuronSet.from_indices([("attn.q", 0, 1)]), progress=False)
    with pytest.raises(ScoreError, match="parquet"):
        found.save(tmp_path / "truth.json")
