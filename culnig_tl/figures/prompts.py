"""One prompt: where along it neurons act."""

from __future__ import annotations

import re
from codecs import getincrementaldecoder
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go
from transformers.convert_slow_tokenizer import bytes_to_unicode

from ..data.neurons import NeuronSet, Site
from ..engine.cloze import encode_cloze
from ..engine.models import HookedModel, tokenizer_of
from ..errors import NeuronError, ScoreError
from ..method.closeup import PromptScores
from ..tasks.question import Question
from . import theme
from .heatmaps import name_of

LABELS = 80
"""Tokens written under the figure at most; hovering names all."""
WIDTH = 900
"""Pixels of the map on an ordinary screen: names of parts that would overlap there are left to hovering."""
_SIGNS = str.maketrans("Ġ▁ Ċ\n", "···↵↵")
Part = tuple[str, int]
"""A part's name and its first token."""
QUESTION, CONTROL = "question", "control"
"""Parts of a cloze question beside its options: the prompt, and what is left of it without the question."""


def prompt_parts(model: HookedModel, question: Question) -> tuple[Part, ...]:
    """Where each part of a cloze question begins among the tokens of `score_prompt`: the prompt, every
    option by its label, and then the same of the control, where P(answer) depends on it.

    Empty for a question that is answered with a label: its prompt is one part.
    """
    if question.form == "letters":
        return ()
    (encoded,) = encode_cloze(tokenizer_of(model), [question])
    rows = [(QUESTION, encoded.context), *zip(question.options, encoded.texts)]
    if encoded.bare_texts and question.normalise == "unconditional":
        rows += [(CONTROL, encoded.bare), *zip(question.options, encoded.bare_texts)]
    starts = np.cumsum([0, *(len(tokens) for _, tokens in rows)]).tolist()
    return tuple((name, start) for (name, _), start in zip(rows, starts))


@theme.literal
def token_heatmap(
    prompt: PromptScores,
    neurons: NeuronSet | None = None,
    *,
    sites: Iterable[Site | str] | None = None,
    positions: tuple[int, int] | None = None,
    parts: Sequence[Part] = (),
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
        parts: of a cloze question, what `prompt_parts` returns: a line is drawn where each part begins.

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
    places = [part_of(parts, first + start) for start in starts]
    heads = [label + (f", {place}" if place else "") for label, place in zip(labels, places)]
    hover = [
        [
            f"layer {layer}, token {heads[i]}\nsum {theme.number(values[layer, i])}"
            f"{best.name(layer, start, size)}"
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
    marked = _mark_parts(figure, _parts_within(parts, first, last), size, len(starts))
    n = sum(array.shape[0] * array.shape[2] for array in arrays.values())
    if neurons is not None:
        n = sum(len(index) for (site, _), index in neurons.indices.items() if site in arrays)
    columns = "" if size == 1 else f"; a column is {size} tokens"
    theme.lay_out(
        figure,
        f"Where along the prompt {'all' if neurons is None else neurons.provenance.kind} neurons act",
        f"P({prompt.answer!r}) = {prompt.p_answer:.3f}; n = {theme.plural(n, 'neuron')} of "
        f"{', '.join(map(str, arrays))}; {theme.plural(count, 'token')}{columns}{remark}{marked}",
        height=theme.heat_height(layers) + 260,
        scored=arrays,
    )
    if marked:  # the names of parts below the small print
        room = {"height": figure.layout.height + 14, "margin_t": figure.layout.margin.t + 14}
        figure.update_layout(**room)
    if not n:
        theme.say(figure, "no neurons in this set")
    elif not values.any():
        theme.say(figure, "the attribution is 0 everywhere")
    return figure


def _parts_within(parts: Sequence[Part], first: int, last: int) -> list[Part]:
    """The parts of the tokens from the first to the last, counted from the first."""
    ends = [start for _, start in parts[1:]] + [last + 1]
    return [
        (name, max(0, start - first))
        for (name, start), end in zip(parts, ends)
        if start <= last and end > first
    ]


def part_of(parts: Sequence[Part], token: int) -> str:
    """The part that a token is in, in words; blank where parts are not known."""
    before = [name for name, start in parts if start <= token]
    if not before or before[-1] in (QUESTION, CONTROL):
        return before[-1] if before else ""
    return f"option {before[-1]}{' after the control' * (CONTROL in before)}"


def _mark_parts(figure: go.Figure, parts: Sequence[Part], size: int, columns: int) -> str:
    """Draws a line before each part, its name above where there is room; returns what the small print says of
    them."""
    places = [(name, start // size - 0.5) for name, start in parts]
    taken: list[tuple[float, float]] = []
    for name, x in sorted(places, key=lambda part: part[0] not in (QUESTION, CONTROL)):
        figure.add_vline(x, line={"color": theme.INK, "width": 1.2})
        end = x + (7 * len(name) + 4) * columns / WIDTH
        if any(x < other_end and other < end for other, other_end in taken):
            continue
        taken.append((x, end))
        figure.add_annotation(
            text=name, x=x, y=1.0, xref="x", yref="paper", xanchor="left", yanchor="bottom", showarrow=False,
            font={"size": 11, "color": theme.INK},
        )  # fmt: skip
    names = [name for name, _ in parts]
    if not names:
        return ""
    if CONTROL not in names:
        return "\nlines: where the question and each option begin"
    return "\nlines: where the question, each option and the control (the prompt without the question) begin"


def token_text(token: str) -> str:
    """A tokenizer's token as people read it: its marks for space and line become signs."""
    return token.translate(_SIGNS)


def plain_text(tokens: Sequence[str]) -> list[str]:
    """A prompt's tokens as the text that they stand for, in any script: a character of several tokens is in
    the last of them. Together they are the prompt; where the tokenizer has whole words without a mark for the
    space between them, all have one."""
    of_bytes = any(sign in token for token in tokens for sign in "ĠĊ")
    byte_of = {sign: byte for byte, sign in bytes_to_unicode().items()}
    decoder = getincrementaldecoder("utf-8")("replace")
    texts = []
    for token in tokens:
        if single := re.fullmatch("<0x([0-9A-F]{2})>", token):
            content = bytes([int(single[1], 16)])
        elif of_bytes and all(sign in byte_of for sign in token):
            content = bytes(byte_of[sign] for sign in token)
        else:
            content = token.replace("▁", " ").encode(errors="replace")
        texts.append(decoder.decode(content))
    if len(tokens) > 1 and not any(sign in token for token in tokens for sign in "ĠĊ▁ "):
        return [texts[0], *(f" {text}" for text in texts[1:])]
    return texts


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
