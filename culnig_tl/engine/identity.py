"""What a result is a result of: the one place that decides whether something stored may stand for something
asked.

Two results are of the same work where model (revision and weights), dtype, prompt wording, neurons,
operation, questions and package version are all the same; changing one neuron, one question or one weight
makes it other work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..data.neurons import NeuronMeans, NeuronSet
from ..errors import ScoreError
from ..version import __version__
from .models import HookedModel, describe, tokenizer_of

_CHUNK = {"cpu": 1 << 16, "cuda": 1 << 24}
"""Weights at a time: what a cache holds, or what keeps a GPU busy. The result does not depend on it."""
_MIX = 0x5851F42D4C957F2D
"""Odd (Knuth's MMIX multiplier): multiplied by it, no two values of 64 bits become the same."""


def model_identity(model: HookedModel) -> dict[str, Any]:
    """Revision, weights, dtype and prompt wording of a model.

    Raises `ScoreError` for a model with hooks on it, whose answers are not those of its weights.
    """
    points = model.hook_dict.items()
    hooked = [n for n, p in points if getattr(p, "fwd_hooks", None) or getattr(p, "bwd_hooks", None)]
    if hooked:
        raise ScoreError(
            f"the model has hooks on it ({hooked[0]}): what it answers cannot be kept in a folder; "
            "leave the `with` block, or pass ablate=..."
        )
    info = describe(model)
    wording = wording_hash(tokenizer_of(model))
    return {"model": info.revision, "weights": weights_hash(model), "dtype": info.dtype, "wording": wording}


def identity(
    model: Mapping[str, Any],
    *,
    neurons: NeuronSet | None = None,
    operation: str | None = None,
    means: NeuronMeans | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """The key under which a result is kept, but for the questions' fingerprints, which stand beside it.

    Args:
        model: its `model_identity`.
        neurons: what is ablated; None for the model unchanged.
        operation: how, as `ablation.operation_name` says it.
        means: what is put in the neurons' place.
        settings: whatever else decides the result, e.g. sites and method of scores.
    """
    key = {
        **model,
        "neurons": None if neurons is None else neurons.hash,
        "operation": None if neurons is None else operation,
        "means": None if means is None else means.hash,
        "version": __version__,
        **settings,
    }
    return json.loads(json.dumps(key))


def differing(mine: Mapping[str, Any], theirs: Any) -> str | None:
    """The first part in which two identities differ, e.g. "dtype is 'float32', not 'bfloat16'"; None where
    they are the same."""
    if not isinstance(theirs, Mapping):
        return "it does not say what it was made from"
    for name in (*mine, *theirs):
        if mine.get(name) != theirs.get(name):
            return f"{name} is {theirs.get(name)!r}, not {mine.get(name)!r}"
    return None


def weights_hash(model: HookedModel) -> str:
    """Of every bit of the parameters, wherever they are: 64 bits in which a change of a single weight always
    shows.

    A sum of the weights' bits, each multiplied by an odd number that belongs to its place: quick on any
    device.
    """
    digest = hashlib.sha256()
    for parameter in model.parameters():
        if parameter.device.type != "meta":  # weights that accelerate keeps elsewhere
            digest.update(
                f"{tuple(parameter.shape)} {_sum_of_bits(parameter.detach()) & (2**64 - 1)}".encode()
            )
    return digest.hexdigest()[:16]


def _sum_of_bits(tensor: Tensor) -> int:
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int32}
    flat = tensor.contiguous().reshape(-1)
    flat = flat.view(kinds[flat.element_size()])
    chunk = _CHUNK.get(flat.device.type, 1 << 20)
    odd = (
        torch.arange(min(chunk, len(flat)), dtype=torch.int64, device=flat.device) * (2 * _MIX) + 1
    )  # wraps around at 2**64
    total = torch.zeros((), dtype=torch.int64, device=flat.device)
    for start in range(0, len(flat), chunk):
        bits = flat[start : start + chunk].to(torch.int64)
        further = (
            start * 2 * _MIX + 2**63
        ) % 2**64 - 2**63  # what the odd numbers of this chunk have more than the first one's
        total += (bits * odd[: len(bits)]).sum() + bits.sum() * further
    return int(total)


def wording_hash(tokenizer: Any) -> str:
    """Of what turns a question into tokens: chat template, vocabulary, special tokens."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    core = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    special = [getattr(tokenizer, f"{kind}_token_id", None) for kind in ("bos", "eos", "pad")]
    text = json.dumps([getattr(tokenizer, "chat_template", None), special, core], default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
