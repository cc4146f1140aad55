"""The pieces of HTML in the view. All text of others is escaped; colours also read on a dark page."""

from __future__ import annotations

import base64
import html
import math
import struct
import zlib
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from plotly.colors import sample_colorscale

from ..data.neurons import NeuronSet
from ..data.scores import NO_COUNTRY
from ..figures import theme
from ..figures.prompts import shown
from ..figures.values import SCORE_UNIT, country_label
from .asking import Answered, Answers
from .heat import EMPTY, Drawn
from .reading import Key, TokenScores

BEFORE, AFTER = "#7F8C99", "#D55E00"
_WARM, _COLD = (213, 94, 0), (0, 114, 178)
"""Above 0 and under it, as in the figures; told apart with any kind of colour blindness."""
STYLE = f"""<style>
.culnig {{ font-family: Helvetica, Arial, sans-serif; font-size: 13px; line-height: 1.45; color: var(--jp-ui-font-color1, #222); }}
.culnig h3 {{ font-size: 17px; margin: 0 0 2px; }} .culnig h4 {{ font-size: 13px; margin: 12px 0 4px; }}
.culnig .small {{ color: var(--jp-ui-font-color2, {theme.FAINT}); font-size: 12px; }}
.culnig .chip {{ border: 1px solid #9aa5b1; border-radius: 9px; padding: 0 8px; margin-right: 4px; white-space: nowrap; font-size: 12px; }}
.culnig .bars {{ display: grid; grid-template-columns: max-content 1fr max-content; gap: 2px 8px; align-items: center; }}
.culnig .bar {{ position: relative; height: 13px; background: rgba(127,140,153,.15); }}
.culnig .bar i {{ position: absolute; top: 0; bottom: 0; }} .culnig .num {{ text-align: right; font-variant-numeric: tabular-nums; }}
.culnig .question {{ border-left: 3px solid #c9d1d9; padding: 1px 0 1px 8px; margin: 6px 0; }}
.culnig .tokens {{ line-height: 1.75; }}
.culnig .tokens span {{ border-radius: 3px; padding: 1px 2px; margin: 0 1px; color: #111; white-space: pre-wrap; }}
.culnig .tokens span.peak {{ outline: 2px solid #444; }}
.culnig .tokens span.plain {{ color: inherit; }}
.culnig table {{ border-collapse: collapse; font-size: 12px; }} .culnig td, .culnig th {{ padding: 1px 8px 1px 0; text-align: left; }}
.culnig td.num, .culnig th.num {{ text-align: right; padding: 1px 12px 1px 0; }}
.culnig .two {{ display: flex; flex-wrap: wrap; gap: 4px 36px; }} .culnig code {{ background: rgba(127,140,153,.16); padding: 0 3px; white-space: pre; }}
.culnig .key i {{ display: inline-block; width: 11px; height: 11px; margin: 0 4px 0 10px; }}
.culnig-wrong {{ border-left: 4px solid #D55E00; padding: 4px 10px; margin: 2px 0; background: rgba(213,94,0,.09); }}
</style>"""


def escape(text: str) -> str:
    """Text as text."""
    return html.escape(text)


def wrap(*parts: str) -> str:
    """Pieces in the view's own style."""
    return f"<div class='culnig'>{''.join(parts)}</div>"


def message(text: str) -> str:
    """What went wrong, in words; nothing for no text."""
    return wrap(f"<div class='culnig-wrong' role='alert'>{html.escape(text)}</div>") if text else ""


def small(text: str) -> str:
    """Small print."""
    return f"<div class='small'>{html.escape(text)}</div>" if text else ""


def selection(neurons: NeuronSet) -> str:
    """How many neurons are selected, by site."""
    counts = ", ".join(f"{site} {n:,}" for site, n in neurons.counts("site").items()) or "nothing is switched"
    return f"<b>Selection: {theme.plural(len(neurons.keys()), 'neuron')}</b> <span class='small'>({counts})</span>"


# ---------------------------------------------------------------------------------------------------- a neuron's card


def card_head(key: Key, rank: tuple[int, int, float], sets: Sequence[str]) -> str:
    """Name, rank and sets of a neuron."""
    place, size, score = rank
    pool = "MLP" if key[0].startswith("mlp") else "attention"
    chips = (
        "".join(f"<span class='chip'>{html.escape(name)}</span>" for name in sets)
        or "<span class='small'>in none of the sets</span>"
    )
    return (
        f"<h3>{html.escape(key[0])}, layer {key[1]}, neuron {key[2]}</h3>"
        f"<div class='small'>{score:.3g} {SCORE_UNIT} over all countries: rank {place:,} of {size:,} {pool} neurons</div><div>{chips}</div>"
    )


