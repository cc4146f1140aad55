"""The page of several studies: checkpoints of one model, or different models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pandas as pd
import plotly.graph_objects as go

from ..analyses.checkpoints import CheckpointComparison
from ..figures.accuracy import accuracy_bars
from ..figures.depth import depth_bars
from ..figures.drops import drop_chart
from ..figures.plot import plot
from ..figures.theme import PALETTE
from ..study.config import GENERAL, UNCHANGED
from ..study.findings import change, interval
from ..study.study import Study
from . import page
from .report import MARKS, SAID, accuracy_cells, command, facts, forms_of

SECTIONS = (
    ("found", "Found"),
    ("accuracy", "Accuracy"),
    ("layers", "Layers"),
    ("overlap", "Overlap"),
    ("repeat", "Repeat it"),
)


def write_comparison(found: CheckpointComparison, path: str | Path) -> Path:
    """Writes the page of several studies. A study whose folder holds its report is linked to it."""
    path = Path(path)
    return page.write_page(
        "compare.html.jinja",
        path,
        title=f"{len(found.studies)} studies side by side",
        sections=SECTIONS,
        studies=[_about(name, found, path) for name in found.studies],
        remarks=found.remarks(),
        cloze=[name for name, study in found.studies.items() if study.form == "cloze"],
        accuracy=accuracy_cells(
            found.accuracy(), {form for study in found.studies.values() for form in forms_of(study)}
        ),
        drops=_drop_rows(found),
        figures={"accuracy": _accuracy(found), "layers": _layers(found)},
        matrices=_matrices(found),
    )


def _about(name: str, found: CheckpointComparison, path: Path) -> dict[str, Any]:
    study = found.studies[name]
    findings = found.findings.get(name)
    if findings is None:
        neurons = len(study.neurons[GENERAL])
        mark, holds = "care", "no claim"
        text = f"{neurons:,} culture-general neurons; without random sets nothing is claimed."
    else:
        mark, holds = MARKS[findings.holds], SAID[findings.holds]
        text = f"{findings.headline()} {findings.measured()}."
    return {
        "mark": mark,
        "holds": holds,
        "text": text,
        "name": name,
        "link": _link(study, path),
        "command": command(study),
        "facts": facts(study),
    }


def _link(study: Study, path: Path) -> str | None:
    """The study's own page as a relative address, where it is on the same disk."""
    if study.folder is None or not (study.folder / "report.html").is_file():
        return None
    try:
        return quote(Path(os.path.relpath(study.folder / "report.html", path.parent)).as_posix())
    except ValueError:  # another drive
        return None


def _drop_rows(found: CheckpointComparison) -> list[tuple[str, ...]]:
    rows = []
    for name, findings in found.findings.items():
        for task, drops in findings.drops.items():
            own = drops.layer
            row = (change(own.drop), interval(own.low, own.high), change(own.random_mean), change(own.excess))
            rank = f"{own.rank} of {own.random_sets + 1}"
            label = f"{task} (culture)" if drops.culture else task
            rows.append((name, label, *row, interval(own.excess_low, own.excess_high), rank))
    return rows


def _accuracy(found: CheckpointComparison) -> list[page.Shown]:
    shown = []
    if found.findings:
        same = len({findings.task for findings in found.findings.values()}) == 1
        drops = {
            name if same else f"{name}, {findings.task}": findings.drops[findings.task].layer
            for name, findings in found.findings.items()
        }
        task = next(iter(found.findings.values())).task if same else "its cultural task"
        heading = f"Change in accuracy on {task}, study by study"
        words = (
            "A point left of 0 is accuracy lost; what matters is its distance from the random sets' diamond."
        )
        shown.append(page.shown("drops", heading, words, drop_chart(drops)))
    words = "Hatched: with the checkpoint's own culture-general neurons off."
    shown.append(page.shown("accuracy-bars", "Accuracy in both settings", words, _bars(found)))
    return shown


def _bars(found: CheckpointComparison) -> go.Figure:
    """Accuracy in both settings: one colour per checkpoint, hatched where its neurons are off."""
    answers = {
        f"{name}, {words}": found.told_apart(study.results[setting])
        for name, study in found.studies.items()
        for setting, words in ((UNCHANGED, UNCHANGED), (GENERAL, "neurons off"))
    }
    bars = accuracy_bars(answers)
    for number in range(len(answers)):
        pattern = {"shape": "/" if number % 2 else "", "fillmode": "overlay", "fgcolor": "white", "size": 7}
        colour = PALETTE[number // 2 % len(PALETTE)]
        bars.update_traces(marker={"color": colour, "pattern": pattern}, selector=number)
    return bars


def _layers(found: CheckpointComparison) -> list[page.Shown]:
    words = "Where culture-general neurons sit, a column for each checkpoint."
    if len({study.info["layers"] for study in found.studies.values()}) > 1:
        words += (
            " In percent of each set, because the models have different numbers of layers; "
            "each column ends at its model's last."
        )
    shown = [page.shown("checkpoint-heatmap", "Layer by checkpoint", words, plot(found))]
    if all(map(len, found.sets.values())):
        words = (
            "Shallow, middle and deep third of each model's own layers: comparable between models of "
            "different depth."
        )
        shown.append(page.shown("depth", "Depth in thirds", words, depth_bars(found.sets)))
    return shown


def _matrices(found: CheckpointComparison) -> list[dict[str, Any]]:
    return [
        _matrix(
            "Overlap of the culture-general neurons",
            "Jaccard index: 1 where two sets are the same. In brackets, what sets of the same sizes have by "
            "chance. “–”: different shapes.",
            found.overlap(),
            found.chance_overlap(),
        ),
        _matrix(
            "Rank correlation over all neurons",
            "Spearman's rank correlation of the value that neurons are selected by. “–”: different shapes.",
            found.rank_correlation(),
        ),
    ]


def _matrix(
    heading: str, words: str, values: pd.DataFrame, chance: pd.DataFrame | None = None
) -> dict[str, Any]:
    names = [str(name) for name in values.columns]
    numbers = values.to_numpy(float)
    by_chance = None if chance is None else chance.to_numpy(float)

    def cell(row: int, column: int) -> Mapping[str, str]:
        value = numbers[row, column]
        if pd.isna(value):
            return {"value": "–", "chance": ""}
        bracketed = "" if by_chance is None or row == column else f"{by_chance[row, column]:.3f}"
        return {"value": f"{value:.3f}", "chance": bracketed}

    places = range(len(names))
    rows = [
        {"name": name, "cells": [cell(row, column) for column in places]} for row, name in enumerate(names)
    ]
    return {"heading": heading, "words": words, "names": names, "rows": rows}
