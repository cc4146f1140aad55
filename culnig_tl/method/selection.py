"""Selection: which neurons are culture-general, which are one country's, and sets beside them to compare with.

With N_D the number of distinct questions in D and S_c from `attribution` (CULNIG, arXiv 2510.08284):

    general:   G = sum_c S_c(neuron)/N_neuron - sum_c S_c(control)/N_control
               the top 1% of the MLP neurons and the top 0.2% of the pooled q, k, v neurons by G,
               minus, pool by pool, the top 1% by sum_c S_c(countryrc)
    specific:  for country c, one pool of all sites: the top 0.3% by D_c = S_c(neuron)/N_neuron - S_c(control)/N_control,
               minus the top 1% by S_c(countryrc), where z of D_c over the countries is at least 0.5
    random:    as many neurons from one pool of all sites
    rival:     as many neurons, layer by layer, with the highest attribution on a task without culture

Counts are int(size * share). Ties go to the lower (site, layer, index), so that a selection is the same everywhere.
Each selection ranks once and then cuts: `culnig_tl.analyses.sweep` cuts the same ranking at many thresholds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from ..data.neurons import SITES, NeuronSet, Provenance, Site
from ..data.pools import NeuronPool, ranked, share_count, sites_of
from ..data.scores import NeuronScores
from ..defaults import DROP_READING, MIN_Z, TOP_ATTN, TOP_MLP, TOP_SPECIFIC
from ..errors import NeuronError
from ..tasks.countries import COUNTRIES, SPECIFIC_COUNTRIES
from ..version import __version__
from .specificity import Normalise, SharedPattern, check_normalise, divisor, shared_pattern

log = logging.getLogger(__name__)


# ------------------------------------------------------------------------------------------------------ culture-general


def select_general(
    scores: NeuronScores,
    control: NeuronScores | None = None,
    reading: NeuronScores | None = None,
    *,
    top_mlp: float = TOP_MLP,
    top_attn: float = TOP_ATTN,
    drop_reading: float = DROP_READING,
    sites: Iterable[Site | str] | None = None,
) -> NeuronSet:
    """Neurons that serve all cultures.

    Args:
        scores: of the culture task's neuron split.
        control: scores of its control; None subtracts nothing.
        reading: scores of country reading comprehension; None removes nothing.
        top_mlp, top_attn: shares of the MLP pool and of the pooled q, k, v neurons that are candidates; the paper's t.
        drop_reading: share of each pool, highest by `reading`, that is removed; the paper's r.
        sites: where neurons are selected from; the paper's four, as far as they are scored, by default.

    Raises:
        NeuronError: a share outside 0..1, a site that is not scored, NaN, or scores of different models.
    """
    cut = {"top_mlp": top_mlp, "top_attn": top_attn, "drop_reading": drop_reading}
    return rank_general(scores, control, reading, sites=sites, **cut).cut(**cut)


@dataclass(frozen=True)
class _Ranking:
    """One pool's best neurons, best first, by culture and by reading."""

    pool: NeuronPool
    values: np.ndarray
    order: np.ndarray
    reading: np.ndarray | None

    def cut(self, top: float, drop_reading: float) -> tuple[np.ndarray, int]:
        """(positions that stay, candidates): the top share without the top share by reading."""
        chosen = self.order[: share_count(self.pool.size, top)]
        if self.reading is None:
            return chosen, len(chosen)
        return chosen[~np.isin(chosen, self.reading[: share_count(self.pool.size, drop_reading)])], len(
            chosen
        )


@dataclass(frozen=True)
class GeneralRanking:
    """Both pools ranked by G, to be cut at thresholds up to those it was made for."""

    scores: tuple[NeuronScores | None, ...]
    """Of the culture task, its control, and reading."""
    sites: tuple[Site, ...]
    mlp: _Ranking
    attn: _Ranking

    def cut(self, *, top_mlp: float, top_attn: float, drop_reading: float) -> NeuronSet:
        """The culture-general neurons at these thresholds."""
        tables, candidates = [], 0
        for ranking, top in ((self.mlp, top_mlp), (self.attn, top_attn)):
            kept, among = ranking.cut(top, drop_reading)
            candidates += among
            tables.append(ranking.pool.table(np.sort(kept), ranking.values))
        kept = sum(map(len, tables))
        paper = (top_mlp, top_attn, drop_reading, self.sites) == (
            TOP_MLP,
            TOP_ATTN,
            DROP_READING,
            SITES,
        ) and None not in self.scores
        return NeuronSet(
            _concat(tables),
            _provenance(
                "culture-general",
                self.scores,
                {"top_mlp": top_mlp, "top_attn": top_attn, "drop_reading": drop_reading},
                self.sites,
                paper_defaults=paper,
                candidates=candidates,
                removed_by_reading=candidates - kept,
            ),
        )


