"""Crossing: what each country's neurons cost each country.

If a country's set carries its culture, its own country loses most, and related countries more than others.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..data.statistics import DRAWS, RelatedTest, bootstrap_draws, drop_ranks, own_test, related_test
from ..engine.models import HookedModel
from ..errors import NeuronError, ScoreError
from ..method.specificity import diagnose
from ..study.config import SPECIFIC
from ..study.opened import OpenStudy, open_study
from ..study.study import Study
from ..tasks.question import Task
from .compare_sets import compare_sets
from .relations import SOURCES, relation_groups

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CountryDrops:
    """What suppressing one country's neurons (row) costs another country's questions (column), in points."""

    drops: pd.DataFrame
    base: pd.Series
    """Accuracy on each country's questions, unchanged, percent."""
    sets: Mapping[str, NeuronSet]
    """Country -> its neurons."""
    task: str
    unchanged: EvaluationResult
    suppressed: Mapping[str, EvaluationResult]
    """Country -> answers with its neurons suppressed."""
    relations: Sequence[str] = tuple(SOURCES)
    """What makes countries related: "family", "region", "values", or columns of `relation_table`."""
    relation_table: str | Path | None = None
    """A CSV file of other relations, see `relation_groups`."""
    shared: pd.DataFrame | None = None
    """How much one pattern shared by all countries explains of their scores, as `diagnose` gives it."""

    def ranks(self) -> pd.DataFrame:
        """Set x country: rank of the country's drop, 1 for the largest; equal drops share their mean rank."""
        asked = self.unchanged.table["country"].value_counts().reindex(self.drops.columns)
        ranks = drop_ranks(self.drops.to_numpy(), asked.to_numpy())
        return pd.DataFrame(ranks, index=self.drops.index, columns=self.drops.columns)

    def summary(self) -> pd.DataFrame:
        """One row per country's set: neurons, own drop and mean drop of the others (points), rank of its own
        country among all."""
        ranks, rows = self.ranks(), {}
        for country in self._own():
            own, others = self.drops.loc[country, country], self.drops.loc[country].drop(country)
            rows[country] = (len(self.sets[country]), own, others.mean(), ranks.loc[country, country])
        columns = ["neurons", "own_drop", "others_drop", "own_rank"]
        return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("country")

    @property
    def mean_rank(self) -> float:
        """Mean rank of the own country over the sets; (asked countries + 1) / 2 by chance."""
        return float(self.summary()["own_rank"].mean())

    def related(
        self, relation: str = "region", *, table: str | Path | None = None, draws: int = DRAWS, seed: int = 0
    ) -> RelatedTest:
        """Permutation test of "related countries lose more", the own country left out. `relation` as in
        `relation_groups`."""
        groups = relation_groups(relation, table)
        kinds = [groups.get(country) for country in self.drops.columns]
        return related_test(self.drops.to_numpy(float), self._columns(), kinds, draws=draws, seed=seed)

    def by_relation(
        self, relation: str = "region", *, table: str | Path | None = None, draws: int = DRAWS, seed: int = 0
    ) -> pd.DataFrame:
        """What a country's set costs its own country, related and unrelated ones, and own over unrelated.

        Means over countries, in points. A country's related and unrelated countries are averaged first; one
        that is related to none of those asked takes no part in the row `related`. Intervals (95%) resample
        the countries.

        Raises:
            ScoreError: no related, or no unrelated, pair among these countries.
        """
        groups = relation_groups(relation, table)
        own, related, unrelated = self._averages(groups)
        has_kin = related[~np.isnan(related)]
        if not len(has_kin) or np.isnan(unrelated).any():
            which = "no" if not len(has_kin) else "every"
            raise ScoreError(f"{which} pair of these countries is related by {relation}")

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
        found = pd.DataFrame(
            {"mean": np.concatenate([means(own, unrelated), mean(has_kin)]), "low": low, "high": high},
            index=["own", "unrelated", "own / unrelated", "related"],
        )
        return found.loc[["own", "related", "unrelated", "own / unrelated"]].rename_axis(relation)

    def own_p(self, *, draws: int = DRAWS, seed: int = 0) -> float:
        """One-sided permutation p of "countries lose most under their own neurons", by mean rank."""
        return own_test(self.ranks().to_numpy(float), self._columns(), draws=draws, seed=seed)

    def tables(self) -> dict[str, pd.DataFrame]:
        """File stem -> table: "countries", "related" and "own"; relations that these countries cannot test
        are left out."""
        tests, kinds = [], []
        for relation in self.relations:
            try:
                test = self.related(relation, table=self.relation_table)
                row = {"related": test.related, "unrelated": test.unrelated, "pairs": test.pairs, "p": test.p}
                tests.append({"relation": relation, **row})
                kind = self.by_relation(relation, table=self.relation_table)
                kinds.append(kind.rename_axis("countries").reset_index().assign(relation=relation))
            except ScoreError as error:
                log.warning("%s: %s", relation, error)
        columns = ["relation", "related", "unrelated", "pairs", "p"]
        tables = {"countries": self.drops.reset_index(), "related": pd.DataFrame(tests, columns=columns)}
        return tables | ({"own": pd.concat(kinds, ignore_index=True)} if kinds else {})

    def _averages(self, groups: Mapping[str, str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """([set] drop of its own country, mean drop of related ones, of unrelated ones), points; NaN where
        there are none."""
        rows = []
        for country in self._own():
            others, group = self.drops.loc[country].drop(country), groups.get(country)
            alike = np.array([group is not None and groups.get(other) == group for other in others.index])
            rows.append((self.drops.loc[country, country], others[alike].mean(), others[~alike].mean()))
        own, related, unrelated = np.array(rows, dtype=float).T.copy()
        return own, related, unrelated

    def _columns(self) -> np.ndarray:
        """Column of each row's own country; -1 where it was not asked about."""
        asked = list(self.drops.columns)
        return np.array([asked.index(c) if c in asked else -1 for c in self.drops.index])

    def _own(self) -> list[str]:
        own = [c for c in self.drops.index if c in self.drops.columns]
        if not own:
            raise ScoreError(
                f"none of the countries {', '.join(self.drops.index)} was asked about in {self.task}"
            )
        return own

    def __str__(self) -> str:
        summary, asked = self.summary(), self.drops.shape[1]
        lines = [
            f"{country}: {neurons} neurons cost it {own:.1f} points, the others {others:.1f} (rank {rank:g}"
            f" of {asked})"
            for country, neurons, own, others, rank in summary.itertuples()
        ]
        own, others = summary["own_drop"].mean(), summary["others_drop"].mean()
        chance = f"mean rank {self.mean_rank:.2f} (chance {(asked + 1) / 2:g})"
        p = self.own_p()
        verdict = "it is open whether countries lose more under their own neurons"
        if p < 0.05:
            verdict = "countries lose more under their own neurons"
        elif p > 0.95:
            verdict = "countries lose no more under their own neurons"
        lines += [
            f"mean: own country {own:.1f}, others {others:.1f}; {chance}",
            f"{verdict} (permutation p {p:.4f})",
        ]
        if self.shared is not None:
            title = (
                "Before any claim about one country: how much one pattern shared by all countries explains"
            )
            lines = [title, self.shared.round(3).to_string(), "", *lines]
        return "\n".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.drops.round(1).to_html()


def countries(
    study: Study | OpenStudy | str | Path,
    *,
    relations: Sequence[str] = tuple(SOURCES),
    table: str | Path | None = None,
    batch_size: int | str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> CountryDrops:
    """What each country's neurons cost each country in a study, and what related countries lose.

    Args:
        study: its folder, or the study itself; device, dtype and data_dir as in `open_study`.
        relations: "family", "region", "values", or columns of `table`.
        table: a CSV file of other relations, see `relation_groups`.

    Raises:
        StudyError: the study's model or questions have changed. TaskError: an unknown relation.
    """
    for relation in relations:
        relation_groups(relation, table)  # an unknown one is named before hours of answers
    opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir)
    done = opened.study
    shared = diagnose(done.scores["neuron"], done.scores["control"])
    task = next(task for task in opened.tasks if task.name == done.culture_task)
    found = country_drops(
        opened.model,
        task,
        done.neurons[SPECIFIC],
        base=opened.unchanged([task]),
        batch_size=batch_size,
        progress=progress,
    )
    return replace(found, relations=tuple(relations), relation_table=table, shared=shared)


def country_drops(
    model: HookedModel,
    task: Task,
    specific: NeuronSet,
    *,
    countries: Iterable[str] | None = None,
    base: EvaluationResult | None = None,
    scale: float = 0.0,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> CountryDrops:
    """Suppresses each country's neurons in turn and asks all countries' questions.

    Args:
        task: with countries, e.g. ``load_task("blend", split="test")``.
        specific: what `select_specific` returned.
        countries: whose sets; all of them by default. A country without neurons is left out with a warning.
        base: answers of the unchanged model to `task`, where they are at hand.
        scale: what the neurons' outputs are multiplied by; 0 suppresses.

    Raises:
        ScoreError: a task without countries. NeuronError: a set without countries, or without any neuron.
    """
    if not task.countries:
        raise ScoreError(f"task {task.name!r} asks about no country: give a task with countries, e.g. blend")
    if "country" not in specific.table.columns:
        raise NeuronError("give culture-specific neurons (select_specific): this set has no countries")
    chosen = list(
        countries if countries is not None else specific.provenance.by_country or specific.countries
    )
    sets = {country: specific.for_country(country) for country in chosen}
    empty = [country for country, neurons in sets.items() if not len(neurons)]
    if len(empty) == len(sets):
        raise NeuronError(
            "no country has neurons in this set: take a larger top, or a lower z or drop_reading"
        )
    if empty:
        log.warning("no neurons of %s: left out", ", ".join(empty))
    filled = {country: neurons for country, neurons in sets.items() if len(neurons)}
    found = compare_sets(
        model, [task], filled, base=base, scale=scale, batch_size=batch_size, progress=progress
    )
    asked = list(task.countries)
    before = found.base.accuracy("country")["accuracy"]
    rows = {c: before - result.accuracy("country")["accuracy"] for c, result in found.results.items()}
    drops = pd.DataFrame.from_dict(rows, orient="index").reindex(columns=asked).rename_axis("neurons of")
    return CountryDrops(drops, before.reindex(asked), filled, task.name, found.base, found.results)
