"""Statistics over clusters of rows.

Rows that go back to the same underlying question are not independent, so clusters are resampled, not rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from jaxtyping import Float
from scipy import stats

from ..errors import ScoreError

DRAWS = 10_000
"""Draws of a bootstrap or permutation test."""
_CELLS = 4_000_000
"""Most clusters x draws that are in memory at once."""


def clustered_mean(values: np.ndarray, clusters: np.ndarray) -> tuple[float, float, int]:
    """(mean, its standard error, number of clusters) of clustered rows.

    The error is the linearised (sandwich) one of Liang and Zeger (1986), with the factor G / (G - 1)
    for small samples; NaN for a single cluster.

    Args:
        values: [row].
        clusters: [row] name of the cluster.
    """
    _, code = np.unique(clusters.astype(str), return_inverse=True)
    groups = int(code.max()) + 1
    mean = float(values.mean())
    if groups < 2:
        return mean, float("nan"), groups
    residual = np.bincount(code, weights=values - mean, minlength=groups)
    error = float(np.sqrt((residual**2).sum() * groups / (groups - 1)) / len(values))
    return mean, error, groups


def share_interval(
    share: np.ndarray, error: np.ndarray, questions: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """(low, high): 95% intervals of shares of clustered questions, in percent, which stay within 0 to 100.

    Wilson's (1927), for as many independent questions as would have the same standard error (Korn and
    Graubard 1998): never more than were asked; one per cluster where the error is 0, as it is when all are
    right. NaN for a single cluster.

    Args:
        share, error: [group] percent, and its standard error over clusters in points.
        questions, clusters: [group] how many.
    """
    p, error = np.asarray(share, float) / 100, np.asarray(error, float) / 100
    with np.errstate(divide="ignore", invalid="ignore"):
        alike = np.where(error > 0, p * (1 - p) / error**2, clusters)
    n = np.clip(alike, 1, questions).astype(float)
    z = float(stats.norm.ppf(0.975))
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    known = np.isfinite(error)
    low, high = (np.where(known, 100 * np.clip(end, 0, 1), np.nan) for end in (middle - half, middle + half))
    return low, high


def drop_ranks(drops: np.ndarray, questions: np.ndarray) -> np.ndarray:
    """Rank of each country's drop among all of its row, 1 for the largest; equal drops share their mean rank.

    A drop is a share of questions, so drops are compared as questions lost of questions asked, exactly: two
    of 20 are as much as three of 30, whatever the noise of floating numbers.

    Args:
        drops: [set, country] points.
        questions: [country] how many were asked.
    """
    asked = np.asarray(questions, int)
    ranks = np.empty(np.shape(drops))
    for row, lost in enumerate(np.rint(np.asarray(drops, float) * asked / 100).astype(int).tolist()):
        shares = [Fraction(count, n) for count, n in zip(lost, asked.tolist())]
        order = {share: place for place, share in enumerate(sorted(set(shares), reverse=True))}
        ranks[row] = stats.rankdata([order[share] for share in shares], method="average")
    return ranks


@dataclass(frozen=True)
class Drop:
    """How much a set of neurons lowers accuracy on a task, against random sets of its size, in points."""

    base: float
    """Accuracy of the unchanged model, percent."""
    drop: float
    """`base` minus the accuracy with the set suppressed."""
    low: float
    high: float
    """`low` and `high`: 95% interval of `drop`, clusters resampled."""
    random_mean: float
    """Mean drop over the random sets."""
    random_low: float
    random_high: float
    """`random_low` and `random_high`: 95% interval of `random_mean`, clusters resampled."""
    random_sd: float
    """Standard deviation over the random sets; NaN for one."""
    excess: float
    """`part_drop` - `random_mean`."""
    excess_low: float
    excess_high: float
    """95% interval of `excess`, the same clusters resampled for all sets."""
    p_bootstrap: float
    """One-sided: share of draws in which the set costs no more than the random mean; NaN for one cluster."""
    rank: int
    """1 if no random set costs as much as the set, on the questions that random sets were asked."""
    random_sets: int
    part_drop: float
    """The set's drop on the questions that the random sets were asked; `drop` where they were asked all."""
    questions: int
    """Questions that the set was asked."""
    random_questions: int
    """Questions, of these, that the random sets were asked."""

    @property
    def p_rank(self) -> float:
        """One-sided permutation p: rank / (random sets + 1), which with ten random sets is at least 1/11."""
        return self.rank / (self.random_sets + 1)


