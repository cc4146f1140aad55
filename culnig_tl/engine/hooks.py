"""Hooks at sites: activations on the way forward, activation times gradient on the way back.

Parameters are frozen, so the graph starts at the embedding and reaches activations alone; each site's
gradient is used up inside the backward pass, so that none outlives its layer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.neurons import Site
from ..errors import ScoreError
from .models import FLOAT16, HookedModel, describe, frozen, hook_name
from .workarounds import native_attention

HookPlace = tuple[Site, int]
"""(site, layer)."""
Objective = Callable[[], Float[Tensor, ""]]
"""Runs the model once, and gives the number whose gradient is wanted."""


@dataclass
class Reading:
    """What is read at one site and layer. Values at padding are undefined."""

    activation: Float[Tensor, "batch pos neuron"] | None = None
    """On the way forward."""
    products: Float[Tensor, "batch pos neuron"] | None = None
    """n_i * dP/dn_i on the way back, in float32 at least; the receiver's to change."""
    gradient: Float[Tensor, "batch pos neuron"] | None = None
    """dP/dn_i on the way back, where it is asked for."""


Receive = Callable[[Site, int, Reading], None]
"""Called with (site, layer, reading) from inside the forward or the backward pass."""


class SiteHooks:
    """Hooks at some sites of every layer.

        hooks = SiteHooks(model, backward=[Site.MLP_GATE])
        with hooks.installed():
            hooks.run(objective, receive)  # as often as is wanted

    Args:
        forward: sites whose activations are read.
        backward: sites whose activation times gradient is read.
        slopes: those of `backward` whose gradient is wanted as well.
    """

    def __init__(
        self,
        model: HookedModel,
        *,
        forward: Iterable[Site] = (),
        backward: Iterable[Site] = (),
        slopes: Iterable[Site] = (),
    ) -> None:
        self.model, self.forward, self.backward = model, tuple(forward), tuple(backward)
        self.slopes = frozenset(slopes)
        self.sites = tuple(site for site in Site if site in {*self.forward, *self.backward})
        info = describe(model)
        self._places = [(site, layer) for site in self.sites for layer in info.layers_with(site)]
        self._activations: dict[HookPlace, Tensor] = {}
        self._waiting: set[HookPlace] = set()
        self._receive: Receive | None = None

    @property
    def names(self) -> list[str]:
        """Of the hooks, as they are called."""
        return [hook_name(self.model, *place) for place in self._places]

    @contextmanager
    def installed(self, *, native: bool = False) -> Iterator[SiteHooks]:
        """The hooks are on the model while it lasts, with attention in PyTorch's kernel where `native`."""
        names = {place: hook_name(self.model, *place) for place in self._places}
        forward: list[tuple[str, Callable[..., Any]]] = [
            (name, self._on_forward(place)) for place, name in names.items()
        ]
        backward = [
            (name, self._on_backward(place)) for place, name in names.items() if place[0] in self.backward
        ]
        if self.backward:
            forward.insert(0, (hook_name_of_embedding(self.model), _start_graph))
        grad = torch.enable_grad() if self.backward else torch.no_grad()
        with frozen(self.model), grad, native_attention(self.model, native):
            with self.model.hooks(fwd_hooks=forward, bwd_hooks=backward):
                yield self

    def run(self, objective: Objective, receive: Receive) -> None:
        """One forward pass and, for `backward`, one backward pass; `receive` gets what is read on the way.

        Raises `ScoreError` naming a hook that got no gradient.
        """
        self._receive = receive
        self._activations.clear()
        self._waiting = {place for place in self._places if place[0] in self.backward}
        try:
            value = objective()
            if self.backward:
                value.backward()
        finally:
            self._activations.clear()
            self._receive = None
        if self._waiting:
            site, layer = min(self._waiting, key=lambda place: (place[1], place[0].value))
            raise ScoreError(
                f"no gradient reached {site.hook_name(layer)}: this model does not use {site} as"
                " TransformerLens names it"
            )

    def _on_forward(self, place: HookPlace) -> Callable[..., None]:
        reads, keeps = place[0] in self.forward, place[0] in self.backward

        def hook(activation: Tensor, hook: Any) -> None:
            if self._receive is None:
                return
            if keeps:
                self._activations[place] = activation.detach()
            if reads:
                self._receive(*place, Reading(activation=activation.detach().flatten(2)))

        return hook

    def _on_backward(self, place: HookPlace) -> Callable[..., None]:
        slope = place[0] in self.slopes

        def hook(gradient: Tensor, hook: Any) -> None:
            activation = self._activations.pop(place)
            wide = torch.promote_types(activation.dtype, torch.float32)
            product = (
                activation.to(wide) * gradient
            )  # in float32 at least: bfloat16 gradients are widened on the way
            assert self._receive is not None
            reading = Reading(products=product.flatten(2))  # heads side by side: [batch, pos, neuron]
            if slope:
                reading.gradient = gradient.flatten(2)
            self._receive(*place, reading)
            self._waiting.discard(place)

        return hook


def _start_graph(embedding: Tensor, hook: Any) -> Tensor:
    if embedding.dtype == torch.float16:
        raise ScoreError(FLOAT16)
    return embedding.detach().requires_grad_(torch.is_grad_enabled())


def hook_name_of_embedding(model: HookedModel) -> str:
    """Where the graph starts."""
    return model.hook_dict["hook_embed"].name or "hook_embed"
