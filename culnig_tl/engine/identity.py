"""What a result is a result of: the one place that decides whether something stored may stand for something
asked.

Two results are of the same work where model (revision, weights, buffers and settings), dtype, attention,
prompt wording, neurons, operation, questions and package version are all the same; changing one neuron, one
question, one weight or one number of the configuration makes it other work.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
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
MODEL_PARTS = ("model", "weights", "settings", "dtype", "attention", "wording")
"""What `model_identity` holds."""
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
"""Where PyTorch keeps a module's hooks."""
_LIBRARIES = frozenset(
    """torch transformers transformer_lens accelerate peft culnig_tl bitsandbytes compressed_tensors gptqmodel
    optimum torchao""".split()
)
"""Whose hooks belong to a model as it was loaded."""
_PLACES = frozenset(
    """training name device devices n_devices model_name tokenizer_name name_or_path _name_or_path
    transformers_version checkpoint_index checkpoint_value""".split()
)
"""What modules and configurations say of where things are, and not of what is computed."""


def model_identity(model: HookedModel) -> dict[str, Any]:
    """Revision, weights, settings, dtype, attention and prompt wording of a model: see `MODEL_PARTS`.

    Raises `ScoreError` for a model with somebody's hooks on it, whose answers are not those of its weights.
    """
    hooked = next(foreign_hooks(model), None)
    if hooked is not None:
        raise ScoreError(
            f"the model has hooks on it ({hooked}): what it answers cannot be kept in a folder; "
            "leave the `with` block, remove them, or pass ablate=..."
        )
    info = describe(model)
    config = getattr(getattr(model, "original_model", None), "config", None)
    return {
        "model": info.revision,
        "weights": weights_hash(model),
        "settings": settings_hash(model),
        "dtype": info.dtype,
        "attention": getattr(config, "_attn_implementation", None),
        "wording": wording_hash(tokenizer_of(model)),
    }


def digest_of(of_model: Mapping[str, Any] | None) -> str | None:
    """A model's identity in 16 hex digits; None where it is not known."""
    parts = [(of_model or {}).get(part) for part in MODEL_PARTS]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16] if any(parts) else None


def foreign_hooks(model: HookedModel) -> Iterator[str]:
    """Where a model has hooks, or forward functions, that no library put there when it was loaded."""
    for name, point in model.hook_dict.items():
        if getattr(point, "fwd_hooks", None) or getattr(point, "bwd_hooks", None):
            yield name
    if isinstance(model, torch.nn.Module):
        for name, module in model.named_modules():
            kept = vars(module)
            hooks = [hook for kind in _HOOKS for hook in kept.get(kind, {}).values()]
            if not all(map(_of_a_library, [*hooks, *([kept["forward"]] if "forward" in kept else [])])):
                yield name or type(module).__name__
    for kind in _HOOKS:
        if not all(map(_of_a_library, getattr(torch.nn.modules.module, f"_global{kind}", {}).values())):
            yield "on all modules"


def _of_a_library(function: Callable[..., Any]) -> bool:
    while isinstance(function, partial):
        function = function.func
    home = getattr(getattr(function, "__func__", function), "__module__", None) or type(function).__module__
    return home.partition(".")[0] in _LIBRARIES


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
    """Of every bit of the parameters and buffers, wherever they are: 64 bits in which a change of a single
    weight always shows.

    A sum of the weights' bits, each multiplied by an odd number that belongs to its place: quick on any
    device.
    """
    digest = hashlib.sha256()
    tensors = {**dict(_named(model, "parameters")), **dict(_named(model, "buffers"))}
    for tensor in tensors.values():
        if tensor.device.type != "meta" and tensor.numel():  # weights that accelerate keeps elsewhere
            digest.update(f"{tuple(tensor.shape)} {_sum_of_bits(tensor.detach()) & (2**64 - 1)}".encode())
    return digest.hexdigest()[:16]


def _named(model: Any, kind: str) -> Iterator[tuple[str, Tensor]]:
    """Parameters or buffers; one that several modules share counts once."""
    named = getattr(model, f"named_{kind}", None)
    return named() if named is not None else ((str(i), t) for i, t in enumerate(getattr(model, kind)()))


def settings_hash(model: HookedModel) -> str:
    """Of what a model computes with beside its weights: its configuration, and the class of every module with
    the numbers and words that it keeps (epsilons, scales, windows)."""
    config: Any = getattr(getattr(model, "original_model", None), "config", None) or model.cfg
    said: list[Any] = [config.to_dict() if hasattr(config, "to_dict") else config and vars(config)]
    if isinstance(model, torch.nn.Module):
        for name, part in model.named_modules():
            numbers = {k: v for k, v in vars(part).items() if isinstance(v, (bool, int, float, str))}
            said.append((name, type(part).__qualname__, {k: v for k, v in numbers.items() if k[0] != "_"}))
    return hashlib.sha256(json.dumps(_plain(said), sort_keys=True).encode()).hexdigest()[:16]


def _plain(value: Any) -> Any:
    """What JSON can hold of a value, without what only says where things are."""
    if isinstance(value, Mapping):
        kept = {str(name): _plain(part) for name, part in value.items() if name not in _PLACES}
        return {name: part for name, part in kept.items() if part is not None}
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    if isinstance(value, torch.dtype):
        return str(value)
    return value if isinstance(value, (bool, int, float, str)) else None


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
