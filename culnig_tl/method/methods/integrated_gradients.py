"""Integrated gradients, as in knowledge neurons (Dai et al. 2022, arXiv 2104.08696, equations as in its
section on knowledge attribution).

With P(w) the probability of the right answer while a neuron's activation is w, its unchanged value v,
baseline 0 and m = 20 steps:

    Attr = v * integral over a from 0 to 1 of dP(a v)/dw
         ~ v / m * sum over k = 1..m of dP(k/m v)/dw

The formula speaks of one neuron. (Its integral is then nothing but P(v) - P(0): the exact effect of zeroing
it.) What is computed, here as in the authors' code, scales all neurons of one site of one layer together by
k/m, so that one backward pass serves them all: their attributions add up to what zeroing the whole site of
that layer costs (completeness), and a single neuron's is its share of that. As in the paper, MLP neurons are
read behind the activation function (``mlp.post``); attention's neurons, which the paper leaves out, at their
own sites.

    ig      scales the last position alone, as the paper does at the mask; of a cloze question the positions
            that predict the options' tokens, after the prompt and after the control
    ig-all  scales all positions at once, and sums the attribution over them

A country's score is the plain sum over its questions; the paper's threshold per prompt and its sharing among
prompts are not used.

Cost: m forward and backward passes from each layer on, per site, so about m * sites * (layers + 1) / 2 of the
other methods' backward passes per question. One layer's sites, steps and both variants run as the rows of one
batch that fans out of one row at that layer (`culnig_tl.method.fanout`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.neurons import Site
from ..asking import Asking, asking, asking_one
from ..fanout import Edit, ask_rows, fans_out, rows_that_fit
from .base import Job, OwnMethod, PromptScorer, Values

STEPS = 20
"""m in the paper."""
Variant = Literal["last", "all"]


class IntegratedGradients(OwnMethod):
    """Integrated gradients at the last position."""

    name, family = "ig", "ig"
    about = "integrated gradients from 0 in 20 steps, last position (knowledge neurons)"
    contrast, costly, cloze, aggregation = True, True, True, "ig"
    variant: ClassVar[Variant] = "last"

    def reads(self, site: Site) -> Site:
        return Site.MLP_POST if site == Site.MLP_GATE else site

    @classmethod
    def prepare(cls, job: Job, methods: Sequence[Any]) -> PromptScorer:
        return Integration(job, {method.name: method.variant for method in methods})


class IntegratedGradientsAll(IntegratedGradients):
    """Integrated gradients with all positions scaled at once."""

    name, about = "ig-all", "the same with all positions scaled at once"
    aggregation = "ig-all"
    variant = "all"


class Integration(PromptScorer):
    """Integrates along the path of one prompt after another; several variants share their passes.

    Args:
        variants: method -> variant.
    """

    def __init__(self, job: Job, variants: dict[str, Variant], *, steps: int = STEPS) -> None:
        self.job, self.sites, self.steps = job, job.sites, steps
        self.read = {site: Site.MLP_POST if site == Site.MLP_GATE else site for site in job.sites}
        self.groups = [(name, site, variant) for site in job.sites for name, variant in variants.items()]
        shortest = min(job.prompts, key=lambda p: len(p.tokens))
        one = asking_one(job.model, shortest, "integrating gradients")
        self.early = fans_out(one, tuple(self.read.values()))

    def score(self, at: int) -> tuple[dict[str, Values], float]:
        job, values, p_answer = self.job, {name: {} for name, _, _ in self.groups}, float("nan")
        one = asking(job.model, [job.prompts[at]])
        most = max(1, (rows_that_fit(job.model, job.prompts[at]) - 1) // self.steps)
        with torch.enable_grad():
            for layer in range(job.info.layers):
                groups = [group for group in self.groups if job.info.width(self.read[group[1]], layer)]
                for start in range(0, len(groups), most):
                    part = groups[start : start + most]
                    read = [(self.read[site], variant) for _, site, variant in part]
                    found, p_answer = _one_layer(one, layer, read, self.steps, self.early)
                    for (name, site, _), value in zip(part, found):
                        values[name][site, layer] = value
        return values, p_answer


def _one_layer(
    one: Asking, layer: int, groups: Sequence[tuple[Site, str]], steps: int, early: bool
) -> tuple[list[Float[Tensor, " neuron"]], float]:
    """The attribution of one prompt and layer, a vector per (site, variant), and P(y|x): each has `steps`
    rows, and the last row stays as it is."""
    rows = steps * len(groups) + 1
    scaled: dict[int, Tensor] = {}  # group -> what was put in, [step, scaled, neuron]
    given: dict[int, Tensor] = {}  # group -> the unchanged activation there, [scaled, neuron]

    def edit(site: Site) -> Edit:
        def scale(activation: Float[Tensor, "row pos neuron"]) -> Float[Tensor, "row pos neuron"]:
            changed = activation.clone()
            parts = (
                torch.arange(1, steps + 1, device=activation.device, dtype=activation.dtype)[:, None, None]
                / steps
            )
            for number, (read, variant) in enumerate(groups):
                if read != site:
                    continue
                at = one.answering if variant == "last" else torch.arange(activation.shape[1])
                at = at.to(activation.device)
                given[number] = activation[-1, at].detach()
                scaled[number] = (parts * given[number]).requires_grad_(True)
                changed[number * steps : (number + 1) * steps, at] = scaled[number]
            return changed

        return scale

    edits = {site: edit(site) for site in dict.fromkeys(site for site, _ in groups)}
    right = ask_rows(one, layer, rows, edits, early=early).p_right
    order = range(len(groups))
    gradients = torch.autograd.grad(right[:-1].sum(), [scaled[number] for number in order])
    found = [
        (given[number] * gradient.sum(0) / steps)
        .sum(0)
        .to(torch.promote_types(gradient.dtype, torch.float32))
        for number, gradient in zip(order, gradients)
    ]
    return found, float(right[-1].detach())