def compare_drops(
    base: np.ndarray,
    ablated: np.ndarray,
    random: Sequence[np.ndarray],
    clusters: np.ndarray,
    *,
    part: np.ndarray | None = None,
    draws: int = DRAWS,
    seed: int = 0,
) -> Drop:
    """Paired cluster bootstrap of "suppressing the set costs more than suppressing random sets".

    Args:
        base, ablated: [question] right (1) or wrong (0), unchanged and with the set suppressed; the same
            questions.
        random: the same for each random set; at least one.
        clusters: [question] name of the underlying question.
        part: [question] whether the random sets were asked it, all of them the same; `random` then holds
            these questions alone, and so do both sides of `excess`, its interval (`_of_a_part`), and the
            rank. None where they were asked all.

    Raises:
        ScoreError: there is no random set or no question, or lengths differ.
    """
    if not random:
        raise ScoreError("at least one random set is needed to compare with")
    here = np.ones(len(base), bool) if part is None else part
    if not len(base) or not here.any():
        raise ScoreError("there is no question to compare on")
    if any(len(values) != len(base) for values in (ablated, clusters, here)) or any(
        len(values) != here.sum() for values in random
    ):
        raise ScoreError("results to compare must be of the same questions in the same order")
    lost = base.astype(float) - ablated
    lost_random = np.stack([base[here].astype(float) - values for values in random])  # [set, question]
    drop, part_drop, random_drops = 100 * lost.mean(), 100 * lost[here].mean(), 100 * lost_random.mean(1)
    beyond = lost[here] - lost_random.mean(0)

    def resampled(clusters: np.ndarray, *values: np.ndarray) -> np.ndarray:
        """Points lost, of each of `values`, in draws of clusters; the same draws for all of them."""
        _, code = np.unique(clusters.astype(str), return_inverse=True)
        sums = [np.bincount(code, weights=each) for each in (np.ones(len(code)), *values)]

        def points(sizes: np.ndarray, *sums: np.ndarray, axis: int = -1) -> np.ndarray:
            return 100 * np.stack([each.sum(axis=axis) / sizes.sum(axis=axis) for each in sums])

        return bootstrap_draws(sums, points, draws=draws, seed=seed)

    of_random = lost_random.mean(0)
    if here.all():
        drops, excesses, randoms = resampled(clusters, lost, beyond, of_random)
    else:
        (drops,), (excesses, randoms) = (
            resampled(clusters, lost),
            resampled(clusters[here], beyond, of_random),
        )
    low, high = np.percentile(drops, [2.5, 97.5])
    random_low, random_high = np.percentile(randoms, [2.5, 97.5])
    excess, of_excess = float(beyond.mean() * 100), np.percentile(excesses, [2.5, 97.5])
    if not here.all():
        of_excess = _of_a_part(of_excess, excess, int(here.sum()), len(np.unique(clusters[here].astype(str))))
    alone = bool(np.isnan(excesses).any())
    return Drop(
        base=100 * float(np.mean(base)),
        drop=float(drop),
        low=float(low),
        high=float(high),
        random_mean=float(random_drops.mean()),
        random_low=float(random_low),
        random_high=float(random_high),
        random_sd=float(random_drops.std(ddof=1)) if len(random) > 1 else float("nan"),
        part_drop=float(part_drop),
        excess=excess,
        excess_low=float(of_excess[0]),
        excess_high=float(of_excess[1]),
        p_bootstrap=float("nan") if alone else float((1 + (excesses <= 0).sum()) / (draws + 1)),
        rank=1 + int((random_drops >= part_drop - 1e-12).sum()),
        random_sets=len(random),
        questions=len(base),
        random_questions=int(here.sum()),
    )


def _of_a_part(interval: np.ndarray, value: float, questions: int, clusters: int) -> np.ndarray:
    """A bootstrap interval, in points, from a part of the questions, widened to hold at its rate.

    A part may have few clusters, whose resamples vary too little: the interval is as much wider as that of
    Student's t with G - 1 degrees is than the normal one, times sqrt(G / (G - 1)) (Cameron and Miller 2015).
    And where hardly an answer changes, a part may show no change at all: nothing seen in n questions does not
    exclude a share of 3 / n (Hanley and Lippman-Hand 1983), the least half width.
    """
    if clusters < 2:
        return np.full(2, np.nan)
    wider = stats.t.ppf(0.975, clusters - 1) / stats.norm.ppf(0.975) * np.sqrt(clusters / (clusters - 1))
    low, high = value + wider * (interval - value)
    least = 100 * 3 / questions
    return np.array([min(low, value - least), max(high, value + least)])


