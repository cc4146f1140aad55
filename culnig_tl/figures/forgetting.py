"""What training costs: change in accuracy by task and by which modules were trained."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from ..errors import ScoreError
from . import theme

COLUMNS = ("group", "seed", "task", "culture", "trained", "before", "after", "change")


def forgetting_marks(changes: pd.DataFrame) -> go.Figure:
    """Change in accuracy in points, tasks x groups of modules: a mark a seed, and a line at the mean over seeds.

    Args:
        changes: what `Forgetting.changes` returns: columns group, seed, task, culture, trained, before, after, change.

    Raises:
        ScoreError: no rows, or a column missing.
    """
    missing = [column for column in COLUMNS if column not in changes.columns]
    if missing or not len(changes):
        raise ScoreError(
            f"no column {missing[0]!r}: give what Forgetting.changes() returns"
            if missing
            else "no changes to draw"
        )
    tasks, groups = list(dict.fromkeys(changes["task"])), list(dict.fromkeys(changes["group"]))
    order = sorted(tasks, key=lambda task: _rank(changes, task))
    seeds = changes["seed"].nunique()
    width = 0.8 / len(groups)
    figure = go.Figure()
    for number, group in enumerate(groups):
        colour = theme.PALETTE[number % len(theme.PALETTE)]
        offset = (number - (len(groups) - 1) / 2) * width
        rows = changes[changes["group"] == group]
        places = [order.index(task) + offset for task in rows["task"]]
        figure.add_scatter(
            x=places,
            y=rows["change"],
            mode="markers",
            name=group,
            legendgroup=group,
            marker={
                "color": colour,
                "symbol": theme.SYMBOLS[number % len(theme.SYMBOLS)],
                "size": 9,
                "line": {"width": 1, "color": "white"},
            },
            hovertext=[
                f"{group}, seed {row.seed}, {row.task}<br>{row.before:.1f}% to {row.after:.1f}% ({row.change:+.1f} points)"
                for row in rows.itertuples()
            ],
            hoverinfo="text",
        )
        means = rows.groupby("task")["change"].mean()
        lines = [(order.index(task) + offset, means[task]) for task in order if task in means.index]
        figure.add_scatter(
            x=[x for place, _ in lines for x in (place - 0.42 * width, place + 0.42 * width, None)],
            y=[y for _, mean in lines for y in (mean, mean, None)],
            mode="lines",
            line={"color": colour, "width": 3},
            legendgroup=group,
            showlegend=False,
            hoverinfo="skip",
        )
    theme.lay_out(
        figure,
        "What training costs, by which modules are trained",
        f"{theme.plural(len(groups), 'group')} of modules x {theme.plural(seeds, 'seed')}; a mark a training, a line at the mean over seeds",
    )
    figure.add_hline(y=0, line={"color": theme.INK, "width": 1})
    figure.update_layout(
        xaxis={
            "tickmode": "array",
            "tickvals": list(range(len(order))),
            "ticktext": [_label(changes, task) for task in order],
            "range": [-0.5, len(order) - 0.5],
            "showgrid": False,
            "title": {"text": "task"},
        },
        yaxis={"title": {"text": "change in accuracy (points)"}},
        legend={
            "orientation": "h",
            "y": 1.0,
            "yanchor": "bottom",
            "x": 0,
            "title": {"text": "trained modules"},
        },
        margin={"t": 110},
    )
    for place in range(1, len(order)):
        figure.add_vline(x=place - 0.5, line={"color": theme.GRID, "width": 1})
    return figure


def _rank(changes: pd.DataFrame, task: str) -> tuple[bool, bool]:
    """The trained task first, then culture, then the rest."""
    row = changes.loc[changes["task"] == task].iloc[0]
    return not row["trained"], not row["culture"]


def _label(changes: pd.DataFrame, task: str) -> str:
    row = changes.loc[changes["task"] == task].iloc[0]
    kind = "trained on" if row["trained"] else "culture" if row["culture"] else "without culture"
    return f"{task}<br>{kind}"
