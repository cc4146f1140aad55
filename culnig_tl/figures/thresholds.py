"""Thresholds: how scores are distributed, where the cut-offs fall, and what other cut-offs would have given."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..data.neurons import NeuronSet, Site
from ..data.scores import NeuronScores
from ..defaults import DROP_READING, MIN_Z, TOP_ATTN, TOP_MLP, TOP_SPECIFIC
from ..errors import NeuronError, ScoreError
from . import theme
from .values import SCORE_UNIT, country_label, per_cluster, sample

BINS = 120
"""Bars of a panel of the histogram."""
REACH = 8.0
"""Bars end at this many times the distance from the median to the cut-off; the outermost ones hold the rest."""
PAPER = {
    "top_mlp": TOP_MLP,
    "top_attn": TOP_ATTN,
    "drop_reading": DROP_READING,
    "t": TOP_SPECIFIC,
    "z": MIN_Z,
}
"""Parameter -> the paper's value."""
NAMES = {
    "top_mlp": "share of MLP neurons taken (top_mlp)",
    "top_attn": "share of q, k, v neurons taken (top_attn)",
    "drop_reading": "share removed by country reading comprehension (r)",
    "t": "share of all neurons taken (t)",
    "z": "least z over countries (z)",
}


def score_histogram(
    scores: NeuronScores,
    *,
    control: NeuronScores | None = None,
    neurons: NeuronSet | None = None,
    country: str | None = None,
    sites: Iterable[Site | str] | None = None,
    thresholds: Mapping[str, float] | None = None,
) -> go.Figure:
    """How the scores of each pool are distributed, with the cut-offs of the selection drawn in.

    The vertical axis is logarithmic. A cut-off lies at the lowest score among the top share; the outermost bars hold
    everything beyond them, and the small print says up to where.

    Args:
        control: subtracted, a cluster against a cluster: the value that neurons are selected by.
        neurons: a set of the same scores, drawn on top: what the other filters have left of the top share.
        country: that country's scores, all sites in one pool as for culture-specific neurons; else MLP and attention apart.
        sites: which sites; all by default.
        thresholds: "top_mlp" and "top_attn" (or, with a country, "t"): shares. Those of `neurons` by default, else the paper's.

    Raises:
        ScoreError: no such site or country, NaN. NeuronError: a threshold outside 0 to 1, a set of another model.
    """
    values = per_cluster(scores, control, country=country, sites=sites)
    known = {
        **PAPER,
        **(
            {k: v for k, v in neurons.provenance.thresholds.items() if k in PAPER}
            if neurons is not None
            else {}
        ),
        **(thresholds or {}),
    }
    pools = (
        {"all sites": ("t", list(values))}
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
    remarks = []
    for row, (parameter, members) in enumerate(pools.values(), start=1):
        pool = np.concatenate([values[site].ravel() for site in members])
        chosen = _chosen_scores(values, members, neurons, country) if neurons is not None else None
        remarks.append(_histogram(figure, row, pool, chosen, _share(parameter, known[parameter]), parameter))
    size = theme.plural(sum(array.size for array in values.values()), "neuron")
    title = f"Scores on {scores.task}{f' minus {control.task}' if control else ''}{f', {country_label(country)}' if country else ''}"
    theme.lay_out(
        figure,
        title,
        f"n = {size}; {sample(scores, country)}{''.join(r for r in remarks if r)}",
        height=150 + 290 * len(pools),
    )
    theme.panel_titles(figure)
    figure.update_xaxes(title_text=SCORE_UNIT)
    figure.update_yaxes(
        title_text="neurons (log scale)", type="log", dtick=1, exponentformat="none", rangemode="normal"
    )
    figure.update_layout(
        barmode="overlay",
        bargap=0,
        legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.0, "yanchor": "bottom"},
        showlegend=neurons is not None,
    )
    return figure


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
                    f"the set has {site} neuron {index[-1]} in layer {layer}, the scores do not: they are of another model"
                )
            parts.append(values[site][layer, index])
    return np.concatenate(parts)


def _histogram(
    figure: go.Figure, row: int, pool: np.ndarray, chosen: np.ndarray | None, share: float, parameter: str
) -> str:
    """One pool's panel; returns a remark for the small print."""
    count = int(pool.size * share)
    cut = float(np.partition(pool, pool.size - count)[pool.size - count]) if count else None
    low, high, remark = float(pool.min()), float(pool.max()), ""
    if low == high:
        edges = np.array([low - 0.5, low + 0.5]) if low == 0 else np.sort([0.5 * low, 1.5 * low])
        remark = f"; all scores are equal ({low:.4g})"
    else:
        if cut is not None:
            middle = float(np.median(pool))
            reach = REACH * (cut - middle) or high - low
            if high > middle + reach or low < middle - reach:
                remark = f"; outermost bars reach {low:.2g} and {high:.2g}"
            low, high = max(low, middle - reach), min(high, middle + reach)
        edges = np.linspace(low, high, BINS + 1)
    groups = [
        ("all", pool, "#B5BEC6"),
        *([("in the set", chosen, theme.PALETTE[0])] if chosen is not None else []),
    ]
    for name, data, colour in groups:
        counts, _ = np.histogram(np.clip(data, edges[0], edges[-1]), bins=edges)
        figure.add_bar(
            x=(edges[:-1] + edges[1:]) / 2, y=counts, width=np.diff(edges), name=name, legendgroup=name, showlegend=row == 1,
            marker={"color": colour, "line": {"width": 0}}, customdata=np.stack([edges[:-1], edges[1:]], axis=1),
            hovertemplate=f"{name}: %{{y:,}} neurons<br>score %{{customdata[0]:.4g}} to %{{customdata[1]:.4g}}<extra></extra>", row=row, col=1,
        )  # fmt: skip
    figure.update_xaxes(range=[float(edges[0]), float(edges[-1])], row=row, col=1)
    if cut is None:
        return remark + f"; {parameter} = {share:g} takes no neuron"
    text = f"top {100 * share:g}% = {theme.plural(count, 'neuron')}<br>score ≥ {cut:.3g}"
    theme.mark(figure, cut, text, row=row, column=1, colour=theme.PALETTE[4])
    return remark


