"""What a batch of questions is asked, and how P(y|x) is read from what the model says: a class for each form.

A question's slots are the tokens that count, each once: those of its prompt or, in the cloze form, of the
prompt and of every option, and the same of the control (see `engine.cloze`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..engine.cloze import ClozePrompt, Layout, logits_at
from ..engine.hooks import Reading
from ..engine.models import HookedModel, device_of, last_logits, tokenizer_of
from ..engine.prompts import Prompt, pad
from ..errors import ScoreError
from .cloze import compared


@dataclass(frozen=True)
class Said:
    """What a model says of each question; keeps the graph where gradients are on."""

    compared: Float[Tensor, "question choice"]
    """What P is the softmax of: logits of the vocabulary, or what is known of every option."""
    right: Int[Tensor, " question"]
    """The right choice."""

    @cached_property
    def p(self) -> Float[Tensor, "question choice"]:
        """P of every choice."""
        return self.compared.softmax(-1)

    @cached_property
    def p_right(self) -> Float[Tensor, " question"]:
        """P(y|x)."""
        return self.p.gather(1, self.right[:, None]).squeeze(1)


class Letters:
    """Questions that are answered by the label at the last position."""

    def __init__(
        self,
        model: HookedModel,
        prompts: Sequence[Prompt],
        tokens: Int[Tensor, "row pos"],
        mask: Int[Tensor, "row pos"],
    ) -> None:
        self.model, self.tokens, self.mask = model, tokens, mask
        self._right = torch.tensor([p.answer_token for p in prompts], device=tokens.device)
        self.real: Bool[Tensor, "question slot"] = mask.bool()
        """The slots whose gradients count."""
        self.clean: Bool[Tensor, "question slot"] = self.real
        """Those of the question and its options."""
        self.whole = True
        """Whether all slots count that are not padding."""
        self.answering = torch.tensor([tokens.shape[1] - 1], device=tokens.device)
        """Of one question: the positions whose logits are read."""

    def ask(self, copies: int = 1) -> Said:
        """One forward pass.

        Args:
            copies: run the one question so many times; a hook may make copies of it as well.
        """
        given = (self.tokens, self.mask)
        logits = last_logits(self.model, *(rows.expand(copies * len(rows), -1) for rows in given))
        return Said(logits, self._right.repeat(len(logits) // len(self._right)))

    def reading(self, reading: Reading) -> Reading:
        """What is read at the rows' positions, by slot."""
        return reading


class Cloze:
    """Questions that are answered by their options' words; as `Letters`."""

    def __init__(
        self,
        model: HookedModel,
        prompts: Sequence[ClozePrompt],
        tokens: Int[Tensor, "row pos"],
        mask: Int[Tensor, "row pos"],
    ) -> None:
        self.model, self.prompts, self.layout = model, prompts, Layout.of(prompts, tokens, mask)
        self.tokens = tokens
        self._right = torch.tensor([p.right for p in prompts], device=tokens.device)
        self.clean = self.layout.real & ~self.layout.prior
        with_prior = prompts[0].question.normalise == "unconditional"
        self.real = self.layout.real if with_prior else self.clean
        self.whole = with_prior or not any(p.bare_texts for p in prompts)
        self.answering = self.layout.at

    def likelihoods(self, copies: int = 1) -> tuple[Tensor, Tensor]:
        """(LL, prior) of every option, [question, option]."""
        return self.layout.likelihoods(logits_at(self.model, self.layout, copies))

    def ask(self, copies: int = 1) -> Said:
        ll, prior = (values.to(self.tokens.device) for values in self.likelihoods(copies))
        times = len(ll) // len(self.prompts)
        return Said(compared(ll, prior, [*self.prompts] * times), self._right.repeat(times))

    def reading(self, reading: Reading) -> Reading:
        read = {
            "activation": self.layout.copied,  # every copy of a token has the same
            "products": self.layout.summed,
            "gradient": self.layout.summed,
        }
        return Reading(
            **{name: by(v) for name, by in read.items() if (v := getattr(reading, name)) is not None}
        )


Asking = Letters | Cloze


def asking(
    model: HookedModel,
    prompts: Sequence[Any],
    tokens: Int[Tensor, "row pos"] | None = None,
    mask: Int[Tensor, "row pos"] | None = None,
) -> Asking:
    """These questions, in their form; `tokens` and `mask` where their rows are padded already."""
    if tokens is None or mask is None:
        tokens, mask = pad(prompts, tokenizer_of(model), device_of(model))
    kind: Any = Cloze if prompts[0].question.form == "cloze" else Letters
    return kind(model, prompts, tokens, mask)


def asking_one(model: HookedModel, prompt: Any, what: str) -> Asking:
    """One question in one row. Raises `ScoreError` where the model takes a row for every option."""
    if len(prompt.rows) > 1:
        raise ScoreError(
            f"{what} wants a question's options in one row, which this model cannot: load the task with"
            " form='letters'"
        )
    return asking(model, [prompt])
