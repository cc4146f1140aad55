"""What all figures share: colours, layout, limits, and how text reaches Plotly.

The template is given to each figure; Plotly's global one is left alone. Figures write plain text, with "\\n"
for a new line and names as the data give them: `literal` turns it into Plotly's markup, once.
"""

from __future__ import annotations

import functools
import html
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ParamSpec, SupportsFloat

import numpy as np
import plotly.graph_objects as go

from ..data.neurons import Site

P = ParamSpec("P")
MANY = 1_000
"""Cells among which a few outliers may lie beyond the ends of the colours."""
MAX_CELLS = 10_000
"""Cells and marks that one figure carries at most, so that a browser stays quick."""
PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#7F7F7F", "#F0E442")
"""Okabe and Ito's colours, told apart with any kind of colour blindness."""
UNCHANGED, GENERAL, RANDOM, RIVAL = "#7F7F7F", "#0072B2", "#56B4E9", "#D55E00"
"""What settings and sets look like wherever they stand beside each other."""
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
SEQUENTIAL = [
    [0.0, "#F4F4F4"],
    [0.02, "#E3EEF5"],
    [0.25, "#9ECAE1"],
    [0.5, "#4292C6"],
    [0.75, "#08519C"],
    [1.0, "#062449"],
]
"""From near white (nothing) to dark blue; lightness falls steadily."""
DIVERGING = "RdBu_r"
"""Blue below 0, red above: safe for the colour-blind, and always centred on 0."""
FEW = 20
"""Questions or neurons below which a group is muted: its share is little more than chance."""
PALE = 0.35
"""Opacity of what is muted."""
YES_NO_UNITS = ("neurons", "neurons in the bin")
"""What is 0 or 1 of these is a matter of yes or no, not of how many."""
VEIL = "rgba(255,255,255,0.6)"
"""Laid over what is muted where a mark has no opacity of its own."""
YES_NO = [[0.0, "#F4F4F4"], [0.5, "#F4F4F4"], [0.5, "#08519C"], [1.0, "#08519C"]]
"""Colours of what is or is not."""
DROWNED = 3.0
"""A row or column is cut where its peak is so many times that of all others."""
DARK = {
    "#222222": "#E6EAEE",
    "#5F6368": "#A9B4BE",
    "#E6E6E6": "#333B44",
    "#999999": "#77828C",
    "#8A939C": "#8A939C",
    "#B5BEC6": "#5A6672",
    "#EEF2F5": "#2A323A",
    "#0072B2": "#3FA0DC",
    "#7F7F7F": "#A0A7AE",
    "white": "#15191E",
    VEIL: "rgba(21,25,30,0.6)",
    "rgba(255,255,255,0.8)": "rgba(21,25,30,0.8)",
    "rgba(255,255,255,0.85)": "rgba(21,25,30,0.85)",
    "#F4F4F4": "#232A31",
    "#E3EEF5": "#263645",
    "#9ECAE1": "#2B5C85",
    "#4292C6": "#3F8CC2",
    "#08519C": "#86BFE6",
    "#062449": "#D9ECF9",
}
"""Colour -> what it becomes on a dark page: ink is light, nothing is dark, much is light."""
CAUTION = "attn.q and attn.k: first-order estimates, which do not see attention's softmax saturate"
INK, FAINT, GRID = "#222222", "#5F6368", "#E6E6E6"
LEGEND = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}
"""Above the marks, at the left."""
LEGEND_RIGHT = {**LEGEND, "x": 1.0, "xanchor": "right"}

_AXIS = {
    "gridcolor": GRID,
    "linecolor": "#999999",
    "zerolinecolor": "#999999",
    "ticks": "outside",
    "tickcolor": "#999999",
    "automargin": True,
}
_NUMBERS = {"exponentformat": "power", "minexponent": 4, "separatethousands": True}
TEMPLATE = go.layout.Template(
    layout={
        "font": {"family": "Helvetica, Arial, sans-serif", "size": 13, "color": INK},
        "title": {
            "x": 0.0,
            "xref": "paper",
            "xanchor": "left",
            "y": 1.0,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 26},
        },
        "title_font_size": 17,
        "paper_bgcolor": "white",
        "plot_bgcolor": "white",
        "colorway": list(PALETTE),
        "xaxis": {**_AXIS, **_NUMBERS, "zeroline": False, "title": {"font": {"size": 14}, "standoff": 8}},
        "yaxis": {**_AXIS, **_NUMBERS, "title": {"font": {"size": 14}, "standoff": 8}},
        "coloraxis": {
            "colorbar": {
                **_NUMBERS,
                "exponentformat": "e",
                "thickness": 16,
                "outlinewidth": 0,
                "title": {"side": "top", "font": {"size": 12}},
            }
        },
        "margin": {"l": 70, "r": 30, "t": 90, "b": 60},
        "legend": {"title": {"font": {"size": 12}}},
        "hoverlabel": {"align": "left", "font": {"size": 12}},
        "bargap": 0.15,
    }
)


