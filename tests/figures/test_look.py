"""What every figure promises: this package's look, Plotly's left alone, colours that all can tell apart,
limits in size and time."""

from __future__ import annotations

import re
import time

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest

from culnig_tl import figures
from culnig_tl.data.neurons import Site
from culnig_tl.figures import theme
from culnig_tl.method.closeup import PromptScores

from .builders import (
    LARGE,
    cells,
    make_prompt,
    make_result,
    make_scores,
    make_set,
    notes,
    sweep,
)

LAYERS = 48
LONG = PromptScores(
    {Site.MLP_GATE: np.broadcast_to(np.float32(0.01), (LAYERS, 300, 15_360))}, ("a",) * 300, "B", 0.5
)


def _small() -> dict[str, go.Figure]:
    scores, neurons = make_scores(), make_set()
    result = make_result(lambda t, c, i: i % 3 > 0)
    return {
        "layer_distribution": figures.layer_distribution(neurons),
        "overlaid": figures.layer_distribution({"a": neurons, "b": make_set(seed=1)}),
        "layer_heatmap": figures.layer_heatmap(neurons),
        "layer_heatmap of scores": figures.layer_heatmap(scores),
        "one layer": figures.layer_heatmap(scores, layer=0),
        "site_heatmap": figures.site_heatmap(scores),
        "country_heatmap": figures.country_heatmap(scores),
        "checkpoint_heatmap": figures.checkpoint_heatmap({"base": neurons}),
        "drop_matrix": figures.drop_matrix(result, {"Spain": result}),
        "accuracy_bars": figures.accuracy_bars(result),
        "threshold_curves": figures.threshold_curves(sweep()),
        "score_histogram": figures.score_histogram(scores, neurons=neurons),
        "token_heatmap": figures.token_heatmap(make_prompt()),
        "neuron_card": figures.neuron_card(scores, ("mlp.gate", 1, 2)),
    }


def test_figures_never_show_themselves_and_leave_plotlys_templates_alone(monkeypatch):
    def shown(*args, **kwargs):
        raise AssertionError("a figure showed itself")

    monkeypatch.setattr(go.Figure, "show", shown)
    monkeypatch.setattr(pio, "show", shown)
    monkeypatch.setattr(pio.templates, "default", "ggplot2")
    before = set(pio.templates)
    made = _small()
    assert pio.templates.default == "ggplot2" and set(pio.templates) == before
    for name, figure in made.items():
        assert isinstance(figure, go.Figure), name
        assert figure.layout.template.layout.colorway == tuple(theme.PALETTE), name


def test_titles_tell_n_and_axes_have_names():
    for name, figure in _small().items():
        if name != "threshold_curves":
            assert re.search(r"\bn = \d", notes(figure)), name
        for axes in (list(figure.select_xaxes()), list(figure.select_yaxes())):
            assert name == "neuron_card" or any(axis.title.text for axis in axes), name
        if figure.layout.coloraxis.colorscale and figure.layout.coloraxis.showscale is not False:
            assert figure.layout.coloraxis.colorbar.title.text, name


def test_scores_of_queries_and_keys_come_with_a_caution():
    scores = make_scores()
    for figure in (
        figures.layer_heatmap(scores),
        figures.site_heatmap(scores),
        figures.token_heatmap(make_prompt()),
        figures.neuron_card(scores, ("attn.k", 0, 0)),
    ):
        assert "do not see attention's softmax saturate" in notes(figure)
    for figure in (
        figures.layer_heatmap(scores, sites=["mlp.gate", "attn.v"]),
        figures.neuron_card(scores, ("attn.v", 0, 0)),
        figures.site_heatmap(make_set()),
    ):
        assert "saturate" not in notes(figure)


def test_scales_are_centred_on_nothing():
    for name, figure in _small().items():
        axis = figure.layout.coloraxis
        if axis.cmin is not None:
            assert axis.cmin in (0, -axis.cmax) and axis.cmax > 0, name


def _lab(colour: str, matrix: np.ndarray) -> np.ndarray:
    """CIELAB of a colour as someone sees it whose cones are changed by `matrix`."""
    rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
    linear = np.clip(matrix @ np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4), 0, 1)
    xyz = (
        np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
        @ linear
        / np.array([0.9505, 1.0, 1.089])
    )
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


VISION = {  # Machado, Oliveira and Fernandes (2009), full severity
    "usual": np.eye(3),
    "no red cones": np.array(
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]
    ),
    "no green cones": np.array(
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
    ),
    "no blue cones": np.array(
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]
    ),
}


@pytest.mark.parametrize("eyes", VISION)
def test_colours_differ_for_every_kind_of_eyes(eyes):
    for colours in (
        theme.PALETTE[:5],
        tuple(theme.SITE_COLOURS[s] for s in (Site.MLP_GATE, Site.ATTN_Q, Site.ATTN_K, Site.ATTN_V)),
    ):
        seen = [_lab(colour, VISION[eyes]) for colour in colours]
        closest = min(np.linalg.norm(a - b) for i, a in enumerate(seen) for b in seen[:i])
        assert closest > 10, (eyes, closest)
    lightness = [_lab(colour, VISION[eyes])[0] for _, colour in theme.SEQUENTIAL]
    assert all(a > b for a, b in zip(lightness, lightness[1:]))


@pytest.fixture(scope="module")
def large():
    scores = make_scores(LAYERS, widths=LARGE, countries=("Spain", "Iran"))
    return (
        scores,
        make_scores(LAYERS, widths=LARGE, countries=("Spain", "Iran"), seed=1),
        make_set(LAYERS, count=8_087, widths=LARGE),
    )


@pytest.mark.parametrize(
    "draw",
    [
        lambda s, c, g: figures.layer_distribution({"general": g, "again": g}),
        lambda s, c, g: figures.layer_heatmap(g),
        lambda s, c, g: figures.layer_heatmap(s, control=c),
        lambda s, c, g: figures.layer_heatmap(s, layer=20),
        lambda s, c, g: figures.site_heatmap(s, control=c),
        lambda s, c, g: figures.country_heatmap(s, control=c),
        lambda s, c, g: figures.checkpoint_heatmap({"base": s, "SFT": c}),
        lambda s, c, g: figures.checkpoint_heatmap({"base": g, "SFT": g}),
        lambda s, c, g: figures.score_histogram(s, control=c, neurons=g),
        lambda s, c, g: figures.neuron_card(s, ("mlp.gate", 30, 15_000), control=c),
        lambda s, c, g: figures.token_heatmap(LONG, g),
    ],
)
def test_large_models_stay_small_and_quick(large, draw):
    start = time.process_time()
    figure = draw(*large)
    assert cells(figure) <= 10_100
    assert time.process_time() - start < 2
