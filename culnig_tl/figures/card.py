"""One neuron on a card."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..data.neurons import Site
from ..data.scores import NeuronScores
from ..errors import NeuronError, ScoreError
from ..method.closeup import QuestionScores
from ..study.opened import OpenStudy
from ..study.study import Study
from . import theme
from .tokens import top_questions
from .values import SCORE_UNIT, check_finite, country_label, per_cluster, sample, scores_of

ROWS = 12
"""Rows of a table on the card."""
_LINE, _HEAD, _TICKS, _GAP, _BARS = 30, 34, 110, 60, 230
"""Pixels: a row, a head, the room under the bars, the room over a further table, the bars."""
_CHARACTERS = 130
"""Characters of a table's line."""


@dataclass(frozen=True)
class _Table:
    title: str
    rows: pd.DataFrame
    widths: tuple[float, ...]
    """Of the columns, as shares of the card."""
    lines: int = 1
    """Lines of text in a row."""

    @property
    def pixels(self) -> int:
        return _HEAD + (_LINE + 16 * (self.lines - 1)) * max(len(self.rows), 1)


@theme.literal
def neuron_card(
    scores: NeuronScores | Study | OpenStudy | str | Path,
    neuron: tuple[Site | str, int, int],
    *,
    control: NeuronScores | None = None,
    questions: QuestionScores | pd.DataFrame | None = None,
    firing: pd.DataFrame | None = None,
    promoted: pd.DataFrame | None = None,
) -> go.Figure:
    """One neuron: its scores by country, and those of its tables that are given.

    Args:
        scores: of every neuron; the small print tells the rank among the neurons of the pool. Or a study, or
            its folder: its control is then drawn too.
        neuron: (site, layer, index).
        control: drawn beside the scores.
        questions: what `question_scores` returns for a set with this neuron; or a table of its strongest
            questions (see `top_questions`), with the columns question and score, and country, token or part
            where known.
        firing: what `firing_tokens` returns: columns token, context, activation.
        promoted: what `promoted_tokens` returns: columns token, logit.

    Raises:
        NeuronError: no such neuron. ScoreError: a table without its columns, NaN.
    """
    scores, control, _ = scores_of(scores, control, "neuron_card")
    site, layer, index = Site.parse(neuron[0]), int(neuron[1]), int(neuron[2])
    if site not in scores.arrays or not (0 <= layer < scores.layers and 0 <= index < scores.widths[site]):
        have = ", ".join(f"{s} 0 to {width - 1}" for s, width in scores.widths.items())
        raise NeuronError(
            f"no scores of neuron ({site}, {layer}, {index}): "
            f"layers are 0 to {scores.layers - 1}, neurons {have}"
        )
    if isinstance(questions, QuestionScores):
        questions = top_questions(questions, (site, layer, index), count=ROWS)
    tables = _tables(questions, firing, promoted)
    inner = _BARS + sum(t.pixels for t in tables) + (_TICKS + _GAP * (len(tables) - 1) if tables else 0)
    figure = go.Figure()
    _bars(figure, scores, control, site, layer, index)
    top = inner - _BARS
    figure.update_yaxes(domain=[top / inner, 1.0], title_text=SCORE_UNIT)
    figure.update_xaxes(tickmode="linear", dtick=1)  # every country is named, also where it is narrow
    _heading(figure, "score by country (n questions)", 1.0)
    for number, table in enumerate(tables):
        top -= _GAP if number else _TICKS
        figure.add_trace(_drawn(table, [max(0.0, (top - table.pixels) / inner), top / inner]))
        _heading(figure, table.title, top / inner)
        top -= table.pixels
    below = 30 if tables else 110
    theme.lay_out(
        figure,
        f"{site}, layer {layer}, neuron {index}",
        _small(scores, control, site, layer, index),
        scored=[site],
        height=inner + 90 + below,
    )
    return figure.update_layout(
        barmode="group", margin_b=below, showlegend=control is not None, legend=theme.LEGEND_RIGHT
    )


def _tables(
    questions: pd.DataFrame | None, firing: pd.DataFrame | None, promoted: pd.DataFrame | None
) -> list[_Table]:
    tables = []
    if questions is not None:
        rows = _columns(questions, "questions", ("question", "score"), ("country", "token", "part"))
        widths = (0.5, 0.1, 0.12, 0.13, 0.15) if "part" in rows.columns else (0.6, 0.12, 0.13, 0.15)
        tables.append(_Table("top questions", rows, widths, lines=2))
    if firing is not None:
        rows = _columns(firing, "firing", ("token", "context", "activation"))
        tables.append(_Table("tokens on which it fires", rows, (0.2, 0.62, 0.18)))
    if promoted is not None:
        rows = _both_ends(_columns(promoted, "promoted", ("token", "logit"), most=None))
        tables.append(_Table("tokens that its output promotes and suppresses", rows, (0.3, 0.2, 0.3, 0.2)))
    return tables


