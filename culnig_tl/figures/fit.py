"""A figure drawn again for a place of a given size: a column, a page, a slide, a phone.

Only the layout changes: text of one size, the title and the small print taken out as a caption, the legend
below the marks, panels that stand side by side put under each other where the place is narrow, fewer ticks,
and no numbers in cells too small for them. What can only be used on a screen (menus, the row of single
neurons under a heatmap) is left out.
"""

from __future__ import annotations

import base64
import html
import math
import re
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import plotly.graph_objects as go

DETAIL = "detail"
"""Key of a layout's meta: the first of the traces that only a screen needs."""
USUAL = 13.0
"""Pixels of text for which figures are laid out when they are drawn."""
_WIDE = 0.56
"""Width of a character over its height, on average."""
_STACKED = 480
"""Pixels below which panels stand under each other."""


@dataclass
class _Panel:
    """A pair of axes with their place."""

    x: dict[str, Any]
    y: dict[str, Any]
    notes: list[dict[str, Any]] = field(default_factory=list)
    """Annotations that stand over it, such as its title."""


def caption_of(figure: go.Figure) -> str:
    """The title and small print of a figure as sentences."""
    layout: Any = figure.to_dict()["layout"]
    text = layout.get("title", {}).get("text") or ""
    lines = [html.unescape(re.sub(r"<[^>]*>", "", line)) for line in text.split("<br>")]
    return " ".join(f"{line[0].upper()}{line[1:].rstrip('.')}." for line in map(str.strip, lines) if line)


def fit(figure: go.Figure, *, width: float, height: float | None = None, text: float = USUAL) -> go.Figure:
    """The figure without its title, for a place of this size.

    Args:
        width: pixels.
        height: pixels; by default as many as its content needs at that width.
        text: pixels of all text.
    """
    drawn: dict[str, Any] = figure.to_dict()
    layout: dict[str, Any] = drawn["layout"]
    layout.pop("title", None)
    layout.pop("updatemenus", None)
    _without_detail(drawn)
    _set_text(drawn, text)
    _set_strokes(drawn["data"], text / USUAL)
    panels = _panels(drawn)
    content = _content(layout) * text / USUAL
    stacked = width < _STACKED and len({tuple(p.x.get("domain", (0, 1))) for p in panels}) > 1
    if stacked:
        content = _stack(panels, content, text)
    content = max(content, _rows_need(panels, text))
    legend = _legend(drawn, width, text)
    titles = 1.7 * text * any(p.notes for p in panels)
    own = layout.get("margin", {}).get("r", 0) * text / USUAL
    below = 3.4 * text
    margins = {"l": 2 * text, "r": max(text, own), "t": 0.8 * text + titles, "b": below + legend}
    low, high = 0.45 * width, (2.4 if stacked or _tables(drawn) else 1.25) * width
    content = min(max(content, low), max(high, _rows_need(panels, text)))
    total = content + margins["t"] + margins["b"] if height is None else height
    margins["r"] += _colour_bar(layout, total - margins["t"] - margins["b"], text)
    layout.update(width=width, height=total, margin=margins)
    across = width - margins["l"] - margins["r"] - _labels_of(panels, text)
    up = total - margins["t"] - margins["b"]
    for panel in panels:
        _thin(panel.x, across * _share(panel.x), 0.0, text)
        _thin(panel.y, up * _share(panel.y), 1.0, text)
    _cell_text(drawn, panels, across, up, text)
    _fit_tables(drawn, up, across, text)
    return go.Figure(drawn)


def _without_detail(drawn: dict[str, Any]) -> None:
    """Takes out the traces that only a screen needs, and gives their room to the rest."""
    layout = drawn["layout"]
    first = (layout.pop("meta", None) or {}).get(DETAIL)
    if first is None:
        return
    left_out = {_axis_key(trace.get("xaxis", "x")) for trace in drawn["data"][first:]}
    drawn["data"] = drawn["data"][:first]
    for trace in drawn["data"]:
        x, y = (layout[_axis_key(trace.get(name, name[0]))] for name in ("xaxis", "yaxis"))
        top, bottom = y["domain"][1], y["domain"][0]
        x.pop("matches", None)
        x.update(showticklabels=True, anchor=trace.get("yaxis", "y"))
        x["title"] = {"text": "neuron"}
        y["domain"] = [0.0, 1.0]
        for note in layout.get("annotations", ()):
            if math.isclose(note.get("y", -1), top) and bottom < top:
                note["y"] = 1.0
    for key in left_out:
        layout.pop(key, None)
        layout.pop(key.replace("x", "y", 1), None)
    bar = layout.get("coloraxis", {}).get("colorbar", {})
    bar.update(len=1.0)


