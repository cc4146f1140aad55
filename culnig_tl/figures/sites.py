"""Layer x site: which parts of a block the neurons sit in."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import plotly.graph_objects as go

from ..data.neurons import NeuronSet, Site
from ..data.scores import NeuronScores
from ..errors import NeuronError, ScoreError
from ..study.study import Study
from . import theme
from .values import SCORE_UNIT, by_layer, given, layers_of, per_cluster, sample, sites_of, titled


@theme.literal
def site_heatmap(
    neurons: NeuronSet | NeuronScores | Study | str | Path,
    *,
    show: Literal["count", "share"] = "count",
    sites: Iterable[Site | str] | None = None,
    country: str | None = None,
    control: NeuronScores | None = None,
) -> go.Figure:
    """Layer x site: how many neurons of a set are there, or the mean score of the neurons there.

    Args:
        neurons: a set, scores, or a study or its folder (its culture-general neurons).
        show: of a set, the "count" of neurons or the "share": percent of the neurons that the site has in
            that layer.
        sites: which sites; those with neurons by default.
        country: only that country's neurons or scores.
        control: subtracted from scores, both divided by their clusters.

    Raises:
        NeuronError: no such site or country, a share where the set does not know its pool.
        ScoreError: the same of scores, NaN.
    """
    drawn: Any = given(neurons, "site_heatmap", NeuronSet, NeuronScores)
    if isinstance(drawn, NeuronScores):
        return _of_scores(drawn, sites, country, control)
    if control is not None:
        raise NeuronError("a control is subtracted from NeuronScores; this is a NeuronSet")
    chosen = drawn.for_country(country) if country else drawn
    shown, layers = sites_of([chosen], sites), layers_of([chosen])
    widths = {site: chosen.provenance.pool.get(site.value) for site in shown}
    unknown = [site for site, width in widths.items() if not width]
    if show == "share" and unknown:
        raise NeuronError(
            f"this set does not say how many {unknown[0]} neurons a layer has (provenance.pool): "
            'use show="count"'
        )
    counts = by_layer(chosen, shown, layers).T  # [layer, site]
    shares = 100 * counts / np.array([widths[site] or np.nan for site in shown], dtype=float)
    hover = [
        [
            f"layer {layer}, {site}\n{theme.plural(int(counts[layer, i]), 'neuron')}"
            + (f", {shares[layer, i]:.2f}% of {widths[site]:,}" if widths[site] else "")
            for i, site in enumerate(shown)
        ]
        for layer in range(layers)
    ]
    values, number = (counts.astype(float), "%d") if show == "count" else (shares, "%.2f")
    figure, remark = theme.layer_matrix(
        values,
        theme.with_n(map(str, shown), counts.sum(0).tolist()),
        unit="neurons" if show == "count" else "% of the site's neurons in the layer",
        hover=hover,
        texts=np.where(counts > 0, np.char.mod(number, values), ""),
    )
    title = f"{chosen.provenance.kind} neurons by site"
    theme.lay_out(
        figure,
        title[0].upper() + title[1:],
        f"n = {theme.plural(int(counts.sum()), 'neuron')}"
        f"{', once per country' if chosen.countries else ''}{remark}",
        height=theme.heat_height(layers) + 190,
    )
    figure.update_xaxes(title_text="site")
    return figure if counts.any() else theme.say(figure, "no neurons in this set")


def _of_scores(
    scores: NeuronScores,
    sites: Iterable[Site | str] | None,
    country: str | None,
    control: NeuronScores | None,
) -> go.Figure:
    if not scores.layers:
        raise ScoreError("these scores have no layers")
    values = per_cluster(scores, control, country=country, sites=sites)
    means = np.stack(
        [array.mean(axis=1, dtype=np.float64) for array in values.values()], axis=1
    )  # [layer, site]
    hover = [
        [
            f"layer {layer}, {site}\nmean of {array.shape[1]:,} neurons: {theme.number(means[layer, i])}"
            for i, (site, array) in enumerate(values.items())
        ]
        for layer in range(len(means))
    ]
    columns = [f"{site}\n{array.shape[1]:,} per layer" for site, array in values.items()]
    unit = f"mean {SCORE_UNIT} and neuron"
    figure, remark = theme.layer_matrix(means, columns, unit=unit, hover=hover, robust=True)
    theme.lay_out(
        figure,
        f"{titled(scores, control, country)} by site",
        f"{sample(scores, country)}{remark}",
        height=theme.heat_height(len(means)) + 190,
        scored=values,
    )
    figure.update_xaxes(title_text="site")
    return figure
