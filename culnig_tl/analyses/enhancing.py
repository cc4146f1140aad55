"""Enhancing: does scaling the neurons up raise accuracy on culture, on questions that they were not found on?

The sets' outputs are multiplied by 1.1 to 2 at all positions, and the same held-out questions are asked each
time. Intervals resample clusters of questions, paired with the unchanged answers. A country's own neurons are
tried on its own questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..data.scores import NeuronScores
from ..data.statistics import DRAWS, bootstrap_draws
from ..engine.models import HookedModel
from ..errors import ScoreError
from ..method.evaluation import evaluate
from ..method.selection import select_random
from ..progress import progress_bar
from ..study.config import GENERAL, SPECIFIC
from ..study.config import RANDOM as RANDOM_KINDS
from ..study.opened import OpenStudy, open_study
from ..study.study import Study
from ..tasks.question import Task

FACTORS: tuple[float, ...] = (1.1, 1.25, 1.5, 1.75, 2.0)
RANDOM, OWN = RANDOM_KINDS["layer"], "each country's own"
"""What the sets beside `GENERAL` are called in tables."""


@dataclass(frozen=True)
class Enhancement:
    """What multiplying the outputs of sets of neurons does, factor by factor."""

    rows: pd.DataFrame
    """One row per set, factor and task: neurons, questions, clusters, base and accuracy (percent), change
    with its 95% interval low..high (points), p_change with p_low..p_high (of P(answer), in points). OWN pools
    every country's questions, asked with its own neurons enhanced."""
    culture: tuple[str, ...]
    """Names of the tasks that are cultural."""

    def raised(self) -> pd.DataFrame:
        """The rows of cultural tasks, random sets aside, whose accuracy rose with an interval above 0."""
        tried = self._tried()
        return tried.loc[tried["low"] > 0].reset_index(drop=True)

    def sentence(self) -> str:
        """What was found, in one sentence written from the numbers."""
        tried: Any = self._tried()
        if tried.empty:
            return "No cultural task was asked."
        best = tried.loc[tried["change"].idxmax()]
        raised = self.raised()
        text = (
            f"the largest change is {best['change']:+.1f} points on {best['task']} ({best['set']}, x"
            f" {best['factor']:g}; 95% {best['low']:+.1f} to {best['high']:+.1f}, from {best['base']:.1f}%)"
        )
        if raised.empty and (tried["high"] < 0).all():
            return f"Enhancing raises cultural accuracy at none of {len(tried)} points: {text}."
        if raised.empty:
            return (
                "It is open whether enhancing raises cultural accuracy: no interval lies above 0 at any of"
                f" {len(tried)} points, and not all lie below; {text}."
            )
        return (
            f"Enhancing raises cultural accuracy beyond its interval at {len(raised)} of {len(tried)} points "
            f"(not corrected for trying them all): {text}."
        )

    def tables(self) -> dict[str, pd.DataFrame]:
        """File stem -> table."""
        return {"enhance": self.rows}

    def _tried(self) -> pd.DataFrame:
        rows = self.rows
        return rows.loc[rows["task"].isin(self.culture) & (rows["set"] != RANDOM)]

    def __str__(self) -> str:
        return f"{self.rows.round(2).to_string(index=False)}\n{self.sentence()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.rows.round(2).to_html(index=False)


def enhance(
    study: Study | OpenStudy | str | Path,
    *,
    factors: Sequence[float] = FACTORS,
    random_sets: int = 3,
    specific: bool = True,
    batch_size: int | str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> Enhancement:
    """A study's neurons scaled up, on questions that they were not found on: change of accuracy with 95%
    intervals.

    Args:
        study: its folder, or the study itself; device, dtype and data_dir as in `open_study`.
        factors: what the neurons' outputs are multiplied by.
        random_sets: layer-matched random sets beside the culture-general one.
        specific: each country's own neurons too.

    Raises:
        StudyError: the study's model or questions have changed. ScoreError: no factor.
    """
    opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir)
    done = opened.study
    return enhance_sweep(
        opened.model,
        opened.tasks,
        done.neurons[GENERAL],
        done.neurons.get(SPECIFIC) if specific else None,
        scores=done.scores["neuron"] if random_sets else None,
        random_sets=random_sets,
        factors=factors,
        base=opened.unchanged(opened.tasks),
        batch_size=batch_size,
        progress=progress,
    )


