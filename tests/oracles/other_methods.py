"""The other methods, word for word and slowly: plain hooks on the Hugging Face model, one question and one
step at a time.

Shares no code with the package.
"""

from __future__ import annotations

import math
from typing import Any

import torch

from .literal import BLOCK, INPUTS, OUTPUTS, _parts
from .plain_ablation import column


def _modules(model: Any):
    """(path, layer, name, module) of every linear module that holds neurons."""
    for path, module in model.named_modules():
        found = BLOCK.search(path)
        if found is not None and "vision" not in path:
            yield path, int(found[1]), found[2], module


def _probability(model: Any, tokens: list[int], answer: int) -> torch.Tensor:
    logits = model(torch.tensor([tokens])).logits[0, -1]
    return torch.softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)[answer]


def look(
    model: Any, tokens: list[int], answer: int
) -> tuple[dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]], float]:
    """({(site, layer): (activation [pos, neuron], gradient of P [pos, neuron])}, P) of one prompt."""
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

    for path, layer, name, module in _modules(model):
        if name in OUTPUTS:
            handles.append(module.register_forward_hook(keep_output(name, layer)))
        if name in INPUTS or path.endswith("mlp.c_proj"):
            handles.append(module.register_forward_pre_hook(keep_input(layer)))
    try:
        p = _probability(model, tokens, answer)
        p.backward()
    finally:
        for handle in handles:
            handle.remove()
        model.zero_grad(set_to_none=True)
    found = {}
    config = model.config.get_text_config()
    for (name, layer), tensor in kept.items():
        assert tensor.grad is not None
        sites = ["mlp.post"] if name == "post" else OUTPUTS[name]
        pairs = zip(sites, _parts(name, tensor.detach()[0], config), _parts(name, tensor.grad[0], config))
        found.update({(site, layer): (activation, gradient) for site, activation, gradient in pairs})
    return found, p.item()


def counterparts(clean: list[int], corrupted: list[int]) -> tuple[list[int | None], list[int]]:
    """(the corrupted position of every clean one, None where there is none; the corrupted positions of the
    common suffix)."""
    suffix = 0
    while (
        suffix < min(len(clean), len(corrupted))
        and clean[len(clean) - 1 - suffix] == corrupted[len(corrupted) - 1 - suffix]
    ):
        suffix += 1
    prefix = 0
    while prefix < min(len(clean), len(corrupted)) - suffix and clean[prefix] == corrupted[prefix]:
        prefix += 1
    found: list[int | None] = []
    for position in range(len(clean)):
        if position < prefix:
            found.append(position)
        elif position >= len(clean) - suffix:
            found.append(position - len(clean) + len(corrupted))
        else:
            found.append(None)
    return found, list(range(len(corrupted) - suffix, len(corrupted)))


def placed(activation: torch.Tensor, clean: list[int], corrupted: list[int]) -> list[torch.Tensor]:
    """The corrupted activation [pos, neuron] at every clean position: a vector of neurons each."""
    where, suffix = counterparts(clean, corrupted)
    mean = sum(activation[position] for position in suffix) / len(suffix)
    return [mean if position is None else activation[position] for position in where]


def attribution_patching(
    model: Any, clean: list[int], corrupted: list[int], answer: int
) -> dict[tuple[str, int], torch.Tensor]:
    """Sum over tokens of (clean - corrupted) * gradient, of one question."""
    here, _ = look(model, clean, answer)
    there, _ = look(model, corrupted, answer)
    out = {}
    for place, (activation, gradient) in here.items():
        other = placed(there[place][0], clean, corrupted)
        out[place] = sum((activation[i] - other[i]) * gradient[i] for i in range(len(clean)))
    return out


