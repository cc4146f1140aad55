"""Attribution patching: what would patching in the corrupted prompt's activation cost, to first order?

Attribution patching (AtP; Nanda 2023; Kramar et al. 2024, arXiv 2403.00745), with clean prompt x and
corrupted prompt x':

    I(n; x, x') = sum over tokens i of (n_i(x) - n_i(x')) * dP(y|x)/dn_i

so that a positive score means that the clean activation helps the answer. The corruption is the control
prompt, which is shorter: `alignment` says which of its positions stands for which. A country's score is the
plain sum over its questions. In a cloze question each option's tokens are patched with those of the same
option after the control; the control's own are not patched.

Cost: two forward passes and one backward pass; the backward pass is shared with CULNIG's.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from .base import Method, Seen


class AttributionPatching(Method):
    """(clean - corrupted activation) times gradient, summed over tokens."""

    name = "atp"
    about = "attribution patching: (clean - control activation) x gradient, summed over tokens"
    gradient, corrupted, cloze, aggregation = True, True, True, "atp"

    def term(self, seen: Seen) -> Float[Tensor, "batch neuron"]:
        assert seen.products is not None and seen.gradient is not None
        assert seen.corrupted is not None and seen.alignment is not None
        patched = seen.alignment.place(seen.corrupted).to(seen.products.dtype) * seen.gradient
        difference = seen.products - patched  # (clean - corrupted) * gradient
        return difference.masked_fill_(~seen.real.to(difference.device)[:, :, None], 0.0).sum(1)
