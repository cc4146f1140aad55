"""What the pages of studies share: the template, figures as data, and names that stay text."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2

from .. import io

_PLAIN, _LEGEND, _PANELS = 16, 26, 18
"""Pixels above a figure's marks: with nothing there, for a legend, for the titles of panels."""


@dataclass(frozen=True)
class Shown:
    """A figure of a page: its words as HTML, its marks for Plotly."""

    name: str
    heading: str
    reading: str
    """How to read it."""
    notes: str
    """The figure's small print in sentences: n, intervals, cautions."""
    figure: dict[str, Any]
    """Plotly's JSON: data and layout."""
    height: int
    half: bool = False
    """Whether two stand side by side where there is room."""


def shown(name: str, heading: str, reading: str, figure: Any, *, half: bool = False) -> Shown:
    """Takes a figure's title out of the drawing: on a page it is a heading that can be found, wrapped and read aloud."""
    content = json.loads(figure.to_json())
    layout = content["layout"]
    _, *lines = layout["title"]["text"].split("<br>")
    words = [html.unescape(re.sub(r"<[^>]*>", "", line)) for line in lines]
    panels = any(note.get("xref") != "x" for note in layout.get("annotations", []))
    if layout.get("showlegend"):  # above the marks: beside them it would take their room on a narrow screen
        side = (
            {"x": 1, "xanchor": "right"} if panels else {"x": 0, "xanchor": "left"}
        )  # titles of panels stand at the left
        layout["legend"] = {
            **layout.get("legend", {}),
            **side,
            "orientation": "h",
            "y": 1.0,
            "yanchor": "bottom",
        }
    above = _PLAIN + _LEGEND * bool(layout.get("showlegend")) + _PANELS * panels
    layout["height"] += above - layout["margin"]["t"]
    layout["margin"]["t"] = above
    del layout["title"]
    notes = " ".join(f"{word.rstrip('.')}." for word in words if word)
    return Shown(name, heading, reading, notes, content, layout["height"], half)


def write_page(template: str, path: str | Path, **content: Any) -> Path:
    """Renders a template of the package into one HTML file that needs no network. Plotly's script is in it once."""
    from plotly.offline import get_plotlyjs

    from ..version import __version__

    loader = jinja2.FunctionLoader(
        lambda name: resources.files("culnig_tl.pages").joinpath(name).read_text(encoding="utf-8")
    )
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    page = environment.get_template(template).render(plotly=get_plotlyjs(), version=__version__, **content)
    return io.write(path, page.encode())


def columns(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """Rows as columns: half the size in JSON, and one name each."""
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}
