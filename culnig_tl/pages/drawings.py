"""Small drawings of a neuron's page as SVG in the page itself: colours come from its style, so that they
follow the system's, and nothing is scripted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from ..figures.theme import number

WIDTH = 360
"""Units of a drawing; on a page one is about a pixel."""
BINS = 48
LEVELS = 5
"""Shades of the map."""
_LEFT, _HIGH, _ROW, _TEXT = 62, 110, 22, 16
"""Units: names of sites, bars of a histogram, a row of the map, a line of text."""


@dataclass(frozen=True)
class Histogram:
    """How the scores of a pool's neurons are distributed."""

    low: float
    high: float
    path: str
    """The bars."""

    @classmethod
    def of(cls, values: np.ndarray) -> Histogram:
        """Of scores in any order; bars are as high as the logarithm of their count."""
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        if low == high:
            high = low + 1.0
        counts, _ = np.histogram(values, BINS, (low, high))
        heights = np.log1p(counts) / np.log1p(counts.max())
        step = WIDTH / BINS
        bars = [
            f"M{i * step:.1f} {_HIGH}v{-h * (_HIGH - _TEXT):.1f}h{step - 1:.1f}V{_HIGH}z"
            for i, h in enumerate(heights)
            if h > 0
        ]
        return cls(low, high, "".join(bars))

    def draw(self, score: float) -> Markup:
        """The histogram with a neuron's score marked."""
        x = WIDTH * (score - self.low) / (self.high - self.low)
        zero = WIDTH * -self.low / (self.high - self.low)
        ends = [("start", 0.0, self.low), ("end", float(WIDTH), self.high)]
        texts = [(anchor, at, number(value, ".2g")) for anchor, at, value in ends if value]
        if 30 < zero < WIDTH - 30:
            texts.append(("middle", zero, "0"))
        elif zero <= 30 and not self.low:
            texts.append(("start", 0.0, "0"))
        side = "end" if x > WIDTH / 2 else "start"
        written = "".join(
            f'<text x="{at:.1f}" y="{_HIGH + _TEXT}" text-anchor="{anchor}">{text}</text>'
            for anchor, at, text in texts
        )
        return Markup(
            f'<svg viewBox="0 0 {WIDTH} {_HIGH + _TEXT + 6}" role="img" aria-label="Histogram of scores; this'
            f' neuron has {number(score, ".3g")}"><path class="bars" d="{self.path}"/>'
            f'<path class="mark" d="M{x:.1f} {_HIGH}V4"/><text class="here" x="{x:.1f}" dx='
            f'"{-6 if side == "end" else 6}" y="14" text-anchor="{side}">{number(score, ".3g")}</text>'
            f"{written}</svg>"
        )


@dataclass(frozen=True)
class LayerMap:
    """How many of a study's neurons are in each layer of each site."""

    counts: np.ndarray
    """[site, layer]."""
    sites: tuple[str, ...]
    path: str

    @classmethod
    def of(cls, counts: np.ndarray, sites: Sequence[str]) -> LayerMap:
        """Of counts [site, layer]."""
        cell = (WIDTH - _LEFT) / counts.shape[1]
        shade = np.ceil(LEVELS * np.sqrt(counts / max(int(counts.max()), 1))).astype(int)
        paths = []
        for level in range(1, LEVELS + 1):
            squares = [
                f"M{_LEFT + layer * cell:.1f} {row * _ROW}h{cell - 0.6:.1f}v{_ROW - 2}h{-(cell - 0.6):.1f}z"
                for row, layer in np.argwhere(shade == level).tolist()
            ]
            if squares:
                paths.append(f'<path class="level{level}" d="{"".join(squares)}"/>')
        return cls(counts, tuple(sites), "".join(paths))

    def draw(self, site: str | None = None, layer: int = 0) -> Markup:
        """The map: layers from left to right, darker where more neurons are; a neuron's cell is framed."""
        layers = self.counts.shape[1]
        cell, height = (WIDTH - _LEFT) / layers, len(self.sites) * _ROW
        names = "".join(
            f'<text x="{_LEFT - 6}" y="{row * _ROW + 15}" text-anchor="end">{name}</text>'
            for row, name in enumerate(self.sites)
        )
        step = next(s for s in (1, 2, 5, 10, 20, 50, 100, layers) if layers / s <= 12 or s == layers)
        ticks = "".join(
            f'<text x="{_LEFT + (i + 0.5) * cell:.1f}" y="{height + _TEXT}" text-anchor="middle">{i}</text>'
            for i in range(0, layers, step)
        )
        mark, said = "", "Selected neurons by site and layer"
        if site is not None:
            row = self.sites.index(site)
            mark = (
                f'<path class="mark" d="M{_LEFT + layer * cell - 1:.1f} {row * _ROW - 1}h{cell + 1.4:.1f}'
                f'v{_ROW}h{-(cell + 1.4):.1f}z"/>'
            )
            said += f"; this neuron is one of {self.counts[row, layer]} of {site} in layer {layer}"
        return Markup(
            f'<svg viewBox="0 -2 {WIDTH + 2} {height + _TEXT + 8}" role="img" aria-label="{said}">'
            f'<path class="ground" d="M{_LEFT} 0h{WIDTH - _LEFT}v{height - 2}H{_LEFT}z"/>{self.path}{mark}'
            f"{names}{ticks}</svg>"
        )
