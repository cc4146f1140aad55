"""The statistics against brute force and known answers."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from culnig_tl.data.statistics import (
    bootstrap_draws,
    clustered_mean,
    compare_drops,
    holm,
    own_test,
    related_test,
)
from culnig_tl.errors import ScoreError

RNG = np.random.default_rng(0)


def test_the_clustered_error_is_that_of_cluster_means_for_equal_clusters():
    values, clusters = RNG.normal(size=60), np.repeat(np.arange(20), 3)
    mean, se, count = clustered_mean(values, clusters)
    means = values.reshape(20, 3).mean(1)
    assert count == 20 and mean == pytest.approx(values.mean())
    assert se == pytest.approx(means.std(ddof=1) / np.sqrt(20))
    assert np.isnan(clustered_mean(values, np.zeros(60))[1])


def test_repeating_every_row_changes_no_error():
    values, clusters = RNG.normal(size=40), np.arange(40).astype(str)
    assert clustered_mean(np.tile(values, 5), np.tile(clusters, 5))[1] == pytest.approx(
        clustered_mean(values, clusters)[1]
    )


def answers(rate: float, n=400) -> np.ndarray:
    return (np.random.default_rng(int(1000 * rate)).random(n) < rate).astype(float)


CLUSTERS = np.repeat(np.arange(100), 4)
RANDOMS = [answers(0.9) * answers(0.98 + i / 1000) for i in range(10)]


def test_a_real_drop_is_found():
    base = answers(0.9)
    found = compare_drops(base, base * answers(0.7), RANDOMS, CLUSTERS)
    assert found.drop == pytest.approx(100 * (base.mean() - (base * answers(0.7)).mean()))
    assert found.low < found.drop < found.high and found.excess_low > 0
    assert (
        found.p_bootstrap == pytest.approx(1 / 10_001)
        and found.rank == 1
        and found.p_rank == pytest.approx(1 / 11)
    )


def test_no_drop_is_not_found():
    nothing = compare_drops(answers(0.9), RANDOMS[0], RANDOMS[1:], CLUSTERS)
    assert nothing.p_bootstrap > 0.05 and nothing.excess_low < 0 < nothing.excess_high


def test_the_interval_is_that_of_a_bootstrap_by_hand():
    base, ablated, clusters = answers(0.9, 90), answers(0.6, 90), np.repeat(np.arange(30), 3)
    found = compare_drops(base, ablated, [base], clusters)
    lost = (base - ablated).reshape(30, 3).sum(1)
    rng = np.random.default_rng(7)
    draws = [100 * lost[rng.integers(0, 30, 30)].sum() / 90 for _ in range(4000)]
    low, high = np.percentile(draws, [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=1.5) and found.high == pytest.approx(high, abs=1.5)


def test_the_null_is_kept():
    """Sets that differ from random ones by nothing are called different in about 5% of the cases."""
    rng = np.random.default_rng(1)
    p = []
    for _ in range(200):
        base = (rng.random(80) < 0.9).astype(float)
        ablated, *randoms = (base * (rng.random(80) < 0.9) for _ in range(6))
        p.append(compare_drops(base, ablated, randoms, np.arange(80), draws=200).p_bootstrap)
    assert np.mean(np.array(p) < 0.05) < 0.12


def test_a_single_cluster_has_no_interval():
    found = compare_drops(np.ones(4), np.zeros(4), [np.ones(4)], np.zeros(4))
    assert found.drop == 100 and np.isnan(found.low) and np.isnan(found.p_bootstrap)


def test_the_same_clusters_are_drawn_for_all():
    lost, sizes = np.arange(10.0), np.ones(10)
    drawn = bootstrap_draws(
        (lost, lost, sizes), lambda a, b, n, axis=-1: np.stack([a.sum(axis=axis), b.sum(axis=axis)]), draws=50
    )
    assert drawn.shape == (2, 50) and np.array_equal(drawn[0], drawn[1]) and len(set(drawn[0])) > 10


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((np.ones(3), np.ones(3), [], np.arange(3)), "random set"),
        ((np.ones(3), np.ones(2), [np.ones(3)], np.arange(3)), "same questions"),
        ((np.ones(0), np.ones(0), [np.ones(0)], np.arange(0)), "no question"),
    ],
)
def test_wrong_results_are_a_clear_error(arguments, message):
    with pytest.raises(ScoreError, match=message):
        compare_drops(*arguments)


@pytest.mark.parametrize(
    "p, corrected",
    [
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.5, 0.9], [1.0, 1.0]),
        ([0.01, float("nan"), 0.02], [0.02, float("nan"), 0.02]),
        ([], []),
    ],
)
def test_holm_is_holm(p, corrected):
    assert holm(p).tolist() == pytest.approx(corrected, nan_ok=True)


GROUPS = ["a", "a", "b", "b", "c", "c", None, None]


def crossing(gain: float) -> np.ndarray:
    drops = np.random.default_rng(3).normal(size=(8, 8))
    for i, first in enumerate(GROUPS):
        for j, second in enumerate(GROUPS):
            drops[i, j] += 100 if i == j else gain * (first is not None and first == second)
    return drops


def test_related_countries_are_found_where_they_drop_more_and_own_cells_do_not_count():
    found = related_test(crossing(3), np.arange(8), GROUPS)
    assert found.pairs == 6 and found.p < 0.01 and 2 < found.difference < 4


def test_countries_that_drop_alike_are_not_found_related():
    assert related_test(crossing(0), np.arange(8), GROUPS).p > 0.05


def test_the_permutation_p_is_exact_for_few_countries():
    drops, groups = np.array([[0.0, 5, 1, 1], [5, 0, 1, 1], [1, 1, 0, 2]]), ["a", "a", "b", "c"]
    found = related_test(drops, np.arange(3), groups)

    def difference(order):
        dealt = [groups[i] for i in order]
        related = [drops[i, j] for i in range(3) for j in range(4) if i != j and dealt[i] == dealt[j]]
        other = [drops[i, j] for i in range(3) for j in range(4) if i != j and dealt[i] != dealt[j]]
        return np.mean(related) - np.mean(other)

    every = [difference(order) for order in itertools.permutations(range(4))]
    assert found.difference == pytest.approx(difference(range(4)))
    assert found.p == pytest.approx(np.mean(np.array(every) >= difference(range(4)) - 1e-9))


@pytest.mark.parametrize("groups, message", [(["a", "b"], "no pair"), (["a", "a"], "every pair")])
def test_nothing_to_compare_is_a_clear_error(groups, message):
    with pytest.raises(ScoreError, match=message):
        related_test(np.zeros((2, 2)), np.arange(2), groups)


def test_the_bootstrap_agrees_with_the_clustered_error():
    base, ablated, clusters = answers(0.9), answers(0.6), np.repeat(np.arange(100), 4)
    found = compare_drops(base, ablated, [base], clusters)
    se = 100 * clustered_mean(base - ablated, clusters)[1]
    assert found.high - found.low == pytest.approx(2 * stats.norm.ppf(0.975) * se, rel=0.06)


def test_the_own_country_is_found_where_it_loses_most():
    ranks = stats.rankdata(-crossing(0), axis=1)
    assert (np.diag(ranks) == 1).all() and own_test(ranks, np.arange(8)) < 0.001
    assert own_test(np.roll(ranks, 1, axis=1), np.arange(8)) > 0.5


def test_the_own_p_is_exact_for_few_countries():
    three = np.array([[1.0, 2, 3], [3, 1, 2], [2, 3, 1]])
    assert own_test(three, np.arange(3)) == pytest.approx(1 / 6)
    assert own_test(three, np.array([0, -1, -1])) == pytest.approx(1 / 3)
