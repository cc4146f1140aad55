"""Selection: which neurons are culture-general, which are one country's, and random ones beside them.

With N_D the number of distinct questions in D and S_c from `attribution` (CULNIG, arXiv 2510.08284):

    general:   G = sum_c S_c(neuron)/N_neuron - sum_c S_c(control)/N_control
               the top 1% of the MLP neurons and the top 0.2% of the pooled q, k, v neurons by G,
               minus, pool by pool, the top 1% by sum_c S_c(countryrc)
    specific:  for country c, one pool of all sites: the top 0.3% by D_c = S_c(neuron)/N_neuron - S_c(control)/N_control,
               minus the top 1% by S_c(countryrc), where z of D_c over the countries is at least 0.5
    random:    as many neurons from the same pools

Counts are int(size * share). Ties go to the lower (site, layer, index), so that a selection is the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from . import __version__
from .errors import NeuronError
from .neurons import NeuronSet, Pool, Provenance, Site
from .scores import NeuronScores
from .tasks.countries import COUNTRIES, SPECIFIC_COUNTRIES

T_MLP, T_ATTN, R = 0.01, 0.002, 0.01
"""The paper's shares for culture-general neurons: top MLP, top attention, removed by CountryRC."""
T_SPECIFIC, Z = 0.003, 0.5
"""The paper's share and z threshold for culture-specific neurons."""