def rank_general(
    scores: NeuronScores,
    control: NeuronScores | None,
    reading: NeuronScores | None,
    *,
    top_mlp: float,
    top_attn: float,
    drop_reading: float,
    sites: Iterable[Site | str] | None = None,
) -> GeneralRanking:
    """Ranks both pools once, deep enough for these shares and any smaller ones."""
    _check(scores, control, reading)
    _warn_of_control(scores, control)
    wanted = sites_of(scores, sites)

    def rank(name: Literal["mlp", "attn"], top: float) -> _Ranking:
        pool = NeuronPool.of_scores(scores, wanted, name)
        values = pool.total(scores) / scores.clusters
        if control is not None:
            values -= pool.total(control) / control.clusters
        best = None if reading is None else ranked(pool.total(reading), share_count(pool.size, drop_reading))
        return _Ranking(pool, values, ranked(values, share_count(pool.size, top)), best)

    return GeneralRanking((scores, control, reading), wanted, rank("mlp", top_mlp), rank("attn", top_attn))


def layers_where_control_is_higher(neuron: NeuronScores, control: NeuronScores) -> list[int]:
    """Layers whose summed score a question is higher on the control, where the question is left out, than on the task itself.

    Where that is most layers, the difference of the two says little about culture: the options alone drive the answer, or
    P(answer) saturates on the task. Selecting logs a warning then.
    """
    per_question = [
        sum(scores.total(site).sum(axis=1, dtype=np.float64) for site in scores.sites) / scores.clusters
        for scores in (neuron, control)
    ]
    return np.flatnonzero(per_question[1] > per_question[0]).tolist()


def candidate_count(
    widths: Mapping[Site, int], layers: int, *, top_mlp: float = TOP_MLP, top_attn: float = TOP_ATTN
) -> int:
    """Candidates for culture-general neurons, before CountryRC, from a model's shape alone: 8,158 for gemma-3-12b-it."""
    pools = {
        name: layers * sum(w for site, w in widths.items() if site in SITES and site.pool == name)
        for name in ("mlp", "attn")
    }
    return share_count(pools["mlp"], top_mlp) + share_count(pools["attn"], top_attn)


# ----------------------------------------------------------------------------------------------------- culture-specific


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
    """Neurons that serve one country's culture, for each country asked for.

    The provenance keeps the rank-1 share of the country x neuron matrix; over 0.9 a warning says that one pattern, shared by
    all countries, is nearly all there is (see `culnig_tl.method.specificity`).

    Args:
        scores, control, reading, sites: as in `select_general`.
        countries: by default those of the paper's eight that are scored.
        top: share of all neurons, one pool, that are candidates; the paper's t.
        drop_reading: share, highest by the country's reading score, that is removed; the paper's r.
        z: least z of the country's value over the BLEnD countries (population standard deviation).
        normalise: "paper" divides by the number of questions of all countries together, "country" by the country's own:
            unequal counts leak into z otherwise.
        residual: rank what is left of the values when the pattern that all countries share is taken out.

    Returns:
        A set with a `country` column; `.for_country("Iran")` is one country's.
    """
    shares = {"top": top, "drop_reading": drop_reading}
    ways: dict[str, Any] = {"normalise": normalise, "residual": residual, "sites": sites}
    return rank_specific(scores, control, reading, countries=countries, **shares, **ways).cut(z=z, **shares)


