"""Crossing: what each country's neurons cost each country.

If a country's set carries that country's culture, its own country loses most, and related countries more than others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from scipy import stats

from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..data.statistics import DRAWS, RelatedTest, bootstrap_draws, own_test, related_test
from ..errors import NeuronError, ScoreError
from ..method.evaluation import evaluate_sets
from ..tasks.question import Task
from .relations import relation_groups

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CountryDrops:
    """Country x country: what suppressing one country's neurons (row) costs another country's questions (column), in points."""

    drops: pd.DataFrame
    base: pd.Series
    """Accuracy of each asked country, unchanged, percent."""
    sets: Mapping[str, NeuronSet]
    """Country -> its neurons."""
    task: str
    unchanged: EvaluationResult
    suppressed: Mapping[str, EvaluationResult]
    """Country -> answers with its neurons suppressed."""

    def ranks(self) -> pd.DataFrame:
        """Rank of every country under every country's set: 1 loses most, equal drops share their mean rank."""
        ranks = stats.rankdata(-self.drops.to_numpy(), axis=1, method="average")
        return pd.DataFrame(ranks, index=self.drops.index, columns=self.drops.columns)

    def summary(self) -> pd.DataFrame:
        """One row a country's set: neurons, own drop, mean drop of the others, rank of the own country among all."""
        ranks, rows = self.ranks(), {}
        for country in self._own():
            own, others = self.drops.loc[country, country], self.drops.loc[country].drop(country)
            rows[country] = (len(self.sets[country]), own, others.mean(), ranks.loc[country, country])
        return pd.DataFrame.from_dict(
            rows, orient="index", columns=["neurons", "own_drop", "others_drop", "own_rank"]
        ).rename_axis("country")

    @property
    def mean_rank(self) -> float:
        """Mean rank of the own country over the sets; (asked countries + 1) / 2 by chance."""
        return float(self.summary()["own_rank"].mean())

    def related(
        self, relation: str = "region", *, table: str | Path | None = None, draws: int = DRAWS, seed: int = 0
    ) -> RelatedTest:
        """Permutation test of "related countries lose more", the own country left out. `relation` as in `relation_groups`."""
        groups = relation_groups(relation, table)
        asked = list(self.drops.columns)
        return related_test(
            self.drops.to_numpy(float),
            self._columns(),
            [groups.get(c) for c in asked],
            draws=draws,
            seed=seed,
        )

    def by_relation(
        self, relation: str = "region", *, table: str | Path | None = None, draws: int = DRAWS, seed: int = 0
    ) -> pd.DataFrame:
        """What a country's set costs its own country, related and unrelated ones, and how many times the unrelated it costs its own.

        Means over countries, points; a country's related and unrelated ones are averaged first, and a country related to nobody
        that was asked takes no part in the row `related`. Intervals (95%) resample the countries.

        Raises:
            ScoreError: no related, or no unrelated, pair among these countries.
        """
        groups = relation_groups(relation, table)
        rows = {"own": [], "related": [], "unrelated": []}
        for country in self._own():
            others = self.drops.loc[country].drop(country)
            alike = np.array(
                [
                    groups.get(country) is not None and groups.get(c) == groups.get(country)
                    for c in others.index
                ]
            )
            rows["own"].append(self.drops.loc[country, country])
            rows["related"].append(others[alike].mean())
            rows["unrelated"].append(others[~alike].mean())
        own, related, unrelated = (np.array(values, dtype=float) for values in rows.values())
        has_kin = related[~np.isnan(related)]
        if not len(has_kin) or np.isnan(unrelated).any():
            raise ScoreError(
                f"{'no' if not len(has_kin) else 'every'} pair of these countries is related by {relation}"
            )

        def means(own: np.ndarray, unrelated: np.ndarray, axis: int = -1) -> np.ndarray:
            own_mean, unrelated_mean = own.mean(axis), unrelated.mean(axis)
            with np.errstate(divide="ignore", invalid="ignore"):
                return np.stack([own_mean, unrelated_mean, own_mean / unrelated_mean])

        def mean(values: np.ndarray, axis: int = -1) -> np.ndarray:
            return values.mean(axis)[None]

        drawn = np.concatenate(
            [
                bootstrap_draws((own, unrelated), means, draws=draws, seed=seed),
                bootstrap_draws((has_kin,), mean, draws=draws, seed=seed),
            ]
        )
        low, high = np.quantile(drawn, [0.025, 0.975], axis=-1)
        values = np.concatenate([means(own, unrelated), mean(has_kin)])
        found = pd.DataFrame(
            {"mean": values, "low": low, "high": high},
            index=["own", "unrelated", "own / unrelated", "related"],
        )
        return found.loc[["own", "related", "unrelated", "own / unrelated"]].rename_axis(relation)

    def own_p(self, *, draws: int = DRAWS, seed: int = 0) -> float:
        """One-sided permutation p of "countries lose most under their own neurons", by mean rank."""
        return own_test(self.ranks().to_numpy(float), self._columns(), draws=draws, seed=seed)

    def _columns(self) -> np.ndarray:
        """Column of each row's own country; -1 where it was not asked about."""
        asked = list(self.drops.columns)
        return np.array([asked.index(c) if c in asked else -1 for c in self.drops.index])

    def figure(self, *, show: Literal["drop", "rank"] = "drop") -> Any:
        """Country x country, as a Plotly figure."""
        from .. import figures

        return figures.drop_matrix(self.unchanged, self.suppressed, show=show)

    def _own(self) -> list[str]:
        own = [c for c in self.drops.index if c in self.drops.columns]
        if not own:
            raise ScoreError(
                f"none of the countries {', '.join(self.drops.index)} was asked about in {self.task}"
            )
        return own

    def __str__(self) -> str:
        summary = self.summary()
        lines = [
            f"{country}: {neurons} neurons cost it {own:.1f} points, the others {others:.1f} (rank {rank:g} of {self.drops.shape[1]})"
            for country, neurons, own, others, rank in summary.itertuples()
        ]
        chance = (self.drops.shape[1] + 1) / 2
        mean = f"mean: own country {summary.own_drop.mean():.1f}, others {summary.others_drop.mean():.1f}; mean rank {self.mean_rank:.2f} (chance {chance:g})"
        p = self.own_p()
        verdict = (
            "countries lose more under their own neurons"
            if p < 0.05
            else "it is not shown that countries lose more under their own neurons"
        )
        return "\n".join([*lines, mean, f"{verdict} (permutation p {p:.4f})"])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.drops.round(1).to_html()


