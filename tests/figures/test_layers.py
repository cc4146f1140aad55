"""Bars, lines and heatmaps of layers hold the numbers of the set."""

from __future__ import annotations

import numpy as np
import pytest

from culnig_tl import figures
from culnig_tl.data.neurons import NeuronSet, Site
from culnig_tl.errors import NeuronError, ScoreError

from .builders import WIDTHS, make_scores, make_set, make_specific, notes


def bars(figure):
    return {trace.name.partition(" ")[0]: np.asarray(trace.y) for trace in figure.data if trace.type == "bar"}


def test_a_layers_bars_sum_to_the_sets_count():
    neurons = make_set()
    drawn = bars(figures.layer_distribution(neurons))
    assert sum(drawn.values()).tolist() == neurons.counts("layer").reindex(range(4), fill_value=0).tolist()
    assert {site: int(y.sum()) for site, y in drawn.items()} == neurons.counts("site").to_dict()


def test_shares_sum_to_100_and_hovering_tells_the_share_of_the_pool():
    neurons = make_set()
    figure = figures.layer_distribution(neurons, show="share")
    assert sum(y.sum() for y in bars(figure).values()) == pytest.approx(100)
    count = len(neurons.indices[Site.MLP_GATE, 2])
    gate = next(trace for trace in figure.data if trace.name.startswith("mlp.gate"))
    assert f"{100 * count / 40:.2f}% of the layer's 40" in gate.hovertext[2]


def test_the_baseline_is_the_set_spread_evenly_over_its_pool():
    neurons = make_set(count=60)
    line = figures.layer_distribution(neurons).data[-1]
    assert list(line.y) == [15, 15]
    both = figures.layer_distribution({"a": neurons, "b": make_set(count=30, seed=1)})
    dotted = [trace for trace in both.data if trace.legendgroup == "a" and trace.line.dash == "dot"]
    attention = sum(n for site, n in neurons.counts("site").items() if site.startswith("attn"))
    assert [trace.y[0] for trace in dotted] == pytest.approx(
        [neurons.counts("site")["mlp.gate"] / 4, *(attention * width / 24 / 4 for width in (12, 6, 6))]
    )
    assert not [
        trace for trace in figures.layer_distribution(neurons, baseline=False).data if trace.type == "scatter"
    ]


def test_overlaid_sets_keep_their_counts_site_by_site():
    sets = {"general": make_set(), "random": make_set(seed=3, scored=False)}
    figure = figures.layer_distribution(sets, baseline=False)
    for name, neurons in sets.items():
        lines = [np.asarray(trace.y) for trace in figure.data if trace.legendgroup == name]
        assert sum(lines).sum() == len(neurons)
        assert [int(line.sum()) for line in lines] == [
            int(neurons.counts("site")[site.value]) for site in WIDTHS
        ]
    assert "n = 60" in figure.data[0].name


