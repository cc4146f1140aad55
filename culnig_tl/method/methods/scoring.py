"""`score_methods`: one task by several methods, each as `NeuronScores`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch

from ...data.neurons import SITES, Site
from ...data.scores import NO_COUNTRY, NeuronScores
from ...engine.context import within_context
from ...engine.run import prepare
from ...errors import ScoreError
from ...progress import Advance, progress_bar
from ...tasks.question import Task
from ...version import __version__
from .base import Job, Totals
from .registry import METHODS, parse_methods
from .together import run_methods


def score_by(model: Any, task: Task, method: str = "culnig", **options: Any) -> NeuronScores:
    """Scores every neuron of the model on a task by one method: `score_methods` with one name."""
    return score_methods(model, task, [method], **options)[method]


def score_methods(
    model: Any,
    task: Task,
    methods: Iterable[str] = tuple(METHODS),
    *,
    sites: Iterable[Site | str] = SITES,
    language: Task | None = None,
    batch_size: int | str | Sequence[int] = "auto",
    seed: int = 0,
    progress: bool | Advance = True,
) -> dict[str, NeuronScores]:
    """Scores every neuron by several methods; all that read the same pass share it.

    The one-pass gradient methods (culnig and its variants, atp) share one forward and one backward pass, the activation methods (lape,
    mean-difference) the same forward pass; ig, atp-qk and cape run their own.

    Args:
        methods: names of `METHODS`; all by default.
        sites: of the neurons. Methods of the gate alone score `mlp.gate` and nothing else.
        language: for cape, the task that language neurons are found on.
        seed: of the method "random".

    Returns:
        Method -> scores: arrays [country, layer, neuron], higher is more. Neurons of the MLP are always `mlp.gate`, wherever the
        method reads them (their metadata say where).

    Raises:
        ScoreError: an unknown method; a method that compares with the control on a task without one; cape without `language`; a site
            that the model lacks; NaN.
    """
    names = parse_methods(methods)
    unwanted = {Site.parse(site) for site in sites} - set(SITES)
    if unwanted:
        raise ScoreError(
            f"methods are compared on {', '.join(SITES)}; {min(unwanted)} is read by the methods that say so"
        )
    comparing = [name for name in names if METHODS[name].corrupted]
    if comparing and not task.has_control:
        raise ScoreError(f"method {comparing[0]!r} compares with the control prompt: {task.name} has none")
    if "cape" in names and language is None:
        raise ScoreError(
            "method 'cape' takes language neurons away: name the task they are found on (language=...)"
        )
    passes = sum(len(task) for name in names if METHODS[name].builds_on and name != "cape") + len(task)
    passes += len(task) * bool({"ig", "ig-all"} & set(names)) + (
        len(language) if language is not None and "cape" in names else 0
    )
    with progress_bar(passes, f"score {task.name} by {len(names)} methods", enabled=progress) as advance:
        options = {"sites": sites, "batch_size": batch_size, "seed": seed, "advance": advance}
        beside = (
            _job(model, language, language=None, corrupted=False, **options)
            if "cape" in names and language is not None
            else None
        )
        job = _job(model, task, language=beside, corrupted=bool(comparing), **options)
        found = run_methods(job, names)
    return {name: _scores(job, name, totals, seed) for name, totals in found.items()}


def _job(
    model: Any,
    task: Task,
    *,
    sites: Iterable[Site | str],
    language: Job | None,
    corrupted: bool,
    **options: Any,
) -> Job:
    info, wanted, prompts = prepare(model, task, sites)
    prompts, too_long = within_context(model, task, prompts)
    task = replace(task, questions=tuple(p.question for p in prompts)) if too_long else task
    others = prepare(model, task.control(), sites)[2] if corrupted else None
    countries = task.countries + ((NO_COUNTRY,) if any(q.country is None for q in task) else ())
    of_country = torch.tensor(
        [[float((q.country or NO_COUNTRY) == country) for q in task] for country in countries]
    )
    p_answer = torch.full((len(prompts),), torch.nan, dtype=torch.float64)
    return Job(
        model, info, task, wanted, prompts, others, countries, of_country, p_answer, language, **options
    )


def _scores(job: Job, name: str, totals: Totals, seed: int) -> NeuronScores:
    method = METHODS[name]()
    clusters = [
        {q.cluster for q in job.task if (q.country or NO_COUNTRY) == country} for country in job.countries
    ]
    return NeuronScores(
        arrays={site: table.float().numpy() for site, table in totals.items()},
        countries=job.countries,
        questions=tuple(int(n) for n in job.of_country.sum(1)),
        p_answer=tuple(float(p) for p in job.of_country.double() @ job.p_answer),
        clusters=job.task.cluster_count,
        country_clusters=tuple(map(len, clusters)),
        metadata={
            "model": job.info.name,
            "revision": job.info.revision,
            "dtype": job.info.dtype,
            "task": job.task.name,
            "fingerprint": job.task.fingerprint,
            "method": name,
            "aggregation": method.aggregation,
            "read_at": {site.value: str(method.reads(site)) for site in totals},
            "seed": seed,
            "version": __version__,
        },
    )
