"""What switching neurons off costs, task by task, beside what it is compared with."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..data.statistics import Drop
from ..errors import ScoreError
from . import theme

SET, RANDOM, RIVAL = theme.PALETTE[0], theme.PALETTE[5], theme.PALETTE[4]


def drop_chart(
    drops: Mapping[str, Drop],
    *,
    rival: Mapping[str, Drop] | None = None,
    rival_name: str = "rival",
    culture: Collection[str] = (),
) -> go.Figure:
    """Change in accuracy a task, with its 95% interval over clusters, beside random sets and a rival set.

    Args:
        drops: task -> drop against random sets, e.g. of `Study.drop`.
        rival: task -> drop against a rival set (`Study.drop_against_rival`); the rival's own drop is drawn.
        rival_name: what the rival is called.
        culture: tasks that are cultural: they are named so.

    Raises:
        ScoreError: no drops.
    """
    if not drops:
        raise ScoreError("no drops to draw: give {task: Drop}")
    tasks = list(drops)
    labels = [f"{task} (culture)" if task in culture else task for task in tasks]
    at = np.arange(len(tasks), dtype=float)
    figure = go.Figure()
    values = np.array([-drops[task].drop for task in tasks])
    figure.add_scatter(
        x=values, y=at - 0.18, mode="markers", name="culture-general neurons", marker={"color": SET, "size": 11},
        error_x=_bars(values, [drops[t].low for t in tasks], [drops[t].high for t in tasks]),
        hovertext=[_hover(label, "culture-general neurons", drops[task].base, drops[task].drop) for label, task in zip(labels, tasks)], hoverinfo="text",
    )  # fmt: skip
    random = np.array([-drops[task].random_mean for task in tasks])
    spread = np.nan_to_num([2 * drops[task].random_sd for task in tasks])
    figure.add_scatter(
        x=random, y=at + 0.06, mode="markers", name="random sets: mean, ± two standard deviations", marker={"color": RANDOM, "size": 9, "symbol": "diamond"},
        error_x={"type": "data", "array": spread, "color": RANDOM, "thickness": 1.5, "width": 4},
        hovertext=[_hover(label, f"mean of {theme.plural(drops[task].random_sets, 'random set')}", drops[task].base, drops[task].random_mean) for label, task in zip(labels, tasks)],
        hoverinfo="text",
    )  # fmt: skip
    if rival:
        shown = [task for task in tasks if task in rival]
        figure.add_scatter(
            x=[-rival[task].random_mean for task in shown], y=[at[tasks.index(task)] + 0.28 for task in shown], mode="markers", name=rival_name,
            marker={"color": RIVAL, "size": 10, "symbol": "triangle-up"},
            hovertext=[_hover(labels[tasks.index(task)], rival_name, rival[task].base, rival[task].random_mean) for task in shown], hoverinfo="text",
        )  # fmt: skip
    sets = max(drop.random_sets for drop in drops.values())
    theme.lay_out(
        figure,
        "What switching the neurons off costs",
        f"n = {theme.plural(sets, 'random set')} of the same layers and sites; lines: 95% intervals over clusters of questions",
        height=190 + 62 * len(tasks),
    )
    figure.add_vline(x=0, line={"color": theme.INK, "width": 1})
    figure.update_xaxes(title_text="change in accuracy (points)", zeroline=False)
    figure.update_yaxes(
        tickvals=at, ticktext=labels, range=[len(tasks) - 0.5, -0.5], showgrid=False, zeroline=False
    )
    figure.update_layout(legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}, showlegend=True)
    return figure


def drop_grid(drops: pd.DataFrame) -> go.Figure:
    """Country x country from a table of drops alone: row, whose neurons are switched off; column, whose questions are asked.

    `drop_matrix` draws the same from answers, with errors. A frame marks a country's own questions.

    Args:
        drops: points, as `CountryDrops.drops` or its CSV.

    Raises:
        ScoreError: an empty table.
    """
    if drops.empty:
        raise ScoreError("no drops to draw: give a table of countries x countries")
    rows, columns = [str(name) for name in drops.index], [str(name) for name in drops.columns]
    columns = [c for c in rows if c in columns] + [c for c in columns if c not in rows]
    values = (
        drops.set_axis(rows).set_axis([str(name) for name in drops.columns], axis=1)[columns].to_numpy(float)
    )
    figure = go.Figure()
    figure.add_heatmap(
        z=values, x=list(range(len(columns))), y=list(range(len(rows))), text=np.vectorize("{:.1f}".format)(values), texttemplate="%{text}",
        hovertext=[[f"{row}'s neurons off, {column}'s questions<br>{value:.2f} points lost" for column, value in zip(columns, line)] for row, line in zip(rows, values)],
        hoverinfo="text", coloraxis="coloraxis", xgap=1, ygap=1,
    )  # fmt: skip
    for y, row in enumerate(rows):
        if row in columns:
            x = columns.index(row)
            figure.add_shape(
                type="rect",
                x0=x - 0.5,
                x1=x + 0.5,
                y0=y - 0.5,
                y1=y + 0.5,
                line={"color": theme.INK, "width": 2.5},
            )
    axis, _ = theme.coloraxis(values, "points lost")
    theme.lay_out(figure, "What switching off each country's neurons costs", f"n = {theme.plural(len(rows), 'country')} whose neurons are switched off; frames: a country's own questions", height=max(290 + 34 * len(rows), 420))  # fmt: skip
    figure.update_layout(coloraxis=axis)
    figure.update_xaxes(
        title_text="whose questions",
        tickvals=list(range(len(columns))),
        ticktext=columns,
        showgrid=False,
        range=[-0.5, len(columns) - 0.5],
    )
    figure.update_yaxes(
        title_text="whose neurons",
        tickvals=list(range(len(rows))),
        ticktext=rows,
        showgrid=False,
        range=[len(rows) - 0.5, -0.5],
        zeroline=False,
    )
    return figure


def _bars(values: np.ndarray, low: list[float], high: list[float]) -> dict[str, object]:
    """Error bars of changes from the intervals of drops; none where an interval is unknown."""
    up, down = -np.array(low) - values, values + np.array(high)
    return {
        "type": "data", "array": np.nan_to_num(up), "arrayminus": np.nan_to_num(down), "symmetric": False, "color": SET, "thickness": 2, "width": 5
    }  # fmt: skip


def _hover(task: str, setting: str, base: float, drop: float) -> str:
    return f"{task}<br>{setting}: {-drop:+.2f} points<br>{base:.2f}% to {base - drop:.2f}%"
