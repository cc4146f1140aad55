"""Selection: which neurons are culture-general, which are one country's own, and sets to compare them with.

With N the number of distinct questions of a task and S_c from `score` (CULNIG, arXiv 2510.08284):

    general    G = sum over c of S_c(culture)/N - sum over c of S_c(control)/N_control
               the top 1% of the MLP neurons and the top 0.2% of the pooled q, k, v neurons by G,
               minus, pool by pool, the top 1% by sum over c of S_c(reading)
    specific   D_c = S_c(culture)/N - S_c(control)/N_control
               for country c, one pool of all sites: the top 0.3% by D_c, minus the top 1% by S_c(reading),
               where the z of D_c over the countries is at least 0.5
    random     as many neurons, drawn from one pool of all sites
    rival      as many neurons, layer by layer, with the highest score on a task without culture

Beyond the paper, the ranking of culture-general neurons can hold tasks without culture against a neuron: see
`contrast`.

Counts are int(size * share). Ties go to the lower (site, layer, index), so a selection is the same
everywhere. A selection ranks once and then cuts; `analyses.sweep` cuts the same ranking at many thresholds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ..data.neurons import SITES, NeuronSet, Provenance, Site
from ..data.pools import NeuronPool, ranked, share_count, sites_of
from ..data.scores import NeuronScores
from ..defaults import CONTRAST_OVER, DROP_READING, MIN_Z, TOP_ATTN, TOP_MLP, TOP_SPECIFIC
from ..engine.identity import digest_of
from ..errors import NeuronError
from ..names import which
from ..tasks.countries import COUNTRIES, SPECIFIC_COUNTRIES
from ..version import __version__
from .contrast import Contrast, Way
from .specificity import Normalise, SharedPattern, divisor, per_question, shared_pattern

log = logging.getLogger(__name__)


# -------------------------------------------------------------------------------------------- culture-general


def select_general(
    scores: NeuronScores,
    control: NeuronScores | None = None,
    reading: NeuronScores | None = None,
    *,
    top_mlp: float = TOP_MLP,
    top_attn: float = TOP_ATTN,
    drop_reading: float = DROP_READING,
    contrast: NeuronScores | Iterable[NeuronScores] | None = None,
    contrast_way: Way = "filter",
    contrast_over: float = CONTRAST_OVER,
    sites: Iterable[Site | str] | None = None,
) -> NeuronSet:
    """The neurons that serve all cultures.

    Args:
        scores: of a culture task, e.g. ``score_neurons(model, load_task("blend", split="neuron"))``.
        control: of the same task with the question left out; without it, nothing is subtracted.
        reading: of country reading comprehension; without it, nothing is removed.
        top_mlp, top_attn: shares of the MLP neurons and of the pooled q, k, v neurons that are candidates
            (the paper's t).
        drop_reading: share of each pool, highest by `reading`, that is removed (the paper's r).
        contrast: scores of one or several tasks without culture, which are held against a neuron (not in the
            paper); of other questions than those that are asked later, e.g.
            ``score_neurons(model, halves(load_task("commonsenseqa"))[0])``.
        contrast_way: "filter" passes over neurons that score high there, "subtract" and "ranks" rank by the
            difference: see `contrast`.
        contrast_over: standard deviations over the pool's mean from which "filter" passes over a neuron.
        sites: to select from; by default the paper's four, as far as they are scored.

    Raises:
        NeuronError: a share outside 0..1, a site that is not scored, NaN, an unknown way, or scores of
            different models.
    """
    cut = {"top_mlp": top_mlp, "top_attn": top_attn, "drop_reading": drop_reading}
    against = Contrast.of(contrast, contrast_way, contrast_over)
    return rank_general(scores, control, reading, contrast=against, sites=sites, **cut).cut(**cut)


@dataclass(frozen=True)
class _Ranking:
    """The best neurons of one pool, highest first."""

    pool: NeuronPool
    values: Float[np.ndarray, " pool"]
    order: Int[np.ndarray, " best"]
    """Positions in the pool, by `values`."""
    reading: Int[np.ndarray, " removed"] | None
    """Positions in the pool, by reading score."""

    def cut(self, top: float, drop_reading: float) -> tuple[Int[np.ndarray, " kept"], int]:
        """(positions that are kept, number of candidates): the top share, minus the top share by reading."""
        chosen = self.order[: share_count(self.pool.size, top)]
        if self.reading is None:
            return chosen, len(chosen)
        removed = self.reading[: share_count(self.pool.size, drop_reading)]
        return chosen[~np.isin(chosen, removed)], len(chosen)


@dataclass(frozen=True)
class GeneralRanking:
    """Both pools ranked by G, to be cut at the shares they were ranked for or at smaller ones."""

    scores: tuple[NeuronScores | None, ...]
    """Of the culture task, its control, and reading."""
    sites: tuple[Site, ...]
    mlp: _Ranking
    attn: _Ranking
    contrast: Contrast | None = None

    def cut(self, *, top_mlp: float, top_attn: float, drop_reading: float) -> NeuronSet:
        """The culture-general neurons at these thresholds."""
        tables, candidates = [], 0
        for ranking, top in ((self.mlp, top_mlp), (self.attn, top_attn)):
            kept, among = ranking.cut(top, drop_reading)
            candidates += among
            tables.append(ranking.pool.table(np.sort(kept), ranking.values))
        thresholds = {"top_mlp": top_mlp, "top_attn": top_attn, "drop_reading": drop_reading}
        papers = {"top_mlp": TOP_MLP, "top_attn": TOP_ATTN, "drop_reading": DROP_READING}
        against: tuple[NeuronScores, ...] = ()
        if self.contrast is not None:
            thresholds, against = {**thresholds, **self.contrast.thresholds}, self.contrast.scores
        provenance = _provenance(
            "culture-general",
            (*self.scores, *against),
            thresholds,
            self.sites,
            paper_defaults=thresholds == papers and self.sites == SITES and None not in self.scores,
            candidates=candidates,
            removed_by_reading=candidates - sum(map(len, tables)),
        )
        return NeuronSet(_concat(tables), provenance)


def rank_general(
    scores: NeuronScores,
    control: NeuronScores | None,
    reading: NeuronScores | None,
    *,
    top_mlp: float,
    top_attn: float,
    drop_reading: float,
    contrast: Contrast | None = None,
    sites: Iterable[Site | str] | None = None,
) -> GeneralRanking:
    """Ranks both pools once, deep enough for these shares and any smaller ones."""
    _check_alike(scores, control, reading, *(() if contrast is None else contrast.scores))
    _warn_of_control(scores, control)
    wanted = sites_of(scores, sites)

    def rank(name: Literal["mlp", "attn"], top: float) -> _Ranking:
        pool = NeuronPool.of_scores(scores, wanted, name)
        values = pool.total(scores) / scores.clusters
        if control is not None:
            values -= pool.total(control) / control.clusters
        best = None if reading is None else ranked(pool.total(reading), share_count(pool.size, drop_reading))
        most = share_count(pool.size, top)
        if contrast is None:
            return _Ranking(pool, values, ranked(values, most), best)
        values, allowed = contrast.apply(values, pool)
        open_to = np.flatnonzero(allowed)  # in the pool's order: ties go to the lower position as before
        return _Ranking(pool, values, open_to[ranked(values[open_to], most)], best)

    pools = rank("mlp", top_mlp), rank("attn", top_attn)
    return GeneralRanking((scores, control, reading), wanted, *pools, contrast)


def layers_where_control_is_higher(scores: NeuronScores, control: NeuronScores) -> list[int]:
    """Layers whose summed score per question is higher on the control than on the task itself.

    Where that is most of them, the difference of the two says little about culture: the options alone drive
    the answer, or P(answer) saturates on the task. A selection logs a warning then.
    """
    of_task, of_control = (
        sum(some.total(site).sum(axis=1, dtype=np.float64) for site in some.sites) / some.clusters
        for some in (scores, control)
    )
    return np.flatnonzero(of_control > of_task).tolist()


# ------------------------------------------------------------------------------------------- culture-specific


def select_specific(
    scores: NeuronScores,
    control: NeuronScores | None = None,
    reading: NeuronScores | None = None,
    *,
    countries: Iterable[str] | None = None,
    top: float = TOP_SPECIFIC,
    drop_reading: float = DROP_READING,
    z: float = MIN_Z,
    normalise: Normalise = "paper",
    residual: bool = False,
    sites: Iterable[Site | str] | None = None,
) -> NeuronSet:
    """The neurons that serve one country's culture, for several countries.

    The provenance keeps the rank-1 share of the country x neuron matrix. Above 0.9 a warning says that one
    pattern, shared by all countries, is nearly all there is (see `specificity`).

    Args:
        scores, control, reading, sites: as in `select_general`.
        countries: whose neurons are wanted; by default those of the paper's eight that are scored.
        top: share of all neurons, in one pool, that are candidates (the paper's t).
        drop_reading: share, highest by the country's reading score, that is removed (the paper's r).
        z: least z of the country's value over BLEnD's countries (population standard deviation).
        normalise: "paper" divides by the questions of all countries together, "country" by the country's own;
            otherwise unequal numbers of questions leak into z.
        residual: take the pattern that all countries share out of the values first.

    Returns:
        A set with a `country` column; ``.for_country("Iran")`` is one country's.

    Raises:
        NeuronError: as in `select_general`, or a country without scores.
    """
    shares = {"top": top, "drop_reading": drop_reading}
    ways: dict[str, Any] = {"normalise": normalise, "residual": residual, "sites": sites}
    return rank_specific(scores, control, reading, countries=countries, **shares, **ways).cut(z=z, **shares)


@dataclass(frozen=True)
class SpecificRanking:
    """One pool ranked for each country, to be cut at the shares it was ranked for or at smaller ones."""

    scores: tuple[NeuronScores | None, ...]
    """Of the culture task, its control, and reading."""
    sites: tuple[Site, ...]
    rankings: Mapping[str, _Ranking]
    """Country -> ranking."""
    z: Mapping[str, Float[np.ndarray, " best"]]
    """Country -> z of its values over the countries, in the ranking's order."""
    residual: bool
    pattern: SharedPattern

    def cut(self, *, top: float, drop_reading: float, z: float) -> NeuronSet:
        """The culture-specific neurons of every country at these thresholds."""
        tables, counts = [], {}
        for country, ranking in self.rankings.items():
            kept, candidates = ranking.cut(top, drop_reading)
            own = kept[np.isin(kept, ranking.order[self.z[country] >= z])]
            counts[country] = {
                "candidates": candidates,
                "removed_by_reading": candidates - len(kept),
                "removed_by_z": len(kept) - len(own),
            }
            table = ranking.pool.table(np.sort(own), ranking.values)
            table.insert(0, "country", country)
            tables.append(table)
        ways = {"normalise": self.pattern.normalise, "residual": self.residual}
        thresholds = {"top": top, "drop_reading": drop_reading, "z": z, **ways}
        papers = {"top": TOP_SPECIFIC, "drop_reading": DROP_READING, "z": MIN_Z}
        papers |= {"normalise": "paper", "residual": False}
        keys = ("candidates", "removed_by_reading", "removed_by_z")
        provenance = _provenance(
            "culture-specific",
            self.scores,
            thresholds,
            self.sites,
            paper_defaults=thresholds == papers and self.sites == SITES and None not in self.scores,
            by_country=counts,
            shared_pattern=self.pattern.share,
            **{key: sum(count[key] for count in counts.values()) for key in keys},
        )
        return NeuronSet(_concat(tables), provenance)


def rank_specific(
    scores: NeuronScores,
    control: NeuronScores | None,
    reading: NeuronScores | None,
    *,
    countries: Iterable[str] | None = None,
    top: float,
    drop_reading: float,
    normalise: Normalise = "paper",
    residual: bool = False,
    sites: Iterable[Site | str] | None = None,
) -> SpecificRanking:
    """Ranks the pool once per country, deep enough for these shares and any smaller ones."""
    _check_alike(scores, control, reading)
    every, asked = _countries(scores, control, reading, countries)
    wanted = sites_of(scores, sites)
    pool = NeuronPool.of_scores(scores, wanted)
    pattern = shared_pattern(scores, control, normalise=normalise, sites=wanted, countries=every)
    pattern.warn()
    shared = pattern.values(scores, control, pool) if residual else None
    rankings, zs = {}, {}
    for country in asked:  # one at a time: 3 million neurons x 16 countries stay under 2 GiB
        values = per_question(scores, control, pool, country, normalise)
        if shared is not None:
            values -= np.float32(pattern.weights[country]) * shared
        best = None
        if reading is not None and country in reading.countries:
            best = ranked(pool.of_country(reading, country), share_count(pool.size, drop_reading))
        order = ranked(values, share_count(pool.size, top))
        rankings[country] = _Ranking(pool, values, order, best)
        zs[country] = _z(scores, control, pool, order, country, pattern, residual)
    return SpecificRanking((scores, control, reading), wanted, rankings, zs, residual, pattern)


def _countries(
    scores: NeuronScores,
    control: NeuronScores | None,
    reading: NeuronScores | None,
    countries: Iterable[str] | None,
) -> tuple[list[str], list[str]]:
    """(BLEnD's countries that are scored, those whose neurons are wanted), checked."""
    every = [c for c in scores.countries if c in COUNTRIES]
    if len(every) < 2:
        raise NeuronError(
            f"culture-specific neurons need scores of at least two of BLEnD's countries: "
            f"{scores.task} has {len(every)}"
        )
    asked = [c for c in SPECIFIC_COUNTRIES if c in every]
    asked = asked if countries is None else list(dict.fromkeys(countries))
    if unknown := [c for c in asked if c not in every]:
        raise NeuronError(f"no scores of {unknown[0]!r}{which(unknown[0], every, 'the countries are')}")
    if not asked:
        raise NeuronError(f"no country is named: the countries are {', '.join(every)}")
    if control is not None and (lacking := [c for c in every if c not in control.countries]):
        raise NeuronError(f"the control has no scores of {lacking[0]!r}: score the control of the same task")
    if reading is not None and (unread := [c for c in asked if c not in reading.countries]):
        log.warning("%s does not ask about %s: nothing is removed there", reading.task, ", ".join(unread))
    return every, asked


def _z(
    scores: NeuronScores,
    control: NeuronScores | None,
    pool: NeuronPool,
    positions: Int[np.ndarray, " best"],
    country: str,
    pattern: SharedPattern,
    residual: bool,
) -> Float[np.ndarray, " best"]:
    """z of one country's values over the countries, at some positions; 0 where all have the same value."""
    names = list(pattern.weights)

    def of_countries(some: NeuronScores) -> Float[np.ndarray, "country best"]:
        rows = [some.countries.index(c) for c in names]
        return (
            pool.at(some, positions)[rows]
            / np.array([divisor(some, c, pattern.normalise) for c in names])[:, None]
        )

    values = of_countries(scores) - (0 if control is None else of_countries(control))
    if residual:
        weights = np.array(list(pattern.weights.values()))
        values = values - weights[:, None] * (weights @ values)
    spread = values.std(axis=0)
    above = values[names.index(country)] - values.mean(axis=0)
    return np.divide(above, spread, out=np.zeros(len(positions)), where=spread > 0)


# --------------------------------------------------------------------------------------- sets to compare with


def select_random(
    neurons: NeuronSet, scores: NeuronScores, *, seed: int = 0, match: Literal["count", "layer"] = "count"
) -> NeuronSet:
    """As many random neurons: shows what suppressing any neurons of that number does.

    Args:
        neurons: the set to match.
        scores: of the same model; they say which neurons there are.
        seed: one set each; the paper uses 0 to 9.
        match: "count" draws from one pool of all sites that the set was selected from (the paper), "layer" as
            many in every site and layer.

    Raises:
        NeuronError: an empty set, or scores of another model.
    """
    if match not in ("count", "layer"):
        raise NeuronError(f"unknown match {match!r}{which(match, ('count', 'layer'))}")
    _check_fits(neurons, scores)
    rng = np.random.default_rng(seed)
    sites = _pool_sites(neurons, scores)
    if match == "layer":
        rows = []
        for (site, layer), index in neurons.indices.items():
            drawn = rng.choice(scores.width(site, layer), size=len(index), replace=False)
            rows.append(pd.DataFrame({"site": site.value, "layer": layer, "neuron": drawn}))
        table = pd.concat(rows)
    else:
        pool = NeuronPool.of_scores(scores, sites)
        count = sum(map(len, neurons.indices.values()))
        table = pool.table(np.sort(rng.choice(pool.size, size=count, replace=False)))
    thresholds = {"seed": seed, "matched": neurons.hash}
    known = _provenance(f"random ({match})", (scores,), thresholds, sites, paper_defaults=match == "count")
    return NeuronSet(table, _matched(known, neurons))


def select_rival(neurons: NeuronSet, scores: NeuronScores) -> NeuronSet:
    """As many neurons in every site and layer, with the highest scores on another task: stronger than random
    ones.

    Culture neurons should hurt culture more, and the other task less, than these do. A neuron can be in both
    sets.

    Args:
        neurons: the set to match.
        scores: of the same model on a task without culture, e.g.
            ``score_neurons(model, halves(load_task("commonsenseqa"))[0])``.

    Raises:
        NeuronError: an empty set, or scores of another model.
    """
    _check_fits(neurons, scores)
    rows = []
    for (site, layer), index in neurons.indices.items():
        there = scores.arrays[site][:, layer, : scores.width(site, layer)]
        values = there.sum(axis=0, dtype=np.float64)
        best = np.sort(ranked(values, len(index)))
        rows.append(pd.DataFrame({"site": site.value, "layer": layer, "neuron": best, "score": values[best]}))
    thresholds, sites = {"matched": neurons.hash}, _pool_sites(neurons, scores)
    known = _provenance(f"rival ({scores.task})", (scores,), thresholds, sites, paper_defaults=False)
    return NeuronSet(pd.concat(rows), _matched(known, neurons))


def _matched(known: Provenance, neurons: NeuronSet) -> Provenance:
    """What is known of a set to compare with: it is asked the questions that the set it matches is asked."""
    return replace(known, tasks={**neurons.provenance.tasks, **known.tasks})


# ----------------------------------------------------------------------------------------------------- checks


def _check_alike(scores: NeuronScores, *others: NeuronScores | None) -> None:
    """Raises `NeuronError` unless all are of one model, with the same sites and method."""
    for other in others:
        if other is None:
            continue
        if (other.widths, other.layers) != (scores.widths, scores.layers):
            raise NeuronError(
                f"the scores of {scores.task} and {other.task} are of different models or sites"
            )
        same = {
            "model": None,
            "revision": None,
            "aggregation": None,
            "form": "letters",
            "chat_template": False,
        }
        for key, default in same.items():
            mine, theirs = (each.metadata.get(key, default) for each in (scores, other))
            if mine != theirs:
                raise NeuronError(
                    f"the scores of {scores.task} and {other.task} differ in {key}: {mine!r} and {theirs!r}"
                )


def _warn_of_control(scores: NeuronScores, control: NeuronScores | None) -> None:
    higher = [] if control is None else layers_where_control_is_higher(scores, control)
    if len(higher) > scores.layers / 2:
        log.warning(
            "the control of %s scores above the task itself in %d of %d layers: "
            "the options alone seem to drive the answer",
            scores.task, len(higher), scores.layers,
        )  # fmt: skip


def _check_fits(neurons: NeuronSet, scores: NeuronScores) -> None:
    """Raises `NeuronError` for an empty set, and for one with neurons that the scores' model does not
    have."""
    if not len(neurons):
        raise NeuronError("the set to match is empty: select a larger share, or remove less for reading")
    for (site, layer), index in neurons.indices.items():
        known = site in scores.widths and layer < scores.layers
        if not known or index[-1] >= scores.width(site, layer):
            raise NeuronError(
                f"neuron ({site}, {layer}, {index[-1]}) of the set is not among the scores: "
                "they are of another model"
            )


def _pool_sites(neurons: NeuronSet, scores: NeuronScores) -> tuple[Site, ...]:
    """The sites that the set was selected from; for a set made by hand, the paper's and its own."""
    named = neurons.provenance.pool or [*SITES, *(site for site, _ in neurons.indices)]
    known = {Site.parse(name) for name in named}
    return tuple(site for site in Site if site in known and site in scores.widths)


def _concat(tables: list[pd.DataFrame]) -> pd.DataFrame:
    filled = [table for table in tables if len(table)]
    return pd.concat(filled) if filled else tables[0]


def _provenance(
    kind: str,
    scores: Iterable[NeuronScores | None],
    thresholds: Mapping[str, Any],
    sites: tuple[Site, ...],
    **more: Any,
) -> Provenance:
    given = [s for s in scores if s is not None]
    return Provenance(
        kind=kind,
        model=given[0].metadata.get("model"),
        revision=given[0].metadata.get("revision"),
        tasks={s.task: str(s.metadata.get("fingerprint")) for s in given},
        thresholds=thresholds,
        pool={site.value: given[0].widths[site] for site in sites},
        layers=given[0].layers,
        form=given[0].metadata.get("form", "letters"),
        clusters=given[0].clusters,
        rows=given[0].rows,
        version=__version__,
        identity=digest_of(given[0].metadata.get("identity")),
        **more,
    )
