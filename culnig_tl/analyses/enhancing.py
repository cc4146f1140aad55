"""Enhancing: does scaling the found neurons up raise accuracy on culture, on questions that they were not found on?

The sets' outputs are multiplied by 1.1 to 2 at all positions, and the same held-out questions are asked each time; intervals resample clusters
of questions, paired with the unchanged answers. A country's own neurons are tried on that country's questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..data.scores import NeuronScores
from ..data.statistics import DRAWS, bootstrap_draws
from ..errors import ScoreError
from ..method.evaluation import evaluate
from ..method.selection import select_random
from ..progress import progress_bar
from ..tasks.question import Task

FACTORS: tuple[float, ...] = (1.1, 1.25, 1.5, 1.75, 2.0)
GENERAL, RANDOM, OWN = "culture-general", "random by layer", "each country's own"


@dataclass(frozen=True)
class Enhancement:
    """What multiplying sets of neurons does, factor by factor."""

    rows: pd.DataFrame
    """One row a (set, factor, task): neurons, questions, clusters, base and accuracy (percent), change with its 95% interval low..high (points),
    p_change with p_low..p_high (of P(answer), in points). OWN pools every country's questions, asked with its own neurons enhanced."""
    culture: tuple[str, ...]
    """Names of the tasks that are cultural."""

    def raised(self) -> pd.DataFrame:
        """The rows of cultural tasks, random sets aside, whose accuracy rose with an interval above 0."""
        rows = self.rows
        return rows.loc[
            rows["task"].isin(self.culture) & (rows["set"] != RANDOM) & (rows["low"] > 0)
        ].reset_index(drop=True)

    def sentence(self) -> str:
        """What was found, in one sentence that the numbers write."""
        tried: Any = self.rows.loc[self.rows["task"].isin(self.culture) & (self.rows["set"] != RANDOM)]
        if tried.empty:
            return "No cultural task was asked."
        best = tried.loc[tried["change"].idxmax()]
        raised = self.raised()
        text = (
            f"the largest change is {best['change']:+.1f} points on {best['task']} ({best['set']}, x {best['factor']:g}; 95% {best['low']:+.1f} "
            f"to {best['high']:+.1f}, from {best['base']:.1f}%)"
        )
        if raised.empty:
            return f"Enhancing does not raise cultural accuracy beyond its interval at any of {len(tried)} points: {text}."
        return f"Enhancing raises cultural accuracy beyond its interval at {len(raised)} of {len(tried)} points (not corrected for trying them all): {text}."

    def figure(self) -> Any:
        """Change of accuracy against the factor, as a Plotly figure."""
        from .. import figures

        return figures.enhancement_curves(self.rows)

    def __str__(self) -> str:
        return f"{self.rows.round(2).to_string(index=False)}\n{self.sentence()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.rows.round(2).to_html(index=False)


