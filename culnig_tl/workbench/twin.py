"""A copy of a model on the same weights.

A view's messages may be answered in a thread of their own while a cell runs the same model. Hooks live on the
model: without a copy, the view's ablation would reach into the cell's evaluation. The copy has its own hook
points and shares every weight.
"""

from __future__ import annotations

import copy
import itertools
import logging
import warnings
from typing import Any

import torch

from ..engine.models import HookedModel, device_of, last_logits

log = logging.getLogger(__name__)

_FORKS = ("use_split_qkv_input", "use_attn_in", "use_hook_mlp_in")
"""TransformerLens' flags under which a block of the copy would write into the model that it was copied
from."""


@torch.no_grad()
def twin(model: Any) -> HookedModel | None:
    """The copy; None, with a warning in the log, where it cannot be made or computes something else."""
    if any(getattr(model.cfg, flag, False) for flag in _FORKS):
        log.warning(
            "the view shares the model with the notebook: it cannot be copied while %s is set",
            " or ".join(_FORKS),
        )
        return None
    kept = [*model.parameters(), *model.buffers(), getattr(model, "tokenizer", None), model.cfg]
    memo: dict[int, Any] = {id(each): each for each in kept}
    # TransformerLens keeps the last attention pattern; after a backward pass its graph cannot be copied.
    values = [value for module in model.modules() for value in vars(module).values()]
    left = [value for value in values if isinstance(value, torch.Tensor) and value.grad_fn is not None]
    memo |= {id(value): value.detach() for value in left}
    memo[id(memo)] = kept  # keeps them alive meanwhile, as deepcopy itself does
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            copied = copy.deepcopy(model, memo)
    except (TypeError, RuntimeError, AttributeError, ValueError, NotImplementedError) as error:
        log.warning("the view shares the model with the notebook: it cannot be copied (%s)", error)
        return None
    object.__setattr__(copied, "_culnig_original", model)  # its blocks hold weak references to the model's
    shared = all(a is b for a, b in itertools.zip_longest(model.parameters(), copied.parameters()))
    tokens = torch.arange(4, device=device_of(model))[None]
    mask = torch.ones_like(tokens)
    if not shared or not torch.equal(last_logits(model, tokens, mask), last_logits(copied, tokens, mask)):
        log.warning("the view shares the model with the notebook: a copy of it computes something else")
        return None
    return copied