def threshold_curves(sweep: pd.DataFrame) -> go.Figure:
    """Accuracy as a threshold moves: one panel a threshold, one line a task and setting, with bands of 95%.

    Args:
        sweep: one row a point, with the columns

            - parameter: which threshold moves, e.g. "top_mlp", "top_attn", "drop_reading", "z"; the paper's value of those is drawn in
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
    missing = [column for column in ("parameter", "threshold", "accuracy") if column not in sweep.columns]
    if missing:
        raise ScoreError(
            f"a sweep needs the columns parameter, threshold, accuracy; missing: {', '.join(missing)}"
        )
    if sweep.empty:
        raise ScoreError("this sweep has no rows")
    table = sweep.assign(
        **{
            column: sweep[column] if column in sweep.columns else default
            for column, default in (
                ("task", ""),
                ("setting", ""),
                ("se", np.nan),
                ("neurons", np.nan),
                ("questions", np.nan),
                ("culture", True),
            )
        }
    )
    numbers = table[["threshold", "accuracy"]].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=float)
    if not np.isfinite(numbers).all():
        raise ScoreError(
            f"threshold and accuracy are numbers: row {int(np.argwhere(~np.isfinite(numbers))[0][0])} of the sweep is not"
        )
    parameters, tasks, settings = (list(dict.fromkeys(table[c])) for c in ("parameter", "task", "setting"))
    figure = make_subplots(cols=len(parameters), shared_yaxes=True, horizontal_spacing=0.04)
    for column, parameter in enumerate(parameters, start=1):
        scale = 1.0 if parameter == "z" else 100.0
        rows = table.loc[table["parameter"] == parameter]
        for task, setting in dict.fromkeys(zip(rows["task"], rows["setting"])):
            part: Any = rows.loc[(rows["task"] == task) & (rows["setting"] == setting)]
            colour = theme.PALETTE[tasks.index(task) % len(theme.PALETTE)]
            _curve(
                figure,
                column,
                part.sort_values(by="threshold"),
                scale,
                colour,
                theme.DASHES[settings.index(setting) % len(theme.DASHES)],
                f"{task} {setting}".strip() or "accuracy",
            )
        low, high = rows["threshold"].min(), rows["threshold"].max()
        log = bool(low > 0 and high >= 20 * low)
        if log:
            ticks = [digit * 10.0**power for power in range(-8, 3) for digit in (1, 2, 5)]
            figure.update_xaxes(
                type="log", tickvals=ticks, ticktext=[f"{tick:g}" for tick in ticks], row=1, col=column
            )
        title = NAMES.get(parameter, str(parameter)) + ("" if parameter == "z" else ", %")
        figure.update_xaxes(title_text=title, row=1, col=column)
        if parameter in PAPER:
            theme.mark(
                figure,
                PAPER[parameter] * scale,
                "paper",
                row=1,
                column=column,
                colour="#999999",
                dash="dot",
                log=log,
            )
    figure.update_yaxes(title_text="accuracy (%)", row=1, col=1)
    sizes = [f"{int(n):,}" for n in sorted(table["questions"].dropna().unique())]
    remarks = [
        f"n = {', '.join(sizes)} questions" if sizes else "",
        f"{theme.plural(len(table), 'point')} over {theme.plural(len(parameters), 'threshold')}",
        "bands: 95% intervals" if table["se"].notna().any() else "",
        "open marks: tasks that are not cultural" if not table["culture"].all() else "",
    ]
    theme.lay_out(figure, "What other thresholds give", "; ".join(filter(None, remarks)), height=480)
    figure.update_layout(legend={"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0}, showlegend=True)
    return figure


def _curve(
    figure: go.Figure, column: int, part: pd.DataFrame, scale: float, colour: str, dash: str, name: str
) -> None:
    x = scale * part["threshold"].to_numpy(dtype=float)
    y, half = part["accuracy"].to_numpy(dtype=float), theme.Z95 * part["se"].to_numpy(dtype=float)
    if np.isfinite(half).any():
        half = np.nan_to_num(half)
        figure.add_scatter(
            x=np.concatenate([x, x[::-1]]), y=np.concatenate([y + half, (y - half)[::-1]]), fill="toself", mode="lines", line={"width": 0},
            fillcolor=_faint(colour), hoverinfo="skip", showlegend=False, legendgroup=name, row=1, col=column,
        )  # fmt: skip
    sizes = ["" if pd.isna(n) else f"<br>{theme.plural(int(n), 'neuron')}" for n in part["neurons"]]
    figure.add_scatter(
        x=x, y=y, mode="lines+markers", name=name, legendgroup=name, showlegend=column == 1, line={"color": colour, "dash": dash, "width": 2},
        marker={"size": 7, "symbol": "circle" if part["culture"].all() else "circle-open"}, hovertext=[f"{name}<br>{v:g}{'%' if scale == 100 else ''}: accuracy {a:.2f}%{size}" for v, a, size in zip(x, y, sizes)], hoverinfo="text",
        row=1, col=column,
    )  # fmt: skip


def _faint(colour: str) -> str:
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},0.15)"
