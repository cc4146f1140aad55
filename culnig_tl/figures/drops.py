"""What switching neurons off costs, task by task, beside what it is compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import plotly.graph_objects as go

from ..data.statistics import Drop
from ..errors import ScoreError
from . import theme

SET, RANDOM, RIVAL = theme.PALETTE[0], theme.PALETTE[5], theme.PALETTE[4]


@theme.literal
def drop_chart(
    drops: Mapping[str, Drop],
    *,
    rival: Mapping[str, Drop] | None = None,
    rival_name: str = "rival",
    culture: Collection[str] = (),
) -> go.Figure:
    """Change in accuracy on each task, with its 95% interval over clusters, beside random sets and a rival.

    Args:
        drops: task -> drop against random sets, e.g. of `Study.drop`.
        rival: task -> drop against a rival set (`Study.drop_against_rival`); the rival's own drop is drawn.
        rival_name: what the rival is called.
        culture: tasks that are cultural; their labels say so.

    Raises:
        ScoreError: no drops.
    """
    if not drops:
        raise ScoreError("no drops to draw: give {task: Drop}")
    labels = {task: f"{task} (culture)" if task in culture else task for task in drops}
    figure = go.Figure()
    change = np.array([-drop.drop for drop in drops.values()])
    up, down = (np.array([-getattr(drop, end) for drop in drops.values()]) for end in ("low", "high"))
    bars = theme.error_bars(up - change, change - down, colour=SET, thickness=2, width=5)
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
        name="random sets: mean, ± two standard deviations",
        y=0.06,
        error_x=theme.error_bars(spread, colour=RANDOM, thickness=1.5, width=4),
        marker={"color": RANDOM, "size": 9, "symbol": "diamond"},
    )
    if rival:
        lost = {task: rival[task].random_mean for task in drops if task in rival}
        marks = {"color": RIVAL, "size": 10, "symbol": "triangle-up"}
        _add_marks(figure, labels, lost, rival, rival_name, y=0.28, marker=marks)
    theme.lay_out(
        figure,
        "What switching the neurons off costs",
        f"n = {sets} of the same layers and sites; lines: 95% intervals over clusters of questions",
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
    return figure.update_layout(legend=theme.LEGEND, showlegend=True)


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
    return f"{task}\n{setting}: {-lost:+.2f} points\n{base:.2f}% to {base - lost:.2f}%"
