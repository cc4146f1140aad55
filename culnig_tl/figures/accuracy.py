"""What models answer: accuracy by task and setting, and what it was before."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..data.results import EvaluationResult
from ..data.statistics import share_interval
from ..errors import ScoreError
from ..study.config import GENERAL, UNCHANGED
from ..study.study import Study
from . import theme
from .values import country_label, given

By = Literal["task", "country", "group", "template"]


@theme.literal
def accuracy_bars(
    results: Mapping[str, EvaluationResult] | EvaluationResult | Study | str | Path,
    *,
    by: By = "task",
    labels_only: bool = False,
) -> go.Figure:
    """Accuracy in percent, tasks x settings, with 95% intervals over clusters of questions (Wilson's, see
    `share_interval`).

    Args:
        results: setting -> result, e.g. ``{"unchanged": ..., "suppressed": ...}``; of a study, or its folder,
            unchanged and with the culture-general neurons suppressed.
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
            error_y=theme.error_bars(table["high"] - table["accuracy"], table["accuracy"] - table["low"]),
            name=name,
            marker={"color": theme.setting_colour(name, number), "opacity": theme.muted(sizes)},
            hovertext=[_hover(name, str(group), table.loc[group].to_dict()) for group in groups],
            hoverinfo="text",
        )
    n = max(int(table["questions"].sum()) for table in tables.values())
    single = any((table["clusters"] < 2).any() for table in tables.values())
    note = "; no interval where all questions are one cluster" if single else ""
    note += f"; pale: n under {theme.FEW}" if min(sizes) < theme.FEW else ""
    theme.lay_out(
        figure,
        f"Accuracy {_among(_given(results).values(), labels_only)}",
        f"n = {theme.plural(n, 'question')} per setting; bars: 95% intervals over clusters{note}",
    )
    aligned = any(str(group).endswith(": alignment") for group in groups)
    figure.update_xaxes(title_text=f"{by} (n questions)", type="category")
    figure.update_yaxes(
        title_text="accuracy (%)" + (", or alignment (0 to 100)" if aligned else ""),
        range=[0, 100],
    )
    figure.update_layout(barmode="group", legend=theme.LEGEND, margin_t=100, showlegend=True)
    return figure


