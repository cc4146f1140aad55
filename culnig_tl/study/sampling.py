"""Which questions random sets are asked: a part of each task, the same for all of them.

Their mean and spread need far fewer questions than the set that is claimed of. The part is a prefix of an
order of the task's clusters that the seed draws once, so a larger part holds every smaller one.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ..data.results import EvaluationResult
from ..data.statistics import clustered_mean
from ..errors import TaskError
from ..tasks.question import Task, seeded_random

LEAST, LEAST_CLUSTERS = 300, 20
"""Questions and clusters of a task that are asked at least: fewer say little of their own error."""
STANDARD_ERROR = 0.5
"""Points: of one random set's paired drop, as an estimate of what it costs on all questions of the task."""
PASSES = 2
"""What all random sets together may cost to come so near, as a multiple of asking every question once."""


def part_of(task: Task, count: int, *, seed: int = 0) -> Task:
    """Whole clusters with `count` questions together, or as few more as their sizes allow, in the task's
    order.

    They are drawn at random by the seed, and stratified by country: every country, and clusters that are
    asked about several, are there in proportion. Raises `TaskError` for a count below 1.
    """
    if count < 1:
        raise TaskError(f"random sets are asked at least 1 question, not {count}")
    kept: set[str] = set()
    asked = 0
    for cluster, size in _drawn(task, seed):
        if asked >= count:
            break
        kept.add(cluster)
        asked += size
    return task.filter(lambda question: question.cluster in kept)


def least_part(task: Task, *, seed: int = 0) -> Task:
    """The smallest part that random sets are asked: `LEAST` questions in `LEAST_CLUSTERS` clusters, or the
    whole task."""
    few = sum(size for _, size in islice(_drawn(task, seed), LEAST_CLUSTERS))
    return part_of(task, max(LEAST, few), seed=seed)


def spread_of(base: EvaluationResult, ablated: EvaluationResult, task: str) -> float:
    """Points: sqrt(n) times the standard error, over clusters, of a set's paired drop on the n questions that
    were asked; 100, as if every answer changed, where they are of one cluster.

    Args:
        base, ablated: answers of the unchanged model and with the set suppressed, to some of the questions.
    """
    table = ablated.table.loc[ablated.table["task"] == task]
    lost = base.shared_with(ablated).values(task) - ablated.values(task)
    _, error, _ = clustered_mean(lost, table["cluster"].to_numpy())
    return 100.0 if math.isnan(error) else 100 * error * math.sqrt(len(lost))


def error_of(spread: float, asked: int, whole: int) -> float:
    """Points: the standard error of a drop on `asked` questions, as an estimate of that on a task's
    `whole`."""
    return spread * math.sqrt(1 / asked - 1 / whole) if asked < whole else 0.0


def questions_needed(spread: float, whole: int, error: float = STANDARD_ERROR) -> int:
    """Questions, of a task's `whole`, on which a drop of this spread has that standard error (`error_of`)."""
    return max(1, math.ceil(whole / (1 + whole * (error / spread) ** 2))) if spread > 0 else 1


def parts_needed(
    tasks: Sequence[Task], spreads: Sequence[float], *, sets: int, seed: int = 0
) -> tuple[Task, ...]:
    """What random sets are asked: as much of every task as gives one set's paired drop a standard error of
    `STANDARD_ERROR` points, or, where that costs more than `PASSES`, the least error that does not, the same
    for all tasks. No part is smaller than `least_part`.

    Args:
        spreads: of each task, see `spread_of`.
        sets: random sets of both kinds.
    """
    afforded, error = questions_afforded(tasks, sets=sets), STANDARD_ERROR
    least = [len(least_part(task, seed=seed)) for task in tasks]
    ends = [np.cumsum([size for _, size in _drawn(task, seed)]) for task in tasks]
    while True:
        needed = [questions_needed(spread, len(task), error) for task, spread in zip(tasks, spreads)]
        counts = [
            int(sizes[np.searchsorted(sizes, max(count, few))])  # whole clusters
            for count, few, sizes in zip(needed, least, ends)
        ]
        if sum(counts) <= afforded or counts == least:
            return tuple(part_of(task, count, seed=seed) for task, count in zip(tasks, counts))
        error *= 1.02


def questions_afforded(tasks: Sequence[Task], *, sets: int) -> float:
    """Questions of all tasks together that one random set is asked at `PASSES`."""
    return PASSES * sum(map(len, tasks)) / max(1, sets)


def questions_expected(tasks: Sequence[Task], *, sets: int) -> int:
    """Questions per task that random sets are taken to be asked until the first of them tells: what is
    afforded, shared alike, and `LEAST` at least."""
    return max(LEAST, int(questions_afforded(tasks, sets=sets) / max(1, len(tasks))))


def parts_known(tasks: Sequence[Task], info: Mapping[str, Any], *, seed: int) -> tuple[Task, ...]:
    """The parts of a study, from what its record says of them; the whole tasks where it says nothing."""
    known: Mapping[str, Any] = info.get("random_questions", {})
    return tuple(
        part_of(task, known[task.name]["questions"], seed=seed) if task.name in known else task
        for task in tasks
    )


def about_parts(parts: Sequence[Task]) -> dict[str, Any]:
    """What a study's record says of the questions that its random sets are asked."""
    return {
        part.name: {
            "questions": len(part),
            "clusters": part.cluster_count,
            "fingerprint": part.fingerprint,
        }
        for part in parts
    }


def without(task: Task, ids: Collection[str]) -> Task:
    """The task without the questions of these ids; it may be empty."""
    return task.filter(lambda question: question.id not in ids)


def _drawn(task: Task, seed: int) -> Iterator[tuple[str, int]]:
    """All clusters, and the questions in each, in an order of which every prefix holds the strata in
    proportion."""
    countries: dict[str, set[str | None]] = defaultdict(set)
    for question in task:
        countries[question.cluster].add(question.country)
    sizes = Counter(question.cluster for question in task)
    strata: dict[str, list[str]] = defaultdict(list)
    for cluster in sorted(countries):
        about = countries[cluster]
        strata[str(next(iter(about))) if len(about) == 1 else ""].append(cluster)
    places = []
    for name, clusters in sorted(strata.items()):
        random = seeded_random("random sets' questions", seed, task.name, name)
        random.shuffle(clusters)
        start = random.random()
        places += [((i + start) / len(clusters), cluster) for i, cluster in enumerate(clusters)]
    return ((cluster, sizes[cluster]) for _, cluster in sorted(places))
