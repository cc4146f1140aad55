"""Scoring: how much each neuron's output pushes the right answer, by CULNIG or any other method.

For a prompt x with right answer token y, a neuron's output n_i at token i, and P the softmax over the whole
vocabulary at the last position (CULNIG, arXiv 2510.08284):

    s_i(x, y) = n_i * dP(y|x)/dn_i
    s(x, y)   = max over the prompt's tokens i of s_i
    S_c(D)    = sum over the questions q of country c in D of P(y_q|x_q) * s(x_q, y_q)

One forward and one backward pass give s_i for all neurons at once; the reduction to S_c happens inside the
backward pass, so that no gradient outlives its layer. It is a first-order estimate of what zeroing the neuron
would cost; it does not see the softmax of attention saturate, so attention's q and k neurons are estimated
less well than the others.

`methods.culnig` has the first two formulas, and every other method its own file; the third is
`passes.shared_pass`, for all methods that read one pass. How a pass is run is in `engine.run`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import torch

from ..data.neurons import SITES, Site
from ..data.scores import NO_COUNTRY, NeuronScores
from ..engine.checkpoint import Checkpoint
from ..engine.cloze import asked_of
from ..engine.models import HookedModel, ModelInfo, describe, sites_of
from ..engine.prompts import Asked
from ..engine.run import Work
from ..errors import ScoreError
from ..progress import Advance, progress_bar
from ..tasks.question import Task
from ..version import __version__
from .methods.base import Job
from .methods.registry import METHODS, parse_methods
from .passes import Found, derived, groups, needed, on_language, run_groups
from .rows import country_rows, drawn_clusters, poisson_draws


@overload
def score_neurons(
    model: HookedModel,
    task: Task,
    *,
    method: str = ...,
    sites: Iterable[Site | str] = ...,
    language: Task | None = ...,
    batch_size: int | str | Sequence[int] = ...,
    bootstrap: int = ...,
    seed: int = ...,
    progress: bool | Advance = ...,
    checkpoint: str | Path | Checkpoint | None = ...,
    resume: bool = ...,
) -> NeuronScores: ...
@overload
def score_neurons(
    model: HookedModel,
    task: Task,
    *,
    method: list[str] | tuple[str, ...],
    sites: Iterable[Site | str] = ...,
    language: Task | None = ...,
    batch_size: int | str | Sequence[int] = ...,
    bootstrap: int = ...,
    seed: int = ...,
    progress: bool | Advance = ...,
    checkpoint: str | Path | Checkpoint | None = ...,
    resume: bool = ...,
) -> dict[str, NeuronScores]: ...
def score_neurons(
    model: HookedModel,
    task: Task,
    *,
    method: str | list[str] | tuple[str, ...] = "culnig",
    sites: Iterable[Site | str] = SITES,
    language: Task | None = None,
    batch_size: int | str | Sequence[int] = "auto",
    bootstrap: int = 0,
    seed: int = 0,
    progress: bool | Advance = True,
    checkpoint: str | Path | Checkpoint | None = None,
    resume: bool = False,
) -> NeuronScores | dict[str, NeuronScores]:
    """Scores every neuron of the model on a task, country by country; methods that read the same pass share
    it.

    Padding takes no part: a question's score is the same alone and in any batch up to rounding, of the
    largest score of its site and layer 1e-6 in float64 and 1e-4 in float32 (2.3e-5 seen on real weights). In
    bfloat16 no such bound holds: on real weights single questions moved by up to 0.64 of it between a padded
    batch and alone, as they do between bfloat16 and float32 (up to 0.52), though sums over 16 questions
    ranked neurons alike (Spearman above 0.999, 98% of the top 1%). ``batch_size="even"`` puts questions of
    one length together and pads none: on a CPU each then scores as alone, to the bit. A bfloat16 model's
    activations and gradients are multiplied and summed in float32: on small random models of five families
    its scores ranked neurons as float32's did (Spearman 0.9986 to 0.9998; 90% to all of the top 1%).

    Args:
        model: what `load_model` returns, or a bridge or HookedTransformer of the user's.
        task: the questions, e.g. ``load_task("blend", split="neuron")``, or its control.
        method: a name of `METHODS`, or several; "culnig" is the paper's.
        sites: of the neurons; the paper's are mlp.gate, attn.q, attn.k and attn.v. MLP neurons keep the name
            of the site that is asked for wherever a method reads them (``metadata["read_at"]``); methods of
            the gate alone score nothing else.
        language: for cape, the task that language neurons are found on.
        batch_size: questions per batch, "auto" for what fits in memory, "even" for what fits of one length
            each, or the ``batch_sizes`` of an earlier run's metadata.
        bootstrap: keep so many Poisson-bootstrap replicates of the scores as well (see
            `NeuronScores.replicate`), in which whole clusters of questions are drawn together; each takes the
            memory of the scores themselves.
        seed: of the replicates' draws (a cluster is drawn equally often for every task), and of the method
            "random".
        checkpoint: where the state is saved every so often; with `resume`, an earlier run's is carried on, to
            the same bytes.

    Where torch.distributed was started, the processes share the batches, and each returns the sum of all.
    Questions that do not fit in the model's context are left out; the log and ``metadata["too_long"]`` name
    them.

    Returns:
        float32 arrays [country, layer, neuron], one per site; for several methods, method -> scores.

    Raises:
        ScoreError: an empty task, an unknown method, one that compares with a control that the task lacks,
            cape without `language`, a site that the model lacks or that got no gradient, a float16 model, NaN
            or infinity (naming the question), not enough memory for one question.
        PromptError: a label that is not one token.
    """
    names = parse_methods([method] if isinstance(method, str) else method)
    _check(task, names, language)
    asked, job = _job(model, task, names, sites, bootstrap, seed)
    settings: dict[str, Any] = {
        "sites": [site.value for site in job.sites],
        "bootstrap": bootstrap,
        "seed": seed,
    }
    settings["method"] = method if isinstance(method, str) else list(names)
    here, theirs = needed(names)
    other = None
    if language is not None and theirs:
        _, other = _job(model, language, theirs, sites, 0, seed)
    passes = len(job.prompts) * len(groups(here)) + (len(other.prompts) if other is not None else 0)
    kept = Checkpoint.of(checkpoint, resume=resume)
    with progress_bar(passes, f"score {task.name}", enabled=progress) as advance:
        how: dict[str, Any] = {"batch_size": batch_size, "work": Work(settings=settings), "progress": advance}
        found = run_groups(job, here, checkpoint=kept, **how)
        beside = None if other is None else on_language(other, theirs, checkpoint=kept, **how)
    found |= {name: derived(name, job, found, beside) for name in names if name not in found}
    scores = {name: _scores(job, asked, name, found[name], bootstrap) for name in names}
    return scores[method] if isinstance(method, str) else scores


def _check(task: Task, names: Sequence[str], language: Task | None) -> None:
    """Raises `ScoreError` where a method cannot score this task, or lacks what it needs."""
    if language is None and "cape" in names:
        raise ScoreError(
            "method 'cape' takes language neurons away: name the task they are found on (language=...)"
        )
    unable = [name for name in names if task.form == "cloze" and not METHODS[name].cloze]
    if unable:
        able = ", ".join(name for name, method in METHODS.items() if method.cloze)
        raise ScoreError(f"method {unable[0]!r} does not score the cloze form: use {able}")
    comparing = [name for name in names if METHODS[name].corrupted]
    if comparing and not task.has_control:
        raise ScoreError(f"method {comparing[0]!r} compares with the control prompt: {task.name} has none")


def _job(
    model: HookedModel,
    task: Task,
    names: Sequence[str],
    sites: Iterable[Site | str],
    bootstrap: int,
    seed: int,
) -> tuple[Asked, Job]:
    """The questions as tokens, and what the methods need of them."""
    info = describe(model)
    wanted = sites_of(info, sites)
    comparing = [name for name in names if METHODS[name].corrupted]
    asked, corrupted = asked_of(model, task, control=bool(comparing)), None
    if task.form == "letters" and comparing:
        corrupted = Asked.of(model, asked.task.control()).prompts
    countries = asked.task.countries + ((NO_COUNTRY,) if any(q.country is None for q in asked.task) else ())
    of_country = country_rows(asked.task, countries)  # [country, question]
    draws = poisson_draws(asked.task, bootstrap, seed)
    rows = torch.cat(
        [of_country, *(of_country * draw for draw in draws)]
    )  # [country (and replicate after replicate), question]
    return asked, Job(
        model, info, asked.whole, asked.task, wanted, asked.prompts, corrupted, countries, rows, seed
    )


def _scores(job: Job, asked: Asked, name: str, found: Found, bootstrap: int) -> NeuronScores:
    """A method's sums as `NeuronScores`."""
    method, countries = METHODS[name](), job.countries
    for site, table in found.totals.items():
        if not torch.isfinite(table).all():
            raise ScoreError(
                f"method {name!r} gives NaN or infinite scores of {site} on {job.task.name}, in"
                f" {job.info.dtype}"
            )
    shaped = {
        site: table.float().view(1 + bootstrap, len(countries), *table.shape[1:]).numpy()
        for site, table in found.totals.items()
    }
    of_country = job.rows[: len(countries)]
    draws = poisson_draws(job.task, bootstrap, job.seed)
    ran = found.ran
    how = (
        {}
        if ran is None
        else {"native_attention": ran.native, "batch_sizes": ran.batch_sizes, "identity": ran.identity}
    )
    return NeuronScores(
        arrays={site: table[0] for site, table in shaped.items()},
        countries=countries,
        questions=tuple(int(n) for n in of_country.sum(1)),
        p_answer=tuple(float(p) for p in of_country.double() @ found.p_answer.double()),
        clusters=job.task.cluster_count,
        country_clusters=tuple(drawn_clusters(job.task, countries, torch.ones(len(job.task)))[1:]),
        metadata={
            "model": job.info.name,
            "revision": job.info.revision,
            "dtype": job.info.dtype,
            "task": job.task.name,
            "fingerprint": asked.whole.fingerprint,
            "form": job.task.form,
            "rows": job.task.row_count,
            "method": name,
            "aggregation": method.aggregation,
            "clamped": method.weighted and job.task.is_control,
            "read_at": {site.value: str(method.reads(site)) for site in found.totals},
            **_uneven(job.info, found.totals),
            "too_long": asked.too_long,
            "tokens_per_batch": None if ran is None else ran.tokens_per_batch,
            "seed": job.seed,
            "version": __version__,
            **how,
            **found.about,
        },
        replicates={site: table[1:] for site, table in shaped.items()} if bootstrap else {},
        replicate_clusters=tuple(drawn_clusters(job.task, countries, draw) for draw in draws),
    )


def _uneven(info: ModelInfo, sites: Iterable[Site]) -> dict[str, Any]:
    """Neurons by layer of the sites whose layers differ, for the metadata."""
    counts = {site: [info.width(site, layer) for layer in range(info.layers)] for site in sites}
    uneven = {site.value: own for site, own in counts.items() if len(set(own)) > 1}
    return {"by_layer": uneven} if uneven else {}
