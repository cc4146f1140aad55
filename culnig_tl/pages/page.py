"""What pages share: templates, figures as data, and files of figures that share Plotly's script."""

from __future__ import annotations

import functools
import html
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
import plotly.graph_objects as go
from plotly.offline import get_plotlyjs

from .. import io
from ..figures import theme
from ..figures.export import page_of
from ..figures.fit import fit
from ..version import __version__

ROWS = 10
"""Rows of a table that are shown at a time."""
NARROW, NARROW_TEXT = 350, 12
"""Pixels of a figure, and of its text, on a phone."""
_PLAIN, _LEGEND, _PANELS = 16, 26, 18
"""Pixels above a figure's marks: with nothing there, for a legend, for the titles of panels."""


@dataclass(frozen=True)
class Shown:
    """A figure of a page: its words as text, its marks for Plotly."""

    name: str
    heading: str
    reading: str
    """How to read it."""
    notes: str
    """The figure's small print in sentences: n, intervals, cautions."""
    figure: dict[str, Any]
    """Plotly's JSON: data and layout."""
    height: int
    narrow: dict[str, Any]
    """The same for a narrow screen: layout, height, and how many of the traces it draws."""
    half: bool = False
    """Whether two stand side by side where there is room."""


def shown(name: str, heading: str, reading: str, figure: go.Figure, *, half: bool = False) -> Shown:
    """Takes a figure's title out of the drawing: on a page it is text to find, wrap and read aloud. The page
    draws it for a wide screen or a narrow one."""
    content = json.loads(str(figure.to_json()))
    layout = content["layout"]
    _, *lines = layout["title"]["text"].split("<br>")
    words = [html.unescape(re.sub(r"<[^>]*>", "", line)) for line in lines]
    panels = any(note.get("xref") != "x" for note in layout.get("annotations", []))
    if layout.get("showlegend"):  # above the marks: beside them it would take their room on a narrow screen
        side = theme.LEGEND_RIGHT if panels else {**theme.LEGEND, "xanchor": "left"}
        layout["legend"] = {**layout.get("legend", {}), **side}  # the titles of panels stand at the left
    above = _PLAIN + _LEGEND * bool(layout.get("showlegend")) + _PANELS * panels
    layout["height"] += above - layout["margin"]["t"]
    layout["margin"]["t"] = above
    del layout["title"]
    notes = " ".join(f"{word.rstrip('.')}." for word in words if word)
    return Shown(name, heading, reading, notes, content, layout["height"], _narrow(figure), half)


def _narrow(figure: go.Figure) -> dict[str, Any]:
    drawn = json.loads(str(fit(figure, width=NARROW, text=NARROW_TEXT).to_json()))
    layout = drawn["layout"]
    del layout["width"], layout["template"]  # as wide as the screen; the template is the wide one's
    cells = [bool(trace.get("texttemplate")) for trace in drawn["data"]]
    return {"layout": layout, "height": layout["height"], "cells": cells}


def write_page(template: str, path: str | Path, **content: Any) -> Path:
    """Renders a template of the package into one HTML file that needs no network, with Plotly in it."""
    return io.write_page(path, render(template, plotly=get_plotlyjs(), dark=theme.DARK, **content))


def render(template: str, **content: Any) -> str:
    """A template of the package, filled in; names and texts are escaped."""
    return environment().get_template(template).render(version=__version__, **content)


@functools.cache
def environment() -> jinja2.Environment:
    """Jinja with the package's templates."""
    loader = jinja2.FunctionLoader(
        lambda name: resources.files("culnig_tl.pages").joinpath(name).read_text(encoding="utf-8")
    )
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    return environment


def write_figures(figures: Mapping[str, go.Figure], folder: Path) -> None:
    """Writes ``NAME.html`` for each figure, and Plotly's script once beside them. None needs a network."""
    io.write(folder / "plotly.min.js", get_plotlyjs().encode())
    for name, figure in figures.items():
        io.write_page(folder / f"{name}.html", page_of(figure, name, include_plotlyjs="directory"))


def columns(rows: Sequence[Sequence[Any]], names: Sequence[str]) -> dict[str, list[Any]]:
    """Rows as columns: half the size in JSON, and one name each."""
    return {name: [row[i] for row in rows] for i, name in enumerate(names)}