def _columns(
    frame: pd.DataFrame,
    name: str,
    needed: tuple[str, ...],
    optional: tuple[str, ...] = (),
    most: int | None = ROWS,
) -> pd.DataFrame:
    missing = [column for column in needed if column not in frame.columns]
    if missing:
        raise ScoreError(f"{name} needs the columns {', '.join(needed)}; missing: {', '.join(missing)}")
    return frame.loc[:, [*needed, *(column for column in optional if column in frame.columns)]].iloc[:most]


def _both_ends(promoted: pd.DataFrame) -> pd.DataFrame:
    """Promoted tokens beside suppressed ones, each strongest first."""
    ordered = promoted.sort_values(by="logit", ascending=False, kind="stable")
    up, down = ordered[ordered["logit"] > 0].head(ROWS), ordered[ordered["logit"] < 0].iloc[::-1].head(ROWS)
    columns = {
        "promoted": up["token"],
        "logit": up["logit"],
        "suppressed": down["token"],
        "logit ": down["logit"],
    }
    return pd.DataFrame({name: pd.Series(list(values), dtype=object) for name, values in columns.items()})


def _heading(figure: go.Figure, text: str, y: float) -> None:
    """A heading over what starts at `y`."""
    figure.add_annotation(
        text=text, x=0.0, y=y, xref="paper", yref="paper", xanchor="left", yanchor="bottom", showarrow=False,
        font={"size": 13, "color": theme.INK},
    )  # fmt: skip


def _bars(
    figure: go.Figure, scores: NeuronScores, control: NeuronScores | None, site: Site, layer: int, index: int
) -> None:
    names = theme.with_n(map(country_label, scores.countries), scores.questions)
    sources = [(scores, theme.PALETTE[0]), *([(control, "#B5BEC6")] if control is not None else [])]
    for source, colour in sources:
        values = source.arrays[site][:, layer, index] / np.maximum(source.country_clusters, 1)
        if not np.isfinite(values).all():
            raise ScoreError(
                f"scores of neuron ({site}, {layer}, {index}) on {source.task} hold NaN or infinite values: "
                "score the task again"
            )
        by_country = dict(zip(source.countries, values))
        heights = {country: by_country.get(country, np.nan) for country in scores.countries}
        figure.add_bar(
            x=names,
            y=list(heights.values()),
            name=source.task,
            marker_color=colour,
            hovertext=[
                f"{source.task}, {country_label(c)}: {theme.number(height)}" for c, height in heights.items()
            ],
            hoverinfo="text",
        )


def _small(scores: NeuronScores, control: NeuronScores | None, site: Site, layer: int, index: int) -> str:
    values = per_cluster(scores, control, sites=[s for s in scores.sites if s.pool == site.pool])
    mine = values[site][layer, index]
    rank = 1 + sum(int((check_finite(array, s) > mine).sum()) for s, array in values.items())
    size = sum(array.size for array in values.values())
    pool = "MLP" if site.pool == "mlp" else "attention"
    less = f" minus {control.task}" if control is not None else ""
    return (
        f"{SCORE_UNIT} on {scores.task}{less}: {theme.number(mine)}, "
        f"rank {rank:,} of {size:,} {pool} neurons; {sample(scores)}"
    )


def _drawn(table: _Table, domain: list[float]) -> go.Table:
    most = [int(_CHARACTERS * width * table.lines) for width in table.widths]
    cells = [
        [_cell(v, limit) for v in table.rows[c]] or ["none"] for c, limit in zip(table.rows.columns, most)
    ]
    numeric = [
        len(table.rows)
        and all(v is None or isinstance(v, (int, float, np.number)) for v in table.rows[column])
        for column in table.rows.columns
    ]
    align = ["right" if number else "left" for number in numeric]
    return go.Table(
        domain={"y": domain},
        columnwidth=list(table.widths[: len(cells)]),
        header={
            "values": [str(column).strip() for column in table.rows.columns],
            "align": align,
            "fill": {"color": "#EEF2F5"},
            "font": {"size": 12, "weight": "bold"},
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
        return theme.number(float(value))
    text = str(value).replace("\n", "↵")
    return text if len(text) <= most else f"{text[: most // 2 - 1]} … {text[1 - most // 2 :]}"
