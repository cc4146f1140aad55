"""Which sites a model has, layer by layer, and whether a hook carries what its name says.

A hook point is known by its name alone, and on some architectures that name stands for something else: before
a mixture of experts "the gate" is the block's normalised input, in latent attention "the keys" are no
projection's output. So the Hugging Face model is run once on a short prompt with PyTorch's own hooks, before
TransformerLens has touched it, and what each projection makes of its input is kept (`projections`). Then the
hooked model is run on the same prompt: a site is there in the layers in which its hook carries just that.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.neurons import Site

log = logging.getLogger(__name__)

PROBE_TOKENS = 8
"""Of the prompt that is run."""
TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-2, torch.bfloat16: 0.2}
"""Largest norm of the difference between what a hook carries and the projection's output, against that of the
output: kernels and rounding differ between the two runs; another tensor altogether differs by 1 or more."""
_BLOCK = re.compile(r"(.*?)\b(?:layers|h|blocks)\.(\d+)\.(.+)")
_ATTENTION = re.compile(r"attn|attention", re.IGNORECASE)
_LETTERS = {
    Site.ATTN_Q: re.compile(r"q|wq|qkv|query", re.IGNORECASE),
    Site.ATTN_K: re.compile(r"k|wk|kv|qkv|key", re.IGNORECASE),
    Site.ATTN_V: re.compile(r"v|wv|kv|qkv|value", re.IGNORECASE),
}
"""Words in the name of a projection that makes queries, keys or values."""
_FUSED = re.compile(r"c_attn|Wqkv|W_pack|in_proj|query_key_value|qkv", re.IGNORECASE)
_UP = re.compile(r"up|w3|linear_v|fc_1_v|v1", re.IGNORECASE)
_GATE = re.compile(r"gate|w1", re.IGNORECASE)


@dataclass(frozen=True)
class Projection:
    """One linear map of one block on the probe's tokens."""

    name: str
    """Within the block, e.g. "mlp.gate_proj"."""
    given: Float[Tensor, "pos in"]
    made: Float[Tensor, "pos out"]

    @property
    def parent(self) -> str:
        return self.name.rpartition(".")[0]

    @property
    def last(self) -> str:
        return self.name.rpartition(".")[2]


@dataclass(frozen=True)
class Projections:
    """What every projection of every block makes of its input."""

    tokens: Int[Tensor, "1 pos"]
    blocks: Mapping[int, Sequence[Projection]] = field(default_factory=dict)
    experts: frozenset[int] = frozenset()
    """Layers with a mixture of experts."""


