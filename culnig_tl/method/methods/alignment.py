"""Which position of a corrupted prompt stands for which position of the clean one.

The corruption is the control prompt: the same options and instruction without the question, so it is shorter.
Positions are aligned from the right over the longest common suffix of both token sequences (options,
instruction, answer turn), and from the left over the longest common prefix of what remains (BOS, start of the
user turn). The clean positions in between, which are the question, have no counterpart: there the corrupted
activation is the mean over the corrupted prompt's common suffix.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...engine.prompts import Prompt

Row = Sequence[int]
"""Tokens."""
MEAN = -1
"""Counterpart of a clean position that has none."""


def align(clean: Sequence[int], corrupted: Sequence[int]) -> tuple[list[int], int]:
    """(the corrupted position, or `MEAN`, of every clean position; length of the common suffix)."""
    shorter = min(len(clean), len(corrupted))
    suffix = next((k for k in range(shorter) if clean[-1 - k] != corrupted[-1 - k]), shorter)
    prefix = next((k for k in range(shorter - suffix) if clean[k] != corrupted[k]), shorter - suffix)
    middle = len(clean) - prefix - suffix
    return [*range(prefix), *[MEAN] * middle, *range(len(corrupted) - suffix, len(corrupted))], suffix


@dataclass(frozen=True)
class Alignment:
    """The alignment of a batch, left-padded on both sides."""

    index: Int[Tensor, "batch pos"]
    """Position in the padded corrupted prompt; `MEAN` where there is none."""
    real: Bool[Tensor, "batch corrupted"]
    """Real tokens of the corrupted prompts."""
    suffix: Bool[Tensor, "batch corrupted"]
    """Those of the common suffix (all real ones, should there be no suffix): what means are taken over."""

    @classmethod
    def of(cls, clean: Sequence[Prompt], corrupted: Sequence[Prompt], device: torch.device) -> Alignment:
        """The alignment of prompts that `prompts.pad` pads."""
        width, other = (max(len(p.tokens) for p in prompts) for prompts in (clean, corrupted))
        index = torch.full((len(clean), width), MEAN)
        real = torch.zeros(len(clean), other, dtype=torch.bool)
        suffixes = real.clone()
        for row, (one, two) in enumerate(zip(clean, corrupted)):
            positions, suffix = align(one.tokens, two.tokens)
            shift = other - len(two.tokens)
            index[row, width - len(one.tokens) :] = torch.tensor(
                [p if p == MEAN else p + shift for p in positions]
            )
            real[row, shift:] = True
            suffixes[row, other - suffix if suffix else shift :] = True
        return cls(index.to(device), real.to(device), suffixes.to(device))

    @classmethod
    def within(
        cls, prompts: Sequence[Iterable[tuple[Row, Sequence[Row]]]], device: torch.device
    ) -> Alignment:
        """Of cloze questions, whose rows hold their control: the prompt's slots are aligned with those of the
        control's prompt, each option's with the same option's, and the control's with themselves.

        Args:
            prompts: of each question (prompt, texts) and the same of its control.
        """
        both = [[[start, *texts] for start, texts in parts] for parts in prompts]
        width = max(sum(map(len, clean + bare)) for clean, bare in both)
        index = torch.arange(width).repeat(len(both), 1)
        real = torch.zeros(len(both), width, dtype=torch.bool)
        suffixes = real.clone()
        for row, (clean, bare) in enumerate(both):
            first = width - sum(map(len, bare))  # of the control
            at, other = width - sum(map(len, clean + bare)), first
            real[row, first:] = suffixes[row, first:] = True
            suffixes[row, first : first + len(bare[0])] = False
            for number, (one, two) in enumerate(zip(clean, bare)):
                positions, suffix = align(one, two)
                index[row, at : at + len(one)] = torch.tensor(
                    [p if p == MEAN else p + other for p in positions]
                )
                at, other = at + len(one), other + len(two)
                if number == 0:
                    suffixes[row, other - suffix : other] = True
        return cls(index.to(device), real.to(device), suffixes.to(device))

    def place(self, corrupted: Float[Tensor, "batch corrupted neuron"]) -> Float[Tensor, "batch pos neuron"]:
        """The corrupted activation at each clean position."""
        device = corrupted.device
        index, over = self.index.to(device), self.suffix.to(device)
        mean = masked_mean(corrupted, over)
        placed = corrupted.gather(1, index.clamp(min=0)[:, :, None].expand(-1, -1, corrupted.shape[2]))
        return torch.where((index == MEAN)[:, :, None], mean[:, None], placed)


def masked_mean(
    values: Float[Tensor, "batch any neuron"], over: Bool[Tensor, "batch any"]
) -> Float[Tensor, "batch neuron"]:
    """Mean over the positions where `over` is true."""
    return values.masked_fill(~over[:, :, None], 0.0).sum(1) / over.sum(1)[:, None]
