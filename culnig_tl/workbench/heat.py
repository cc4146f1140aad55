"""The live heatmap: layer x neuron cells above, the single neurons of one layer below; both can be clicked.

`figures.layer_heatmap` shows as many cells as can be seen. Here a cell is wide enough to hit with a mouse,
and the figure is built once and changed in place: a new one would send Plotly to the browser again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import ipywidgets
import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data.neurons import NeuronSet, Site
from ..figures import theme
from ..figures.values import SCORE_UNIT, country_label
from . import page
from .page import EMPTY
from .panes import COLUMN
from .reading import Key
from .source import ALL, SELECTION, Choice, Source

CELLS = 80
"""Cells per layer, over all panels: each about six pixels wide where two columns share 1,000."""
HEIGHT = 560
"""Pixels: with what stands above, a view is 800 at most."""
DOT, RING = "#3490C8", "#009E73"
"""Single neurons, and what stands around the chosen one: to be seen on a light page and on a dark one."""
DOTS = 600
"""Single neurons drawn below, the strongest."""
OFFERED = 60
"""Neurons of a clicked cell that are offered, the strongest first."""


_MARGIN = {"t": 34, "b": 44, "l": 52, "r": 8}


@dataclass(frozen=True)
class Panel:
    """One site's neurons, of one set and country."""

    site: Site
    values: np.ndarray
    """[layer, neuron]: score; NaN where the set has no neuron."""
    size: int
    """Neurons per cell."""
    cells: np.ndarray
    """[layer, cell]: the score farthest from 0; NaN where the set has no neuron."""
    hover: list[list[str]]
    dots: np.ndarray
    """Neurons of the chosen layer that are drawn one by one."""

    @property
    def centres(self) -> np.ndarray:
        """Where along the neurons each cell is drawn."""
        return np.arange(self.cells.shape[1]) * self.size + (self.size - 1) / 2

    def cell(self, layer: int, x: float) -> list[Key]:
        """The neurons of the cell at x, the strongest first."""
        first = int(np.floor(x + 0.5) // self.size) * self.size
        row = self.values[layer, first : first + self.size]
        strongest = [i for i in np.argsort(-np.abs(row), kind="stable") if np.isfinite(row[i])]
        return [(self.site.value, layer, first + int(i)) for i in strongest[:OFFERED]]


@dataclass(frozen=True)
class Drawn:
    """All that the heatmap shows."""

    panels: tuple[Panel, ...]
    layer: int
    """Whose neurons are drawn one by one."""
    reach: float
    """Where the colours end, on both sides of 0."""
    title: str
    small: str
    neuron: Key | None
    """The one with a ring around it."""

    @property
    def sites(self) -> tuple[Site, ...]:
        """One per panel."""
        return tuple(panel.site for panel in self.panels)

    @property
    def gaps(self) -> bool:
        """Whether there are cells without a neuron of the set."""
        return any(not np.isfinite(panel.cells).all() for panel in self.panels)

    @property
    def empty(self) -> bool:
        """Whether the set has no neuron here."""
        return not any(np.isfinite(panel.values).any() for panel in self.panels)


def draw(source: Source, choice: Choice, selection: NeuronSet, neuron: Key | None) -> Drawn:
    """What the heatmap shows of a choice. The layer below is the chosen one, else the chosen neuron's, else
    the strongest.
    """
    sites = source.scores.sites if choice.site is None else (choice.site,)
    scored = source.values(choice.country)
    if choice.name == ALL:
        values = {site: scored[site] for site in sites}
        what = source.scored
    else:
        values = {site: np.full_like(scored[site], np.nan) for site in sites}
        neurons = source.neurons_of(Choice(choice.name, choice.country, choice.site), selection)
        for (site, layer), index in neurons.indices.items():
            if site in values:  # a set may have neurons of sites that were not scored
                values[site][layer, index] = scored[site][layer, index]
        what = neurons.provenance.kind + ("" if choice.name == SELECTION else " neurons")
    if choice.country is not None and choice.country not in what:
        what += f", scores of {country_label(choice.country)}"
    if choice.layer is not None:
        layer = choice.layer
    elif neuron is not None:
        layer = neuron[1]
    else:
        layer = int(np.argmax(sum(np.nansum(np.abs(array), axis=1) for array in values.values())))
    in_layer = _sizes(array[layer] for array in values.values())
    least = float(np.sort(in_layer)[-DOTS]) if len(in_layer) > DOTS else 0.0
    size = max(1, round(sum(array.shape[1] for array in values.values()) / CELLS))
    panels = tuple(_panel(site, array, size, layer, least) for site, array in values.items())
    drawn = _sizes(panel.cells for panel in panels)
    reach = float(np.quantile(drawn, 0.95)) if len(drawn) else 0.0
    count = sum(int(np.isfinite(array).sum()) for array in values.values())
    cell = "one neuron" if size == 1 else f"up to {size:,}, in the colour of the score farthest from 0"
    small = f"{theme.plural(count, 'neuron')}; a cell is {cell}"
    if len(drawn) and drawn.max() > reach:
        small += f"; the farthest score is {theme.number(drawn.max(), '.2g')} from 0"
    if {Site.ATTN_Q, Site.ATTN_K} & set(sites):
        small += f". {theme.CAUTION}"
    return Drawn(panels, layer, reach or 1.0, what[0].upper() + what[1:], small, neuron)


def _sizes(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """[value] distances from 0, where there is a score."""
    every = np.concatenate([np.abs(array).ravel() for array in arrays])
    return every[np.isfinite(every)]


def _panel(site: Site, values: np.ndarray, size: int, layer: int, least: float) -> Panel:
    layers, width = values.shape
    number = -(-width // size)
    padded = np.pad(values, ((0, 0), (0, number * size - width)), constant_values=np.nan)
    folded = padded.reshape(layers, number, size)
    strength = np.where(np.isfinite(folded), np.abs(folded), -1.0)
    best = strength.argmax(-1)
    cells = np.take_along_axis(folded, best[..., None], -1)[..., 0]
    counts = np.isfinite(folded).sum(-1)
    hover = []
    for depth in range(layers):
        row = []
        for c in range(number):
            first, last = c * size, min((c + 1) * size, width) - 1
            head = f"layer {depth}, {site} {first}" + (f" to {last}" if last > first else "")
            n = int(counts[depth, c])
            if n:
                strongest = "" if last == first else f", the strongest is {first + int(best[depth, c])}"
                head += f"<br>{theme.plural(n, 'neuron')}{strongest}: {cells[depth, c]:.3g}"
            row.append(head)
        hover.append(row)
    row = np.abs(np.nan_to_num(values[layer], nan=-1.0))
    dots = np.flatnonzero(np.isfinite(values[layer]) & (row >= least))
    return Panel(site, values, size, cells.astype(np.float32), hover, dots)


class Heatmap:
    """The figure on the screen."""

    def __init__(self, drawn: Drawn, clicked: Callable[[list[Key]], object]) -> None:
        """`clicked` gets the neurons of a clicked cell, the strongest first, or the one of a clicked dot."""
        self._clicked = clicked
        self._live: dict[tuple[Site, ...], go.FigureWidget] = {}
        self.drawn = drawn
        self.heading = ipywidgets.HTML(layout={"width": "100%"})
        self.box = ipywidgets.VBox(layout={**COLUMN})  # a VBox stretches its children
        self.box.add_class("culnig-map")
        self.show(drawn)

    @property
    def figure(self) -> go.FigureWidget:
        """The one that is shown: each choice of sites has its own."""
        return self._live[self.drawn.sites]

    def show(self, drawn: Drawn) -> None:
        """Puts a heatmap on the screen."""
        live = self._live.get(drawn.sites)
        if live is None:
            figure = _frame(drawn)
            _fill(figure, drawn)
            live = self._live[drawn.sites] = go.FigureWidget(figure)
            whole: Any = live  # it is drawn again when the cell's width changes
            whole._config = {**whole._config, "responsive": True}
            for trace in cast(Any, live.data)[: 2 * len(drawn.sites)]:
                trace.on_click(self._on_click)
        else:
            with live.batch_update():
                _fill(live, drawn)
        self.drawn = drawn
        self.heading.value = page.wrap(page.heading(drawn))
        if self.box.children != (self.heading, live):
            self.box.children = (self.heading, live)

    def _on_click(self, trace: Any, points: Any, state: Any) -> None:
        if not points.xs:  # plotly tells every trace of a click on one of them
            return
        below, place = divmod(points.trace_index, len(self.drawn.panels))
        panel, x = self.drawn.panels[place], float(points.xs[0])
        if below:
            keys = [(panel.site.value, self.drawn.layer, round(x))]
        else:
            keys = panel.cell(round(points.ys[0]), x)
        if keys:
            self._clicked(keys)


def _frame(drawn: Drawn) -> go.Figure:
    """Panels, axes and empty traces: cells, dots, rings around the chosen neuron's cell and its dot."""
    n, layers = len(drawn.panels), len(drawn.panels[0].values)
    below, gap = 130, 34
    above = HEIGHT - _MARGIN["t"] - _MARGIN["b"] - below - gap
    widths = [panel.values.shape[1] for panel in drawn.panels]
    figure = make_subplots(
        rows=2,
        cols=n,
        shared_xaxes=True,
        shared_yaxes=True,
        row_heights=[above, below],
        vertical_spacing=gap / (above + below + gap),
        horizontal_spacing=0.02,
        column_widths=[max(0.14, width / sum(widths)) for width in widths],
        subplot_titles=[str(site) for site in drawn.sites],
    )
    columns = range(1, n + 1)
    for column in columns:
        figure.add_heatmap(hoverinfo="text", coloraxis="coloraxis", xgap=1, ygap=2, row=1, col=column)
    dot = {"size": 7, "color": DOT, "opacity": 0.85}
    ring = {"symbol": "circle-open", "size": 17, "color": RING, "line": {"width": 3}}
    for row, marker, hover in ((2, dot, "text"), (1, ring, "skip"), (2, ring, "skip")):
        for column in columns:
            marks = go.Scatter(
                mode="markers", marker=marker, hoverinfo=hover, showlegend=False, cliponaxis=False
            )
            figure.add_trace(marks, row=row, col=column)
    axis, _ = theme.coloraxis(np.array([-1.0, 1.0]), SCORE_UNIT)
    figure.update_layout(
        template=theme.TEMPLATE,
        height=HEIGHT,
        coloraxis={**axis, "colorbar": None, "showscale": False},  # the heading shows them
        hovermode="closest",
        dragmode="zoom",
        margin=_MARGIN,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor=EMPTY,
        autosize=True,
        modebar={"remove": ["select2d", "lasso2d"], "bgcolor": "rgba(0,0,0,0)"},
    )
    theme.panel_titles(figure)
    plain: dict[str, Any] = {"showgrid": False, "zeroline": False, "tickangle": 0}
    for column, width in zip(columns, widths):
        wide = width > 0.3 * sum(widths)
        ticks = (
            {"nticks": 5} if wide else {"tickvals": [width // 2]}
        )  # a narrow panel has room for one number
        figure.update_xaxes(range=[-0.5, width - 0.5], **ticks, **plain, col=column)
    figure.update_xaxes(title_text="neuron", row=2, col=1)
    figure.update_yaxes({**theme.layer_axis(layers), "title": None, "showgrid": False}, row=1)
    figure.update_yaxes(title_text="layer", row=1, col=1)
    figure.update_yaxes(nticks=4, row=2)
    theme.say(figure, "")
    figure.layout.annotations[-1].update(y=0.75, bgcolor="rgba(0,0,0,0)")  # over the cells
    return figure


def _fill(figure: go.Figure | go.FigureWidget, drawn: Drawn) -> None:
    """Puts what is drawn into the frame."""
    n, traces = len(drawn.panels), cast(Any, figure.data)
    scores = [np.zeros(1)]
    rings: list[tuple[list[float], list[float]]] = [([], []) for _ in range(2 * n)]
    for place, panel in enumerate(drawn.panels):
        cells, dots = traces[place], traces[n + place]
        cells.x, cells.z, cells.hovertext = panel.centres, _json(panel.cells), panel.hover
        heights = panel.values[drawn.layer, panel.dots]
        scores.append(heights)
        dots.x, dots.y = panel.dots, heights
        dots.hovertext = [
            f"layer {drawn.layer}, {panel.site} {i}: {v:.3g}"
            for i, v in zip(panel.dots.tolist(), heights.tolist())
        ]
        if drawn.neuron is not None and drawn.neuron[0] == panel.site.value:
            _, layer, index = drawn.neuron
            rings[place] = ([float(panel.centres[index // panel.size])], [float(layer)])
            if layer == drawn.layer and index in panel.dots:
                rings[n + place] = ([float(index)], [float(panel.values[layer, index])])
    for trace, (x, y) in zip(traces[2 * n :], rings):
        trace.x, trace.y = x, y
    every = np.concatenate(scores)
    room = 0.1 * float(np.ptp(every)) or 1.0
    for place in range(1, n + 1):
        figure.layout[f"yaxis{n + place}"].range = [float(every.min()) - room, float(every.max()) + room]
    figure.layout[f"yaxis{n + 1}"].title.text = f"layer {drawn.layer}<br>score"
    figure.layout.coloraxis.cmin, figure.layout.coloraxis.cmax = -drawn.reach, drawn.reach
    figure.layout.annotations[-1].text = "this set has no neurons here" if drawn.empty else ""


def _json(cells: np.ndarray) -> list[list[float | None]]:
    """Plotly sends tables as JSON, which knows no NaN."""
    return [[None if np.isnan(value) else value for value in row] for row in cells.tolist()]
