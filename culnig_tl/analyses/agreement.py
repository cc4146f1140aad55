"""How true an attribution is: its scores against the exact effect of zeroing each neuron."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float
from scipy import stats

from ..data.neurons import Site
from ..data.pools import share_count
from ..data.scores import NeuronScores
from ..errors import ScoreError
from ..method.exact import ExactEffects

ALL = "all"
"""In a table: all sites together, or all layers."""
TOP_SHARES: tuple[float, ...] = (0.01, 0.05)
"""Shares of the neurons, highest by score, whose precision is told."""


def agreement(scores: Mapping[str, NeuronScores], effects: ExactEffects) -> pd.DataFrame:
    """Each method's scores, summed over the countries, against the mean exact drop of P(answer), neuron by neuron.

    Args:
        scores: method -> scores, best of the same questions as the effects.
        effects: of all neurons, or of a sample of them: then precision is that within the sample.

    Returns:
        One row a (method, site, layer), "all" for all sites or layers together: neurons, spearman, pearson, and precision_1 and precision_5, the
        share of the neurons in the top 1% (5%) by score that are in the top 1% (5%) by effect. NaN where nothing can be said: equal
        scores, or fewer neurons than make one in the top share. Sites that a method does not score are left out, also of "all".

    Raises:
        ScoreError: scores of another model.
    """
    table = effects.neurons.table
    rows = []
    for method, given in scores.items():
        known, exact = given.metadata.get("revision"), effects.neurons.provenance.revision
        if known != exact:
            raise ScoreError(
                f"scores of {method!r} and exact effects are of different models: revision {known!r} and {exact!r}"
            )
        scored = table["site"].isin([site.value for site in given.sites]).to_numpy()
        here = table.loc[scored]
        values = scores_of(given, here)
        truth = effects.mean[scored]
        sites = list(dict.fromkeys(here["site"]))
        for site in [ALL, *sites] if len(sites) > 1 else sites:
            at = np.full(len(here), True) if site == ALL else (here["site"] == site).to_numpy()
            for layer in (ALL, *sorted(set(here["layer"][at]))):
                both = at if layer == ALL else at & (here["layer"] == layer).to_numpy()
                rows.append((method, site, layer, int(both.sum()), *agree(values[both], truth[both])))
    columns = [
        "method",
        "site",
        "layer",
        "neurons",
        "spearman",
        "pearson",
        *(f"precision_{100 * share:g}" for share in TOP_SHARES),
    ]
    return pd.DataFrame(rows, columns=columns)


def scores_of(scores: NeuronScores, neurons: pd.DataFrame) -> Float[np.ndarray, " neuron"]:
    """The scores of some neurons (columns site, layer, neuron), summed over the countries."""
    values = np.empty(len(neurons))
    for name in neurons["site"].unique():
        at = (neurons["site"] == name).to_numpy()
        values[at] = scores.total(Site(name))[neurons["layer"][at], neurons["neuron"][at]]
    return values


def agree(values: Float[np.ndarray, " neuron"], truth: Float[np.ndarray, " neuron"]) -> tuple[float, ...]:
    """(Spearman, Pearson, precision in the top shares)."""
    if np.ptp(values) == 0 or np.ptp(truth) == 0:  # nothing is ranked above anything
        return (float("nan"),) * (2 + len(TOP_SHARES))
    correlations: list[Any] = [stats.spearmanr(values, truth)[0], stats.pearsonr(values, truth)[0]]
    return (*map(float, correlations), *(precision(values, truth, share) for share in TOP_SHARES))


def precision(
    values: Sequence[float] | np.ndarray, truth: Sequence[float] | np.ndarray, share: float
) -> float:
    """Of the top share by value, the part that is in the top share of the truth; NaN where the share is of less than one neuron.

    Ties go to the earlier neuron.
    """
    count = share_count(len(values), share)
    if not count:
        return float("nan")
    best, true = (np.argsort(-np.asarray(v), kind="stable")[:count] for v in (values, truth))
    return len(np.intersect1d(best, true)) / count
