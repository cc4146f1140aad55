"""From typed objects to the arrays that figures draw."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.neurons import NeuronSet, Site
from ..data.scores import NO_COUNTRY, NeuronScores
from ..errors import NeuronError, ScoreError
from ..study.config import GENERAL
from ..study.opened import OpenStudy, study_of
from ..study.study import Study
from . import theme

SCORE_UNIT = "score per cluster"
"""S / N: P(answer) times the part of it that the neuron accounts for, summed over questions, divided by the
number of clusters."""


def given(
    value: Any, figure: str, *kinds: type, of_study: Callable[[Study], Any] = lambda s: s.neurons[GENERAL]
) -> Any:
    """What a figure draws: the value itself where it is of one of these kinds, or its part of a study.

    Args:
        value: also a study, or its folder.
        figure: its name.
        of_study: the part of a study that it draws; the culture-general neurons by default.

    Raises:
        NeuronError: anything else, saying what is drawn.
    """
    if isinstance(value, (Study, OpenStudy, str, Path)):
        value = of_study(study_of(value))
    if not isinstance(value, kinds):
        names = {Mapping: "{name: ...} of these"}
        words = ", ".join(names.get(kind, f"a {kind.__name__}") for kind in kinds if kind is not Study)
        others = {NeuronScores: "layer_heatmap, site_heatmap and score_histogram draw scores"}
        hint = next((f"; {text}" for kind, text in others.items() if isinstance(value, kind)), "")
        raise NeuronError(
            f"{figure} draws {words}, or a Study or its folder, not a {type(value).__name__}{hint}"
        )
    return value


def scores_of(
    value: NeuronScores | Study | OpenStudy | str | Path, control: NeuronScores | None, figure: str
) -> tuple[NeuronScores, NeuronScores | None, Study | None]:
    """(scores, control, study): those of a study, or of its folder, where one is given in place of scores.

    Raises `NeuronError` for anything else, saying what the figure of that name draws.
    """
    whole: Any = given(value, figure, NeuronScores, Study, of_study=lambda study: study)
    if isinstance(whole, NeuronScores):
        return whole, control, None
    return whole.scores["neuron"], control or whole.scores.get("control"), whole


def per_cluster(
    scores: NeuronScores,
    control: NeuronScores | None = None,
    *,
    country: str | None = None,
    sites: Iterable[Site | str] | None = None,
) -> dict[Site, np.ndarray]:
    """Scores per cluster: the sum over countries divided by the number of clusters (distinct questions).

    Args:
        control: subtracted, divided by its own number of clusters.
        country: that country's sum divided by its own number of clusters, instead of all countries together.
        sites: which sites; all that are scored by default.

    Returns:
        Site -> float32 [layer, neuron].

    Raises:
        ScoreError: a site or country that is not scored, NaN or infinity, a control of another model.
    """
    wanted = wanted_sites(scores, sites)
    if control is not None and (
        control.layers != scores.layers or any(control.widths.get(s) != scores.widths[s] for s in wanted)
    ):
        raise ScoreError(f"scores of {scores.task} and {control.task} are of different models or sites")
    values = {}
    for site in wanted:
        value = _one(scores, site, country)
        if control is not None:
            value = value - _one(control, site, country)
        values[site] = check_finite(value, site)
    return values


def check_finite(values: np.ndarray, site: Site) -> np.ndarray:
    """The [layer, neuron] values themselves. Raises `ScoreError` naming the first that is NaN or infinite."""
    broken = ~np.isfinite(values)
    if broken.any():
        layer, neuron = np.argwhere(broken)[0]
        raise ScoreError(
            f"scores of {site} hold {int(broken.sum()):,} NaN or infinite values "
            f"(the first in layer {layer}, neuron {neuron}): score the task again"
        )
    return values


def wanted_sites(scores: NeuronScores, sites: Iterable[Site | str] | None) -> tuple[Site, ...]:
    """The sites asked for, in the order of the scores. Raises `ScoreError` where one is not scored."""
    if sites is None:
        return scores.sites
    asked = {Site.parse(site) for site in sites}
    missing = [site for site in Site if site in asked and site not in scores.arrays]
    if missing or not asked:
        raise ScoreError(
            f"no scores of {missing[0] if missing else 'no site'}: "
            f"sites are {', '.join(map(str, scores.sites))}"
        )
    return tuple(site for site in scores.sites if site in asked)


def _one(scores: NeuronScores, site: Site, country: str | None) -> np.ndarray:
    if country is None:
        return scores.total(site) / np.float32(max(scores.clusters, 1))
    values = scores.of(country)[site]
    return values / np.float32(max(scores.country_clusters[scores.countries.index(country)], 1))


def sample(scores: NeuronScores, country: str | None = None) -> str:
    """The n of scores in words: ``n = 1,432 questions in 24 clusters``."""
    questions, clusters = sum(scores.questions), scores.clusters
    if country is not None:
        row = scores.countries.index(country)
        questions, clusters = scores.questions[row], scores.country_clusters[row]
    return f"n = {theme.plural(questions, 'question')} in {theme.plural(clusters, 'cluster')}"


def titled(scores: NeuronScores, control: NeuronScores | None = None, country: str | None = None) -> str:
    """``Scores on blend minus blend:control, Spain``."""
    less = f" minus {control.task}" if control is not None else ""
    return f"Scores on {scores.task}{less}{f', {country_label(country)}' if country else ''}"


@dataclass(frozen=True)
class Grid:
    """A set or scores as an array [layer, neuron] for each site."""

    counts: Mapping[Site, np.ndarray]
    """How often a neuron is in the set (at most once per country); ones for scores."""
    scores: Mapping[Site, np.ndarray]
    """Score; NaN where there is none."""
    layers: int
    unit: str
    """Of the scores."""

    @property
    def widths(self) -> dict[Site, int]:
        """Neurons per layer, by site."""
        return {site: array.shape[1] for site, array in self.counts.items()}

    @property
    def scored(self) -> bool:
        """Whether any neuron has a score."""
        return any(np.isfinite(array).any() for array in self.scores.values())


def grid_of_scores(values: Mapping[Site, np.ndarray]) -> Grid:
    """Every neuron, with its score."""
    ones = {site: np.ones(array.shape, dtype=np.int32) for site, array in values.items()}
    return Grid(ones, values, next(iter(values.values())).shape[0], SCORE_UNIT)


def grid_of_set(neurons: NeuronSet, sites: Iterable[Site | str] | None = None) -> Grid:
    """A set's neurons among those of its pool, a neuron of several countries with its highest score."""
    shown = sites_of([neurons], sites)
    layers, widths = layers_of([neurons]), widths_of(neurons)
    counts, scores = {}, {}
    for site in shown:
        here = neurons.table["site"].to_numpy() == site.value
        where = tuple(neurons.table[column].to_numpy()[here] for column in ("layer", "neuron"))
        count = np.zeros((layers, widths.get(site, 1)), dtype=np.int32)
        np.add.at(count, where, 1)
        score = np.full(count.shape, -np.inf, dtype=np.float32)
        np.fmax.at(score, where, neurons.table["score"].to_numpy()[here])
        counts[site], scores[site] = count, np.where(np.isfinite(score), score, np.nan)
    return Grid(counts, scores, layers, "score in the set")


