"""The view's pieces of HTML. Text from elsewhere is escaped; the colours can be read on a dark page too."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from PIL import Image
from plotly.colors import get_colorscale, sample_colorscale

from ..data.neurons import NeuronSet
from ..data.scores import NO_COUNTRY
from ..figures import theme
from ..figures.prompts import CONTROL, QUESTION, shown
from ..figures.values import SCORE_UNIT, country_label
from ..tasks.question import Question
from .asking import Answers
from .reading import Key, TokenScores

if TYPE_CHECKING:
    from .heat import Drawn

_OF_WORDS = "P(answer) is that of the right option's words among all options'."
_OF_CONTROL = (
    "The options' words stand after the question and, on the right, after the control (the prompt without "
    "the question), whose likelihood is subtracted. There too orange raises P(answer): it makes the right "
    "option's words less likely without the question, or those of other options more likely."
)
EMPTY = "#E4E7EA"
"""Where the set has no neuron; white is a score of 0."""
BEFORE, AFTER = "#7F8C99", "#D55E00"
ONE_COLUMN = 6
"""Countries that are listed in one column; more stand in two, to leave room for the questions."""
_WARM, _COLD = (213, 94, 0), (0, 114, 178)
"""Above 0 and below it, as in the figures; they can be told apart with any kind of colour blindness."""
_INK, _FAINT = f"var(--jp-ui-font-color1, {theme.INK})", f"var(--jp-ui-font-color2, {theme.FAINT})"
_GAP = f"var(--jp-layout-color2, {EMPTY})"
_LINE = "var(--jp-border-color2, #c9d1d9)"
STYLE = f"""<style>
.culnig {{ font-family: Helvetica, Arial, sans-serif; font-size: 13px; line-height: 1.45; color: {_INK}; }}
.culnig h3 {{ font-size: 17px; margin: 0 0 2px; color: {_INK}; }}
.culnig h4 {{ font-size: 13px; margin: 10px 0 4px; color: {_INK}; }}
.culnig h4 .small {{ font-weight: normal; }}
.culnig .small {{ color: {_FAINT}; font-size: 12px; }}
.culnig .chip {{ border: 1px solid {_FAINT}; border-radius: 9px; padding: 0 8px; margin-right: 4px;
    white-space: nowrap; font-size: 12px; }}
.culnig .bars {{ display: grid; grid-template-columns: max-content 1fr max-content; gap: 2px 8px;
    align-items: center; }}
.culnig .halves {{ display: grid; grid-template-columns: 1fr 1fr; gap: 0 20px; align-items: start; }}
.culnig .halves .bars {{ font-size: 12px; line-height: 1.2; gap: 1px 6px; }}
.culnig .bar {{ position: relative; height: 13px; background: rgba(127,140,153,.15); }}
.culnig .bar i {{ position: absolute; top: 0; bottom: 0; }}
.culnig .num {{ text-align: right; font-variant-numeric: tabular-nums; }}
.culnig .question {{ border-left: 3px solid {_LINE}; padding: 1px 0 1px 8px; margin: 6px 0; }}
.culnig .tokens {{ line-height: 1.75; }}
.culnig .tokens span {{ border-radius: 3px; padding: 1px 2px; margin: 0 1px; white-space: pre-wrap; }}
.culnig .tokens span.peak {{ outline: 2px solid {_FAINT}; }}
.culnig .parts {{ display: grid; grid-template-columns: max-content 1fr 1fr; gap: 0 10px;
    align-items: baseline; }}
.culnig .parts .all {{ grid-column: 2 / -1; }}
.culnig table {{ border-collapse: collapse; font-size: 12px; }}
.culnig td, .culnig th {{ padding: 1px 8px 1px 0; text-align: left; }}
.culnig td.num, .culnig th.num {{ text-align: right; padding: 1px 12px 1px 0; }}
.culnig .two {{ display: flex; flex-wrap: wrap; gap: 4px 36px; }}
.culnig code {{ background: rgba(127,140,153,.16); color: {_INK}; padding: 0 3px; white-space: pre; }}
.culnig .key i {{ display: inline-block; width: 11px; height: 11px; margin: 0 4px 0 10px; }}
.culnig .scale i {{ display: inline-block; width: 90px; height: 10px; margin: 0 6px; }}
.culnig-wrong {{ border-left: 4px solid #D55E00; padding: 4px 10px; margin: 2px 0;
    background: rgba(213,94,0,.09); }}
