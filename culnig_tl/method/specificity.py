"""Specificity: is a country's neuron its own, or everybody's?

Every country's values D_c = S_c(neuron)/N - S_c(control)/N_control form a matrix [country, neuron]. Where one pattern u v^T
explains nearly all of it, all countries use the same neurons in different strength, and "the neurons of Iran" says little.
Look at the rank-1 share before any claim about one country; `normalise="country"` takes unequal question counts out, and
residual values take the shared pattern itself out.
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

log = logging.getLogger(__name__)

Normalise = Literal["paper", "country"]
HIGH_SHARE = 0.9
"""Above this rank-1 share a warning is due."""
_CHUNK = 1 << 17
"""Neurons taken together: the matrix is never held whole."""


@dataclass(frozen=True)
class SharedPattern:
    """The one pattern that explains most of the country x neuron matrix."""

    share: float
    """Rank-1 share: first squared singular value over the sum of all, 0..1."""
    weights: Mapping[str, float]
    """First left singular vector: how strongly each country shows the pattern (unit length, the sum is positive)."""
    normalise: Normalise

    def values(
        self, neuron: NeuronScores, control: NeuronScores | None, pool: NeuronPool
    ) -> Float[np.ndarray, " pool"]:
        """The pattern over the pool's neurons, scaled so that ``weights[c] * values`` is its share in country c. float32."""
        out = np.zeros(pool.size, dtype=np.float32)
        for country, weight in self.weights.items():
            out += np.float32(weight / divisor(neuron, country, self.normalise)) * pool.of_country(
                neuron, country
            )
            if control is not None:
                out -= np.float32(weight / divisor(control, country, self.normalise)) * pool.of_country(
                    control, country
                )
        return out

    def warn(self) -> None:
        """Logs the share; as a warning where one pattern is nearly all there is."""
        if self.share > HIGH_SHARE:
            log.warning(
                "one pattern shared by all countries explains %.1f%% of the country x neuron matrix: culture-specific neurons differ "
                'little between countries; compare with normalise="country" and residual=True',
                100 * self.share,
            )
        else:
            log.info(
                "one pattern shared by all countries explains %.1f%% of the country x neuron matrix",
                100 * self.share,
            )

    def __str__(self) -> str:
        lead = max(self.weights, key=lambda c: self.weights[c])
        return f"rank-1 share {self.share:.3f} over {len(self.weights)} countries, strongest in {lead}"


def shared_pattern(
    neuron: NeuronScores,
    control: NeuronScores | None = None,
    *,
    normalise: Normalise = "paper",
    sites: Iterable[Site | str] | None = None,
    countries: Sequence[str] | None = None,
) -> SharedPattern:
    """The rank-1 share of the country x neuron matrix, and each country's weight in it.

    The matrix is not centred: a pattern that all countries have alike is what is looked for.

    Args:
        neuron, control: scores, as in `select_specific`.
        normalise: "paper" divides by all countries' questions together, "country" by the country's own.
        countries: which rows; all that are scored by default.
    """
    check_normalise(normalise)
    pool = NeuronPool.of_scores(neuron, sites_of(neuron, sites))
    names = list(countries) if countries is not None else [c for c in neuron.countries if c != NO_COUNTRY]
    if not names or any(c not in neuron.countries for c in names):
        raise NeuronError(
            f"{neuron.task} has no scores by country"
            if not names
            else f"no scores of some of {', '.join(names)}"
        )

    def scaled(scores: NeuronScores) -> tuple[list[int], np.ndarray]:
        factors = [1 / divisor(scores, c, normalise) for c in names]
        return [scores.countries.index(c) for c in names], np.array(factors, dtype=np.float32)[:, None]

    gram = np.zeros((len(names), len(names)))
    rows, factors = scaled(neuron)
    other_rows, other_factors = scaled(control) if control is not None else ([], factors)
    for site in pool.sites:
        mine = neuron.arrays[site].reshape(len(neuron.countries), -1)
        other = None if control is None else control.arrays[site].reshape(len(control.countries), -1)
        for start in range(0, mine.shape[1], _CHUNK):
            part = mine[rows, start : start + _CHUNK] * factors
            if other is not None:
                part -= other[other_rows, start : start + _CHUNK] * other_factors
            gram += part @ part.T
    power, vectors = np.linalg.eigh(gram)  # ascending
    lead = vectors[:, -1] * (1 if vectors[:, -1].sum() >= 0 else -1)
    total = power.clip(min=0).sum()
    return SharedPattern(
        float(power[-1] / total) if total > 0 else 0.0, {c: float(w) for c, w in zip(names, lead)}, normalise
    )


def residual_scores(
    neuron: NeuronScores,
    control: NeuronScores | None = None,
    *,
    normalise: Normalise = "paper",
    sites: Iterable[Site | str] | None = None,
) -> dict[str, dict[Site, Float[np.ndarray, "layer neuron"]]]:
    """Country -> site -> values a question without the pattern that all countries share."""
    pattern = shared_pattern(neuron, control, normalise=normalise, sites=sites)
    pool = NeuronPool.of_scores(neuron, sites_of(neuron, sites))
    common = pattern.values(neuron, control, pool)
    ends = np.cumsum([pool.layers * width for width in pool.widths])[:-1]
    out = {}
    for country, weight in pattern.weights.items():
        values = pool.of_country(neuron, country) / np.float32(divisor(neuron, country, normalise))
        if control is not None:
            values -= pool.of_country(control, country) / np.float32(divisor(control, country, normalise))
        values -= np.float32(weight) * common
        out[country] = {
            site: part.reshape(pool.layers, -1) for site, part in zip(pool.sites, np.split(values, ends))
        }
    return out


def diagnose(
    neuron: NeuronScores, control: NeuronScores | None = None, *, sites: Iterable[Site | str] | None = None
) -> pd.DataFrame:
    """What to look at before a claim about one country: a row a normalisation, columns rank-1 share, strongest and weakest country.

    Logs a warning where a share is above 0.9.
    """
    rows = {}
    for normalise in get_args(Normalise):
        pattern = shared_pattern(neuron, control, normalise=normalise, sites=sites)
        pattern.warn()
        order = sorted(pattern.weights, key=lambda c: pattern.weights[c])
        rows[normalise] = {
            "rank1_share": pattern.share,
            "strongest": order[-1],
            "weakest": order[0],
            "countries": len(order),
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("normalise")


def divisor(scores: NeuronScores, country: str, normalise: Normalise) -> int:
    """Number of questions that a country's sum is divided by."""
    return (
        scores.clusters if normalise == "paper" else scores.country_clusters[scores.countries.index(country)]
    )


def check_normalise(normalise: str) -> None:
    """Raises `NeuronError` for an unknown normalisation."""
    if normalise not in get_args(Normalise):
        raise NeuronError(f'unknown normalise {normalise!r}: use "paper" or "country"')