def country_bars(scores: Mapping[str, float]) -> str:
    """Scores by country, around a common 0."""
    values = list(scores.values())
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    places = max(0, 2 - math.floor(math.log10(max(-low, high) or 1.0)))
    rows = []
    for country, value in scores.items():
        left, width = 100 * (min(value, 0.0) - low) / span, 100 * abs(value) / span
        colour = _rgb(_WARM if value >= 0 else _COLD)
        name = html.escape(country_label(country))
        rows.append(
            f"<span>{name}</span><span class='bar' title='{name}: {value:.4g}'><i style='left:{left:.2f}%;width:{width:.2f}%;background:{colour}'></i>"
            f"</span><span class='num'>{value:.{places}f}</span>"
        )
    single = tuple(scores) == (NO_COUNTRY,)
    title = "Score" if single else "Score by country"
    return f"<h4>{title} <span class='small'>({SCORE_UNIT}, control subtracted where there is one)</span></h4><div class='bars'>{''.join(rows)}</div>"


def questions(found: Sequence[TokenScores], note: str) -> str:
    """The top questions with their tokens coloured by the neuron's attribution."""
    parts = [f"<h4>Top questions <span class='small'>({html.escape(note)})</span></h4>"]
    for scores in found:
        top = scores.top
        about = f"{html.escape(top.question.country)}, " if top.question.country else ""
        parts.append(
            f"<div class='question'><div class='small'>{about}answer {html.escape(top.question.answer)}, P(answer) {top.p_answer:.3f}, "
            f"P × attribution {top.weighted:.3g}</div>{tokens(scores)}</div>"
        )
    if found:
        parts.append(
            f"<div class='small key'><i style='background:{_rgb(_WARM)}'></i>pushes the answer<i style='background:{_rgb(_COLD)}'></i>holds it back"
            "; framed: the token with the largest attribution, which the score counts</div>"
        )
    return "".join(parts)


def tokens(scores: TokenScores) -> str:
    """A prompt's tokens, coloured; the one that the score counts has a frame."""
    reach = float(np.abs(scores.values).max()) or 1.0
    peak = int(scores.values.argmax())
    spans = []
    for i, (text, value) in enumerate(zip(scores.tokens, scores.values.tolist())):
        share = abs(value) / reach
        kind = " class='peak'" if i == peak else "" if share >= 0.02 else " class='plain'"
        colour = _rgb(_WARM if value >= 0 else _COLD, 0.75 * share) if share >= 0.02 else "transparent"
        spans.append(f"<span{kind} style='background:{colour}' title='{value:+.3g}'>{shown(text)}</span>")
    return f"<div class='tokens'>{' '.join(spans)}</div>"


def promoted(table: pd.DataFrame, gated: bool) -> str:
    """Tokens that the neuron's output raises and lowers."""
    ordered = sorted(zip(table["token"].astype(str), table["logit"].astype(float)), key=lambda row: -row[1])
    up, down = [row for row in ordered if row[1] > 0], [row for row in reversed(ordered) if row[1] < 0]
    note = "its output direction through the unembedding, later layers left out"
    note += "; a gated neuron writes this times the sign of its activation" if gated else ""
    return f"<h4>Promoted tokens <span class='small'>({note})</span></h4><div class='two'>{_tokens_table('raises', up)}{_tokens_table('lowers', down)}</div>"


def _tokens_table(head: str, table: Sequence[tuple[str, float]]) -> str:
    rows = "".join(
        f"<tr><td><code>{_visible(token)}</code></td><td class='num'>{logit:+.2f}</td></tr>"
        for token, logit in table
    )
    return f"<table><tr><th>{head}</th><th class='num'>logit</th></tr>{rows}</table>"


# --------------------------------------------------------------------------------------------------------- the answers


def answers(given: Answers) -> str:
    """Probabilities of the labels before and after, and the ten likeliest next tokens."""
    changed = given.neurons > 0
    done = {"suppress": "suppressed", "enhance": "enhanced"}.get(given.operation, "")
    what = f"{theme.plural(given.neurons, 'neuron')} {done}" if changed else "unchanged"
    key = f"<div class='small key'><i style='background:{BEFORE};margin-left:0'></i>before (unchanged)" + (
        f"<i style='background:{AFTER}'></i>after ({what})</div>" if changed else "</div>"
    )
    parts = []
    if given.question.options:
        parts += [
            f"<h4>P(label) <span class='small'>(over the whole vocabulary, 0 to 100%)</span></h4>{key}<div class='bars'>"
        ]
        for label, option, before, after in zip(
            given.question.options, given.options, given.before.labels, given.after.labels
        ):
            mark = " ✓" if label == given.right else ""
            name = f"{html.escape(label)}{mark}" + (
                f" <span class='small'>{html.escape(option[:60])}</span>" if option else ""
            )
            parts.append(_label(name, before, after if changed else None))
        parts.append("</div>")
        sums = f"all labels together: {100 * sum(given.before.labels):.1f}%" + (
            f", then {100 * sum(given.after.labels):.1f}%" if changed else ""
        )
        parts.append(small(sums + ("; ✓ the right answer" if given.right else "")))
    tops = [_top("before", given.before)] + ([_top(f"after ({what})", given.after)] if changed else [])
    parts.append(
        f"<h4>Likeliest next tokens</h4>{'' if given.question.options else key}<div class='two'>{''.join(tops)}</div>"
    )
    if given.unknown:
        parts.append(small(f"unknown to this model's tokenizer, read as blanks: {', '.join(given.unknown)}"))
    return wrap(*parts)