def enhance_sweep(
    model: Any,
    tasks: Sequence[Task],
    general: NeuronSet,
    specific: NeuronSet | None = None,
    *,
    scores: NeuronScores | None = None,
    random_sets: int = 3,
    factors: Sequence[float] = FACTORS,
    batch_size: int | str = "auto",
    draws: int = DRAWS,
    progress: bool = True,
) -> Enhancement:
    """Multiplies the neurons of each set by each factor and asks the tasks.

    Args:
        tasks: test splits, cultural ones and others: no question that neurons were found on.
        general: culture-general neurons.
        specific: culture-specific ones; each country's are asked about on the cultural tasks' questions of that country.
        scores: of the same model; with them, layer-matched random sets of the general set's size are enhanced too.
        random_sets: how many of those.

    Raises:
        ScoreError: no task or factor, or a question of the split that neurons are found on.
    """
    if not tasks or not factors:
        raise ScoreError("enhancing needs a task to ask and a factor at least")
    seen = next((task.name for task in tasks if any(q.split == "neuron" for q in task)), None)
    if seen is not None:
        raise ScoreError(f"task {seen!r} holds questions that neurons are found on: ask its test_split()")
    drawn = (
        [select_random(general, scores, seed=seed, match="layer") for seed in range(random_sets)]
        if scores is not None
        else []
    )
    of_country = {c: specific.for_country(c) for c in specific.countries} if specific is not None else {}
    cultural = [task for task in tasks if task.culture]
    own = {
        t.name: {c: part for c in of_country if len(part := t.filter(lambda q, c=c: q.country == c))}
        for t in cultural
    }
    each = sum(map(len, tasks)) * (1 + len(drawn)) + sum(
        len(part) for parts in own.values() for part in parts.values()
    )
    asked = sum(map(len, tasks))
    rows: list[dict[str, Any]] = []
    with progress_bar(
        asked + each * len(factors), f"ask with {len(factors)} factors", enabled=progress
    ) as advance:

        def ask(task: Task, neurons: NeuronSet | None = None, factor: float = 1.0) -> EvaluationResult:
            scale = None if neurons is None else factor
            return evaluate(
                model, task, neurons=neurons, scale=scale, batch_size=batch_size, progress=advance
            )

        base = {task.name: ask(task) for task in tasks}
        for factor in sorted(set(factors)):
            for task in tasks:
                before = base[task.name]
                rows.append(
                    _row(
                        GENERAL, factor, task.name, len(general), before, [ask(task, general, factor)], draws
                    )
                )
                if drawn:
                    rows.append(
                        _row(
                            RANDOM,
                            factor,
                            task.name,
                            len(general),
                            before,
                            [ask(task, n, factor) for n in drawn],
                            draws,
                        )
                    )
            for name, parts in own.items():
                answers = {c: ask(part, of_country[c], factor) for c, part in parts.items()}
                unchanged = {c: _of(base[name], part) for c, part in parts.items()}
                rows += [
                    _row(f"{c}'s own", factor, name, len(of_country[c]), unchanged[c], [answers[c]], draws)
                    for c in parts
                ]
                if len(parts) > 1:
                    before = EvaluationResult(
                        pd.concat([unchanged[c].table for c in parts], ignore_index=True)
                    )
                    after = EvaluationResult(pd.concat([answers[c].table for c in parts], ignore_index=True))
                    sizes = round(float(np.mean([len(of_country[c]) for c in parts])))
                    rows.append(_row(OWN, factor, name, sizes, before, [after], draws))
    return Enhancement(pd.DataFrame(rows), tuple(task.name for task in cultural))


def _of(result: EvaluationResult, part: Task) -> EvaluationResult:
    """The answers to some of the questions."""
    ids = {q.id for q in part}
    return EvaluationResult(
        result.table.loc[result.table["id"].isin(ids)].reset_index(drop=True), result.metadata
    )


def _row(
    name: str,
    factor: float,
    task: str,
    neurons: int,
    before: EvaluationResult,
    after: Sequence[EvaluationResult],
    draws: int,
) -> dict[str, Any]:
    """One point: the paired change (the mean over several sets) and its interval."""
    _, code = np.unique(before.table["cluster"].astype(str), return_inverse=True)
    sizes = np.bincount(code).astype(float)
    columns: Mapping[str, np.ndarray] = {
        column: 100
        * (
            np.mean([r.table[column].to_numpy(float) for r in after], axis=0)
            - before.table[column].to_numpy(float)
        )
        for column in ("correct", "p_answer")
    }
    gains = [np.bincount(code, weights=values) for values in columns.values()]

    def points(correct: np.ndarray, p: np.ndarray, size: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.stack([correct.sum(axis=axis), p.sum(axis=axis)]) / size.sum(axis=axis)

    drawn = bootstrap_draws((*gains, sizes), points, draws=draws)
    (low, p_low), (high, p_high) = np.percentile(drawn, [2.5, 97.5], axis=1)
    base = 100 * float(before.table["correct"].mean())
    change, p_change = (float(values.mean()) for values in columns.values())
    return {
        "set": name, "factor": factor, "task": task, "neurons": neurons, "questions": len(before), "clusters": len(sizes),
        "base": base, "accuracy": base + change, "change": change, "low": float(low), "high": float(high),
        "p_change": p_change, "p_low": float(p_low), "p_high": float(p_high),
    }  # fmt: skip
