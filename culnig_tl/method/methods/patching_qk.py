"""Attribution patching with the q/k correction of AtP* (Kramar et al. 2024, arXiv 2403.00745).

The gradient does not see attention's softmax saturate. The correction recomputes the attention pattern A with
the patched query or key, and is linear from the pattern on (as in the paper's section on false negatives from
saturated attention):

    I(n) = sum over heads, queries i, keys j of (A_ij(x) - A_ij(x; n = n(x'))) * dP(y|x)/dA_ij

In the paper a node is a head's whole query or key at one position; here it is a neuron, one coordinate of the
query or key, patched at all positions at once, as it is zeroed. The pattern is the model's own (q/k-norm,
rotary embedding, soft caps, sliding windows included): row c of a batch has coordinate c patched in every
head, which the pattern keeps apart, so one layer takes 2 * d_head rows through attention as far as its
pattern. A key neuron that several query heads share gets the sum over them. v and MLP neurons are those of
`atp`. The other half of AtP*, GradDrop, is not done.

Cost, beyond `atp`: 2 * d_head times attention's forward pass per question, so tens of forward passes: for
small models, or few questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.neurons import Site
from ...engine.hooks import HookPlace, SiteHooks
from ...engine.models import device_of, frozen, hook_name, last_logits
from ...errors import ScoreError
from ..asking import asking
from ..fanout import Edit, edit_hooks, fans_out
from .alignment import Alignment
from .base import Job, OwnMethod, PromptScorer, Values


class AttributionPatchingQK(OwnMethod):
    """Attribution patching, the attention pattern recomputed for q and k."""

    # Not cloze: it patches a whole prompt's keys at once, and in a cloze question's row the control's keys,
    # which are not to be patched, stand beside those of the question.
    name, family = "atp-qk", "atp-qk"
    about = "atp with AtP*'s correction: the softmax is recomputed for q and k"
    corrupted, costly, aggregation = True, True, "atp-qk"
    builds_on = ("atp",)

    @classmethod
    def prepare(cls, job: Job, methods: Sequence[Any]) -> PromptScorer:
        return Correction(job)


class Correction(PromptScorer):
    """Attribution patching at q and k of one prompt after another, corrected."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.sites = tuple(site for site in (Site.ATTN_Q, Site.ATTN_K) if site in job.sites)
        shortest = min(job.prompts, key=lambda p: len(p.tokens))
        self.early = fans_out(asking(job.model, [shortest]), self.sites) if self.sites else True

    def score(self, at: int) -> tuple[dict[str, Values], float]:
        if not self.sites:
            return {}, float("nan")
        values, p_answer = _corrected(self.job, at, list(self.sites), self.early)
        return {AttributionPatchingQK.name: values}, p_answer


class _PatternSeen(Exception):
    """The pattern is there; the rest of the forward pass is not needed."""


def _corrected(job: Job, at: int, sites: list[Site], early: bool) -> tuple[Values, float]:
    """One question's corrected attributions, and P(y|x)."""
    assert job.corrupted is not None
    clean, corrupted = job.prompts[at], job.corrupted[at]
    device = device_of(job.model)
    tokens = torch.tensor([clean.tokens], device=device)
    alignment = Alignment.of([clean], [corrupted], device)
    layers = job.info.layers_with(sites[0])
    placed: dict[HookPlace, Tensor] = {}  # [pos, neuron]: what is patched in
    patterns: dict[int, Tensor] = {}  # [head, query, key]
    slopes: dict[int, Tensor] = {}

    def keep_corrupted(place: HookPlace) -> Callable[..., None]:
        def hook(activation: Tensor, hook: Any) -> None:
            placed[place] = alignment.place(activation.flatten(2))[0]

        return hook

    def keep(into: dict[int, Tensor], layer: int) -> Callable[..., None]:
        def hook(pattern: Tensor, hook: Any) -> None:
            into[layer] = pattern.detach()[0]

        return hook

    places = [(site, layer) for site in sites for layer in layers]
    with (
        torch.no_grad(),
        frozen(job.model),
        job.model.hooks(fwd_hooks=[(hook_name(job.model, *p), keep_corrupted(p)) for p in places]),
    ):
        other = torch.tensor([corrupted.tokens], device=device)
        last_logits(job.model, other, torch.ones_like(other))
    names = {layer: job.model.hook_dict[f"blocks.{layer}.attn.hook_pattern"].name for layer in layers}
    forward = [(name, keep(patterns, layer)) for layer, name in names.items()]
    back = [(name, keep(slopes, layer)) for layer, name in names.items()]
    p_answer = float("nan")

    def objective() -> Float[Tensor, ""]:
        nonlocal p_answer
        right = asking(job.model, [clean]).ask().p_right.sum()
        p_answer = float(right.detach())
        return right

    hooks = SiteHooks(job.model, backward=sites)
    with hooks.installed(), job.model.hooks(fwd_hooks=forward, bwd_hooks=back):
        hooks.run(objective, lambda *seen: None)
    if len(slopes) < len(layers):
        raise ScoreError(
            "no gradient reached attention's pattern: this model does not compute it as TransformerLens"
            " names it"
        )

    found: dict[HookPlace, Tensor] = {}
    for layer in layers:
        heads = patterns[layer].shape[0]
        size = job.info.widths[Site.ATTN_Q] // heads
        patched = _patched_patterns(
            job, tokens, layer, {site: placed[site, layer] for site in sites}, size, names[layer], early
        )
        for site, pattern in patched.items():
            cost = torch.einsum(
                "rhij,hij->hr", (patterns[layer] - pattern).float(), slopes[layer].float()
            )  # [head, coordinate]
            owners = job.info.widths[site] // size  # key/value heads, for keys
            found[site, layer] = cost.view(owners, heads // owners, size).sum(1).flatten()
    return found, p_answer


def _patched_patterns(
    job: Job, tokens: Tensor, layer: int, placed: Mapping[Site, Tensor], size: int, name: str, early: bool
) -> dict[Site, Float[Tensor, "coordinate head query key"]]:
    """The attention pattern with each coordinate of the query, and of the key, patched in every head."""
    order = list(placed)
    seen: list[Tensor] = []

    def edit(number: int, site: Site) -> Edit:
        def patch(activation: Tensor) -> Tensor:
            changed = activation.clone()
            for coordinate in range(size):
                changed[number * size + coordinate, :, coordinate::size] = placed[site][:, coordinate::size]
            return changed

        return patch

    def stop(pattern: Tensor, hook: Any) -> None:
        seen.append(pattern)
        raise _PatternSeen

    rows = size * len(order)
    given = tokens if early else tokens.expand(rows, -1)
    hooks = [
        *edit_hooks(
            job.model, layer, rows, {site: edit(i, site) for i, site in enumerate(order)}, early=early
        ),
        (name, stop),
    ]
    with torch.no_grad(), frozen(job.model), job.model.hooks(fwd_hooks=hooks):
        try:
            last_logits(job.model, given, torch.ones_like(given))
        except _PatternSeen:
            pass
    return {site: seen[0][i * size : (i + 1) * size] for i, site in enumerate(order)}
