"""Figures as files: .html that needs no network, images where Kaleido and a browser are there."""

from __future__ import annotations

import builtins
import re
import shutil
import sys

import pytest

from culnig_tl import figures
from culnig_tl.errors import CulnigError

from .builders import make_set

BROWSER = next(
    (
        found
        for name in ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")
        if (found := shutil.which(name))
    ),
    None,
)
HEADS = {"png": b"\x89PNG\r\n", "svg": b"<svg", "pdf": b"%PDF"}


def test_html_holds_plotly_itself(tmp_path):
    path = figures.save_figure(figures.layer_distribution(make_set()), tmp_path / "new" / "layers.html").path
    text = path.read_text(encoding="utf-8")
    assert (
        len(text) > 1_000_000
        and not re.search(r"<script[^>]*src=", text)
        and "Where the culture-general neurons sit" in text
    )


@pytest.mark.browser
@pytest.mark.parametrize("suffix", HEADS)
def test_images_are_written(tmp_path, suffix):
    pytest.importorskip("kaleido")
    if BROWSER is None:
        pytest.skip("no Chrome or Chromium")
    figure = figures.layer_heatmap(make_set())
    path = figures.save_figure(figure, tmp_path / f"heat.{suffix}", width=500, scale=1).path
    assert path.read_bytes().startswith(HEADS[suffix])
    assert len(figure.layout.updatemenus) == 1  # only the picture is without its menu


def test_without_kaleido_the_message_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "kaleido":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.delitem(sys.modules, "kaleido", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CulnigError, match='pip install "kaleido>=1"'):
        figures.save_figure(figures.layer_distribution(make_set()), tmp_path / "layers.png")
    assert list(tmp_path.iterdir()) == []


def test_without_a_browser_the_message_says_so(tmp_path, monkeypatch):
    errors = pytest.importorskip("kaleido.errors")
    missing = next(
        getattr(errors, name)
        for name in dir(errors)
        if "Chrome" in name and isinstance(getattr(errors, name), type)
    )

    def broken(self, *args, **kwargs):
        raise missing()

    monkeypatch.setattr("plotly.graph_objects.Figure.to_image", broken)
    with pytest.raises(CulnigError, match="install Chrome or Chromium"):
        figures.save_figure(figures.layer_distribution(make_set()), tmp_path / "layers.pdf")


def test_unknown_suffixes_are_refused(tmp_path):
    with pytest.raises(CulnigError, match=r"\.html, \.png, \.svg or \.pdf"):
        figures.save_figure(figures.layer_distribution(make_set()), tmp_path / "layers.gif")