def test_a_bin_counts_its_neurons_and_names_the_strongest():
    neurons = make_set(2, count=400, widths={Site.MLP_GATE: 9_000})
    figure = figures.layer_heatmap(neurons)
    z, hover = np.asarray(figure.data[0].z), figure.data[0].hovertext
    assert z.sum() == 400 and z.shape == (2, 3_000)
    assert z.sum(axis=1).tolist() == neurons.counts("layer").tolist()
    best = neurons.top(1).iloc[0]
    cell = hover[int(best["layer"])][int(best["neuron"]) // 3]
    assert f"<br>mlp.gate, layer {best['layer']}, neuron {best['neuron']}: {best['score']:.4g}" in cell
    assert figure.data[0].x[int(best["neuron"]) // 3] == 3 * (int(best["neuron"]) // 3) + 1


def test_a_bin_of_scores_shows_its_strongest_neuron_whatever_its_sign():
    scores = make_scores(2, widths={Site.MLP_GATE: 9_001})
    figure = figures.layer_heatmap(scores)
    total = scores.total(Site.MLP_GATE) / 17
    z = np.asarray(figure.data[0].z)
    assert z.shape == (2, 3_001)
    for b in (0, 17, 3_000):  # the last bin holds a single neuron
        part = total[:, 3 * b : 3 * b + 3]
        assert z[:, b] == pytest.approx(np.take_along_axis(part, np.abs(part).argmax(1)[:, None], 1)[:, 0])
    named = figure.data[0].hovertext[1][17].split("<br>")[1:]
    order = np.argsort(-np.abs(total[1, 51:54]))
    assert named == [
        f"mlp.gate, layer 1, neuron {51 + i}: {total[1, 51 + i]:.4g}".replace("-", "−") for i in order
    ]
    assert figure.layout.coloraxis.cmin == -figure.layout.coloraxis.cmax


def test_control_and_country_are_taken_a_question_against_a_question():
    scores, control = make_scores(), make_scores(seed=1, task="blend:control")
    site = Site.ATTN_Q
    figure = figures.layer_heatmap(scores, sites=[site], control=control, country="Spain")
    wanted = scores.of("Spain")[site] / 11 - control.of("Spain")[site] / 11
    assert np.asarray(figure.data[0].z) == pytest.approx(wanted)
    assert (
        "Spain" in notes(figure)
        and "n = 33 questions in 11 clusters" in notes(figure)
        and "minus blend:control" in notes(figure)
    )


def test_the_menu_zooms_into_single_neurons_of_each_layer():
    scores = make_scores(widths=WIDTHS)
    figure = figures.layer_heatmap(scores)
    buttons = figure.layout.updatemenus[0].buttons
    assert [button.label for button in buttons] == [f"layer {i}" for i in range(4)]
    change, axis, traces = buttons[2].args
    assert [figure.data[t].type for t in traces] == ["scatter"] * 4
    for place, site in enumerate(WIDTHS):
        assert change["y"][place] == pytest.approx((scores.total(site)[2] / 17)[change["x"][place]].tolist())
    assert sum(map(len, change["x"])) == sum(WIDTHS.values())
    ranges = [value for key, value in axis.items() if key.endswith("range")]
    assert all(low < min(0, *y) and high > max(0, *y) for (low, high), y in zip(ranges, change["y"]))


def test_one_layer_alone_shows_every_neuron_up_to_the_limit():
    scores = make_scores()
    figure = figures.layer_heatmap(scores, layer=1)
    assert [len(trace.x) for trace in figure.data] == list(WIDTHS.values())
    assert np.asarray(figure.data[0].y) == pytest.approx(scores.total(Site.MLP_GATE)[1] / 17)
    wide = figures.layer_heatmap(
        make_scores(1, widths={Site.MLP_GATE: 12_000}, countries=("Spain",)), layer=0
    )
    assert len(wide.data[0].x) == 10_000 and "10,000 strongest of 12,000" in notes(wide)


def test_a_set_can_be_coloured_by_score():
    neurons = make_set()
    z = np.asarray(figures.layer_heatmap(neurons, value="score", sites=["mlp.gate"]).data[0].z)
    rows = neurons.table[neurons.table["site"] == "mlp.gate"]
    assert np.isfinite(z).sum() == len(rows)
    assert z[rows["layer"], rows["neuron"]] == pytest.approx(rows["score"].to_numpy())


def test_site_heatmap_counts_shares_and_means():
    neurons, scores = make_set(), make_scores()
    counts = np.asarray(figures.site_heatmap(neurons).data[0].z)
    assert counts.sum(0).tolist() == [neurons.counts("site")[site.value] for site in WIDTHS]
    shares = np.asarray(figures.site_heatmap(neurons, show="share").data[0].z)
    assert shares == pytest.approx(100 * counts / np.array(list(WIDTHS.values())))
    means = np.asarray(figures.site_heatmap(scores).data[0].z)
    assert means[3, 1] == pytest.approx(scores.arrays[Site.ATTN_Q][:, 3].sum() / 17 / 12, rel=1e-5)


def test_checkpoints_hold_counts_or_shares_of_their_own_set():
    sets = {"base": make_set(), "SFT": make_set(count=30, seed=1), "DPO": make_set(count=10, seed=2)}
    linear = np.asarray(figures.checkpoint_heatmap(sets).data[0].z)
    assert linear.sum(0).tolist() == [60, 30, 10]
    assert linear[:, 1].tolist() == sets["SFT"].counts("layer").reindex(range(4), fill_value=0).tolist()
    column = np.asarray(figures.checkpoint_heatmap(sets, scale="column").data[0].z)
    assert column == pytest.approx(100 * linear / linear.sum(0))


def test_checkpoints_of_scores_are_means_over_the_layers_neurons():
    scores = {"base": make_scores(), "SFT": make_scores(3, seed=1)}
    z = np.asarray(figures.checkpoint_heatmap(scores).data[0].z)
    everything = np.concatenate([scores["SFT"].total(site)[2] for site in WIDTHS]) / 17
    assert z[2, 1] == pytest.approx(everything.mean(), rel=1e-4) and np.isnan(z[3, 1])
    normalised = np.asarray(figures.checkpoint_heatmap(scores, scale="column").data[0].z)
    assert np.nanmax(np.abs(normalised), axis=0) == pytest.approx([100, 100])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: figures.layer_distribution({}), "no set of neurons"),
        (lambda: figures.layer_heatmap(make_set(), layer=9), "layers are 0 to 3"),
        (lambda: figures.layer_heatmap(make_set(scored=False), value="score"), 'value="count"'),
        (lambda: figures.layer_heatmap(make_set(), control=make_scores()), "this is a NeuronSet"),
        (lambda: figures.layer_heatmap(make_set(), country="Spain"), "no neurons of 'Spain'"),
        (lambda: figures.layer_heatmap(make_scores(), value="count"), "nothing to count"),
        (lambda: figures.layer_heatmap(make_scores(), sites=["mlp.post"]), "no scores of mlp.post"),
        (lambda: figures.layer_heatmap(make_scores(), control=make_scores(3)), "different models"),
        (lambda: figures.layer_heatmap(make_scores(), country="Peru"), "no scores of 'Peru'"),
        (
            lambda: figures.site_heatmap(NeuronSet.from_indices([("mlp.gate", 0, 1)]), show="share"),
            "provenance.pool",
        ),
        (lambda: figures.checkpoint_heatmap({}), "no checkpoint"),
        (
            lambda: figures.checkpoint_heatmap({"a": make_set(), "b": make_scores()}),
            "all NeuronSets or all NeuronScores",
        ),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises((NeuronError, ScoreError), match=message):
        call()


def test_a_set_of_the_users_own_needs_no_pool():
    neurons = NeuronSet.from_indices([("mlp.gate", 2, 7), ("mlp.gate", 0, 3), ("attn.v", 1, 0)])
    assert sum(y.sum() for y in bars(figures.layer_distribution(neurons)).values()) == 3
    assert np.asarray(figures.layer_heatmap(neurons).data[0].z).shape == (3, 8)
    assert np.asarray(figures.site_heatmap(neurons).data[0].z).shape == (3, 2)


def test_neurons_of_several_countries_count_once_per_country_and_the_figure_says_so():
    neurons = make_specific()
    figure = figures.layer_distribution(neurons)
    assert sum(y.sum() for y in bars(figure).values()) == len(neurons)
    assert "once per country (3 countries)" in notes(figure)


def test_layers_that_a_set_does_not_know_can_be_given():
    unknown = NeuronSet.from_indices([("mlp.gate", 1, 0)])
    (gate,) = bars(figures.layer_distribution(unknown, layers=6)).values()
    assert gate.tolist() == [0, 1, 0, 0, 0, 0]


def test_too_few_layers_are_refused():
    with pytest.raises(NeuronError, match="neurons in layer 1: layers must be 2 or more"):
        figures.layer_distribution(NeuronSet.from_indices([("mlp.gate", 1, 0)]), layers=1)
