"""What repeating shows: how often neurons return, and what enhancing them changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..analyses.enhancing import OWN
from ..data.neurons import NeuronSet, Site
from ..errors import NeuronError
from . import theme
from .values import checked

TITLES = {"returns": "bootstrap replicates", "wordings": "instruction wordings"}
BINS = 20


@theme.literal
def returns_histogram(neurons: NeuronSet) -> go.Figure:
    """How often each neuron of a set is selected again: a panel for bootstrap replicates and one for
    wordings, sites stacked.

    Args:
        neurons: a set with the column `returns` or `wordings`, as `culnig_tl.analyses.selection_stability`
            gives it.

    Raises:
        NeuronError: a set without these columns, or an empty one.
    """
    columns = [column for column in TITLES if column in neurons.table.columns]
    if not columns or not len(neurons):
        raise NeuronError(
            "this set does not say how often its neurons return: "
            "take the one that selection_stability(...) gives"
        )
    figure = make_subplots(cols=len(columns), shared_yaxes=True, horizontal_spacing=0.06)
    for number, column in enumerate(columns, start=1):
        shares = np.round(neurons.table[column].to_numpy(float), 6)
        places = distinct = np.unique(shares)
        edges = np.append(distinct, np.inf)
        if len(distinct) > BINS / 2:
            edges = np.linspace(0, 1, BINS + 1)
            places = (edges[:-1] + edges[1:]) / 2
        for site in (s for s in Site if (neurons.table["site"] == s.value).any()):
            counts, _ = np.histogram(shares[neurons.table["site"] == site.value], bins=edges)
            figure.add_bar(
                x=places,
                y=counts,
                name=site.value,
                legendgroup=site.value,
                showlegend=number == 1,
                marker_color=theme.SITE_COLOURS[site],
                width=0.045,
                hovertext=[
                    f"{site}: {theme.plural(int(n), 'neuron')} in {100 * x:.3g}% of {TITLES[column]}"
                    for x, n in zip(places, counts)
                ],
                hoverinfo="text",
                row=1,
                col=number,
            )
        title = f"share of {TITLES[column]} that select the neuron"
        figure.update_xaxes(title_text=title, range=[-0.03, 1.03], row=1, col=number)
    figure.update_yaxes(title_text="neurons of the set", row=1, col=1)
    means = ", ".join(f"{100 * neurons.table[c].mean():.0f}% of {TITLES[c]}" for c in columns)
    theme.lay_out(
        figure,
        "How often the neurons return",
        f"n = {theme.plural(len(neurons), 'neuron')}; on average in {means}",
        height=440,
    )
    return figure.update_layout(barmode="stack", legend=theme.LEGEND, margin_t=110, showlegend=True)


@theme.literal
def enhancement_curves(rows: pd.DataFrame) -> go.Figure:
    """Change in accuracy against the factor that neurons are multiplied by, with 95% intervals.

    A panel for each task, a line for each set.

    Args:
        rows: `Enhancement.rows`: the columns set, factor, task, change, low, high, neurons, questions. Single
            countries' sets are left out where they are pooled.

    Raises:
        ScoreError: columns missing, no rows.
    """
    checked(rows, ("set", "factor", "task", "change", "low", "high", "neurons", "questions"))
    names = list(dict.fromkeys(rows["set"]))
    names = [name for name in names if OWN not in names or name == OWN or not name.endswith("'s own")]
    tasks = list(dict.fromkeys(rows["task"]))
    columns = min(3, len(tasks))
    lines = -(-len(tasks) // columns)
    figure = make_subplots(
        rows=lines,
        cols=columns,
        shared_yaxes=True,
        subplot_titles=tasks,
        horizontal_spacing=0.05,
        vertical_spacing=0.2,
    )
    shown: set[str] = set()
    for place, task in enumerate(tasks):
        for number, name in enumerate(names):
            part: Any = rows.loc[(rows["task"] == task) & (rows["set"] == name)].sort_values(by="factor")
            if len(part):
                look = {
                    "row": place // columns + 1,
                    "col": place % columns + 1,
                    "showlegend": name not in shown,
                }
                figure.add_scatter(**_curve(name, number, part), **look)
                shown.add(name)
    figure.update_xaxes(title_text="outputs multiplied by")
    figure.update_yaxes(title_text="change in accuracy (points)", col=1)
    n = ", ".join(f"{int(n):,}" for n in sorted(set(rows["questions"])))
    theme.lay_out(
        figure,
        "What enhancing the neurons does",
        f"n = {n} questions; held-out topics; bars: 95% intervals over clusters",
        height=200 + 260 * lines,
    )
    theme.panel_titles(figure)
    below = {"orientation": "h", "y": -0.28 / lines, "yanchor": "top", "x": 0}
    return figure.update_layout(legend=below, showlegend=True)


def _curve(name: str, number: int, part: Any) -> dict[str, Any]:
    """A set's line on one task, from the unchanged model on; sets stand a little aside, so that their bars
    stay apart."""
    up, down = part["high"] - part["change"], part["change"] - part["low"]
    hover = [
        f"{name}, x {row.factor:g}: {theme.number(row.change, '+.2f')} points "
        f"(95% {theme.number(row.low, '+.2f')} to {theme.number(row.high, '+.2f')})\n"
        f"{theme.plural(int(row.neurons), 'neuron')}, {theme.plural(int(row.questions), 'question')}"
        for row in part.itertuples()
    ]
    return {
        "x": [1.0, *(part["factor"] + 0.008 * number)],
        "y": [0.0, *part["change"]],
        "mode": "lines+markers",
        "name": name,
        "legendgroup": name,
        "hovertext": ["unchanged", *hover],
        "hoverinfo": "text",
        "line": {"color": theme.PALETTE[number % len(theme.PALETTE)], "width": 2},
        "error_y": {**theme.error_bars([0.0, *up], [0.0, *down]), "color": None},
        "marker": {"size": 8, "symbol": theme.SYMBOLS[number % len(theme.SYMBOLS)]},
    }
