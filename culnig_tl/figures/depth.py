"""Depth in thirds: what part of the neurons sits in the shallow, the middle and the deep layers."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from ..analyses.depth import THIRDS, depth_thirds
from ..data.neurons import NeuronSet
from . import theme
from .values import named

_POOLS = {"mlp": "MLP", "attn": "attention", "all": "all"}


def depth_bars(neurons: NeuronSet | Mapping[str, NeuronSet]) -> go.Figure:
    """Percent of the neurons in each third of the layers, with 95% intervals (Wilson), beside the pool's share there.

    One set: a group of bars a pool (MLP, attention, all). Several: a group of bars a set, all pools together.

    Raises:
        NeuronError: no set, an empty one, or one that does not know its model's layers.
    """
    sets = named(neurons)
    tables = {name: depth_thirds(s) for name, s in sets.items()}
    if len(tables) == 1:
        ((name, table),) = tables.items()
        groups = {
            _POOLS[str(pool)]: table.loc[pool] for pool in dict.fromkeys(table.index.get_level_values("pool"))
        }
        subtitle = f"n = {theme.plural(len(sets[name]), 'neuron')}"
    else:
        groups = {name: table.loc["all"] for name, table in tables.items()}
        subtitle = f"n = {', '.join(f'{len(s):,}' for s in sets.values())} neurons"
    labels = theme.with_n(groups, [int(part["neurons"].sum()) for part in groups.values()])
    figure = go.Figure()
    for number, third in enumerate(THIRDS):
        rows = [part.loc[third] for part in groups.values()]
        y = [float(row["percent"]) for row in rows]
        figure.add_bar(
            x=labels, y=y, name=third, marker={"color": theme.PALETTE[(5, 0, 6)[number]]},
            error_y={"type": "data", "array": [row["high"] - v for row, v in zip(rows, y)], "arrayminus": [v - row["low"] for row, v in zip(rows, y)], "symmetric": False, "color": theme.INK, "thickness": 1.2, "width": 3},
            hovertext=[f"{name}, {third} layers<br>{theme.plural(int(row['neurons']), 'neuron')}: {row['percent']:.1f}% (95% {row['low']:.1f} to {row['high']:.1f})<br>the pool has {row['pool_percent']:.1f}% there" for name, row in zip(groups, rows)],
            hoverinfo="text",
        )  # fmt: skip
    pool = [[float(part.loc[third, "pool_percent"]) for part in groups.values()] for third in THIRDS]  # pyright: ignore[reportArgumentType]
    if len({round(value, 6) for values in pool for value in values}) == 1:
        figure.add_hline(y=pool[0][0], line={"color": theme.INK, "dash": "dash", "width": 1.5})
        subtitle += f"; dashed: the pool's share, {pool[0][0]:.1f}%"
    theme.lay_out(figure, "How deep the neurons sit", f"{subtitle}; bars: 95% intervals", height=420)
    figure.update_layout(
        barmode="group",
        yaxis={"title": {"text": "neurons in the third (%)"}, "range": [0, 100]},
        xaxis={
            "title": {"text": "pool (n neurons)" if len(tables) == 1 else "set (n neurons)"},
            "type": "category",
        },
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
        showlegend=True,
    )
    return figure