def number(value: SupportsFloat, spec: str = ".4g") -> str:
    """A number as text, with a true minus and no minus before nothing: "−1.20", "0.00"; NaN is "unknown"."""
    number = float(value)
    if math.isnan(number):
        return "unknown"
    text = format(number, spec)
    if not text.strip("+-0.,%"):
        text = text.lstrip("+-")
    return text.replace("-", "−")


def numbers(values: np.ndarray, spec: str) -> np.ndarray:
    """The same of every number of an array."""
    return np.vectorize(lambda value: number(float(value), spec), otypes=[object])(values)


def setting_colour(name: str, number: int) -> str:
    """The colour of a setting or set by what its name begins with; of any other the palette's `number`."""
    known = {"unchanged": UNCHANGED, "culture-general": GENERAL, "random": RANDOM, "rival": RIVAL}
    found = (colour for beginning, colour in known.items() if name.lower().startswith(beginning))
    return next(found, PALETTE[number % len(PALETTE)])


def muted(counts: Iterable[float]) -> list[float]:
    """Opacities of groups of these sizes: those of a few are pale."""
    return [PALE if count < FEW else 1.0 for count in counts]


def veil(figure: go.Figure, counts: Sequence[float], rows: int) -> str:
    """Mutes the columns of a heatmap that rest on a few; returns a remark for the small print."""
    few = [column for column, count in enumerate(counts) if 0 < count < FEW]
    if len(few) == len(counts):  # nothing to stand out from
        return f"; n is under {FEW} everywhere" if few else ""
    for column in few:
        x0, line = column - 0.5, {"width": 0}
        figure.add_shape(type="rect", x0=x0, x1=x0 + 1, y0=-0.5, y1=rows - 0.5, fillcolor=VEIL, line=line)
    return f"; pale: n under {FEW}" if few else ""


def literal(draw: Callable[P, go.Figure]) -> Callable[P, go.Figure]:
    """Makes a figure show its text as it is written. Every public figure is decorated with this.

    Plotly reads tags in all labels, and labels hold names from data: a task may be called ``<b>x</b>``.
    Figures therefore write plain text, and here alone it is escaped, its line breaks made Plotly's, and all
    but the first line of the title set in small print.
    """

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> go.Figure:
        figure = draw(*args, **kwargs)
        for trace in figure.data:
            _mark_up(trace, ("name", "text", "hovertext", "x", "y"))
            if isinstance(trace, go.Table):
                for part in (trace.header, trace.cells):
                    _mark_up(part, ("values",))
        for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
            _mark_up(axis, ("ticktext", "categoryarray"))
            _mark_up(axis.title, ("text",))
        for note in figure.layout.annotations:
            _mark_up(note, ("text",))
        for menu in figure.layout.updatemenus:
            for button in menu.buttons:
                _mark_up(button, ("label", "args"))
        title, *lines = _markup(figure.layout.title.text).split("<br>")
        small = "".join(f"<br><span style='font-size:13px;color:{FAINT}'>{line}</span>" for line in lines)
        figure.layout.title.text = title + small
        return figure

    return drawn


def _mark_up(part: Any, names: Iterable[str]) -> None:
    """Escapes the text in some properties of a part of a figure; numbers stay as they are."""
    for name in names:
        if name in part and part[name] is not None:
            part[name] = _markup(part[name])


def _markup(value: Any) -> Any:
    if isinstance(value, str):
        return escape(value).replace("\n", "<br>")
    if isinstance(value, (list, tuple)):
        return [_markup(item) for item in value]
    if isinstance(value, dict):
        return {key: _markup(item) for key, item in value.items()}
    if isinstance(value, np.ndarray) and value.dtype.kind in "OU":
        return _markup(value.tolist())
    return value


def escape(text: str) -> str:
    """Text without tags of its own, as HTML and as Plotly read it."""
    return html.escape(text, quote=False)