@torch.no_grad()
def projections(hf_model: Any) -> Projections:
    """Runs a Hugging Face model on a short prompt and keeps, on the CPU, what its projections make of it.

    Of a model that cannot be run so nothing is kept: then nothing is checked.
    """
    config = (
        hf_model.config.get_text_config() if hasattr(hf_model.config, "get_text_config") else hf_model.config
    )
    place = hf_model.get_input_embeddings().weight
    tokens = spread(int(place.shape[0])).to(place.device)
    found: dict[int, dict[str, Projection]] = {}
    experts: set[int] = set()
    handles: list[Any] = []
    layers = int(getattr(config, "num_hidden_layers", 0))

    def keep(layer: int, name: str) -> Any:
        def hook(module: Any, given: tuple[Any, ...], made: Any) -> None:
            if isinstance(made, Tensor) and given and isinstance(given[0], Tensor):
                into, out = (t.detach().reshape(-1, t.shape[-1]).float().cpu() for t in (given[0], made))
                if len(into) == len(out) == PROBE_TOKENS:
                    found.setdefault(layer, {})[name] = Projection(name, into, out)

        return hook

    for name, module in hf_model.named_modules():
        match = _BLOCK.fullmatch(name)
        if match is None or re.search("vision|audio|visual", match[1]) or int(match[2]) >= layers:
            continue
        if re.search(r"\bexperts\b", match[3]) and "shared" not in match[3]:
            experts.add(int(match[2]))
        if _is_linear(module):
            handles.append(module.register_forward_hook(keep(int(match[2]), match[3])))
    try:
        hf_model(tokens, use_cache=False)
    except Exception as error:  # whatever a model's own code raises: it is asked again, hooked, right after
        log.debug("the projections cannot be looked at: %r", error)
        return Projections(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return Projections(tokens, {n: [*made.values()] for n, made in found.items()}, frozenset(experts))


def spread(vocabulary: int) -> Int[Tensor, "1 pos"]:
    """The probe's tokens: spread evenly over the vocabulary.

    The first ones are special tokens, which training hardly meets. In SmolLM2-135M-Instruct in bfloat16,
    rounding alone moves activations on them by up to 0.57 of their norm, on these by 0.03.
    """
    return (torch.arange(1, 2 * PROBE_TOKENS, 2) * vocabulary // (2 * PROBE_TOKENS))[None]


def _is_linear(module: Any) -> bool:
    """Linear maps of PyTorch, GPT-2's, and those of quantized models."""
    name = type(module).__name__
    return isinstance(module, torch.nn.Linear) or "Linear" in name or name == "Conv1D"


Seen = Mapping[tuple[Site, int], Tensor]
"""(site, layer) -> what its hook carried, [pos, neuron] or [pos, head, d_head], where it fired."""


def by_layer(
    seen: Seen, layers: int, known: Projections | None, dtype: torch.dtype
) -> dict[Site, tuple[int, ...]]:
    """Site -> neurons in each layer, 0 where it is not there; a site that no layer has is left out.

    What is left out although its hook fires is logged, one line a site.
    """
    widths: dict[Site, tuple[int, ...]] = {}
    for site in Site:
        own = [0] * layers
        wrong: list[int] = []
        for layer in range(layers):
            if (activation := seen.get((site, layer))) is None:
                continue
            if known is None or carries(
                site, activation, known.blocks.get(layer, ()), TOLERANCE.get(dtype, 0.2)
            ):
                own[layer] = activation[0].numel()
            else:
                wrong.append(layer)
        if any(own):
            widths[site] = tuple(own)
        if wrong and known is not None:
            _say_left_out(site, wrong, layers, known)
    return widths


def _say_left_out(site: Site, wrong: Sequence[int], layers: int, known: Projections) -> None:
    where = "every layer" if len(wrong) == layers else in_words(wrong)
    experts = site.pool == "mlp" and known.experts.issuperset(wrong)
    of_experts = " (a mixture of experts, whose neurons are no site)" if experts else ""
    made = "goes into the output projection" if site is Site.MLP_POST else "its projection makes of its input"
    log.warning(
        "%s is left out in %s%s: its hook carries something else than what %s", site, where, of_experts, made
    )


def in_words(layers: Sequence[int]) -> str:
    """Layers in words: "layer 7", "layers 0 to 3, 7"."""
    runs: list[list[int]] = []
    for layer in layers:
        if runs and layer == runs[-1][-1] + 1:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    said = ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    return f"layer{'s' * (len(layers) > 1)} {said}"


def carries(site: Site, activation: Tensor, block: Sequence[Projection], tolerance: float) -> bool:
    """Whether an activation is what the site's projection makes of its input, or of `mlp.post` what the
    output projection is given."""
    if site.pool == "attn":
        makers = [p for p in block if _ATTENTION.search(p.parent) and _makes(site, p.last)]
        return any(_is_part(activation, p.made, tolerance) for p in makers)
    within = [p for p in block if not _ATTENTION.search(p.name)]
    for down in within:
        width = down.given.shape[1]
        if width != activation[0].numel():
            continue
        if site is Site.MLP_POST:
            if _same(activation.reshape(PROBE_TOKENS, -1), down.given, tolerance):
                return True
            continue
        makers = [
            p
            for p in within
            if p.parent == down.parent and p is not down
            and p.given.shape[1] == down.made.shape[1]
            and p.made.shape[1] in (width, 2 * width)
        ]  # fmt: skip
        if any(_is_part(activation, p.made, tolerance) for p in makers if _may_be(site, p, makers)):
            return True
    return False


def _makes(site: Site, name: str) -> bool:
    words = re.split(r"[_.]|proj|lin", name)
    return bool(_FUSED.search(name)) or any(_LETTERS[site].fullmatch(word) for word in words if word)


def _may_be(site: Site, maker: Projection, makers: Sequence[Projection]) -> bool:
    """Of two projections side by side the one called gate makes the gate, the other up; a single one makes
    both, or the pre-activations of a plain MLP."""
    if len(makers) < 2:
        return True
    if site is Site.MLP_GATE:
        return bool(_GATE.search(maker.last)) or not any(_GATE.search(p.last) for p in makers)
    return not _GATE.search(maker.last) or bool(_UP.fullmatch(maker.last))


def _same(one: Tensor, other: Tensor, tolerance: float) -> bool:
    if one.shape != other.shape:
        return False
    return bool((one - other).norm() <= tolerance * other.norm())


def _is_part(activation: Tensor, made: Tensor, tolerance: float) -> bool:
    """Whether the activation is a projection's output, a slice of a fused one's, or that of every head."""
    flat = activation.reshape(PROBE_TOKENS, -1)
    width, whole = flat.shape[1], made.shape[1]
    if width == whole:
        return _same(flat, made, tolerance)
    if width > whole:
        return False
    first = (made - flat[:, :1]).norm(dim=0) <= tolerance * flat[:, :1].norm()
    for start in first.nonzero().flatten().tolist():
        if start + width <= whole and _same(flat, made[:, start : start + width], tolerance):
            return True
    if activation.dim() != 3 or whole % activation.shape[1]:
        return False
    heads, size = activation.shape[1:]
    of_heads = made.reshape(PROBE_TOKENS, heads, -1)
    return any(
        _same(activation, of_heads[:, :, start : start + size], tolerance)
        for start in range(0, of_heads.shape[2] - size + 1, size)
    )
