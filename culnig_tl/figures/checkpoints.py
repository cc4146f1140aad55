"""Layer x checkpoint: how neurons move in training (base, SFT, DPO)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import plotly.graph_objects as go

from ..data.neurons import NeuronSet, Site
from ..data.scores import NeuronScores
from ..errors import NeuronError
from . import theme
from .values import SCORE_UNIT, by_layer, layers_of, per_cluster, sites_of


@dataclass(frozen=True)
class _Columns:
    values: np.ndarray
    """[layer, checkpoint]"""
    largest: np.ndarray
    """[checkpoint]: what a column is divided by where columns are scaled."""
    sizes: list[int]
    """How many neurons or questions each checkpoint has."""
    counted: str
    """"neurons" or "questions"."""
    units: dict[str, str]
    """Scale -> unit."""
    small: str


@theme.literal
def checkpoint_heatmap(
    checkpoints: Mapping[str, NeuronSet] | Mapping[str, NeuronScores],
    *,
    scale: Literal["linear", "column"] = "linear",
    sites: Iterable[Site | str] | None = None,
) -> go.Figure:
    """Layer x checkpoint: neurons of each checkpoint's set, or mean score of a layer's neurons.

    Args:
        checkpoints: name -> set, or name -> scores, in the order of training.
        scale: "linear", or "column" to compare shapes where sizes differ: a set's counts in percent of the
            set's neurons, scores in percent of the checkpoint's layer that is farthest from 0.
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
    if len(checkpoints) not in (len(sets), len(scores)):
        raise NeuronError("checkpoints are all NeuronSets or all NeuronScores")
    found = _of_sets(sets, sites) if sets else _of_scores(scores, sites)
    values = found.values
    drawn = values if scale == "linear" else 100 * values / np.where(found.largest == 0, 1, found.largest)
    hover = [
        [
            f"layer {layer}, {name}\n{_number(values[layer, i], bool(sets))}"
            + (f" ({theme.number(drawn[layer, i], '.1f')}%)" if scale == "column" else "")
            for i, name in enumerate(checkpoints)
        ]
        for layer in range(len(values))
    ]
    texts = None
    if sets:
        texts = np.where(values > 0, np.char.mod("%d" if scale == "linear" else "%.1f", drawn), "")
    figure, remark = theme.layer_matrix(
        drawn, theme.with_n(checkpoints, found.sizes), unit=found.units[scale], hover=hover, texts=texts
    )
    theme.lay_out(
        figure,
        f"Where the {'neurons' if sets else 'scores'} sit, checkpoint by checkpoint",
        f"{found.small}{remark}",
        height=theme.heat_height(len(values)) + 210,
    )
    figure.update_xaxes(title_text=f"checkpoint (n {found.counted})")
    if sets and not values.any():
        theme.say(figure, "no neurons in these sets")
    return figure


def _of_sets(sets: Mapping[str, NeuronSet], sites: Iterable[Site | str] | None) -> _Columns:
    layers, shown = layers_of(sets.values()), sites_of(sets.values(), sites)
    values = np.stack([by_layer(s, shown, layers).sum(0) for s in sets.values()], axis=1).astype(float)
    sizes = values.sum(0)
    total = theme.plural(int(sizes.sum()), "neuron")
    return _Columns(
        values,
        sizes,
        sizes.astype(int).tolist(),
        "neurons",
        {"linear": "neurons", "column": "% of the checkpoint's neurons"},
        f"n = {total} in {theme.plural(len(sets), 'checkpoint')}, {', '.join(map(str, shown))}",
    )


def _of_scores(scores: Mapping[str, NeuronScores], sites: Iterable[Site | str] | None) -> _Columns:
    columns = [_mean_by_layer(s, sites) for s in scores.values()]
    layers = max(map(len, columns))
    padded = [np.pad(column, (0, layers - len(column)), constant_values=np.nan) for column in columns]
    values = np.stack(padded, axis=1)
    sizes = [sum(s.questions) for s in scores.values()]
    tasks = ", ".join(dict.fromkeys(s.task for s in scores.values()))
    return _Columns(
        values,
        np.nanmax(np.abs(values), axis=0),
        sizes,
        "questions",
        {"linear": f"mean {SCORE_UNIT} and neuron", "column": "% of the checkpoint's largest"},
        f"n = {', '.join(f'{size:,}' for size in sizes)} questions on {tasks}",
    )


def _mean_by_layer(scores: NeuronScores, sites: Iterable[Site | str] | None) -> np.ndarray:
    arrays = list(per_cluster(scores, sites=sites).values())
    total = np.sum([array.sum(axis=1, dtype=np.float64) for array in arrays], axis=0)
    return total / sum(array.shape[1] for array in arrays)


def _number(value: float, count: bool) -> str:
    return (
        theme.plural(int(value), "neuron")
        if count
        else f"mean over the layer's neurons: {theme.number(value)}"
    )