@dataclass(frozen=True)
class SpecificRanking:
    """One pool ranked for each country, to be cut at thresholds up to those it was made for."""

    scores: tuple[NeuronScores | None, ...]
    sites: tuple[Site, ...]
    rankings: Mapping[str, _Ranking]
    """Country -> ranking."""
    z: Mapping[str, np.ndarray]
    """Country -> z of its value over the countries, at `order`."""
    normalise: Normalise
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
        paper = (top, drop_reading, z, self.normalise, self.residual, self.sites) == (
            TOP_SPECIFIC,
            DROP_READING,
            MIN_Z,
            "paper",
            False,
            SITES,
        )
        total = {
            key: sum(count[key] for count in counts.values())
            for key in ("candidates", "removed_by_reading", "removed_by_z")
        }
        return NeuronSet(
            _concat(tables),
            _provenance(
                "culture-specific",
                self.scores,
                {
                    "top": top,
                    "drop_reading": drop_reading,
                    "z": z,
                    "normalise": self.normalise,
                    "residual": self.residual,
                },
                self.sites,
                paper_defaults=paper and None not in self.scores,
                by_country=counts,
                shared_pattern=self.pattern.share,
                **total,
            ),
        )


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
    """Ranks the pool once a country, deep enough for these shares and any smaller ones."""
    _check(scores, control, reading)
    check_normalise(normalise)
    names = [c for c in scores.countries if c in COUNTRIES]
    if len(names) < 2:
        raise NeuronError(
            f"culture-specific neurons need scores of two countries or more of BLEnD's; {scores.task} has {len(names)}"
        )
    asked = (
        list(dict.fromkeys(countries))
        if countries is not None
        else [c for c in SPECIFIC_COUNTRIES if c in names]
    )
    unknown = [c for c in asked if c not in names]
    if unknown or not asked:
        raise NeuronError(
            f"no scores of {unknown[0]!r}: countries are {', '.join(names)}"
            if unknown
            else "no country is asked for"
        )
    if control is not None and (lacking := [c for c in names if c not in control.countries]):
        raise NeuronError(f"the control has no scores of {lacking[0]!r}: score the control of the same task")
    unread = [c for c in asked if reading is not None and c not in reading.countries]
    if unread:
        log.warning(
            "%s has no questions about %s: nothing is removed for them",
            reading and reading.task,
            ", ".join(unread),
        )

    wanted = sites_of(scores, sites)
    pool = NeuronPool.of_scores(scores, wanted)
    pattern = shared_pattern(scores, control, normalise=normalise, sites=wanted, countries=names)
    pattern.warn()
    common = (
        pattern.values(scores, control, pool) if residual else None
    )  # [pool], to be taken out in each country's share

    rankings, zs = {}, {}
    for country in asked:  # one country at a time: 3 million neurons x 16 countries stay under 2 GiB
        values = pool.of_country(scores, country) / np.float32(divisor(scores, country, normalise))
        if control is not None:
            values -= pool.of_country(control, country) / np.float32(divisor(control, country, normalise))
        if common is not None:
            values -= np.float32(pattern.weights[country]) * common
        best = None
        if reading is not None and country in reading.countries:
            best = ranked(pool.of_country(reading, country), share_count(pool.size, drop_reading))
        order = ranked(values, share_count(pool.size, top))
        rankings[country] = _Ranking(pool, values, order, best)
        zs[country] = _z(
            scores,
            control,
            pool,
            order,
            names,
            names.index(country),
            normalise,
            pattern if residual else None,
        )
    return SpecificRanking((scores, control, reading), wanted, rankings, zs, normalise, residual, pattern)


def _z(
    neuron: NeuronScores,
    control: NeuronScores | None,
    pool: NeuronPool,
    positions: np.ndarray,
    names: list[str],
    row: int,
    normalise: Normalise,
    pattern: SharedPattern | None,
) -> np.ndarray:
    """z of one country's value over the countries, at some positions; 0 where all countries have the same value."""

    def per_question(scores: NeuronScores) -> np.ndarray:
        rows = [scores.countries.index(c) for c in names]
        return (
            pool.at(scores, positions)[rows]
            / np.array([divisor(scores, c, normalise) for c in names])[:, None]
        )

    values = per_question(neuron) - (0 if control is None else per_question(control))  # [country, position]
    if pattern is not None:
        weights = np.array([pattern.weights[c] for c in names])
        values = values - weights[:, None] * (weights @ values)
    deviation = values.std(axis=0)
    return np.divide(
        values[row] - values.mean(axis=0), deviation, out=np.zeros(len(positions)), where=deviation > 0
    )


# ------------------------------------------------------------------------------------------------ sets to compare with


