"""CULNIG: activation times gradient, and its variants.

CULNIG (arXiv 2510.08284), for a neuron's output n_i at token i:

    s_i(x, y) = n_i * dP(y|x)/dn_i
    s(x, y)   = max over i of s_i
    S_c       = sum over the questions of country c of P(y|x) * s(x, y)

with max(s, 0) in the place of s on control questions.

The variants take the sum or the mean over tokens instead of the maximum. The sum is the first-order (Taylor)
estimate of what zeroing the neuron at all tokens costs. Those at ``mlp.post`` read activation(gate) * up,
what the MLP's output matrix reads: zeroing it is the same ablation as zeroing the gate, whose scores it
gives; attention's neurons are read as before.

Cost: one forward and one backward pass, shared by all six and by attribution patching.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ...data.neurons import Site
from .base import Method, Seen

Aggregation = Literal["max", "sum", "mean"]


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


class Culnig(Method):
    """Activation times gradient, max over tokens, weighted by P(answer)."""

    name = "culnig"
    about = "activation x gradient, max over tokens, times P(answer)"
    gradient, contrast, weighted, cloze, aggregation = True, True, True, True, "max"
    how: ClassVar[Aggregation] = "max"

    def term(self, seen: Seen) -> Float[Tensor, "batch neuron"]:
        assert seen.products is not None
        real = None if seen.even else seen.real.to(seen.products.device)
        s = aggregate(seen.products, real, self.how)
        return s.clamp(min=0) if seen.control else s


class CulnigSum(Culnig):
    """The sum over tokens instead of the maximum."""

    name, about = "culnig-sum", "the same, summed over tokens"
    how, aggregation = "sum", "sum"


class CulnigMean(Culnig):
    """The mean over tokens instead of the maximum."""

    name, about = "culnig-mean", "the same, the mean over tokens"
    how, aggregation = "mean", "mean"


class _AtPost:
    def reads(self, site: Site) -> Site:
        """MLP neurons are read behind the activation function."""
        return Site.MLP_POST if site == Site.MLP_GATE else site


class CulnigPost(_AtPost, Culnig):
    """The maximum over tokens, MLP neurons read at mlp.post."""

    name, about = "culnig-post", "culnig, MLP neurons read at mlp.post"
    aggregation = "max at mlp.post"


class CulnigSumPost(_AtPost, CulnigSum):
    """The sum over tokens, MLP neurons read at mlp.post."""

    name, about = "culnig-sum-post", "culnig-sum, MLP neurons read at mlp.post"
    aggregation = "sum at mlp.post"


class CulnigMeanPost(_AtPost, CulnigMean):
    """The mean over tokens, MLP neurons read at mlp.post."""

    name, about = "culnig-mean-post", "culnig-mean, MLP neurons read at mlp.post"
    aggregation = "mean at mlp.post"
