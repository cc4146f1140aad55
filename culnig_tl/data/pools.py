"""Pools: a model's neurons in one row, so that they can be ranked together.

Neurons are in the order site, layer, index. Positions in that order decide ties, so that a selection is the
same on every machine.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ..errors import NeuronError
from .neurons import SITES, Pool, Site
from .scores import NeuronScores

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NeuronPool:
    """The neurons of some sites of one model."""

    sites: tuple[Site, ...]
    layers: int
    widths: tuple[int, ...]
    """Neurons per layer of each site; of layers that differ, the largest number."""
    real: Int[np.ndarray, " pool"] | None = None
    """Where layers differ: the places [site, layer, neuron] of the neurons that there are."""

    @classmethod
    def of_scores(cls, scores: NeuronScores, sites: Iterable[Site], pool: Pool | None = None) -> NeuronPool:
        """The neurons of `sites`, of one pool or (None) of both together."""
        chosen = tuple(site for site in Site if site in set(sites) and pool in (None, site.pool))
        widths = tuple(scores.widths[site] for site in chosen)
        if not any(site.value in scores.metadata.get("by_layer", {}) for site in chosen):
            return cls(chosen, scores.layers, widths)
        there = [
            np.arange(width) < scores.width(site, layer)
            for site, width in zip(chosen, widths)
            for layer in range(scores.layers)
        ]
        return cls(chosen, scores.layers, widths, np.flatnonzero(np.concatenate(there)))

    @property
    def size(self) -> int:
        return self.layers * sum(self.widths) if self.real is None else len(self.real)

    def grids(self, values: Float[np.ndarray, " pool"]) -> dict[Site, Float[np.ndarray, "layer neuron"]]:
        """Values of the pool's neurons by site; 0 where there is no neuron."""
        if self.real is not None:
            full = np.zeros(self.layers * sum(self.widths), dtype=values.dtype)
            full[self.real] = values
            values = full
        parts = np.split(values, np.cumsum([self.layers * width for width in self.widths])[:-1])
        return {site: part.reshape(self.layers, -1) for site, part in zip(self.sites, parts)}

    def total(self, scores: NeuronScores) -> Float[np.ndarray, " pool"]:
        """Scores summed over the countries, float64."""
        out = np.zeros(self.layers * sum(self.widths))
        for place, array in self._parts(scores):
            for country in array:  # row by row; a sum over the first axis would read 3 million columns
                out[place] += country
        return out if self.real is None else out[self.real]

    def of_country(self, scores: NeuronScores, country: str) -> Float[np.ndarray, " pool"]:
        """One country's scores, float32."""
        row = scores.countries.index(country)
        values = np.concatenate([array[row] for _, array in self._parts(scores)])
        return values if self.real is None else values[self.real]

    def at(
        self, scores: NeuronScores, positions: Int[np.ndarray, " chosen"]
    ) -> Float[np.ndarray, "country chosen"]:
        """All countries' scores at some positions, float64."""
        out = np.empty((len(scores.countries), len(positions)))
        positions = self._places(positions)
        for place, array in self._parts(scores):
            here = (positions >= place.start) & (positions < place.stop)
            out[:, here] = array[:, positions[here] - place.start]
        return out

    def table(
        self, positions: Int[np.ndarray, " chosen"], values: Float[np.ndarray, " pool"] | None = None
    ) -> pd.DataFrame:
        """Rows (site, layer, neuron, score) of positions in the pool; scores are NaN without `values`."""
        starts = np.concatenate([[0], np.cumsum([self.layers * width for width in self.widths])])
        places = self._places(positions)
        which = np.searchsorted(starts, places, side="right") - 1
        within = places - starts[which]
        width = np.asarray(self.widths)[which]
        names = np.array([site.value for site in self.sites], dtype=object)
        score = np.full(len(positions), np.nan) if values is None else values[positions]
        return pd.DataFrame(
            {"site": names[which], "layer": within // width, "neuron": within % width, "score": score}
        )

    def _places(self, positions: Int[np.ndarray, " chosen"]) -> Int[np.ndarray, " chosen"]:
        return positions if self.real is None else self.real[positions]

    def _parts(self, scores: NeuronScores) -> list[tuple[slice, np.ndarray]]:
        """(place in the pool, [country, neuron of the site]) of each site."""
        parts: list[tuple[slice, np.ndarray]] = []
        start = 0
        for site in self.sites:
            array = scores.arrays[site].reshape(len(scores.countries), -1)
            parts.append((slice(start, start + array.shape[1]), array))
            start += array.shape[1]
        return parts


def sites_of(scores: NeuronScores, sites: Iterable[Site | str] | None) -> tuple[Site, ...]:
    """The sites to select from: those asked for, or the paper's four as far as they are scored.

    Raises `NeuronError` naming a site that is not scored, because the model has none or it was left out of
    the scoring.
    """
    if sites is None:
        found = tuple(site for site in SITES if site in scores.widths)
        if not found:
            raise NeuronError(
                f"none of the sites {', '.join(SITES)} is scored: "
                f"name one of {', '.join(scores.widths)} with sites=..."
            )
        missing = [site for site in SITES if site not in scores.widths]
        if missing:
            log.warning("%s is not scored: the selection is made without it", ", ".join(missing))
        return found
    asked = {Site.parse(site) for site in sites}
    missing = [site for site in Site if site in asked and site not in scores.widths]
    if missing or not asked:
        lacking = f"no scores of {missing[0]}" if missing else "no site to select from is named"
        raise NeuronError(f"{lacking}: sites scored are {', '.join(scores.widths)}")
    return tuple(site for site in Site if site in asked)


def share_count(size: int, share: float) -> int:
    """int(size * share), as in the paper. Raises `NeuronError` for a share that is not between 0 and 1."""
    if not 0 <= share <= 1:
        raise NeuronError(f"a share lies between 0 and 1 (1% is 0.01), not {share}")
    return int(size * share)


def ranked(values: Float[np.ndarray, " pool"], count: int) -> Int[np.ndarray, " chosen"]:
    """Positions of the `count` highest values, the highest first; of equal values the lower position first.

    Raises `NeuronError` if there is a NaN.
    """
    if np.isnan(values).any():
        raise NeuronError("scores hold NaN: nothing can be selected from them; score the task again")
    count = min(count, len(values))
    if count <= 0:
        return np.empty(0, dtype=np.int64)
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    above = np.flatnonzero(values > threshold)
    equal = np.flatnonzero(values == threshold)[: count - len(above)]
    chosen = np.concatenate([above, equal])
    return chosen[np.lexsort((chosen, -values[chosen]))]