@theme.literal
def accuracy_changes(
    before: EvaluationResult | Study | str | Path,
    after: EvaluationResult | None = None,
    *,
    by: By = "country",
    names: tuple[str, str] = (UNCHANGED, "suppressed"),
) -> go.Figure:
    """Accuracy before and after: a row for each country, those that lose most on top.

    Args:
        before: the unchanged model's answers; or a study, or its folder: its cultural task, unchanged and
            with the culture-general neurons suppressed.
        after: the answers to the same questions when something was changed.
        by: what the rows are.
        names: what the two are called.

    Raises:
        ScoreError: no answers, one of the two missing, none with that column filled.
    """
    kinds = {"before": before, "after": after}
    if after is None:
        kinds = given(before, "accuracy_changes (without `after`)", Mapping, of_study=_cultural)
    tables = [_table(result, by, False) for result in _given(kinds).values()]
    both = tables[0].join(tables[1], lsuffix="_before", rsuffix="_after", how="inner")
    if both.empty:
        raise ScoreError(f"no {by} is in both results: give answers to the same questions")
    both = both.assign(change=both["accuracy_after"] - both["accuracy_before"])
    both = both.sort_values(by=["change", "accuracy_before"], kind="stable")
    rows, sizes = list(range(len(both))), both["questions_before"].tolist()
    opacity, figure = theme.muted(sizes), go.Figure()
    ends = [both[f"accuracy_{end}"].tolist() for end in ("before", "after")]
    for row, (low, high) in enumerate(zip(*ends)):
        line = {"color": "#8A939C", "width": 3}
        figure.add_scatter(
            x=[low, high], y=[row, row], mode="lines", line=line, opacity=opacity[row], hoverinfo="skip",
            showlegend=False,
        )  # fmt: skip
    looks = ({"color": "white", "line": {"width": 2, "color": theme.INK}}, {"color": theme.PALETTE[0]})
    for name, end, look in zip(names, ("before", "after"), looks):
        figure.add_scatter(
            x=both[f"accuracy_{end}"],
            y=rows,
            mode="markers",
            name=name,
            marker={"size": 11, "opacity": opacity, **look},
            hovertext=[
                _end(country_label(str(group)), name, [row[f"{column}_{end}"] for column in _END])
                for group, row in zip(both.index, both.to_dict("records"))
            ],
            hoverinfo="text",
        )
    figure.add_scatter(
        x=np.maximum(*map(np.array, ends)),
        y=rows,
        mode="text",
        text=[f"   {theme.number(change, '+.1f')}" for change in both["change"]],
        textposition="middle right",
        textfont={"size": 12},
        opacity=1.0,
        cliponaxis=False,
        hoverinfo="skip",
        showlegend=False,
    )
    n = theme.plural(int(sum(sizes)), "question")
    pale = f"; pale: n under {theme.FEW}" if min(sizes) < theme.FEW else ""
    theme.lay_out(
        figure,
        f"Accuracy by {by} before and after",
        f"n = {n}; numbers: change in points{pale}",
        height=190 + 26 * len(both),
    )
    least = min(min(ends[0]), min(ends[1]))
    figure.update_xaxes(title_text="accuracy (%)", range=[max(0, 10 * ((least - 5) // 10)), 103])
    figure.update_yaxes(
        tickvals=rows,
        ticktext=[f"{country_label(str(group))} ({n:,})" for group, n in zip(both.index, sizes)],
        range=[len(rows) - 0.5, -0.5],
        zeroline=False,
    )
    return figure.update_layout(legend=theme.LEGEND, showlegend=True, margin_r=60)


_END = ("accuracy", "low", "high", "questions")


def _end(group: str, setting: str, row: list[float]) -> str:
    """What hovering over one end of a line says; `row` holds the columns of _END."""
    accuracy, low, high = (theme.number(value, ".1f") for value in row[:3])
    return f"{group}, {setting}: {accuracy}% (95% {low} to {high})\n{theme.plural(int(row[3]), 'question')}"


def _cultural(study: Study) -> dict[str, EvaluationResult]:
    """The answers to a study's cultural task, unchanged and with the culture-general neurons suppressed."""
    results = {}
    for name in (UNCHANGED, GENERAL):
        result = study.results[name]
        here = result.table.loc[result.table["task"] == study.culture_task]
        results[name] = EvaluationResult(here, result.metadata)
    return results


def _given(results: Any) -> dict[str, EvaluationResult]:
    found: Any = given(
        results,
        "accuracy_bars",
        EvaluationResult,
        Mapping,
        of_study=lambda s: {UNCHANGED: s.results[UNCHANGED], f"{GENERAL} off": s.results[GENERAL]},
    )
    if isinstance(found, EvaluationResult):
        found = {str(found.metadata.get("setting", "unchanged")): found}
    if not found:
        raise ScoreError("no results to draw: give {setting: EvaluationResult}")
    for name, result in found.items():
        if not isinstance(result, EvaluationResult):
            raise ScoreError(f"{name!r} is a {type(result).__name__}, not an EvaluationResult")
        if not len(result):
            raise ScoreError(f"the result {name!r} holds no question")
    return dict(found)


def _table(result: EvaluationResult, by: str, labels_only: bool) -> pd.DataFrame:
    """Accuracy in percent, or alignment for tasks that are measured by it (WorldValuesBench)."""
    table = result.accuracy(by=by, labels_only=labels_only)
    if by == "task" and result.table["alignment"].notna().any():
        aligned = result.alignment(by=by).rename(columns={"alignment": "accuracy"})
        table.loc[aligned.index] = aligned[table.columns]
        table = table.rename(index={task: f"{task}: alignment" for task in aligned.index})
    columns = (table[name].to_numpy(float) for name in ("accuracy", "se", "questions", "clusters"))
    low, high = share_interval(*columns)
    return table.assign(low=low, high=high)


def _among(results: Iterable[EvaluationResult], labels_only: bool) -> str:
    """What an answer is taken from."""
    if all("labels" in result.table and result.table["labels"].notna().all() for result in results):
        return "among the options' words"
    return "among the labels" if labels_only else "over the whole vocabulary"


def _hover(setting: str, group: str, row: Mapping[str, float]) -> str:
    if math.isnan(row["accuracy"]):
        return f"{setting}, {group}: no questions"
    lines = [
        f"{setting}, {group}",
        f"{row['accuracy']:.2f}% (95% "
        f"{theme.number(row['low'], '.1f')} to {theme.number(row['high'], '.1f')})",
    ]
    if not math.isnan(row["p_answer"]):  # unknown for answers in words
        lines.append(f"mean P(answer) {row['p_answer']:.3f}")
    lines.append(f"{int(row['questions']):,} questions in {int(row['clusters']):,} clusters")
    return "\n".join(lines)
