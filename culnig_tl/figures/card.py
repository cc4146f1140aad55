"""One neuron on a card."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..data.neurons import Site
from ..data.scores import NeuronScores
from ..errors import NeuronError, ScoreError
from ..method.closeup import QuestionScores
from . import theme
from .tokens import top_questions
from .values import SCORE_UNIT, check_finite, country_label, per_cluster, sample

ROWS = 12
"""Rows of a table on the card."""
_LINE, _HEAD, _TICKS, _GAP, _BARS = 30, 34, 110, 60, 230
"""Pixels: a row, a head, the room under the bars, the room over a further table, the bars."""
_CHARACTERS = 130
"""Characters of a table's line."""


def neuron_card(
    scores: NeuronScores,
    neuron: tuple[Site | str, int, int],
    *,
    control: NeuronScores | None = None,
    questions: QuestionScores | pd.DataFrame | None = None,
    firing: pd.DataFrame | None = None,
    promoted: pd.DataFrame | None = None,
) -> go.Figure:
    """One neuron: its scores by country, and what is given of its top questions, firing tokens and promoted tokens.

    Args:
        scores: of every neuron; the small print tells the rank among the neurons of the pool.
        neuron: (site, layer, index).
        control: drawn beside the scores.
        questions: what `question_scores` returns for a set with this neuron; or a table of its strongest questions, with the
            columns question and score, and country or token where known.
        firing: what `firing_tokens` returns: columns token, context, activation.
        promoted: what `promoted_tokens` returns: columns token, logit.

    Raises:
        NeuronError: no such neuron. ScoreError: a table without its columns, NaN.
    """
    site, layer, index = Site.parse(neuron[0]), int(neuron[1]), int(neuron[2])
    if site not in scores.arrays or not (0 <= layer < scores.layers and 0 <= index < scores.widths[site]):
        have = ", ".join(f"{s} 0 to {width - 1}" for s, width in scores.widths.items())
        raise NeuronError(
            f"no scores of neuron ({site}, {layer}, {index}): layers are 0 to {scores.layers - 1}, neurons {have}"
        )
    if isinstance(questions, QuestionScores):
        questions = top_questions(questions, (site, layer, index), count=ROWS)
    tables = [
        (
            "top questions",
            _table(questions, "questions", ("question", "score"), ("country", "token")),
            (0.6, 0.12, 0.13, 0.15),
            2,
        ),
        (
            "tokens on which it fires",
            _table(firing, "firing", ("token", "context", "activation"), ()),
            (0.2, 0.62, 0.18),
            1,
        ),
        ("tokens that its output promotes and suppresses", _promoted(promoted), (0.3, 0.2, 0.3, 0.2), 1),
    ]
    given = [(title, table, widths, lines) for title, table, widths, lines in tables if table is not None]
    pixels = [_HEAD + (_LINE + 16 * (lines - 1)) * max(len(table), 1) for _, table, _, lines in given]
    inner = _BARS + sum(pixels) + ((_TICKS + _GAP * (len(given) - 1)) if given else 0)
    figure = go.Figure()
    _bars(figure, scores, control, site, layer, index)
    top = inner - _BARS
    figure.update_yaxes(domain=[top / inner, 1.0], title_text=SCORE_UNIT)
    _title(figure, "score by country (n questions)", 1.0)
    for number, ((title, table, widths, lines), height) in enumerate(zip(given, pixels)):
        top -= _GAP if number else _TICKS
        figure.add_trace(_draw(table, widths, lines, {"y": [max(0.0, (top - height) / inner), top / inner]}))
        _title(figure, title, top / inner)
        top -= height
    theme.lay_out(
        figure,
        f"{site}, layer {layer}, neuron {index}",
        _small(scores, control, site, layer, index),
        scored=[site],
        height=inner + 90 + (30 if given else 110),
    )
    figure.update_layout(
        barmode="group", margin={"b": 30 if given else 110}, showlegend=control is not None,
        legend={"orientation": "h", "x": 1.0, "xanchor": "right", "y": 1.0, "yanchor": "bottom"},
    )  # fmt: skip
    return figure


def _title(figure: go.Figure, text: str, y: float) -> None:
    """A heading over what starts at `y`."""
    figure.add_annotation(
        text=text,
        x=0.0,
        y=y,
        xref="paper",
        yref="paper",
        xanchor="left",
        yanchor="bottom",
        showarrow=False,
        font={"size": 13, "color": theme.INK},
    )


