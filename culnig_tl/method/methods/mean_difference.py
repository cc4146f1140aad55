"""Mean activation difference: does a neuron fire more when the question is there?

    D(n; x, x') = mean over the tokens of x of n_i(x) - mean over the tokens of x' of n_i(x')

with the control prompt as x', summed over the questions of a country. Signed: neurons that fire more come
first. The answer plays no part. Of a cloze question the tokens of x are the prompt's and all options', those
of x' the control's and all options'.

Cost: two forward passes, shared with LAPE and CAPE.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .alignment import masked_mean
from .base import Method, Seen


class MeanDifference(Method):
    """Mean activation on the question less that on its control."""

    name = "mean-difference"
    about = "mean activation on the question less that on its control"
    corrupted, cloze, aggregation = True, True, "mean-difference"

    def term(self, seen: Seen) -> Float[Tensor, "batch neuron"]:
        assert seen.activation is not None and seen.corrupted is not None and seen.alignment is not None
        wide = torch.promote_types(seen.activation.dtype, torch.float32)
        device = seen.activation.device
        clean = masked_mean(seen.activation.to(wide), seen.real.to(device))
        return clean - masked_mean(seen.corrupted.to(wide), seen.alignment.real.to(device))
