"""Countries: in which layers each one's neurons sit, and whom switching them off hurts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..data.neurons import NeuronSet, Site
from ..data.results import EvaluationResult
from ..data.scores import NO_COUNTRY, NeuronScores
from ..data.statistics import clustered_mean
from ..errors import NeuronError, ScoreError
from ..method.specificity import shared_pattern
from . import theme
from .values import SCORE_UNIT, check_finite, country_label, layers_of, sample, sites_of, wanted_sites


def country_heatmap(
    neurons: NeuronSet | NeuronScores,
    *,
    show: Literal["count", "share"] = "count",
    sites: Iterable[Site | str] | None = None,
    control: NeuronScores | None = None,
) -> go.Figure:
    """Layer x country: neurons of a culture-specific set, or the mean score of a layer's neurons.

    For scores the title tells the share of variance that one pattern shared by all countries explains (rank-1 share of the
    country x neuron matrix): where it is near 100%, a column says little about its country alone.

    Args:
        neurons: a culture-specific set, or scores.
        show: of a set, the "count" of neurons or the "share": percent of the country's neurons.
        sites: which sites; all by default.
        control: subtracted from scores, a cluster against a cluster.

    Raises:
        NeuronError: a set without countries. ScoreError: no such site, NaN.
    """
    if isinstance(neurons, NeuronScores):
        return _scores_by_country(neurons, sites, control)
    if control is not None:
        raise NeuronError("a control is subtracted from NeuronScores; this is a NeuronSet")
    if "country" not in neurons.table.columns:
        raise NeuronError(
            f"this set ({neurons.provenance.kind}) has no countries: give a culture-specific set or scores"
        )
    layers, shown = layers_of([neurons]), sites_of([neurons], sites)
    countries = neurons.countries
    rows = neurons.table.loc[neurons.table["site"].isin([site.value for site in shown]), ["layer", "country"]]
    counts = np.zeros((layers, max(len(countries), 1)), dtype=np.int64)
    np.add.at(
        counts, (rows["layer"].to_numpy(), pd.Categorical(rows["country"], categories=countries).codes), 1
    )
    totals = counts.sum(0)
    shares = 100 * counts / np.maximum(totals, 1)
    names = [country_label(country) for country in countries] or ["no country"]
    hover = [
        [
            f"layer {layer}, {name}<br>{theme.plural(int(counts[layer, i]), 'neuron')}, {shares[layer, i]:.1f}% of the country's"
            for i, name in enumerate(names)
        ]
        for layer in range(layers)
    ]
    values = counts.astype(float) if show == "count" else shares
    texts = np.where(counts > 0, np.char.mod("%d" if show == "count" else "%.1f", values), "")
    columns = theme.with_n(names, totals.tolist())
    figure, _ = theme.layer_matrix(
        values,
        columns,
        unit="neurons" if show == "count" else "% of the country's neurons",
        hover=hover,
        texts=texts,
    )
    theme.lay_out(
        figure,
        "Culture-specific neurons by layer",
        f"n = {theme.plural(int(totals.sum()), 'neuron')}, once a country, of {', '.join(map(str, shown))}",
        height=theme.heat_height(layers) + 230,
    )
    figure.update_xaxes(title_text="country (n neurons)")
    return figure if counts.any() else theme.say(figure, "no neurons in this set")


def _scores_by_country(
    scores: NeuronScores, sites: Iterable[Site | str] | None, control: NeuronScores | None
) -> go.Figure:
    shown = wanted_sites(scores, sites)
    if not scores.countries or not shown:
        raise ScoreError(f"scores of {scores.task} hold no country")
    missing = [c for c in scores.countries if control is not None and c not in control.countries]
    if missing:
        raise ScoreError(
            f"the control has no scores of {missing[0]!r}: countries are {', '.join(control.countries if control else ())}"
        )
    total = np.zeros((len(scores.countries), scores.layers))
    for site in shown:
        values = _a_question(scores, site)
        if control is not None:
            rows = [control.countries.index(country) for country in scores.countries]
            values = values - _a_question(control, site)[rows]
        check_finite(values.sum(0), site)
        total += values.sum(axis=2, dtype=np.float64)
    means = (total / sum(scores.widths[site] for site in shown)).T  # [layer, country]
    names = [country_label(country) for country in scores.countries]
    hover = [
        [
            f"layer {layer}, {name}<br>mean over the layer's neurons: {means[layer, i]:.4g}"
            for i, name in enumerate(names)
        ]
        for layer in range(len(means))
    ]
    columns = theme.with_n(names, scores.questions)
    figure, remark = theme.layer_matrix(
        means, columns, unit=f"mean {SCORE_UNIT} and neuron", hover=hover, robust=True
    )
    shared = ""
    if sum(country != NO_COUNTRY for country in scores.countries) > 1 and total.any():
        share = shared_pattern(scores, control, normalise="country", sites=shown).share
        shared = f"; one shared pattern explains {100 * share:.1f}% of the variance"
    title = f"Scores on {scores.task}{f' minus {control.task}' if control else ''} by country"
    theme.lay_out(
        figure,
        title,
        f"{sample(scores)} of {theme.plural(len(names), 'country')}, {', '.join(map(str, shown))}{shared}{remark}",
        height=theme.heat_height(len(means)) + 230,
    )
    figure.update_xaxes(title_text="country (n questions)")
    return figure


def _a_question(scores: NeuronScores, site: Site) -> np.ndarray:
    """[country, layer, neuron], each country divided by its own number of questions."""
    return scores.arrays[site] / np.maximum(scores.country_clusters, 1).astype(np.float32)[:, None, None]


def drop_table(base: EvaluationResult, suppressed: Mapping[str, EvaluationResult]) -> pd.DataFrame:
    """Drops in accuracy, one row a pair: whose neurons are suppressed (`neurons`) and whose questions are asked (`country`).

    Returns:
        Columns neurons, country, drop (points), se (points, over clusters, paired), rank (1 drops most, equal drops
        share their mean rank), questions, clusters. The tasks of a result count together.

    Raises:
        ScoreError: no results, other questions than in `base`, or none with a country.
    """
    if not suppressed:
        raise ScoreError(
            "no results to compare: give {country: EvaluationResult with its neurons suppressed}"
        )
    keys = ["task", "id", "template", "country"]
    before = base.table.dropna(subset=["country"])
    if before.empty:
        raise ScoreError("none of the questions has a country")
    if any(result.table.duplicated(keys).any() for result in (base, *suppressed.values())):
        raise ScoreError(
            "a question occurs twice (same task, id, template and country): results cannot be paired"
        )
    rows = []
    for name, result in suppressed.items():
        pairs = before.merge(
            result.table.dropna(subset=["country"])[[*keys, "correct"]], on=keys, suffixes=("", "_after")
        )
        if len(pairs) != len(before) or len(pairs) != result.table["country"].notna().sum():
            raise ScoreError(
                f"the result with {name}'s neurons suppressed is of other questions than the unchanged one"
            )
        lost = pairs["correct"].astype(float) - pairs["correct_after"].astype(float)
        for country, part in lost.groupby(pairs["country"], sort=False):
            mean, se, clusters = clustered_mean(part.to_numpy(), pairs.loc[part.index, "cluster"].to_numpy())
            rows.append((name, country, 100 * mean, 100 * se, len(part), clusters))
    table = pd.DataFrame(rows, columns=["neurons", "country", "drop", "se", "questions", "clusters"])
    ranks = (
        table["drop"].round(9).groupby(table["neurons"], sort=False).rank(method="average", ascending=False)
    )
    table.insert(4, "rank", ranks)
    return table


def drop_matrix(
    base: EvaluationResult,
    suppressed: Mapping[str, EvaluationResult],
    *,
    show: Literal["drop", "rank"] = "drop",
) -> go.Figure:
    """Country x country: by how many points each country's questions suffer when each country's neurons are suppressed.

    A frame marks a country's own questions; their rank among the row's drops stands beside its name (1: nobody suffers more).

    Args:
        base: the unchanged model.
        suppressed: country -> the same questions with that country's neurons suppressed.
        show: write the "drop" (points) or its "rank" into the cells. Colours are the drop, red where accuracy is lost.

    Raises:
        ScoreError: as `drop_table`.
    """
    table = drop_table(base, suppressed)
    rows = list(suppressed)
    others = [c for c in dict.fromkeys(table["country"]) if c not in rows]
    columns = [c for c in rows if c in set(table["country"])] + others
    wide = {
        key: table.pivot(index="neurons", columns="country", values=key).reindex(index=rows, columns=columns)
        for key in ("drop", "se", "rank", "questions", "clusters")
    }
    drops, ranks = wide["drop"].to_numpy(), wide["rank"].to_numpy()
    own = {row: float(wide["rank"].loc[row, row]) for row in rows if row in columns}
    labels = [
        f"{country_label(row)} ({own[row]:g} of {len(columns)})" if row in own else country_label(row)
        for row in rows
    ]
    texts = [
        [f"{d:.1f}" if show == "drop" else f"{r:g}" for d, r in zip(*pair)] for pair in zip(drops, ranks)
    ]
    hover = [
        [
            f"{row}'s neurons suppressed, {column}'s questions<br>drop {wide['drop'].loc[row, column]:.2f} ± {wide['se'].loc[row, column]:.2f} points (standard error)"
            f"<br>rank {wide['rank'].loc[row, column]:g} of {len(columns)}"
            f"<br>{int(wide['questions'].loc[row, column]):,} questions in {int(wide['clusters'].loc[row, column]):,} clusters"
            for column in columns
        ]
        for row in rows
    ]
    figure = go.Figure()
    figure.add_heatmap(
        z=drops,
        x=list(range(len(columns))),
        y=list(range(len(rows))),
        text=texts,
        texttemplate="%{text}",
        hovertext=hover,
        hoverinfo="text",
        coloraxis="coloraxis",
        xgap=1,
        ygap=1,
    )
    axis, _ = theme.coloraxis(drops, "drop in accuracy (points)")
    for row in own:
        x, y = columns.index(row), rows.index(row)
        figure.add_shape(
            type="rect",
            x0=x - 0.5,
            x1=x + 0.5,
            y0=y - 0.5,
            y1=y + 0.5,
            line={"color": theme.INK, "width": 2.5},
        )
    n = table[table["neurons"] == rows[0]]["questions"].sum()
    mean = (
        f"; mean rank of the own country {np.mean(list(own.values())):.2f} of {len(columns)}" if own else ""
    )
    theme.lay_out(
        figure,
        "What suppressing each country's neurons costs",
        f"n = {theme.plural(int(n), 'question')} a row{mean}",
        height=max(290 + 34 * len(rows), 420),
    )
    figure.update_layout(coloraxis=axis)
    figure.update_xaxes(
        title_text="whose questions",
        tickvals=list(range(len(columns))),
        ticktext=[country_label(c) for c in columns],
        showgrid=False,
        range=[-0.5, len(columns) - 0.5],
    )
    figure.update_yaxes(
        title_text="whose neurons (rank of the own drop)",
        tickvals=list(range(len(rows))),
        ticktext=labels,
        showgrid=False,
        range=[len(rows) - 0.5, -0.5],
        zeroline=False,
    )
    return figure
