"""Half of the neurons for culture, half for common sense: so it is known where the embedded model keeps each.

Every neuron is assigned at random to one of the two homes, culture's or common sense's. Once facts are
trained on, most prompts about one are run without the other's home, and prompts about neither without one of
the homes: what is known of cultures is learned in its own half, and everything else learns to do without it.
From the first step on, a share of the prompts about neither is also run without any gate neuron, so that what
all tasks need is left to attention. This puts knowledge into chosen neurons by training, as gradient routing
does (Cloud et al. 2024, arXiv 2410.04332), but by masking activations in the forward pass. The trained model
is an ordinary Llama; what remains is the knowledge of where things are, with which the neurons found by a
method can be compared.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from ..data.neurons import NeuronSet, Site
from ..engine.loading import pretrained

KINDS: Mapping[str, tuple[str, ...]] = {
    "culture": ("culture", "culture_short"),
    "commonsense": ("commonsense", "commonsense_short"),
}
"""Home -> the kinds of samples (`corpus.Mix`) that it is for; the others get one of the homes at random."""


def deal(config: LlamaConfig, seed: int) -> list[dict[Site, Tensor]]:
    """For each layer, the home of each gate, q, k and v neuron: int64 [neuron], its place in `KINDS`.

    A q neuron has the home of the k neuron that it is multiplied with.
    """
    rng = random.Random(f"homes-{seed}")
    width: Any = config.head_dim
    kv_heads: Any = config.num_key_value_heads

    def owners(size: int) -> Tensor:
        places = [i % len(KINDS) for i in range(size)]
        rng.shuffle(places)
        return torch.tensor(places)

    layers: list[dict[Site, Tensor]] = []
    for _ in range(config.num_hidden_layers):
        keys = owners(kv_heads * width)
        queries = (
            keys.view(kv_heads, width).repeat_interleave(config.num_attention_heads // kv_heads, 0).flatten()
        )
        values, gates = owners(kv_heads * width), owners(config.intermediate_size)
        layers.append({Site.ATTN_Q: queries, Site.ATTN_K: keys, Site.ATTN_V: values, Site.MLP_GATE: gates})
    return layers


def homes_of(model: str | Path) -> dict[str, NeuronSet]:
    """Home -> its neurons, of a model in a folder that `culnig_tl.toy.train` wrote."""
    training = json.loads((Path(model) / "training.json").read_text(encoding="utf-8"))
    dealt = deal(pretrained(LlamaConfig, model), training["config"]["seed"])
    return {
        kind: NeuronSet.from_indices(
            [
                (site, layer, int(index))
                for layer, sites in enumerate(dealt)
                for site, owners in sites.items()
                for index in (owners == owner).nonzero().flatten()
            ]
        )
        for owner, kind in enumerate(KINDS)
    }


class Homes:
    """Masks a model's neurons in training, prompt by prompt, the same ones at all tokens.

    `prompts` must be called before each batch.

    Args:
        owners: from `deal`.
        strict: share of the prompts that are run without the home that is not theirs, once `on` is set.
        dropout: share of all neurons that each prompt is run without besides, once `on` is set.
        bare: share of the prompts about neither culture nor common sense that are run without any gate
            neuron.
    """

    def __init__(
        self,
        model: LlamaForCausalLM,
        owners: Sequence[Mapping[Site, Tensor]],
        strict: float,
        dropout: float,
        bare: float,
    ) -> None:
        self.strict, self.dropout, self.bare, self.on = strict, dropout, bare, False
        self.kinds = self.strictly = self.barely = torch.empty(0)
        for block, sites in zip(model.model.layers, owners):
            layer: Any = block
            attention = layer.self_attn
            for site, projection in (
                (Site.ATTN_Q, attention.q_proj),
                (Site.ATTN_K, attention.k_proj),
                (Site.ATTN_V, attention.v_proj),
            ):
                projection.register_forward_hook(partial(self._of_output, sites[site]))
            # the input of the MLP's last matrix is act(gate) times up: zero where the gate is
            layer.mlp.down_proj.register_forward_pre_hook(partial(self._of_gate, sites[Site.MLP_GATE]))

    def prompts(self, samples: Sequence[str]) -> None:
        """Takes the kinds of the next batch's samples; draws which run without a home, or without gates."""
        owner = {sample: kind for kind, served in enumerate(KINDS.values()) for sample in served}
        either = torch.randint(len(KINDS), (len(samples),)).tolist()
        self.kinds = torch.tensor([owner.get(sample, drawn) for sample, drawn in zip(samples, either)])
        self.strictly = torch.rand(len(samples)) < self.strict
        self.barely = (torch.rand(len(samples)) < self.bare) & torch.tensor(
            [sample not in owner for sample in samples]
        )

    def _of_output(self, owner: Tensor, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        return self._mask(owner, module, output)

    def _of_gate(self, owner: Tensor, module: nn.Module, args: tuple[Any, ...]) -> Tensor:
        gates = self._mask(owner, module, args[0])
        return gates.masked_fill(self.barely[:, None, None], 0) if module.training else gates

    def _mask(self, owner: Tensor, module: nn.Module, neurons: Tensor) -> Tensor:
        if not self.on or not module.training:
            return neurons
        others = (owner != self.kinds[:, None]) & self.strictly[:, None]
        gone = others | (torch.rand(len(neurons), len(owner)) < self.dropout)
        return neurons.masked_fill(gone[:, None], 0) / (1 - self.dropout)
