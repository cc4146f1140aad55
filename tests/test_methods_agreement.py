"""Agreement with exact effects, areas and budgets, each against a loop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from culnig_tl import NeuronSet, describe, evaluate
from culnig_tl.analyses.agreement import ALL, agreement, precision
from culnig_tl.analyses.methods import POINTS, MethodComparison, area, compare_methods, select_top
from culnig_tl.data.neurons import SITES, Site
from culnig_tl.errors import ScoreError
from culnig_tl.method.exact import exact_effects, stratified_sample
from culnig_tl.method.methods import METHODS, score_methods

from .cultures import culture_task, plain_task

CHEAP = ("culnig", "culnig-sum-post", "atp", "lape", "cape", "mean-difference", "random")


@pytest.fixture(scope="module")
def found(loaded) -> MethodComparison:
    model, task = loaded("llama"), culture_task(each=1)
    questions = task.neuron_split().limit(3)
    effects = exact_effects(model, questions, stratified_sample(describe(model), each=8), progress=False)
    tasks = [task.test_split(), plain_task().test_split()]
    reading = culture_task("reading", each=1).neuron_split()
    return compare_methods(
        model, questions, reading, tasks, effects, methods=CHEAP, top_mlp=0.1, top_attn=0.05, progress=False
    )


def test_agreement_is_scipys_site_by_site_and_layer_by_layer(found, loaded):
    table, truth = found.agreement(), found.effects.neurons.table.assign(effect=found.effects.mean)
    assert set(table["method"]) == set(CHEAP)
    for _, row in table.iterrows():
        scores = found.scores[row["method"]]
        part = truth[truth["site"].isin([s.value for s in scores.sites])]
        part = part if row["site"] == ALL else part[part["site"] == row["site"]]
        part = part if row["layer"] == ALL else part[part["layer"] == row["layer"]]
        values = [sum(scores.arrays[Site(s)][c, layer, n] for c in range(len(scores.countries))) for s, layer, n in part[["site", "layer", "neuron"]].itertuples(index=False)]  # fmt: skip
        assert row["neurons"] == len(part)
        if np.ptp(values) == 0:
            assert np.isnan(row["spearman"]) and np.isnan(row["pearson"])
            continue
        assert row["spearman"] == pytest.approx(stats.spearmanr(values, part["effect"]).statistic, abs=1e-3)
        assert row["pearson"] == pytest.approx(stats.pearsonr(values, part["effect"]).statistic, abs=1e-3)
        best = set(np.argsort(-np.array(values), kind="stable")[: int(0.05 * len(part))])
        true = set(np.argsort(-part["effect"].to_numpy(), kind="stable")[: int(0.05 * len(part))])
        assert (
            np.isnan(row["precision_5"])
            if not best
            else row["precision_5"] == pytest.approx(len(best & true) / len(best), abs=1e-6)
        )
    whole = table[(table["site"] == ALL) & (table["layer"] == ALL)].set_index("method")
    assert whole.loc["culnig-sum-post", "spearman"] > 0.5 > abs(whole.loc["random", "spearman"])


def test_precision():
    truth = np.arange(200.0)
    assert precision(truth, truth, 0.05) == 1 and precision(-truth, truth, 0.05) == 0
    half = np.where(truth >= 195, 1000.0, -truth)
    assert precision(half, truth, 0.05) == 0.5
    assert np.isnan(precision(truth[:50], truth[:50], 0.01)), "less than one neuron"


def test_effects_of_another_model_are_refused(found, loaded):
    other = score_methods(loaded("qwen3"), culture_task(each=1).neuron_split(), ["random"], progress=False)
    with pytest.raises(ScoreError, match="different models"):
        agreement(other, found.effects)


def test_area_is_a_loop_over_trapezoids(found):
    curves = found.curves()
    areas = found.areas()
    for method in CHEAP:
        for kind, column in ((True, "area_culture"), (False, "area_nlu")):
            part = curves[(curves["method"] == method) & (curves["culture"] == kind)]
            counts = [0, *found.budgets]
            heights = [part.loc[part["neurons"] == n, "accuracy"].mean() for n in counts]
            total = 0.0
            for i in range(len(counts) - 1):
                total += (counts[i + 1] - counts[i]) * (heights[i] + heights[i + 1]) / 2
            assert areas.loc[method, column] == pytest.approx(total / counts[-1])
        assert areas.loc[method, "area_difference"] == pytest.approx(
            areas.loc[method, "area_culture"] - areas.loc[method, "area_nlu"]
        )
    flat = pd.DataFrame({"neurons": [0, 5, 20], "accuracy": [80.0, 80.0, 80.0]})
    assert area(flat) == pytest.approx(80) and np.isnan(area(flat[:0]))
    assert area(pd.DataFrame({"neurons": [0, 10], "accuracy": [100.0, 0.0]})) == pytest.approx(50)


def test_every_method_suppresses_as_many_neurons(found, loaded):
    info = describe(loaded("llama"))
    sizes = [info.layers * info.widths[Site.MLP_GATE], info.layers * sum(info.widths[s] for s in SITES[1:])]
    assert found.budgets == tuple(int(sizes[0] * 0.1 * f) + int(sizes[1] * 0.05 * f) for f in POINTS)
    for method, sets in found.sets.items():
        assert tuple(map(len, sets)) == found.budgets, method
        assert all(set(sets[i].keys()) <= set(sets[i + 1].keys()) for i in range(len(sets) - 1)), (
            "budgets are nested"
        )
        if METHODS[method].gate_only:
            assert set(sets[0].table["site"]) == {"mlp.gate"}
    for method, results in found.results.items():
        again = evaluate(
            loaded("llama"), culture_task(each=1).test_split(), neurons=found.sets[method][1], progress=False
        )
        mine = results[1].table
        assert mine.loc[mine["task"] == "culture", "correct"].tolist() == again.table["correct"].tolist()


def test_overlap_and_table_and_figures(found):
    overlap = found.overlap()
    assert (np.diag(overlap) == 1).all() and np.allclose(overlap, overlap.T)
    one, other = (found.sets[m][found.at] for m in ("culnig", "atp"))
    assert overlap.loc["culnig", "atp"] == pytest.approx(
        len(one.keys() & other.keys()) / len(one.keys() | other.keys())
    )
    table = found.table()
    assert list(table.index) == [*CHEAP, "unchanged"] and table["area_difference"].notna().all()
    assert (
        np.isnan(table.loc["lape", "attn.q"])
        and table.loc["lape", "neurons"] < table.loc["culnig", "neurons"]
    )
    said = found.sentence()
    best = table["area_difference"].drop("unchanged").idxmin()
    assert f"{best} hurts culture most" in said
    assert set(found.figures()) == {"methods", "methods-curves", "methods-overlap"}


def test_select_top_contrasts_and_leaves_out(loaded):
    task = culture_task(each=1).neuron_split()
    scores, control = (
        score_methods(loaded("llama"), t, ["culnig"], progress=False)["culnig"]
        for t in (task, task.control())
    )
    best = select_top(scores, 6, 4)
    assert len(best) == 10 and best.counts("site")["mlp.gate"] == 6
    gate = scores.total(Site.MLP_GATE)
    expected = sorted(
        (-gate[layer, n], layer, n) for layer in range(gate.shape[0]) for n in range(gate.shape[1])
    )[:6]
    assert {key[1:] for key in best.keys() if key[0] == "mlp.gate"} == {
        (layer, n) for _, layer, n in expected
    }
    without = select_top(scores, 6, 4, without=best)
    assert len(without) == 10 and not without.keys() & best.keys()
    contrasted = select_top(scores, 6, 4, control=control)
    value = gate / scores.clusters - control.total(Site.MLP_GATE) / control.clusters
    row = contrasted.table.iloc[0]
    assert row["score"] == pytest.approx(value[row["layer"], row["neuron"]], rel=1e-4)


def test_cheap_methods_can_be_ranked_on_more_questions(found, loaded):
    model, task = loaded("llama"), culture_task(each=1)
    few, many = task.neuron_split().limit(3), task.neuron_split()
    more = compare_methods(
        model, few, None, [task.test_split(), plain_task().test_split()], found.effects, methods=["culnig", "atp-qk"], ranked_on=many,
        top_mlp=0.1, top_attn=0.05, points=[1.0], progress=False,
    )  # fmt: skip
    assert more.questions == {"culnig": len(many), "atp-qk": 3} and more.table().loc[
        "culnig", "questions"
    ] == len(many)
    scores, control = (
        score_methods(model, t, ["culnig"], progress=False)["culnig"] for t in (many, many.control())
    )
    sizes = [found.budgets[found.at] - int(3 * 80 * 0.05), int(3 * 80 * 0.05)]
    assert more.sets["culnig"][0] == select_top(scores, *sizes, control=control)
    assert sum(more.scores["culnig"].questions) == 3, "agreement is of the questions that were zeroed"


def test_bad_requests_are_clear_errors(found, loaded):
    task = culture_task(each=1)
    with pytest.raises(ScoreError, match="no task"):
        compare_methods(loaded("llama"), task.neuron_split(), None, [], found.effects, progress=False)
    with pytest.raises(ScoreError, match="no neuron"):
        compare_methods(
            loaded("llama"), task.neuron_split(), None, [task.test_split()], found.effects, methods=["random"], top_mlp=1e-6, top_attn=0, progress=False
        )  # fmt: skip


def test_the_set_column_survives_files(tmp_path):
    table = pd.DataFrame(
        {"site": ["mlp.gate", "attn.q"], "layer": [0, 1], "neuron": [3, 4], "returns": [0.25, 1.0]}
    )
    neurons = NeuronSet(table)
    for name in ("set.parquet", "set.csv"):
        read = NeuronSet.load(neurons.save(tmp_path / name))
        np.testing.assert_allclose(read.table["returns"], [0.25, 1.0])
    assert "returns" not in NeuronSet(table.drop(columns="returns")).table.columns
