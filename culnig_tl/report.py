"""One self-contained HTML page of a study: opens from disk, without a network."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import pandas as pd

from . import files

if TYPE_CHECKING:
    from .study import Study

TITLES: Mapping[str, str] = {
    "layer_distribution": "Where the neurons sit",
    "layer_heatmap": "Neurons by layer and index",
    "accuracy": "What the model answers",
}
SHOWN_NEURONS = 100
"""Rows of the table of neurons; the folder holds all of them."""


def write_report(study: Study, path: str | Path) -> Path:
    """Writes the page of a study. Every number and every sentence on it is computed from the study."""
    from plotly.offline import get_plotlyjs

    figures = {name: figure.to_html(full_html=False, include_plotlyjs=False, div_id=name) for name, figure in study.figures().items()}
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        resources.files("culnig_tl").joinpath("report.html.jinja").read_text(encoding="utf-8")
    )
    general = study.neurons["culture-general"]
    html = template.render(
        title=f"Culture neurons of {study.config.model}",
        sentence=study.sentence(),
        tasks=list(study.info["tasks"]),
        accuracy=_accuracy_rows(study.table()),
        drops=[(task, study.drop(task), study.drop(task, "count"), about["culture"]) for task, about in study.info["tasks"].items()],
        culture_task=study.culture_task,
        figures=[(TITLES[name], div) for name, div in figures.items()],
        general=general,
        counts=general.counts("site").to_dict(),
        specific=study.neurons["culture-specific"].counts("country").to_dict() if len(study.neurons["culture-specific"]) else {},
        neurons=general.top(SHOWN_NEURONS).to_dict("records"),
        config=asdict(study.config),
        info=study.info,
        command=command(study),
        plotly=get_plotlyjs(),
        signed=_signed,
    )
    return files.write(path, html.encode())


def command(study: Study) -> str:
    """The command line that repeats the study."""
    from .study import StudyConfig

    parts = ["culnig-tl", "run"]
    defaults, given = asdict(StudyConfig()), asdict(study.config)
    for name, value in given.items():
        if value is None or (value == defaults[name] and name != "model"):
            continue
        text = ",".join(value) if isinstance(value, (tuple, list)) else str(value)
        parts += [f"--{name.replace('_', '-')}", shlex.quote(text)]
    return " ".join(parts)


def _accuracy_rows(table: pd.DataFrame) -> list[tuple[str, list[tuple[float, float]]]]:
    """(setting, (accuracy, error) of every task) of `Study.table()`."""
    tasks = list(dict.fromkeys(task for task, _ in table.columns))
    values: dict[Any, dict[Any, float]] = table.T.to_dict()
    return [(str(setting), [(row[task, "accuracy"], row[task, "se"]) for task in tasks]) for setting, row in values.items()]


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")
