"""Layer x neuron: a model's neurons in bins wide enough to see and few enough for a browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data.neurons import NeuronSet, Site
from ..data.scores import NeuronScores
from ..errors import NeuronError, ScoreError
from ..study.study import Study
from . import fit, theme
from .values import Grid, given, grid_of_scores, grid_of_set, per_cluster, sample, titled

HEAT_CELLS = 8_000
"""Bins of the heatmap; the rest of `theme.MAX_CELLS` is for the single neurons under it."""
NAMED = 3
"""Neurons that hovering over a bin names."""
_GAP = 60
"""Pixels between the heatmap and the single neurons under it."""


@dataclass(frozen=True)
class _Drawn:
    """What a heatmap shows, and in which words."""

    grid: Grid
    title: str
    value: str
    """"count" or "score"."""
    note: str
    of_set: bool


@theme.literal
def layer_heatmap(
    neurons: NeuronSet | NeuronScores | Study | str | Path,
    *,
    value: Literal["count", "score"] | None = None,
    sites: Iterable[Site | str] | None = None,
    country: str | None = None,
    control: NeuronScores | None = None,
    layer: int | None = None,
) -> go.Figure:
    """Layer x neuron bins, a panel for each site; below, the single neurons of a layer chosen from a menu.

    Hovering over a bin names its strongest neurons. Zooming along the neurons moves both panels. A bin's
    colour is the number of its neurons in the set, or the score of its strongest neuron (the one farthest
    from 0).

    Args:
        neurons: a set, scores, or a study or its folder (its culture-general neurons).
        value: "count" (the default of a set) or "score" (of scores).
        sites: which sites; those with neurons by default.
        country: only that country's neurons or scores.
        control: subtracted from scores, both divided by their clusters.
        layer: draw the single neurons of this layer alone, up to 10,000 of them.

    Raises:
        NeuronError: no such site, layer or country, scores asked of a set that has none.
        ScoreError: no such site or country, NaN in scores, a count asked of scores.
    """
    if value not in (None, "count", "score"):
        raise NeuronError(f'unknown value {value!r}: use "count" or "score"')
    what: Any = given(neurons, "layer_heatmap", NeuronSet, NeuronScores)
    if isinstance(what, NeuronScores):
        drawn = _of_scores(what, value, sites, country, control)
    elif control is not None:
        raise NeuronError("a control is subtracted from NeuronScores; this is a NeuronSet")
    else:
        drawn = _of_set(what, value, sites, country)
    return _all_layers(drawn) if layer is None else _one_layer(drawn, layer)


def _of_scores(
    scores: NeuronScores,
    value: str | None,
    sites: Iterable[Site | str] | None,
    country: str | None,
    control: NeuronScores | None,
) -> _Drawn:
    if value == "count":
        raise ScoreError(
            'scores cover every neuron, there is nothing to count: use value="score", or give a NeuronSet'
        )
    grid = grid_of_scores(per_cluster(scores, control, country=country, sites=sites))
    flat = np.concatenate([array.ravel() for array in grid.scores.values()])
    equal = f"; all scores are equal ({theme.number(flat[0])})" if flat.min() == flat.max() else ""
    return _Drawn(
        grid, titled(scores, control, country), "score", sample(scores, country) + equal, of_set=False
    )


def _of_set(
    neurons: NeuronSet, value: str | None, sites: Iterable[Site | str] | None, country: str | None
) -> _Drawn:
    chosen = neurons.for_country(country) if country else neurons
    grid = grid_of_set(chosen, sites)
    if value == "score" and len(chosen) and not grid.scored:
        raise NeuronError('this set has no scores (a random set, say): use value="count"')
    n = theme.plural(sum(int(count.sum()) for count in grid.counts.values()), "neuron")
    title = f"{chosen.provenance.kind} neurons"
    note = f"n = {n}{', once per country' if chosen.countries else ''}"
    return _Drawn(grid, title[:1].upper() + title[1:], value or "count", note, of_set=True)


def _all_layers(drawn: _Drawn) -> go.Figure:
    grid, widths = drawn.grid, drawn.grid.widths
    total = sum(widths.values())
    zoom = 170 if grid.scored else 80  # pixels of the lower row: without scores the neurons lie on one line
    height = theme.heat_height(grid.layers)
    figure = make_subplots(
        rows=2,
        cols=len(widths),
        shared_xaxes=True,
        shared_yaxes=True,
        vertical_spacing=_GAP / (height + zoom + _GAP),
        horizontal_spacing=0.055 if grid.scored else 0.035,
        row_heights=[height, zoom],
        column_widths=[max(0.16, width / total) for width in widths.values()],
        subplot_titles=[str(site) for site in widths],
    )
    cell, remark = _binned(figure, drawn)
    figure.update_layout(
        coloraxis_colorbar={"len": height / (height + zoom + _GAP), "y": 1.0, "yanchor": "top"}
    )
    _single_neurons(figure, grid, max(10, (theme.MAX_CELLS - HEAT_CELLS) // grid.layers))
    what = ": the strongest neuron of each bin" if drawn.value == "score" else ", layer by layer"
    theme.lay_out(
        figure,
        drawn.title + what,
        f"{drawn.note}; {cell}{remark}",
        height=height + zoom + 200,
        scored=widths if grid.scored else (),
    )
    theme.panel_titles(figure)
    for column, width in enumerate(widths.values(), start=1):
        figure.update_xaxes(range=[-0.5, width - 0.5], nticks=3 + 6 * width // total, tickangle=0, col=column)
        figure.update_xaxes(title_text="neuron", row=2, col=column)
    figure.update_xaxes(showgrid=False, row=1)
    figure.update_yaxes({**theme.layer_axis(grid.layers), "title": None, "showgrid": False}, row=1)
    figure.update_yaxes(title_text="layer", row=1, col=1)
    if not any(count.any() for count in grid.counts.values()):
        theme.say(figure, "no neurons in this set")
    return figure


def _binned(figure: go.Figure, drawn: _Drawn) -> tuple[str, str]:
    """Draws the bins; returns what a cell is, and the remark on colours, for the small print."""
    grid, widths = drawn.grid, drawn.grid.widths
    total, budget = sum(widths.values()), max(HEAT_CELLS // grid.layers, len(widths))
    sizes = {site: int(np.ceil(width / max(1, budget * width // total))) for site, width in widths.items()}
    values = []
    for column, (site, size) in enumerate(sizes.items(), start=1):
        bins = _bin(grid.counts[site], grid.scores[site], size, drawn.value)
        values.append(bins.values.ravel())
        figure.add_heatmap(
            z=bins.values,
            x=np.arange(bins.values.shape[1]) * size + (size - 1) / 2,
            hovertext=_hover(site, bins, size, widths[site], grid, drawn.of_set),
            hoverinfo="text",
            coloraxis="coloraxis",
            row=1,
            col=column,
        )
    unit = "neurons in the bin" if drawn.value == "count" else grid.unit
    axis, remark = theme.coloraxis(np.concatenate(values), unit, robust=drawn.value == "score")
    figure.update_layout(coloraxis=axis)
    most = max(sizes.values())
    return ("a cell is one neuron" if most == 1 else f"a cell holds up to {most:,} neurons"), remark


@dataclass(frozen=True)
class _Bins:
    values: np.ndarray
    """[layer, bin]: what is coloured; NaN where a bin holds nothing."""
    counts: np.ndarray
    """[layer, bin]"""
    best: np.ndarray
    """[layer, bin, rank]: indices of the strongest neurons; -1 where there is none."""


def _bin(counts: np.ndarray, scores: np.ndarray, size: int, value: str) -> _Bins:
    """Bins of `size` neighbours along the last axis of [layer, neuron]."""
    layers, width = counts.shape
    number = -(-width // size)

    def fold(array: np.ndarray, fill: float) -> np.ndarray:
        if number * size > width:
            array = np.pad(array, ((0, 0), (0, number * size - width)), constant_values=fill)
        return array.reshape(layers, number, size)

    folded = fold(counts, 0)
    present = folded > 0
    strength = np.abs(fold(scores, np.nan))
    strength = np.where(present, np.where(np.isnan(strength), -1.0, strength), -np.inf)
    keep = min(NAMED, size)
    best = (
        np.argpartition(-strength, keep - 1, axis=-1)[..., :keep]
        if keep < size
        else np.broadcast_to(np.arange(size), strength.shape)
    )
    order = np.argsort(-np.take_along_axis(strength, best, -1), axis=-1, kind="stable")
    best = np.take_along_axis(best, order, -1)
    found = np.isfinite(np.take_along_axis(strength, best, -1))
    index = np.where(found, best + (np.arange(number) * size)[:, None], -1)
    total = folded.sum(-1)
    if value == "count":
        return _Bins(total.astype(np.float32), total, index)
    first = np.take_along_axis(scores, np.maximum(index[..., 0], 0), -1)
    return _Bins(np.where(index[..., 0] >= 0, first, np.nan).astype(np.float32), total, index)


def _hover(site: Site, bins: _Bins, size: int, width: int, grid: Grid, of_set: bool) -> list[list[str]]:
    scores = grid.scores[site]
    rows = []
    for layer in range(grid.layers):
        row = []
        for b, (count, best) in enumerate(zip(bins.counts[layer].tolist(), bins.best[layer].tolist())):
            first, last = b * size, min((b + 1) * size, width) - 1
            lines = [f"layer {layer}, {site} {first}" + (f" to {last}" if last > first else "")]
            if count and of_set:
                lines.append(f"{count} in the set")
            if count:
                lines += [name_of(site, layer, i, float(scores[layer, i])) for i in best if i >= 0]
            row.append("\n".join(lines))
        rows.append(row)
    return rows


def name_of(site: Site, layer: int, neuron: int, score: float) -> str:
    """A neuron in words: ``mlp.gate, layer 3, neuron 17: 0.0123``."""
    return f"{site}, layer {layer}, neuron {neuron}" + ("" if np.isnan(score) else f": {theme.number(score)}")


def _single_neurons(figure: go.Figure, grid: Grid, count: int) -> None:
    """The second row: the strongest neurons of one layer, and a menu of layers."""
    layers = [_strongest(grid, layer, count) for layer in range(grid.layers)]
    start = max(range(grid.layers), key=lambda layer: _weight(layers[layer]))
    first = len(grid.widths)  # the heatmaps come first
    for column, (site, (index, score)) in enumerate(layers[start].items(), start=1):
        figure.add_scatter(
            **_points(site, start, index, score),
            mode="markers",
            marker={"size": 5, "color": theme.PALETTE[4], "opacity": 0.8},
            hoverinfo="text",
            showlegend=False,
            cliponaxis=False,
            row=2,
            col=column,
        )
    axes = {site: f"yaxis{first + place}" for place, site in enumerate(grid.widths, start=1)}
    buttons = []
    for layer, chosen in enumerate(layers):
        points = [_points(site, layer, index, score) for site, (index, score) in chosen.items()]
        restyle = {key: [_plain(p[key]) for p in points] for key in ("x", "y", "hovertext")}
        relayout: dict[str, Any] = {
            f"{axes[site]}.range": _zoom_range(score) for site, (_, score) in chosen.items()
        }
        relayout[f"{next(iter(axes.values()))}.title.text"] = _zoom_title(layer, grid, chosen)
        traces = list(range(first, first + len(grid.widths)))
        buttons.append({"label": f"layer {layer}", "method": "update", "args": [restyle, relayout, traces]})
    top = figure.layout[f"yaxis{first + 1}"].domain[1]
    menu = {"buttons": buttons, "active": start, "x": 1.0, "xanchor": "right", "y": top, "yanchor": "bottom"}
    figure.update_layout(updatemenus=[{**menu, "pad": {"b": 6}, "font": {"size": 12}, "bgcolor": "white"}])
    ticks = "outside" if grid.scored else ""
    look: Any = {"nticks": 5, "showgrid": grid.scored, "ticks": ticks, "showticklabels": grid.scored}
    for column, (_, score) in enumerate(layers[start].values(), start=1):  # each site on its own scale
        figure.update_yaxes(**look, matches=None, range=_zoom_range(score), row=2, col=column)
    title = {"text": _zoom_title(start, grid, layers[start]), "font": {"size": 12}}
    figure.update_yaxes(title=title, row=2, col=1)
    figure.update_layout(meta={fit.DETAIL: first})


def _zoom_range(score: np.ndarray) -> list[float]:
    """Scores of a site's neurons and 0, with room: beside a heatmap Plotly finds no range of its own."""
    scores = np.nan_to_num(score)
    low, high = float(scores.min(initial=0.0)), float(scores.max(initial=0.0))
    room = 0.08 * (high - low) or 1.0
    return [low - room * (low < 0 or low == high), high + room]


