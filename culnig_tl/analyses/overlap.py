"""Overlap: how many neurons sets share, and how many chance would give."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pandas as pd
from scipy import stats

from ..data.neurons import NeuronSet


def overlaps(sets: Mapping[str, NeuronSet]) -> pd.DataFrame:
    """One row per pair of sets of one model: shared neurons, how many chance would give, Jaccard index, p
    (hypergeometric, one-sided)."""
    rows = []
    for (name, one), (other_name, other) in itertools.combinations(sets.items(), 2):
        mine, theirs = one.keys(), other.keys()
        size = int(one.provenance.layers or 0) * sum(one.provenance.pool.values())
        common = len(mine & theirs)
        chance = len(mine) * len(theirs) / size
        p = float(stats.hypergeom.sf(common - 1, size, len(mine), len(theirs)))
        rows.append((name, other_name, len(mine), len(theirs), common, chance, one.jaccard(other), p))
    return pd.DataFrame(
        rows, columns=["set", "other", "neurons", "other_neurons", "common", "by_chance", "jaccard", "p"]
    )
