"""Fan-out: one prompt as one row up to a layer, and as many rows as wanted from there on.

Hundreds of interventions on one prompt share everything before the layer they touch. So the forward pass
starts with one row, and a hook turns it into one row per intervention where they begin: at the block's input
for attention's sites, at the site itself for the MLP's. Masks and positions of a single unpadded prompt are
the same for all rows and broadcast.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.neurons import NeuronSet, Site
from ..engine.cloze import costs
from ..engine.models import HookedModel, describe, device_of, hook_name
from ..engine.probe import differs
from ..engine.prompts import TOKENS_PER_BATCH
from .ablation import ablate
from .asking import Asking, Said

log = logging.getLogger(__name__)

Edit = Callable[[Float[Tensor, "row pos neuron"]], Float[Tensor, "row pos neuron"]]
"""Changes a site's output, heads side by side; each row is an intervention of its own."""


def rows_that_fit(model: HookedModel, prompt: Any) -> int:
    """Copies of one prompt in one batch."""
    return max(1, TOKENS_PER_BATCH[device_of(model).type] // costs(model, [prompt])[0])


def block_input(model: HookedModel, layer: int) -> str:
    """The name under which a hook on a block's input is called once."""
    name = f"blocks.{layer}.hook_resid_pre"
    return model.hook_dict[name].name or name


def edit_hooks(
    model: HookedModel, layer: int, rows: int, edits: Mapping[Site, Edit], *, early: bool
) -> list[tuple[str, Callable[..., Tensor]]]:
    """Forward hooks that fan out at `layer` (where `early`) and edit the sites there."""

    def expand(activation: Tensor, hook: Any) -> Tensor:
        return activation.expand(rows, *activation.shape[1:])

    def at_site(edit: Edit) -> Callable[..., Tensor]:
        def hook(activation: Tensor, hook: Any) -> Tensor:
            whole = activation.expand(
                rows, *activation.shape[1:]
            )  # as it is, where the rows are there already
            return edit(whole.flatten(2)).view(whole.shape)

        return hook

    alone = len(edits) == 1 and next(iter(edits)).pool == "mlp"
    start = [(block_input(model, layer), expand)] if early and not alone else []
    return [*start, *((hook_name(model, site, layer), at_site(edit)) for site, edit in edits.items())]


def ask_rows(one: Asking, layer: int, rows: int, edits: Mapping[Site, Edit], *, early: bool = True) -> Said:
    """What a model says of one question under as many interventions as there are rows.

    Args:
        one: a question in one row, without padding.
        edits: site of `layer` -> what is done to its output.
        early: fan out at the layer; else all rows run from the start (for models of which `fans_out` is not
            true).
    """
    with one.model.hooks(fwd_hooks=edit_hooks(one.model, layer, rows, edits, early=early)):
        return one.ask(1 if early else rows)


def zeroing(index: Int[Tensor, " row"]) -> Edit:
    """Row r loses neuron `index[r]` at every position."""

    def edit(activation: Tensor) -> Tensor:
        changed = activation.clone()
        changed[torch.arange(len(index)), :, index.to(activation.device)] = 0
        return changed

    return edit


@torch.no_grad()
def fans_out(one: Asking, sites: Sequence[Site]) -> bool:
    """Whether fanning out gives what `ablate` gives, tried on a neuron of every site in the first and the
    last layer.

    Logs a warning where it does not.
    """
    model = one.model
    for layer in sorted({0, describe(model).layers - 1}):
        for site in sites:
            with ablate(model, NeuronSet.from_indices([(site, layer, 1)])):
                expected = one.ask().compared
            edits = {site: zeroing(torch.tensor([0, 1]))}
            try:
                wrong = differs(model, ask_rows(one, layer, 2, edits).compared[1:], expected)
            except RuntimeError as error:
                wrong = str(error).splitlines()[0]
            if wrong:
                log.warning(
                    "prompts run from the start for every intervention, which takes longer: %s", wrong
                )
                return False
    return True
