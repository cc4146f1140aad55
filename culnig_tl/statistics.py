"""Statistics over clusters: rows on the same underlying question are not independent, so clusters are resampled, not rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .errors import ScoreError

DRAWS = 10_000


def clustered_mean(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float, int]:
    """(mean, standard error, number of clusters): the linearised (sandwich) error of a mean of clustered rows.

    The error is NaN for a single cluster. Liang and Zeger (1986), with the small-sample factor G / (G - 1).
    """
    _, code = np.unique(clusters.astype(str), return_inverse=True)
    groups = int(code.max()) + 1
    mean = float(values.mean())
    if groups < 2:
        return mean, float("nan"), groups
    residual = np.bincount(code, weights=values - mean, minlength=groups)
    error = float(np.sqrt((residual**2).sum() * groups / (groups - 1)) / len(values))
    return mean, error, groups


@dataclass(frozen=True)
class Drop:
    """By how much a set of neurons lowers accuracy on a task, against random sets of the same size. In points."""

    base: float
    """Accuracy of the unchanged model, percent."""
    drop: float
    """base minus accuracy with the set suppressed."""
    low: float
    high: float
    """95% interval of `drop`, clusters resampled."""
    random_mean: float
    """Mean drop over the random sets."""
    random_sd: float
    excess: float
    """drop - random_mean."""
    excess_low: float
    excess_high: float
    """95% interval of `excess`, clusters resampled, the same clusters for all settings."""
    p_bootstrap: float
    """One-sided: share of draws in which the set does not cost more than the random sets do on average."""
    rank: int
    """1 where no random set costs as much as the set."""
    random_sets: int

    @property
    def p_rank(self) -> float:
        """One-sided permutation p: rank / (random sets + 1). With ten random sets it cannot fall below 1/11."""
        return self.rank / (self.random_sets + 1)


def compare_drops(
    base: np.ndarray, ablated: np.ndarray, random: Sequence[np.ndarray], clusters: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> Drop:
    """Paired cluster bootstrap of "suppressing the set costs more than suppressing random sets".

    Args:
        base, ablated: [question] right (1) or wrong (0), the same questions in the same order.
        random: the same for each random set; at least one.
        clusters: [question] name of the underlying question.
    """
    if not random:
        raise ScoreError("at least one random set is needed to compare with")
    if any(len(values) != len(base) for values in (ablated, clusters, *random)):
        raise ScoreError("results to compare must be of the same questions in the same order")
    _, code = np.unique(clusters.astype(str), return_inverse=True)
    groups = int(code.max()) + 1
    sizes = np.bincount(code, minlength=groups).astype(float)

    def per_cluster(values: np.ndarray) -> np.ndarray:
        return np.bincount(code, weights=values.astype(float), minlength=groups)

    lost = per_cluster(base.astype(float) - ablated)
    lost_random = np.stack([per_cluster(base.astype(float) - values) for values in random])  # [set, cluster]
    excess = lost - lost_random.mean(0)

    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(groups, np.full(groups, 1 / groups), size=draws).astype(float)  # [draw, cluster]
    asked = drawn @ sizes
    drops, excesses = 100 * (drawn @ lost) / asked, 100 * (drawn @ excess) / asked
    n = sizes.sum()
    random_drops = 100 * lost_random.sum(1) / n
    drop = 100 * lost.sum() / n
    low, high = np.percentile(drops, [2.5, 97.5])
    excess_low, excess_high = np.percentile(excesses, [2.5, 97.5])
    return Drop(
        base=100 * float(np.mean(base)),
        drop=float(drop),
        low=float(low),
        high=float(high),
        random_mean=float(random_drops.mean()),
        random_sd=float(random_drops.std(ddof=1)) if len(random) > 1 else float("nan"),
        excess=float(drop - random_drops.mean()),
        excess_low=float(excess_low),
        excess_high=float(excess_high),
        p_bootstrap=float((1 + (excesses <= 0).sum()) / (draws + 1)),
        rank=1 + int((random_drops >= drop - 1e-12).sum()),
        random_sets=len(random),
    )
