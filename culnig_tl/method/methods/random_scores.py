"""Random scores: what a method that knows nothing gets. Uniform in 0..1, seeded by ``seed=``; no pass at all."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .base import Job, OwnMethod, Totals


class Random(OwnMethod):
    """Uniform random numbers."""

    name, about, aggregation = "random", "uniform random numbers", "random"

    def run(self, job: Job, finished: Mapping[str, Totals]) -> Totals:
        generator = torch.Generator().manual_seed(job.seed)
        shapes = {site: (len(job.countries), job.info.layers, job.info.widths[site]) for site in job.sites}
        return {site: torch.rand(shape, generator=generator) for site, shape in shapes.items()}
