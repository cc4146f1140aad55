"""Thresholds: how scores are distributed, where the cut-offs fall, and what other cut-offs would give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data.neurons import NeuronSet, Site
from ..data.scores import NeuronScores
from ..data.statistics import share_interval
from ..defaults import DROP_READING, MIN_Z, TOP_ATTN, TOP_MLP, TOP_SPECIFIC
from ..errors import NeuronError, ScoreError
from ..study.config import GENERAL, SPECIFIC
from ..study.opened import OpenStudy
from ..study.study import Study
from . import theme
from .values import SCORE_UNIT, checked, per_cluster, sample, scores_of, titled

BINS = 120
"""Bars of a panel of the histogram."""
REACH = 8.0
"""Bars end at this many times the distance from the median to the cut-off; the outermost ones hold the
rest."""
PAPER = {
    "top_mlp": TOP_MLP,
    "top_attn": TOP_ATTN,
    "top": TOP_SPECIFIC,
    "drop_reading": DROP_READING,
    "z": MIN_Z,
}
"""Threshold -> the paper's value."""
NAMES = {
    "top_mlp": "share of MLP neurons taken (top_mlp)",
    "top_attn": "share of q, k, v neurons taken (top_attn)",
    "top": "share of all neurons taken (top)",
    "drop_reading": "share removed by country reading comprehension (drop_reading)",
    "z": "least z over countries (z)",
}
_OPTIONAL = {"task": "", "setting": "", "se": np.nan, "neurons": np.nan, "questions": np.nan, "culture": True}
"""Columns that a sweep may lack, and what they are then."""


@theme.literal
def score_histogram(
    scores: NeuronScores | Study | OpenStudy | str | Path,
    *,
    control: NeuronScores | None = None,
    neurons: NeuronSet | None = None,
    country: str | None = None,
    sites: Iterable[Site | str] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> go.Figure:
    """How the scores of each pool are distributed, with the cut-offs of the selection drawn in.

    The vertical axis is logarithmic. A cut-off lies at the lowest score among the top share; the outermost
    bars hold everything beyond them, and the small print says how far they reach.

    Args:
        scores: or a study, or its folder: its control, and its culture-general neurons (of a country the
            culture-specific ones), are then drawn too.
        control: subtracted, both divided by their clusters: the value that neurons are selected by.
        neurons: a set of the same scores, drawn on top: what the other filters have left of the top share.
        country: that country's scores, all sites in one pool as for culture-specific neurons; else MLP and
            attention apart.
        sites: which sites; all by default.
        thresholds: "top_mlp" and "top_attn" (or, with a country, "top"): shares. Those of `neurons` by
            default, else the paper's.

    Raises:
        ScoreError: no such site or country, NaN. NeuronError: a threshold outside 0 to 1, a set of another
            model.
    """
    scores, control, study = scores_of(scores, control, "score_histogram")
    if study is not None and neurons is None:
        neurons = study.neurons.get(SPECIFIC if country else GENERAL)
    values = per_cluster(scores, control, country=country, sites=sites)
    known = {**PAPER, **(neurons.provenance.thresholds if neurons is not None else {}), **(thresholds or {})}
    pools = (
        {"all sites": ("top", list(values))}
        if country
        else {
            "MLP": ("top_mlp", [s for s in values if s.pool == "mlp"]),
            "attention": ("top_attn", [s for s in values if s.pool == "attn"]),
        }
    )
    pools = {name: pool for name, pool in pools.items() if pool[1]}
    figure = make_subplots(
        rows=len(pools),
        vertical_spacing=0.2,
        subplot_titles=[f"{name}: {', '.join(map(str, members))}" for name, (_, members) in pools.items()],
    )
    remarks = ""
    for row, (parameter, members) in enumerate(pools.values(), start=1):
        pool = np.concatenate([values[site].ravel() for site in members])
        chosen = _chosen_scores(values, members, neurons, country) if neurons is not None else None
        remarks += _histogram(figure, row, pool, chosen, parameter, _share(parameter, known[parameter]))
    size = theme.plural(sum(array.size for array in values.values()), "neuron")
    theme.lay_out(
        figure,
        titled(scores, control, country),
        f"n = {size}; {sample(scores, country)}{remarks}",
        height=150 + 290 * len(pools),
    )
    theme.panel_titles(figure)
    figure.update_xaxes(title_text=SCORE_UNIT)
    figure.update_yaxes(
        title_text="neurons (log scale)", type="log", dtick=1, exponentformat="none", rangemode="normal"
    )
    return figure.update_layout(
        barmode="overlay", bargap=0, legend=theme.LEGEND_RIGHT, showlegend=neurons is not None
    )


def _share(name: str, value: Any) -> float:
    if not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise NeuronError(f"{name} is a share between 0 and 1 (1% is 0.01), not {value!r}")
    return float(value)


def _chosen_scores(
    values: Mapping[Site, np.ndarray], members: list[Site], neurons: NeuronSet, country: str | None
) -> np.ndarray:
    if country and country in neurons.countries:
        neurons = neurons.for_country(country)
    parts = [np.empty(0, dtype=np.float32)]
    for (site, layer), index in neurons.indices.items():
        if site in members:
            if layer >= values[site].shape[0] or index[-1] >= values[site].shape[1]:
                raise NeuronError(
                    f"the set has {site} neuron {index[-1]} in layer {layer}, the scores do not: "
                    "they are of another model"
                )
            parts.append(values[site][layer, index])
    return np.concatenate(parts)


def _histogram(
    figure: go.Figure, row: int, pool: np.ndarray, chosen: np.ndarray | None, parameter: str, share: float
) -> str:
    """One pool's panel; returns a remark for the small print."""
    count = int(pool.size * share)
    cut = float(np.partition(pool, pool.size - count)[pool.size - count]) if count else None
    edges, remark = _edges(pool, cut)
    groups = [("all", pool, "#B5BEC6")]
    if chosen is not None:
        groups.append(("in the set", chosen, theme.PALETTE[0]))
    for name, data, colour in groups:
        counts, _ = np.histogram(np.clip(data, edges[0], edges[-1]), bins=edges)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2,
            y=counts,
            width=np.diff(edges),
            name=name,
            legendgroup=name,
            showlegend=row == 1,
            marker={"color": colour, "line": {"width": 0}},
            hovertext=[
                f"{name}: {theme.plural(int(n), 'neuron')}\nscore {theme.number(low)} to {theme.number(high)}"
                for n, low, high in zip(counts, edges[:-1], edges[1:])
            ],
            hoverinfo="text",
            row=row,
            col=1,
        )
    figure.update_xaxes(range=[float(edges[0]), float(edges[-1])], row=row, col=1)
    if cut is None:
        return f"{remark}; {parameter} = {share:g} takes no neuron"
    text = f"top {100 * share:g}% = {theme.plural(count, 'neuron')}\nscore ≥ {theme.number(cut, '.3g')}"
    theme.mark(figure, cut, text, row=row, column=1, colour=theme.PALETTE[4])
    return remark


