"""Cloze prompts: a question asked by the likelihood of its options' words, instead of by their labels.

For a question x with option texts y_1 .. y_k, as lm-evaluation-harness scores continuations:

    LL_o    = sum of the log-probabilities of y_o's tokens after the prompt
    prior_o = the same after the control ("Answer:") alone

A row is the prompt and one option's text; rows are padded on the left, so that all texts end at the last
position and the logits of a few last positions are all that is computed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..errors import PromptError
from ..tasks.question import Question
from .models import HookedModel, device_of, tail_logits, tokenizer_of
from .prompts import pad_rows, tokenize

log = logging.getLogger(__name__)

LOGITS_BYTES = 1 << 30
"""Of the logits of one batch at most, copies that the gradient needs included."""


@dataclass(frozen=True, slots=True)
class ClozePrompt:
    """A question and its options' words as tokens."""

    question: Question
    context: tuple[int, ...]
    """The prompt; one BOS at most."""
    texts: tuple[tuple[int, ...], ...]
    """What each option's text adds to it."""
    bare: tuple[int, ...]
    """The control prompt; empty for a control question itself, as are its texts."""
    bare_texts: tuple[tuple[int, ...], ...]

    @property
    def rows(self) -> tuple[tuple[int, ...], ...]:
        """Prompt and text, per option."""
        return tuple((*self.context, *text) for text in self.texts)

    @property
    def bare_rows(self) -> tuple[tuple[int, ...], ...]:
        """Control and text, per option."""
        return tuple((*self.bare, *text) for text in self.bare_texts)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The longest row."""
        return max((*self.rows, *self.bare_rows), key=len)

    @property
    def counted(self) -> tuple[int, ...]:
        """The tokens that count, each once: the prompt and every text."""
        return (*self.context, *sum(self.texts, ()))

    @property
    def counted_with_prior(self) -> tuple[int, ...]:
        """Those, and then the same of the control: in the order of both passes' slots."""
        return (*self.counted, *self.bare, *sum(self.bare_texts, ()))

    @property
    def right(self) -> int:
        """Place of the right option."""
        return self.question.options.index(self.question.answer)


def encode_cloze(tokenizer: Any, questions: Sequence[Question]) -> list[ClozePrompt]:
    """The tokens of every question and option.

    A text's tokens are those that prompt and text together have beyond the prompt's own number of tokens; a
    blank at the prompt's end is moved to the text. Both as in lm-evaluation-harness, also where a tokenizer
    merges over the border.

    Raises `PromptError`, naming the question, for a text that becomes no token. Logs which questions
    have options that become the same tokens, which the model cannot tell apart.
    """
    encoded = []
    for question in questions:
        context, texts = _encode_pairs(tokenizer, question, question.prompt)
        bare, bare_texts = (), ()
        if question.control is not None:  # a control itself has nothing to be compared with
            bare, bare_texts = _encode_pairs(tokenizer, question, question.control)
        encoded.append(ClozePrompt(question, context, texts, bare, bare_texts))
    alike = [prompt.question.id for prompt in encoded if len(set(prompt.texts)) < len(prompt.texts)]
    if alike:
        log.warning(
            "task %s: %d of %d questions have options that become the same tokens, first %r",
            questions[0].task,
            len(alike),
            len(encoded),
            alike[0],
        )
    return encoded


def _encode_pairs(
    tokenizer: Any, question: Question, prompt: str
) -> tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]:
    kept = prompt.rstrip()
    blank = prompt[len(kept) :] or " "
    written = [kept, *(kept + blank + text for text in question.texts)]
    context, *wholes = tokenize(tokenizer, written, plain=True)
    texts = [tuple(whole[len(context) :]) for whole in wholes]
    for text, tokens in zip(question.texts, texts):
        if not tokens:
            raise PromptError(
                f"task {question.task!r}, question {question.id!r}: option {text!r} becomes no token"
            )
    return tuple(context), tuple(texts)


def log_likelihoods(
    model: HookedModel, rows: Sequence[tuple[int, ...]], texts: Sequence[tuple[int, ...]]
) -> Float[Tensor, " row"]:
    """LL of each row's text, the row's last tokens, in float32 or wider; keeps the graph where gradients are
    on."""
    tokens, mask = pad_rows(rows, tokenizer_of(model), device_of(model))
    longest = max(map(len, texts))
    return sum_of_texts(tail_logits(model, tokens, mask, longest + 1), tokens, [len(text) for text in texts])


def sum_of_texts(
    logits: Float[Tensor, "row tail vocab"], tokens: Int[Tensor, "row pos"], lengths: Sequence[int]
) -> Float[Tensor, " row"]:
    """Sum of the log-probabilities of each row's last tokens.

    Args:
        logits: at the last positions, one more than the longest text has tokens.
        tokens: padded on the left.
        lengths: tokens of each row's text.
    """
    longest = logits.shape[1] - 1
    targets = tokens[:, -longest:].to(logits.device)
    before = logits[:, :-1]  # the logits that predict them
    each = before.gather(2, targets[:, :, None]).squeeze(2) - before.logsumexp(-1)  # [row, longest]
    own = (
        torch.arange(longest, device=logits.device)
        >= longest - torch.tensor(lengths, device=logits.device)[:, None]
    )
    return each.masked_fill(~own, 0.0).sum(1)


def costs(model: HookedModel, prompts: Sequence[ClozePrompt], tokens_per_batch: int) -> list[int]:
    """What each question takes of a batch, in tokens: those of its rows, or as much as its logits take of
    memory."""
    vocab = int(model.cfg.d_vocab)
    found = []
    for prompt in prompts:
        tokens = sum(map(len, prompt.rows))
        logits = len(prompt.texts) * (max(map(len, prompt.texts)) + 1) * vocab * 12  # float32, three times
        found.append(max(tokens, logits * tokens_per_batch // LOGITS_BYTES))
    return found
