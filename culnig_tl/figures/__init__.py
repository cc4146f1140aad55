"""Plotly figures: each takes this package's typed objects and returns a `plotly.graph_objects.Figure`; none shows itself.

    layer_distribution   neurons a layer, by site; several sets overlaid
    layer_heatmap        layer x neuron bins, and the single neurons of a layer
    site_heatmap         layer x site
    country_heatmap      layer x country
    checkpoint_heatmap   layer x checkpoint
    drop_matrix          whose neurons x whose questions
    accuracy_bars        tasks x settings
    threshold_curves     accuracy as a threshold moves
    score_histogram      scores with the cut-offs
    token_heatmap        layer x token of one prompt
    neuron_card          one neuron; `top_questions`, `firing_tokens` and `promoted_tokens` compute its tables
    save_figure          to .html, .png, .svg or .pdf

No figure changes Plotly's global template, and none carries more than some ten thousand cells.
"""

from __future__ import annotations

from .accuracy import accuracy_bars
from .card import neuron_card
from .checkpoints import checkpoint_heatmap
from .countries import country_heatmap, drop_matrix, drop_table
from .export import save_figure
from .heatmaps import layer_heatmap
from .layers import layer_distribution
from .prompts import token_heatmap
from .sites import site_heatmap
from .thresholds import score_histogram, threshold_curves
from .tokens import firing_tokens, promoted_tokens, top_questions

__all__ = [
    "accuracy_bars", "checkpoint_heatmap", "country_heatmap", "drop_matrix", "drop_table", "firing_tokens", "layer_distribution",
    "layer_heatmap", "neuron_card", "promoted_tokens", "save_figure", "score_histogram", "site_heatmap", "threshold_curves", "token_heatmap", "top_questions",
]  # fmt: skip
