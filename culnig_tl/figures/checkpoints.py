"""Layer x checkpoint: how neurons move in training (base, SFT, DPO)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from ..data.neurons import NeuronSet, Site
from ..data.scores import NeuronScores
from ..errors import NeuronError
from . import theme
from .values import SCORE_UNIT, by_layer, layers_of, per_cluster, sites_of


def checkpoint_heatmap(
    checkpoints: Mapping[str, NeuronSet] | Mapping[str, NeuronScores],
    *,
    scale: Literal["linear", "column"] = "linear",
    sites: Iterable[Site | str] | None = None,
) -> go.Figure:
    """Layer x checkpoint: neurons of each checkpoint's set, or mean score of a layer's neurons.

    Args:
        checkpoints: name -> set, or name -> scores, in the order of training.
        scale: "linear", or "column" to compare shapes where sizes differ: a set's counts in percent of the set's neurons,
            scores in percent of the checkpoint's layer that is farthest from 0.
        sites: which sites; all by default.

    Raises:
        NeuronError: no checkpoint, or sets and scores mixed. ScoreError: no such site, NaN.
    """
    if not checkpoints:
        raise NeuronError("no checkpoint to draw: give {name: NeuronSet} or {name: NeuronScores}")
    if scale not in ("linear", "column"):
        raise NeuronError(f'unknown scale {scale!r}: use "linear" or "column"')
    sets = {name: value for name, value in checkpoints.items() if isinstance(value, NeuronSet)}
    scores = {name: value for name, value in checkpoints.items() if isinstance(value, NeuronScores)}
    if len(sets) != len(checkpoints) and len(scores) != len(checkpoints):
        raise NeuronError("checkpoints are all NeuronSets or all NeuronScores")
    if sets:
        layers, shown = layers_of(sets.values()), sites_of(sets.values(), sites)
        values = np.stack([by_layer(s, shown, layers).sum(0) for s in sets.values()], axis=1).astype(
            float
        )  # [layer, checkpoint]
        sizes = values.sum(0).astype(int).tolist()
        divisor, unit = values.sum(0), "neurons" if scale == "linear" else "% of the checkpoint's neurons"
        what, small = (
            "neurons",
            f"n = {theme.plural(int(values.sum()), 'neuron')} in {theme.plural(len(sets), 'checkpoint')}, {', '.join(map(str, shown))}",
        )
    else:
        columns = [_mean_by_layer(s, sites) for s in scores.values()]
        layers = max(len(column) for column in columns)
        values = np.stack(
            [np.pad(column, (0, layers - len(column)), constant_values=np.nan) for column in columns], axis=1
        )
        sizes = [sum(s.questions) for s in scores.values()]
        divisor = np.nanmax(np.abs(values), axis=0)
        unit = f"mean {SCORE_UNIT} and neuron" if scale == "linear" else "% of the checkpoint's largest"
        what, small = (
            "scores",
            f"n = {', '.join(f'{size:,}' for size in sizes)} questions on {', '.join(dict.fromkeys(s.task for s in scores.values()))}",
        )
    drawn = values if scale == "linear" else 100 * values / np.where(divisor == 0, 1, divisor)
    hover = [
        [
            f"layer {layer}, {name}<br>{_number(values[layer, i], bool(sets))}"
            + (f" ({drawn[layer, i]:.1f}%)" if scale == "column" else "")
            for i, name in enumerate(checkpoints)
        ]
        for layer in range(layers)
    ]
    texts = (
        np.where(values > 0, np.char.mod("%d" if scale == "linear" else "%.1f", drawn), "") if sets else None
    )
    figure, remark = theme.layer_matrix(
        drawn, theme.with_n(checkpoints, sizes), unit=unit, hover=hover, texts=texts
    )
    theme.lay_out(
        figure,
        f"Where the {what} sit, checkpoint by checkpoint",
        f"{small}{remark}",
        height=theme.heat_height(layers) + 210,
    )
    figure.update_xaxes(title_text=f"checkpoint (n {'neurons' if sets else 'questions'})")
    if sets and not values.any():
        theme.say(figure, "no neurons in these sets")
    return figure


def _mean_by_layer(scores: NeuronScores, sites: Iterable[Site | str] | None) -> np.ndarray:
    arrays = list(per_cluster(scores, sites=sites).values())
    return np.sum([array.sum(axis=1, dtype=np.float64) for array in arrays], axis=0) / sum(
        array.shape[1] for array in arrays
    )


def _number(value: float, count: bool) -> str:
    return theme.plural(int(value), "neuron") if count else f"mean over the layer's neurons: {value:.4g}"
