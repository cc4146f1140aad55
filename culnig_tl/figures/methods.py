"""Methods side by side: agreement with the exact effects, accuracy as their neurons are suppressed, and how far they overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data.neurons import Site
from ..errors import ScoreError
from . import theme

EVERYTHING = "all"
MEASURES = {
    "spearman": "Spearman with the exact effect",
    "pearson": "Pearson with the exact effect",
    "precision_1": "share of the top 1% that is truly there",
    "precision_5": "share of the top 5% that is truly there",
}


def method_agreement(table: pd.DataFrame, *, measure: str = "spearman") -> go.Figure:
    """A row a method, a mark a site: how far its scores agree with the exact effect of zeroing each neuron.

    Args:
        table: what `culnig_tl.analyses.agreement.agreement` returns; only rows of all layers together are drawn.
        measure: "spearman", "pearson", "precision_1" or "precision_5".

    Raises:
        ScoreError: an unknown measure, columns missing, no rows.
    """
    if measure not in MEASURES:
        raise ScoreError(f"unknown measure {measure!r}: use {', '.join(MEASURES)}")
    rows = _wanted(table, ("method", "site", "layer", "neurons", measure))
    rows = rows.loc[rows["layer"].astype(str) == EVERYTHING]
    methods = list(dict.fromkeys(rows["method"]))
    sites = [name for name in (EVERYTHING, *(site.value for site in Site)) if (rows["site"] == name).any()]
    figure = go.Figure()
    for number, name in enumerate(sites):
        part = rows.loc[rows["site"] == name]
        colour = theme.INK if name == EVERYTHING else theme.SITE_COLOURS[Site(name)]
        figure.add_scatter(
            x=part[measure], y=part["method"], mode="markers", name="all sites" if name == EVERYTHING else name,
            marker={"color": colour, "size": 13 if name == EVERYTHING else 10, "symbol": theme.SYMBOLS[number % len(theme.SYMBOLS)]},
            hovertext=[f"{m}, {name}: {v:.3f} ({theme.plural(int(n), 'neuron')})" for m, v, n in zip(part["method"], part[measure], part["neurons"])],
            hoverinfo="text",
        )  # fmt: skip
    figure.add_vline(x=0, line={"color": "#999999", "width": 1})
    most = int(rows["neurons"].max())
    theme.lay_out(
        figure,
        "How true each method's scores are",
        f"n = {theme.plural(most, 'neuron')}, zeroed one at a time; methods of the gate have no mark at attn.q, k and v",
        height=190 + 30 * len(methods),
    )
    figure.update_xaxes(title_text=MEASURES[measure])
    figure.update_yaxes(
        title_text="method",
        categoryorder="array",
        categoryarray=methods[::-1],
        type="category",
        showgrid=True,
    )
    figure.update_layout(
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}, margin={"t": 110}, showlegend=True
    )
    return figure


def method_curves(curves: pd.DataFrame) -> go.Figure:
    """Accuracy against number of neurons suppressed, a line a method: cultural tasks on the left, others on the right.

    Args:
        curves: one row a (method, neurons, task) with the columns method, neurons, task, culture, accuracy, as `MethodComparison.curves` gives
            them. Tasks of a kind are averaged.

    Raises:
        ScoreError: columns missing, no rows.
    """
    rows = _wanted(curves, ("method", "neurons", "task", "culture", "accuracy"))
    kinds = [kind for kind in (True, False) if (rows["culture"] == kind).any()]
    methods = list(dict.fromkeys(rows["method"]))
    titles = [", ".join(dict.fromkeys(rows.loc[rows["culture"] == kind, "task"])) for kind in kinds]
    figure = make_subplots(cols=len(kinds), shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=titles)
    for column, kind in enumerate(kinds, start=1):
        for number, method in enumerate(methods):
            part: Any = rows.loc[(rows["culture"] == kind) & (rows["method"] == method)]
            mean = part.groupby("neurons")["accuracy"].mean().sort_index()
            colours = len(theme.PALETTE)
            figure.add_scatter(
                x=mean.index, y=mean, mode="lines+markers", name=method, legendgroup=method, showlegend=column == 1,
                line={"color": theme.PALETTE[number % colours], "dash": theme.DASHES[number // colours], "width": 2},
                marker={"size": 8, "symbol": theme.SYMBOLS[(number + number // colours) % len(theme.SYMBOLS)]},
                hovertext=[f"{method}<br>{theme.plural(int(n), 'neuron')} suppressed: {a:.2f}%" for n, a in mean.items()], hoverinfo="text",
                row=1, col=column,
            )  # fmt: skip
    figure.update_xaxes(title_text="neurons suppressed")
    figure.update_yaxes(title_text="accuracy (%)", row=1, col=1)
    theme.lay_out(
        figure,
        "Accuracy as each method's neurons are suppressed",
        "left: cultural tasks, right: tasks without culture; the mean of several tasks"
        if len(kinds) == 2
        else "the mean of several tasks",
        height=540,
    )
    theme.panel_titles(figure)
    figure.update_layout(legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0}, showlegend=True)
    return figure


def method_overlap(overlap: pd.DataFrame, neurons: int) -> go.Figure:
    """Method x method: the Jaccard index of their neurons.

    Args:
        overlap: as `MethodComparison.overlap` gives it: square, between 0 and 1.
        neurons: how many each method chose.

    Raises:
        ScoreError: no method, or a table that is not square.
    """
    values = overlap.to_numpy(dtype=float)
    if not len(values) or list(overlap.index) != list(overlap.columns):
        raise ScoreError("an overlap has a row and a column a method, in the same order")
    names = list(map(str, overlap.columns))
    hover = [
        [f"{a} and {b}: Jaccard {values[i, j]:.3f}" for j, b in enumerate(names)] for i, a in enumerate(names)
    ]
    figure = go.Figure()
    figure.add_heatmap(
        z=values, x=names, y=names, hovertext=hover, hoverinfo="text", coloraxis="coloraxis", xgap=1, ygap=1,
        text=np.char.mod("%.2f", values), texttemplate="%{text}", textfont={"size": 11},
    )  # fmt: skip
    theme.lay_out(
        figure,
        "How far the methods find the same neurons",
        f"Jaccard index: common neurons over all; {theme.plural(neurons, 'neuron')} each",
        height=theme.heat_height(len(names)) + 230,
    )
    axis, _ = theme.coloraxis(values, "Jaccard index")
    figure.update_layout(coloraxis={**axis, "cmin": 0.0, "cmax": 1.0})
    figure.update_xaxes(title_text="method", showgrid=False, type="category", tickangle=-35)
    figure.update_yaxes(title_text="method", showgrid=False, autorange="reversed", type="category")
    return figure


def _wanted(table: pd.DataFrame, columns: tuple[str, ...]) -> pd.DataFrame:
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ScoreError(f"this table lacks the columns {', '.join(missing)}")
    if table.empty:
        raise ScoreError("this table has no rows")
    return table
