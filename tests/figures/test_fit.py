"""Figures at the size of a column, a page, a slide: what is left out and rearranged, one size of text."""

from __future__ import annotations

import json

import numpy as np
import pytest

from culnig_tl import figures
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.errors import CulnigError, NeuronError
from culnig_tl.figures.fit import caption_of, fit
from culnig_tl.figures.values import given

from ..studies import CASES, made_study
from .builders import curves, make_scores, make_set, make_specific

COLUMN, EIGHT_POINTS = 336, 32 / 3


def sizes(part) -> set[float]:
    """Every size of text in a figure."""
    found = set()
    if isinstance(part, dict):
        for key, value in part.items():
            found |= {value["size"]} if key.endswith("font") and "size" in value else sizes(value)
    elif isinstance(part, list):
        for value in part:
            found |= sizes(value)
    return found


def test_title_and_small_print_become_the_caption():
    figure = figures.layer_distribution(make_set())
    assert caption_of(figure) == "Where the culture-general neurons sit. N = 60 neurons in 4 layers."
    assert fit(figure, width=COLUMN).layout.title.text is None


def test_all_text_has_one_size():
    figure = fit(figures.layer_heatmap(make_scores()), width=COLUMN, text=EIGHT_POINTS)
    layout = json.loads(figure.to_json())["layout"]
    del layout["template"]
    assert sizes(layout) <= {EIGHT_POINTS}


def test_the_row_of_single_neurons_and_the_menu_stay_on_the_screen():
    whole = figures.layer_heatmap(make_set())
    figure = fit(whole, width=COLUMN)
    assert {trace.type for trace in figure.data} == {"heatmap"} and not figure.layout.updatemenus
    assert {trace.type for trace in whole.data} == {"heatmap", "scatter"}


def test_panels_are_stacked_in_a_column_and_side_by_side_on_a_page():
    figure = figures.method_curves(curves())
    column, page = fit(figure, width=COLUMN).layout, fit(figure, width=672).layout
    assert column.xaxis.domain == column.xaxis2.domain == (0, 1)
    assert column.yaxis.domain[0] > column.yaxis2.domain[1]
    assert page.xaxis.domain[1] < page.xaxis2.domain[0]


def test_the_legend_is_below_and_counts_in_the_height():
    figure = figures.layer_distribution(make_set())
    with_legend, without = (fit(figure.update_layout(showlegend=s), width=COLUMN) for s in (True, False))
    assert with_legend.layout.legend.yref == "container" and with_legend.layout.legend.y == 0
    assert with_legend.layout.height > without.layout.height


def test_numbers_leave_cells_that_are_too_small():
    figure = figures.country_heatmap(make_specific(countries=[f"country {i}" for i in range(24)]))
    assert figure.data[0].texttemplate
    assert not fit(figure, width=COLUMN, text=EIGHT_POINTS).data[0].texttemplate
    assert fit(figure, width=1280, height=720, text=EIGHT_POINTS).data[0].texttemplate


def test_named_rows_never_overlap():
    names = [f"country {i}" for i in range(40)]
    study = made_study(own={"food": 0.5}, countries=names[:3])
    figure = figures.accuracy_changes(study)
    drawn = fit(figure.update_yaxes(tickvals=list(range(40)), ticktext=names), width=COLUMN, text=10)
    assert (drawn.layout.height - drawn.layout.margin.t - drawn.layout.margin.b) / 40 >= 10


def test_a_slide_has_its_shape():
    drawn = fit(figures.layer_distribution(make_set()), width=1280, height=720, text=24)
    assert (drawn.layout.width, drawn.layout.height) == (1280, 720)


def test_saving_with_a_preset_returns_the_caption(tmp_path):
    saved = figures.save_figure(figures.layer_distribution(make_set()), tmp_path / "a.html", preset="column")
    assert saved.path.is_file() and saved.caption.startswith("Where the culture-general neurons sit.")
    assert "<title" not in saved.path.read_text(encoding="utf-8").split("plotly-graph-div")[-1][:200]
    with pytest.raises(CulnigError, match="unknown preset 'poster': there are column, page, slide"):
        figures.save_figure(figures.layer_distribution(make_set()), tmp_path / "b.html", preset="poster")


def test_a_set_of_single_neurons_has_two_colours_and_no_bar():
    axis = figures.layer_heatmap(make_set()).layout.coloraxis
    assert axis.showscale is False and len({colour for _, colour in axis.colorscale}) == 2


def test_each_site_has_its_own_scale_in_the_lower_row():
    scores = make_scores()
    scores.arrays["attn.v"][:] *= 1000
    layout = figures.layer_heatmap(scores).layout
    gate, v = (np.ptp(layout[f"yaxis{n}"].range) for n in (5, 8))
    assert layout.yaxis8.matches is None and v > 100 * gate


@pytest.mark.parametrize(
    "draw", [figures.layer_distribution, figures.layer_heatmap, figures.site_heatmap, figures.depth_bars]
)
def test_a_study_is_drawn_by_its_culture_general_neurons(draw):
    study = made_study(**CASES["shown"])
    assert draw(study).to_json() == draw(study.neurons["culture-general"]).to_json()


def test_what_a_figure_cannot_draw_is_named_with_what_it_can():
    with pytest.raises(NeuronError, match="a NeuronSet, or a Study .*not a NeuronScores; layer_heatmap"):
        given(make_scores(), "layer_distribution", NeuronSet)
    with pytest.raises(NeuronError, match="depth_bars draws a NeuronSet, or a Study.* not a list"):
        given([1, 2], "depth_bars", NeuronSet)
