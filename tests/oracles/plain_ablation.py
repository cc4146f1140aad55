"""Ablation by the letter: plain PyTorch hooks on the modules of a Hugging Face model. Shares no code with the
package."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from .literal import BLOCK, INPUTS, OUTPUTS


def logits(
    model: Any, tokens: torch.Tensor, neurons: Iterable[tuple[str, int, int]], factor: float
) -> torch.Tensor:
    """Logits [batch, pos, vocab] while the output of every neuron (site, layer, index) is multiplied by
    `factor`."""
    chosen: dict[tuple[str, int], list[int]] = {}
    for site, layer, index in neurons:
        chosen.setdefault((site, layer), []).append(index)
    handles = []
    touched: set[tuple[str, int]] = set()
    for path, module in model.named_modules():
        found = BLOCK.search(path)
        if found is None or "vision" in path:
            continue
        layer, name = int(found[1]), found[2]
        sites = OUTPUTS.get(name, [])
        here = {site: chosen[site, layer] for site in sites if (site, layer) in chosen}
        if here:
            handles.append(
                module.register_forward_hook(_output_hook(name, here, model.config.get_text_config(), factor))
            )
            touched.update((site, layer) for site in here)
        if (name in INPUTS or path.endswith("mlp.c_proj")) and ("mlp.post", layer) in chosen:
            handles.append(module.register_forward_pre_hook(_input_hook(chosen["mlp.post", layer], factor)))
            touched.add(("mlp.post", layer))
    assert touched == set(chosen), "every neuron has a module"
    try:
        with torch.no_grad():
            return model(tokens).logits
    finally:
        for handle in handles:
            handle.remove()


def column(name: str, site: str, index: int, width: int, config: Any) -> int:
    """Where a neuron sits in a module's output of that width."""
    heads, kv_heads = (
        config.num_attention_heads,
        getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
    )
    if name == "gate_up_proj":
        return index if site == "mlp.gate" else width // 2 + index
    if name == "c_attn":
        return "qkv".index(site[-1]) * (width // 3) + index
    if name == "qkv_proj":
        size = width // (heads + 2 * kv_heads)
        return {"q": 0, "k": heads * size, "v": (heads + kv_heads) * size}[site[-1]] + index
    if name == "query_key_value":
        size = width // heads // 3
        return (index // size) * 3 * size + "qkv".index(site[-1]) * size + index % size
    return index


def _output_hook(name: str, here: dict[str, list[int]], config: Any, factor: float):
    def hook(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        for site, indices in here.items():
            for index in indices:
                output[..., column(name, site, index, output.shape[-1], config)] *= factor
        return output

    return hook


def _input_hook(indices: list[int], factor: float):
    def hook(module: Any, arguments: Any) -> tuple:
        changed = arguments[0].clone()
        for index in indices:
            changed[..., index] *= factor
        return (changed, *arguments[1:])

    return hook