def bootstrap_draws(
    data: Sequence[Float[np.ndarray, " cluster"]],
    statistic: Callable[..., np.ndarray],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Float[np.ndarray, "value draw"]:
    """`statistic(*data, axis=-1)` on resamples of the clusters, the same for all of `data`.

    SciPy's paired bootstrap. NaN for a single cluster, which cannot be resampled.
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
        **_generator(seed),
    )
    return result.bootstrap_distribution


def _generator(seed: int) -> dict[str, Any]:
    """SciPy's argument for a generator, by the name that all versions know (`rng` only from 1.15 on)."""
    return {"random_state": np.random.default_rng(seed)}


def holm(p_values: Sequence[float]) -> np.ndarray:
    """p-values corrected for multiple tests (Holm 1979, step-down), in their order; NaN is not counted."""
    p = np.asarray(p_values, dtype=float)
    out = np.full(len(p), np.nan)
    known = np.flatnonzero(~np.isnan(p))
    order = known[np.argsort(p[known], kind="stable")]
    steps = p[order] * np.arange(len(order), 0, -1)
    out[order] = np.minimum(np.maximum.accumulate(steps), 1.0) if len(order) else steps
    return out


@dataclass(frozen=True)
class RelatedTest:
    """Whether related countries lose more than unrelated ones when a country's set is suppressed."""

    related: float
    """Mean drop over the pairs (set's country, other country) that are related, in points."""
    unrelated: float
    """The same over the pairs that are not related."""
    p: float
    """One-sided permutation p, the countries' groups shuffled."""
    pairs: int
    """Number of related pairs; no country is paired with itself."""

    @property
    def difference(self) -> float:
        """`related` - `unrelated`, in points."""
        return self.related - self.unrelated


def related_test(
    drops: Float[np.ndarray, "own asked"],
    own: np.ndarray,
    groups: Sequence[str | None],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> RelatedTest:
    """Permutation test of "related countries drop more": groups are dealt out anew, as in a Mantel test.

    Args:
        drops: what each country's set costs each country that was asked about, in points.
        own: column of each row's own country; -1 if it was not asked about. Own cells are left out.
        groups: group of each country that was asked about; a country with None is related to no other.

    Raises:
        ScoreError: no pair or every pair is related.
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
        """Related minus unrelated, with the groups dealt out by `places`, one row per permutation."""
        dealt = code[np.atleast_2d(places).astype(int)]  # [draw, asked]
        related = (dealt[:, own[rows], None] == dealt[:, None, :]) & other
        n = related.sum((1, 2))
        total = (cells * related).sum((1, 2))
        with np.errstate(invalid="ignore", divide="ignore"):
            return total / n - ((cells * other).sum() - total) / (other.sum() - n)

    here = (code[own[rows], None] == code[None, :]) & other
    if not here.any() or here.sum() == other.sum():
        which = "no" if not here.any() else "every"
        raise ScoreError(f"{which} pair of these countries is related: there is nothing to compare")
    result = stats.permutation_test(
        (np.arange(asked),),
        difference,
        permutation_type="pairings",
        vectorized=True,
        n_resamples=draws,
        batch=max(1, _CELLS // (asked * asked)),
        alternative="greater",
        **_generator(seed),
    )
    return RelatedTest(
        float(cells[here].mean()), float(cells[other & ~here].mean()), float(result.pvalue), int(here.sum())
    )


def own_test(
    ranks: Float[np.ndarray, "own asked"], own: np.ndarray, *, draws: int = DRAWS, seed: int = 0
) -> float:
    """One-sided permutation p of "a country's own rank is low", own countries dealt out anew.

    Args:
        ranks: rank of every country that was asked about, under every country's set; 1 loses most.
        own: column of each row's own country; -1 if it was not asked about.
    """
    rows = np.flatnonzero(own >= 0)

    def mean_rank(places: np.ndarray, axis: int = -1) -> np.ndarray:
        """Mean own rank with the columns dealt out by `places`, one row per permutation."""
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
        **_generator(seed),
    )
    return float(result.pvalue)
