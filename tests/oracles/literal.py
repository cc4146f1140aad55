"""The method, word for word and slowly: plain forward hooks on the Hugging Face model, Python loops, one
question at a time.

Shares no code with the package. For a prompt x with right answer token y:

    s_i = n_i * dP(y|x)/dn_i,    s = max over the prompt's tokens of s_i,    S_c = sum over the questions of c of P * s
"""

from __future__ import annotations

import re
from typing import Any

import torch

BLOCK = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.(?:mlp|attn|self_attn|attention)\.(\w+)$")
OUTPUTS = {
    "gate_proj": ["mlp.gate"],
    "up_proj": ["mlp.up"],
    "gate_up_proj": ["mlp.gate", "mlp.up"],
    "c_fc": ["mlp.gate"],
    "dense_h_to_4h": ["mlp.gate"],
    "q_proj": ["attn.q"],
    "k_proj": ["attn.k"],
    "v_proj": ["attn.v"],
    "qkv_proj": ["attn.q", "attn.k", "attn.v"],
    "c_attn": ["attn.q", "attn.k", "attn.v"],
    "query_key_value": ["attn.q", "attn.k", "attn.v"],
}
"""Name of a linear module -> the sites that its output holds, one after the other."""
INPUTS = {"down_proj", "dense_4h_to_h"}
"""Modules whose input is mlp.post (and GPT-2's mlp.c_proj)."""


def products(
    model: Any, tokens: list[int], answer: int
) -> tuple[dict[tuple[str, int], list[list[float]]], float]:
    """n_i * dP/dn_i of one prompt, as {(site, layer): rows of neurons, one row a token}, and P(answer)."""
    kept: dict[tuple[str, int], torch.Tensor] = {}
    handles = []

    def keep_output(name: str, layer: int):
        def hook(module: Any, arguments: Any, output: torch.Tensor) -> None:
            output.retain_grad()
            kept[name, layer] = output

        return hook

    def keep_input(layer: int):
        def hook(module: Any, arguments: Any) -> None:
            arguments[0].retain_grad()
            kept["post", layer] = arguments[0]

        return hook

    for path, module in model.named_modules():
        found = BLOCK.search(path)
        if found is None or "vision" in path:
            continue
        layer, name = int(found[1]), found[2]
        if name in OUTPUTS:
            handles.append(module.register_forward_hook(keep_output(name, layer)))
        if name in INPUTS or path.endswith("mlp.c_proj"):
            handles.append(module.register_forward_pre_hook(keep_input(layer)))
    try:
        logits = model(torch.tensor([tokens])).logits[0, -1]
        probability = torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)[
            answer
        ]
        probability.backward()
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)

    found_products: dict[tuple[str, int], list[list[float]]] = {}
    for (name, layer), tensor in kept.items():
        assert tensor.grad is not None
        product = (tensor.detach() * tensor.grad)[0]
        sites = ["mlp.post"] if name == "post" else OUTPUTS[name]
        for site, part in zip(sites, _parts(name, product, model.config.get_text_config())):
            found_products[site, layer] = part.tolist()
    return found_products, probability.item()


def _parts(name: str, product: torch.Tensor, config: Any) -> list[torch.Tensor]:
    """A fused output [pos, everything] cut into its sites."""
    width = product.shape[-1]
    if name == "gate_up_proj":
        return [product[:, : width // 2], product[:, width // 2 :]]
    if name == "c_attn":
        third = width // 3
        return [product[:, :third], product[:, third : 2 * third], product[:, 2 * third :]]
    if name == "qkv_proj":
        heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
        size = width // (heads + 2 * kv_heads)
        ends = (heads * size, (heads + kv_heads) * size)
        return [product[:, : ends[0]], product[:, ends[0] : ends[1]], product[:, ends[1] :]]
    if name == "query_key_value":  # GPT-NeoX: head by head, each with its q, k and v
        size = width // config.num_attention_heads // 3
        columns: list[list[torch.Tensor]] = [[], [], []]
        for head in range(config.num_attention_heads):
            for which in range(3):
                start = (3 * head + which) * size
                columns[which].append(product[:, start : start + size])
        return [torch.cat(part, dim=1) for part in columns]
    return [product]


def scores(
    model: Any, rows: list[tuple[list[int], int, str]], *, clamp: bool = False
) -> dict[tuple[str, str, int], list[float]]:
    """S_c as {(country, site, layer): one number a neuron} for rows of (tokens, answer token, country)."""
    totals: dict[tuple[str, str, int], list[float]] = {}
    for tokens, answer, country in rows:
        found, probability = products(model, tokens, answer)
        for (site, layer), table in found.items():
            total = totals.setdefault((country, site, layer), [0.0] * len(table[0]))
            for neuron in range(len(table[0])):
                score = table[0][neuron]
                for token in range(1, len(table)):
                    score = max(score, table[token][neuron])
                if clamp:
                    score = max(score, 0.0)
                total[neuron] += probability * score
    return totals
