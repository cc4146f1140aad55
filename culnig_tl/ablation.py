"""Ablation: what the model does without some neurons.

One hook function a (site, layer) multiplies the site's output by a vector that is computed once: 0 at the chosen neurons
to suppress them, 2 to enhance them, at every position. Nothing stays on the model.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .errors import NeuronError
from .models import describe
from .neurons import NeuronSet

OPERATIONS: dict[str, float] = {"suppress": 0.0, "enhance": 2.0}
"""Operation -> factor at the chosen neurons (CULNIG's two)."""


@contextmanager
def ablate(model: Any, neurons: NeuronSet, operation: str = "suppress", *, scale: float | None = None) -> Iterator[Any]:
    """While it lasts, the model runs with the neurons' outputs multiplied: by 0 ("suppress"), 2 ("enhance"), or `scale`.

        with ablate(model, neurons):
            logits = model(tokens)

    Works with `model(...)`, `generate`, `run_with_cache` and `run_with_hooks`; nested contexts compose; exceptions leave
    nothing behind; an empty set adds no hook at all.

    Raises:
        NeuronError: an unknown operation, or neurons that the model does not have.
    """
    if operation not in OPERATIONS:
        raise NeuronError(f"unknown operation {operation!r}: use {' or '.join(OPERATIONS)}, or scale=...")
    factor = OPERATIONS[operation] if scale is None else float(scale)
    if not np.isfinite(factor):
        raise NeuronError(f"scale must be a finite number, not {scale}")
    check_fits(model, neurons)
    widths = describe(model).widths
    hooks = [
        (site.hook_name(layer), _multiply(torch.ones(widths[site]).index_fill_(0, torch.from_numpy(index), factor)))
        for (site, layer), index in neurons.indices.items()
    ]
    with model.hooks(fwd_hooks=hooks):
        yield model


def check_fits(model: Any, neurons: NeuronSet) -> None:
    """Raises `NeuronError` where a neuron lies outside the model: the set is of another model."""
    info = describe(model)
    for (site, layer), index in neurons.indices.items():
        if site not in info.widths:
            raise NeuronError(f"the set has neurons of {site}, {info.name} has {', '.join(map(str, info.widths))}")
        if layer >= info.layers or index[-1] >= info.widths[site]:
            raise NeuronError(
                f"neuron ({site}, {layer}, {index[-1]}) lies outside {info.name}: {info.layers} layers, {info.widths[site]:,} neurons a layer at {site}"
            )


def _multiply(factors: Tensor):
    """A hook that multiplies [batch, pos, neuron] or [batch, pos, head, d_head]; the vector moves to the activation once."""
    held = factors

    def hook(activation: Tensor, hook: Any) -> Tensor:
        nonlocal held
        if held.device != activation.device or held.dtype != activation.dtype:
            held = held.to(activation.device, activation.dtype)
        return activation * held.view(activation.shape[2:])

    return hook