def layers_of(sets: Iterable[NeuronSet], layers: int | None = None) -> int:
    """Layers of the models that the sets come from; where that is unknown, up to the highest layer of the
    sets.

    Args:
        layers: that number, where it is known better. Raises `NeuronError` for one that is too small.
    """
    sets = list(sets)
    highest = max([1, *(1 + int(s.table["layer"].to_numpy().max(initial=-1)) for s in sets)])
    if layers is None:
        return max([highest, *(s.provenance.layers or 0 for s in sets)])
    if layers < highest:
        raise NeuronError(f"there are neurons in layer {highest - 1}: layers must be {highest} or more")
    return layers


def widths_of(neurons: NeuronSet) -> dict[Site, int]:
    """Neurons per layer, by site; where that is unknown, up to the highest index of the set."""
    widths = {Site.parse(site): int(width) for site, width in neurons.provenance.pool.items()}
    for (site, _), index in neurons.indices.items():
        widths[site] = max(widths.get(site, 0), int(index[-1]) + 1)
    return widths


def sites_of(sets: Iterable[NeuronSet], sites: Iterable[Site | str] | None = None) -> tuple[Site, ...]:
    """The sites to show: those asked for, else those in which a set has neurons (the pool's where all are
    empty)."""
    if sites is not None:
        asked = {Site.parse(site) for site in sites}
        if not asked:
            raise NeuronError("no site is asked for: name one, e.g. mlp.gate")
        return tuple(site for site in Site if site in asked)
    sets = list(sets)
    names = (
        {name for s in sets for name in s.table["site"]}
        or {name for s in sets for name in s.provenance.pool}
        or {Site.MLP_GATE.value}
    )
    return tuple(site for site in Site if site.value in names)


def by_layer(neurons: NeuronSet, sites: tuple[Site, ...], layers: int) -> np.ndarray:
    """Counts [site, layer]."""
    counts = np.zeros((len(sites), layers), dtype=np.int64)
    for row, site in enumerate(sites):
        counts[row] = np.bincount(
            neurons.table["layer"].to_numpy()[neurons.table["site"].to_numpy() == site.value],
            minlength=layers,
        )
    return counts


def country_label(country: str) -> str:
    """How a country is written in a figure."""
    return "no country" if country == NO_COUNTRY else country


def named(neurons: Any, figure: str) -> dict[str, NeuronSet]:
    """One set under its kind, or the sets under their names; of a study its culture-general neurons. Raises
    `NeuronError` where one is missing or something else."""
    neurons = given(neurons, figure, NeuronSet, Mapping)
    if isinstance(neurons, NeuronSet):
        return {neurons.provenance.kind: neurons}
    if not neurons:
        raise NeuronError("no set of neurons to draw")
    return {str(name): given(value, f"{figure} ({name!r})", NeuronSet) for name, value in neurons.items()}


def checked(table: pd.DataFrame, columns: Iterable[str]) -> pd.DataFrame:
    """The table itself. Raises `ScoreError` where it is none, lacks columns or has no rows."""
    if not hasattr(table, "columns"):
        raise ScoreError(
            f"this figure draws a table with the columns {', '.join(columns)}, not a {type(table).__name__}: "
            "figures.plot(...) draws a result"
        )
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise ScoreError(f"this table needs the columns {', '.join(columns)}; missing: {', '.join(missing)}")
    if table.empty:
        raise ScoreError("this table has no rows")
    return table
