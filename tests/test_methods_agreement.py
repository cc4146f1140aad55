"""Agreement with exact effects, areas and budgets, each against a loop."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from culnig_tl import NeuronSet, describe, evaluate, exact_effects, score_neurons, select_general
from culnig_tl.analyses import MethodComparison, agreement, area, compare_methods, precision, select_top
from culnig_tl.analyses.agreement import ALL
from culnig_tl.analyses.methods import POINTS
from culnig_tl.data.neurons import SITES, Site
from culnig_tl.errors import ScoreError
from culnig_tl.method.exact import stratified_sample
from culnig_tl.method.methods.registry import METHODS

from .cultures import culture_task, plain_task

CHEAP = ("culnig", "culnig-sum-post", "atp", "lape", "cape", "mean-difference", "random")
TASK = culture_task(each=1)
ASKED = [TASK.test_split(), plain_task().test_split()]
SHARES = {"top_mlp": 0.1, "top_attn": 0.05}


@pytest.fixture(scope="module")
def found(loaded) -> MethodComparison:
    model, questions = loaded("llama"), TASK.neuron_split().limit(3)
    effects = exact_effects(model, questions, stratified_sample(describe(model), each=8), progress=False)
    reading = culture_task("reading", each=1).neuron_split()
    return compare_methods(model, questions, reading, ASKED, effects, methods=CHEAP, **SHARES, progress=False)


def test_agreement_is_scipys_site_by_site_and_layer_by_layer(found):
    table, truth = found.agreement(), found.effects.neurons.table.assign(effect=found.effects.mean)
    assert set(table["method"]) == set(CHEAP)
    for _, row in table.iterrows():
        scores = found.scores[row["method"]]
        part = truth[truth["site"].isin([s.value for s in scores.sites])]
        part = part if row["site"] == ALL else part[part["site"] == row["site"]]
        part = part if row["layer"] == ALL else part[part["layer"] == row["layer"]]
        places = part[["site", "layer", "neuron"]].itertuples(index=False)
        values = [sum(array[layer, n] for array in scores.arrays[Site(s)]) for s, layer, n in places]
        assert row["neurons"] == len(part)
        if np.ptp(values) == 0:
            assert np.isnan(row["spearman"]) and np.isnan(row["pearson"])
            continue
        assert row["spearman"] == pytest.approx(stats.spearmanr(values, part["effect"]).statistic, abs=1e-3)
        assert row["pearson"] == pytest.approx(stats.pearsonr(values, part["effect"]).statistic, abs=1e-3)
        best = set(np.argsort(-np.array(values), kind="stable")[: int(0.05 * len(part))])
        true = set(np.argsort(-part["effect"].to_numpy(), kind="stable")[: int(0.05 * len(part))])
        expected = len(best & true) / len(best) if best else float("nan")
        assert row["precision_5"] == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_gradients_agree_and_chance_does_not(found):
    table = found.agreement()
    whole = table[(table["site"] == ALL) & (table["layer"] == ALL)].set_index("method")["spearman"]
    assert whole["culnig-sum-post"] > 0.5 > abs(whole["random"])


TRUTH = np.arange(200.0)


@pytest.mark.parametrize(
    ("values", "expected"), [(TRUTH, 1), (-TRUTH, 0), (np.where(TRUTH >= 195, 1000.0, -TRUTH), 0.5)]
)
def test_precision(values, expected):
    assert precision(values, TRUTH, 0.05) == expected


def test_precision_of_less_than_one_neuron_is_unknown():
    assert np.isnan(precision(TRUTH[:50], TRUTH[:50], 0.01))


def test_effects_of_another_model_are_refused(found, loaded):
    other = score_neurons(loaded("qwen3"), TASK.neuron_split(), method=["random"], progress=False)
    with pytest.raises(ScoreError, match="different models"):
        agreement(other, found.effects)


def test_area_is_a_loop_over_trapezoids(found):
    curves, areas = found.curves(), found.areas()
    counts = [0, *found.budgets]
    for method in CHEAP:
        for kind, column in ((True, "area_culture"), (False, "area_nlu")):
            part = curves[(curves["method"] == method) & (curves["culture"] == kind)]
            heights = [part.loc[part["neurons"] == n, "accuracy"].mean() for n in counts]
            total = 0.0
            for i in range(len(counts) - 1):
                total += (counts[i + 1] - counts[i]) * (heights[i] + heights[i + 1]) / 2
            assert areas.loc[method, column] == pytest.approx(total / counts[-1])


def test_the_difference_of_areas(found):
    areas = found.areas()
    assert np.allclose(areas["area_difference"], areas["area_culture"] - areas["area_nlu"])


@pytest.mark.parametrize(
    ("neurons", "accuracy", "expected"),
    [([0, 5, 20], [80.0] * 3, 80), ([0, 10], [100.0, 0.0], 50), ([], [], np.nan)],
)
def test_area(neurons, accuracy, expected):
    curves = pd.DataFrame({"neurons": neurons, "accuracy": accuracy})
    assert area(curves) == pytest.approx(expected, nan_ok=True)


def test_budgets_are_multiples_of_the_shares(found, loaded):
    info = describe(loaded("llama"))
    mlp, attn = info.layers * info.widths[Site.MLP_GATE], info.layers * sum(info.widths[s] for s in SITES[1:])
    assert found.budgets == tuple(int(mlp * 0.1 * f) + int(attn * 0.05 * f) for f in POINTS)


@pytest.mark.parametrize("method", CHEAP)
def test_every_method_suppresses_as_many_neurons(found, method):
    assert tuple(map(len, found.sets[method])) == found.budgets


@pytest.mark.parametrize("method", CHEAP)
def test_budgets_are_nested(found, method):
    sets = [neurons.keys() for neurons in found.sets[method]]
    assert all(smaller <= larger for smaller, larger in zip(sets, sets[1:]))


def test_methods_of_the_gate_choose_there(found):
    gate_only = [method for method in CHEAP if METHODS[method].gate_only]
    assert gate_only and all(set(found.sets[m][0].table["site"]) == {"mlp.gate"} for m in gate_only)


def test_answers_are_those_with_the_set_suppressed(found, loaded):
    for method, results in found.results.items():
        again = evaluate(loaded("llama"), ASKED[0], ablate=found.sets[method][1], progress=False)
        mine = results[1].table
        assert mine.loc[mine["task"] == "culture", "correct"].tolist() == again.table["correct"].tolist()


def test_overlap_is_a_symmetric_jaccard_index(found):
    overlap = found.overlap()
    assert (np.diag(overlap) == 1).all() and np.allclose(overlap, overlap.T)
    one, other = (found.sets[m][found.at].keys() for m in ("culnig", "atp"))
    assert overlap.loc["culnig", "atp"] == pytest.approx(len(one & other) / len(one | other))


def test_the_table_has_a_row_per_method(found):
    table = found.table()
    assert list(table.index) == [*CHEAP, "unchanged"] and table["area_difference"].notna().all()


def test_what_a_method_does_not_score_is_left_out(found):
    table = found.table()
    assert np.isnan(table.loc["lape", "attn.q"])
    assert table.loc["lape", "neurons"] < table.loc["culnig", "neurons"]


def test_the_sentence_names_the_best(found):
    best = found.table()["area_difference"].drop("unchanged").idxmin()
    assert f"{best} hurts culture most" in found.sentence()


def test_tables_are_named_for_their_files(found):
    assert list(found.tables()) == ["methods", "agreement", "overlap", "curves", "selectivity", "held-out"]


def test_every_contrasted_method_is_there_once_more_for_each_way(found, loaded):
    model, few, plain = loaded("llama"), TASK.neuron_split().limit(3), plain_task().neuron_split()
    how = {"methods": ["culnig", "random"], "contrast": plain, "ways": ["filter", "ranks"], "points": [1.0]}
    more = compare_methods(model, few, None, ASKED, found.effects, **how, **SHARES, progress=False)
    assert list(more.results) == ["culnig", "culnig, filter", "culnig, ranks", "random"]
    assert more.scored == {
        "culnig": 6,
        "culnig, filter": 6 + len(plain),
        "culnig, ranks": 6 + len(plain),
        "random": 3,
    }
    other = score_neurons(model, plain, progress=False)
    ours, control = more.scores["culnig"], score_neurons(model, few.control(), progress=False)
    for way in ("filter", "ranks"):
        cut = {**SHARES, "contrast": other, "contrast_way": way}
        assert more.sets[f"culnig, {way}"][0].keys() == select_general(ours, control, **cut).keys()
    table = more.table()
    assert list(table.index) == [*more.results, "unchanged"] and table["area_selective"].notna().sum() == 4
    assert len(more.held_out()) == 5 and len(more.selectivity()) == 8


@pytest.fixture(scope="module")
def culnig(loaded):
    """Scores of the task, and of its control."""
    split = TASK.neuron_split()
    return [score_neurons(loaded("llama"), task, progress=False) for task in (split, split.control())]


def test_the_best_of_the_gate_are_chosen(culnig):
    best, gate = select_top(culnig[0], 6, 4), culnig[0].total(Site.MLP_GATE)
    expected = sorted((-gate[layer, n], layer, n) for layer, n in np.ndindex(gate.shape))[:6]
    assert len(best) == 10
    assert {key[1:] for key in best.keys() if key[0] == "mlp.gate"} == {(x, n) for _, x, n in expected}


def test_neurons_can_be_left_out(culnig):
    best = select_top(culnig[0], 6, 4)
    without = select_top(culnig[0], 6, 4, without=best)
    assert len(without) == 10 and not without.keys() & best.keys()


def test_a_control_is_subtracted_per_cluster(culnig):
    scores, control = culnig
    row = select_top(scores, 6, 4, control=control).table.iloc[0]
    value = scores.total(Site.MLP_GATE) / scores.clusters - control.total(Site.MLP_GATE) / control.clusters
    assert row["score"] == pytest.approx(value[row["layer"], row["neuron"]], rel=1e-4)


@pytest.fixture(scope="module")
def more(found, loaded):
    """Cheap methods ranked on more questions than the costly one."""
    few, many = TASK.neuron_split().limit(3), TASK.neuron_split()
    how = {"methods": ["culnig", "atp-qk"], "ranked_on": many, "points": [1.0], "progress": False}
    return compare_methods(loaded("llama"), few, None, ASKED, found.effects, **how, **SHARES)


def test_the_table_says_how_many_questions_each_was_ranked_on(more):
    assert more.questions == {"culnig": 5, "atp-qk": 3} and more.table().loc["culnig", "questions"] == 5


def test_neurons_are_ranked_on_the_questions_that_were_given(more, culnig):
    attn = int(3 * 80 * 0.05)
    sizes = [more.budgets[0] - attn, attn]
    assert more.sets["culnig"][0] == select_top(culnig[0], *sizes, control=culnig[1])


def test_agreement_is_of_the_questions_that_were_zeroed(more):
    assert sum(more.scores["culnig"].questions) == 3


def test_no_task_is_refused(found, loaded):
    with pytest.raises(ScoreError, match="no task"):
        compare_methods(loaded("llama"), TASK.neuron_split(), None, [], found.effects)


def test_a_budget_of_no_neuron_is_refused(found, loaded):
    given = {"methods": ["random"], "top_mlp": 1e-6, "top_attn": 0}
    with pytest.raises(ScoreError, match="no neuron"):
        compare_methods(loaded("llama"), TASK.neuron_split(), None, ASKED, found.effects, **given)


@pytest.mark.parametrize("name", ["set.parquet", "set.csv"])
def test_the_column_returns_survives_files(tmp_path, name):
    columns = {"site": ["mlp.gate", "attn.q"], "layer": [0, 1], "neuron": [3, 4], "returns": [0.25, 1.0]}
    read = NeuronSet.load(NeuronSet(pd.DataFrame(columns)).save(tmp_path / name))
    np.testing.assert_allclose(read.table["returns"], [0.25, 1.0])
