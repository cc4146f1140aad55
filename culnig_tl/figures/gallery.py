"""Every figure that a study has data for, with the words that say how to read it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from .. import io
from ..errors import FileError
from ..study.config import GENERAL, SPECIFIC, UNCHANGED
from ..study.findings import Findings
from ..study.study import Study
from .accuracy import accuracy_changes
from .countries import country_heatmap
from .crossing import drop_grid
from .depth import depth_bars
from .drops import drop_chart
from .heatmaps import layer_heatmap
from .layers import layer_distribution
from .thresholds import score_histogram

log = logging.getLogger(__name__)
MATRIX = "countries.csv"
"""What `culnig-tl countries` writes into a study's folder."""


@dataclass(frozen=True)
class Panel:
    """One figure of a study."""

    name: str
    """Of its file in ``figures/``."""
    section: str
    """"cost", "where", "countries" or "scores": the part of the report that it belongs to."""
    heading: str
    reading: str
    """How to read it, in a sentence."""
    draw: Callable[[Study, Findings], go.Figure | None]
    """None where the study has no data for it."""
    half: bool = False
    """Whether half the width of a wide screen is enough for it."""


def figures_of(study: Study) -> dict[str, go.Figure]:
    """Name -> figure, in the order of the report; those without data are left out."""
    return {panel.name: figure for panel, figure in panels_of(study)}


def panels_of(study: Study, findings: Findings | None = None) -> list[tuple[Panel, go.Figure]]:
    """The panels that the study has data for, each with its figure.

    Args:
        findings: those of the study, where they are at hand.
    """
    found = study.findings() if findings is None else findings
    drawn = [(panel, panel.draw(study, found)) for panel in PANELS]
    return [(panel, figure) for panel, figure in drawn if figure is not None]


def _drops(_: Study, found: Findings) -> go.Figure:
    return drop_chart(
        {task: drops.layer for task, drops in found.drops.items()},
        rival={task: drops.rival for task, drops in found.drops.items() if drops.rival is not None},
        rival_name=f"as many neurons of {found.rival}",
        culture=[task for task, drops in found.drops.items() if drops.culture],
    )


def _by_country(study: Study, _: Findings) -> go.Figure | None:
    table = study.results[UNCHANGED].table
    if table.loc[table["task"] == study.culture_task, "country"].isna().all():
        return None
    return accuracy_changes(study)


def _layers(study: Study, _: Findings) -> go.Figure:
    return layer_distribution(study.neurons[GENERAL])


def _thirds(study: Study, _: Findings) -> go.Figure | None:
    return depth_bars(study.neurons[GENERAL]) if len(study.neurons[GENERAL]) else None


def _neurons(study: Study, _: Findings) -> go.Figure:
    return layer_heatmap(study.neurons[GENERAL])


def _countries(study: Study, _: Findings) -> go.Figure | None:
    specific = study.neurons.get(SPECIFIC)
    return country_heatmap(specific) if specific is not None and len(specific) else None


def _scores_by_country(study: Study, _: Findings) -> go.Figure | None:
    neuron, control = study.scores["neuron"], study.scores.get("control")
    if control is None or set(neuron.countries) - set(control.countries):
        return None
    if len(neuron.countries) == 1:  # summed over the countries, or of a task without them
        return None
    return country_heatmap(neuron, control=control)


def _matrix(study: Study, _: Findings) -> go.Figure | None:
    if study.folder is None:
        return None
    path, neurons = study.folder / MATRIX, study.folder / "neurons" / f"{SPECIFIC}.parquet"
    if not path.is_file() or not neurons.is_file():
        return None
    if path.stat().st_mtime < neurons.stat().st_mtime:
        log.warning(
            "%s is older than the study's neurons and left out: run `culnig-tl countries` again", path
        )
        return None
    try:
        return drop_grid(_drops_by_country(path))
    except FileError as error:  # a study is drawn without it
        log.warning("%s; it is left out", error)
        return None


def _drops_by_country(path: Path) -> pd.DataFrame:
    """Points, found on x asked. Raises `FileError` where the file holds anything else."""
    with io.reading(path, "drops by country"):
        table = pd.read_csv(path, index_col=0)
        if not len(table) or not all(pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes):
            raise ValueError("it holds no numbers by country")
        return table.rename(index=io.written_cell, columns=io.written_cell)


def _cuts(study: Study, _: Findings) -> go.Figure:
    control = study.scores.get("control")
    return score_histogram(study.scores["neuron"], control=control, neurons=study.neurons[GENERAL])


PANELS: tuple[Panel, ...] = (
    Panel(
        "drops",
        "cost",
        "Change in accuracy, task by task",
        "A point left of 0 is accuracy lost. The claim needs the blue point of a cultural task well left of "
        "the light diamond and of the rival's triangle, and those of the other tasks near 0.",
        _drops,
    ),
    Panel(
        "layer_distribution",
        "where",
        "Neurons per layer",
        "The dashed line is what as many neurons, spread evenly over the pool, would be.",
        _layers,
        half=True,
    ),
    Panel(
        "depth",
        "where",
        "Depth in thirds",
        "A bar whose interval leaves out the dashed line differs from the pool; neurons of one layer are not "
        "quite independent.",
        _thirds,
        half=True,
    ),
    Panel(
        "layer_heatmap",
        "where",
        "Layer by neuron",
        "A cell is a bin of neighbouring neurons, the lower row the single neurons of one layer. Hovering "
        "names them; the menu chooses the layer.",
        _neurons,
    ),
    Panel(
        "country_accuracy",
        "countries",
        "Accuracy by country",
        "Whose questions suffer when the culture-general neurons are off: open before, filled after, "
        "those that lose most on top.",
        _by_country,
    ),
    Panel(
        "country_heatmap",
        "countries",
        "Culture-specific neurons by layer",
        "A neuron counts once for each country that it was selected for.",
        _countries,
    ),
    Panel(
        "country_scores",
        "countries",
        "Scores by layer and country",
        "Columns that look alike share one pattern: a country's score then says little about it alone.",
        _scores_by_country,
    ),
    Panel(
        "country_drops",
        "countries",
        "Whose neurons, whose questions",
        "Were neurons one country's own, the framed cells would be the darkest of their rows.",
        _matrix,
    ),
    Panel(
        "score_histogram",
        "scores",
        "Scores and cut-offs",
        "What lies right of the line is a candidate; those that score high on country reading comprehension "
        "were then removed.",
        _cuts,
    ),
)
