"""Power: can this many questions show that a country loses most under its own neurons?

Simulated from a finished study, without a model. One simulated experiment draws, for each country's set,

    n questions for every country, with replacement, from all that the study asked (of one country it may have
    asked only a few),
    their answers unchanged and with one of its layer-matched random sets suppressed, which show what
    suppressing any neurons does, and
    on top of these the effect: right answers turned wrong with probability effect / accuracy,

where the effect is `own` points on the set's own country, `related` on countries of its group and
`unrelated` on the others. The experiment is then tested as `countries` tests a real one: own ranks against
countries dealt out anew, related against unrelated ones likewise. Power is the share of experiments with
p < 0.05; with all three effects the same it is the rate of false alarms. Effects are the same for all sets,
which real ones are not: take the result as the least that is needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from ..data.results import EvaluationResult
from ..data.statistics import drop_ranks, own_test, related_test
from ..errors import ScoreError
from ..progress import progress_bar
from ..study.config import SPECIFIC, UNCHANGED
from ..study.stored import load_study
from ..study.study import Study
from .relations import relation_groups

ALPHA = 0.05
QUESTIONS: tuple[int, ...] = (10, 25, 50, 100, 200, 400)
"""Questions per country that are tried."""


@dataclass(frozen=True)
class Power:
    """How often experiments of several sizes would show an effect."""

    rows: pd.DataFrame
    """One row per number of questions: questions (a country), own_power, related_power (NaN where no group
    can be tested), se: the largest standard error of either by the number of simulations."""
    effect: Mapping[str, float]
    """own, related and unrelated, in points."""
    countries: int
    """That were asked about."""
    sets: int
    """Countries with neurons of their own."""

    def needed(self, wanted: float = 0.8, test: str = "own") -> int | None:
        """The fewest questions a country, of those tried, from which on power is as wanted; None where it is
        not."""
        good = self.rows[f"{test}_power"].to_numpy() >= wanted
        after = np.logical_and.accumulate(good[::-1])[::-1]  # at all larger numbers too
        return int(self.rows["questions"].to_numpy()[after][0]) if after.any() else None

    def tables(self) -> dict[str, pd.DataFrame]:
        """File stem -> table."""
        return {"power": self.rows}

    def __str__(self) -> str:
        said = ", ".join(f"{name} {value:g}" for name, value in self.effect.items())
        enough = self.needed()
        last = (
            "None of these numbers shows the own country's loss in 80% of experiments."
            if enough is None
            else f"From {enough} questions a country on, the own country's loss shows in at least 80%."
        )
        return (
            f"Effects in points: {said}; {self.sets} sets, {self.countries} countries asked about\n"
            f"{self.rows.round(3).to_string(index=False)}\n{last}"
        )

    __repr__ = __str__


def power(
    study: Study | str | Path,
    *,
    own: float = 10.0,
    related: float = 0.0,
    unrelated: float = 0.0,
    relation: str = "region",
    questions: Iterable[int] = QUESTIONS,
    simulations: int = 200,
    draws: int = 500,
    seed: int = 0,
    progress: bool = True,
) -> Power:
    """How often an effect of that size would be seen, by questions a country.

    Args:
        study: a finished one, its folder, or the name of one that comes with the package.
        own, related, unrelated: what a set costs its own country, those of its group and the others, in
            points beyond random sets.
        relation: "family", "region" or "values".
        questions: numbers a country to try.
        simulations: experiments of each size.
        draws: permutations of each test.

    Raises:
        ScoreError: a study without countries or without layer-matched random sets, an effect that is larger
            than what there is to lose. TaskError: an unknown relation.
    """
    done = study if isinstance(study, Study) else load_study(study)
    groups, task = relation_groups(relation), done.culture_task
    base = done.results[UNCHANGED].of_task(task)
    random = [done.results[name].of_task(task) for name in done.random_settings("layer")]
    if not random:
        raise ScoreError("power is simulated from layer-matched random sets: this study has none")
    right, countries = _answers(base, random)
    if len(countries) < 2:
        raise ScoreError(f"{task} asks about {len(countries)} country: power is of comparing several")
    specific = done.neurons.get(SPECIFIC)
    with_own = () if specific is None else specific.countries
    sets = [c for c in countries if c in with_own] or countries
    effects = np.array(
        [[_effect(one, other, groups, own, related, unrelated) for other in countries] for one in sets]
    )
    accuracy = 100 * float(right[0].mean())
    if effects.max() > accuracy or effects.min() < 0:
        raise ScoreError(f"effects lie between 0 and what there is to lose, {accuracy:.1f} points")
    columns = np.array([countries.index(c) for c in sets])
    of_country = [groups.get(c) for c in countries]
    rng, tried = np.random.default_rng(seed), sorted(set(questions))
    rows = []
    with progress_bar(simulations * len(tried), "simulate", enabled=progress, unit="experiment") as advance:
        for n in tried:
            found = []
            for _ in range(simulations):
                drops = _experiment(right, effects, n, rng)
                found.append(_tested(drops, columns, of_country, n, draws))
                advance(1)
            shares = np.nanmean(np.array(found) < ALPHA, axis=0)
            known = ~np.isnan(np.array(found)).any(axis=0)
            shares = np.where(known, shares, np.nan)
            rows.append((n, *shares, float(np.nanmax(np.sqrt(shares * (1 - shares) / simulations)))))
    table = pd.DataFrame(rows, columns=["questions", "own_power", "related_power", "se"])
    effect = {"own": own, "related": related, "unrelated": unrelated}
    return Power(table, effect, len(countries), len(sets))


def _answers(
    base: EvaluationResult, random: Sequence[EvaluationResult]
) -> tuple[Float[np.ndarray, "setting question"], list[str]]:
    """(right (1) or wrong (0) unchanged and with each random set suppressed, on the questions that all of
    them were asked; their countries)."""
    tables = [result.table.set_index("id") for result in (base, *random)]
    shared = [i for i in tables[0].index if all(i in table.index for table in tables[1:])]
    right = np.stack([table.loc[shared, "correct"].to_numpy(float) for table in tables])
    return right, list(dict.fromkeys(map(str, tables[0].loc[shared, "country"].dropna())))


def _effect(
    one: str, other: str, groups: Mapping[str, str], own: float, related: float, unrelated: float
) -> float:
    if one == other:
        return own
    return related if one in groups and groups.get(one) == groups.get(other) else unrelated


def _experiment(
    right: Float[np.ndarray, "setting question"],
    effects: Float[np.ndarray, "own asked"],
    n: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, "own asked"]:
    """Drops of one simulated experiment, in points."""
    own, asked = effects.shape
    pick = rng.integers(right.shape[1], size=(1, asked, n))  # the same questions for all sets
    which = rng.integers(1, len(right), size=(own, 1, 1))  # one random set for each set
    lost = rng.random((own, asked, n)) < effects[:, :, None] / max(100 * right[0].mean(), 1e-9)
    return 100 * (right[0, pick] - right[which, pick] * ~lost).mean(-1)


def _tested(
    drops: Float[np.ndarray, "own asked"],
    own: Int[np.ndarray, " own"],
    groups: Sequence[str | None],
    n: int,
    draws: int,
) -> tuple[float, float]:
    """(p of the own country, p of related ones); NaN where no pair, or every pair, is related."""
    ranks: Any = drop_ranks(drops, np.full(drops.shape[1], n))
    try:
        kin = related_test(drops, own, groups, draws=draws).p
    except ScoreError:
        kin = float("nan")
    return own_test(ranks, own, draws=draws), kin