def enhance_sweep(
    model: HookedModel,
    tasks: Sequence[Task],
    general: NeuronSet,
    specific: NeuronSet | None = None,
    *,
    scores: NeuronScores | None = None,
    random_sets: int = 3,
    factors: Sequence[float] = FACTORS,
    base: EvaluationResult | None = None,
    batch_size: int | str = "auto",
    draws: int = DRAWS,
    progress: bool = True,
) -> Enhancement:
    """Multiplies the outputs of each set by each factor and asks the tasks.

    Args:
        tasks: cultural ones and others, whole or test splits: no question that neurons were found on.
        general: culture-general neurons.
        specific: culture-specific ones; each country's are tried on the cultural tasks' questions about that
            country.
        scores: of the same model; with them, layer-matched random sets of the general set's size are enhanced
            too.
        random_sets: how many of those.
        base: answers of the unchanged model to the tasks, where they are at hand.
        draws: of the bootstrap.

    Raises:
        ScoreError: no task or factor, or a question of the split that neurons are found on.
    """
    if not tasks or not factors:
        raise ScoreError("enhancing needs at least one task to ask and one factor")
    found_on = general.provenance.found_on
    seen = next((t.name for t in tasks if found_on(t.name) and any(q.split == "neuron" for q in t)), None)
    if seen is not None:
        raise ScoreError(f"task {seen!r} holds questions that neurons are found on: ask its test_split()")
    drawn = range(random_sets if scores is not None else 0)
    sets = [general, *(select_random(general, scores, seed=k, match="layer") for k in drawn)]  # type: ignore[arg-type]
    of_country = {c: specific.for_country(c) for c in specific.countries} if specific is not None else {}
    own = {task.name: _by_country(task, of_country) for task in tasks if task.culture}
    asked = sum(map(len, tasks))
    each = asked * len(sets) + sum(len(part) for parts in own.values() for part in parts.values())
    rows: list[dict[str, Any]] = []
    with progress_bar(
        (asked if base is None else 0) + each * len(factors),
        f"ask with {len(factors)} factors",
        enabled=progress,
    ) as advance:

        def ask(task: Task, neurons: NeuronSet | None = None, factor: float = 0.0) -> EvaluationResult:
            return evaluate(
                model, task, ablate=neurons, scale=factor, batch_size=batch_size, progress=advance
            )

        unchanged = {task.name: ask(task) if base is None else base.of_task(task.name) for task in tasks}
        for factor in sorted(set(factors)):
            for task in tasks:
                before, name = unchanged[task.name], task.name
                mine, *random = (ask(task, neurons, factor) for neurons in sets)
                rows.append(_row(GENERAL, factor, name, len(general), before, [mine], draws))
                if random:
                    rows.append(_row(RANDOM, factor, name, len(general), before, random, draws))
            for name, parts in own.items():
                pairs = {
                    c: (_of(unchanged[name], part), ask(part, of_country[c], factor))
                    for c, part in parts.items()
                }
                rows += _own_rows(factor, name, pairs, of_country, draws)
    return Enhancement(pd.DataFrame(rows), tuple(own))


def _by_country(task: Task, countries: Mapping[str, NeuronSet]) -> dict[str, Task]:
    """Country -> the task's questions about it, where there are some."""
    parts = {c: task.filter(lambda q, c=c: q.country == c) for c in countries}
    return {c: part for c, part in parts.items() if len(part)}


def _of(result: EvaluationResult, part: Task) -> EvaluationResult:
    """The answers to some of the questions."""
    ids = {q.id for q in part}
    table = result.table.loc[result.table["id"].isin(ids)].reset_index(drop=True)
    return EvaluationResult(table, result.metadata)


def _own_rows(
    factor: float,
    task: str,
    pairs: Mapping[str, tuple[EvaluationResult, EvaluationResult]],
    neurons: Mapping[str, NeuronSet],
    draws: int,
) -> list[dict[str, Any]]:
    """The points of each country's own neurons, and of all of these questions together."""
    rows = [
        _row(f"{c}'s own", factor, task, len(neurons[c]), before, [after], draws)
        for c, (before, after) in pairs.items()
    ]
    if len(pairs) > 1:
        before, after = (
            EvaluationResult(pd.concat([result.table for result in several], ignore_index=True))
            for several in zip(*pairs.values())
        )
        size = round(float(np.mean([len(neurons[c]) for c in pairs])))
        rows.append(_row(OWN, factor, task, size, before, [after], draws))
    return rows


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

    def change_of(column: str) -> np.ndarray:
        """[question] change in points."""
        mean = np.mean([r.table[column].to_numpy(float) for r in after], axis=0)
        return 100 * (mean - before.table[column].to_numpy(float))

    def points(correct: np.ndarray, p: np.ndarray, size: np.ndarray, axis: int = -1) -> np.ndarray:
        return np.stack([correct.sum(axis=axis), p.sum(axis=axis)]) / size.sum(axis=axis)

    changes = [change_of("correct"), change_of("p_answer")]
    gains = [np.bincount(code, weights=values) for values in changes]
    drawn = bootstrap_draws((*gains, sizes), points, draws=draws)
    (low, p_low), (high, p_high) = np.percentile(drawn, [2.5, 97.5], axis=1)
    base = 100 * float(before.table["correct"].mean())
    change, p_change = (float(values.mean()) for values in changes)
    return {
        "set": name,
        "factor": factor,
        "task": task,
        "neurons": neurons,
        "questions": len(before),
        "clusters": len(sizes),
        "base": base,
        "accuracy": base + change,
        "change": change,
        "low": float(low),
        "high": float(high),
        "p_change": p_change,
        "p_low": float(p_low),
        "p_high": float(p_high),
    }
