"""Ablation: what the model does without some neurons.

One hook function per (site, layer) multiplies the site's output by a vector that is computed once: 0 at the
chosen neurons to suppress them, 2 to enhance them, at every position; or it puts their mean on a task in
their place. Nothing stays on the model.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.neurons import NeuronMeans, NeuronSet, Site
from ..engine.checkpoint import Checkpoint
from ..engine.hooks import Reading, SiteHooks
from ..engine.models import HookedModel, describe, hook_name, last_logits, sites_of
from ..engine.probe import Probe, probe_forward
from ..engine.prompts import Asked, Prompt
from ..engine.run import Batch, State, Work, run_pass, running_sum
from ..errors import NeuronError
from ..progress import Advance
from ..tasks.question import Task

log = logging.getLogger(__name__)


@contextmanager
def ablate(
    model: HookedModel, neurons: NeuronSet, *, scale: float = 0.0, to: NeuronMeans | None = None
) -> Iterator[HookedModel]:
    """While it lasts, the model runs with the neurons' outputs multiplied by `scale`, or replaced.

        with ablate(model, neurons):
            logits = model(tokens)

    Works with `model(...)`, `generate`, `run_with_cache` and `run_with_hooks`; nested contexts compose, the
    outer one first; exceptions leave nothing behind; an empty set adds no hook at all.

    Args:
        scale: 0 suppresses the neurons, 2 enhances them (CULNIG's two operations).
        to: put each neuron's mean over a task in its place instead (see `mean_outputs`).

    Raises:
        NeuronError: a scale that is not finite, both scale and means, or neurons that the model does not
            have.
    """
    hooks = ablation_hooks(model, neurons, scale=scale, to=to)
    with model.hooks(fwd_hooks=hooks):
        yield model


def ablation_hooks(
    model: HookedModel,
    neurons: NeuronSet,
    *,
    scale: float = 0.0,
    to: NeuronMeans | None = None,
    in_place: bool = False,
) -> list[tuple[str, Callable[..., Tensor]]]:
    """The (name, hook function) pairs that `ablate` puts on the model, for TransformerLens' own functions:

        logits = model.run_with_hooks(tokens, fwd_hooks=ablation_hooks(model, neurons))

    Args:
        in_place: change the chosen neurons inside the activation instead of making another: the same numbers
            without the cost, for forward passes without gradients whose activations nobody keeps.

    The other arguments and the errors are those of `ablate`.
    """
    operation_name(scale, to)
    check_fits(model, neurons)
    info, hooks = describe(model), []
    for (site, layer), index in neurons.indices.items():
        at = torch.from_numpy(index)
        factors = torch.full((len(index),), 0.0 if to is not None else float(scale), dtype=torch.float64)
        offsets = None
        if to is not None:
            if site not in to.arrays:
                raise NeuronError(f"no means of {site}: take mean_outputs(..., sites=[..., {site.value!r}])")
            offsets = torch.from_numpy(to.arrays[site][layer, index]).double()
        if not in_place:
            factors = torch.ones(info.width(site, layer), dtype=torch.float64).index_copy_(0, at, factors)
            offsets = offsets if offsets is None else torch.zeros_like(factors).index_copy_(0, at, offsets)
        hooks.append((hook_name(model, site, layer), _affine(factors, offsets, at if in_place else None)))
    return hooks


def operation_name(scale: float = 0.0, to: NeuronMeans | None = None) -> str:
    """What an ablation is called in results: "suppress", "enhance", "scale 0.5", "means of blend".

    Raises `NeuronError` for one that makes no sense.
    """
    if not np.isfinite(scale):
        raise NeuronError(f"scale must be a finite number, not {scale}")
    if to is not None and scale:
        raise NeuronError("scale and to exclude each other: a neuron is either multiplied or replaced")
    if to is not None:
        return f"means of {to.task}"
    return {0.0: "suppress", 2.0: "enhance"}.get(float(scale), f"scale {scale:g}")


def check_fits(model: HookedModel, neurons: NeuronSet) -> None:
    """Raises `NeuronError` where a neuron lies outside the model: the set is of another model. A set that was
    found on other weights of the same shape is warned about."""
    info, known = describe(model), neurons.provenance
    if known.model is not None and len(neurons):
        both = None not in (known.revision, info.revision)
        if (known.revision != info.revision) if both else (known.model != info.name):
            _say_other_model(known.model, known.revision, info.name, info.revision)
    for (site, layer), index in neurons.indices.items():
        if site not in info.widths:
            raise NeuronError(
                f"the set has neurons of {site}, {info.name} has {', '.join(map(str, info.widths))}"
            )
        if index[-1] >= info.width(site, layer):
            there = f"{info.width(site, layer):,} there" if layer < info.layers else "no such layer"
            raise NeuronError(
                f"neuron ({site}, {layer}, {index[-1]}) lies outside {info.name}: {info.layers} layers,"
                f" {info.widths[site]:,} neurons per layer at {site}, {there}; the set is of another model"
            )


@lru_cache(maxsize=64)
def _say_other_model(theirs: str, their_revision: str | None, ours: str, our_revision: str | None) -> None:
    """Once a process for each pair of models."""
    log.warning(
        "these neurons were found on %s (%s), and the model is %s (%s): the same neuron of other weights may"
        " do something else",
        theirs, their_revision or "no revision", ours, our_revision or "no revision",
    )  # fmt: skip


def _affine(factors: Tensor, offsets: Tensor | None, at: Tensor | None) -> Callable[..., Tensor]:
    """A hook for [batch, pos, neuron] or [batch, pos, head, d_head]; its vectors move to the activation's
    device and dtype once.

    With `at` the vectors are those of these neurons alone, which are changed in place.
    """
    held = [factors] if offsets is None else [factors, offsets]
    zero = offsets is None and not factors.any()

    def hook(activation: Tensor, hook: Any) -> Tensor:
        nonlocal at
        if held[0].device != activation.device or held[0].dtype != activation.dtype:
            held[:] = [vector.to(activation.device, activation.dtype) for vector in held]
            at = at if at is None else at.to(activation.device)
        if at is None:
            changed = activation * held[0].view(activation.shape[2:])
            return changed if len(held) == 1 else changed + held[1].view(activation.shape[2:])
        if not activation.is_contiguous():  # a slice of fused q, k, v
            width = activation.shape[-1]
            where = (..., at) if activation.dim() == 3 else (..., at // width, at % width)
            changed = activation[where] * held[0]
            activation[where] = changed if len(held) == 1 else changed + held[1]
            return activation
        rows = activation.view(-1, activation.shape[2:].numel())
        if zero:
            rows.index_fill_(1, at, 0.0)
        else:
            changed = rows.index_select(1, at) * held[0]
            rows.index_copy_(1, at, changed if len(held) == 1 else changed + held[1])
        return activation

    return hook


def mean_outputs(
    model: HookedModel,
    task: Task,
    *,
    sites: Iterable[Site | str] | None = None,
    batch_size: int | str | Sequence[int] = "auto",
    progress: bool | Advance = True,
    checkpoint: str | Path | Checkpoint | None = None,
    resume: bool = False,
) -> NeuronMeans:
    """The mean output of every neuron over all tokens of a task's prompts, padding left out: for
    ``ablate(..., to=...)``.

    Args:
        task: whose prompts the means are taken over; say which, the result depends on it. Of a cloze question
            that is the prompt without its options' words.
        sites: all that the model has by default.
        checkpoint, resume: as in `score_neurons`.

    Raises:
        ScoreError: an empty task, or a site that the model lacks.
    """
    info, asked = describe(model), Asked.of(model, task)
    wanted = sites_of(info, info.widths if sites is None else sites)
    hooks = SiteHooks(model, forward=wanted)
    state: State = {}

    def step(batch: Batch, state: State) -> None:
        real = batch.mask.float()

        def add(site: Site, layer: int, reading: Reading) -> None:
            key = f"{site} {layer}"
            if key in batch.done or reading.activation is None:
                return
            wide = reading.activation.to(torch.promote_types(reading.activation.dtype, torch.float32))
            total = running_sum(state, key, wide.shape[2:], wide, wide.dtype)
            total += (wide * real.to(wide.device)[:, :, None]).sum((0, 1))
            batch.done.add(key)

        hooks.run(lambda: last_logits(model, batch.tokens, batch.mask).sum(), add)

    def own_kernel(shortest: Prompt) -> Probe:
        """Attention as the model has it: means are put into a model that runs so."""
        return replace(probe_forward(model, hooks.names, shortest.tokens), native=False)

    run_pass(
        model,
        asked.whole,
        asked.prompts,
        step,
        state,
        hooks=hooks,
        probe=own_kernel,
        batch_size=batch_size,
        checkpoint=Checkpoint.of(checkpoint, resume=resume),
        work=Work(settings={"sites": list(map(str, wanted))}),
        progress=progress,
        verb="means of",
    )
    count = sum(len(p.tokens) for p in asked.prompts)
    arrays = {
        site: info.table(
            site, {layer: state[f"{site} {layer}"].float().cpu() / count for layer in info.layers_with(site)}
        ).numpy()
        for site in wanted
    }
    return NeuronMeans(arrays, task.name, task.fingerprint)
