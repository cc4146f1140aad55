"""Does suppressing a set cost more than suppressing any set of its size?

    base     = evaluate(model, task)
    ablated  = evaluate(model, task, ablate=general)
    random   = [evaluate(model, task, ablate=select_random(general, scores, seed=s)) for s in range(10)]
    compare(base, ablated, random).table()

A claim about culture can fail in three ways: random sets cost as much, tasks without culture lose as much, or
a rival set (as many neurons in every layer, chosen on a task without culture) costs culture as much.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from ..data.results import EvaluationResult
from ..data.statistics import DRAWS, Drop, compare_drops, holm
from ..errors import ScoreError, TaskError
from ..tasks.question import Task, seeded_random


@dataclass(frozen=True)
class Comparison:
    """What suppressing a set costs on each task, against other sets of the same size."""

    drops: Mapping[str, Drop]
    """Task -> drop."""

    def table(self) -> pd.DataFrame:
        """One row per task, in points: drop and its 95% interval, random sets, excess and its interval, p,
        rank; p by Holm over the tasks."""
        rows = {task: {**asdict(drop), "p_rank": drop.p_rank} for task, drop in self.drops.items()}
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")
        for column in ("p_bootstrap", "p_rank"):
            table.insert(
                list(table.columns).index(column) + 1, f"{column}_holm", holm(table[column].tolist())
            )
        return table

    def __str__(self) -> str:
        lines = []
        corrected = self.table()["p_bootstrap_holm"]
        for task, d in self.drops.items():
            lines.append(
                f"{task}: {d.base:.1f} -> {d.base - d.drop:.1f} (drop {d.drop:.1f}, 95% {d.low:.1f} to"
                f" {d.high:.1f}); random sets cost {d.random_mean:.1f} ± {d.random_sd:.1f}; excess"
                f" {d.excess:.1f} (95% {d.excess_low:.1f} to {d.excess_high:.1f}), p {d.p_bootstrap:.4f}"
                f" (Holm {corrected[task]:.4f}), rank {d.rank} of {d.random_sets + 1}"
                + (f", on {d.random_questions:,} questions" if d.random_questions < d.questions else "")
            )
        sets = min(drop.random_sets for drop in self.drops.values())
        return "\n".join(
            [*lines, f"The smallest possible p by rank is 1/{sets + 1} with {sets} sets to compare with."]
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table().round(4).to_html()


def compare(
    base: EvaluationResult,
    ablated: EvaluationResult,
    random_sets: Sequence[EvaluationResult],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Comparison:
    """Paired cluster bootstrap of a set's drop, and its rank among random sets, task by task.

    Args:
        base: answers of the unchanged model.
        ablated: answers with the set suppressed.
        random_sets: answers with each random set suppressed, to the same questions or to a part of them, the
            same for all. A rival set alone works too: the excess is then over the rival.
        draws, seed: of the bootstrap.

    Raises:
        ScoreError: no random set, or results of different questions or models.
    """
    if not random_sets:
        raise ScoreError("at least one random set is needed to compare with")
    for result in (ablated, *random_sets):
        for key in ("model", "revision"):
            if result.metadata.get(key) != base.metadata.get(key):
                raise ScoreError(
                    f"results to compare are of one model: {key} is {base.metadata.get(key)!r} and"
                    f" {result.metadata.get(key)!r}"
                )
    for task in map(str, random_sets[0].table["task"].unique()):
        for key in ("form", "normalise", "chat_template"):
            of_base, *others = (r.metadata.get(key, {}).get(task) for r in (base, ablated, *random_sets))
            if any(other != of_base for other in others):
                other = next(other for other in others if other != of_base)
                raise ScoreError(
                    f"results to compare are asked alike: {key} of {task} is {of_base!r} and {other!r}"
                )
    of_random = random_sets[0].asked
    if (
        not _same(ablated, base.asked)
        or not all(_same(result, of_random) for result in random_sets)
        or not _same(base.shared_with(random_sets[0]), of_random)
    ):
        raise ScoreError("results to compare must be of the same questions in the same order")
    tasks = dict.fromkeys(map(str, of_random["task"]))
    return Comparison(
        {task: task_drop(base, ablated, random_sets, task, draws=draws, seed=seed) for task in tasks}
    )


def _same(result: EvaluationResult, asked: pd.DataFrame) -> bool:
    return result.asked.reset_index(drop=True).equals(asked.reset_index(drop=True))


def task_drop(
    base: EvaluationResult,
    ablated: EvaluationResult,
    random_sets: Sequence[EvaluationResult],
    task: str,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> Drop:
    """What `compare` says of one task.

    A set's drop is taken over the questions that the unchanged model was asked too, and what is said against
    random sets over those of them that all random sets were asked.

    Raises:
        ScoreError: no random set, or no question that all were asked.
    """
    asked: list[pd.Series] = []
    for result in (base, ablated, *random_sets):
        ids = result.table.loc[result.table["task"] == task, "id"]
        asked.append(pd.Series(result.values(task), index=pd.Index(ids)))
    both = asked[0].index[asked[0].index.isin(asked[1].index)]
    part = np.logical_and.reduce(
        [both.isin(values.index) for values in asked[2:]] or [np.zeros(len(both), bool)]
    )
    table = base.table.loc[base.table["task"] == task].set_index("id")
    return compare_drops(
        asked[0].loc[both].to_numpy(),
        asked[1].loc[both].to_numpy(),
        [values.loc[both[part]].to_numpy() for values in asked[2:]],
        table.loc[both, "cluster"].to_numpy(),
        part=part,
        draws=draws,
        seed=seed,
    )


def halves(task: Task) -> tuple[Task, Task]:
    """(questions to find a rival's neurons on, questions to test on) of a task without culture.

    These are its own splits where it has them. A task with a single split, such as CommonsenseQA's validation
    rows, is cut in two by a hash of each question's cluster: no question is on both sides in different
    wordings, and every machine cuts alike.

    Raises `TaskError` where a half would be empty.
    """
    if any(question.split is not None for question in task):
        return task.neuron_split(), task.test_split()
    parts = (
        task.filter(lambda q: in_first_half(task.name, q.cluster)),
        task.filter(lambda q: not in_first_half(task.name, q.cluster)),
    )
    if not all(map(len, parts)):
        raise TaskError(f"task {task.name!r} has too few questions to be cut in two")
    return parts


def in_first_half(task: str, cluster: str) -> bool:
    """Whether `halves` puts a question of a task with a single split into its first half."""
    return seeded_random("halves", task, cluster).random() < 0.5
