"""Every figure that a study has data for, with the words that say how to read it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..data.scores import NeuronScores
from ..study.config import GENERAL, RANDOM, RIVAL, SPECIFIC, UNCHANGED
from ..study.findings import Findings
from ..study.study import Study

if TYPE_CHECKING:
    import plotly.graph_objects as go

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
    """Whether it needs no more than half of a wide screen."""


def figures_of(study: Study) -> dict[str, Any]:
    """Name -> Plotly figure, in the order of the report; those without data are left out."""
    return {panel.name: figure for panel, figure in panels_of(study)}


def panels_of(study: Study, findings: Findings | None = None) -> list[tuple[Panel, Any]]:
    """The panels that the study has data for, each with its figure. Names from data are text, not Plotly's tags.

    Args:
        findings: those of the study where they are at hand.
    """
    plain, found = as_text(study), _findings(study.findings() if findings is None else findings)
    drawn = [(panel, panel.draw(plain, found)) for panel in PANELS]
    return [(panel, figure) for panel, figure in drawn if figure is not None]


def figure_pages(study: Study) -> dict[str, bytes]:
    """File name -> content of ``figures/``: a page a figure, and one copy of Plotly's script that they share."""
    from plotly.offline import get_plotlyjs

    pages = {
        f"{name}.html": figure.to_html(include_plotlyjs="directory", full_html=True)
        for name, figure in figures_of(study).items()
    }
    return {name: content.encode() for name, content in {"plotly.min.js": get_plotlyjs(), **pages}.items()}


# ----------------------------------------------------------------------------------------------- the panels


def _drops(_: Study, found: Findings) -> go.Figure:
    from .. import figures

    rival = {task: d.rival for task, d in found.drops.items() if d.rival is not None}
    culture = [task for task, d in found.drops.items() if d.culture]
    name = f"as many neurons of {found.rival}"
    return figures.drop_chart(
        {t: d.layer for t, d in found.drops.items()}, rival=rival, rival_name=name, culture=culture
    )


def _accuracy(study: Study, _: Findings) -> go.Figure:
    from .. import figures

    settings = {UNCHANGED: UNCHANGED, GENERAL: f"{GENERAL} off", RIVAL: f"{study.config.rival} (rival) off"}
    answers = {
        label: study.results[setting] for setting, label in settings.items() if setting in study.results
    }
    for match, name in RANDOM.items():
        for setting in study.random_settings(match)[:1]:
            answers[f"one {name} off"] = study.results[setting]
    return _coloured(figures.accuracy_bars(answers), answers)


def _coloured(figure: go.Figure, settings: Iterable[str]) -> go.Figure:
    """The same colour for the same setting on the whole page."""
    from .theme import PALETTE

    colours = {
        UNCHANGED: PALETTE[6],
        f"{GENERAL} off": PALETTE[0],
        f"one {RANDOM['count']} off": PALETTE[1],
        f"one {RANDOM['layer']} off": PALETTE[5],
    }
    for number, setting in enumerate(settings):
        figure.update_traces(marker_color=colours.get(setting, PALETTE[4]), selector=number)
    return figure


def _by_country(study: Study, _: Findings) -> go.Figure | None:
    from .. import figures

    answers = {}
    for setting, label in ((UNCHANGED, UNCHANGED), (GENERAL, f"{GENERAL} off")):
        result = study.results[setting]
        here = result.table.loc[result.table["task"] == study.culture_task]
        if here["country"].isna().all():
            return None
        answers[label] = EvaluationResult(here, result.metadata)
    return _coloured(figures.accuracy_bars(answers, by="country"), answers)


def _layers(study: Study, _: Findings) -> go.Figure:
    from .. import figures

    return figures.layer_distribution(study.neurons[GENERAL])


def _thirds(study: Study, _: Findings) -> go.Figure | None:
    from .. import figures

    return figures.depth_bars(study.neurons[GENERAL]) if len(study.neurons[GENERAL]) else None


def _sites(study: Study, _: Findings) -> go.Figure:
    from .. import figures

    return figures.site_heatmap(study.neurons[GENERAL])


def _neurons(study: Study, _: Findings) -> go.Figure:
    from .. import figures

    return figures.layer_heatmap(study.neurons[GENERAL])


def _countries(study: Study, _: Findings) -> go.Figure | None:
    from .. import figures

    specific = study.neurons.get(SPECIFIC)
    return figures.country_heatmap(specific) if specific is not None and len(specific) else None


def _scores_by_country(study: Study, _: Findings) -> go.Figure | None:
    from .. import figures

    if "control" not in study.scores or set(study.scores["neuron"].countries) - set(
        study.scores["control"].countries
    ):
        return None
    return figures.country_heatmap(study.scores["neuron"], control=study.scores["control"])


