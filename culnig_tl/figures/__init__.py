"""Plotly figures: each takes this package's typed objects and returns a `plotly.graph_objects.Figure`.

    plot                 any result; `plots` gives all figures of one
    layer_distribution   neurons per layer, by site; several sets overlaid
    layer_heatmap        layer x neuron bins, and the single neurons of a layer
    site_heatmap         layer x site
    country_heatmap      layer x country
    checkpoint_heatmap   layer x checkpoint
    token_heatmap        layer x token of one prompt
    depth_bars           shallow, middle and deep thirds of the layers
    accuracy_bars        tasks x settings
    accuracy_changes     countries before and after, those that lose most on top
    drop_chart           what switching off costs, beside random sets and a rival
    drop_matrix          whose neurons x whose questions, by country; `drop_table`, `drop_grid`
    cross_effects        whose neurons x which task
    threshold_curves     accuracy as a threshold moves
    score_histogram      scores with the cut-offs
    method_agreement     how true each method's scores are; `method_curves`,
                         `method_selectivity`, `method_overlap`
    returns_histogram    how often neurons return
    enhancement_curves   change in accuracy by factor
    forgetting_marks     what fine-tuning costs, by the modules that are trained
    neuron_card          one neuron; `top_questions`, `firing_tokens` and `promoted_tokens` compute its tables
    save_figure          to .html, .png, .svg or .pdf, at the size of a column, a page or a slide

Names from data are shown as they are written, tags and all (`theme.literal`). No figure changes Plotly's
global template, and none carries more than some ten thousand cells.
"""

from __future__ import annotations

from .accuracy import accuracy_bars, accuracy_changes
from .card import neuron_card
from .checkpoints import checkpoint_heatmap
from .countries import country_heatmap
from .crossing import cross_effects, drop_grid, drop_matrix, drop_table
from .depth import depth_bars
from .drops import drop_chart
from .export import save_figure
from .forgetting import forgetting_marks
from .heatmaps import layer_heatmap
from .layers import layer_distribution
from .methods import method_agreement, method_curves, method_overlap, method_selectivity
from .plot import plot, plots
from .prompts import token_heatmap
from .repeats import enhancement_curves, returns_histogram
from .sites import site_heatmap
from .thresholds import score_histogram, threshold_curves
from .tokens import firing_tokens, promoted_tokens, top_questions

__all__ = [
    "accuracy_bars",
    "accuracy_changes",
    "checkpoint_heatmap",
    "country_heatmap",
    "cross_effects",
    "depth_bars",
    "drop_chart",
    "drop_grid",
    "drop_matrix",
    "drop_table",
    "enhancement_curves",
    "firing_tokens",
    "forgetting_marks",
    "layer_distribution",
    "layer_heatmap",
    "method_agreement",
    "method_curves",
    "method_overlap",
    "method_selectivity",
    "neuron_card",
    "plot",
    "plots",
    "promoted_tokens",
    "returns_histogram",
    "save_figure",
    "score_histogram",
    "site_heatmap",
    "threshold_curves",
    "token_heatmap",
    "top_questions",
]
