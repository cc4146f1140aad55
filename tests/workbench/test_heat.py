"""The workbench's heatmap, and the picture that stays where no kernel runs."""

from __future__ import annotations

import base64
import re
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from culnig_tl import explore
from culnig_tl.data.neurons import NeuronSet, Site
from culnig_tl.workbench.heat import draw
from culnig_tl.workbench.page import _png
from culnig_tl.workbench.source import ALL, SELECTION, Choice


def test_view_starts_with_the_first_set(view, study):
    assert view.set_name == "culture-general" and view.selection == study.neurons["culture-general"]
    assert view.selection.provenance is study.neurons["culture-general"].provenance
    assert view.operation == "unchanged" and view.neuron is None and view.answers is None and view.error == ""
    assert view.question.startswith("Question:") and view.answer_prefix


@pytest.mark.parametrize(
    "choice",
    [Choice("culture-general"), Choice("culture-specific", "Spain"), Choice(ALL, "Iran", Site.ATTN_Q, 2)],
)
def test_cells_show_the_score_farthest_from_zero(view, study, choice):
    drawn = draw(view.source, choice, view.selection, None)
    scores, control = study.scores["neuron"], study.scores["control"]
    neurons = None if choice.name == ALL else study.neurons[choice.name]
    if neurons is not None and choice.country:
        neurons = neurons.for_country(choice.country)
    assert [panel.site for panel in drawn.panels] == ([choice.site] if choice.site else list(scores.sites))
    for panel in drawn.panels:
        for layer in range(scores.layers):
            for cell in range(panel.cells.shape[1]):
                best = np.nan
                for neuron in range(
                    cell * panel.size, min((cell + 1) * panel.size, scores.widths[panel.site])
                ):
                    if neurons is not None and (panel.site.value, layer, neuron) not in neurons.keys():
                        continue
                    values = []
                    for part in (scores, control):
                        every = part.arrays[panel.site][:, layer, neuron]
                        if choice.country is None:
                            values.append(every.sum() / part.clusters)
                        else:
                            row = part.countries.index(choice.country)
                            values.append(every[row] / part.country_clusters[row])
                    value = values[0] - values[1]
                    if np.isnan(best) or abs(value) > abs(best):
                        best = value
                np.testing.assert_allclose(panel.cells[layer, cell], best, rtol=1e-4, atol=1e-7)


def test_cell_holds_its_neurons_strongest_first(view):
    panel = draw(view.source, Choice(ALL), view.selection, None).panels[0]
    keys = panel.cell(1, panel.centres[3])
    assert {key[2] for key in keys} == set(range(3 * panel.size, 4 * panel.size)) and {
        key[:2] for key in keys
    } == {("mlp.gate", 1)}
    strengths = [abs(panel.values[1, key[2]]) for key in keys]
    assert strengths == sorted(strengths, reverse=True)


def test_heatmap_answers_to_every_choice(view, study):
    title = lambda: view._heat.heading.value  # noqa: E731
    view.country = "Spain"
    view.wait()
    assert "Spain" in title()
    view.layer = 4
    view.wait()
    assert view._heat.drawn.layer == 4 and "layer 4" in view._heat.figure.layout.yaxis5.title.text
    view.site = "attn.v"
    view.wait()
    assert len(view._heat.figure.data) == 4 and view._heat.box.children[-1] is view._heat.figure
    view.site, view.country, view.set_name = None, None, SELECTION
    view.selection = study.neurons["culture-general"] & NeuronSet(
        study.neurons["culture-general"].table.head(3)
    )
    view.wait()
    assert view._heat.drawn.title == "My selection" and "3 neurons" in view._heat.drawn.small
    shown = [panel.values for panel in view._heat.drawn.panels]
    assert sum(int(np.isfinite(values).sum()) for values in shown) == 3
    view.selection = view.selection - view.selection
    view.wait()
    assert view._heat.figure.layout.annotations[-1].text == "this set has no neurons here"


def test_menus_and_traits_are_one(view):
    menus = {menu.description: menu for menu in view.children[1].children if hasattr(menu, "options")}
    view.country = "Iran"
    assert menus["Country"].value == "Iran"
    menus["Country"].value = ""
    assert view.country is None
    menus["Layer"].value = 3
    assert view.layer == 3


def test_static_part_needs_no_script_and_escapes_names(study):
    view = explore(study, neurons={"<script>alert(1)</script>": study.neurons["culture-general"]})
    text = view.static_html()
    assert "<script" not in text and "&lt;script&gt;" in text
    assert text.count("<image ") == 4 and text.count("<tr") == 21 and "http" not in text
    assert len(text) < 100_000


def test_display_publishes_the_live_view_and_what_stays(view, capsys):
    from IPython.core.interactiveshell import InteractiveShell
    from IPython.utils.capture import capture_output

    InteractiveShell.instance()
    try:
        with capture_output() as captured:
            view._ipython_display_()
        live, static = captured.outputs
        assert "application/vnd.jupyter.widget-view+json" in live.data
        assert f"culnig-static-{view._id}" in static.data["text/html"]
        assert f".culnig-static-{view._id} {{ display: none }}" in view.children[0].children[0].value, (
            "the live view hides it"
        )
    finally:
        InteractiveShell.clear_instance()


def test_a_cell_of_the_static_picture_is_one_pixel(view):
    text = view.static_html()
    pictures = re.findall(r"data:image/png;base64,([^']+)", text)
    sizes = [Image.open(BytesIO(base64.b64decode(picture))).size for picture in pictures]
    assert sizes == [panel.cells.shape[::-1] for panel in view._heat.drawn.panels]


def test_the_static_picture_is_grey_where_the_set_has_no_neuron(view):
    cells = view._heat.drawn.panels[0].cells
    picture = re.findall(r"data:image/png;base64,([^']+)", view.static_html())[0]
    pixels = np.array(Image.open(BytesIO(base64.b64decode(picture))))[::-1]  # layer 0 at the bottom
    grey = (pixels == [0xE4, 0xE7, 0xEA]).all(-1)
    np.testing.assert_array_equal(grey, np.isnan(cells))


def test_a_score_beyond_the_reach_has_the_last_colour():
    """Red above 0, blue below, as in the figures."""
    picture = base64.b64decode(_png(np.array([[-3.0, 0.0, 3.0]]), 1.0))
    (blue, white, red) = np.array(Image.open(BytesIO(picture)))[0].astype(int)
    assert blue[2] > blue[0] + 50 and red[0] > red[2] + 50 and white.min() > 240