def _bars(
    figure: go.Figure, scores: NeuronScores, control: NeuronScores | None, site: Site, layer: int, index: int
) -> None:
    names = theme.with_n(map(country_label, scores.countries), scores.questions)
    for number, source in enumerate([scores] if control is None else [scores, control]):
        values = source.arrays[site][:, layer, index] / np.maximum(source.country_clusters, 1)
        if not np.isfinite(values).all():
            raise ScoreError(
                f"scores of neuron ({site}, {layer}, {index}) on {source.task} hold NaN or infinite values: score the task again"
            )
        by_country = dict(zip(source.countries, values))
        heights = [by_country.get(c, np.nan) for c in scores.countries]
        figure.add_bar(
            x=names, y=heights, name=source.task, marker={"color": theme.PALETTE[0] if number == 0 else "#B5BEC6"},
            hovertext=[f"{source.task}, {country_label(c)}: {h:.4g}" for c, h in zip(scores.countries, heights)], hoverinfo="text",
        )  # fmt: skip


def _small(scores: NeuronScores, control: NeuronScores | None, site: Site, layer: int, index: int) -> str:
    values = per_cluster(scores, control, sites=[s for s in scores.sites if s.pool == site.pool])
    mine = values[site][layer, index]
    rank = 1 + sum(int((check_finite(array, s) > mine).sum()) for s, array in values.items())
    size = sum(array.size for array in values.values())
    pool = "MLP" if site.pool == "mlp" else "attention"
    return (
        f"{SCORE_UNIT} on {scores.task}{f' minus {control.task}' if control else ''}: {mine:.4g}, rank {rank:,} of {size:,} {pool} neurons; "
        f"{sample(scores)}"
    )


def _table(
    frame: pd.DataFrame | None, name: str, needed: tuple[str, ...], optional: tuple[str, ...]
) -> pd.DataFrame | None:
    if frame is None:
        return None
    missing = [column for column in needed if column not in frame.columns]
    if missing:
        raise ScoreError(f"{name} needs the columns {', '.join(needed)}; missing: {', '.join(missing)}")
    return frame[[*needed, *(column for column in optional if column in frame.columns)]].head(ROWS)


def _promoted(frame: pd.DataFrame | None) -> pd.DataFrame | None:
    """Promoted tokens beside suppressed ones, each strongest first."""
    table = _table(frame, "promoted", ("token", "logit"), ())
    if frame is None or table is None:
        return None
    ordered = frame.loc[:, ["token", "logit"]].sort_values(by="logit", ascending=False, kind="stable")
    up, down = ordered[ordered["logit"] > 0].head(ROWS), ordered[ordered["logit"] < 0].iloc[::-1].head(ROWS)
    columns: dict[str, Any] = {
        "promoted": up["token"],
        "logit": up["logit"],
        "suppressed": down["token"],
        "logit ": down["logit"],
    }
    return pd.DataFrame({name: pd.Series(list(values), dtype=object) for name, values in columns.items()})


def _draw(
    table: pd.DataFrame, widths: tuple[float, ...], lines: int, domain: dict[str, list[float]]
) -> go.Table:
    most = [int(_CHARACTERS * width * lines) for width in widths]
    cells = [
        [_cell(value, limit) for value in table[column]] or ["none"]
        for column, limit in zip(table.columns, most)
    ]
    numeric = [
        all(isinstance(v, (int, float, np.number)) or v is None for v in table[column])
        for column in table.columns
    ]
    align = ["right" if number and len(table) else "left" for number in numeric]
    return go.Table(
        domain=domain,
        columnwidth=list(widths[: len(cells)]),
        header={
            "values": [f"<b>{str(column).strip()}</b>" for column in table.columns],
            "align": align,
            "fill": {"color": "#EEF2F5"},
            "font": {"size": 12},
            "height": 26,
        },
        cells={
            "values": cells,
            "align": align,
            "fill": {"color": "white"},
            "line": {"color": theme.GRID},
            "font": {"size": 12},
            "height": _LINE,
        },
    )


def _cell(value: object, most: int) -> str:
    """A cell's text of so many characters at most; the middle is left out."""
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return ""
    if isinstance(value, (float, np.floating)):
        return f"{value:.4g}"
    text = str(value).replace("\n", "↵")
    return theme.escape(text if len(text) <= most else f"{text[: most // 2 - 1]} … {text[1 - most // 2 :]}")
