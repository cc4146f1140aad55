"""Which questions are summed to which scores: a row per country, and per country of each bootstrap
replicate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..data.scores import NO_COUNTRY
from ..errors import ScoreError
from ..tasks.question import Task, seeded_random


def country_rows(task: Task, countries: Sequence[str]) -> Float[Tensor, "country question"]:
    """1 where the question is of the country."""
    row = {country: i for i, country in enumerate(countries)}
    at = torch.tensor([row[q.country or NO_COUNTRY] for q in task])
    return torch.nn.functional.one_hot(at, len(countries)).T.float()


def poisson_draws(task: Task, count: int, seed: int) -> list[Float[Tensor, " question"]]:
    """How often each question is drawn in each bootstrap replicate: Poisson(1), the same for a whole
    cluster."""
    if count < 0:
        raise ScoreError(f"bootstrap must be a number of replicates from 0, not {count}")
    if not count:
        return []
    drawn = {
        cluster: np.random.default_rng(seeded_random("bootstrap", seed, cluster).getrandbits(64)).poisson(
            1.0, count
        )
        for cluster in {q.cluster for q in task}
    }
    return [torch.tensor([float(drawn[q.cluster][k]) for q in task]) for k in range(count)]


def drawn_clusters(task: Task, countries: Sequence[str], draw: Float[Tensor, " question"]) -> tuple[int, ...]:
    """Clusters drawn, each as often as it was: of all questions, then of each country's."""
    times = [
        {q.cluster: int(n) for q, n in zip(task, draw) if which in (None, q.country or NO_COUNTRY)}
        for which in (None, *countries)
    ]
    return tuple(sum(of_cluster.values()) for of_cluster in times)
