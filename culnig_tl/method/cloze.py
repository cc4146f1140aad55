"""The cloze form: how likely the right option's words are among the options', and which neurons make them so.

For a question x with option texts y_1 .. y_k:

    LL_o      = sum of the log-probabilities of y_o's tokens after the prompt
    P(y|x)    = softmax over the options of what is compared, at the right option

                what is compared             in lm-evaluation-harness
    normalise="unconditional", the default   LL_o - the LL of y_o after "Answer:" alone
    normalise="sum"                          LL_o                                          acc
    normalise="length"                       LL_o / characters of y_o                      acc_norm

    s_i(x, y) = n_i * dP(y|x)/dn_i             i: the prompt's tokens, which all options share and which count
                                                  once (their gradients are summed over the options), each
                                                  option's own tokens, and those of "Answer: y_o" where there
                                                  is a prior
    s, S_c    as in `score`, with this P

The gradient goes through the prior too. A control question has no prior: it would be compared with itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..engine.cloze import ClozePrompt


def compared(
    ll: Float[Tensor, "question option"],
    prior: Float[Tensor, "question option"],
    prompts: Sequence[ClozePrompt],
) -> Float[Tensor, "question option"]:
    """What P is the softmax of, as the questions' `normalise` says."""
    normalise = prompts[0].question.normalise
    if normalise == "unconditional":
        return ll - prior
    if normalise == "sum":
        return ll
    lengths = torch.ones(ll.shape)
    for row, prompt in zip(lengths, prompts):
        row[: len(prompt.texts)] = torch.tensor([float(len(text)) for text in prompt.question.texts])
    return ll / lengths.to(ll)