def _label(name: str, before: float, after: float | None) -> str:
    bars = f"<i style='left:0;width:{100 * before:.2f}%;background:{BEFORE};{'bottom:50%' if after is not None else ''}'></i>"
    numbers = f"{100 * before:.1f}%"
    if after is not None:
        bars += f"<i style='left:0;width:{100 * after:.2f}%;background:{AFTER};top:50%'></i>"
        numbers += f" → {100 * after:.1f}%"
    return f"<span>{name}</span><span class='bar' style='height:18px'>{bars}</span><span class='num'>{numbers}</span>"


def _top(head: str, answered: Answered) -> str:
    rows = "".join(
        f"<tr><td><code>{_visible(text)}</code></td><td class='num'>{_percent(p)}</td></tr>"
        for text, p in answered.top
    )
    return f"<table><tr><th>{html.escape(head)}</th><th class='num'>P</th></tr>{rows}</table>"


def _percent(p: float) -> str:
    return "under 0.01%" if p < 0.0001 else f"{100 * p:.2f}%"


def _visible(token: str) -> str:
    return html.escape(token).replace("\n", "↵").replace(" ", "·") or "(nothing)"


def _rgb(colour: tuple[int, int, int], alpha: float = 1.0) -> str:
    return f"rgba({colour[0]},{colour[1]},{colour[2]},{alpha:.2f})"


# ----------------------------------------------------------------------------------------------------- without a kernel


def static(drawn: Drawn, neurons: NeuronSet | None, about: str) -> str:
    """What an exported notebook shows where no kernel and no network is: the heatmap as a picture, and the set's table.

    A Plotly figure would bring 4.7 MB of script into every saved notebook; this brings some ten kilobytes and no script.
    """
    table = ""
    if neurons is not None and len(neurons):
        table = f"<h4>{html.escape(str(neurons))}</h4>{neurons.top(20).to_html(index=False, border=0, float_format='{:.4g}'.format)}"
    return wrap(
        STYLE,
        f"<h3>{html.escape(drawn.title)}</h3>",
        small(about),
        f"<div class='small'>{drawn.small}</div>",
        _picture(drawn),
        table,
    )


def _picture(drawn: Drawn) -> str:
    """The cells as SVG: one bitmap a panel, a pixel a cell."""
    scale = np.array(
        [
            _channels(str(colour))
            for colour in sample_colorscale(theme.DIVERGING, np.linspace(0, 1, 255).tolist())
        ],
        dtype=np.uint8,
    )
    blank = np.array([int(EMPTY[i : i + 2], 16) for i in (1, 3, 5)], dtype=np.uint8)
    layers = len(drawn.panels[0].values)
    width, height, left, top, gap = 900, min(max(22 * layers, 150), 500), 46, 24, 14
    total = sum(panel.values.shape[1] for panel in drawn.panels)
    room = width - left - gap * len(drawn.panels)
    parts, x = [], float(left)
    step = max(1, round(layers / 12))
    for layer in range(0, layers, step):
        y = top + height * (1 - (layer + 0.5) / layers)
        parts.append(f"<text x='{left - 8}' y='{y + 4:.1f}' text-anchor='end'>{layer}</text>")
    for panel in drawn.panels:
        wide = room * panel.values.shape[1] / total
        unit = np.clip(np.nan_to_num(panel.cells) / drawn.reach, -1, 1)
        pixels = scale[np.round(127 + 127 * unit).astype(int)]
        pixels = np.where(np.isfinite(panel.cells)[..., None], pixels, blank)[::-1]  # layer 0 at the bottom
        picture = base64.b64encode(_png(pixels)).decode()
        parts.append(
            f"<image x='{x:.1f}' y='{top}' width='{wide:.1f}' height='{height}' preserveAspectRatio='none' style='image-rendering:pixelated' "
            f"href='data:image/png;base64,{picture}'/><text x='{x:.1f}' y='{top - 8}'>{panel.site}</text>"
            f"<text x='{x:.1f}' y='{top + height + 16}'>0</text><text x='{x + wide:.1f}' y='{top + height + 16}' text-anchor='end'>{panel.values.shape[1] - 1}</text>"
        )
        x += wide + gap
    parts.append(
        f"<text x='12' y='{top + height / 2:.0f}' transform='rotate(-90 12 {top + height / 2:.0f})' text-anchor='middle'>layer</text>"
    )
    return (
        f"<svg viewBox='0 0 {width} {top + height + 24}' width='100%' style='max-width:{width}px' font-size='12' fill='currentColor' role='img' "
        f"aria-label='heatmap: layer by neuron'>{''.join(parts)}</svg>"
        f"<div class='small'>blue under 0, white 0, red above; grey: no neuron of the set; colours end at ±{drawn.reach:.3g} ({SCORE_UNIT})</div>"
    )


def _channels(colour: str) -> list[int]:
    return [int(float(part)) for part in colour[4:-1].split(",")]


def _png(pixels: np.ndarray) -> bytes:
    """[row, column, red green blue] in 0 to 255 as a PNG."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(np.uint8).tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows, 9))
        + chunk(b"IEND", b"")
    )
