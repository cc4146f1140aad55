"""Contrast: which of the neurons that score high on culture serve culture, and not answering at all?

With G of `selection`, and for each task t without culture

    K_t = sum over c of S_c(t) / N_t

both over the neurons of one pool, z(v) = (v - mean of v) / standard deviation of v, and r(v) a neuron's rank
in the pool divided by the pool's size (equal values share their mean rank):

    filter      G, of the neurons with z(K_t) <= k for every t
    subtract    z(G) - max over t of z(K_t)
    ranks       r(G) - max over t of r(K_t)

Filtering is what the paper does with reading comprehension, moved in front of the cut: the set keeps its
size. Subtracting trusts both scores to the same scale, ranks to none. The largest over the tasks is taken, so
that a neuron is as bad as the task that it serves most.

Cost: one scoring pass of each task without culture; none at selection.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

from ..data.pools import NeuronPool
from ..data.scores import NeuronScores
from ..defaults import CONTRAST_OVER
from ..errors import NeuronError

Way = Literal["filter", "subtract", "ranks"]


@dataclass(frozen=True)
class Contrast:
    """Scores of tasks without culture, and what is done with them."""

    scores: tuple[NeuronScores, ...]
    way: Way = "filter"
    over: float = CONTRAST_OVER
    """k of the filter."""

    @classmethod
    def of(
        cls,
        scores: NeuronScores | Iterable[NeuronScores] | None,
        way: Way = "filter",
        over: float = CONTRAST_OVER,
    ) -> Contrast | None:
        """None where there are no scores. Raises `NeuronError` for an unknown way, or a k that is no
        number."""
        if way not in get_args(Way):
            raise NeuronError(f"unknown contrast {way!r}: use {', '.join(get_args(Way))}")
        if not np.isfinite(over):
            raise NeuronError(
                f"a contrast leaves out what is over a number of standard deviations, not {over}"
            )
        given = () if scores is None else (scores,) if isinstance(scores, NeuronScores) else tuple(scores)
        return cls(given, way, float(over)) if given else None

    @property
    def thresholds(self) -> Mapping[str, Any]:
        """What a set's provenance says of it."""
        return {"contrast": self.way, **({"contrast_over": self.over} if self.way == "filter" else {})}

    def apply(
        self, values: Float[np.ndarray, " pool"], pool: NeuronPool
    ) -> tuple[Float[np.ndarray, " pool"], Bool[np.ndarray, " pool"]]:
        """(what the pool is ranked by, which neurons may be chosen).

        Args:
            values: G of the pool's neurons.

        Raises `NeuronError` where scores hold NaN.
        """
        if not pool.size:
            return values, np.ones(0, dtype=bool)
        others = [pool.total(scores) / scores.clusters for scores in self.scores]
        if any(np.isnan(other).any() for other in others):
            raise NeuronError("scores to contrast with hold NaN: score the task again")
        if self.way == "filter":
            return values, np.all([spread(other) <= self.over for other in others], axis=0)
        scaled = spread if self.way == "subtract" else _rank
        worst = np.max([scaled(other) for other in others], axis=0)
        return scaled(values) - worst, np.ones(len(values), dtype=bool)


def spread(values: Float[np.ndarray, " pool"]) -> Float[np.ndarray, " pool"]:
    """z: mean 0, standard deviation (of the population) 1; 0 where all are equal."""
    apart = values - values.mean()
    deviation = values.std()
    return apart / deviation if deviation > 0 else np.zeros_like(apart)


def _rank(values: Float[np.ndarray, " pool"]) -> Float[np.ndarray, " pool"]:
    return rankdata(values) / len(values)
