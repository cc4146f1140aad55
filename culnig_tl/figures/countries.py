"""Countries: in which layers each one's neurons sit."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..data.neurons import NeuronSet, Site
from ..data.scores import NO_COUNTRY, NeuronScores
from ..errors import NeuronError, ScoreError
from ..method.specificity import shared_pattern
from ..study.config import SPECIFIC
from ..study.study import Study
from . import theme
from .values import (
    SCORE_UNIT,
    check_finite,
    country_label,
    given,
    layers_of,
    sample,
    sites_of,
    titled,
    wanted_sites,
)


@theme.literal
def country_heatmap(
    neurons: NeuronSet | NeuronScores | Study | str | Path,
    *,
    show: Literal["count", "share"] = "count",
    scale: Literal["linear", "column"] = "linear",
    sites: Iterable[Site | str] | None = None,
    control: NeuronScores | None = None,
) -> go.Figure:
    """Layer x country: neurons of a culture-specific set, or the mean score of a layer's neurons.

    For scores the small print tells the share of variance that one pattern shared by all countries explains
    (rank-1 share of the country x neuron matrix): where it is near 100%, a column says little about its
    country alone.

    Args:
        neurons: a culture-specific set, scores, or a study or its folder (its culture-specific neurons).
        show: of a set, the "count" of neurons or the "share": percent of the country's neurons.
        scale: of scores, "linear" or "column": percent of the country's layer that is farthest from 0. Where
            one layer or country would drown the rest, colours end before it, and the small print says so.
        sites: which sites; all by default.
        control: subtracted from scores, both divided by their clusters.

    Raises:
        NeuronError: a set without countries. ScoreError: no such site, NaN.
    """
    if scale not in ("linear", "column"):
        raise NeuronError(f'unknown scale {scale!r}: use "linear" or "column"')
    kinds = NeuronSet, NeuronScores
    drawn: Any = given(neurons, "country_heatmap", *kinds, of_study=lambda s: s.neurons[SPECIFIC])
    if isinstance(drawn, NeuronScores):
        return _scores_by_country(drawn, sites, control, scale)
    if control is not None:
        raise NeuronError("a control is subtracted from NeuronScores; this is a NeuronSet")
    if "country" not in drawn.table.columns:
        raise NeuronError(
            f"this set ({drawn.provenance.kind}) has no countries: give a culture-specific set or scores"
        )
    layers, shown = layers_of([drawn]), sites_of([drawn], sites)
    countries = drawn.countries
    rows = drawn.table.loc[drawn.table["site"].isin([site.value for site in shown]), ["layer", "country"]]
    counts = np.zeros((layers, max(len(countries), 1)), dtype=np.int64)
    np.add.at(
        counts, (rows["layer"].to_numpy(), pd.Categorical(rows["country"], categories=countries).codes), 1
    )
    totals = counts.sum(0)
    shares = 100 * counts / np.maximum(totals, 1)
    names = [country_label(country) for country in countries] or ["no country"]
    hover = [
        [
            f"layer {layer}, {name}\n{theme.plural(int(counts[layer, i]), 'neuron')}, "
            f"{shares[layer, i]:.1f}% of the country's"
            for i, name in enumerate(names)
        ]
        for layer in range(layers)
    ]
    values, number = (counts.astype(float), "%d") if show == "count" else (shares, "%.1f")
    figure, remark = theme.layer_matrix(
        values,
        theme.with_n(names, totals.tolist()),
        unit="neurons" if show == "count" else "% of the country's neurons",
        hover=hover,
        texts=np.where(counts > 0, np.char.mod(number, values), ""),
        robust=True,
        counts=totals.tolist(),
    )
    total = theme.plural(int(totals.sum()), "neuron")
    theme.lay_out(
        figure,
        "Culture-specific neurons by layer",
        f"n = {total}, once per country, of {', '.join(map(str, shown))}{remark}",
        height=theme.heat_height(layers) + 230,
    )
    figure.update_xaxes(title_text="country (n neurons)")
    return figure if counts.any() else theme.say(figure, "no neurons in this set")


def _scores_by_country(
    scores: NeuronScores, sites: Iterable[Site | str] | None, control: NeuronScores | None, scale: str
) -> go.Figure:
    shown = wanted_sites(scores, sites)
    if not scores.countries or not shown:
        raise ScoreError(f"scores of {scores.task} hold no country")
    means = _means(scores, shown, control)
    names = [country_label(country) for country in scores.countries]
    hover = [
        [
            f"layer {layer}, {name}\nmean over the layer's neurons: {theme.number(means[layer, i])}"
            for i, name in enumerate(names)
        ]
        for layer in range(len(means))
    ]
    columns = theme.with_n(names, scores.questions)
    unit = f"mean {SCORE_UNIT} and neuron" if scale == "linear" else "% of the country's largest"
    peaks = np.abs(means).max(axis=0)
    drawn = means if scale == "linear" else 100 * means / np.where(peaks == 0, 1, peaks)
    figure, remark = theme.layer_matrix(
        drawn, columns, unit=unit, hover=hover, robust=True, counts=scores.questions
    )
    shared = ""
    if sum(country != NO_COUNTRY for country in scores.countries) > 1 and means.any():
        share = shared_pattern(scores, control, normalise="country", sites=shown).share
        shared = f"; one shared pattern explains {100 * share:.1f}% of the variance"
    countries = theme.plural(len(names), "country")
    theme.lay_out(
        figure,
        f"{titled(scores, control)} by country",
        f"{sample(scores)} of {countries}, {', '.join(map(str, shown))}{shared}{remark}",
        height=theme.heat_height(len(means)) + 230,
    )
    figure.update_xaxes(title_text="country (n questions)")
    return figure


def _means(scores: NeuronScores, sites: tuple[Site, ...], control: NeuronScores | None) -> np.ndarray:
    """[layer, country]: the mean score of a layer's neurons, each country's control subtracted."""
    missing = [c for c in scores.countries if control is not None and c not in control.countries]
    if control is not None and missing:
        raise ScoreError(
            f"the control has no scores of {missing[0]!r}: countries are {', '.join(control.countries)}"
        )
    total = np.zeros((len(scores.countries), scores.layers))
    for site in sites:
        values = _per_cluster(scores, site)
        if control is not None:
            rows = [control.countries.index(country) for country in scores.countries]
            values = values - _per_cluster(control, site)[rows]
        check_finite(values.sum(0), site)
        total += values.sum(axis=2, dtype=np.float64)
    return (total / sum(scores.widths[site] for site in sites)).T


def _per_cluster(scores: NeuronScores, site: Site) -> np.ndarray:
    """[country, layer, neuron], each country divided by its own number of clusters."""
    return scores.arrays[site] / np.maximum(scores.country_clusters, 1).astype(np.float32)[:, None, None]
