"""Figures of what switching off costs, and of depth in thirds."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest

from culnig_tl import figures
from culnig_tl.analyses.depth import depth_thirds
from culnig_tl.errors import NeuronError, ScoreError

from ..studies import CASES, made_study
from .builders import empty_set, make_set, notes


def test_drops_are_drawn_as_changes_with_their_intervals():
    found = made_study(**CASES["shown"]).findings()
    drops = {task: d.layer for task, d in found.drops.items()}
    figure = figures.drop_chart(
        drops, rival={"food": found.drops["food"].rival}, rival_name="neurons of sense", culture=["food"]
    )
    own, random, rival = figure.data
    np.testing.assert_allclose(own.x, [-d.drop for d in drops.values()])
    np.testing.assert_allclose(own.x[0] - own.error_x.arrayminus[0], -drops["food"].high)
    np.testing.assert_allclose(own.x[0] + own.error_x.array[0], -drops["food"].low)
    np.testing.assert_allclose(random.x, [-d.random_mean for d in drops.values()])
    other = found.drops["food"].rival
    assert list(rival.x) == [-other.random_mean] and rival.name == "neurons of sense"
    np.testing.assert_allclose(rival.x[0] - rival.error_x.arrayminus[0], -other.random_high)
    assert figure.layout.yaxis.ticktext == ("food (culture)", "sense", "pairs")
    assert "−50.00 points" in own.hovertext[0] and "100.00% to 50.00%" in own.hovertext[0]
    nothing = [text.splitlines()[0] for text in random.hovertext if re.search("[-−]0.00", text)]
    assert nothing == [] and "random sets: 0.00 points" in random.hovertext[1]
    assert "n = 10 random sets" in notes(figure) and "two standard deviations" in notes(figure)
    with pytest.raises(ScoreError, match="no drops"):
        figures.drop_chart({})


def test_a_study_draws_itself():
    study = made_study(**CASES["shown"])
    assert figures.drop_chart(study).to_json() == figures.plot(study).to_json()


def test_unknown_intervals_draw_no_bars():
    study = made_study(**CASES["shown"])
    for result in study.results.values():
        result.table["cluster"] = "one"
    figure = figures.drop_chart({"food": study.findings().drops["food"].layer})
    assert list(figure.data[0].error_x.array) == [0]


def test_grid_puts_own_countries_on_the_diagonal():
    table = pd.DataFrame(
        [[1.0, 5.0, 0.0], [4.0, 2.0, -1.0]], index=["Spain", "Iran"], columns=["Iran", "Spain", "China"]
    )
    figure = figures.drop_grid(table)
    assert np.asarray(figure.data[0].z).tolist() == [[5.0, 1.0, 0.0], [2.0, 4.0, -1.0]]
    assert figure.layout.xaxis.ticktext == ("Spain", "Iran", "China") and len(figure.layout.shapes) == 2
    assert figure.layout.coloraxis.cmid == 0
    with pytest.raises(ScoreError, match="no drops"):
        figures.drop_grid(table.iloc[:0])


def test_thirds_are_those_of_the_table():
    neurons = make_set(6, count=90)
    figure = figures.depth_bars(neurons)
    table = depth_thirds(neurons)
    for third, trace in zip(("shallow", "middle", "deep"), figure.data):
        assert trace.name == third
        np.testing.assert_allclose(
            trace.y, [table.loc[(pool, third), "percent"] for pool in ("mlp", "attn", "all")]
        )
    assert "dashed: the pool's share, 33.3%" in notes(figure)
    several = figures.depth_bars({"base": neurons, "sft": make_set(4)})
    assert len(several.data[0].x) == 2 and "dashed" not in notes(several), "4 layers have no even thirds"
    with pytest.raises(NeuronError, match="empty set"):
        figures.depth_bars(empty_set())