def _plain(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _zoom_title(layer: int, grid: Grid, chosen: Mapping[Site, tuple[np.ndarray, np.ndarray]]) -> str:
    there, shown = _there(grid, layer), sum(len(index) for index, _ in chosen.values())
    part = "" if shown == there else f", {'top ' if grid.scored else ''}{shown} of {there:,}"
    return f"layer {layer}{part}" + (f"\n{grid.unit}" if grid.scored else "")


def _there(grid: Grid, layer: int) -> int:
    return sum(int((count[layer] > 0).sum()) for count in grid.counts.values())


def _strongest(grid: Grid, layer: int, count: int) -> dict[Site, tuple[np.ndarray, np.ndarray]]:
    """Site -> (indices, scores) of a layer's `count` strongest neurons; without scores, evenly picked."""
    indices = [np.flatnonzero(present[layer]) for present in grid.counts.values()]
    site = np.repeat(np.arange(len(indices)), [len(index) for index in indices])
    score = np.concatenate([grid.scores[s][layer, index] for s, index in zip(grid.counts, indices)])
    index = np.concatenate(indices)
    if len(index) > count:
        strength = np.where(np.isnan(score), -1.0, np.abs(score))
        keep = np.linspace(0, len(index) - 1, count).astype(int)
        if grid.scored:
            keep = np.sort(np.argpartition(-strength, count - 1)[:count])
        site, index, score = site[keep], index[keep], score[keep]
    return {s: (index[site == number], score[site == number]) for number, s in enumerate(grid.counts)}


def _weight(chosen: Mapping[Site, tuple[np.ndarray, np.ndarray]]) -> tuple[float, int]:
    """How much there is to see in a layer: scores, then neurons."""
    scores = float(sum(np.nansum(np.abs(score)) for _, score in chosen.values()))
    return scores, sum(len(index) for index, _ in chosen.values())


def _points(site: Site, layer: int, index: np.ndarray, score: np.ndarray) -> dict[str, Any]:
    text = [name_of(site, layer, int(i), float(s)) for i, s in zip(index, score)]
    return {"x": index, "y": np.nan_to_num(score.astype(float)), "hovertext": text}


def _one_layer(drawn: _Drawn, layer: int) -> go.Figure:
    grid = drawn.grid
    if not 0 <= layer < grid.layers:
        raise NeuronError(f"no layer {layer}: layers are 0 to {grid.layers - 1}")
    chosen = _strongest(grid, layer, theme.MAX_CELLS)
    there, shown = _there(grid, layer), sum(len(index) for index, _ in chosen.values())
    figure = make_subplots(
        rows=len(chosen),
        vertical_spacing=0.22 / len(chosen),
        subplot_titles=[f"{site} ({len(i):,} shown)" for site, (i, _) in chosen.items()],
    )
    for row, (site, (index, score)) in enumerate(chosen.items(), start=1):
        figure.add_scattergl(
            **_points(site, layer, index, score),
            mode="markers",
            marker={"size": 4, "color": theme.SITE_COLOURS[site], "opacity": 0.7},
            hoverinfo="text",
            showlegend=False,
            row=row,
            col=1,
        )
        figure.update_xaxes(range=[-0.5, grid.widths[site] - 0.5], row=row, col=1)
    most = f"the {shown:,} strongest of {there:,} neurons" if shown < there else theme.plural(there, "neuron")
    theme.lay_out(
        figure,
        f"Layer {layer}: {drawn.title[0].lower()}{drawn.title[1:]}",
        f"{drawn.note}, {most}",
        height=170 + 240 * len(chosen),
        scored=chosen if grid.scored else (),
    )
    theme.panel_titles(figure)
    figure.update_xaxes(title_text="neuron", row=len(chosen), col=1)
    figure.update_yaxes(title_text=grid.unit if grid.scored else "", showticklabels=grid.scored)
    return figure if shown else theme.say(figure, f"no neurons of this set in layer {layer}")
