"""Attribution: how much each neuron's output pushes the right answer.

For a prompt x with right answer token y, a neuron's output n_i at token i, and P the softmax over the whole vocabulary
at the last position (CULNIG, arXiv 2510.08284):

    s_i(x, y) = n_i * dP(y|x)/dn_i
    s(x, y)   = max over the prompt's tokens i of s_i
    S_c(D)    = sum over the questions q of country c in D of P(y_q|x_q) * s(x_q, y_q)

One forward and one backward pass give s_i for all neurons at once; the reduction to S_c happens inside the backward
pass, so that no gradient outlives its layer. It is a first-order estimate of what zeroing the neuron would cost; it does
not see the softmax of attention saturate, so attention's q and k neurons are estimated less well than the others.

Read from top to bottom: `aggregate` is the second formula, `score_neurons` the third, `score_prompt` shows the first along one
prompt. How the passes are run is in `passes`; chosen neurons question by question are in `closeup`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ..data.neurons import SITES, Site
from ..data.scores import NO_COUNTRY, NeuronScores
from ..engine.checkpoint import Course, Saving
from ..engine.context import within_context
from ..engine.identity import identity, model_identity
from ..engine.models import device_of, tokenizer_of
from ..engine.prompts import Prompt, pad, plan_batches
from ..engine.run import Place, backward, each_batch, gradients, prepare, probe, tokens_that_fit
from ..engine.world import ranks
from ..errors import ScoreError
from ..progress import Advance, progress_bar
from ..tasks.question import Question, Task, seeded_random
from ..version import __version__
from .closeup import QuestionScores, question_scores

log = logging.getLogger(__name__)

__all__ = ["PromptScores", "QuestionScores", "aggregate", "question_scores", "score_neurons", "score_prompt"]

Aggregation = Literal["max", "sum", "mean"]
LOW_P = 0.05
"""A mean P of all labels together under this is worth a warning: the prompt does not lead to a label."""
CHECK_EVERY = 64
"""Batches between two looks for NaN: each look waits for the device."""


def aggregate(
    products: Float[Tensor, "batch pos neuron"], real: Bool[Tensor, "batch pos"] | None, how: Aggregation
) -> Float[Tensor, "batch neuron"]:
    """s from s_i: over the real tokens alone (None: all are real). Overwrites the products at padding."""
    if real is not None:
        products.masked_fill_(~real[:, :, None], -torch.inf if how == "max" else 0.0)
    if how == "max":
        return products.amax(1)
    total = products.sum(1)
    if how == "sum":
        return total
    return total / (products.shape[1] if real is None else real.sum(1)[:, None])


def score_neurons(
    model: Any,
    task: Task,
    *,
    sites: Iterable[Site | str] = SITES,
    aggregation: Aggregation = "max",
    batch_size: int | str | Sequence[int] = "auto",
    bootstrap: int = 0,
    seed: int = 0,
    progress: bool | Advance = True,
    saving: Saving | None = None,
) -> NeuronScores:
    """Scores every neuron of the model on a task: S_c for each country, in one pass over the questions.

    Each question's term of a control task is clamped at 0 from below, as in the paper. Padding takes no part: a question's
    score is the same alone and in any batch up to rounding, of the largest score of its site and layer 1e-6 in float64,
    1e-4 in float32 (4e-6 seen) and 0.1 in bfloat16 (0.04 seen; Spearman over neurons above 0.999). A bfloat16 model's
    activations and gradients are multiplied and summed in float32: on small random models of five families its scores ranked
    neurons as float32's did (Spearman 0.9986 to 0.9998; 90% to all of the top 1%).

    Args:
        model: what `load_model` returns, or a bridge or HookedTransformer of the user's.
        task: the questions, e.g. ``load_task("blend").neuron_split()``, or its ``.control()``.
        sites: where neurons are read; the paper's are mlp.gate, attn.q, attn.k and attn.v.
        aggregation: over the prompt's tokens; "max" in the paper.
        batch_size: questions a batch, "auto" for what fits in memory, or the ``batch_sizes`` of an earlier run's metadata.
        bootstrap: keep so many Poisson-bootstrap replicates of the scores as well (see `NeuronScores.replicate`), in which
            whole clusters of questions are drawn together; each takes the memory of the scores themselves.
        seed: of the replicates' draws; the same cluster is drawn equally often for every task.
        saving: where the state is saved every so often, and gone on from after a kill, to the same bytes (see `Saving`).

    Where torch.distributed was started, the processes share the batches, and each returns the sum of all. Questions that do not
    fit in the model's context are left out; the log and ``metadata["too_long"]`` name them.

    Returns:
        float32 arrays [country, layer, neuron], one a site.

    Raises:
        ScoreError: an empty task, a site that the model lacks or that got no gradient, a float16 model, NaN or infinity
            (naming the question), not enough memory for one question.
        PromptError: a label that is not one token.
    """
    if aggregation not in ("max", "sum", "mean"):
        raise ScoreError(f"unknown aggregation {aggregation!r}: use max, sum or mean")
    info, wanted, prompts = prepare(model, task, sites)
    prompts, too_long = within_context(model, task, prompts)
    asked, task = task, replace(task, questions=tuple(p.question for p in prompts)) if too_long else task
    tokenizer, device = tokenizer_of(model), device_of(model)
    lengths = [len(p.tokens) for p in prompts]
    key = None
    if saving is not None:
        settings = {
            "sites": [site.value for site in wanted],
            "aggregation": aggregation,
            "bootstrap": bootstrap,
            "seed": seed,
        }
        key = identity(model_identity(model) if saving.model is None else saving.model, **settings)

    def decide() -> dict[str, Any]:
        tried = probe(model, wanted, min(prompts, key=lambda p: len(p.tokens)).tokens)
        most = saving.tokens_a_batch if saving is not None else None
        most = most or min(ranks().collect(tokens_that_fit(model, tried.bytes_a_token)))
        plan = plan_batches(lengths, batch_size, device, most_tokens=most, padding=tried.padding)
        return {"sizes": [len(batch) for batch in plan], "native": tried.native, "tokens_a_batch": most}

    course = Course(
        {"identity": key, "questions": {asked.name: asked.fingerprint}},
        saving,
        decide,
        lambda decided: plan_batches(lengths, decided["sizes"]),
        at_once=True,
    )
    clamp = task.name.endswith(":control")

    countries = asked.countries + ((NO_COUNTRY,) if any(q.country is None for q in asked) else ())
    of_country = _indicator(task, countries)  # [country, question]
    draws = _poisson_draws(task, bootstrap, seed)  # [replicate, question]
    rows = torch.cat(
        [of_country, *(of_country * draw for draw in draws)]
    )  # [country (and replicate after replicate), question]

    number = torch.float64 if info.dtype == "float64" else torch.float32
    before = course.tensors  # of the state that this goes on from
    p_answer, p_labels, right_most, health = (
        before.pop(name, torch.zeros(len(prompts), dtype=number)).to(device)
        for name in ("p_answer", "p_labels", "right_most", "health")
    )  # a question each
    totals: dict[Place, Float[Tensor, "row neuron"]] = {}  # on the activation's device
    batches_run = 0

    def total(site: Site, layer: int, like: Tensor) -> Float[Tensor, "row neuron"]:
        if (site, layer) not in totals:
            stored = before.pop(f"{site} {layer}", None)
            zeros = torch.zeros(len(rows), info.widths[site], device=like.device, dtype=number)
            totals[site, layer] = zeros if stored is None else stored.to(zeros)
        return totals[site, layer]

    def check_health() -> None:
        broken = ~torch.isfinite(health + p_answer)
        if broken.any():
            question = prompts[int(broken.nonzero()[0])].question
            raise ScoreError(
                f"question {question.id!r} of {task.name} gives NaN or infinite scores in {info.dtype}"
            )

    def work(batch: list[int], done: set[Place]) -> None:
        nonlocal batches_run
        chosen = [prompts[i] for i in batch]
        tokens, mask = pad(chosen, tokenizer, device)
        real = mask.bool() if len({len(p.tokens) for p in chosen}) > 1 else None
        at = torch.tensor(batch, device=device)
        labels = torch.tensor(_label_rows(chosen), device=device)
        answers = torch.tensor([p.answer_token for p in chosen], device=device)
        share = rows[:, batch].to(device, number)

        def objective(logits: Float[Tensor, "batch vocab"]) -> Float[Tensor, ""]:
            p = logits.softmax(-1)
            right = p.gather(1, answers[:, None]).squeeze(1)
            p_answer[at] = right.detach()
            right_most[at] = (p.argmax(-1) == answers).to(number)
            p_labels[at] = (p.detach().gather(1, labels.clamp(min=0)) * (labels >= 0)).sum(1)
            share.mul_(right.detach())  # P(y|x), the weight of the question
            return right.sum()

        def add(site: Site, layer: int, products: Float[Tensor, "batch pos neuron"]) -> None:
            if (site, layer) in done:
                return
            s = aggregate(
                products, real if real is None else real.to(products.device), aggregation
            )  # [batch, neuron]
            if clamp:
                s = s.clamp(min=0)
            health.index_add_(0, at, s.sum(-1).to(device))
            total(site, layer, s).addmm_(
                share.to(s.device), s
            )  # S_c += sum over the batch's questions of P * s
            done.add((site, layer))

        run(tokens, mask, objective, add)
        batches_run += 1
        if batches_run % CHECK_EVERY == 1:
            check_health()

    def snapshot() -> dict[str, Tensor]:
        check_health()
        questions = {"p_answer": p_answer, "p_labels": p_labels, "right_most": right_most, "health": health}
        return {**questions, **{f"{site} {layer}": sums for (site, layer), sums in totals.items()}, **before}

    bar = progress_bar(len(prompts), f"score {task.name}", enabled=progress)
    with (
        gradients(model, wanted, native=course.decided["native"]) as run,
        bar as advance,
        course.saved(snapshot) as after,
    ):
        each_batch(course.plan, lengths, work, course.advancing(advance), ledger=course.ledger, after=after)
        check_health()
    for site, layer in ((site, layer) for layer in range(info.layers) for site in wanted):
        course.ranks.add(total(site, layer, p_answer))
    for of_question in (p_answer, p_labels, right_most):
        course.ranks.add(of_question)  # each question was asked by one process alone
    mean_labels = float(p_labels.mean())
    if mean_labels < LOW_P:
        end = tokenizer.decode(prompts[0].tokens[-20:])
        log.warning(
            "task %s: the labels together get a probability of only %.4f; the first prompt ends in %r",
            task.name,
            mean_labels,
            end,
        )

    stacked = {
        site: torch.stack([totals[site, layer].float().cpu() for layer in range(info.layers)], dim=1)
        for site in wanted
    }
    by_replicate = {
        site: table.view(1 + bootstrap, len(countries), *table.shape[1:]).numpy()
        for site, table in stacked.items()
    }
    return NeuronScores(
        arrays={site: table[0] for site, table in by_replicate.items()},
        countries=countries,
        questions=tuple(int(n) for n in of_country.sum(1)),
        p_answer=tuple(float(p) for p in of_country.double() @ p_answer.double().cpu()),
        clusters=task.cluster_count,
        country_clusters=tuple(_drawn_clusters(task, countries, torch.ones(len(task)))[1:]),
        metadata={
            "model": info.name,
            "revision": info.revision,
            "dtype": info.dtype,
            "task": task.name,
            "fingerprint": asked.fingerprint,
            "aggregation": aggregation,
            "clamped": clamp,
            "p_labels": mean_labels,
            "two_token_labels": sorted(
                {label for prompt in prompts for label in prompt.two_token_labels}
            ),  # by their first token
            "accuracy": float(right_most.mean()),
            "native_attention": course.decided["native"],
            "batch_sizes": course.sizes(),
            "tokens_a_batch": course.decided["tokens_a_batch"],
            "too_long": too_long,
            "identity": key,
            "version": __version__,
        },
        replicates={site: table[1:] for site, table in by_replicate.items()} if bootstrap else {},
        replicate_clusters=tuple(_drawn_clusters(task, countries, draw) for draw in draws),
    )


@dataclass(frozen=True)
class PromptScores:
    """Attribution along one prompt, before any aggregation."""

    arrays: dict[Site, Float[np.ndarray, "layer pos neuron"]]
    """s_i = n_i * dP/dn_i for every neuron and token."""
    tokens: tuple[str, ...]
    answer: str
    p_answer: float
    top_tokens: tuple[tuple[str, float], ...] = field(default=())
    """The ten likeliest next tokens with their probabilities."""

    def __str__(self) -> str:
        shapes = ", ".join(f"{site} {'x'.join(map(str, array.shape))}" for site, array in self.arrays.items())
        tokens = len(self.tokens)
        return f"PromptScores: P({self.answer!r}) = {self.p_answer:.3f} after {tokens} tokens; [layer, position, neuron]: {shapes}"

    __repr__ = __str__


def score_prompt(
    model: Any, prompt: str | Question, answer: str | None = None, *, sites: Iterable[Site | str] = SITES
) -> PromptScores:
    """Scores one prompt, token by token: the first look at what a neuron does.

    Args:
        prompt: what the user says (the chat template is applied), or a `Question`.
        answer: the answer whose probability is explained; one token. A question brings its own.

    Raises:
        ScoreError: a text without an answer. PromptError: an answer that is not one token.
    """
    if isinstance(prompt, str):
        if answer is None:
            raise ScoreError('score_prompt(model, "a text", answer="B"): the answer is missing')
        prompt = Question("prompt", "prompt", "prompt", prompt, (answer,), answer)
    alone = Task("prompt", (prompt,))
    info, wanted, found = prepare(model, alone, sites)
    (encoded,), _ = within_context(model, alone, found)
    tokenizer = tokenizer_of(model)
    tokens, mask = pad([encoded], tokenizer, device_of(model))
    products: dict[Place, Tensor] = {}
    probabilities = torch.zeros(0)

    def keep(site: Site, layer: int, product: Tensor) -> None:
        products[site, layer] = product[0].cpu()

    def objective(logits: Tensor) -> Tensor:
        nonlocal probabilities
        p = logits.softmax(-1)
        probabilities = p.detach()[0].cpu()
        return p[0, encoded.answer_token]

    backward(model, tokens, mask, wanted, objective, keep)
    best = probabilities.topk(min(10, len(probabilities)))
    return PromptScores(
        arrays={
            site: torch.stack([products[site, layer] for layer in range(info.layers)]).numpy()
            for site in wanted
        },
        tokens=tuple(tokenizer.convert_ids_to_tokens(list(encoded.tokens))),
        answer=prompt.answer,
        p_answer=float(probabilities[encoded.answer_token]),
        top_tokens=tuple((tokenizer.decode([int(i)]), float(p)) for p, i in zip(best.values, best.indices)),
    )


# ------------------------------------------------------------------------------------------------------------- helpers


def _label_rows(prompts: Sequence[Prompt]) -> list[list[int]]:
    """The distinct label tokens of each prompt, filled up with -1."""
    rows = [list(dict.fromkeys([*p.option_tokens, p.answer_token])) for p in prompts]
    width = max(map(len, rows))
    return [row + [-1] * (width - len(row)) for row in rows]


def _indicator(task: Task, countries: Sequence[str]) -> Float[Tensor, "country question"]:
    """1 where the question is of the country."""
    row = {country: i for i, country in enumerate(countries)}
    at = torch.tensor([row[q.country or NO_COUNTRY] for q in task])
    return torch.nn.functional.one_hot(at, len(countries)).T.float()


def _poisson_draws(task: Task, count: int, seed: int) -> list[Float[Tensor, " question"]]:
    """How often each question is drawn in each bootstrap replicate: Poisson(1), the same for a whole cluster."""
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


def _drawn_clusters(
    task: Task, countries: Sequence[str], draw: Float[Tensor, " question"]
) -> tuple[int, ...]:
    """Clusters drawn, each as often as it was: of all questions, then of each country's."""
    times = [
        {q.cluster: int(n) for q, n in zip(task, draw) if which in (None, q.country or NO_COUNTRY)}
        for which in (None, *countries)
    ]
    return tuple(sum(of_cluster.values()) for of_cluster in times)
