"""Whose neurons are switched off, whose questions are asked: countries with countries, tasks with tasks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..data.results import EvaluationResult
from ..data.statistics import clustered_mean, drop_ranks
from ..errors import ScoreError
from . import theme
from .values import checked, country_label

_KEYS = ["task", "id", "template", "country"]


def drop_table(base: EvaluationResult, suppressed: Mapping[str, EvaluationResult]) -> pd.DataFrame:
    """Drops in accuracy, one row per pair: whose neurons are suppressed, and whose questions are asked.

    Returns:
        Columns neurons, country, drop (points), se (points, over clusters, paired), rank (1 drops most, equal
        drops share their mean rank), questions, clusters. The tasks of a result count together.

    Raises:
        ScoreError: no results, other questions than in `base`, or none with a country.
    """
    if not suppressed:
        raise ScoreError(
            "no results to compare: give {country: EvaluationResult with its neurons suppressed}"
        )
    before = base.table.dropna(subset=["country"])
    if before.empty:
        raise ScoreError("none of the questions has a country")
    if any(result.table.duplicated(_KEYS).any() for result in (base, *suppressed.values())):
        raise ScoreError(
            "a question occurs twice (same task, id, template and country): results cannot be paired"
        )
    rows = []
    for name, result in suppressed.items():
        after = result.table.dropna(subset=["country"])
        pairs = before.merge(after[[*_KEYS, "correct"]], on=_KEYS, suffixes=("", "_after"))
        if not len(pairs) == len(before) == len(after):
            raise ScoreError(
                f"the result with {name}'s neurons suppressed is of other questions than the unchanged one"
            )
        lost = pairs["correct"].astype(float) - pairs["correct_after"].astype(float)
        for country, part in lost.groupby(pairs["country"], sort=False):
            mean, se, clusters = clustered_mean(part.to_numpy(), pairs.loc[part.index, "cluster"].to_numpy())
            rows.append((name, country, 100 * mean, 100 * se, len(part), clusters))
    table = pd.DataFrame(rows, columns=["neurons", "country", "drop", "se", "questions", "clusters"])
    rows_of = table.groupby("neurons", sort=False)[["drop", "questions"]]
    ranks = [drop_ranks(part[["drop"]].to_numpy().T, part["questions"].to_numpy())[0] for _, part in rows_of]
    table.insert(4, "rank", np.concatenate(ranks))
    return table


@theme.literal
def drop_matrix(
    base: EvaluationResult,
    suppressed: Mapping[str, EvaluationResult],
    *,
    show: Literal["drop", "rank"] = "drop",
) -> go.Figure:
    """Country x country: how many points each country loses when each country's neurons are suppressed.

    A frame marks a country's own questions; their rank among the row's drops stands beside its name (1:
    nobody suffers more).

    Args:
        base: the unchanged model.
        suppressed: country -> the same questions with that country's neurons suppressed.
        show: write the "drop" (points) or its "rank" into the cells. Colours are the drop, red where accuracy
            is lost.

    Raises:
        ScoreError: as `drop_table`.
    """
    table = drop_table(base, suppressed)
    rows, columns = _own_first(suppressed, dict.fromkeys(table["country"]))
    cells: dict[tuple[str, str], Any] = {
        (row["neurons"], row["country"]): row for row in table.to_dict("records")
    }
    own = {row: cells[row, row]["rank"] for row in rows if row in columns}
    labels = [
        country_label(row) + (f" ({own[row]:g} of {len(columns)})" if row in own else "") for row in rows
    ]

    def written(cell: Mapping[str, Any]) -> str:
        return theme.number(cell["drop"], ".1f") if show == "drop" else f"{cell['rank']:g}"

    figure = theme.name_matrix(
        np.array([[cells[row, column]["drop"] for column in columns] for row in rows]),
        labels,
        [country_label(column) for column in columns],
        texts=[[written(cells[row, column]) for column in columns] for row in rows],
        hover=[[_hover(cells[row, column], len(columns)) for column in columns] for row in rows],
        unit="drop in accuracy (points)",
        framed=_own_cells(rows, columns),
    )
    n = theme.plural(int(table.loc[table["neurons"] == rows[0], "questions"].sum()), "question")
    mean = np.mean(list(own.values())) if own else np.nan
    remark = f"; mean rank of the own country {mean:.2f} of {len(columns)}" if own else ""
    theme.lay_out(
        figure,
        "What suppressing each country's neurons costs",
        f"n = {n} per row{remark}",
        height=_height(rows),
    )
    figure.update_xaxes(title_text="whose questions")
    figure.update_yaxes(title_text="whose neurons (rank of the own drop)")
    return figure


@theme.literal
def drop_grid(drops: pd.DataFrame) -> go.Figure:
    """Country x country from a table of drops alone.

    Rows are whose neurons are switched off, columns whose questions are asked. `drop_matrix` draws the same
    from answers, with errors. A frame marks a country's own questions.

    Args:
        drops: points, as `CountryDrops.drops` or its CSV.

    Raises:
        ScoreError: an empty table.
    """
    if drops.empty:
        raise ScoreError("no drops to draw: give a table of countries x countries")
    drops = drops.rename(index=str, columns=str)
    rows, columns = _own_first(drops.index, drops.columns)
    values = drops[columns].to_numpy(float)
    figure = theme.name_matrix(
        values,
        rows,
        columns,
        texts=theme.numbers(values, ".1f"),
        hover=[
            [
                f"{row}'s neurons off, {column}'s questions\n{theme.number(value, '.2f')} points lost"
                for column, value in zip(columns, line)
            ]
            for row, line in zip(rows, values)
        ],
        unit="points lost",
        framed=_own_cells(rows, columns),
    )
    theme.lay_out(
        figure,
        "What switching off each country's neurons costs",
        f"n = {theme.plural(len(rows), 'country')} whose neurons are switched off; "
        "frames: a country's own questions",
        height=_height(rows),
    )
    figure.update_xaxes(title_text="whose questions")
    figure.update_yaxes(title_text="whose neurons")
    return figure


@theme.literal
def cross_effects(table: pd.DataFrame) -> go.Figure:
    """Whose neurons (rows) x which task (columns): points lost beyond those of layer-matched random sets.

    Args:
        table: `ComparedSets.table()`: the columns set (or found_on, its task), asked, neurons, excess,
            excess_low, excess_high.

    Raises:
        ScoreError: columns missing, no rows.
    """
    whose = "found_on" if "found_on" in table.columns else "set"
    checked(table, (whose, "asked", "neurons", "excess", "excess_low", "excess_high"))
    rows, columns = (list(dict.fromkeys(table[c])) for c in (whose, "asked"))
    cells: dict[tuple[str, str], Any] = {(row[whose], row["asked"]): row for row in table.to_dict("records")}

    def hover(row: str, column: str) -> str:
        if (row, column) not in cells:
            return ""
        excess, low, high = (cells[row, column][name] for name in ("excess", "excess_low", "excess_high"))
        words = [theme.number(value, ".2f") for value in (excess, low, high)]
        return f"neurons of {row}, asked {column}\n{words[0]} points (95% {words[1]} to {words[2]})"

    values = np.array(
        [[float(cells[r, c]["excess"]) if (r, c) in cells else np.nan for c in columns] for r in rows]
    )
    figure = theme.name_matrix(
        values,
        rows,
        columns,
        texts=theme.numbers(values, ".1f"),
        hover=[[hover(row, column) for column in columns] for row in rows],
        unit="points beyond random",
    )
    sizes = table.drop_duplicates(whose).set_index(whose)["neurons"]
    theme.lay_out(
        figure,
        "What each set's neurons cost each task",
        f"n = neurons: {', '.join(f'{name} {int(n):,}' for name, n in sizes.items())}; "
        "drop in points beyond layer-matched random sets",
        height=theme.heat_height(len(rows)) + 190,
    )
    figure.update_traces(textfont_size=13)
    figure.update_xaxes(title_text="task asked")
    figure.update_yaxes(title_text="neurons found on" if whose == "found_on" else "whose neurons")
    return figure


def _own_first(rows: Any, columns: Any) -> tuple[list[str], list[str]]:
    """The rows, and the columns with those that are rows too first, in the order of the rows."""
    rows, columns = list(rows), list(columns)
    return rows, [c for c in rows if c in columns] + [c for c in columns if c not in rows]


def _own_cells(rows: list[str], columns: list[str]) -> list[tuple[int, int]]:
    return [(i, columns.index(row)) for i, row in enumerate(rows) if row in columns]


def _height(rows: list[str]) -> int:
    return max(290 + 34 * len(rows), 420)


def _hover(cell: Mapping[str, Any], countries: int) -> str:
    return (
        f"{cell['neurons']}'s neurons suppressed, {cell['country']}'s questions\n"
        f"drop {theme.number(cell['drop'], '.2f')} ± {cell['se']:.2f} points (standard error)\n"
        f"rank {cell['rank']:g} of {countries}\n"
        f"{cell['questions']:,} questions in {cell['clusters']:,} clusters"
    )
