"""Random scores: what a method that knows nothing gets. Uniform in 0..1, seeded by ``seed=``; no pass at
all."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from .base import DerivedMethod, Job, Language, Totals


class Random(DerivedMethod):
    """Uniform random numbers."""

    name, about, aggregation = "random", "uniform random numbers", "random"
    cloze = True

    def derive(self, job: Job, scores: Mapping[str, Totals], language: Language | None) -> Totals:
        generator = torch.Generator().manual_seed(job.seed)
        shapes = {site: (len(job.rows), job.info.layers, job.info.widths[site]) for site in job.sites}
        drawn = {site: torch.rand(shape, generator=generator) for site, shape in shapes.items()}
        for site, table in drawn.items():
            for layer in range(job.info.layers):
                table[:, layer, job.info.width(site, layer) :] = 0
        return drawn
