"""Depth in thirds: what share of the neurons sits in the shallow, the middle and the deep layers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from ..analyses.depth import THIRDS, depth_thirds
from ..data.neurons import NeuronSet
from ..study.study import Study
from . import theme
from .values import named

_POOLS = {"mlp": "MLP", "attn": "attention", "all": "all"}


@theme.literal
def depth_bars(neurons: NeuronSet | Study | str | Path | Mapping[str, NeuronSet | Study]) -> go.Figure:
    """Percent of the neurons in each third of the layers, with Wilson's 95% intervals, and the pool's share.

    One set, or a study's culture-general neurons: a group of bars for each pool (MLP, attention, all).
    Several: a group for each set, all pools together.

    Raises:
        NeuronError: no set, an empty one, or one that does not know its model's layers.
    """
    sets = named(neurons, "depth_bars")
    tables = {name: depth_thirds(s) for name, s in sets.items()}
    single = len(tables) == 1
    subtitle = f"n = {', '.join(f'{len(s):,}' for s in sets.values())} neurons"
    groups = {name: table.loc["all"] for name, table in tables.items()}
    if single:
        ((name, table),) = tables.items()
        subtitle = f"n = {theme.plural(len(sets[name]), 'neuron')}"
        groups = {
            _POOLS[str(pool)]: table.loc[pool] for pool in dict.fromkeys(table.index.get_level_values("pool"))
        }
    sizes = [int(part["neurons"].sum()) for part in groups.values()]
    labels = theme.with_n(groups, sizes)
    pale = f"; pale: n under {theme.FEW}" if min(sizes) < theme.FEW else ""
    figure = go.Figure()
    for third, colour in zip(THIRDS, (5, 0, 6)):
        rows = pd.DataFrame([part.loc[third] for part in groups.values()])
        figure.add_bar(
            x=labels,
            y=rows["percent"].tolist(),
            name=third,
            marker={"color": theme.PALETTE[colour], "opacity": theme.muted(sizes)},
            error_y=theme.error_bars(rows["high"] - rows["percent"], rows["percent"] - rows["low"]),
            hovertext=[_hover(name, third, row) for name, (_, row) in zip(groups, rows.iterrows())],
            hoverinfo="text",
        )
    pool = {round(float(share), 6) for part in groups.values() for share in part["pool_percent"]}
    if len(pool) == 1:
        share = float(next(iter(groups.values()))["pool_percent"].iloc[0])
        figure.add_hline(y=share, line={"color": theme.INK, "dash": "dash", "width": 1.5})
        subtitle += f"; dashed: the pool's share, {share:.1f}%"
    theme.lay_out(
        figure, "How deep the neurons sit", f"{subtitle}; bars: 95% intervals (Wilson){pale}", height=420
    )
    figure.update_xaxes(title_text=f"{'pool' if single else 'set'} (n neurons)", type="category")
    figure.update_yaxes(title_text="neurons in the third (%)", range=[0, 100])
    return figure.update_layout(barmode="group", legend=theme.LEGEND, showlegend=True)


def _hover(name: str, third: str, row: Any) -> str:
    return (
        f"{name}, {third} layers\n{theme.plural(int(row['neurons']), 'neuron')}: {row['percent']:.1f}% "
        f"(95% {row['low']:.1f} to {row['high']:.1f})\nthe pool has {row['pool_percent']:.1f}% there"
    )