def _matrix(study: Study, _: Findings) -> go.Figure | None:
    from .. import figures

    if study.folder is None:
        return None
    path, neurons = study.folder / MATRIX, study.folder / "neurons" / f"{SPECIFIC}.parquet"
    if not path.is_file() or not neurons.is_file():
        return None
    if path.stat().st_mtime < neurons.stat().st_mtime:
        log.warning(
            "%s is older than the study's neurons and left out of the report: run `culnig-tl countries` again",
            path,
        )
        return None
    return figures.drop_grid(_escaped(pd.read_csv(path, index_col=0)))


def _cuts(study: Study, _: Findings) -> go.Figure:
    from .. import figures

    return figures.score_histogram(
        study.scores["neuron"], control=study.scores.get("control"), neurons=study.neurons[GENERAL]
    )


PANELS: tuple[Panel, ...] = (
    Panel(
        "drops", "cost", "Change in accuracy, task by task",
        "A point left of 0 is accuracy lost. The claim needs the blue point of a cultural task well left of the light diamond and of the rival's triangle, and those of the other tasks near 0.",
        _drops,
    ),
    Panel("accuracy", "cost", "Accuracy in every setting", "Pairs of bars whose intervals overlap are not told apart by looking: the table above compares question by question.", _accuracy),
    Panel("layer_distribution", "where", "Neurons a layer", "The dashed line is what as many neurons, spread evenly over the pool, would be.", _layers, half=True),
    Panel("depth", "where", "Depth in thirds", "A bar whose interval leaves out the dashed line differs from the pool; neurons of one layer are not quite independent.", _thirds, half=True),
    Panel("site_heatmap", "where", "Layer by site", "Counts of neurons: gate neurons of the MLP, coordinates of attention's queries, keys and values.", _sites),
    Panel("layer_heatmap", "where", "Layer by neuron", "A cell is a bin of neighbouring neurons, the lower row one layer's single neurons: hovering names them, the menu chooses the layer.", _neurons),
    Panel("country_accuracy", "countries", "Accuracy by country", "Whose questions lose when the culture-general neurons are off.", _by_country),
    Panel("country_heatmap", "countries", "Culture-specific neurons by layer", "A neuron counts once for each country that it was selected for.", _countries),
    Panel("country_scores", "countries", "Scores by layer and country", "Columns that look alike share one pattern: then a country's score says little about that country alone.", _scores_by_country),
    Panel("country_drops", "countries", "Whose neurons, whose questions", "Were neurons one country's own, the framed cells would be the darkest of their rows.", _matrix),
    Panel("score_histogram", "scores", "Scores and cut-offs", "What lies right of the line is a candidate; what country reading comprehension scored high was then removed.", _cuts),
)  # fmt: skip


# ----------------------------------------------------------------------------------------------- names from data


def as_text(study: Study) -> Study:
    """The study with every name from data escaped for Plotly, which reads tags in its labels."""
    tasks = {_text(task): about for task, about in study.info["tasks"].items()}
    rival = study.config.rival
    return Study(
        config=replace(study.config, rival=None if rival is None else _text(rival)),
        info={**study.info, "tasks": tasks},
        scores={name: _scores(scores) for name, scores in study.scores.items()},
        neurons={name: _set(neurons) for name, neurons in study.neurons.items()},
        results={name: _answers(result) for name, result in study.results.items()},
        folder=study.folder,
    )


def _findings(found: Findings) -> Findings:
    return replace(
        found,
        task=_text(found.task),
        drops={_text(task): d for task, d in found.drops.items()},
        rival=_text(found.rival),
    )


def _text(name: Any) -> Any:
    from .theme import escape

    return escape(name) if isinstance(name, str) else name


def _answers(result: EvaluationResult) -> EvaluationResult:
    named: Mapping[str, Any] = {column: result.table[column].map(_text) for column in ("task", "country")}
    return EvaluationResult(result.table.assign(**named), result.metadata)


def _scores(scores: NeuronScores) -> NeuronScores:
    return replace(
        scores,
        countries=tuple(map(_text, scores.countries)),
        metadata={**scores.metadata, "task": _text(scores.task)},
    )


def _set(neurons: NeuronSet) -> NeuronSet:
    if "country" not in neurons.table.columns:
        return neurons
    return NeuronSet(neurons.table.assign(country=neurons.table["country"].map(_text)), neurons.provenance)


def _escaped(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis([_text(name) for name in table.index]).set_axis(
        [_text(name) for name in table.columns], axis=1
    )
