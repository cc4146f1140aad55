"""Plain text as a task without culture: does a set cost the model more of it than random sets do?

    beyond random = nats a token with the set suppressed - mean over random sets of nats a token

with passages resampled for its 95% interval. Where that lies above 0, a loss on a task may be damage done to
the model, and no knowledge that was taken away.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ..data.neurons import NeuronSet
from ..engine.models import HookedModel, tokenizer_of
from ..engine.prompts import tokenize
from ..method.plain_text import TextLoss, passages, text_loss

log = logging.getLogger(__name__)

UNKNOWN = 0.1
"""Share of tokens that a vocabulary may lack; perplexity of a text beyond it means nothing."""


@dataclass(frozen=True)
class TextComparison:
    """What sets cost a model of plain text."""

    base: TextLoss
    sets: Mapping[str, TextLoss]
    random: Sequence[TextLoss]
    """With random sets suppressed; empty where there are none."""

    def beyond_random(self, name: str) -> tuple[float, float, float]:
        """(nats a token beyond the mean of random sets, low, high); beyond the unchanged model without
        random sets."""
        if not self.random:
            return self.sets[name].beyond(self.base)
        mean = np.mean([loss.nats for loss in self.random], axis=0)
        return self.sets[name].beyond(TextLoss(tuple(map(float, mean)), self.base.tokens))

    def table(self) -> pd.DataFrame:
        """One row per set: perplexity, its unchanged value, and nats a token beyond random sets (95%
        interval)."""
        rows = {}
        for name, loss in self.sets.items():
            excess, low, high = self.beyond_random(name)
            rows[name] = {
                "perplexity": loss.perplexity,
                "unchanged": self.base.perplexity,
                "random": float(np.mean([each.perplexity for each in self.random] or [np.nan])),
                "excess": excess,
                "excess_low": low,
                "excess_high": high,
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("set")

    def sentence(self, name: str) -> str:
        """What it says of a set; by the rule of `findings`, a loss is shown where its interval is above 0."""
        excess, low, high = self.beyond_random(name)
        than = "than random sets cost" if self.random else "than unchanged"
        span = f"95% interval {_signed(low)} to {_signed(high)}"
        numbers = (
            f"perplexity {self.base.perplexity:.1f} unchanged, {self.sets[name].perplexity:.1f} without the"
            f" {name} neurons; {_signed(excess)} nats a token more {than} ({span})"
        )
        if low > 0:
            return (
                f"Plain text suffers too: {numbers}. What tasks lose may be damage to the model, and no"
                " knowledge that was taken away."
            )
        if high < 0:
            return f"Plain text suffers less than under random sets: {numbers}."
        return f"No loss on plain text beyond random sets is shown: {numbers}."


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


def compare_text(
    model: HookedModel,
    sets: Mapping[str, NeuronSet],
    random: Sequence[NeuronSet] = (),
    text: str | Path | None = None,
) -> TextComparison | None:
    """How well the model predicts plain text, unchanged and with each set suppressed; None, with a line in
    the log, where its vocabulary lacks more than a tenth of the text, as the embedded model's does.

    Args:
        random: sets to compare with.
        text: a file whose passages are separated by blank lines; the package's own by default.

    Raises:
        ScoreError: a text that cannot be read. NeuronError: neurons that the model does not have.
    """
    given = passages(text)
    tokenizer = tokenizer_of(model)
    tokens = [token for row in tokenize(tokenizer, given, plain=True) for token in row]
    if tokens.count(tokenizer.unk_token_id) > UNKNOWN * len(tokens):
        log.info("plain text is left out: it is made of words that the model's vocabulary lacks")
        return None
    return TextComparison(
        text_loss(model, given),
        {name: text_loss(model, given, ablate=neurons) for name, neurons in sets.items()},
        [text_loss(model, given, ablate=neurons) for neurons in random],
    )
