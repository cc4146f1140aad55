"""Countries, accuracy and sweeps: what is drawn is what the results say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from culnig_tl import figures
from culnig_tl.data.neurons import Site
from culnig_tl.data.scores import NO_COUNTRY
from culnig_tl.data.statistics import share_interval
from culnig_tl.errors import NeuronError, ScoreError

from .builders import COUNTRIES, WIDTHS, make_result, make_scores, make_set, make_specific, notes, sweep


def base():
    return make_result(lambda task, country, i: i % 5 != 0)


def without(lost: str, every: int = 2):
    """The unchanged answers, but every second right one of a country is lost."""
    return make_result(
        lambda task, country, i: i % 5 != 0 and not (country == lost and (i // 3) % every == 0)
    )


def test_country_heatmap_of_a_set_counts_each_countrys_neurons():
    neurons = make_specific()
    z = np.asarray(figures.country_heatmap(neurons).data[0].z)
    for column, country in enumerate(neurons.countries):
        assert (
            z[:, column].tolist()
            == neurons.for_country(country).counts("layer").reindex(range(4), fill_value=0).tolist()
        )
    assert np.asarray(figures.country_heatmap(neurons, show="share").data[0].z).sum(0) == pytest.approx(
        [100] * 3
    )
    gate = np.asarray(figures.country_heatmap(neurons, sites=[Site.MLP_GATE]).data[0].z)
    assert gate.sum() == neurons.counts("site")["mlp.gate"]


def test_country_heatmap_of_scores_is_the_mean_per_neuron_and_cluster():
    scores = make_scores()
    z = np.asarray(figures.country_heatmap(scores).data[0].z)
    layer = np.concatenate([scores.of("Mexico")[site][2] for site in WIDTHS]) / 12
    assert z[2, 2] == pytest.approx(layer.mean(), rel=1e-4)


def test_control_countries_are_matched_by_name():
    scores, control = make_scores(), make_scores(seed=1, countries=COUNTRIES[::-1], task="blend:control")
    z = np.asarray(figures.country_heatmap(scores, control=control, sites=["attn.k"]).data[0].z)
    wanted = scores.of("Japan")[Site.ATTN_K][0] / 10 - control.of("Japan")[Site.ATTN_K][0] / 12
    assert z[0, 0] == pytest.approx(wanted.mean(), rel=1e-4)
    with pytest.raises(ScoreError, match="control has no scores of 'Mexico'"):
        figures.country_heatmap(scores, control=make_scores(countries=("Japan", "Spain")))


def test_the_shared_pattern_is_the_rank_one_share_of_all_neurons():
    scores = make_scores()
    matrix = np.concatenate(
        [(scores.arrays[s] / np.array([10, 11, 12])[:, None, None]).reshape(3, -1) for s in WIDTHS], axis=1
    )
    power = np.linalg.svd(matrix, compute_uv=False) ** 2
    assert f"one shared pattern explains {100 * power[0] / power.sum():.1f}% of the variance" in notes(
        figures.country_heatmap(scores)
    )
    same = make_scores(fill=2.0)
    assert "explains 100.0%" in notes(figures.country_heatmap(same))


def test_questions_without_a_country_are_named_in_words():
    figure = figures.country_heatmap(make_scores(countries=("Japan", NO_COUNTRY)))
    assert [text.partition("<br>")[0] for text in figure.layout.xaxis.ticktext] == ["Japan", "no country"]


def test_a_cell_of_the_drop_matrix_is_the_drop():
    results = {"Spain": without("Spain"), "Mexico": without("Japan"), "Japan": without("Mexico", every=4)}
    figure = figures.drop_matrix(base(), results)
    rows, columns = list(results), list(figure.layout.xaxis.ticktext)
    assert columns == ["Spain", "Mexico", "Japan"]
    z = np.asarray(figure.data[0].z)
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            before, after = (
                base().accuracy("country").at[column, "accuracy"],
                results[row].accuracy("country").at[column, "accuracy"],
            )
            assert z[i, j] == pytest.approx(before - after)
    assert z[0, 0] > 20 and z[0, 1] == z[0, 2] == 0
    assert list(figure.layout.yaxis.ticktext) == ["Spain (1 of 3)", "Mexico (2.5 of 3)", "Japan (2.5 of 3)"]
    assert "mean rank of the own country 2.00 of 3" in notes(figure)
    assert len(figure.layout.shapes) == 3
    assert list(figures.drop_matrix(base(), results, show="rank").data[0].text[0]) == ["1", "2.5", "2.5"]


def test_the_drop_matrix_pairs_questions_whatever_their_order():
    shuffled = without("Spain")
    shuffled = type(shuffled)(shuffled.table.sample(frac=1, random_state=0), shuffled.metadata)
    one = figures.drop_table(base(), {"Spain": without("Spain")})
    two = figures.drop_table(base(), {"Spain": shuffled})
    pd.testing.assert_frame_equal(one, two)
    assert one["questions"].tolist() == [8, 8, 8] and (one["se"] >= 0).all()


def test_results_that_cannot_be_paired_are_refused():
    fewer = make_result(lambda *_: True, questions=23)
    with pytest.raises(ScoreError, match="other questions than the unchanged one"):
        figures.drop_matrix(base(), {"Spain": fewer})
    doubled = type(fewer)(pd.concat([fewer.table, fewer.table]), fewer.metadata)
    with pytest.raises(ScoreError, match="occurs twice"):
        figures.drop_matrix(doubled, {"Spain": doubled})
    with pytest.raises(ScoreError, match="none of the questions has a country"):
        figures.drop_matrix(make_result(lambda *_: True, tasks=("commonsenseqa",)), {"Spain": base()})
    with pytest.raises(ScoreError, match="no results"):
        figures.drop_matrix(base(), {})


def test_accuracy_bars_are_the_results_accuracies_with_their_intervals():
    results = {"unchanged": base(), "suppressed": without("Spain")}
    figure = figures.accuracy_bars(results)
    for trace, result in zip(figure.data, results.values()):
        table = result.accuracy("task")
        assert list(trace.y) == pytest.approx(table["accuracy"].tolist())
        columns = (table[name].to_numpy() for name in ("accuracy", "se", "questions", "clusters"))
        low, high = share_interval(*columns)
        assert list(trace.error_y.array) == pytest.approx((high - table["accuracy"]).tolist())
        assert list(trace.error_y.arrayminus) == pytest.approx((table["accuracy"] - low).tolist())
    assert [x.partition("<br>")[0] for x in figure.data[0].x] == [
        "blend",
        "commonsenseqa",
    ] and "n = 24" in figure.data[0].x[0]
    by_country = figures.accuracy_bars(results, by="country")
    assert list(by_country.data[1].y) == pytest.approx(
        results["suppressed"].accuracy("country")["accuracy"].tolist()
    )


def test_changes_are_sorted_by_loss_with_a_line_from_before_to_after():
    figure = figures.accuracy_changes(base(), without("Spain"))
    assert figure.layout.yaxis.ticktext[0] == "Spain (8)"
    first = figure.data[0]
    table = {name: r.accuracy("country").loc["Spain", "accuracy"] for name, r in
             (("before", base()), ("after", without("Spain")))}  # fmt: skip
    assert list(first.x) == [table["before"], table["after"]] and list(first.y) == [0, 0]
    words = [trace for trace in figure.data if trace.mode == "text"][0].text
    assert words[0].strip() == f"−{table['before'] - table['after']:.1f}" and words[-1].strip() == "0.0"


def test_groups_of_few_questions_are_muted():
    figure = figures.accuracy_changes(base(), without("Spain"))  # 8 questions a country
    assert figure.data[0].opacity < 1
    assert "pale: n under 20" in notes(figure)
    many = [make_result(lambda *_: True, tasks=("blend",), questions=90)] * 2
    assert "pale" not in notes(figures.accuracy_changes(*many))


def test_country_columns_can_be_compared_each_on_its_own_scale():
    z = np.asarray(figures.country_heatmap(make_scores(), scale="column").data[0].z)
    assert np.abs(z).max(axis=0) == pytest.approx([100] * 3)


def test_one_layer_does_not_drown_the_others():
    scores = make_scores()
    for array in scores.arrays.values():
        array[:] = np.abs(array)
        array[:, 0] *= 100
    figure = figures.country_heatmap(scores)
    z, axis = np.asarray(figure.data[0].z), figure.layout.coloraxis
    assert axis.cmin == 0 and axis.cmax == pytest.approx(z[1:].max()) and z[0].min() > 3 * axis.cmax
    assert "colours end at" in notes(figure)


def test_tasks_that_a_setting_was_not_asked_stay_empty():
    figure = figures.accuracy_bars(
        {"unchanged": base(), "suppressed": make_result(lambda *_: True, tasks=("commonsenseqa",))}
    )
    assert np.isnan(figure.data[1].y[0]) and figure.data[1].y[1] == 100
    assert "no questions" in figure.data[1].hovertext[0]


def test_values_questions_show_alignment_and_say_so():
    result = make_result(lambda *_: False, tasks=("blend", "worldvaluesbench"))
    result.table.loc[result.table["task"] == "worldvaluesbench", "alignment"] = np.linspace(40, 80, 24)
    figure = figures.accuracy_bars(result)
    assert list(figure.data[0].y) == pytest.approx([0, 60])
    assert figure.data[0].x[1].startswith("worldvaluesbench: alignment") and "alignment (0 to 100)" in notes(
        figure
    )


def test_threshold_curves_go_through_the_points_in_order():
    figure = figures.threshold_curves(sweep())
    lines = {
        trace.name: trace for trace in figure.data if trace.mode == "lines+markers" and trace.xaxis == "x"
    }
    assert list(lines["blend suppressed"].x) == pytest.approx([0.5, 1, 2]) and list(
        lines["blend suppressed"].y
    ) == pytest.approx([39.5, 39, 38])
    band = next(trace for trace in figure.data if trace.fill == "toself")
    low, high = share_interval(*np.array([[39.5, 39, 38], [2.0] * 3, [np.inf] * 3, [np.inf] * 3]))
    assert list(band.y) == pytest.approx([*high, *low[::-1]])
    marks = [(shape.x0, shape.xref) for shape in figure.layout.shapes]
    assert marks == [(1.0, "x"), (0.5, "x2")]  # the paper's 1% and z of 0.5
    assert "10 neurons" in lines["blend suppressed"].hovertext[1]


def test_wide_thresholds_get_a_logarithmic_axis_with_the_paper_in_its_place():
    wide = pd.DataFrame(
        {
            "parameter": "top_mlp",
            "threshold": [0.001, 0.01, 0.05],
            "accuracy": [60, 50, 40],
            "culture": False,
            "questions": 24,
        }
    )
    figure = figures.threshold_curves(wide)
    assert (
        figure.layout.xaxis.type == "log"
        and figure.layout.shapes[0].x0 == 1.0
        and figure.layout.annotations[0].x == 0.0
    )
    assert figure.data[0].marker.symbol == "circle-open" and "n = 24 questions" in notes(figure)


def test_a_sweep_needs_three_columns_alone():
    figure = figures.threshold_curves(sweep()[["parameter", "threshold", "accuracy"]].iloc[:3])
    assert list(figure.data[-1].y) == pytest.approx([39.5, 39, 38]) and "bands" not in notes(figure)
    with pytest.raises(ScoreError, match="missing: accuracy"):
        figures.threshold_curves(sweep().drop(columns="accuracy"))
    with pytest.raises(ScoreError, match="no rows"):
        figures.threshold_curves(sweep().iloc[:0])
    with pytest.raises(ScoreError, match="row 0 of the sweep"):
        figures.threshold_curves(sweep(accuracy=np.nan))


def test_histogram_bars_hold_every_neuron_and_the_cut_off_takes_the_right_number():
    scores, control = (
        make_scores(widths={Site.MLP_GATE: 3_000, Site.ATTN_V: 1_000}),
        make_scores(seed=1, widths={Site.MLP_GATE: 3_000, Site.ATTN_V: 1_000}),
    )
    figure = figures.score_histogram(scores, control=control)
    assert [int(np.sum(trace.y)) for trace in figure.data] == [12_000, 4_000]
    value = (scores.total(Site.MLP_GATE) - control.total(Site.MLP_GATE)) / 17
    cuts = [shape.x0 for shape in figure.layout.shapes]
    assert (value >= cuts[0]).sum() == 120  # the paper's 1% of 12,000
    assert "top 1% = 120 neurons" in notes(figure) and "top 0.2% = 8 neurons" in notes(figure)


def test_histogram_of_a_set_counts_the_set():
    scores = make_scores()
    neurons = make_set()
    figure = figures.score_histogram(scores, neurons=neurons)
    chosen = [trace for trace in figure.data if trace.name == "in the set"]
    assert sum(int(np.sum(trace.y)) for trace in chosen) == len(neurons)
    one = figures.score_histogram(scores, country="Spain", neurons=make_specific(), thresholds={"top": 0.05})
    assert int(np.sum(one.data[1].y)) == len(make_specific().for_country("Spain"))
    everything = np.concatenate([scores.of("Spain")[site].ravel() for site in WIDTHS]) / 11
    assert (everything >= one.layout.shapes[0].x0).sum() == int(0.05 * everything.size)
    with pytest.raises(NeuronError, match="between 0 and 1"):
        figures.score_histogram(scores, thresholds={"top_mlp": 3})
    with pytest.raises(NeuronError, match="another model"):
        figures.score_histogram(scores, neurons=make_set(9))
