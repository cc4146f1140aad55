"""What models answer: accuracy by task and setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import pandas as pd
import plotly.graph_objects as go

from ..errors import ScoreError
from ..evaluation import EvaluationResult
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
    given = {str(results.metadata.get("setting", "unchanged")): results} if isinstance(results, EvaluationResult) else dict(results)
    if not given:
        raise ScoreError("no results to draw: give {setting: EvaluationResult}")
    for name, result in given.items():
        if not isinstance(result, EvaluationResult):
            raise ScoreError(f"{name!r} is a {type(result).__name__}, not an EvaluationResult")
        if not len(result):
            raise ScoreError(f"the result {name!r} holds no question")
    tables = {name: result.accuracy(by=by, labels_only=labels_only) for name, result in given.items()}
    groups = list(dict.fromkeys(group for table in tables.values() for group in table.index))
    figure = go.Figure()
    for number, (name, table) in enumerate(tables.items()):
        table = table.reindex(groups)
        figure.add_bar(
            x=[_label(group, tables) for group in groups],
            y=table["accuracy"],
            error_y={"type": "data", "array": (theme.Z95 * table["se"]).fillna(0), "color": theme.INK, "thickness": 1.2, "width": 3},
            name=name,
            marker={"color": theme.PALETTE[number % len(theme.PALETTE)]},
            hovertext=[_hover(name, group, row) for group, row in table.iterrows()],
            hoverinfo="text",
        )
    n = max(int(table["questions"].sum()) for table in tables.values())
    single = any((table["clusters"] < 2).any() for table in tables.values())
    note = "; no interval where all questions are one cluster" if single else ""
    theme.lay_out(figure, "Accuracy " + ("among the labels" if labels_only else "over the whole vocabulary"), f"n = {theme.plural(n, 'question')} a setting; bars: 95% intervals over clusters{note}")
    figure.update_layout(
        barmode="group",
        yaxis={"title": {"text": "accuracy (%)"}, "range": [0, 100 if _fits(tables.values()) else 105]},
        xaxis={"title": {"text": by}, "type": "category"},
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        margin={"t": 110},
        showlegend=True,
    )
    return figure


def _fits(tables: Sequence[pd.DataFrame] | object) -> bool:
    return all((table["accuracy"] + theme.Z95 * table["se"].fillna(0)).max() <= 100 for table in tables)  # type: ignore[attr-defined]


def _label(group: object, tables: Mapping[str, pd.DataFrame]) -> str:
    sizes = sorted({int(table.loc[group, "questions"]) for table in tables.values() if group in table.index})
    return f"{group}<br><span style='font-size:11px'>n = {', '.join(f'{n:,}' for n in sizes)}</span>"


def _hover(setting: str, group: object, row: pd.Series) -> str:
    if pd.isna(row["accuracy"]):
        return f"{setting}, {group}: no questions"
    return (
        f"{setting}, {group}<br>accuracy {row['accuracy']:.2f}% ± {row['se']:.2f} (standard error)"
        f"<br>mean P(answer) {row['p_answer']:.3f}<br>{int(row['questions']):,} questions in {int(row['clusters']):,} clusters"
    )
