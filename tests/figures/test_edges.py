"""Empty sets, one layer, one country, equal scores, NaN: a figure that says so, or a clear error."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import pytest

from culnig_tl import figures
from culnig_tl.data.neurons import Site
from culnig_tl.errors import CulnigError

from .builders import (
    COUNTRIES,
    WIDTHS,
    empty_set,
    make_prompt,
    make_result,
    make_scores,
    make_set,
    make_specific,
    notes,
)


def drawable(figure: go.Figure) -> go.Figure:
    """A figure whose JSON is whole, with a title that tells n or what is wrong."""
    assert "NaN" not in figure.to_json()
    assert "nan" not in notes(figure).lower()
    return figure


@pytest.mark.parametrize(
    "draw",
    [
        figures.layer_distribution,
        lambda s: figures.layer_distribution({"a": s, "b": s}),
        figures.layer_heatmap,
        lambda s: figures.layer_heatmap(s, value="score"),
        lambda s: figures.layer_heatmap(s, layer=1),
        figures.site_heatmap,
        lambda s: figures.checkpoint_heatmap({"base": s, "SFT": s}, scale="column"),
        lambda s: figures.token_heatmap(make_prompt(4), s),
    ],
)
def test_an_empty_set_is_a_figure_that_says_so(draw):
    assert "no neurons" in notes(drawable(draw(empty_set())))


def test_an_empty_culture_specific_set_says_so_too():
    table = make_specific().table.iloc[:0]
    empty = type(empty_set())(table, make_specific().provenance)
    assert "no neurons in this set" in notes(drawable(figures.country_heatmap(empty)))
    with pytest.raises(CulnigError, match="has no countries"):
        figures.country_heatmap(make_set())


def test_one_set_of_several_may_be_empty():
    figure = drawable(figures.layer_distribution({"none": empty_set(), "some": make_set()}))
    assert "no neurons" not in notes(figure)


def test_one_layer():
    neurons, scores = make_set(1, count=5), make_scores(1)
    assert sum(np.sum(t.y) for t in figures.layer_distribution(neurons).data if t.type == "bar") == 5
    for draw in (figures.layer_heatmap, figures.site_heatmap):
        assert np.asarray(drawable(draw(neurons)).data[0].z).shape[0] == 1
        assert np.asarray(drawable(draw(scores)).data[0].z).shape[0] == 1
    drawable(figures.score_histogram(scores))
    assert np.asarray(drawable(figures.token_heatmap(make_prompt(1), neurons)).data[0].z).shape == (1, 4)


def test_one_country():
    one = make_scores(countries=("Spain",))
    assert np.asarray(drawable(figures.country_heatmap(one)).data[0].z).shape == (4, 1)
    assert "shared pattern" not in notes(figures.country_heatmap(one))
    assert np.asarray(
        drawable(figures.country_heatmap(make_specific(countries=("Spain",)))).data[0].z
    ).shape == (4, 1)
    before, after = (
        make_result(lambda t, c, i, k=k: i % k > 0, countries=("Spain",), tasks=("blend",)) for k in (5, 2)
    )
    assert np.asarray(drawable(figures.drop_matrix(before, {"Spain": after})).data[0].z).shape == (1, 1)


@pytest.mark.parametrize("fill", [0.0, 1.5, -1.5])
def test_equal_scores(fill):
    scores = make_scores(fill=fill)
    assert "all scores are equal" in notes(drawable(figures.layer_heatmap(scores)))
    histogram = drawable(figures.score_histogram(scores))
    assert "all scores are equal" in notes(histogram)
    assert [int(np.sum(trace.y)) for trace in histogram.data] == [4 * 40, 4 * 24]
    for figure in (
        figures.layer_heatmap(scores),
        figures.site_heatmap(scores),
        figures.country_heatmap(scores),
    ):
        assert figure.layout.coloraxis.cmin < figure.layout.coloraxis.cmax


def test_a_prompt_without_attribution_says_so():
    prompt = make_prompt()
    for array in prompt.arrays.values():
        array[:] = 0
    assert "0 everywhere" in notes(drawable(figures.token_heatmap(prompt)))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize(
    "draw",
    [
        figures.layer_heatmap,
        figures.site_heatmap,
        figures.country_heatmap,
        figures.score_histogram,
        lambda s: figures.checkpoint_heatmap({"base": s}),
        lambda s: figures.neuron_card(s, ("mlp.gate", 2, 7)),
        lambda s: figures.neuron_card(s, ("mlp.gate", 0, 0)),
    ],
)
def test_scores_that_are_no_numbers_are_an_error_that_names_the_neuron(draw, bad):
    scores = make_scores()
    scores.arrays[Site.MLP_GATE][1, 2, 7] = bad
    with pytest.raises(CulnigError, match="NaN or infinite") as caught:
        draw(scores)
    assert "layer 2, neuron 7" in str(caught.value) or "(mlp.gate, 2, 7)" in str(caught.value)


def test_a_prompt_with_nan_is_an_error():
    prompt = make_prompt()
    prompt.arrays[Site.ATTN_V][0, 1, 2] = np.nan
    with pytest.raises(CulnigError, match="NaN"):
        figures.token_heatmap(prompt)


def test_results_without_an_error_to_show():
    single = make_result(lambda t, c, i: True, tasks=("blend",), questions=3)
    figure = drawable(figures.accuracy_bars(single))
    assert list(figure.data[0].error_y.array) == [0] and "all questions are one cluster" in notes(figure)
    with pytest.raises(CulnigError, match="no results"):
        figures.accuracy_bars({})
    with pytest.raises(CulnigError, match="holds no question"):
        figures.accuracy_bars({"none": type(single)(single.table.iloc[:0])})
    with pytest.raises(CulnigError, match="has a country"):
        figures.accuracy_bars(make_result(lambda *_: True, tasks=("commonsenseqa",)), by="country")


def test_scores_of_one_site_and_countries_have_no_empty_panel():
    scores = make_scores(widths={Site.ATTN_V: 6}, countries=COUNTRIES)
    assert len(figures.score_histogram(scores).data) == 1
    assert len(figures.layer_heatmap(make_scores(widths=WIDTHS), sites=["attn.v"]).data) == 2
