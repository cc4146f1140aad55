"""Selectivity: what does culture lose, against the task without culture that loses most?

For a set with answers to tasks t, and P(answer) of question q unchanged and with the set suppressed,

    L_t = 100 * mean over q of t of (P unchanged - P suppressed)            points
    culture = mean of L_t over the cultural tasks,   worst = max of L_t over the tasks without culture
    D       = culture - 2 max(0, worst)                                     a set is selective where D > 0

A curve over set sizes has a point for every budget of a method; its area is the mean of culture - worst along
the way, by trapezoids. How large a set is best is a setting that can be chosen on the questions it is
reported on, so `held_out` chooses it on one half of the questions' clusters by D and reports it on the other,
both ways round; so it does the best method.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from scipy.integrate import trapezoid

from ..data.results import EvaluationResult
from ..data.statistics import DRAWS
from ..study.comparison import in_first_half

CHOSEN = "best by the other half"
"""Row of the method that is chosen, with its size, on the half that it is not reported on."""
GONE = 0.5
"""Share of what culture loses at most, at which curves are compared."""


@dataclass(frozen=True)
class Loss:
    """What a set costs one task, cluster by cluster."""

    lost: Float[np.ndarray, " cluster"]
    """Points of P(answer), summed over a cluster's questions."""
    questions: Float[np.ndarray, " cluster"]
    first: Bool[np.ndarray, " cluster"]
    """Whether the cluster is in the first half."""

    def mean(self, half: bool | None = None) -> float:
        """Points a question, of one half or of all; NaN without questions."""
        here = np.ones(len(self.lost), bool) if half is None else self.first == half
        return float(self.lost[here].sum() / n) if (n := self.questions[here].sum()) else float("nan")


Losses = Mapping[str, Loss]
"""Task -> what it loses."""


def losses(base: EvaluationResult, result: EvaluationResult) -> dict[str, Loss]:
    """What a set costs each task. Answers without a P, such as those in words, count as right (1) or wrong
    (0)."""
    found = {}
    for task in dict.fromkeys(map(str, base.table["task"])):
        before, after = (r.table.loc[r.table["task"] == task].set_index("id") for r in (base, result))
        after = after.loc[before.index]
        measure = "p_answer" if before["p_answer"].notna().all() else "correct"
        lost = 100 * (before[measure].astype(float) - after[measure].astype(float))
        groups = lost.groupby(before["cluster"].astype(str).to_numpy())
        summed = groups.sum()
        first = np.array([in_first_half(task, cluster) for cluster in summed.index], bool)
        found[task] = Loss(summed.to_numpy(), groups.size().to_numpy(float), first)
    return found


def sides(of: Losses, culture: Sequence[str], half: bool | None = None) -> tuple[float, float]:
    """(culture, worst) of a set; NaN where there is no task of the kind."""
    own = [loss.mean(half) for task, loss in of.items() if task in culture]
    others = [loss.mean(half) for task, loss in of.items() if task not in culture]
    return float(np.mean(own)) if own else float("nan"), max(others, default=float("nan"))


def selective(culture: Any, worst: Any) -> Any:
    """D, of numbers or of arrays alike."""
    return culture - 2 * np.maximum(worst, 0)


def selectivity_curves(
    of: Mapping[str, Sequence[Losses]], budgets: Sequence[int], culture: Sequence[str]
) -> pd.DataFrame:
    """One row per method and budget, the first with no neuron: neurons, culture_lost and worst_lost (points),
    worst_task."""
    rows = []
    for method, several in of.items():
        rows.append((method, 0, 0.0, 0.0, ""))
        for neurons, one in zip(budgets, several):
            plain = {task: loss.mean() for task, loss in one.items() if task not in culture}
            name = max(plain, key=lambda task: plain[task], default="")
            rows.append((method, neurons, *sides(one, culture), name))
    columns = ["method", "neurons", "culture_lost", "worst_lost", "worst_task"]
    return pd.DataFrame(rows, columns=columns)


