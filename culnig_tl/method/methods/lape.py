"""LAPE: neurons that fire for one country and hardly for others (Tang et al. 2024, arXiv 2402.16438), with
countries for languages.

As in section 2 there:

    p_c   = share of the tokens of country c's prompts on which the neuron's activation is positive
    p'_c  = p_c / sum over the countries of p
    LAPE  = - sum over the countries of p'_c * log p'_c

An activation act(gate) of SiLU, GELU or ReLU is positive where the gate's pre-activation is, which is what is
read. Neurons for which no country's p_c exceeds the 95th percentile of all p (neurons x countries) are
dismissed, and those with the lowest LAPE are selected (1% in the paper); a selected neuron belongs to the
countries whose p_c exceeds that percentile.

So that the highest is the best, as for every method: a neuron's score is log(countries) - LAPE, shared out
evenly among the countries that it belongs to; dismissed neurons have 0. Attention's neurons have no score.

Cost: one forward pass.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ...data.neurons import Site
from ...errors import ScoreError
from .base import Job, Method, Seen, Totals

PERCENTILE = 0.95
SHARE = 0.01
"""Of the MLP's neurons, lowest by entropy, that the paper selects."""


class Lape(Method):
    """Entropy over the countries of the probability of a positive gate."""

    name = "lape"
    about = "entropy over countries of the probability of a positive gate"
    gate_only, cloze, aggregation = True, True, "lape"

    def term(self, seen: Seen) -> Float[Tensor, "batch neuron"]:
        """Tokens on which the gate is positive."""
        assert seen.activation is not None
        positive = (seen.activation > 0).to(torch.float32)
        return torch.einsum("bp,bpn->bn", seen.real.to(positive), positive)

    def finish(self, totals: Totals, job: Job) -> Totals:
        if len(job.countries) < 2:
            raise ScoreError(
                f"{self.name} compares countries: {job.task.name} has questions about {len(job.countries)}"
            )
        return {
            site: specificity(counts.double() / job.tokens[:, None, None]).float()
            for site, counts in totals.items()
        }


def entropy(p: Float[Tensor, "country layer neuron"]) -> Float[Tensor, "layer neuron"]:
    """Of p, normalised over the countries; 0 where it is 0 for all of them."""
    share = (p / p.sum(0)).nan_to_num(0.0)
    return torch.special.entr(share).sum(0)


def specificity(p: Float[Tensor, "country layer neuron"]) -> Float[Tensor, "country layer neuron"]:
    """log(countries) - LAPE, shared out among the countries over the percentile; 0 for dismissed neurons."""
    flat = p.flatten()
    bar = flat.kthvalue(max(1, round(PERCENTILE * flat.numel()))).values
    over = p > bar
    score = (torch.log(torch.tensor(float(len(p)))) - entropy(p)).clamp(min=0)
    return over * score / over.sum(0).clamp(min=1)


def lowest_share(scores: Totals, share: float = SHARE) -> Float[Tensor, "layer neuron"]:
    """True at the neurons that are selected: the highest `share` by score (the lowest by entropy), dismissed
    ones left out."""
    total = scores[Site.MLP_GATE].sum(0)
    count = int(total.numel() * share)
    chosen = torch.zeros(total.numel(), dtype=torch.bool)
    chosen[total.flatten().argsort(descending=True, stable=True)[:count]] = True
    return (chosen.view(total.shape) & (total > 0)).to(torch.float32)
