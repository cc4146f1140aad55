"""Colours, layout and limits that all figures share. The template is given to each figure: Plotly's global one is left alone."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go

from ..neurons import Site

MAX_CELLS = 10_000
"""Cells and marks that one figure carries at most: a browser stays quick."""
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F", "#F0E442")
"""Okabe and Ito's colours, told apart with any kind of colour blindness."""
SITE_COLOURS = {
    Site.MLP_GATE: "#0072B2",
    Site.MLP_UP: "#56B4E9",
    Site.MLP_POST: "#7F7F7F",
    Site.ATTN_Q: "#E69F00",
    Site.ATTN_K: "#009E73",
    Site.ATTN_V: "#CC79A7",
}
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star", "pentagon")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SEQUENTIAL = [[0.0, "#F4F4F4"], [0.02, "#E3EEF5"], [0.25, "#9ECAE1"], [0.5, "#4292C6"], [0.75, "#08519C"], [1.0, "#062449"]]
"""From near white (nothing) to dark blue; falls steadily in lightness."""
DIVERGING = "RdBu_r"
"""Blue under 0, red above: safe for the colour-blind, and always centred on 0."""
INK, FAINT, GRID = "#222222", "#5F6368", "#E6E6E6"
Z95 = 1.96
"""Standard errors in half a 95% interval."""

_AXIS = {"gridcolor": GRID, "linecolor": "#999999", "zerolinecolor": "#999999", "ticks": "outside", "tickcolor": "#999999", "automargin": True}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "Helvetica, Arial, sans-serif", "size": 13, "color": INK},
        "title": {"x": 0.0, "xref": "paper", "xanchor": "left", "y": 1.0, "yref": "container", "yanchor": "top", "pad": {"t": 14}},
        "title_font_size": 17,
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "colorway": list(PALETTE),
        "xaxis": _AXIS,
        "yaxis": _AXIS,
        "margin": {"l": 70, "r": 30, "t": 90, "b": 60},
        "legend": {"title": {"font": {"size": 12}}},
        "hoverlabel": {"align": "left", "font": {"size": 12}},
        "bargap": 0.15,
    }
)


def lay_out(figure: go.Figure, title: str, subtitle: str = "", *, height: int = 480) -> go.Figure:
    """Gives a figure this package's look, a title and a line of small print under it."""
    figure.update_layout(template=TEMPLATE, height=height, title={"text": title, "subtitle": {"text": subtitle, "font": {"size": 13, "color": FAINT}}})
    return figure


def say(figure: go.Figure, text: str) -> go.Figure:
    """Writes over an empty figure why it is empty."""
    figure.add_annotation(
        text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 16, "color": FAINT}, bgcolor="rgba(255,255,255,0.85)"
    )
    return figure


def colours(values: np.ndarray, *, counts: bool = False) -> dict[str, object]:
    """Heatmap colours for values: from 0 up where none is negative, else diverging and centred on 0.

    NaN takes no part. Equal or missing values get a range all the same.
    """
    finite = values[np.isfinite(values)]
    reach = float(np.abs(finite).max()) if finite.size else 0.0
    if reach == 0.0:
        reach = 1.0
    if counts or not finite.size or finite.min() >= 0:
        return {"colorscale": SEQUENTIAL, "zmin": 0.0, "zmax": reach}
    return {"colorscale": DIVERGING, "zmin": -reach, "zmax": reach, "zmid": 0.0}


def layer_axis(layers: int) -> dict[str, object]:
    """An axis of layers whose ticks stay apart at 48 layers and more."""
    step = next(s for s in (1, 2, 4, 5, 10, 20, 50, 100, layers) if layers / s <= 26 or s == layers)
    return {"title": {"text": "layer"}, "tickmode": "linear", "tick0": 0, "dtick": step, "range": [-0.5, layers - 0.5]}


def heat_height(rows: int) -> int:
    """Pixels for a heatmap of that many rows."""
    return int(min(max(220 + 20 * rows, 380), 1100))


def plural(count: int, noun: str) -> str:
    """"1 neuron", "8,087 neurons", "2 countries"."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"