def lay_out(
    figure: go.Figure, title: str, subtitle: str, *, height: int = 480, scored: Iterable[Site] = ()
) -> go.Figure:
    """Gives a figure this package's look, a title and small print under it.

    Args:
        scored: sites whose scores are shown: queries and keys come with a caution.
    """
    lines = [title, *subtitle.splitlines(), *([CAUTION] if {Site.ATTN_Q, Site.ATTN_K} & set(scored) else [])]
    extra = 18 * (len(lines) - 2)
    return figure.update_layout(
        template=TEMPLATE, height=height + extra, margin_t=90 + extra, title_text="\n".join(lines)
    )


def panel_titles(figure: go.Figure) -> go.Figure:
    """Moves the titles of subplots to the left edge of their panels, where nothing else is."""
    for note, axis in zip(figure.select_annotations(), figure.select_xaxes()):
        note.update(x=axis.domain[0], xanchor="left", font={"size": 13, "color": INK})
    return figure


def say(figure: go.Figure, text: str) -> go.Figure:
    """Writes over an empty figure why it is empty."""
    return figure.add_annotation(
        text=text, x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False,
        font={"size": 16, "color": FAINT}, bgcolor="rgba(255,255,255,0.85)",
    )  # fmt: skip


def coloraxis(values: np.ndarray, unit: str, *, robust: bool = False) -> tuple[dict[str, object], str]:
    """A colour axis for values, and a remark for the small print where colours end before the values do.

    From 0 up where no value is negative, else diverging and centred on 0; two colours and no bar where all
    are 0 or 1. NaN takes no part; equal or missing values get a range all the same.

    Args:
        values: of any shape; [row, column] of a matrix.
        unit: title of the colour bar; words of the package's own, never a name from data.
        robust: end the colours where a few of many values, or a single row or column, would make all others
            look alike.
    """
    sizes = np.abs(values[np.isfinite(values)])
    reach, remark = float(sizes.max(initial=0.0)) or 1.0, ""
    if robust and 0 < (usual := _usual(values, sizes)) < reach:
        reach, remark = usual, f"; colours end at ±{usual:.2g}, values at ±{reach:.2g}"
    negative = bool((sizes > 0).any() and np.nanmin(values) < -1e-9 * sizes.max())
    if not negative and unit in YES_NO_UNITS and set(np.unique(sizes)) <= {0.0, 1.0}:
        return {"colorscale": YES_NO, "cmin": 0.0, "cmax": 1.0, "showscale": False}, "; dark: in the set"
    if not negative:
        remark = remark.replace("±", "")
    scale = (
        {"colorscale": DIVERGING, "cmin": -reach, "cmax": reach, "cmid": 0.0}
        if negative
        else {"colorscale": SEQUENTIAL, "cmin": 0.0, "cmax": reach}
    )
    bar: dict[str, object] = {"title": {"text": "<br>".join(textwrap.wrap(unit, 14)) + "<br> "}}
    if reach <= 12 and (sizes == np.round(sizes)).all():  # a few counts: no ticks between them
        bar["dtick"] = math.ceil(reach / 6)
    return {**scale, "colorbar": bar}, remark


def _usual(values: np.ndarray, sizes: np.ndarray) -> float:
    """How far values reach without the few, or the one row or column, that are far beyond all others."""
    reach = float(sizes.max(initial=0.0))
    if sizes.size >= MANY:
        usual = float(np.quantile(sizes, 0.995))
        return usual if usual < reach / 2 else reach
    if values.ndim != 2:
        return reach
    rest = []
    for axis in (0, 1):
        peaks = np.nan_to_num(np.abs(values)).max(axis=axis, initial=0.0)
        if len(peaks) > 2:
            rest.append(float(np.sort(peaks)[-2]))
    usual = min(rest, default=reach)
    return usual if usual < reach / DROWNED else reach


def layer_axis(layers: int) -> dict[str, Any]:
    """An axis of layers whose ticks stay apart at 48 layers and more."""
    step = next(s for s in (1, 2, 4, 5, 10, 20, 50, 100, layers) if layers / s <= 26 or s == layers)
    return {
        "title": {"text": "layer"},
        "tickmode": "linear",
        "tick0": 0,
        "dtick": step,
        "range": [-0.5, layers - 0.5],
        "zeroline": False,
    }


def heat_height(rows: int) -> int:
    """Pixels for the rows of a heatmap, without what is around them."""
    return int(min(max(24 * min(rows, 16) + 11 * max(rows - 16, 0), 220), 1000))


def with_n(names: Iterable[str], counts: Iterable[int]) -> list[str]:
    """Labels of columns with their n: below the name where there is room, else beside it."""
    pairs = list(zip(names, counts))
    gap = "\nn = {:,}" if len(pairs) <= 8 else " ({:,})"
    return [name + gap.format(n) for name, n in pairs]


