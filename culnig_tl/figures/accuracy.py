"""What models answer: accuracy by task and setting."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from ..data.results import EvaluationResult
from ..errors import ScoreError
from . import theme


def accuracy_bars(
    results: Mapping[str, EvaluationResult] | EvaluationResult,
    *,
    by: Literal["task", "country", "group", "template"] = "task",
    labels_only: bool = False,
) -> go.Figure:
    """Accuracy in percent, tasks x settings, with 95% intervals (1.96 standard errors, over clusters of questions).

    Args:
        results: setting -> result, e.g. ``{"unchanged": ..., "suppressed": ...}``.
        by: what the groups of bars are.
        labels_only: count a prediction among the labels alone.

    Raises:
        ScoreError: no results, an empty one, or none with that column filled.
    """
    given = (
        {str(results.metadata.get("setting", "unchanged")): results}
        if isinstance(results, EvaluationResult)
        else dict(results)
    )
    if not given:
        raise ScoreError("no results to draw: give {setting: EvaluationResult}")
    for name, result in given.items():
        if not isinstance(result, EvaluationResult):
            raise ScoreError(f"{name!r} is a {type(result).__name__}, not an EvaluationResult")
        if not len(result):
            raise ScoreError(f"the result {name!r} holds no question")
    tables = {name: _table(result, by, labels_only) for name, result in given.items()}
    groups = list(dict.fromkeys(group for table in tables.values() for group in table.index))
    sizes = [
        max(int(table.at[group, "questions"]) for table in tables.values() if group in table.index)
        for group in groups
    ]
    figure = go.Figure()
    for number, (name, table) in enumerate(tables.items()):
        table = table.reindex(groups)
        figure.add_bar(
            x=theme.with_n(map(str, groups), sizes),
            y=table["accuracy"],
            error_y={
                "type": "data",
                "array": (theme.Z95 * table["se"]).fillna(0),
                "color": theme.INK,
                "thickness": 1.2,
                "width": 3,
            },
            name=name,
            marker={"color": theme.PALETTE[number % len(theme.PALETTE)]},
            hovertext=[_hover(name, str(group), table.loc[group].to_dict()) for group in groups],
            hoverinfo="text",
        )
    n = max(int(table["questions"].sum()) for table in tables.values())
    aligned = (
        ", or alignment (0 to 100)" if any(str(group).endswith(": alignment") for group in groups) else ""
    )
    single = any((table["clusters"] < 2).any() for table in tables.values())
    note = "; no interval where all questions are one cluster" if single else ""
    theme.lay_out(
        figure,
        "Accuracy " + ("among the labels" if labels_only else "over the whole vocabulary"),
        f"n = {theme.plural(n, 'question')} a setting; bars: 95% intervals over clusters{note}",
    )
    figure.update_layout(
        barmode="group",
        yaxis={
            "title": {"text": f"accuracy (%){aligned}"},
            "range": [0, max(100.0, *(highest(table) for table in tables.values()))],
        },
        xaxis={"title": {"text": f"{by} (n questions)"}, "type": "category"},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        margin={"t": 100},
        showlegend=True,
    )
    return figure


def highest(table: pd.DataFrame) -> float:
    """Where the highest interval of a table with accuracy and se ends."""
    return float((table["accuracy"] + theme.Z95 * table["se"].fillna(0)).max())


def _table(result: EvaluationResult, by: str, labels_only: bool) -> pd.DataFrame:
    """Accuracy, or alignment in percent for tasks that have one and no accuracy to speak of (WorldValuesBench)."""
    table = result.accuracy(by=by, labels_only=labels_only)
    if by == "task" and result.table["alignment"].notna().any():
        aligned = result.alignment(by=by).rename(columns={"alignment": "accuracy"})
        table.loc[aligned.index] = aligned[table.columns]
        table = table.rename(index={task: f"{task}: alignment" for task in aligned.index})
    return table


def _hover(setting: str, group: str, row: Mapping[str, float]) -> str:
    if math.isnan(row["accuracy"]):
        return f"{setting}, {group}: no questions"
    p_of_answer = (
        "" if math.isnan(row["p_answer"]) else f"<br>mean P(answer) {row['p_answer']:.3f}"
    )  # of answers in words unknown
    return (
        f"{setting}, {group}<br>{row['accuracy']:.2f}% ± {row['se']:.2f} (standard error)"
        f"{p_of_answer}<br>{int(row['questions']):,} questions in {int(row['clusters']):,} clusters"
    )
