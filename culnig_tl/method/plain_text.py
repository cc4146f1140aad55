"""Plain text: how well does a model still predict the next token, with neurons suppressed?

    perplexity = exp( - sum over all passages' tokens i of log P(token i | those before) / number of tokens )

A task without culture and without questions: where suppressing a set breaks the model, it is seen here first,
and a loss on any task then says little. The package has a text of its own, `TEXT`: twelve passages of
everyday English about weather, tools, sums and the like.

Cost: one forward pass of each passage, 1,700 tokens in all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..data.neurons import NeuronMeans, NeuronSet
from ..engine.models import HookedModel, describe, device_of, frozen, tail_logits, tokenizer_of
from ..engine.prompts import context_length, tokenize
from ..errors import ScoreError
from .ablation import ablation_hooks, operation_name

TEXT = Path(str(resources.files("culnig_tl"))) / "method" / "plain_text.txt"
WINDOW = 256
"""Most tokens of a passage; a longer one is cut, and each piece begins anew."""


@dataclass(frozen=True)
class TextLoss:
    """What a model makes of plain text, passage by passage."""

    nats: tuple[float, ...]
    """Per passage: the sum over its tokens of -log P(token | those before); the first token is not
    predicted."""
    tokens: tuple[int, ...]
    """Per passage: tokens that are predicted."""

    @property
    def loss(self) -> float:
        """Nats a token."""
        return sum(self.nats) / sum(self.tokens)

    @property
    def perplexity(self) -> float:
        return math.exp(min(self.loss, 700.0))

    def beyond(self, base: TextLoss, *, draws: int = 2000, seed: int = 0) -> tuple[float, float, float]:
        """(difference in nats a token from `base`, low, high): 95% interval, passages resampled.

        Raises `ScoreError` for losses of other passages.
        """
        if base.tokens != self.tokens:
            raise ScoreError("losses to compare must be of the same passages by the same tokenizer")
        lost, tokens = np.subtract(self.nats, base.nats), np.asarray(self.tokens, float)
        drawn = np.random.default_rng(seed).integers(len(lost), size=(draws, len(lost)))
        low, high = np.percentile(lost[drawn].sum(1) / tokens[drawn].sum(1), [2.5, 97.5])
        return float(lost.sum() / tokens.sum()), float(low), float(high)

    def __str__(self) -> str:
        return (
            f"perplexity {self.perplexity:,.1f} ({self.loss:.3f} nats a token, {sum(self.tokens):,} tokens)"
        )


def passages(text: str | Path | None = None) -> list[str]:
    """The passages of a file, separated by blank lines; of the package's own text by default.

    Raises `ScoreError` for a file that cannot be read or holds nothing.
    """
    path = TEXT if text is None else Path(text)
    try:
        read = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ScoreError(f"{path} cannot be read as a text in UTF-8: {error}") from error
    found = [" ".join(part.split()) for part in read.split("\n\n") if part.strip()]
    if not found:
        raise ScoreError(f"{path} holds no text")
    return found


def text_loss(
    model: HookedModel,
    text: str | Path | Sequence[str] | None = None,
    *,
    ablate: NeuronSet | None = None,
    scale: float = 0.0,
    to: NeuronMeans | None = None,
) -> TextLoss:
    """How well the model predicts plain text, unchanged or with neurons ablated.

    Args:
        text: a file whose passages are separated by blank lines, or passages; the package's own by default.
        ablate, scale, to: as in `evaluate`.

    Raises:
        ScoreError: no text, or a file that cannot be read. NeuronError: neurons that the model does not
            have.
    """
    given = passages(text) if text is None or isinstance(text, (str, Path)) else list(text)
    operation_name(scale, to)
    device, window = device_of(model), min(WINDOW, context_length(model) or WINDOW)
    pieces = [
        row[start : start + window]
        for row in tokenize(tokenizer_of(model), given, plain=True)
        for start in range(0, len(row), window)
    ]
    pieces = [piece for piece in pieces if len(piece) > 1]
    if not pieces:
        raise ScoreError(f"no passage has two tokens in {describe(model).name}'s vocabulary")
    hooks: list[Any] = (
        [] if ablate is None else ablation_hooks(model, ablate, scale=scale, to=to, in_place=True)
    )
    nats: list[float] = []
    with torch.no_grad(), frozen(model), model.hooks(fwd_hooks=hooks):
        for piece in pieces:
            tokens = torch.tensor([piece], device=device)
            logits = tail_logits(model, tokens, torch.ones_like(tokens), len(piece))[0, :-1]
            targets = tokens[0, 1:].to(logits.device)
            nats.append(float(torch.nn.functional.cross_entropy(logits, targets, reduction="sum")))
    return TextLoss(tuple(nats), tuple(len(piece) - 1 for piece in pieces))
