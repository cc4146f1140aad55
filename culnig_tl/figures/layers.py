"""Where neurons sit: layer by layer, and site by site."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data.neurons import NeuronSet, Site
from . import theme
from .values import by_layer, layers_of, named, sites_of


def layer_distribution(
    neurons: NeuronSet | Mapping[str, NeuronSet],
    *,
    show: Literal["count", "share"] = "count",
    sites: Iterable[Site | str] | None = None,
    baseline: bool = True,
) -> go.Figure:
    """Neurons a layer, by site: bars for one set, one line a set and one panel a site for several.

    Args:
        neurons: a set, or name -> set. A culture-specific set counts a neuron once for each country that it serves.
        show: "count" of neurons, or "share": percent of the set. Hovering tells both, and the share of the layer's pool.
        sites: which sites; those with neurons by default.
        baseline: draw what the same number of neurons, spread evenly over the layers of its pool, would be.

    Raises:
        NeuronError: no set, or an unknown site.
    """
    sets = named(neurons)
    shown, layers = sites_of(sets.values(), sites), layers_of(sets.values())
    tables = {name: by_layer(s, shown, layers) for name, s in sets.items()}
    figure = (
        _stacked(sets, tables, shown, layers, show, baseline)
        if len(sets) == 1
        else _overlaid(sets, tables, shown, layers, show, baseline)
    )
    figure.update_yaxes(rangemode="tozero")
    if not any(table.sum() for table in tables.values()):
        theme.say(figure, "no neurons in this set" if len(sets) == 1 else "no neurons in these sets")
        figure.update_yaxes(range=[0, 1])
    return figure


def _drawn(counts: np.ndarray, size: int, show: str) -> np.ndarray:
    return counts if show == "count" else 100 * counts / max(size, 1)


def _hover(counts: np.ndarray, size: int, site: Site, width: int | None, name: str) -> list[str]:
    pool = [f", {100 * n / width:.2f}% of the layer's {width:,}" if width else "" for n in counts]
    head = f"{name}<br>" if name else ""
    return [
        f"{head}layer {layer}, {site}<br>{theme.plural(int(n), 'neuron')}: {100 * n / max(size, 1):.2f}% of the set{share}"
        for layer, (n, share) in enumerate(zip(counts, pool))
    ]


def _even(neurons: NeuronSet, site: Site, sites: tuple[Site, ...], counts: np.ndarray, layers: int) -> float:
    """Neurons a layer of a site, had the neurons of its pool (MLP or attention) been drawn evenly."""
    widths = {s: neurons.provenance.pool.get(s.value, 0) for s in sites if s.pool == site.pool}
    mine = sum(int(counts[i].sum()) for i, s in enumerate(sites) if s.pool == site.pool)
    if not widths[site]:
        return int(counts[sites.index(site)].sum()) / layers
    return mine * widths[site] / sum(widths.values()) / layers


def _axis_title(show: str) -> str:
    return "neurons a layer (count)" if show == "count" else "neurons a layer (% of the set)"


def _stacked(
    sets: Mapping[str, NeuronSet],
    tables: Mapping[str, np.ndarray],
    sites: tuple[Site, ...],
    layers: int,
    show: str,
    baseline: bool,
) -> go.Figure:
    ((name, neurons),) = sets.items()
    counts, widths = tables[name], neurons.provenance.pool
    figure = go.Figure()
    for row, site in enumerate(sites):
        figure.add_bar(
            x=np.arange(layers),
            y=_drawn(counts[row], len(neurons), show),
            name=f"{site} (n = {int(counts[row].sum()):,})",
            marker={"color": theme.SITE_COLOURS[site], "line": {"width": 0.5, "color": "white"}},
            hovertext=_hover(counts[row], len(neurons), site, widths.get(site.value), ""),
            hoverinfo="text",
        )
    if baseline and counts.sum():
        level = float(_drawn(np.array([counts.sum() / layers]), len(neurons), show)[0])
        figure.add_scatter(
            x=[-0.5, layers - 0.5], y=[level, level], mode="lines", name="spread evenly over the pool",
            line={"color": theme.INK, "dash": "dash", "width": 1.5}, hovertemplate=f"spread evenly: {level:.4g} a layer<extra></extra>",
        )  # fmt: skip
    theme.lay_out(
        figure,
        f"Where the {name} neurons sit",
        f"n = {theme.plural(int(counts.sum()), 'neuron')}{_countries(neurons)} in {theme.plural(layers, 'layer')}",
    )
    figure.update_layout(
        barmode="stack", xaxis=theme.layer_axis(layers), yaxis_title_text=_axis_title(show), showlegend=True
    )
    return figure


def _overlaid(
    sets: Mapping[str, NeuronSet],
    tables: Mapping[str, np.ndarray],
    sites: tuple[Site, ...],
    layers: int,
    show: str,
    baseline: bool,
) -> go.Figure:
    figure = make_subplots(
        rows=len(sites),
        shared_xaxes=True,
        subplot_titles=[str(s) for s in sites],
        vertical_spacing=0.24 / (len(sites) + 1),
    )
    for number, (name, neurons) in enumerate(sets.items()):
        colour = theme.PALETTE[number % len(theme.PALETTE)]
        for row, site in enumerate(sites):
            counts = tables[name][row]
            figure.add_scatter(
                x=np.arange(layers),
                y=_drawn(counts, len(neurons), show),
                mode="lines+markers",
                name=f"{name} (n = {int(tables[name].sum()):,}{_countries(neurons)})",
                legendgroup=name,
                showlegend=row == 0,
                line={"color": colour, "width": 2},
                marker={"symbol": theme.SYMBOLS[number % len(theme.SYMBOLS)], "size": 6},
                cliponaxis=False,
                hovertext=_hover(counts, len(neurons), site, neurons.provenance.pool.get(site.value), name),
                hoverinfo="text",
                row=row + 1,
                col=1,
            )
            if baseline and tables[name].sum():
                level = float(
                    _drawn(np.array([_even(neurons, site, sites, tables[name], layers)]), len(neurons), show)[
                        0
                    ]
                )
                figure.add_scatter(
                    x=[-0.5, layers - 0.5], y=[level, level], mode="lines", legendgroup=name, showlegend=False,
                    line={"color": colour, "dash": "dot", "width": 1.2},
                    hovertemplate=f"{name}, spread evenly over the pool: {level:.4g} a layer<extra></extra>", row=row + 1, col=1,
                )  # fmt: skip
    note = "; dotted: the same number spread evenly over the pool" if baseline else ""
    theme.lay_out(
        figure,
        "Where the neurons sit",
        f"n = {', '.join(f'{table.sum():,}' for table in tables.values())} neurons in {theme.plural(layers, 'layer')}{note}",
        height=200 + 190 * len(sites),
    )
    theme.panel_titles(figure)
    figure.update_xaxes(**{**theme.layer_axis(layers), "title": None})
    figure.update_xaxes(title_text="layer", row=len(sites), col=1)
    figure.update_yaxes(title_text="neurons" if show == "count" else "% of the set")
    figure.update_layout(
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 1.0, "xanchor": "right"},
        margin={"t": 110},
    )
    return figure


def _countries(neurons: NeuronSet) -> str:
    return (
        f", once a country ({theme.plural(len(neurons.countries), 'country')})" if neurons.countries else ""
    )
