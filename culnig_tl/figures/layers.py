"""Where neurons sit, layer by layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data.neurons import NeuronSet, Site
from ..study.study import Study
from . import theme
from .values import by_layer, layers_of, named, sites_of


@theme.literal
def layer_distribution(
    neurons: NeuronSet | Study | str | Path | Mapping[str, NeuronSet | Study],
    *,
    show: Literal["count", "share"] = "count",
    sites: Iterable[Site | str] | None = None,
    baseline: bool = True,
    layers: int | None = None,
) -> go.Figure:
    """Neurons per layer, by site: bars for one set, lines in a panel for each site for several.

    Args:
        neurons: a set, a study or its folder (its culture-general neurons), or name -> set. A
            culture-specific set counts a neuron once for each country that it serves.
        show: "count" of neurons, or "share": percent of the set. Hovering tells both, and the share of the
            layer's pool.
        sites: which sites; those with neurons by default.
        baseline: draw what the same number of neurons, spread evenly over the layers of its pool, would be.
        layers: of the model. Sets selected from scores know it, and those read from the authors' JSON where
            the model is one of the paper's; of others, only the layers up to the highest neuron's are drawn.

    Raises:
        NeuronError: no set, an unknown site, or neurons in a layer beyond `layers`.
    """
    sets = named(neurons, "layer_distribution")
    shown, count = sites_of(sets.values(), sites), layers_of(sets.values(), layers)
    drawn = [_Counted(name, s, shown, by_layer(s, shown, count), show) for name, s in sets.items()]
    figure = _stacked(drawn[0], baseline) if len(drawn) == 1 else _overlaid(drawn, baseline)
    figure.update_yaxes(rangemode="tozero")
    if not any(one.counts.any() for one in drawn):
        theme.say(figure, "no neurons in this set" if len(drawn) == 1 else "no neurons in these sets")
        figure.update_yaxes(range=[0, 1])
    return figure


@dataclass(frozen=True)
class _Counted:
    name: str
    neurons: NeuronSet
    sites: tuple[Site, ...]
    counts: np.ndarray
    """[site, layer]"""
    show: str

    @property
    def layers(self) -> int:
        return self.counts.shape[1]

    @property
    def total(self) -> int:
        return int(self.counts.sum())

    @property
    def countries(self) -> str:
        """How neurons of several countries are counted, for the small print."""
        count = len(self.neurons.countries)
        return f", once per country ({theme.plural(count, 'country')})" if count else ""

    def drawn(self, counts: np.ndarray | float) -> np.ndarray | float:
        return counts if self.show == "count" else 100 * counts / max(len(self.neurons), 1)

    def hover(self, site: Site, name: str = "") -> list[str]:
        width = self.neurons.provenance.pool.get(site.value)
        head = f"{name}\n" if name else ""
        return [
            f"{head}layer {layer}, {site}\n{theme.plural(int(n), 'neuron')}: "
            f"{100 * n / max(len(self.neurons), 1):.2f}% of the set"
            + (f", {100 * n / width:.2f}% of the layer's {width:,}" if width else "")
            for layer, n in enumerate(self.counts[self.sites.index(site)])
        ]

    def even(self, site: Site) -> float:
        """Neurons per layer of a site, had the neurons of its pool (MLP or attention) been drawn evenly."""
        pool = [s for s in self.sites if s.pool == site.pool]
        widths = {s: self.neurons.provenance.pool.get(s.value, 0) for s in pool}
        inside = pool if widths[site] else [site]
        count = sum(int(self.counts[self.sites.index(s)].sum()) for s in inside)
        share = widths[site] / sum(widths.values()) if widths[site] else 1
        return count * share / self.layers


def _stacked(one: _Counted, baseline: bool) -> go.Figure:
    figure = go.Figure()
    for counts, site in zip(one.counts, one.sites):
        figure.add_bar(
            x=np.arange(one.layers),
            y=one.drawn(counts),
            name=f"{site} (n = {int(counts.sum()):,})",
            marker={"color": theme.SITE_COLOURS[site], "line": {"width": 0.5, "color": "white"}},
            hovertext=one.hover(site),
            hoverinfo="text",
        )
    if baseline and one.total:
        level = float(one.drawn(one.total / one.layers))
        figure.add_scatter(
            **_level(one.layers, level, f"spread evenly: {level:.4g} per layer"),
            name="spread evenly over the pool",
            line={"color": theme.INK, "dash": "dash", "width": 1.5},
        )
    n = theme.plural(one.total, "neuron")
    theme.lay_out(
        figure,
        f"Where the {one.name} neurons sit",
        f"n = {n}{one.countries} in {theme.plural(one.layers, 'layer')}",
    )
    title = "neurons per layer (count)" if one.show == "count" else "neurons per layer (% of the set)"
    return figure.update_layout(
        barmode="stack", xaxis=theme.layer_axis(one.layers), yaxis_title_text=title, showlegend=True
    )


def _overlaid(sets: list[_Counted], baseline: bool) -> go.Figure:
    sites, layers = sets[0].sites, sets[0].layers
    figure = make_subplots(
        rows=len(sites),
        shared_xaxes=True,
        subplot_titles=[str(s) for s in sites],
        vertical_spacing=0.24 / (len(sites) + 1),
    )
    for number, one in enumerate(sets):
        colour = theme.setting_colour(one.name, number)
        symbol = theme.SYMBOLS[number % len(theme.SYMBOLS)]
        for row, site in enumerate(sites, start=1):
            figure.add_scatter(
                x=np.arange(layers),
                y=one.drawn(one.counts[row - 1]),
                mode="lines+markers",
                name=f"{one.name} (n = {one.total:,}{one.countries})",
                legendgroup=one.name,
                showlegend=row == 1,
                line={
                    "color": colour,
                    "width": 2,
                    "dash": theme.DASHES[min(number, 1)],
                },  # equal ones show through
                marker={"symbol": symbol, "size": 6},
                cliponaxis=False,
                hovertext=one.hover(site, one.name),
                hoverinfo="text",
                row=row,
                col=1,
            )
            if baseline and one.total:
                level = float(one.drawn(one.even(site)))
                figure.add_scatter(
                    **_level(
                        layers, level, f"{one.name}, spread evenly over the pool: {level:.4g} per layer"
                    ),
                    legendgroup=one.name,
                    showlegend=False,
                    line={"color": colour, "dash": "dot", "width": 1.2},
                    row=row,
                    col=1,
                )
    note = "; dotted: the same number spread evenly over the pool" if baseline else ""
    theme.lay_out(
        figure,
        "Where the neurons sit",
        f"n = {', '.join(f'{one.total:,}' for one in sets)} neurons in {theme.plural(layers, 'layer')}{note}",
        height=200 + 190 * len(sites),
    )
    theme.panel_titles(figure)
    figure.update_xaxes({**theme.layer_axis(layers), "title": None})
    figure.update_xaxes(title_text="layer", row=len(sites), col=1)
    figure.update_yaxes(title_text="neurons" if sets[0].show == "count" else "% of the set")
    return figure.update_layout(legend=theme.LEGEND_RIGHT, margin_t=110)


def _level(layers: int, level: float, words: str) -> dict[str, object]:
    """A line at one height over all layers."""
    x, y = [-0.5, layers - 0.5], [level, level]
    return {"x": x, "y": y, "mode": "lines", "hovertext": [words, words], "hoverinfo": "text"}
