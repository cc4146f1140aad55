"""Specificity: is a country's neuron its own, or everybody's?

Every country's values D_c = S_c(culture)/N - S_c(control)/N_control form a matrix [country, neuron]. Where
one pattern u v^T explains nearly all of it, all countries use the same neurons, only more or less strongly,
and "the neurons of Iran" says little. Look at the rank-1 share before any claim about one country:
`normalise="country"` takes unequal numbers of questions out, and residual values take out the shared pattern
itself.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import pandas as pd
from jaxtyping import Float

from ..data.neurons import Site
from ..data.pools import NeuronPool, sites_of
from ..data.scores import NO_COUNTRY, NeuronScores
from ..errors import NeuronError
from ..names import which

log = logging.getLogger(__name__)

Normalise = Literal["paper", "country"]
HIGH_SHARE = 0.9
"""A rank-1 share above this deserves a warning."""
_CHUNK = 1 << 17
"""Neurons taken at a time: the matrix is never held whole."""


@dataclass(frozen=True)
class SharedPattern:
    """The one pattern that explains most of the country x neuron matrix."""

    share: float
    """Rank-1 share, 0 to 1: the first squared singular value over the sum of all."""
    weights: Mapping[str, float]
    """First left singular vector: how strongly each country shows the pattern (of length 1, its sum
    positive)."""
    normalise: Normalise

    def values(
        self, scores: NeuronScores, control: NeuronScores | None, pool: NeuronPool
    ) -> Float[np.ndarray, " pool"]:
        """The pattern over the pool's neurons, in float32; country c's part of it is ``weights[c] *
        values``."""
        out = np.zeros(pool.size, dtype=np.float32)
        for country, weight in self.weights.items():
            out += np.float32(weight / divisor(scores, country, self.normalise)) * pool.of_country(
                scores, country
            )
            if control is not None:
                out -= np.float32(weight / divisor(control, country, self.normalise)) * pool.of_country(
                    control, country
                )
        return out

    def warn(self) -> None:
        """Logs the share, as a warning where one pattern is nearly all there is."""
        said = f"one pattern shared by all countries explains {self.share:.1%} of the country x neuron matrix"
        if self.share > HIGH_SHARE:
            log.warning(
                "%s: culture-specific neurons differ little between countries; "
                'compare with normalise="country" and residual=True',
                said,
            )
        else:
            log.info("%s", said)

    def __str__(self) -> str:
        lead = max(self.weights, key=lambda c: self.weights[c])
        return f"rank-1 share {self.share:.3f} over {len(self.weights)} countries, strongest in {lead}"


def shared_pattern(
    scores: NeuronScores,
    control: NeuronScores | None = None,
    *,
    normalise: Normalise = "paper",
    sites: Iterable[Site | str] | None = None,
    countries: Sequence[str] | None = None,
) -> SharedPattern:
    """The rank-1 share of the country x neuron matrix, and each country's weight in it.

    The matrix is not centred: what is looked for is a pattern that all countries have in common.

    Args:
        scores, control, sites: as in `select_specific`.
        normalise: "paper" divides by the questions of all countries together, "country" by the country's own.
        countries: the rows; by default all that are scored.

    Raises:
        NeuronError: scores without countries, a country that is not scored, or an unknown normalisation.
    """
    if normalise not in get_args(Normalise):
        raise NeuronError(f'unknown normalise {normalise!r}: use "paper" or "country"')
    pool = NeuronPool.of_scores(scores, sites_of(scores, sites))
    names = [c for c in scores.countries if c != NO_COUNTRY] if countries is None else list(countries)
    if not names:
        raise NeuronError(f"{scores.task} has no scores by country")
    if unknown := [c for c in names if c not in scores.countries]:
        raise NeuronError(
            f"no scores of {unknown[0]!r}{which(unknown[0], scores.countries, 'the countries are')}"
        )

    def scaled(some: NeuronScores) -> tuple[list[int], np.ndarray]:
        factors = [1 / divisor(some, c, normalise) for c in names]
        return [some.countries.index(c) for c in names], np.array(factors, dtype=np.float32)[:, None]

    gram = np.zeros((len(names), len(names)))
    rows, factors = scaled(scores)
    other_rows, other_factors = scaled(control) if control is not None else ([], factors)
    for site in pool.sites:
        mine = scores.arrays[site].reshape(len(scores.countries), -1)
        other = None if control is None else control.arrays[site].reshape(len(control.countries), -1)
        for start in range(0, mine.shape[1], _CHUNK):
            part = mine[rows, start : start + _CHUNK] * factors
            if other is not None:
                part -= other[other_rows, start : start + _CHUNK] * other_factors
            gram += part @ part.T
    power, vectors = np.linalg.eigh(gram)  # ascending
    lead = vectors[:, -1] * (1 if vectors[:, -1].sum() >= 0 else -1)
    total = power.clip(min=0).sum()
    share = float(power[-1] / total) if total > 0 else 0.0
    return SharedPattern(share, {c: float(w) for c, w in zip(names, lead)}, normalise)


def residual_scores(
    scores: NeuronScores,
    control: NeuronScores | None = None,
    *,
    normalise: Normalise = "paper",
    sites: Iterable[Site | str] | None = None,
) -> dict[str, dict[Site, Float[np.ndarray, "layer neuron"]]]:
    """Country -> site -> values per question, without the pattern that all countries share."""
    pattern = shared_pattern(scores, control, normalise=normalise, sites=sites)
    pool = NeuronPool.of_scores(scores, sites_of(scores, sites))
    shared = pattern.values(scores, control, pool)
    out = {}
    for country, weight in pattern.weights.items():
        values = per_question(scores, control, pool, country, normalise)
        values -= np.float32(weight) * shared
        out[country] = pool.grids(values)
    return out


def diagnose(
    scores: NeuronScores,
    control: NeuronScores | None = None,
    *,
    sites: Iterable[Site | str] | None = None,
) -> pd.DataFrame:
    """What to look at before any claim about one country; a rank-1 share above 0.9 is logged as a warning.

    Returns:
        A row per normalisation: rank1_share, strongest and weakest (country), countries (their number).
    """
    rows = {}
    for normalise in get_args(Normalise):
        pattern = shared_pattern(scores, control, normalise=normalise, sites=sites)
        pattern.warn()
        order = sorted(pattern.weights, key=lambda c: pattern.weights[c])
        rows[normalise] = {
            "rank1_share": pattern.share,
            "strongest": order[-1],
            "weakest": order[0],
            "countries": len(order),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("normalise")


def per_question(
    scores: NeuronScores, control: NeuronScores | None, pool: NeuronPool, country: str, normalise: Normalise
) -> Float[np.ndarray, " pool"]:
    """One country's D_c: its scores per question, less those of the control; in float32."""
    values = pool.of_country(scores, country) / np.float32(divisor(scores, country, normalise))
    if control is not None:
        values -= pool.of_country(control, country) / np.float32(divisor(control, country, normalise))
    return values


def divisor(scores: NeuronScores, country: str, normalise: Normalise) -> int:
    """The number of questions that a country's sum is divided by."""
    if normalise == "paper":
        return scores.clusters
    return scores.country_clusters[scores.countries.index(country)]
