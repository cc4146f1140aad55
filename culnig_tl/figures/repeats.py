"""What repeating shows: how often neurons return, what enhancing them changes, what each task's neurons cost the others."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data.neurons import NeuronSet, Site
from ..errors import NeuronError, ScoreError
from . import theme

TITLES = {"returns": "share of bootstrap replicates", "wordings": "share of instruction wordings"}
BINS = 20
POOLED = "each country's own"
"""The row of `Enhancement.rows` that pools the countries."""


def returns_histogram(neurons: NeuronSet) -> go.Figure:
    """How often each neuron of a set is selected again: a panel for bootstrap replicates and one for wordings, sites stacked.

    Args:
        neurons: a set with the column `returns` or `wordings`, as `culnig_tl.analyses.stability.selection_stability` gives it.

    Raises:
        NeuronError: a set without these columns, or an empty one.
    """
    columns = [column for column in TITLES if column in neurons.table.columns]
    if not columns or not len(neurons):
        raise NeuronError(
            "this set does not say how often its neurons return: take the one that selection_stability(...) gives"
        )
    sites = [site for site in Site if (neurons.table["site"] == site.value).any()]
    figure = make_subplots(cols=len(columns), shared_yaxes=True, horizontal_spacing=0.06)
    for number, column in enumerate(columns, start=1):
        shares = neurons.table[column].to_numpy(float)
        distinct = np.unique(np.round(shares, 6))
        edges = np.linspace(0, 1, BINS + 1) if len(distinct) > BINS / 2 else np.append(distinct, np.inf)
        middles = (edges[:-1] + edges[1:]) / 2 if np.isfinite(edges[-1]) else distinct
        for site in sites:
            inside = shares[(neurons.table["site"] == site.value).to_numpy()]
            counts, _ = np.histogram(np.round(inside, 6), bins=edges)
            figure.add_bar(
                x=middles, y=counts, name=site.value, legendgroup=site.value, showlegend=number == 1, marker={"color": theme.SITE_COLOURS[site]},
                width=0.045, hovertemplate=f"{site}: %{{y}} neurons return in %{{x:.2f}}<extra></extra>", row=1, col=number,
            )  # fmt: skip
        figure.update_xaxes(
            title_text=f"{TITLES[column]} that select the neuron", range=[-0.03, 1.03], row=1, col=number
        )
    figure.update_yaxes(title_text="neurons of the set", row=1, col=1)
    means = ", ".join(
        f"{100 * neurons.table[c].mean():.0f}% of {TITLES[c].removeprefix('share of ')}" for c in columns
    )
    theme.lay_out(
        figure,
        "How often the neurons return",
        f"n = {theme.plural(len(neurons), 'neuron')}; on average in {means}",
        height=440,
    )
    figure.update_layout(
        barmode="stack",
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        margin={"t": 110},
        showlegend=True,
    )
    return figure


def enhancement_curves(rows: pd.DataFrame) -> go.Figure:
    """Change of accuracy against the factor that neurons are multiplied by: a panel a task, a line a set, with 95% intervals.

    Args:
        rows: `Enhancement.rows`: the columns set, factor, task, change, low, high, neurons, questions. Single countries' sets are left out
            where they are pooled.

    Raises:
        ScoreError: columns missing, no rows.
    """
    wanted = ("set", "factor", "task", "change", "low", "high", "neurons", "questions")
    missing = [column for column in wanted if column not in rows.columns]
    if missing or rows.empty:
        raise ScoreError(
            f"a sweep of factors has the columns {', '.join(wanted)}" if missing else "this sweep has no rows"
        )
    names = list(dict.fromkeys(rows["set"]))
    names = [name for name in names if POOLED not in names or name == POOLED or not name.endswith("'s own")]
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
            if part.empty:
                continue
            aside = 0.008 * number  # so that the bars of several sets stay apart
            x, y = [1.0, *(part["factor"] + aside)], [0.0, *part["change"]]
            errors = {
                "array": [0.0, *(part["high"] - part["change"])],
                "arrayminus": [0.0, *(part["change"] - part["low"])],
            }
            hover = ["unchanged", *(
                f"{name}, x {row.factor:g}: {row.change:+.2f} points (95% {row.low:+.2f} to {row.high:+.2f})<br>"
                f"{theme.plural(int(row.neurons), 'neuron')}, {theme.plural(int(row.questions), 'question')}"
                for row in part.itertuples()
            )]  # fmt: skip
            figure.add_scatter(
                x=x, y=y, mode="lines+markers", name=name, legendgroup=name, showlegend=name not in shown, hovertext=hover, hoverinfo="text",
                line={"color": theme.PALETTE[number % len(theme.PALETTE)], "width": 2}, error_y={"type": "data", "symmetric": False, "thickness": 1.2, "width": 3, **errors},
                marker={"size": 8, "symbol": theme.SYMBOLS[number % len(theme.SYMBOLS)]}, row=place // columns + 1, col=place % columns + 1,
            )  # fmt: skip
            shown.add(name)
    figure.update_xaxes(title_text="outputs multiplied by")
    figure.update_yaxes(title_text="change of accuracy (points)", col=1)
    theme.lay_out(
        figure,
        "What enhancing the neurons does",
        f"n = {', '.join(f'{int(n):,}' for n in sorted(set(rows['questions'])))} questions; held-out topics; bars: 95% intervals over clusters",
        height=200 + 260 * lines,
    )
    theme.panel_titles(figure)
    figure.update_layout(
        legend={"orientation": "h", "y": -0.28 / lines, "yanchor": "top", "x": 0}, showlegend=True
    )
    return figure


def cross_effects(table: pd.DataFrame) -> go.Figure:
    """Whose neurons (rows) x which task (columns): what suppressing them costs beyond layer-matched random sets, in points.

    Args:
        table: `TaskNeurons.table()`: the columns found_on, asked, neurons, excess, excess_low, excess_high.

    Raises:
        ScoreError: columns missing, no rows.
    """
    wanted = ("found_on", "asked", "neurons", "excess", "excess_low", "excess_high")
    missing = [column for column in wanted if column not in table.columns]
    if missing or table.empty:
        raise ScoreError(
            f"cross-effects have the columns {', '.join(wanted)}" if missing else "this table has no rows"
        )
    rows, columns = (list(dict.fromkeys(table[c])) for c in ("found_on", "asked"))
    cells: dict[tuple[str, str], Any] = {
        (row["found_on"], row["asked"]): row for row in table.to_dict("records")
    }
    values = np.array(
        [[float(cells[r, c]["excess"]) if (r, c) in cells else np.nan for c in columns] for r in rows]
    )
    hover = [
        [
            f"found on {r}, asked {c}<br>{cells[r, c]['excess']:.2f} points (95% {cells[r, c]['excess_low']:.2f} to {cells[r, c]['excess_high']:.2f})" if (r, c) in cells else ""
            for c in columns
        ]
        for r in rows
    ]  # fmt: skip
    figure = go.Figure()
    figure.add_heatmap(
        z=values, x=columns, y=rows, hovertext=hover, hoverinfo="text", coloraxis="coloraxis", xgap=1, ygap=1,
        text=np.char.mod("%.1f", values), texttemplate="%{text}", textfont={"size": 13},
    )  # fmt: skip
    sizes = ", ".join(
        f"{r} {int(n):,}"
        for r, n in table.drop_duplicates("found_on").set_index("found_on")["neurons"].items()
    )
    theme.lay_out(
        figure, "What each task's neurons cost each task", f"n = neurons: {sizes}; drop in points beyond layer-matched random sets", height=theme.heat_height(len(rows)) + 190
    )  # fmt: skip
    axis, _ = theme.coloraxis(values, "points beyond random")
    figure.update_layout(coloraxis=axis)
    figure.update_xaxes(title_text="task asked", showgrid=False, type="category")
    figure.update_yaxes(title_text="neurons found on", showgrid=False, autorange="reversed", type="category")
    return figure
