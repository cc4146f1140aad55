"""What one prompt, tried before many, tells about a model: which kernel, whether padding is harmless, how
large a batch may be."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ..data.neurons import Site
from ..errors import ScoreError
from .hooks import Reading, SiteHooks
from .models import HookedModel, device_of, dtype_of, last_logits
from .prompts import TOKENS_PER_BATCH
from .workarounds import native_attention
from .world import processes_here

log = logging.getLogger(__name__)

SHARE_OF_MEMORY = 0.6
"""With batch_size="auto": the share of free memory that a batch may take by estimate."""
NATIVE_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest difference of the probe's logits, relative to the largest logit, between native attention and the
bridge's own (whose softmax is in float32 whatever the dtype)."""
_PADDING = 2
"""Tokens of padding that a probe puts in front at least."""


@dataclass(frozen=True)
class Probe:
    """What the trial showed."""

    native: bool
    """Attention may run in PyTorch's kernel: every hook fires, and the logits are those of the bridge's own
    attention."""
    padding: bool
    """A padded prompt gives what it gives alone; where it does not, batches hold prompts of one length."""
    bytes_per_token: float | None = None
    """Activations that a pass keeps; None where batches need not be planned by them."""
    rest: Mapping[str, Any] = field(default_factory=dict)
    """What else was decided (JSON)."""


def probe_gradients(
    model: HookedModel, sites: Sequence[Site], tokens: Sequence[int], *, width: int | None = None
) -> Probe:
    """Tries a forward and a backward pass of one prompt, alone and padded, with native attention and without.

    Anything unexpected is logged.

    Args:
        width: tokens of the longest prompt that it may share a batch with; it is padded to that.
    """
    alone, padded = _alone_and_padded(model, tokens, width)
    own, size = _attempt(model, sites, False, len(tokens), *alone)
    with native_attention(model) as possible:
        pass
    if possible:
        try:
            logits, native_size = _attempt(model, sites, True, len(tokens), *alone)
            wrong = differs(model, logits, own)
            wrong = wrong or differs(model, _attempt(model, sites, True, len(tokens), *padded)[0], own)
        except (ScoreError, RuntimeError) as error:
            wrong, native_size = str(error), size
        if not wrong:
            return Probe(native=True, padding=True, bytes_per_token=native_size)
        log.warning("native attention is not used, scoring is slower: %s", wrong)
    wrong = differs(model, _attempt(model, sites, False, len(tokens), *padded)[0], own)
    _warn_of_padding(wrong)
    return Probe(native=False, padding=not wrong, bytes_per_token=size)


def bytes_per_token(model: HookedModel, sites: Sequence[Site], tokens: Sequence[int]) -> float:
    """Activations that a pass with a backward one keeps, by one of these tokens; nothing else is tried."""
    alone, _ = _alone_and_padded(model, tokens, None)
    with native_attention(model) as possible:
        pass
    return _attempt(model, sites, possible, len(tokens), *alone)[1]


@torch.no_grad()
def probe_forward(
    model: HookedModel, names: Iterable[str], tokens: Sequence[int], *, width: int | None = None
) -> Probe:
    """Tries a forward pass of one prompt, alone and padded, with native attention and without; hooks must
    fire in both.

    Args:
        names: of the hooks that are on the model or will be.
        width: as in `probe_gradients`.
    """
    wanted = set(names)
    seen: set[str] = set()
    alone, padded = _alone_and_padded(model, tokens, width)

    def see(activation: Tensor, hook: Any) -> None:
        seen.add(hook.name)

    own = last_logits(model, *alone)
    with native_attention(model) as possible, model.hooks(fwd_hooks=[(name, see) for name in wanted]):
        if possible:
            wrong = differs(model, last_logits(model, *alone), own) or differs(
                model, last_logits(model, *padded), own
            )
            if not wrong and len(seen) == len(wanted):
                return Probe(native=True, padding=True)
            log.warning(
                "native attention is not used, answers take longer: %d of %d hooks fired; %s",
                len(seen), len(wanted), wrong or "the logits are the same",
            )  # fmt: skip
    wrong = differs(model, last_logits(model, *padded), own)
    _warn_of_padding(wrong)
    return Probe(native=False, padding=not wrong)


def differs(model: HookedModel, logits: Tensor, own: Tensor) -> str:
    """By how much logits differ from the model's own, in words; empty within the dtype's tolerance. NaN
    differs."""
    difference = float((logits - own).abs().amax() / own.abs().amax().clamp(min=1e-12))
    return (
        ""
        if difference <= NATIVE_TOLERANCE.get(dtype_of(model), 0.1)
        else f"logits differ by {difference:.1e}"
    )


def _alone_and_padded(
    model: HookedModel, tokens: Sequence[int], width: int | None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """(tokens, mask) of the prompt as it is, and with padding in front."""
    device, padding = device_of(model), max(_PADDING, (width or 0) - len(tokens))
    alone = torch.tensor([list(tokens)], device=device)
    padded = torch.tensor([[tokens[0]] * padding + list(tokens)], device=device)
    mask = torch.ones_like(padded)
    mask[:, :padding] = 0
    return (alone, torch.ones_like(alone)), (padded, mask)


def _warn_of_padding(wrong: str) -> None:
    if wrong:
        log.warning("padding is not used, batches hold prompts of one length: a padded prompt's %s", wrong)


def _attempt(
    model: HookedModel, sites: Sequence[Site], native: bool, length: int, tokens: Tensor, mask: Tensor
) -> tuple[Tensor, float]:
    """Logits of one pass, NaN where a product at the prompt's own tokens is, and bytes per token that it
    kept."""
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    stored: dict[int, int] = {}
    logits = torch.zeros(0)
    healthy = torch.ones((), dtype=torch.bool, device=tokens.device)

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            stored[storage.data_ptr()] = storage.nbytes()
        return tensor

    def objective() -> Tensor:
        nonlocal logits
        values = last_logits(model, tokens, mask)
        logits = values.detach()
        return values.softmax(-1).amax()

    def check(site: Site, layer: int, reading: Reading) -> None:
        assert reading.products is not None
        healthy.logical_and_(reading.products[:, -length:].isfinite().all().to(tokens.device))

    hooks = SiteHooks(model, backward=sites)
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        hooks.installed(native=native),
    ):
        hooks.run(objective, check)
    return logits.masked_fill(~healthy, torch.nan), sum(stored.values()) / tokens.shape[1]


def tokens_that_fit(model: HookedModel, bytes_per_token: float) -> int:
    """Tokens in a batch, padding included, that free memory has room for."""
    device = device_of(model)
    sharing = 1 if device.type == "cuda" else processes_here()
    room = int(SHARE_OF_MEMORY * free_memory(device) / sharing / max(bytes_per_token, 1.0))
    return max(1, min(TOKENS_PER_BATCH[device.type], room))


def free_memory(device: torch.device) -> int:
    """Bytes that the device can still give."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - torch.mps.driver_allocated_memory()
    import psutil

    return psutil.virtual_memory().available
