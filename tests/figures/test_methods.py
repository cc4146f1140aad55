"""Figures of methods, enhancing and stability: what is drawn is what the tables say."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from culnig_tl import figures
from culnig_tl.errors import NeuronError, ScoreError
from culnig_tl.figures import theme

from .builders import METHODS, SITES, agreement, cross, curves, enhancement, stable


def test_agreement_has_a_mark_for_each_method_and_site():
    table = agreement()
    figure = figures.method_agreement(table)
    assert [t.name for t in figure.data] == ["all sites", *SITES]
    gate = figure.data[1]
    assert list(gate.y) == list(METHODS) and list(figure.data[2].y) == [
        m for m in METHODS if m not in ("lape", "cape")
    ]
    assert gate.x[0] == pytest.approx(0.9) and figure.layout.yaxis.categoryarray[-1] == "culnig"
    assert len({t.marker.symbol for t in figure.data}) == 5
    assert figures.method_agreement(table, measure="precision_5").data[0].x[0] == 0.6
    for wrong in (
        lambda: figures.method_agreement(table, measure="r"),
        lambda: figures.method_agreement(table.drop(columns="site")),
    ):
        with pytest.raises(ScoreError):
            wrong()


def test_curves_average_the_tasks_of_a_kind():
    figure = figures.method_curves(curves())
    assert len(figure.data) == 2 * len(METHODS)
    assert list(figure.data[0].x) == [0, 10, 20, 40] and figure.data[0].y[0] == 90
    other = next(t for t in figure.data[len(METHODS) :] if t.name == "culnig")
    assert other.y[0] == pytest.approx(89.5), "the mean of sense and other"
    looks = {(t.line.color, t.line.dash, t.marker.symbol) for t in figure.data[: len(METHODS)]}
    assert len(looks) == len(METHODS), "every method looks its own way"
    with pytest.raises(ScoreError):
        figures.method_curves(curves()[:0])


def test_selectivity_draws_culture_over_the_worst_other():
    table = pd.DataFrame(
        {
            "method": ["a", "a", "b", "b"],
            "neurons": [0, 10, 0, 10],
            "culture_lost": [0.0, 8.0, 0.0, 4.0],
            "worst_lost": [0.0, 2.0, 0.0, -1.0],
            "worst_task": ["", "sums", "", "sums"],
        }
    )
    figure = figures.method_selectivity(table)
    assert [t.name for t in figure.data] == ["a", "b", "as much", "twice as much"]
    assert list(figure.data[0].x) == [0, 2] and list(figure.data[0].y) == [0, 8]
    assert list(figure.data[3].x) == [0, 4] and list(figure.data[3].y) == [0, 8]
    assert "10 neurons suppressed: culture 4.0, sums −1.0" in figure.data[1].hovertext[1]
    with pytest.raises(ScoreError):
        figures.method_selectivity(table.drop(columns="worst_lost"))


def test_overlap_is_a_square():
    names = list(METHODS)
    table = pd.DataFrame(np.eye(len(names)), index=names, columns=names)
    figure = figures.method_overlap(table, 130)
    assert np.array_equal(figure.data[0].z, np.eye(len(names))) and figure.layout.coloraxis.cmax == 1
    assert "130 neurons" in figure.layout.title.text
    with pytest.raises(ScoreError):
        figures.method_overlap(table[names[::-1]], 130)


def test_enhancement_starts_at_no_change_and_pools_countries():
    figure = figures.enhancement_curves(enhancement())
    assert {t.name for t in figure.data} == {"culture-general", "random by layer", "each country's own"}
    for trace in figure.data:
        assert trace.x[0] == 1 and trace.y[0] == 0 and len(trace.x) == 4
    assert figure.data[0].error_y.array[1] == pytest.approx(1)
    single = enhancement()
    assert "Iran's own" in {
        t.name for t in figures.enhancement_curves(single[single["set"] != "each country's own"]).data
    }
    with pytest.raises(ScoreError):
        figures.enhancement_curves(single.drop(columns="low"))


def test_returns_count_every_neuron_once():
    neurons = stable()
    figure = figures.returns_histogram(neurons)
    assert sum(sum(t.y) for t in figure.data) == 2 * len(neurons)
    assert {t.name for t in figure.data} == {"mlp.gate", "attn.v"}
    wordings = [t for t in figure.data if t.xaxis == "x2"]
    assert all(set(np.round(t.x, 6)) <= {k / 5 for k in range(6)} for t in wordings)
    assert sum(sum(t.y) for t in figures.returns_histogram(stable(("returns",))).data) == 50
    with pytest.raises(NeuronError, match="how often"):
        figures.returns_histogram(stable(()))


def test_cross_effects():
    figure = figures.cross_effects(cross())
    assert figure.data[0].z.tolist() == [[0.5, -0.5], [1.5, 0.5]]
    assert figure.layout.xaxis.ticktext == figure.layout.yaxis.ticktext == ("blend", "normad")
    assert figures.cross_effects(cross().rename(columns={"found_on": "set"})).data[0].z.shape == (2, 2)
    assert figure.layout.coloraxis.cmid == 0
    with pytest.raises(ScoreError):
        figures.cross_effects(cross()[:0])


@pytest.mark.parametrize(
    "figure",
    [
        lambda: figures.method_agreement(agreement()),
        lambda: figures.method_curves(curves()),
        lambda: figures.enhancement_curves(enhancement()),
        lambda: figures.returns_histogram(stable()),
        lambda: figures.cross_effects(cross()),
    ],
)
def test_they_have_this_packages_look(figure):
    made = figure()
    assert made.layout.template.layout.colorway == tuple(theme.PALETTE)
    assert "n = " in made.layout.title.text or "left:" in made.layout.title.text
    assert made.layout.xaxis.title.text and made.layout.yaxis.title.text