def plural(count: int, noun: str) -> str:
    """ "1 neuron", "8,087 neurons", "2 countries"."""
    if count == 1:
        return f"1 {noun}"
    return f"{count:,} {noun[:-1]}ies" if noun.endswith("y") else f"{count:,} {noun}s"


def error_bars(
    up: Any, down: Any = None, *, colour: str = INK, thickness: float = 1.2, width: int = 3
) -> Any:
    """Error bars of these lengths, the same in both directions where `down` is not given. NaN: no bar."""
    bars = {
        "type": "data",
        "array": np.nan_to_num(up),
        "color": colour,
        "thickness": thickness,
        "width": width,
    }
    return bars if down is None else {**bars, "arrayminus": np.nan_to_num(down), "symmetric": False}


def mark(
    figure: go.Figure,
    x: float,
    text: str,
    *,
    row: int,
    column: int,
    colour: str,
    dash: str = "dash",
    log: bool = False,
) -> None:
    """A vertical line through one panel, its text beside its upper end. `log`: the x axis is logarithmic."""
    position: Any = {"row": row, "col": column}  # Plotly's hints know only its "all"
    font = {"size": 12, "color": INK}
    note: Any = {
        "text": text,
        "xanchor": "left",
        "align": "left",
        "font": font,
        "bgcolor": "rgba(255,255,255,0.8)",
    }
    if log:  # on such an axis Plotly wants a line's place as it is, and a text's as its logarithm
        note["x"] = math.log10(x)
    figure.add_vline(x=x, line={"color": colour, "width": 2, "dash": dash}, annotation=note, **position)


def layer_matrix(
    values: np.ndarray,
    columns: Sequence[str],
    *,
    unit: str,
    hover: list[list[str]],
    texts: np.ndarray | None = None,
    robust: bool = False,
    counts: Sequence[float] | None = None,
) -> tuple[go.Figure, str]:
    """A heatmap of layers (upwards) x columns, and a remark on its colours for the small print.

    Args:
        values: [layer, column]; NaN stays blank.
        texts: [layer, column] to write into the cells, where they are few enough to be read.
        robust: as in `coloraxis`.
        counts: [column] questions or neurons that it rests on: those of a few are muted.
    """
    layers, places = len(values), list(range(len(columns)))
    figure = go.Figure()
    figure.add_heatmap(
        z=values,
        x=places,
        y=list(range(layers)),
        hovertext=hover,
        hoverinfo="text",
        coloraxis="coloraxis",
        xgap=1,
    )
    if texts is not None and len(columns) <= 24 and layers <= 50:
        figure.update_traces(text=texts, texttemplate="%{text}", textfont_size=10 if layers > 24 else 11)
    axis, remark = coloraxis(values, unit, robust=robust)
    figure.update_layout(coloraxis=axis, yaxis={**layer_axis(layers), "showgrid": False})
    figure.update_xaxes(
        tickmode="array", tickvals=places, ticktext=columns, showgrid=False, range=[-0.5, len(columns) - 0.5]
    )
    return figure, remark + (veil(figure, counts, layers) if counts is not None else "")


def name_matrix(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    hover: list[list[str]],
    texts: Any,
    unit: str,
    framed: Iterable[tuple[int, int]] = (),
) -> go.Figure:
    """A heatmap of named rows (downwards) x named columns with a text in every cell.

    Args:
        values, texts, hover: [row, column].
        framed: (row, column) of cells with a frame.
    """
    figure = go.Figure()
    x, y = list(range(len(columns))), list(range(len(rows)))
    figure.add_heatmap(
        z=values, x=x, y=y, text=texts, texttemplate="%{text}", hovertext=hover, hoverinfo="text",
        coloraxis="coloraxis", xgap=1, ygap=1,
    )  # fmt: skip
    for row, column in framed:
        x0, y0 = column - 0.5, row - 0.5
        figure.add_shape(type="rect", x0=x0, x1=x0 + 1, y0=y0, y1=y0 + 1, line={"color": INK, "width": 2.5})
    axis, _ = coloraxis(values, unit)
    figure.update_layout(coloraxis=axis)
    figure.update_xaxes(tickvals=x, ticktext=columns, showgrid=False, range=[-0.5, len(columns) - 0.5])
    figure.update_yaxes(
        tickvals=y, ticktext=rows, showgrid=False, range=[len(rows) - 0.5, -0.5], zeroline=False
    )
    return figure
