"""Names from data are shown as they are written: Plotly reads tags in labels, and a task may be called
``<b>x</b>``."""

from __future__ import annotations

import json
import re
from html import unescape

import numpy as np
import pandas as pd
import pytest

from culnig_tl import figures
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.figures.gallery import figures_of

from ..studies import made_study
from .builders import make_prompt, make_result, make_scores, make_set, make_specific, sweep

NAME = "<b>x</b>&amp;"
SHOWN = "&lt;b&gt;x&lt;/b&gt;&amp;amp;"
OURS = re.compile(r"<br>|</?span[^>]*>")
"""The tags that figures write themselves."""


def result(task=NAME, country=NAME):
    return make_result(lambda t, c, i: i % 3 > 0, tasks=(task,), countries=(country, "Spain", "Mexico"))


def scores():
    return make_scores(task=NAME, countries=(NAME, "Spain"))


def drops():
    tasks = {NAME: True, "sense": False}
    return {t: d.layer for t, d in made_study(own={}, random={}, tasks=tasks).findings().drops.items()}


def one_row(**columns):
    return pd.DataFrame({name: [value] for name, value in columns.items()})


def agreement():
    numbers = {"spearman": 0.5, "pearson": 0.5, "precision_1": 0.5, "precision_5": 0.5}
    return one_row(method=NAME, site="all", layer="all", neurons=4, **numbers)


def forgotten():
    numbers = {"seed": 0, "culture": True, "trained": True, "before": 90.0, "after": 80.0, "change": -10.0}
    return one_row(group=NAME, task=NAME, **numbers)


DRAW = {
    "accuracy_bars": lambda: figures.accuracy_bars({NAME: result()}),
    "accuracy_bars by country": lambda: figures.accuracy_bars(result(), by="country"),
    "accuracy_changes": lambda: figures.accuracy_changes(result(), result()),
    "checkpoint_heatmap": lambda: figures.checkpoint_heatmap({NAME: make_set()}),
    "checkpoint_heatmap of scores": lambda: figures.checkpoint_heatmap({NAME: scores()}),
    "country_heatmap": lambda: figures.country_heatmap(make_specific(countries=(NAME, "Spain"))),
    "country_heatmap of scores": lambda: figures.country_heatmap(scores()),
    "cross_effects": lambda: figures.cross_effects(
        one_row(found_on=NAME, asked=NAME, neurons=5, excess=1.0, excess_low=0.0, excess_high=2.0)
    ),
    "depth_bars": lambda: figures.depth_bars({NAME: make_set(), "b": make_set(seed=1)}),
    "drop_chart": lambda: figures.drop_chart(drops(), rival=drops(), rival_name=NAME, culture=[NAME]),
    "drop_grid": lambda: figures.drop_grid(pd.DataFrame([[1.0]], index=[NAME], columns=[NAME])),
    "drop_matrix": lambda: figures.drop_matrix(result(), {NAME: result()}),
    "enhancement_curves": lambda: figures.enhancement_curves(
        one_row(set=NAME, factor=2.0, task=NAME, change=1.0, low=0.0, high=2.0, neurons=5, questions=9)
    ),
    "forgetting_marks": lambda: figures.forgetting_marks(forgotten()),
    "layer_distribution": lambda: figures.layer_distribution({NAME: make_set(), "b": make_set(seed=1)}),
    "layer_heatmap": lambda: figures.layer_heatmap(scores(), country=NAME),
    "layer_heatmap, one layer": lambda: figures.layer_heatmap(scores(), layer=0),
    "method_agreement": lambda: figures.method_agreement(agreement()),
    "method_curves": lambda: figures.method_curves(
        one_row(method=NAME, neurons=5, task=NAME, culture=True, accuracy=50.0)
    ),
    "method_overlap": lambda: figures.method_overlap(pd.DataFrame([[1.0]], index=[NAME], columns=[NAME]), 5),
    "method_selectivity": lambda: figures.method_selectivity(
        one_row(method=NAME, neurons=5, culture_lost=2.0, worst_lost=1.0, worst_task=NAME)
    ),
    "neuron_card": lambda: figures.neuron_card(
        scores(), ("mlp.gate", 0, 0), questions=pd.DataFrame({"question": [NAME], "score": [1.0]})
    ),
    "score_histogram": lambda: figures.score_histogram(scores(), country=NAME),
    "site_heatmap": lambda: figures.site_heatmap(scores(), country=NAME),
    "threshold_curves": lambda: figures.threshold_curves(sweep(task=NAME)),
    "token_heatmap": lambda: figures.token_heatmap(make_prompt(tokens=(NAME, "a"))),
}


@pytest.mark.parametrize("draw", DRAW.values(), ids=DRAW)
def test_a_name_is_shown_with_its_tags(draw):
    written = texts(draw())
    assert any(SHOWN in text for text in written)
    for text in written:
        rest = OURS.sub("", text)
        assert "<" not in rest and ">" not in rest, text


def test_every_figure_that_takes_names_is_asked():
    nameless = {"returns_histogram"}  # sites alone
    draws = {name for name in figures.__all__ if name in DRAW or name in nameless}
    tables = {
        "drop_table",
        "firing_tokens",
        "promoted_tokens",
        "top_questions",
        "save_figure",
        "plot",
        "plots",
    }
    assert draws | tables == set(figures.__all__)


def test_hovering_shows_names_too():
    bars = figures.accuracy_bars({NAME: result()})
    assert bars.data[0].hovertext[0].startswith(f"{SHOWN}, {SHOWN}<br>")
    assert figures.country_heatmap(scores()).data[0].hovertext[0][0].startswith(f"layer 0, {SHOWN}<br>")


def test_a_percent_sign_in_a_name_is_no_template():
    figure = figures.layer_distribution({"%{x}": make_set(), "b": make_set(seed=1)})
    assert not [trace for trace in figure.data if trace.hovertemplate]


def test_a_studys_figures_keep_its_names():
    tasks = {NAME: True, "sense": False}
    study = made_study(own={NAME: 0.5}, random={}, tasks=tasks, countries=(NAME, "Spain", "Iran"))
    drawn = figures_of(study)
    assert drawn["drops"].layout.yaxis.ticktext[0] == f"{SHOWN} (culture)"
    assert drawn["country_heatmap"].layout.xaxis.ticktext[0].startswith(SHOWN)
    assert f"Scores on {SHOWN} minus {SHOWN}:control" in drawn["score_histogram"].layout.title.text


def test_numbers_are_left_alone():
    figure = figures.layer_distribution(NeuronSet.from_indices([("mlp.gate", 0, 1)]))
    assert np.asarray(figure.data[0].y).dtype.kind in "iu"


def texts(figure) -> list[str]:
    """Every text of a figure, the template's aside."""
    found: list[str] = []

    def walk(part) -> None:
        if isinstance(part, dict):
            for key, value in part.items():
                if key not in ("template", "legendgroup", "type"):
                    walk(value)
        elif isinstance(part, list):
            for value in part:
                walk(value)
        elif isinstance(part, str):
            found.append(part)

    walk(json.loads(figure.to_json()))
    assert unescape(SHOWN) == NAME
    return found
