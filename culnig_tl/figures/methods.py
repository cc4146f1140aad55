"""Methods side by side: agreement with exact effects, accuracy as their neurons are suppressed, overlap."""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data.neurons import Site
from ..errors import ScoreError
from ..names import which
from . import theme
from .values import checked

EVERYTHING = "all"
MEASURES = {
    "spearman": "Spearman with the exact effect",
    "pearson": "Pearson with the exact effect",
    "precision_1": "share of the top 1% that is truly there",
    "precision_5": "share of the top 5% that is truly there",
}


@theme.literal
def method_agreement(table: pd.DataFrame, *, measure: str = "spearman") -> go.Figure:
    """How far each method's scores agree with the exact effects of zeroing each neuron, a mark for each site.

    Args:
        table: what `culnig_tl.analyses.agreement.agreement` returns; only rows of all layers together are
            drawn.
        measure: "spearman", "pearson", "precision_1" or "precision_5".

    Raises:
        ScoreError: an unknown measure, columns missing, no rows.
    """
    if measure not in MEASURES:
        raise ScoreError(f"unknown measure {measure!r}{which(measure, MEASURES)}")
    rows = checked(table, ("method", "site", "layer", "neurons", measure))
    rows = rows.loc[rows["layer"].astype(str) == EVERYTHING]
    methods = list(dict.fromkeys(rows["method"]))
    sites = [name for name in (EVERYTHING, *(site.value for site in Site)) if (rows["site"] == name).any()]
    figure = go.Figure()
    for number, name in enumerate(sites):
        part, whole = rows.loc[rows["site"] == name], name == EVERYTHING
        figure.add_scatter(
            x=part[measure],
            y=part["method"],
            mode="markers",
            name="all sites" if whole else name,
            marker={
                "color": theme.INK if whole else theme.SITE_COLOURS[Site(name)],
                "size": 13 if whole else 10,
                "symbol": theme.SYMBOLS[number % len(theme.SYMBOLS)],
            },
            hovertext=[
                f"{method}, {name}: {theme.number(value, '.3f')} ({theme.plural(int(n), 'neuron')})"
                for method, value, n in zip(part["method"], part[measure], part["neurons"])
            ],
            hoverinfo="text",
        )
    figure.add_vline(x=0, line={"color": "#999999", "width": 1})
    most = theme.plural(int(rows["neurons"].max()), "neuron")
    theme.lay_out(
        figure,
        "How true each method's scores are",
        f"n = {most}, zeroed one at a time; methods of the gate have no mark at attn.q, k and v",
        height=190 + 30 * len(methods),
    )
    figure.update_xaxes(title_text=MEASURES[measure])
    figure.update_yaxes(
        title_text="method",
        type="category",
        categoryorder="array",
        categoryarray=methods[::-1],
        showgrid=True,
    )
    return figure.update_layout(legend=theme.LEGEND, margin_t=110, showlegend=True)


@theme.literal
def method_curves(curves: pd.DataFrame) -> go.Figure:
    """Accuracy against neurons suppressed, a line for each method: cultural tasks left, others right.

    Args:
        curves: one row per (method, neurons, task) with the columns method, neurons, task, culture, accuracy,
            as `MethodComparison.curves` gives them. Tasks of a kind are averaged.

    Raises:
        ScoreError: columns missing, no rows.
    """
    rows = checked(curves, ("method", "neurons", "task", "culture", "accuracy"))
    kinds = [kind for kind in (True, False) if (rows["culture"] == kind).any()]
    methods = list(dict.fromkeys(rows["method"]))
    titles = [", ".join(dict.fromkeys(rows.loc[rows["culture"] == kind, "task"])) for kind in kinds]
    figure = make_subplots(cols=len(kinds), shared_yaxes=True, horizontal_spacing=0.04, subplot_titles=titles)
    colours = len(theme.PALETTE)
    for column, kind in enumerate(kinds, start=1):
        for number, method in enumerate(methods):
            part: Any = rows.loc[(rows["culture"] == kind) & (rows["method"] == method)]
            mean = part.groupby("neurons")["accuracy"].mean().sort_index()
            dash, symbol = theme.DASHES[number // colours], (number + number // colours) % len(theme.SYMBOLS)
            figure.add_scatter(
                x=mean.index,
                y=mean,
                mode="lines+markers",
                name=method,
                legendgroup=method,
                showlegend=column == 1,
                line={"color": theme.PALETTE[number % colours], "dash": dash, "width": 2},
                marker={"size": 8, "symbol": theme.SYMBOLS[symbol]},
                hovertext=[
                    f"{method}\n{theme.plural(int(n), 'neuron')} suppressed: {accuracy:.2f}%"
                    for n, accuracy in mean.items()
                ],
                hoverinfo="text",
                row=1,
                col=column,
            )
    figure.update_xaxes(title_text="neurons suppressed")
    figure.update_yaxes(title_text="accuracy (%)", row=1, col=1)
    sides = "left: cultural tasks, right: tasks without culture; " if len(kinds) == 2 else ""
    theme.lay_out(
        figure,
        "Accuracy as each method's neurons are suppressed",
        f"{sides}the mean of several tasks",
        height=540,
    )
    theme.panel_titles(figure)
    return figure.update_layout(
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0}, showlegend=True
    )