.culnig-map .js-plotly-plot .main-svg {{ background: transparent !important; }}
.culnig-map .js-plotly-plot .bglayer .bg {{ fill: {_GAP} !important; }}
.culnig-map .js-plotly-plot svg text {{ fill: {_INK} !important; }}
.culnig-map .js-plotly-plot .hoverlayer text {{ fill: #fff !important; }}
.culnig-map .js-plotly-plot .hoverlayer .hovertext path {{ fill: #333 !important; stroke: #888 !important; }}
.culnig-map .js-plotly-plot .gridlayer path {{ stroke: {_LINE} !important; }}
.culnig-map .widget-html {{ height: auto; }}
.culnig-column > * {{ flex-shrink: 0; }}
.culnig-bench {{ border-top: 1px solid {_LINE}; }}
.culnig-card {{ overflow-y: auto !important; flex: 1 1 200px !important; min-height: 200px; }}
.culnig-answered {{ overflow-y: auto !important; max-height: 160px; flex: 0 1 auto !important; }}
</style>"""
"""Colours are the page's own where it has a theme, as JupyterLab: light text on a dark page."""


def wrap(*parts: str) -> str:
    """Pieces in the view's style."""
    return f"<div class='culnig'>{''.join(parts)}</div>"


def message(text: str) -> str:
    """What went wrong, in words; nothing for no text."""
    return wrap(f"<div class='culnig-wrong' role='alert'>{html.escape(text)}</div>") if text else ""


def small(text: str) -> str:
    """Small print."""
    return f"<div class='small'>{html.escape(text)}</div>" if text else ""


def selection(neurons: NeuronSet) -> str:
    """How many neurons are selected, by site."""
    counts = ", ".join(f"{site} {n:,}" for site, n in neurons.counts("site").items()) or "nothing is changed"
    count = theme.plural(len(neurons.keys()), "neuron")
    return f"<b>Selection: {count}</b> <span class='small'>({counts})</span>"


# -------------------------------------------------------------------------------------------- a neuron's card


def card_head(key: Key, rank: tuple[int, int, float], tags: Mapping[str, str]) -> str:
    """Name, rank and sets of a neuron: each set with what it says of a neuron to be in it."""
    place, size, score = rank
    pool = "MLP" if key[0].startswith("mlp") else "attention"
    chips = (
        "".join(
            f"<div class='small'><span class='chip'>{html.escape(name)}</span> {html.escape(meaning)}</div>"
            for name, meaning in tags.items()
        )
        or "<div class='small'>in none of the sets</div>"
    )
    return (
        f"<h3>{html.escape(key[0])}, layer {key[1]}, neuron {key[2]}</h3>"
        f"<div class='small'>{theme.number(score)} {SCORE_UNIT} over all countries: "
        f"rank {place:,} of {size:,} {pool} neurons</div>{chips}"
    )


def country_bars(scores: Mapping[str, float]) -> str:
    """Scores by country in their order, around a common 0; many of them in two columns."""
    values = list(scores.values())
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    places = max(0, 2 - math.floor(math.log10(max(-low, high) or 1.0)))
    rows = []
    for country, value in scores.items():
        left, width = 100 * (min(value, 0.0) - low) / span, 100 * abs(value) / span
        colour = _rgb(_WARM if value >= 0 else _COLD)
        name = html.escape(country_label(country))
        bar = f"<i style='left:{left:.2f}%;width:{width:.2f}%;background:{colour}'></i>"
        rows.append(
            f"<span>{name}</span><span class='bar' title='{name}: {theme.number(value)}'>{bar}</span>"
            f"<span class='num'>{theme.number(value, f'.{places}f')}</span>"
        )
    title = "Score" if tuple(scores) == (NO_COUNTRY,) else "Score by country"
    half = len(rows) if len(rows) <= ONE_COLUMN else -(-len(rows) // 2)
    columns = [f"<div class='bars'>{''.join(part)}</div>" for part in (rows[:half], rows[half:]) if part]
    kind = "halves" if len(columns) > 1 else ""
    return f"{_heading(title, SCORE_UNIT)}<div class='{kind}'>{''.join(columns)}</div>"


def questions(found: Sequence[TokenScores], note: str) -> str:
    """The top questions with their tokens coloured by the neuron's attribution."""
    parts = [_heading("Top questions", note)]
    for scores in found:
        top = scores.top
        about = f"{html.escape(top.question.country)}, " if top.question.country else ""
        parts.append(
            f"<div class='question'><div class='small'>{about}answer {html.escape(_right(top.question))}, "
            f"P(answer) {top.p_answer:.3f}, P × attribution {theme.number(top.weighted, '.3g')}</div>"
            f"{tokens(scores)}</div>"
        )
    if found:
        parts.append(
            f"<div class='small key'><i style='background:{_rgb(_WARM)}'></i>raises P(answer)"
            f"<i style='background:{_rgb(_COLD)}'></i>lowers it"
            "; framed: the token with the largest attribution, the one that counts for the score</div>"
        )
    names = {name for scores in found for name, _ in scores.rows()}
    if QUESTION in names:
        parts.append(small(f"{_OF_WORDS} {_OF_CONTROL}" if CONTROL in names else _OF_WORDS))
    return "".join(parts)


def _right(question: Question) -> str:
    """The right answer: its label, or of a cloze question its words."""
    if question.form == "letters":
        return question.answer
    return question.texts[question.options.index(question.answer)]


def tokens(scores: TokenScores) -> str:
    """A prompt's tokens, coloured; the one that counts for the score has a frame.

    Of a cloze question each part has a line: the prompt, then every option, on the right what is compared
    with it where there is a prior.
    """
    spans, rows = _spans(scores), scores.rows()
    if len(rows) == 1:
        return f"<div class='tokens'>{' '.join(spans)}</div>"
    names, texts = [name for name, _ in rows], [" ".join(spans[where]) for _, where in rows]
    count = len(scores.top.question.options)
    cells = [_cell("question", "small"), _cell(texts[0], "all")]
    compared = CONTROL in names
    if compared:
        after = f"after the control: {texts[count + 1]}"
        cells += [_cell(), _cell("after the question", "small"), _cell(after, "small")]
    for place, (name, text) in enumerate(zip(names[1 : count + 1], texts[1:]), 1):
        right = " ✓" if name == scores.top.question.answer else ""
        cells += [_cell(html.escape(name) + right, "small"), _cell(text, "" if compared else "all")]
        cells += [_cell(texts[count + 1 + place])] if compared else []
    return f"<div class='tokens parts'>{''.join(cells)}</div>"


def _cell(content: str = "", kind: str = "") -> str:
    return f"<div class='{kind}'>{content}</div>"


def _spans(scores: TokenScores) -> list[str]:
    """Every token in its colour."""
    reach = float(np.abs(scores.values).max()) or 1.0
    peak = int(scores.values.argmax())
    spans = []
    for i, (text, value) in enumerate(zip(scores.tokens, scores.values.tolist())):
        share = abs(value) / reach
        kind = " class='peak'" if i == peak else ""
        colour = _rgb(_WARM if value >= 0 else _COLD, 0.75 * share) if share >= 0.02 else "transparent"
        title = theme.number(value, "+.3g")
        spans.append(f"<span{kind} style='background:{colour}' title='{title}'>{shown(text)}</span>")
    return spans


def promoted(table: pd.DataFrame, gated: bool) -> str:
    """Tokens that the neuron's output raises and lowers."""
    ordered = sorted(zip(table["token"].astype(str), table["logit"].astype(float)), key=lambda row: -row[1])
    up = [(token, theme.number(logit, "+.2f")) for token, logit in ordered if logit > 0]
    down = [(token, theme.number(logit, "+.2f")) for token, logit in reversed(ordered) if logit < 0]
    note = "its output direction through the unembedding, without later layers"
    note += "; a gated neuron writes this times the sign of its activation" if gated else ""
    tables = _tokens_table("raises", "logit", up) + _tokens_table("lowers", "logit", down)
    return f"{_heading('Promoted tokens', note)}<div class='two'>{tables}</div>"


def _heading(title: str, note: str) -> str:
    return f"<h4>{title} <span class='small'>({html.escape(note)})</span></h4>"


def _tokens_table(head: str, unit: str, table: Sequence[tuple[str, str]]) -> str:
    rows = "".join(
        f"<tr><td><code>{_visible(token)}</code></td><td class='num'>{value}</td></tr>"
        for token, value in table
    )
    return f"<table><tr><th>{html.escape(head)}</th><th class='num'>{unit}</th></tr>{rows}</table>"


# ------------------------------------------------------------------------------------------------ the answers


def answers(given: Answers) -> str:
    """Probabilities of the labels before and after, and the ten most likely next tokens; of a cloze question
    those of the options' words."""
    changed = given.neurons > 0
    done = {"suppress": "suppressed", "enhance": "enhanced"}.get(given.operation, "")
    after = f"after ({theme.plural(given.neurons, 'neuron')} {done})"
    key = f"<i style='background:{BEFORE};margin-left:0'></i>before (unchanged)"
    key += f"<i style='background:{AFTER}'></i>{after}" if changed else ""
    parts = [f"<div class='small key'>{key}</div>"]
    if given.question.options:
        parts = [_heading(*_probability(given)), *parts, _bars(given)]
        parts.append(small("; ".join(_sums(given))))
    if given.before.top:
        parts.append("<h4>Most likely next tokens</h4>")
        shown_tops = {"before": given.before, **({after: given.after} if changed else {})}
        tops = [
            _tokens_table(head, "P", [(text, _percent(p)) for text, p in answered.top])
            for head, answered in shown_tops.items()
        ]
        parts.append(f"<div class='two'>{''.join(tops)}</div>")
    if given.unknown:
        parts.append(small(f"unknown to this model's tokenizer, read as blanks: {', '.join(given.unknown)}"))
    return wrap(*parts)


def _probability(given: Answers) -> tuple[str, str]:
    """What the bars are, and of how much."""
    if given.question.form == "cloze":
        return "P(option)", "how likely each option's words are among the options, 0 to 100%"
    return "P(label)", "over the whole vocabulary, 0 to 100%"


def _sums(given: Answers) -> list[str]:
    """What is said below the bars."""
    right = ["✓ the right answer"] if given.right else []
    if given.question.form == "cloze":
        return ["the options add up to 100%", *right]
    sums = f"all labels together: {100 * sum(given.before.labels):.1f}%"
    sums += f", then {100 * sum(given.after.labels):.1f}%" if given.neurons > 0 else ""
    return [sums, *right]


def _bars(given: Answers) -> str:
    rows = zip(given.question.options, given.options, given.before.labels, given.after.labels)
    return f"<div class='bars'>{''.join(_label(given, *row) for row in rows)}</div>"


def _label(given: Answers, label: str, option: str, before: float, after: float) -> str:
    right = " ✓" if label == given.right else ""
    if given.question.form == "cloze":
        name = f"<span class='small'>{html.escape(label)}</span> {html.escape(option[:60])}{right}"
    else:
        name = html.escape(label) + right
        name += f" <span class='small'>{html.escape(option[:60])}</span>" if option else ""
    half = "bottom:50%" if given.neurons else ""
    bars = f"<i style='left:0;width:{100 * before:.2f}%;background:{BEFORE};{half}'></i>"
    numbers = f"{100 * before:.1f}%"
    if given.neurons:
        bars += f"<i style='left:0;width:{100 * after:.2f}%;background:{AFTER};top:50%'></i>"
        numbers += f" → {100 * after:.1f}%"
    bar = f"<span class='bar' style='height:18px'>{bars}</span>"
    return f"<span>{name}</span>{bar}<span class='num'>{numbers}</span>"


def _percent(p: float) -> str:
    return "under 0.01%" if p < 0.0001 else f"{100 * p:.2f}%"


def _visible(token: str) -> str:
    return html.escape(token).replace("\n", "↵").replace(" ", "·") or "(nothing)"


def _rgb(colour: tuple[int, int, int], alpha: float = 1.0) -> str:
    return f"rgba({colour[0]},{colour[1]},{colour[2]},{alpha:.2f})"


# ------------------------------------------------------------------------------------------- without a kernel


def static(drawn: Drawn, neurons: NeuronSet | None, about: str) -> str:
    """What an exported notebook shows without kernel and network: the heatmap as a picture, the set's table.

    A Plotly figure would bring 4.7 MB of script into every saved notebook; this brings about ten kilobytes
    and no script.
    """
    table = ""
    if neurons is not None and len(neurons):
        rows = neurons.top(20).to_html(index=False, border=0, float_format="{:.4g}".format)
        table = f"<h4>{html.escape(str(neurons))}</h4>{rows}"
    return wrap(STYLE, small(about), heading(drawn), _picture(drawn), table)


def heading(drawn: Drawn) -> str:
    """What stands over the heatmap: its title, its colours, and what else there is to know."""
    stops = ", ".join(str(colour) for _, colour in get_colorscale(theme.DIVERGING))
    empty = f"<i style='background:{_GAP};width:11px'></i>no neuron of the set" if drawn.gaps else ""
    ends = [theme.number(end, ".2g") for end in (-drawn.reach, drawn.reach)]
    bar = f"{ends[0]}<i style='background:linear-gradient(90deg, {stops})'></i>{ends[1]}"
    scale = f"<div class='small scale'>{SCORE_UNIT}: {bar} {empty}</div>"
    title = f"<h4 style='font-size:15px'>{html.escape(drawn.title)}</h4>"
    return f"{title}<div class='small'>{drawn.small}</div>{scale}"


def _picture(drawn: Drawn) -> str:
    """The cells as SVG: one bitmap per panel, one pixel per cell."""
    layers = len(drawn.panels[0].values)
    width, height, left, top, gap = 900, min(max(22 * layers, 150), 500), 46, 24, 14
    middle, bottom = top + height // 2, top + height + 16
    total = sum(panel.values.shape[1] for panel in drawn.panels)
    parts = [
        f"<text x='12' y='{middle}' transform='rotate(-90 12 {middle})' text-anchor='middle'>layer</text>"
    ]
    for layer in range(0, layers, max(1, round(layers / 12))):
        y = top + height * (1 - (layer + 0.5) / layers) + 4
        parts.append(f"<text x='{left - 8}' y='{y:.1f}' text-anchor='end'>{layer}</text>")
    x = float(left)
    for panel in drawn.panels:
        neurons = panel.values.shape[1]
        wide = (width - left - gap * len(drawn.panels)) * neurons / total
        parts.append(
            f"<image x='{x:.1f}' y='{top}' width='{wide:.1f}' height='{height}' preserveAspectRatio='none' "
            "style='image-rendering:pixelated' "
            f"href='data:image/png;base64,{_png(panel.cells, drawn.reach)}'/>"
            f"<text x='{x:.1f}' y='{top - 8}'>{panel.site}</text><text x='{x:.1f}' y='{bottom}'>0</text>"
            f"<text x='{x + wide:.1f}' y='{bottom}' text-anchor='end'>{neurons - 1}</text>"
        )
        x += wide + gap
    return (
        f"<svg viewBox='0 0 {width} {bottom + 8}' width='100%' style='max-width:{width}px' font-size='12' "
        f"fill='currentColor' role='img' aria-label='heatmap: layer by neuron'>{''.join(parts)}</svg>"
        "<div class='small'>blue below 0, white 0, red above</div>"
    )


def _png(cells: np.ndarray, reach: float) -> str:
    """[layer, cell] as a PNG in base64, layer 0 at the bottom."""
    colours = sample_colorscale(theme.DIVERGING, np.linspace(0, 1, 255).tolist(), colortype="tuple")
    scale = np.round(255 * np.array(colours)).astype(np.uint8)
    unit = np.clip(np.nan_to_num(cells) / reach, -1, 1)
    pixels = scale[np.round(127 + 127 * unit).astype(int)]
    pixels[np.isnan(cells)] = [int(EMPTY[i : i + 2], 16) for i in (1, 3, 5)]
    file = BytesIO()
    Image.fromarray(pixels[::-1]).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