def integrated_gradients(
    model: Any, tokens: list[int], answer: int, site: str, layer: int, *, everywhere: bool, steps: int = 20
) -> torch.Tensor:
    """v / m * sum over k of dP(k/m v)/dw of one question, site and layer, the site's other neurons scaled
    along."""
    values = look(model, tokens, answer)[0][site, layer][0]  # [pos, neuron]
    total = torch.zeros(values.shape[1])
    config = model.config.get_text_config()
    for k in range(1, steps + 1):
        scaled = values.clone()
        if everywhere:
            scaled *= k / steps
        else:
            scaled[-1] *= k / steps
        scaled.requires_grad_(True)
        handles = []

        def put_in(module: Any, arguments: Any) -> tuple:
            return (scaled[None], *arguments[1:])  # noqa: B023

        def put_out(name: str):
            def hook(module: Any, arguments: Any, output: torch.Tensor) -> torch.Tensor:
                changed = output.clone()
                columns = [
                    column(name, site, index, output.shape[-1], config) for index in range(values.shape[1])
                ]
                changed[0, :, columns] = scaled  # noqa: B023
                return changed

            return hook

        for path, where, name, module in _modules(model):
            if where != layer:
                continue
            if site == "mlp.post" and (name in INPUTS or path.endswith("mlp.c_proj")):
                handles.append(module.register_forward_pre_hook(put_in))
            elif site in OUTPUTS.get(name, []):
                handles.append(module.register_forward_hook(put_out(name)))
        assert len(handles) == 1
        try:
            (gradient,) = torch.autograd.grad(_probability(model, tokens, answer), scaled)
        finally:
            handles[0].remove()
        positions = range(len(tokens)) if everywhere else [len(tokens) - 1]
        for position in positions:
            total += values[position] * gradient[position] / steps
    return total


def pattern_patching(
    model: Any,
    clean: list[int],
    corrupted: list[int],
    answer: int,
    site: str,
    layer: int,
    index: int,
    heads: int,
    owners: int,
) -> float:
    """Sum over heads, queries and keys of (A - A with the neuron patched) * dP/dA; the model must run with
    eager attention."""
    config = model.config.get_text_config()
    there = look(model, corrupted, answer)[0][site, layer][0]
    other = placed(there, clean, corrupted)
    output = model(torch.tensor([clean]), output_attentions=True)
    p = torch.softmax(output.logits[0, -1].float(), dim=-1)[answer]
    (slope,) = torch.autograd.grad(p, output.attentions[layer])
    before = output.attentions[layer].detach()[0]

    def patch(name: str):
        def hook(module: Any, arguments: Any, produced: torch.Tensor) -> torch.Tensor:
            changed = produced.clone()
            for position in range(len(clean)):
                changed[0, position, column(name, site, index, produced.shape[-1], config)] = other[position][
                    index
                ]
            return changed

        return hook

    handles = [
        module.register_forward_hook(patch(name))
        for _, where, name, module in _modules(model)
        if where == layer and site in OUTPUTS.get(name, [])
    ]
    assert len(handles) == 1
    try:
        with torch.no_grad():
            after = model(torch.tensor([clean]), output_attentions=True).attentions[layer][0]
    finally:
        handles[0].remove()
    size = other[0].shape[0] // owners
    mine = [head for head in range(heads) if head * owners // heads == index // size]
    return float(sum(((before[head] - after[head]) * slope[0, head]).sum() for head in mine))


def lape(counts: dict[str, list[list[int]]], tokens: dict[str, int]) -> dict[str, list[list[float]]]:
    """{country: [layer][neuron]} scores from how often each gate was positive, in how many tokens."""
    countries = list(counts)
    p = {c: [[n / tokens[c] for n in row] for row in counts[c]] for c in countries}
    every = sorted(value for c in countries for row in p[c] for value in row)
    bar = every[max(1, round(0.95 * len(every))) - 1]
    out = {c: [[0.0] * len(row) for row in p[c]] for c in countries}
    for layer in range(len(p[countries[0]])):
        for neuron in range(len(p[countries[0]][layer])):
            mine = [p[c][layer][neuron] for c in countries]
            over = [c for c in countries if p[c][layer][neuron] > bar]
            if not over:
                continue
            entropy = -sum(v / sum(mine) * math.log(v / sum(mine)) for v in mine if v > 0)
            for c in over:
                out[c][layer][neuron] = (math.log(len(countries)) - entropy) / len(over)
    return out