def _edges(pool: np.ndarray, cut: float | None) -> tuple[np.ndarray, str]:
    """Edges of the bars, and a remark where they do not show every score in its place."""
    low, high = float(pool.min()), float(pool.max())
    if low == high:
        edges = np.array([low - 0.5, low + 0.5]) if low == 0 else np.sort([0.5 * low, 1.5 * low])
        return edges, f"; all scores are equal ({theme.number(low)})"
    remark = ""
    if cut is not None:
        middle = float(np.median(pool))
        reach = REACH * (cut - middle) or high - low
        if high > middle + reach or low < middle - reach:
            remark = f"; outermost bars reach {theme.number(low, '.2g')} and {theme.number(high, '.2g')}"
        low, high = max(low, middle - reach), min(high, middle + reach)
    return np.linspace(low, high, BINS + 1), remark


@theme.literal
def threshold_curves(sweep: pd.DataFrame) -> go.Figure:
    """Accuracy as a threshold moves, with bands of 95%: a panel for each threshold, a line for each task and
    setting.

    Args:
        sweep: one row per point, with the columns

            - parameter: which threshold moves, e.g. "top_mlp", "top_attn", "drop_reading", "z"; the paper's
              value of those is drawn in
            - threshold: its value (a share of 0.01 is shown as 1%)
            - accuracy: percent
            - se: standard error of the accuracy in points (optional; NaN where unknown)
            - task, setting: names, e.g. "blend" and "culture-general, suppress" (optional)
            - culture: whether the task is a cultural one (optional); the marks of the others are open
            - neurons, questions: size of the set at that threshold, number of questions asked (optional)

            as `Sweep.curves` gives them. A threshold that spans a factor of 20 gets a logarithmic axis.

    Raises:
        ScoreError: a column missing, no rows, or numbers that are none.
    """
    checked(sweep, ("parameter", "threshold", "accuracy"))
    table = sweep.assign(**{name: value for name, value in _OPTIONAL.items() if name not in sweep.columns})
    numbers = table[["threshold", "accuracy"]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(numbers).all():
        row = int(np.argwhere(~np.isfinite(numbers))[0][0])
        raise ScoreError(f"threshold and accuracy are numbers: row {row} of the sweep is not")
    parameters, tasks, settings = (list(dict.fromkeys(table[c])) for c in ("parameter", "task", "setting"))
    figure = make_subplots(cols=len(parameters), shared_yaxes=True, horizontal_spacing=0.04)
    for column, parameter in enumerate(parameters, start=1):
        rows = table.loc[table["parameter"] == parameter]
        for task, setting in dict.fromkeys(zip(rows["task"], rows["setting"])):
            part: Any = rows.loc[(rows["task"] == task) & (rows["setting"] == setting)]
            colour = theme.PALETTE[tasks.index(task) % len(theme.PALETTE)]
            dash = theme.DASHES[settings.index(setting) % len(theme.DASHES)]
            _curve(figure, column, part.sort_values(by="threshold"), parameter, colour, dash)
        _threshold_axis(figure, column, parameter, rows["threshold"].min(), rows["threshold"].max())
    figure.update_yaxes(title_text="accuracy (%)", row=1, col=1)
    sizes = [f"{int(n):,}" for n in sorted(table["questions"].dropna().unique())]
    remarks = [
        f"n = {', '.join(sizes)} questions" if sizes else "",
        f"{theme.plural(len(table), 'point')} over {theme.plural(len(parameters), 'threshold')}",
        "bands: 95% intervals (Wilson)" if table["se"].notna().any() else "",
        "open marks: tasks that are not cultural" if not table["culture"].all() else "",
    ]
    theme.lay_out(figure, "What other thresholds give", "; ".join(filter(None, remarks)), height=480)
    below = {"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0}
    return figure.update_layout(legend=below, showlegend=True)


def _scale(parameter: str) -> float:
    """Shares are shown in percent, z as it is."""
    return 1.0 if parameter == "z" else 100.0


def _threshold_axis(figure: go.Figure, column: int, parameter: str, low: float, high: float) -> None:
    """Names a panel's axis, makes it logarithmic where it spans a factor of 20, and marks the paper's
    value."""
    log = bool(low > 0 and high >= 20 * low)
    if log:
        ticks = [digit * 10.0**power for power in range(-8, 3) for digit in (1, 2, 5)]
        words = [f"{tick:g}" for tick in ticks]
        figure.update_xaxes(type="log", tickvals=ticks, ticktext=words, row=1, col=column)
    title = NAMES.get(parameter, str(parameter)) + ("" if parameter == "z" else ", %")
    figure.update_xaxes(title_text=title, row=1, col=column)
    if parameter in PAPER:
        place = PAPER[parameter] * _scale(parameter)
        theme.mark(figure, place, "paper", row=1, column=column, colour="#999999", dash="dot", log=log)


def _curve(
    figure: go.Figure, column: int, part: pd.DataFrame, parameter: str, colour: str, dash: str
) -> None:
    """The points of one task and setting along one threshold, with their band."""
    name = f"{part['task'].iloc[0]} {part['setting'].iloc[0]}".strip() or "accuracy"
    x = _scale(parameter) * part["threshold"].to_numpy(dtype=float)
    y, error = part["accuracy"].to_numpy(dtype=float), part["se"].to_numpy(dtype=float)
    if np.isfinite(error).any():
        asked = part["questions"].fillna(np.inf).to_numpy(dtype=float)
        low, high = share_interval(y, error, asked, asked)
        low, high = (np.where(np.isfinite(end), end, y) for end in (low, high))
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]),
            y=np.concatenate([high, low[::-1]]),
            fill="toself",
            mode="lines",
            line={"width": 0},
            fillcolor=_faint(colour),
            hoverinfo="skip",
            showlegend=False,
            legendgroup=name,
            row=1,
            col=column,
        )
    unit = "" if parameter == "z" else "%"
    sizes = ["" if pd.isna(n) else f"\n{theme.plural(int(n), 'neuron')}" for n in part["neurons"]]
    figure.add_scatter(
        x=x,
        y=y,
        mode="lines+markers",
        name=name,
        legendgroup=name,
        showlegend=column == 1,
        line={"color": colour, "dash": dash, "width": 2},
        marker={"size": 7, "symbol": "circle" if part["culture"].all() else "circle-open"},
        hovertext=[f"{name}\n{v:g}{unit}: accuracy {a:.2f}%{size}" for v, a, size in zip(x, y, sizes)],
        hoverinfo="text",
        row=1,
        col=column,
    )


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
