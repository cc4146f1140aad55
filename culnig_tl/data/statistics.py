"""Statistics over clusters: rows on the same underlying question are not independent, so clusters are resampled, not rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import stats

from ..errors import ScoreError

DRAWS = 10_000
"""Of a bootstrap or permutation test."""
_CELLS = 4_000_000
"""Clusters x draws that a bootstrap holds at once."""


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
    """One-sided: share of draws in which the set does not cost more than the random sets do on average; NaN for a single cluster."""
    rank: int
    """1 where no random set costs as much as the set."""
    random_sets: int

    @property
    def p_rank(self) -> float:
        """One-sided permutation p: rank / (random sets + 1). With ten random sets it cannot fall below 1/11."""
        return self.rank / (self.random_sets + 1)


def compare_drops(
    base: np.ndarray,
    ablated: np.ndarray,
    random: Sequence[np.ndarray],
    clusters: np.ndarray,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Drop:
    """Paired cluster bootstrap of "suppressing the set costs more than suppressing random sets".

    Args:
        base, ablated: [question] right (1) or wrong (0), the same questions in the same order.
        random: the same for each random set; at least one.
        clusters: [question] name of the underlying question.
    """
    if not random:
        raise ScoreError("at least one random set is needed to compare with")
    if not len(base):
        raise ScoreError("there is no question to compare on")
    if any(len(values) != len(base) for values in (ablated, clusters, *random)):
        raise ScoreError("results to compare must be of the same questions in the same order")
    _, code = np.unique(clusters.astype(str), return_inverse=True)

    def per_cluster(values: np.ndarray) -> np.ndarray:
        return np.bincount(code, weights=values.astype(float))

    sizes = np.bincount(code).astype(float)
    lost = per_cluster(base.astype(float) - ablated)
    lost_random = np.stack([per_cluster(base.astype(float) - values) for values in random])  # [set, cluster]
    random_drops = 100 * lost_random.sum(1) / sizes.sum()
    drop = 100 * lost.sum() / sizes.sum()

    def points(lost: np.ndarray, mean_random: np.ndarray, sizes: np.ndarray, axis: int = -1) -> np.ndarray:
        """Drop, and drop beyond the random sets', of one or many draws of clusters."""
        asked = sizes.sum(axis=axis)
        return 100 * np.stack([lost.sum(axis=axis) / asked, (lost - mean_random).sum(axis=axis) / asked])

    drops, excesses = bootstrap_draws((lost, lost_random.mean(0), sizes), points, draws=draws, seed=seed)
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
        p_bootstrap=float((1 + (excesses <= 0).sum()) / (draws + 1)) if len(sizes) > 1 else float("nan"),
        rank=1 + int((random_drops >= drop - 1e-12).sum()),
        random_sets=len(random),
    )


def bootstrap_draws(
    data: Sequence[Float[np.ndarray, " cluster"]],
    statistic: Callable[..., np.ndarray],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Float[np.ndarray, "value draw"]:
    """What `statistic(*data, axis=-1)` gives on resamples of the clusters, the same clusters for all of `data` (SciPy's paired bootstrap).

    NaN for a single cluster, which cannot be resampled.
    """
    clusters = len(data[0])
    if clusters < 2:
        return np.full((len(statistic(*data)), draws), np.nan)
    result = stats.bootstrap(
        tuple(data),
        statistic,
        paired=True,
        vectorized=True,
        n_resamples=draws,
        batch=max(1, _CELLS // clusters),
        method="percentile",
        random_state=np.random.default_rng(seed),  # pyright: ignore[reportCallIssue] - `rng` since SciPy 1.15, both work
    )
    return result.bootstrap_distribution


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values corrected for being several (Holm 1979): step-down, in the order they came; NaN stays and is not counted."""
    p = np.asarray(p_values, dtype=float)
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return out


@dataclass(frozen=True)
class RelatedTest:
    """Do related countries lose more under a country's set than unrelated ones?"""

    related: float
    """Mean drop over pairs (set's country, other country) that are related, points."""
    unrelated: float
    p: float
    """One-sided permutation p: the countries' places in the relation shuffled."""
    pairs: int
    """Related pairs, the country itself left out."""

    @property
    def difference(self) -> float:
        """related - unrelated, points."""
        return self.related - self.unrelated


def related_test(
    drops: Float[np.ndarray, "own asked"],
    own: np.ndarray,
    groups: Sequence[str | None],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> RelatedTest:
    """Permutation test of "related countries drop more": a country's group goes to another country, as in a Mantel test.

    Args:
        drops: what each country's set costs each country that was asked about, points.
        own: column of each row's own country; -1 where it was not asked about. Own cells take no part.
        groups: each asked country's group; None is related to nobody.

    Raises:
        ScoreError: no pair, or every pair, is related.
    """
    asked = drops.shape[1]
    code = np.array(
        [
            -1 - i if group is None else sorted({g for g in groups if g is not None}).index(group)
            for i, group in enumerate(groups)
        ]
    )
    rows = np.flatnonzero(own >= 0)
    other = np.arange(asked)[None, :] != own[rows, None]
    cells = drops[rows]

    def difference(places: np.ndarray, axis: int = -1) -> np.ndarray:
        """Related minus unrelated, with the groups dealt out by `places`, one row a permutation."""
        dealt = code[np.atleast_2d(places).astype(int)]  # [draw, asked]
        related = (dealt[:, own[rows], None] == dealt[:, None, :]) & other
        n = related.sum((1, 2))
        total = (cells * related).sum((1, 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            return total / n - ((cells * other).sum() - total) / (other.sum() - n)

    here = (code[own[rows], None] == code[None, :]) & other
    if not here.any() or here.sum() == other.sum():
        raise ScoreError(
            f"{'no' if not here.any() else 'every'} pair of these countries is related: there is nothing to compare"
        )
    result = stats.permutation_test(
        (np.arange(asked),),
        difference,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=draws,
        batch=max(1, _CELLS // (asked * asked)),
        alternative="greater",
        random_state=np.random.default_rng(seed),  # pyright: ignore[reportCallIssue] - `rng` since SciPy 1.15, both work
    )
    return RelatedTest(
        float(cells[here].mean()), float(cells[other & ~here].mean()), float(result.pvalue), int(here.sum())
    )


def own_test(
    ranks: Float[np.ndarray, "own asked"], own: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> float:
    """One-sided permutation p of "a country's own rank is low" (1 loses most): the sets' countries are dealt out anew among those asked.

    Args:
        ranks: of every asked country under every country's set.
        own: column of each row's own country; -1 where it was not asked about.
    """
    rows = np.flatnonzero(own >= 0)

    def mean_rank(places: np.ndarray, axis: int = -1) -> np.ndarray:
        """Mean own rank with the columns dealt out by `places`, one row a permutation."""
        dealt = np.atleast_2d(places).astype(int)[:, own[rows]]  # [draw, row]
        return ranks[rows[None, :], dealt].mean(axis=-1)

    result = stats.permutation_test(
        (np.arange(ranks.shape[1]),),
        mean_rank,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=draws,
        batch=max(1, _CELLS // ranks.size),
        alternative="less",
        random_state=np.random.default_rng(seed),  # pyright: ignore[reportCallIssue] - `rng` since SciPy 1.15, both work
    )
    return float(result.pvalue)