def _axis_key(name: str) -> str:
    """``x2`` -> ``xaxis2``."""
    return f"{name[0]}axis{name[1:]}"


def _set_text(part: Any, size: float) -> None:
    """Gives every font in a part of a figure this size."""
    if isinstance(part, dict):
        for key, value in part.items():
            if isinstance(value, dict) and key.endswith("font"):
                value["size"] = size
            elif key.endswith("font_size") or key == "textfont_size":
                part[key] = size
            else:
                _set_text(value, size)
    elif isinstance(part, (list, tuple)):
        for value in part:
            if isinstance(value, (dict, list, tuple)):
                _set_text(value, size)


def _set_strokes(traces: Any, factor: float) -> None:
    """Scales marks, lines and the ends of error bars."""
    for trace in traces:
        for name, keys in (
            ("marker", ("size",)),
            ("line", ("width",)),
            ("error_x", ("thickness", "width")),
            ("error_y", ("thickness", "width")),
        ):
            for key in keys:
                value = trace.get(name, {}).get(key) if isinstance(trace.get(name), dict) else None
                if isinstance(value, (int, float)):
                    trace[name][key] = value * factor


def _panels(drawn: dict[str, Any]) -> list[_Panel]:
    """The pairs of axes on which something is drawn, from the upper left on, with the notes over them."""
    layout, found = drawn["layout"], {}
    for trace in drawn["data"]:
        if trace.get("type") == "table":
            continue
        names = trace.get("xaxis", "x"), trace.get("yaxis", "y")
        if names not in found:
            x, y = (layout.setdefault(_axis_key(name), {}) for name in names)
            found[names] = _Panel(x, y)
    panels = list(found.values())
    for note in layout.get("annotations", ()):
        if note.get("xref") == note.get("yref") == "paper" and not note.get("showarrow"):
            for panel in panels:
                left, top = panel.x.get("domain", (0, 1))[0], panel.y.get("domain", (0, 1))[1]
                if math.isclose(note.get("y", -1), top, abs_tol=1e-6) and abs(note["x"] - left) < 1e-6:
                    panel.notes.append(note)
                    break
    return panels


def _share(axis: Mapping[str, Any]) -> float:
    low, high = axis.get("domain", (0.0, 1.0))
    return high - low


def _content(layout: Mapping[str, Any]) -> float:
    """Pixels between the margins of the figure as it was drawn."""
    margin = {"t": 90, "b": 60, **layout.get("margin", {})}
    return float(layout.get("height") or 480) - margin["t"] - margin["b"]


def _stack(panels: list[_Panel], content: float, text: float) -> float:
    """Puts panels under each other; returns the pixels that they need."""
    heights = [max(0.6 * content * _share(panel.y), 10 * text) for panel in panels]
    gap = 7 * text
    total = sum(heights) + gap * (len(panels) - 1)
    titles = {"y": _first_title(p.y for p in panels), "x": _first_title(p.x for p in panels)}
    top = 1.0
    for panel, height in zip(panels, heights):
        bottom = max(0.0, top - height / total)
        panel.x["domain"], panel.y["domain"] = [0.0, 1.0], [bottom, top]
        for axis, name in ((panel.x, "x"), (panel.y, "y")):
            axis["showticklabels"] = axis.get("showticklabels") is not False or bool(axis.get("matches"))
            if not _title(axis):
                axis["title"] = {**(axis.get("title") or {}), "text": titles[name]}
        for note in panel.notes:
            note.update(x=0.0, y=top)
        top = bottom - gap / total
    return total


def _title(axis: Mapping[str, Any]) -> str:
    return (axis.get("title") or {}).get("text") or ""


def _first_title(axes: Iterator[Mapping[str, Any]]) -> str:
    return next((title for axis in axes if (title := _title(axis))), "")


def _rows_need(panels: list[_Panel], text: float) -> float:
    """Pixels in which the named rows of all panels can be read."""
    needs = [
        1.35 * text * len(panel.y["tickvals"]) / _share(panel.y)
        for panel in panels
        if panel.y.get("tickvals") is not None
    ]
    return max(needs, default=0.0)


def _labels_of(panels: list[_Panel], text: float) -> float:
    """Pixels that the labels of the vertical axes take, beyond the margin."""
    longest = 4
    for panel in panels:
        for label in panel.y.get("ticktext") or ():
            longest = max(longest, *(len(_plain(line)) for line in str(label).split("<br>")))
    return longest * _WIDE * text


def _plain(label: str) -> str:
    return html.unescape(re.sub(r"<[^>]*>", "", label))


