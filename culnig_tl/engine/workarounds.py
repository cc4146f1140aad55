"""What works around TransformerLens: each function says which of its behaviours it answers, so that they can
be deleted one by one."""

from __future__ import annotations

import copy
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor


def is_bridge(model: Any) -> bool:
    """Whether it is a `TransformerBridge`; a `HookedTransformer` otherwise."""
    return type(model).__name__ == "TransformerBridge"


@contextmanager
def no_installs() -> Iterator[None]:
    """Refuses every process that would install something.

    For a multimodal checkpoint TransformerLens runs `pip install torchvision` in the user's environment where
    torchvision is missing, from places that differ between its versions: so the door is closed at
    `subprocess` itself.
    """
    doors: list[tuple[Any, str]] = [
        (subprocess, name) for name in ("run", "call", "check_call", "check_output")
    ]
    doors.append(
        (subprocess.Popen, "__init__")
    )  # what the others go through, and a class that may be inherited from
    originals = [getattr(owner, name) for owner, name in doors]

    def refusing(original: Any, position: int) -> Any:
        def start(*args: Any, **kwargs: Any) -> Any:
            command = kwargs["args"] if "args" in kwargs else args[position]
            words = command.split() if isinstance(command, str) else [str(word) for word in command]
            if "install" in words:
                raise PermissionError(f"loading a model installs nothing, refused: {' '.join(words)}")
            return original(*args, **kwargs)

        return start

    for (owner, name), original in zip(doors, originals):
        setattr(owner, name, refusing(original, int(name == "__init__")))
    try:
        yield
    finally:
        for (owner, name), original in zip(doors, originals):
            setattr(owner, name, original)


def settled_tokenizer(tokenizer: Any) -> tuple[Any, dict[str, Any]]:
    """A copy that TransformerLens takes as it is, and the settings to give back to it afterwards.

    TransformerLens loads a tokenizer that adds no BOS a second time, from its name alone (of another
    revision, perhaps), to make it add one: a model would no longer read what it was trained on.
    """
    copied = copy.deepcopy(tokenizer)
    settings = dict(copied.init_kwargs)
    copied.init_kwargs = {"name_or_path": "", **settings, "add_bos_token": True}
    return copied, settings


@contextmanager
def native_attention(model: Any, wanted: bool = True) -> Iterator[bool]:
    """While it lasts, attention runs in PyTorch's fused kernel instead of the bridge's eager copy; yields
    whether it does.

    The bridge computes attention step by step, so that scores and patterns can be hooked. Nobody looks at
    them here: each attention's forward goes to the Hugging Face module that it wraps, whose q, k and v
    projections are still the bridge's own, hooks included. Where they are not (fused weights: Phi-3, GPT-2,
    GPT-NeoX), where somebody has hooked what the kernel does not show, and on a HookedTransformer, attention
    stays as it is. Callers compare the results of both.

    Norms that nobody hooks inside are computed once: the bridge computes them again for its `hook_scale`.
    """
    attentions = _routable_attentions(model) if wanted else []
    norms = _unwatched_norms(model) if wanted else []
    before = model.original_model.config._attn_implementation if attentions else None
    try:
        for norm in norms:
            object.__setattr__(norm, "forward", partial(_norm_alone, norm))
        if attentions:
            model.original_model.set_attn_implementation("sdpa")
        for attention in attentions:
            object.__setattr__(attention, "forward", attention.original_component.forward)
        yield bool(attentions)
    finally:
        for module in (*norms, *attentions):
            vars(module).pop("forward", None)
        if attentions:
            model.original_model.set_attn_implementation(before)


def _routable_attentions(model: Any) -> list[Any]:
    """The attention bridges whose Hugging Face module holds their q, k and v; none of them where one does
    not."""
    if not is_bridge(model) or not getattr(model.original_model, "_supports_sdpa", False):
        return []
    found = []
    for block in model.blocks:
        attention: Any = getattr(block, "attn", None)
        inner = getattr(attention, "original_component", None)
        if inner is None:
            return []
        inside = {id(module) for module in inner.modules()}
        if not all(id(getattr(attention, letter, None)) in inside for letter in "qkv"):
            return []
        # Hook points of the attention itself (scores, pattern, rotated q and k) do not fire in the fused
        # kernel.
        if any(
            getattr(point, "fwd_hooks", None) or getattr(point, "bwd_hooks", None)
            for point in attention.children()
        ):
            return []
        found.append(attention)
    return found


def _unwatched_norms(model: Any) -> list[Any]:
    """The bridged norms that return what the Hugging Face module returns, and inside which nobody has put a
    hook."""
    if not is_bridge(model):
        return []
    found = []
    for module in model.modules():
        points = [vars(module).get("_modules", {}).get(name) for name in ("hook_scale", "hook_normalized")]
        if None in points or not getattr(module, "use_native_layernorm_autograd", False):
            continue
        if any(point.fwd_hooks or point.bwd_hooks for point in points):
            continue
        if module.original_component is not None and not isinstance(
            module.original_component, torch.nn.Identity
        ):
            found.append(module)
    return found


def _norm_alone(norm: Any, hidden: Tensor) -> Tensor:
    """A bridged norm's forward pass without its inner hook points."""
    return norm.hook_out(norm.original_component(norm.hook_in(hidden)).to(hidden.dtype))
