"""Which questions random sets are asked: a part of each task, the same for all of them.

Their mean and spread need far fewer questions than the set that is claimed of. The part is a prefix of an
order of the task's clusters that the seed draws once, so a larger part holds every smaller one.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from ..data.results import EvaluationResult
from ..data.statistics import clustered_mean
from ..errors import TaskError
from ..tasks.question import Task, seeded_random

LEAST, LEAST_CLUSTERS = 300, 20
"""Questions and clusters of a task that are asked at least: fewer say little of their own error."""
STANDARD_ERROR = 0.5
"""Points: of one random set's paired drop, as an estimate of what it costs on all questions of the task."""


def part_of(task: Task, count: int, *, seed: int = 0) -> Task:
    """Whole clusters with `count` questions together, or as few more as their sizes allow, in the task's
    order.

    They are drawn at random by the seed, and stratified by country: every country, and clusters that are
    asked about several, are there in proportion. Raises `TaskError` for a count below 1.
    """
    if count < 1:
        raise TaskError(f"random sets are asked at least 1 question, not {count}")
    sizes: dict[str, int] = defaultdict(int)
    for question in task:
        sizes[question.cluster] += 1
    kept: set[str] = set()
    asked = 0
    for cluster in _drawn(task, seed):
        if asked >= count:
            break
        kept.add(cluster)
        asked += sizes[cluster]
    return task.filter(lambda question: question.cluster in kept)


def least_part(task: Task, *, seed: int = 0) -> Task:
    """The smallest part that random sets are asked: `LEAST` questions in `LEAST_CLUSTERS` clusters, or the
    whole task."""
    few = set(list(_drawn(task, seed))[:LEAST_CLUSTERS])
    return part_of(task, max(LEAST, sum(question.cluster in few for question in task)), seed=seed)


def questions_needed(base: EvaluationResult, ablated: EvaluationResult, task: Task) -> int:
    """Questions of a task that give one set's paired drop a standard error of `STANDARD_ERROR` points.

    With the error se of the drop on the n questions that were asked, over clusters, n0 = n (se / 0.5)^2 would
    do of endless questions, and n0 / (1 + n0 / N) do of the task's N.

    Args:
        base, ablated: answers of the unchanged model and with the set suppressed, to some of the questions.
    """
    table = ablated.table.loc[ablated.table["task"] == task.name]
    lost = base.shared_with(ablated).values(task.name) - ablated.values(task.name)
    _, error, _ = clustered_mean(lost, table["cluster"].to_numpy())
    if math.isnan(error):
        return len(task)
    endless = len(lost) * (100 * error / STANDARD_ERROR) ** 2
    return max(1, math.ceil(endless / (1 + endless / len(task))))


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


def _drawn(task: Task, seed: int) -> Iterator[str]:
    """All clusters in an order of which every prefix holds the strata in proportion."""
    countries: dict[str, set[str | None]] = defaultdict(set)
    for question in task:
        countries[question.cluster].add(question.country)
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
    return (cluster for _, cluster in sorted(places))