@dataclass(frozen=True)
class _Flat:
    """One pool's neurons in the order site, layer, index: positions in it decide ties."""

    sites: tuple[Site, ...]
    layers: int
    widths: tuple[int, ...]

    @property
    def size(self) -> int:
        return self.layers * sum(self.widths)

    def flatten(self, arrays: Mapping[Site, np.ndarray]) -> np.ndarray:
        """[neuron of the pool] from [layer, neuron] a site."""
        return np.concatenate([arrays[site].reshape(-1) for site in self.sites])

    def table(self, positions: np.ndarray, values: np.ndarray) -> pd.DataFrame:
        """Rows (site, layer, neuron, score) of positions in the pool."""
        starts = np.concatenate([[0], np.cumsum([self.layers * w for w in self.widths])])
        which = np.searchsorted(starts, positions, side="right") - 1
        within = positions - starts[which]
        width = np.asarray(self.widths)[which]
        names = np.array([site.value for site in self.sites], dtype=object)
        return pd.DataFrame({"site": names[which], "layer": within // width, "neuron": within % width, "score": values[positions]})


def select_culture_general(
    neuron: NeuronScores,
    control: NeuronScores | None,
    countryrc: NeuronScores | None,
    *,
    t_mlp: float = T_MLP,
    t_attn: float = T_ATTN,
    r: float = R,
) -> NeuronSet:
    """Neurons that serve all cultures.

    Args:
        neuron: scores of the culture task's neuron split.
        control: scores of its control; None subtracts nothing.
        countryrc: scores of country reading comprehension; None removes nothing.
        t_mlp, t_attn: shares of the MLP pool and of the pooled q, k, v neurons that are candidates.
        r: share of each pool, highest by `countryrc`, that is removed.

    Raises:
        NeuronError: a share outside 0..1, or scores of different models.
    """
    _check(neuron, control, countryrc)
    tables, candidates, removed = [], 0, 0
    for pool, share in (("mlp", t_mlp), ("attn", t_attn)):
        flat = _pool(neuron, pool)
        if not flat.size:
            continue
        value = flat.flatten({s: neuron.total(s) for s in flat.sites}) / neuron.clusters
        if control is not None:
            value -= flat.flatten({s: control.total(s) for s in flat.sites}) / control.clusters
        chosen = top_positions(value, _count(flat.size, share))
        candidates += len(chosen)
        if countryrc is not None:
            reading = top_positions(flat.flatten({s: countryrc.total(s) for s in flat.sites}), _count(flat.size, r))
            kept = np.setdiff1d(chosen, reading)
            removed += len(chosen) - len(kept)
            chosen = kept
        tables.append(flat.table(chosen, value))
    provenance = _provenance(
        "culture-general",
        (neuron, control, countryrc),
        {"t_mlp": t_mlp, "t_attn": t_attn, "r": r},
        paper=(t_mlp, t_attn, r) == (T_MLP, T_ATTN, R) and control is not None and countryrc is not None,
        candidates=candidates,
        removed=removed,
    )
    return NeuronSet(pd.concat(tables), provenance)


def select_culture_specific(
    neuron: NeuronScores,
    control: NeuronScores | None,
    countryrc: NeuronScores | None,
    *,
    countries: Iterable[str] | None = None,
    t: float = T_SPECIFIC,
    r: float = R,
    z: float = Z,
    normalise: Literal["paper", "country"] = "paper",
) -> NeuronSet:
    """Neurons that serve one country's culture, for each country asked for.

    Args:
        neuron, control, countryrc: as in `select_culture_general`.
        countries: by default those of the paper's eight that are scored.
        t: share of all neurons, one pool, that are candidates.
        r: share, highest by the country's CountryRC score, that is removed.
        z: least z of the country's value over the BLEnD countries (population standard deviation).
        normalise: "paper" divides by the number of questions of all countries together, "country" by the country's own:
            unequal counts leak into z otherwise.

    Returns:
        A set with a `country` column; `.for_country("Iran")` is one country's.
    """
    _check(neuron, control, countryrc)
    names = [c for c in neuron.countries if c in COUNTRIES]
    if len(names) < 2:
        raise NeuronError(f"culture-specific neurons need scores of two countries or more; {neuron.task} has {len(names)}")
    if normalise not in ("paper", "country"):
        raise NeuronError(f'unknown normalise {normalise!r}: use "paper" or "country"')
    asked = list(countries) if countries is not None else [c for c in SPECIFIC_COUNTRIES if c in names]
    unknown = [c for c in asked if c not in names]
    if unknown:
        raise NeuronError(f"no scores of {unknown[0]!r}: countries are {', '.join(names)}")
    flat = _pool(neuron, None)

    def values(country: str) -> np.ndarray:
        value = flat.flatten(neuron.of(country)) / _divisor(neuron, country, normalise)
        if control is not None:
            value = value - flat.flatten(control.of(country)) / _divisor(control, country, normalise)
        return value

    mean, square = np.zeros(flat.size), np.zeros(flat.size)
    for country in names:  # one country at a time: 3 million neurons x 16 countries stay under 2 GiB
        mean += values(country) / len(names)
    for country in names:
        square += (values(country) - mean) ** 2
    deviation = np.sqrt(square / len(names))

    tables, candidates, removed = [], 0, 0
    for country in asked:
        value = values(country)
        chosen = top_positions(value, _count(flat.size, t))
        candidates += len(chosen)
        if countryrc is not None and country in countryrc.countries:
            reading = top_positions(flat.flatten(countryrc.of(country)), _count(flat.size, r))
            kept = np.setdiff1d(chosen, reading)
            removed += len(chosen) - len(kept)
            chosen = kept
        # A neuron whose value is the same for every country (deviation 0) is nobody's own.
        chosen = chosen[(value[chosen] - mean[chosen] >= z * deviation[chosen]) & (deviation[chosen] > 0)]
        table = flat.table(chosen, value)
        table.insert(0, "country", country)
        tables.append(table)
    provenance = _provenance(
        "culture-specific",
        (neuron, control, countryrc),
        {"t": t, "r": r, "z": z, "normalise": normalise},
        paper=(t, r, z, normalise) == (T_SPECIFIC, R, Z, "paper") and control is not None and countryrc is not None,
        candidates=candidates,
        removed=removed,
    )
    return NeuronSet(pd.concat(tables), provenance)


def select_random(
    neurons: NeuronSet, scores: NeuronScores, *, seed: int = 0, match: Literal["count", "layer"] = "count"
) -> NeuronSet:
    """As many random neurons from the same pools: what suppressing any neurons of that number does.

    Args:
        neurons: the set to match.
        scores: of the same model; they say which neurons there are.
        seed: each seed is one set; the paper uses 0 to 9.
        match: "count" (paper: as many from the MLP pool and as many from q, k, v) or "layer" (as many in every site and layer).
    """
    if match not in ("count", "layer"):
        raise NeuronError(f'unknown match {match!r}: use "count" or "layer"')
    rng = np.random.default_rng(seed)
    tables = []
    if match == "layer":
        for (site, layer), index in neurons.indices.items():
            if site not in scores.widths or layer >= scores.layers:
                raise NeuronError(f"the set has neurons of {site} in layer {layer}, the scores have none: they are of another model")
            drawn = rng.choice(scores.widths[site], size=len(index), replace=False)
            tables.append(pd.DataFrame({"site": site.value, "layer": layer, "neuron": drawn}))
    else:
        for pool in ("mlp", "attn"):
            flat = _pool(scores, pool)
            count = sum(len(index) for (site, _), index in neurons.indices.items() if site.pool == pool)
            if count > flat.size:
                raise NeuronError(f"{count} neurons of the {pool} pool are asked for, the model has {flat.size}")
            if count:
                tables.append(flat.table(rng.choice(flat.size, size=count, replace=False), np.full(flat.size, np.nan, dtype=np.float32)))
    provenance = _provenance(f"random ({match})", (scores,), {"seed": seed, "matched": neurons.hash}, paper=match == "count")
    empty = pd.DataFrame({"site": [], "layer": [], "neuron": []})
    return NeuronSet(pd.concat(tables) if tables else empty, provenance)


def top_positions(values: np.ndarray, count: int) -> np.ndarray:
    """Sorted positions of the `count` highest values; among equals the lowest positions win.

    Raises `NeuronError` on NaN.
    """
    if np.isnan(values).any():
        raise NeuronError("scores hold NaN: nothing can be selected from them")
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    if count >= len(values):
        return np.arange(len(values))
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > threshold)
    equal = np.flatnonzero(values == threshold)[: count - len(above)]
    return np.sort(np.concatenate([above, equal]))


def _pool(scores: NeuronScores, pool: Pool | None) -> _Flat:
    sites = tuple(s for s in Site if s in scores.widths and pool in (None, s.pool))
    return _Flat(sites, scores.layers, tuple(scores.widths[s] for s in sites))


def _count(size: int, share: float) -> int:
    if not 0 <= share <= 1:
        raise NeuronError(f"a share lies between 0 and 1 (1% is 0.01), not {share}")
    return int(size * share)


def _divisor(scores: NeuronScores, country: str, normalise: str) -> int:
    return scores.clusters if normalise == "paper" else scores.country_clusters[scores.countries.index(country)]


def _check(neuron: NeuronScores, *others: NeuronScores | None) -> None:
    for other in others:
        if other is None:
            continue
        if (other.widths, other.layers) != (neuron.widths, neuron.layers):
            raise NeuronError(f"scores of {neuron.task} and {other.task} are of different models or sites")
        for key in ("model", "revision", "aggregation"):
            mine, theirs = neuron.metadata.get(key), other.metadata.get(key)
            if mine != theirs:
                raise NeuronError(f"scores of {neuron.task} and {other.task} differ in {key}: {mine!r} and {theirs!r}")


def _provenance(
    kind: str,
    scores: Iterable[NeuronScores | None],
    thresholds: Mapping[str, float | str | int],
    *,
    paper: bool,
    candidates: int | None = None,
    removed: int | None = None,
) -> Provenance:
    given = [s for s in scores if s is not None]
    return Provenance(
        kind=kind,
        model=given[0].metadata.get("model"),
        revision=given[0].metadata.get("revision"),
        tasks={s.task: str(s.metadata.get("fingerprint")) for s in given},
        thresholds=thresholds,
        paper_defaults=paper,
        pool={site.value: width for site, width in given[0].widths.items()},
        layers=given[0].layers,
        candidates=candidates,
        removed_by_countryrc=removed,
        version=__version__,
    )
