"""Figures as files."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go

from .. import io
from ..errors import CulnigError
from ..names import which
from .fit import caption_of, fit

IMAGES = ("png", "svg", "pdf")
PIXEL = 96
"""Pixels per inch, as browsers and Kaleido count."""


class Saved(NamedTuple):
    """What `save_figure` wrote."""

    path: Path
    caption: str
    """The figure's title and small print as sentences; with a preset they are not in the picture."""


@dataclass(frozen=True)
class _Preset:
    inches: float
    """Width."""
    points: float
    """Of all text."""
    ratio: float | None = None
    """Width over height; None where the content decides."""
    dots: float = 300
    """Dots per inch of a .png."""


PRESETS = {
    "column": _Preset(3.5, 8),
    "page": _Preset(7, 8),
    "slide": _Preset(40 / 3, 18, ratio=16 / 9, dots=144),
}


def page_of(figure: go.Figure, name: str, *, include_plotlyjs: bool | str) -> str:
    """A figure as an HTML page, the same text each time; `name` is its place in the page."""
    place = re.sub(r"[^\w-]", "-", name) or "figure"
    return figure.to_html(include_plotlyjs=include_plotlyjs, full_html=True, div_id=place)


def save_figure(
    figure: go.Figure,
    path: str | Path,
    *,
    preset: str | None = None,
    width: int = 1100,
    height: int | None = None,
    scale: float = 2.0,
) -> Saved:
    """Writes a figure as .html that needs no network; or as .png, .svg or .pdf, with Kaleido and Chrome.

    Args:
        path: its suffix says which of these.
        preset: the size at which it will be seen: "column" (3.5 inches wide, 8 pt text), "page" (7 inches,
            8 pt) or "slide" (16:9, 18 pt). The title and the small print are then in the caption instead, the
            legend is below, and what only a screen can use is left out. A .png has 300 dots per inch, a
            slide's 144.
        width, height: without a preset, of an image, in pixels; the figure's own height by default.
        scale: without a preset, dots per pixel of a .png.

    Returns:
        The path, and the caption.

    Raises:
        CulnigError: another suffix or preset; Kaleido or Chrome missing, saying what to install.
    """
    path, caption = Path(path), caption_of(figure)
    if preset is not None:
        if preset not in PRESETS:
            raise CulnigError(f"unknown preset {preset!r}{which(preset, PRESETS)}")
        chosen = PRESETS[preset]
        across = chosen.inches * PIXEL
        up = None if chosen.ratio is None else across / chosen.ratio
        figure = fit(figure, width=across, height=up, text=chosen.points * PIXEL / 72)
        width, height, scale = round(across), None, chosen.dots / PIXEL
    suffix = path.suffix.lower().removeprefix(".")
    if suffix == "html":
        page = page_of(figure, path.stem, include_plotlyjs=True)
        return Saved(io.write_page(path, page), caption)
    if suffix not in IMAGES:
        raise CulnigError(f"{path.name}: figures are saved as .html, .png, .svg or .pdf")
    return Saved(io.write(path, _image(figure, path.name, suffix, width, height, scale)), caption)


def _image(figure: go.Figure, name: str, suffix: str, width: int, height: int | None, scale: float) -> bytes:
    still = go.Figure(figure)
    still.layout.updatemenus = ()  # nobody can open a menu on paper
    try:
        import kaleido  # noqa: F401  (Plotly's own message is several lines)
    except ImportError:
        raise CulnigError(
            f'{name}: images need Kaleido: pip install "kaleido>=1" (an .html needs nothing)'
        ) from None
    try:
        return still.to_image(format=suffix, width=width, height=height, scale=scale)
    except Exception as error:  # Kaleido, its driver and the browser each raise their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "chrome" in f"{type(error).__name__} {error}".lower():
            raise CulnigError(
                f"{name}: Kaleido finds no Chrome: install Chrome or Chromium, or run plotly_get_chrome "
                "(an .html needs nothing)"
            ) from error
        raise CulnigError(f"{name}: Kaleido cannot draw this figure: {reason}") from error