def select_random(
    neurons: NeuronSet, scores: NeuronScores, *, seed: int = 0, match: Literal["count", "layer"] = "count"
) -> NeuronSet:
    """As many random neurons: what suppressing any neurons of that number does.

    Args:
        neurons: the set to match.
        scores: of the same model; they say which neurons there are.
        seed: each seed is one set; the paper uses 0 to 9.
        match: "count" (paper: as many of all sites that the set was selected from, one pool) or "layer" (as many in every site and layer).

    Raises:
        NeuronError: an empty set, or one of another model.
    """
    if match not in ("count", "layer"):
        raise NeuronError(f'unknown match {match!r}: use "count" or "layer"')
    _check_matches(neurons, scores)
    rng = np.random.default_rng(seed)
    sites = _pool_sites(neurons, scores)
    if match == "layer":
        rows = []
        for (site, layer), index in neurons.indices.items():
            drawn = rng.choice(scores.widths[site], size=len(index), replace=False)
            rows.append(pd.DataFrame({"site": site.value, "layer": layer, "neuron": drawn}))
        table = pd.concat(rows)
    else:
        pool = NeuronPool.of_scores(scores, sites)
        count = sum(map(len, neurons.indices.values()))
        table = pool.table(np.sort(rng.choice(pool.size, size=count, replace=False)))
    return NeuronSet(
        table,
        _provenance(
            f"random ({match})",
            (scores,),
            {"seed": seed, "matched": neurons.hash},
            sites,
            paper_defaults=match == "count",
        ),
    )


def select_rival(neurons: NeuronSet, scores: NeuronScores) -> NeuronSet:
    """As many neurons in every site and layer, those with the highest attribution on another task: a stronger rival than random.

    Culture neurons should hurt culture more, and the other task less, than these. A neuron can be in both sets.

    Args:
        neurons: the set to match.
        scores: of the same model on a task without culture, e.g. ``score_neurons(model, halves(load_task("commonsenseqa"))[0])``.

    Raises:
        NeuronError: an empty set, or one of another model.
    """
    _check_matches(neurons, scores)
    rows = []
    for (site, layer), index in neurons.indices.items():
        values = scores.arrays[site][:, layer].sum(axis=0, dtype=np.float64)
        best = np.sort(ranked(values, len(index)))
        rows.append(pd.DataFrame({"site": site.value, "layer": layer, "neuron": best, "score": values[best]}))
    sites = _pool_sites(neurons, scores)
    return NeuronSet(
        pd.concat(rows),
        _provenance(
            f"rival ({scores.task})", (scores,), {"matched": neurons.hash}, sites, paper_defaults=False
        ),
    )


# --------------------------------------------------------------------------------------------------------------- checks


def _check(neuron: NeuronScores, *others: NeuronScores | None) -> None:
    for other in others:
        if other is None:
            continue
        if (other.widths, other.layers) != (neuron.widths, neuron.layers):
            raise NeuronError(f"scores of {neuron.task} and {other.task} are of different models or sites")
        for key in ("model", "revision", "aggregation"):
            mine, theirs = neuron.metadata.get(key), other.metadata.get(key)
            if mine != theirs:
                raise NeuronError(
                    f"scores of {neuron.task} and {other.task} differ in {key}: {mine!r} and {theirs!r}"
                )


def _warn_of_control(neuron: NeuronScores, control: NeuronScores | None) -> None:
    higher = [] if control is None else layers_where_control_is_higher(neuron, control)
    if len(higher) > neuron.layers / 2:
        log.warning(
            "the control of %s scores above the task itself in %d of %d layers: the options alone seem to drive the answer",
            neuron.task, len(higher), neuron.layers,
        )  # fmt: skip


def _check_matches(neurons: NeuronSet, scores: NeuronScores) -> None:
    """The set has neurons, and the scores' model has them too."""
    if not len(neurons):
        raise NeuronError("the set to match is empty: take a larger share or drop less for reading")
    for (site, layer), index in neurons.indices.items():
        if site not in scores.widths or layer >= scores.layers or index[-1] >= scores.widths[site]:
            raise NeuronError(
                f"the set has neuron ({site}, {layer}, {index[-1]}), the scores have none there: they are of another model"
            )


def _pool_sites(neurons: NeuronSet, scores: NeuronScores) -> tuple[Site, ...]:
    """The sites that the set was selected from; of a set made by hand the paper's and its own."""
    known = neurons.provenance.pool or [*SITES, *(site for site, _ in neurons.indices)]
    return tuple(
        site for site in Site if site in {Site.parse(name) for name in known} and site in scores.widths
    )


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
        version=__version__,
        **more,
    )
