"""One self-contained HTML page of several studies: checkpoints of one model, or different models."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from ..analyses.checkpoints import CheckpointComparison
from ..data.results import EvaluationResult
from ..study.config import GENERAL, UNCHANGED
from ..study.findings import change, interval
from ..study.study import Study
from . import page
from .report import MARKS, SAID, accuracy_cells, command, facts

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
        accuracy=accuracy_cells(found.accuracy()),
        drops=_drop_rows(found),
        figures=_figures(found),
        matrices=_matrices(found),
    )


def _about(name: str, found: CheckpointComparison, path: Path) -> dict[str, Any]:
    study = found.studies[name]
    findings = found.findings.get(name)
    neurons = len(study.neurons[GENERAL])
    said = (
        {
            "mark": "care",
            "holds": "no claim",
            "text": f"{neurons:,} culture-general neurons; without random sets nothing is claimed.",
        }
        if findings is None
        else {
            "mark": MARKS[findings.holds],
            "holds": SAID[findings.holds],
            "text": f"{findings.headline()} {findings.measured()}.",
        }
    )
    return {
        **said,
        "name": name,
        "link": _link(study, path),
        "command": command(study),
        "facts": facts(study),
    }


def _link(study: Study, path: Path) -> str | None:
    """The study's own page as a relative address, where it is on the same disk."""
    if study.folder is None or not (study.folder / "report.html").is_file():
        return None
    from urllib.parse import quote

    try:
        return quote(Path(os.path.relpath(study.folder / "report.html", path.parent)).as_posix())
    except ValueError:  # another drive
        return None


def _drop_rows(found: CheckpointComparison) -> list[tuple[str, ...]]:
    return [
        (
            name, f"{task} (culture)" if drops.culture else task, change(drops.layer.drop), interval(drops.layer.low, drops.layer.high),
            change(drops.layer.random_mean), change(drops.layer.excess), interval(drops.layer.excess_low, drops.layer.excess_high),
            f"{drops.layer.rank} of {drops.layer.random_sets + 1}",
        )
        for name, findings in found.findings.items()
        for task, drops in findings.drops.items()
    ]  # fmt: skip


def _figures(found: CheckpointComparison) -> dict[str, list[page.Shown]]:
    """Accuracy and layers, each figure with its words; names from data are text, not Plotly's tags."""
    from .. import figures
    from ..figures.theme import PALETTE, escape

    answers = {}
    for name, study in found.studies.items():
        for setting, words in ((UNCHANGED, UNCHANGED), (GENERAL, "neurons off")):
            result = found.told_apart(study.results[setting])
            answers[f"{escape(name)}, {words}"] = EvaluationResult(
                result.table.assign(task=result.table["task"].map(escape)), result.metadata
            )
    bars = figures.accuracy_bars(answers)
    for number in range(len(answers)):  # one colour a checkpoint, hatched where its neurons are off
        pattern = {"shape": "/" if number % 2 else "", "fillmode": "overlay", "fgcolor": "white", "size": 7}
        bars.update_traces(
            marker={"color": PALETTE[number // 2 % len(PALETTE)], "pattern": pattern}, selector=number
        )
    accuracy = []
    if found.findings:
        same = len({f.task for f in found.findings.values()}) == 1
        drops = {
            escape(n if same else f"{n}, {f.task}"): f.drops[f.task].layer for n, f in found.findings.items()
        }
        task = next(iter(found.findings.values())).task if same else "its cultural task"
        heading = f"Change in accuracy on {task}, study by study"
        reading = (
            "A point left of 0 is accuracy lost; what matters is how far it is from the random sets' diamond."
        )
        accuracy.append(page.shown("drops", heading, reading, figures.drop_chart(drops)))
    accuracy.append(
        page.shown(
            "accuracy-bars",
            "Accuracy in both settings",
            "Hatched: with the checkpoint's own culture-general neurons off.",
            bars,
        )
    )
    sets = {escape(name): neurons for name, neurons in found.sets.items()}
    deep = {study.info["layers"] for study in found.studies.values()}
    counted = (
        ""
        if len(deep) == 1
        else " In percent of each set, because the models have different numbers of layers; each ends at its last."
    )
    words = f"Where culture-general neurons sit, a column a checkpoint.{counted}"
    layers = [page.shown("checkpoint-heatmap", "Layer by checkpoint", words, found.figure())]
    if all(len(neurons) for neurons in sets.values()):
        words = "Shallow, middle and deep third of each model's own layers: comparable between models of different depth."
        layers.append(page.shown("depth", "Depth in thirds", words, figures.depth_bars(sets)))
    return {"accuracy": accuracy, "layers": layers}


def _matrices(found: CheckpointComparison) -> list[dict[str, Any]]:
    return [
        _matrix(
            "Overlap of the culture-general neurons",
            'Jaccard index: 1 where two sets are the same. In brackets what sets of the same sizes have by chance. "–": different shapes.',
            found.overlap(),
            found.chance_overlap(),
        ),
        _matrix(
            "Rank correlation over all neurons",
            'Spearman\'s rank correlation of the value that neurons are selected by. "–": different shapes.',
            found.rank_correlation(),
        ),
    ]


def _matrix(
    heading: str, words: str, values: pd.DataFrame, chance: pd.DataFrame | None = None
) -> dict[str, Any]:
    def cell(row: str, column: str) -> Mapping[str, str]:
        value = float(values.loc[row, column])  # type: ignore[arg-type]
        known = chance is not None and row != column and not pd.isna(value)
        return {
            "value": "–" if pd.isna(value) else f"{value:.3f}",
            "chance": f"{float(chance.loc[row, column]):.3f}" if known else "",
        }  # type: ignore[union-attr,arg-type]

    names = [str(name) for name in values.columns]
    return {
        "heading": heading,
        "words": words,
        "names": names,
        "rows": [{"name": row, "cells": [cell(row, column) for column in names]} for row in names],
    }
