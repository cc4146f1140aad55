"""One prompt: where along it neurons act."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from ..data.neurons import NeuronSet, Site
from ..errors import NeuronError, ScoreError
from ..method.closeup import PromptScores
from . import theme
from .heatmaps import name_of

LABELS = 80
"""Tokens written under the figure at most; hovering names all."""
_SIGNS = str.maketrans("Ġ▁ Ċ\n", "···↵↵")


@theme.literal
def token_heatmap(
    prompt: PromptScores,
    neurons: NeuronSet | None = None,
    *,
    sites: Iterable[Site | str] | None = None,
    positions: tuple[int, int] | None = None,
) -> go.Figure:
    """Layer x token: attribution summed over neurons, so that the whole map sums to theirs; hovering names
    the strongest.

    Where tokens x layers would exceed 10,000 cells, neighbouring tokens share a column and their values are
    added.

    Args:
        prompt: what `score_prompt` returns.
        neurons: these alone, e.g. the culture-general ones; every neuron by default.
        sites: which sites; all that were scored by default.
        positions: (first, last) token to show, the last one included.

    Raises:
        ScoreError: no such site or position, NaN. NeuronError: a set of another model.
    """
    first, last = positions or (0, len(prompt.tokens) - 1)
    arrays = _wanted(prompt, sites, first, last)
    total, best = _sum(arrays, neurons)
    if not np.isfinite(total).all():
        raise ScoreError("the prompt's scores hold NaN or infinite values: score it again")
    layers, count = total.shape
    size = -(-count // max(1, theme.MAX_CELLS // layers))
    tokens = [token_text(token) for token in prompt.tokens[first : last + 1]]
    starts = list(range(0, count, size))
    values = np.add.reduceat(total, starts, axis=1)
    labels = [f"{first + start}: {''.join(tokens[start : start + size])}" for start in starts]
    hover = [
        [
            f"layer {layer}, token {labels[i]}\nsum {values[layer, i]:.4g}{best.name(layer, start, size)}"
            for i, start in enumerate(starts)
        ]
        for layer in range(layers)
    ]
    unit = "attribution (change of P(answer))"
    figure, remark = theme.layer_matrix(values, labels, unit=unit, hover=hover, robust=True)
    step = -(-len(starts) // LABELS)
    figure.update_xaxes(
        title_text="token",
        tickvals=list(range(0, len(starts), step)),
        ticktext=[label if len(label) <= 16 else f"{label[:15]}…" for label in labels[::step]],
        tickangle=-90,
        tickfont={"size": 10},
    )
    figure.update_traces(xgap=0)
    n = sum(array.shape[0] * array.shape[2] for array in arrays.values())
    if neurons is not None:
        n = sum(len(index) for (site, _), index in neurons.indices.items() if site in arrays)
    columns = "" if size == 1 else f"; a column is {size} tokens"
    theme.lay_out(
        figure,
        f"Where along the prompt {'all' if neurons is None else neurons.provenance.kind} neurons act",
        f"P({prompt.answer!r}) = {prompt.p_answer:.3f}; n = {theme.plural(n, 'neuron')} of "
        f"{', '.join(map(str, arrays))}; {theme.plural(count, 'token')}{columns}{remark}",
        height=theme.heat_height(layers) + 260,
        scored=arrays,
    )
    if not n:
        theme.say(figure, "no neurons in this set")
    elif not values.any():
        theme.say(figure, "the attribution is 0 everywhere")
    return figure


def token_text(token: str) -> str:
    """A tokenizer's token as people read it: its marks for space and line become signs."""
    return token.translate(_SIGNS)


def shown(token: str) -> str:
    """`token_text` as HTML."""
    return theme.escape(token_text(token))


def _wanted(
    prompt: PromptScores, sites: Iterable[Site | str] | None, first: int, last: int
) -> dict[Site, np.ndarray]:
    """Site -> [layer, token, neuron] of the tokens from the first to the last."""
    asked = {Site.parse(site) for site in sites} if sites is not None else set(prompt.arrays)
    missing = [site for site in Site if site in asked and site not in prompt.arrays]
    if missing or not asked:
        raise ScoreError(
            f"this prompt has no scores of {missing[0] if missing else 'no site'}: "
            f"sites are {', '.join(map(str, prompt.arrays))}"
        )
    if not 0 <= first <= last < len(prompt.tokens):
        raise ScoreError(f"no tokens {first} to {last}: the prompt has tokens 0 to {len(prompt.tokens) - 1}")
    return {site: array[:, first : last + 1] for site, array in prompt.arrays.items() if site in asked}


@dataclass(frozen=True)
class _Strongest:
    """[layer, token] each: the neuron whose attribution is farthest from 0."""

    value: np.ndarray
    site: np.ndarray
    """Place in `sites`."""
    neuron: np.ndarray
    sites: tuple[Site, ...]

    def name(self, layer: int, first: int, size: int) -> str:
        """The strongest neuron of some neighbouring tokens in words; nothing where there is none."""
        token = first + int(np.abs(self.value[layer, first : first + size]).argmax())
        value, site = float(self.value[layer, token]), self.sites[self.site[layer, token]]
        return (
            ""
            if value == 0
            else f"\nstrongest: {name_of(site, layer, int(self.neuron[layer, token]), value)}"
        )

    def add(self, layer: int, place: int, part: np.ndarray, index: np.ndarray) -> None:
        """Takes in the [token, neuron] values of some neurons of one site and layer."""
        tokens = np.arange(len(part))
        high, low = part.argmax(axis=1), part.argmin(axis=1)
        at = np.where(part[tokens, high] >= -part[tokens, low], high, low)
        value = part[tokens, at]
        stronger = np.abs(value) > np.abs(self.value[layer])
        self.value[layer, stronger] = value[stronger]
        self.site[layer, stronger] = place
        self.neuron[layer, stronger] = index[at][stronger]


def _sum(arrays: dict[Site, np.ndarray], neurons: NeuronSet | None) -> tuple[np.ndarray, _Strongest]:
    """([layer, token] sums over neurons, the strongest neuron of each)."""
    shape = next(iter(arrays.values())).shape[:2]
    total = np.zeros(shape)
    best = _Strongest(np.zeros(shape), np.zeros(shape, dtype=int), np.zeros(shape, dtype=int), tuple(arrays))
    if neurons is not None and any(layer >= shape[0] for site, layer in neurons.indices if site in arrays):
        raise NeuronError(f"the set has neurons beyond layer {shape[0] - 1}: it is of another model")
    for place, (site, array) in enumerate(arrays.items()):
        everything = np.arange(array.shape[2])
        for layer in range(shape[0]):
            chosen = None if neurons is None else neurons.indices.get((site, layer), everything[:0])
            index = everything if chosen is None else chosen
            if not len(index):
                continue
            if index[-1] >= array.shape[2]:
                raise NeuronError(
                    f"the set has {site} neuron {index[-1]}, the prompt was scored with {array.shape[2]} "
                    "per layer: they are of different models"
                )
            part = array[layer] if neurons is None else array[layer][:, index]  # [token, neuron]
            total[layer] += part.sum(axis=1, dtype=np.float64)
            best.add(layer, place, part, index)
    return total, best