def country_drops(
    model: Any,
    task: Task,
    specific: NeuronSet,
    *,
    countries: Iterable[str] | None = None,
    base: EvaluationResult | None = None,
    operation: str = "suppress",
    batch_size: int | str = "auto",
    progress: bool = True,
) -> CountryDrops:
    """Suppresses each country's neurons in turn and asks all countries' questions.

    Args:
        task: with countries, e.g. ``load_task("blend").test_split()``.
        specific: what `select_specific` returned.
        countries: whose sets; all of them by default. A country without neurons is left out with a warning.
        base: answers of the unchanged model to `task`, where they are at hand.

    Raises:
        ScoreError: a task without countries. NeuronError: a set without countries, or without any neuron.
    """
    if not task.countries:
        raise ScoreError(
            f"task {task.name!r} asks about no country: a task with countries is wanted, e.g. blend"
        )
    if "country" not in specific.table.columns:
        raise NeuronError("culture-specific neurons are wanted (select_specific), this set has no countries")
    chosen = (
        list(countries)
        if countries is not None
        else list(specific.provenance.by_country) or list(specific.countries)
    )
    sets = {country: specific.for_country(country) for country in chosen}
    empty = [country for country, neurons in sets.items() if not len(neurons)]
    if len(empty) == len(sets):
        raise NeuronError("no country has neurons in this set: take a larger share t, or lower z or r")
    if empty:
        log.warning("no neurons of %s: left out", ", ".join(empty))
    filled = {country: neurons for country, neurons in sets.items() if len(neurons)}
    wanted = {**({} if base else {"unchanged": None}), **filled}
    results = evaluate_sets(
        model, [task], wanted, operation=operation, batch_size=batch_size, progress=progress
    )
    unchanged = base or results.pop("unchanged")
    before = unchanged.accuracy("country")["accuracy"]
    rows = {country: before - result.accuracy("country")["accuracy"] for country, result in results.items()}
    drops = (
        pd.DataFrame.from_dict(rows, orient="index")
        .reindex(columns=list(task.countries))
        .rename_axis("neurons of")
    )
    return CountryDrops(drops, before.reindex(list(task.countries)), filled, task.name, unchanged, results)