def selectivity_table(curves: pd.DataFrame, *, gone: float = GONE) -> pd.DataFrame:
    """One row per method: area_selective (points), and where `gone` of the most that culture loses under any
    method is lost, by lines between the budgets: neurons_there and worst_there; NaN where it never is."""
    bar = gone * float(curves["culture_lost"].max())
    rows = {}
    for method, part in curves.groupby("method", sort=False):
        neurons, own, worst = (part[c].to_numpy(float) for c in ("neurons", "culture_lost", "worst_lost"))
        area = float(trapezoid(own - worst, neurons) / neurons[-1])
        at = np.flatnonzero(own >= bar)
        there = (float("nan"), float("nan"))
        if len(at) and at[0] > 0 and bar > 0:
            i = int(at[0])
            share = (bar - own[i - 1]) / (own[i] - own[i - 1])
            there = tuple(float(v[i - 1] + share * (v[i] - v[i - 1])) for v in (neurons, worst))
        rows[method] = (area, *there)
    columns = ["area_selective", "neurons_there", "worst_there"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("method")


def held_out(
    of: Mapping[str, Sequence[Losses]],
    budgets: Sequence[int],
    culture: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> pd.DataFrame:
    """One row per method, then `CHOSEN`: what culture and the worst other task lose at the size that was
    chosen on the other half.

    Columns neurons (of each half, e.g. "48 and 96"), culture_lost, worst_lost, d, and d_low, d_high: its 95%
    interval, clusters of each half and task resampled with the choice as it is.
    """
    picks = {
        method: {half: _best({method: several}, culture, half) for half in (True, False)}
        for method, several in of.items()
    }
    picks[CHOSEN] = {half: _best(of, culture, half) for half in (True, False)}
    rows = {}
    for name, by_half in picks.items():
        chosen = {half: of[method][at] for half, (method, at) in by_half.items()}
        # what the first half chose is reported on the second, and the other way round
        parts = {
            task: [_half(chosen[half][task], not half) for half in (True, False)] for task in chosen[True]
        }
        own, worst = _pooled(parts, culture)
        rng = np.random.default_rng(seed)
        d = selective(
            *_pooled(
                {task: [_drawn(part, rng, draws) for part in two] for task, two in parts.items()}, culture
            )
        )
        low, high = np.nanpercentile(d, [2.5, 97.5]) if np.isfinite(d).any() else (float("nan"),) * 2
        sizes = [budgets[at] for _, at in by_half.values()]
        said = " and ".join(map(str, sizes))
        if name == CHOSEN:
            said = " and ".join(f"{method}, {size}" for (method, _), size in zip(by_half.values(), sizes))
        rows[name] = (said, float(own), float(worst), float(selective(own, worst)), float(low), float(high))
    columns = ["neurons", "culture_lost", "worst_lost", "d", "d_low", "d_high"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis("method")


def _best(of: Mapping[str, Sequence[Losses]], culture: Sequence[str], half: bool) -> tuple[str, int]:
    """(method, place of the budget) with the highest D on one half; of equal ones the first."""
    found = {
        (method, at): float(selective(*sides(one, culture, half)))
        for method, several in of.items()
        for at, one in enumerate(several)
    }
    return max(found, key=lambda key: found[key] if np.isfinite(found[key]) else -np.inf)


Sums = tuple[np.ndarray, np.ndarray]
"""(points lost, questions) of the clusters of one half, [cluster] or [draw, cluster]."""


def _half(loss: Loss, first: bool) -> Sums:
    here = loss.first == first
    return loss.lost[here], loss.questions[here]


def _drawn(sums: Sums, rng: np.random.Generator, draws: int) -> Sums:
    lost, questions = sums
    if not len(lost):
        return np.zeros((draws, 0)), np.zeros((draws, 0))
    pick = rng.integers(len(lost), size=(draws, len(lost)))
    return lost[pick], questions[pick]


def _pooled(parts: Mapping[str, Sequence[Sums]], culture: Sequence[str]) -> tuple[Any, Any]:
    """(culture, worst) over both halves, of each draw where there are draws."""
    means: dict[str, np.ndarray] = {}
    for task, two in parts.items():
        lost, questions = (sum(part[i].sum(-1) for part in two) for i in (0, 1))
        with np.errstate(invalid="ignore", divide="ignore"):
            means[task] = np.asarray(lost / questions)
    own = [mean for task, mean in means.items() if task in culture]
    others = [mean for task, mean in means.items() if task not in culture]
    missing = np.asarray(float("nan"))
    return np.mean(own, 0) if own else missing, np.max(others, 0) if others else missing
