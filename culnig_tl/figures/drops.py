"""What switching neurons off costs, task by task, beside what it is compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ..data.statistics import Drop
from ..errors import ScoreError
from ..study.comparison import Comparison
from ..study.opened import study_of
from ..study.study import Study
from . import theme
from .values import given

SET, RANDOM, RIVAL = theme.GENERAL, theme.RANDOM, theme.RIVAL


@theme.literal
def drop_chart(
    drops: Mapping[str, Drop] | Comparison | Study | str | Path,
    *,
    rival: Mapping[str, Drop] | None = None,
    rival_name: str = "rival",
    culture: Collection[str] = (),
) -> go.Figure:
    """Change in accuracy on each task, with its 95% interval over clusters, beside random sets and a rival.

    Args:
        drops: task -> drop against random sets, e.g. of `Study.drop`; or what `compare` returns; or a study
            or its folder, whose rival and cultural tasks are then known.
        rival: task -> drop against a rival set (`Study.drop_against_rival`); the rival's own drop is drawn.
        rival_name: what the rival is called.
        culture: tasks that are cultural; their labels say so.

    Raises:
        ScoreError: no drops.
    """
    shown: Any = given(drops, "drop_chart", Mapping, Comparison, of_study=lambda s: s.findings().drops)
    shown = shown.drops if isinstance(shown, Comparison) else shown
    if not shown:
        raise ScoreError("no drops to draw: give {task: Drop}")
    if isinstance(drops, (Study, str, Path)):
        culture = [task for task, d in shown.items() if d.culture]
        rival = {task: d.rival for task, d in shown.items() if d.rival is not None}
        rival_name = f"as many neurons of {study_of(drops).config.rival_task}"
        shown = {task: d.layer for task, d in shown.items()}
    return _chart(shown, rival, rival_name, culture)


def _chart(
    drops: Mapping[str, Drop], rival: Mapping[str, Drop] | None, rival_name: str, culture: Collection[str]
) -> go.Figure:
    labels = {task: f"{task} (culture)" if task in culture else task for task in drops}
    figure = go.Figure()
    bars = _bars(drops.values(), "drop", "low", "high", SET)
    own = {task: drop.drop for task, drop in drops.items()}
    marks = {"color": SET, "size": 11}
    _add_marks(figure, labels, own, drops, "culture-general neurons", y=-0.18, error_x=bars, marker=marks)
    sets = theme.plural(max(drop.random_sets for drop in drops.values()), "random set")
    spread = [2 * drop.random_sd for drop in drops.values()]
    _add_marks(
        figure,
        labels,
        {task: drop.random_mean for task, drop in drops.items()},
        drops,
        f"mean of {sets}",
        name="random sets: mean, ± 2 sd",
        y=0.06,
        error_x=theme.error_bars(spread, colour=RANDOM, thickness=1.5, width=4),
        marker={"color": RANDOM, "size": 9, "symbol": "diamond"},
    )
    if rival:
        lost = {task: rival[task].random_mean for task in drops if task in rival}
        marks = {"color": RIVAL, "size": 10, "symbol": "triangle-up"}
        bars = _bars([rival[task] for task in lost], "random_mean", "random_low", "random_high", RIVAL)
        _add_marks(figure, labels, lost, rival, rival_name, y=0.28, error_x=bars, marker=marks)
    theme.lay_out(
        figure,
        "What switching the neurons off costs",
        f"n = {sets} of the same layers and sites; their bars: two standard deviations (sd) of the sets\n"
        f"bars of the neurons{' and the rival' if rival else ''}: 95% intervals over clusters of questions "
        "(bootstrap)",
        height=190 + 62 * len(drops),
    )
    figure.add_vline(x=0, line={"color": theme.INK, "width": 1})
    figure.update_xaxes(title_text="change in accuracy (points)", zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(drops))),
        ticktext=list(labels.values()),
        range=[len(drops) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    axes = 40 + 62 * len(drops)  # pixels: the height less the margins
    below = {"orientation": "h", "y": -54 / axes, "yanchor": "top", "x": 0}
    return figure.update_layout(legend=below, showlegend=True)


def _bars(drops: Collection[Drop], middle: str, low: str, high: str, colour: str) -> Any:
    """Error bars of changes from an interval of drops."""
    change, down, up = (-np.array([getattr(drop, name) for drop in drops]) for name in (middle, high, low))
    return theme.error_bars(up - change, change - down, colour=colour, thickness=2, width=5)


def _add_marks(
    figure: go.Figure,
    labels: Mapping[str, str],
    lost: Mapping[str, float],
    drops: Mapping[str, Drop],
    words: str,
    *,
    y: float,
    name: str | None = None,
    **look: Any,
) -> None:
    """A mark for each task, `y` below the middle of its row.

    Args:
        lost: task -> points.
        drops: task -> the drop that they are part of.
        words: what hovering says; the name in the legend too, unless another is given.
    """
    places = {task: place for place, task in enumerate(labels)}
    figure.add_scatter(
        x=[-value for value in lost.values()],
        y=[places[task] + y for task in lost],
        mode="markers",
        name=name or words,
        hovertext=[_hover(labels[task], words, drops[task].base, value) for task, value in lost.items()],
        hoverinfo="text",
        **look,
    )


def _hover(task: str, setting: str, base: float, lost: float) -> str:
    return f"{task}\n{setting}: {theme.number(-lost, '+.2f')} points\n{base:.2f}% to {base - lost:.2f}%"