@theme.literal
def method_selectivity(curves: pd.DataFrame) -> go.Figure:
    """What culture loses against the task without culture that loses most, a line for each method through its
    set sizes. Above the dotted line culture loses more, above the dashed one at least twice as much.

    Args:
        curves: one row per (method, neurons) with the columns method, neurons, culture_lost, worst_lost and
            worst_task, as `MethodComparison.selectivity` gives them.

    Raises:
        ScoreError: columns missing, no rows.
    """
    rows = checked(curves, ("method", "neurons", "culture_lost", "worst_lost", "worst_task"))
    figure, colours = go.Figure(), len(theme.PALETTE)
    for number, method in enumerate(dict.fromkeys(rows["method"])):
        part = rows.loc[rows["method"] == method].sort_values("neurons")
        dash, symbol = theme.DASHES[number // colours], (number + number // colours) % len(theme.SYMBOLS)
        figure.add_scatter(
            x=part["worst_lost"],
            y=part["culture_lost"],
            mode="lines+markers",
            name=method,
            line={"color": theme.PALETTE[number % colours], "dash": dash, "width": 2},
            marker={"size": 8, "symbol": theme.SYMBOLS[symbol]},
            hovertext=[
                f"{method}\n{theme.plural(int(n), 'neuron')} suppressed: culture {theme.number(own, '.1f')},"
                f" {task or 'others'} {theme.number(worst, '.1f')}"
                for n, own, worst, task in zip(
                    part["neurons"], part["culture_lost"], part["worst_lost"], part["worst_task"]
                )
            ],
            hoverinfo="text",
        )
    most = float(max(rows["culture_lost"].max(), rows["worst_lost"].max(), 1.0))
    for slope, dash, name in ((1, "dot", "as much"), (2, "dash", "twice as much")):
        figure.add_scatter(
            x=[0, most / slope],
            y=[0, most],
            mode="lines",
            name=name,
            line={"color": "#999999", "dash": dash, "width": 1},
            hoverinfo="skip",
        )
    theme.lay_out(
        figure,
        "What culture loses, and what the worst other task loses",
        "points of P(answer); each line goes through growing numbers of neurons",
        height=540,
    )
    figure.update_xaxes(title_text="lost by the task without culture that loses most (points)")
    figure.update_yaxes(title_text="lost by cultural tasks (points)")
    return figure.update_layout(
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0}, showlegend=True
    )


@theme.literal
def method_overlap(overlap: pd.DataFrame, neurons: int) -> go.Figure:
    """Method x method: the Jaccard index of their neurons.

    Args:
        overlap: as `MethodComparison.overlap` gives it: square, between 0 and 1.
        neurons: how many each method chose.

    Raises:
        ScoreError: no method, or a table that is not square.
    """
    values, names = overlap.to_numpy(dtype=float), list(map(str, overlap.columns))
    if not len(values) or list(overlap.index) != list(overlap.columns):
        raise ScoreError("an overlap has a row and a column for each method, in the same order")
    hover = [
        [f"{a} and {b}: Jaccard {value:.3f}" for b, value in zip(names, row)] for a, row in zip(names, values)
    ]
    texts = theme.numbers(values, ".2f")
    figure = theme.name_matrix(values, names, names, hover=hover, texts=texts, unit="Jaccard index")
    theme.lay_out(
        figure,
        "How far the methods find the same neurons",
        f"Jaccard index: neurons in both over neurons in either; {theme.plural(neurons, 'neuron')} each",
        height=theme.heat_height(len(names)) + 230,
    )
    figure.update_traces(textfont_size=11)
    figure.update_xaxes(title_text="method", tickangle=-35)
    figure.update_yaxes(title_text="method")
    return figure.update_layout(coloraxis_cmin=0.0, coloraxis_cmax=1.0)