def _legend(drawn: dict[str, Any], width: float, text: float) -> float:
    """Puts the legend under the axes; returns the pixels that it takes."""
    layout = drawn["layout"]
    names = [t.get("name") for t in drawn["data"] if t.get("showlegend") is not False and t.get("name")]
    shown = layout.get("showlegend")
    if not names or not (shown or (shown is None and len(names) > 1)):
        return 0.0
    layout["legend"] = {
        **layout.get("legend", {}),
        **{"orientation": "h", "x": 0, "xanchor": "left", "xref": "container"},
        **{"y": 0, "yanchor": "bottom", "yref": "container"},
    }
    rows, used = 1, 0.0
    widest = max(len(_plain(name)) for name in names) * _WIDE * text + 3.6 * text
    for _ in names:  # Plotly gives every entry the width of the widest
        used += widest
        if used > width and used > widest:
            rows, used = rows + 1, widest
    return 1.5 * text * rows + 0.5 * text


def _colour_bar(layout: dict[str, Any], pixels: float, text: float) -> float:
    """A narrow bar whose name runs along it; returns the pixels that it takes."""
    bar = layout.get("coloraxis", {}).get("colorbar")
    if bar is None or layout["coloraxis"].get("showscale") is False:
        return 0.0
    words = " ".join((bar.get("title") or {}).get("text", "").split("<br>")).strip()
    lines = textwrap.wrap(words, max(8, min(20, int(pixels / (_WIDE * text)))))
    font = {"size": text}
    bar.update(
        title={"text": "<br>".join(lines), "side": "right", "font": font},
        thickness=0.9 * text,
        tickfont=font,
        xpad=4,
    )
    return (2.0 + 1.3 * len(lines)) * text


def _thin(axis: dict[str, Any], pixels: float, along: float, text: float) -> None:
    """Leaves as many ticks as can be read on so many pixels. `along`: 1 for a vertical axis."""
    if axis.get("tickvals") is not None or axis.get("type") == "category":
        return
    room = 1.7 * text if along else 3.4 * text
    most = max(2, int(pixels / room))
    if axis.get("dtick") is None or axis.get("type") == "log":
        if axis.get("type") != "log":
            axis["nticks"] = min(most + 1, axis.get("nticks") or 12)
        return
    low, high = axis.get("range") or (0, most)
    span = abs(high - low)
    steps = (1, 2, 4, 5, 10, 20, 50, 100, 1000)
    axis["dtick"] = next((s for s in steps if s >= axis["dtick"] and span / s <= most), span)


def _cell_text(drawn: dict[str, Any], panels: list[_Panel], across: float, up: float, text: float) -> None:
    """Takes the numbers out of a heatmap whose cells are too small for them."""
    for trace in drawn["data"]:
        if trace.get("type") != "heatmap" or not trace.get("texttemplate"):
            continue
        rows, columns = np.shape(_array(trace["z"]))
        longest = max((len(str(cell)) for row in _array(trace["text"]) for cell in row), default=1)
        if across / columns < (longest + 0.6) * _WIDE * text or up / rows < 1.15 * text:
            trace.pop("texttemplate")


def _array(values: Any) -> Any:
    """Values as a figure's dictionary holds them: as they are, or as bytes with their type and shape."""
    if not isinstance(values, dict):
        return values
    flat = np.frombuffer(base64.b64decode(values["bdata"]), dtype=values["dtype"])
    return flat.reshape([int(n) for n in values["shape"].split(",")]) if "shape" in values else flat


def _tables(drawn: dict[str, Any]) -> bool:
    return any(trace.get("type") == "table" for trace in drawn["data"])


def _fit_tables(drawn: dict[str, Any], up: float, across: float, text: float) -> None:
    """Rows of the tables as high as the text, each cell's text cut to one line."""
    tables = [trace for trace in drawn["data"] if trace.get("type") == "table"]
    for table in tables:
        low, high = table["domain"]["y"]
        rows = max(len(table["cells"]["values"][0]), 1) + 1
        line = (high - low) * up / rows
        widths = table.get("columnwidth") or [1.0] * len(table["cells"]["values"])
        for values, share in zip(table["cells"]["values"], widths):
            most = max(4, int((across * share / sum(widths) - text) / (_WIDE * text)))
            values[:] = [_cut(str(value), most) for value in values]
        table["cells"]["height"] = table["header"]["height"] = max(line * 0.94, 1.3 * text)


def _cut(text: str, most: int) -> str:
    plain = html.unescape(text)
    return text if len(plain) <= most else html.escape(plain[: most - 1].rstrip(), quote=False) + "…"
