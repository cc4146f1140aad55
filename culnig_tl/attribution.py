"""Attribution: how much each neuron's output pushes the right answer.

For a prompt x with right answer token y, a neuron's output n_i at token i, and P the softmax over the whole vocabulary
at the last position (CULNIG, arXiv 2510.08284):

    s_i(x, y) = n_i * dP(y|x)/dn_i
    s(x, y)   = max over the prompt's tokens i of s_i
    S_c(D)    = sum over the questions q of country c in D of P(y_q|x_q) * s(x_q, y_q)

One forward and one backward pass give s_i for all neurons at once; the reduction to S_c happens inside the backward
pass, so that no gradient outlives its layer. It is a first-order estimate of what zeroing the neuron would cost; it does
not see the softmax of attention saturate, so attention's q and k neurons are estimated less well than the others.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from . import __version__
from .errors import ScoreError
from .models import describe, device_of, frozen, last_logits, tokenizer_of
from .neurons import SITES, Site
from .progress import progress_bar
from .prompting import encode, pad, plan_batches
from .scores import NO_COUNTRY, NeuronScores
from .tasks.question import Question, Task

log = logging.getLogger(__name__)

Aggregation = Literal["max", "sum", "mean"]
LOW_P = 0.05
"""A mean P of all labels together under this is worth a warning: the prompt does not lead to a label."""

Receive = Callable[[Site, int, Tensor], None]
"""Called with (site, layer, products [batch, pos, neuron] in float32) from inside the backward pass."""


def score_neurons(
    model: Any,
    task: Task,
    *,
    sites: Iterable[Site | str] = SITES,
    aggregation: Aggregation = "max",
    batch_size: int | str = "auto",
    progress: bool = True,
) -> NeuronScores:
    """Scores every neuron of the model on a task: S_c for each country, in one pass over the questions.

    Each question's term of a control task is clamped at 0 from below, as in the paper. Padding takes no part: a question's
    score is the same alone and in any batch, up to rounding.

    Args:
        model: what `load_model` returns, or a bridge or HookedTransformer of the user's.
        task: the questions, e.g. ``load_task("blend").neuron_split()``, or its ``.control()``.
        sites: where neurons are read; the paper's are mlp.gate, attn.q, attn.k and attn.v.
        aggregation: over the prompt's tokens; "max" in the paper.
        batch_size: questions a batch, or "auto".

    Returns:
        float32 arrays [country, layer, neuron], one a site.

    Raises:
        ScoreError: an empty task, a site that the model lacks or that got no gradient, NaN or infinity (naming the question).
        PromptError: a label that is not one token.
    """
    if not len(task):
        raise ScoreError(f"task {task.name!r} holds no question to score")
    if aggregation not in ("max", "sum", "mean"):
        raise ScoreError(f"unknown aggregation {aggregation!r}: use max, sum or mean")
    info = describe(model)
    wanted = _present(info.widths, sites)
    tokenizer, device = tokenizer_of(model), device_of(model)
    prompts = encode(tokenizer, task.questions)
    plan = plan_batches([len(p.tokens) for p in prompts], batch_size, device)

    countries = task.countries + ((NO_COUNTRY,) if any(q.country is None for q in task) else ())
    row = {country: i for i, country in enumerate(countries)}
    clamp = task.name.endswith(":control")
    totals: dict[tuple[Site, int], Tensor] = {}  # [country, neuron] each, on the activation's device
    p_answer = torch.zeros(len(countries), dtype=torch.float64)
    p_labels = 0.0

    with progress_bar(len(prompts), f"score {task.name}", enabled=progress) as advance:
        for batch in plan:
            chosen = [prompts[i] for i in batch]
            tokens, mask = pad(chosen, tokenizer, device)
            where = torch.tensor([row[p.question.country or NO_COUNTRY] for p in chosen])
            weight = torch.zeros(len(chosen), device=device, dtype=torch.float64 if info.dtype == "float64" else torch.float32)  # P(answer)
            health = torch.zeros_like(weight)

            def add(site: Site, layer: int, products: Float[Tensor, "batch pos neuron"]) -> None:
                score = aggregate(products, mask.to(products.device).bool(), aggregation)  # [batch, neuron]
                if clamp:
                    score = score.clamp(min=0)
                score = score * weight.to(score.device)[:, None]
                key = (site, layer)
                if key not in totals:
                    totals[key] = torch.zeros(len(countries), score.shape[1], device=score.device, dtype=score.dtype)
                totals[key].index_add_(0, where.to(score.device), score)
                health.add_(score.sum(-1).to(device))

            labels = torch.tensor([list(dict.fromkeys([*p.option_tokens, p.answer_token])) for p in chosen], device=device)
            answers = torch.tensor([p.answer_token for p in chosen], device=device)

            def objective(logits: Float[Tensor, "batch vocab"]) -> Tensor:
                nonlocal p_labels
                probabilities = logits.softmax(-1)
                right = probabilities.gather(1, answers[:, None]).squeeze(1)
                weight.copy_(right.detach())
                p_labels += probabilities.detach().gather(1, labels).sum().item()
                return right.sum()

            backward(model, tokens, mask, wanted, objective, add)
            broken = ~torch.isfinite(health)
            if broken.any():
                question = chosen[int(broken.nonzero()[0])].question
                raise ScoreError(f"question {question.id!r} of {task.name} gives NaN or infinite scores in {info.dtype}")
            p_answer.index_add_(0, where, weight.double().cpu())
            advance(len(batch))

    if p_labels / len(prompts) < LOW_P:
        end = tokenizer.decode(prompts[0].tokens[-20:])
        log.warning("task %s: the labels together get a probability of only %.4f; the first prompt ends in %r", task.name, p_labels / len(prompts), end)
    arrays = {site: torch.stack([totals[site, layer] for layer in range(info.layers)], dim=1).float().cpu().numpy() for site in wanted}
    return NeuronScores(
        arrays=arrays,
        countries=countries,
        questions=tuple(sum((q.country or NO_COUNTRY) == c for q in task) for c in countries),
        p_answer=tuple(float(p) for p in p_answer),
        clusters=task.cluster_count,
        country_clusters=tuple(len({q.cluster for q in task if (q.country or NO_COUNTRY) == c}) for c in countries),
        metadata={
            "model": info.name,
            "revision": info.revision,
            "dtype": info.dtype,
            "task": task.name,
            "fingerprint": task.fingerprint,
            "aggregation": aggregation,
            "clamped": clamp,
            "batch_sizes": [len(batch) for batch in plan],
            "version": __version__,
        },
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
        return f"PromptScores: P({self.answer!r}) = {self.p_answer:.3f} after {len(self.tokens)} tokens; [layer, position, neuron]: {shapes}"

    __repr__ = __str__


def score_prompt(model: Any, prompt: str | Question, answer: str | None = None, *, sites: Iterable[Site | str] = SITES) -> PromptScores:
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
        question = Question("prompt", "prompt", "prompt", prompt, (answer,), answer)
    else:
        question = prompt
    info, tokenizer = describe(model), tokenizer_of(model)
    wanted = _present(info.widths, sites)
    (encoded,) = encode(tokenizer, [question])
    tokens, mask = pad([encoded], tokenizer, device_of(model))
    products: dict[tuple[Site, int], Tensor] = {}
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
        arrays={site: torch.stack([products[site, layer] for layer in range(info.layers)]).numpy() for site in wanted},
        tokens=tuple(tokenizer.convert_ids_to_tokens(list(encoded.tokens))),
        answer=question.answer,
        p_answer=float(probabilities[encoded.answer_token]),
        top_tokens=tuple((tokenizer.decode([int(i)]), float(p)) for p, i in zip(best.values, best.indices)),
    )


def aggregate(
    products: Float[Tensor, "batch pos neuron"], real: Bool[Tensor, "batch pos"], how: Aggregation
) -> Float[Tensor, "batch neuron"]:
    """s from s_i: over the real tokens alone."""
    if how == "max":
        return products.masked_fill(~real[:, :, None], -torch.inf).amax(1)
    total = products.masked_fill(~real[:, :, None], 0.0).sum(1)
    return total if how == "sum" else total / real.sum(1)[:, None]


def backward(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    sites: Iterable[Site],
    objective: Callable[[Tensor], Tensor],
    receive: Receive,
) -> None:
    """One forward and one backward pass; `receive` gets activation times gradient of every site and layer on the way back.

    Parameters are frozen: the graph starts at the embedding and reaches activations alone.

    Raises `ScoreError` naming a hook that got no gradient.
    """
    waiting = {(site, layer) for site in sites for layer in range(int(model.cfg.n_layers))}
    activations: dict[tuple[Site, int], Tensor] = {}

    def start_graph(embedding: Tensor, hook: Any) -> Tensor:
        return embedding.requires_grad_(True)

    def remember(site: Site, layer: int):
        def forward_hook(activation: Tensor, hook: Any) -> None:
            activations[site, layer] = activation.detach()

        return forward_hook

    def multiply(site: Site, layer: int):
        def backward_hook(gradient: Tensor, hook: Any) -> None:
            activation = activations.pop((site, layer))
            wide = torch.promote_types(activation.dtype, torch.float32)
            product = activation.to(wide) * gradient.to(wide)  # [batch, pos, neuron] or [batch, pos, head, d_head]
            receive(site, layer, product.flatten(2))
            waiting.discard((site, layer))

        return backward_hook

    hooks = sorted(waiting, key=lambda k: (k[1], k[0].value))
    forward = [("hook_embed", start_graph), *((s.hook_name(layer), remember(s, layer)) for s, layer in hooks)]
    back = [(s.hook_name(layer), multiply(s, layer)) for s, layer in hooks]
    with frozen(model), torch.enable_grad(), model.hooks(fwd_hooks=forward, bwd_hooks=back):
        objective(last_logits(model, tokens, mask)).backward()
    if waiting:
        site, layer = min(waiting, key=lambda k: (k[1], k[0].value))
        raise ScoreError(f"no gradient reached {site.hook_name(layer)}: this model does not use {site} as TransformerLens names it")


def _present(widths: dict[Site, int], sites: Iterable[Site | str]) -> tuple[Site, ...]:
    wanted = {Site.parse(site) for site in sites}
    missing = [site for site in wanted if site not in widths]
    if missing or not wanted:
        have = ", ".join(map(str, widths))
        raise ScoreError(f"this model has no site {missing[0]}: it has {have}" if missing else f"no site is asked for: the model has {have}")
    return tuple(site for site in Site if site in wanted)


