"""What training costs: change in accuracy by task and by which modules were trained."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..errors import ScoreError
from . import theme

COLUMNS = ("group", "seed", "task", "culture", "trained", "before", "after", "change")


@theme.literal
def forgetting_marks(changes: pd.DataFrame) -> go.Figure:
    """Change in accuracy, tasks x groups of modules: a mark for each seed, and a line at their mean.

    Args:
        changes: as `Forgetting.changes` returns it: columns group, seed, task, culture, trained, before,
            after, change.

    Raises:
        ScoreError: no rows, or a column missing.
    """
    missing = [column for column in COLUMNS if column not in changes.columns]
    if missing:
        raise ScoreError(f"no column {missing[0]!r}: give what Forgetting.changes() returns")
    if not len(changes):
        raise ScoreError("no changes to draw")
    kinds: Any = changes.drop_duplicates("task").set_index("task")[["trained", "culture"]]
    order = list(kinds.sort_values(["trained", "culture"], ascending=False, kind="stable").index)
    groups = list(dict.fromkeys(changes["group"]))
    width = 0.8 / len(groups)
    figure = go.Figure()
    for number, group in enumerate(groups):
        offset = (number - (len(groups) - 1) / 2) * width
        places = {task: place + offset for place, task in enumerate(order)}
        _add_group(figure, number, group, changes.loc[changes["group"] == group], places, width)
    seeds = theme.plural(changes["seed"].nunique(), "seed")
    theme.lay_out(
        figure,
        "What training costs, by which modules are trained",
        f"{theme.plural(len(groups), 'group')} of modules x {seeds}; a mark per training, a line at the mean",
    )
    figure.add_hline(y=0, line={"color": theme.INK, "width": 1})
    figure.update_xaxes(
        title_text="task",
        tickmode="array",
        tickvals=list(range(len(order))),
        ticktext=[f"{task}\n{_kind(*kinds.loc[task])}" for task in order],
        range=[-0.5, len(order) - 0.5],
        showgrid=False,
    )
    figure.update_yaxes(title_text="change in accuracy (points)")
    figure.update_layout(legend={**theme.LEGEND, "title": {"text": "trained modules"}}, margin_t=110)
    for place in range(1, len(order)):
        figure.add_vline(x=place - 0.5, line={"color": theme.GRID, "width": 1})
    return figure


def _add_group(
    figure: go.Figure, number: int, group: str, rows: Any, places: dict[str, float], width: float
) -> None:
    """A group's marks and, for each task, a line at their mean."""
    colour = theme.setting_colour(group, number)
    symbol = theme.SYMBOLS[number % len(theme.SYMBOLS)]
    figure.add_scatter(
        x=[places[task] for task in rows["task"]],
        y=rows["change"],
        mode="markers",
        name=group,
        legendgroup=group,
        marker={"color": colour, "symbol": symbol, "size": 9, "line": {"width": 1, "color": "white"}},
        hovertext=[
            f"{group}, seed {row.seed}, {row.task}\n"
            f"{row.before:.1f}% to {row.after:.1f}% ({theme.number(row.change, '+.1f')} points)"
            for row in rows.itertuples()
        ],
        hoverinfo="text",
    )
    means = rows.groupby("task")["change"].mean()
    lines = [(place, means[task]) for task, place in places.items() if task in means.index]
    figure.add_scatter(
        x=[x for place, _ in lines for x in (place - 0.42 * width, place + 0.42 * width, None)],
        y=[y for _, mean in lines for y in (mean, mean, None)],
        mode="lines",
        line={"color": colour, "width": 3},
        legendgroup=group,
        showlegend=False,
        hoverinfo="skip",
    )


def _kind(trained: bool, culture: bool) -> str:
    return "trained on" if trained else "culture" if culture else "without culture"
