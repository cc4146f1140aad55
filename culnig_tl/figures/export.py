"""Figures as files."""

from __future__ import annotations

import re
from pathlib import Path

import plotly.graph_objects as go

from .. import io
from ..errors import CulnigError

IMAGES = ("png", "svg", "pdf")


def page_of(figure: go.Figure, name: str, *, include_plotlyjs: bool | str) -> str:
    """A figure as an HTML page, the same text each time; `name` is its place in the page."""
    place = re.sub(r"[^\w-]", "-", name) or "figure"
    return figure.to_html(include_plotlyjs=include_plotlyjs, full_html=True, div_id=place)


def save_figure(
    figure: go.Figure, path: str | Path, *, width: int = 1100, height: int | None = None, scale: float = 2.0
) -> Path:
    """Writes a figure as .html that needs no network; or as .png, .svg or .pdf, with Kaleido and Chrome.

    Args:
        path: its suffix says which of these.
        width, height: of an image, in pixels; the figure's own height by default.
        scale: dots per pixel of a .png.

    Returns:
        The path.

    Raises:
        CulnigError: another suffix; Kaleido or Chrome missing, saying what to install.
    """
    path = Path(path)
    suffix = path.suffix.lower().removeprefix(".")
    if suffix == "html":
        return io.write_page(path, page_of(figure, path.stem, include_plotlyjs=True))
    if suffix not in IMAGES:
        raise CulnigError(f"{path.name}: figures are saved as .html, .png, .svg or .pdf")
    still = go.Figure(figure)
    still.layout.updatemenus = ()  # nobody can open a menu on paper
    try:
        import kaleido  # noqa: F401  (Plotly's own message is several lines)
    except ImportError:
        raise CulnigError(
            f'{path.name}: images need Kaleido: pip install "kaleido>=1" (an .html needs nothing)'
        ) from None
    try:
        image = still.to_image(format=suffix, width=width, height=height, scale=scale)
    except Exception as error:  # Kaleido, its driver and the browser each raise their own
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if "chrome" in f"{type(error).__name__} {error}".lower():
            raise CulnigError(
                f"{path.name}: Kaleido finds no Chrome: install Chrome or Chromium, or run plotly_get_chrome "
                "(an .html needs nothing)"
            ) from error
        raise CulnigError(f"{path.name}: Kaleido cannot draw this figure: {reason}") from error
    return io.write(path, image)
