"""Plotly figures: each takes this package's typed objects and returns a `plotly.graph_objects.Figure`; none shows itself."""

from __future__ import annotations

from .accuracy import accuracy_bars
from .heatmaps import layer_heatmap
from .layers import layer_distribution

__all__ = ["accuracy_bars", "layer_distribution", "layer_heatmap"]
