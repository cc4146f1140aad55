"""What models answer: accuracy by task and setting."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import pandas as pd
import plotly.graph_objects as go

from ..data.results import EvaluationResult
from ..errors import ScoreError
from . import theme


@theme.literal
def accuracy_bars(
    results: Mapping[str, EvaluationResult] | EvaluationResult,
    *,
    by: Literal["task", "country", "group", "template"] = "task",
    labels_only: bool = False,
) -> go.Figure:
    """Accuracy in percent, tasks x settings, with 95% intervals over clusters of questions (1.96 errors).

    Args:
        results: setting -> result, e.g. ``{"unchanged": ..., "suppressed": ...}``.
        by: what the groups of bars are.
        labels_only: count a prediction among the labels alone.

    Raises:
        ScoreError: no results, an empty one, or none with that column filled.
    """
    tables = {name: _table(result, by, labels_only) for name, result in _given(results).items()}
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
            error_y=theme.error_bars(theme.Z95 * table["se"]),
            name=name,
            marker_color=theme.PALETTE[number % len(theme.PALETTE)],
            hovertext=[_hover(name, str(group), table.loc[group].to_dict()) for group in groups],
            hoverinfo="text",
        )
    n = max(int(table["questions"].sum()) for table in tables.values())
    single = any((table["clusters"] < 2).any() for table in tables.values())
    note = "; no interval where all questions are one cluster" if single else ""
    theme.lay_out(
        figure,
        f"Accuracy {_among(_given(results).values(), labels_only)}",
        f"n = {theme.plural(n, 'question')} per setting; bars: 95% intervals over clusters{note}",
    )
    aligned = any(str(group).endswith(": alignment") for group in groups)
    figure.update_xaxes(title_text=f"{by} (n questions)", type="category")
    figure.update_yaxes(
        title_text="accuracy (%)" + (", or alignment (0 to 100)" if aligned else ""),
        range=[0, max(100.0, *map(_highest, tables.values()))],
    )
    figure.update_layout(barmode="group", legend=theme.LEGEND, margin_t=100, showlegend=True)
    return figure


def _given(results: Mapping[str, Any] | EvaluationResult) -> dict[str, EvaluationResult]:
    if isinstance(results, EvaluationResult):
        results = {str(results.metadata.get("setting", "unchanged")): results}
    if not results:
        raise ScoreError("no results to draw: give {setting: EvaluationResult}")
    for name, result in results.items():
        if not isinstance(result, EvaluationResult):
            raise ScoreError(f"{name!r} is a {type(result).__name__}, not an EvaluationResult")
        if not len(result):
            raise ScoreError(f"the result {name!r} holds no question")
    return dict(results)


def _table(result: EvaluationResult, by: str, labels_only: bool) -> pd.DataFrame:
    """Accuracy in percent, or alignment for tasks that are measured by it (WorldValuesBench)."""
    table = result.accuracy(by=by, labels_only=labels_only)
    if by == "task" and result.table["alignment"].notna().any():
        aligned = result.alignment(by=by).rename(columns={"alignment": "accuracy"})
        table.loc[aligned.index] = aligned[table.columns]
        table = table.rename(index={task: f"{task}: alignment" for task in aligned.index})
    return table


def _among(results: Iterable[EvaluationResult], labels_only: bool) -> str:
    """What an answer is taken from."""
    if all("labels" in result.table and result.table["labels"].notna().all() for result in results):
        return "among the options' words"
    return "among the labels" if labels_only else "over the whole vocabulary"


def _highest(table: pd.DataFrame) -> float:
    """Where the highest interval ends."""
    return float((table["accuracy"] + theme.Z95 * table["se"].fillna(0)).max())


def _hover(setting: str, group: str, row: Mapping[str, float]) -> str:
    if math.isnan(row["accuracy"]):
        return f"{setting}, {group}: no questions"
    lines = [f"{setting}, {group}", f"{row['accuracy']:.2f}% ± {row['se']:.2f} (standard error)"]
    if not math.isnan(row["p_answer"]):  # unknown for answers in words
        lines.append(f"mean P(answer) {row['p_answer']:.3f}")
    lines.append(f"{int(row['questions']):,} questions in {int(row['clusters']):,} clusters")
    return "\n".join(lines)
