"""Sweep: does what was found depend on the thresholds?

One ranking is made and cut at every point of the sweep; where a model and tasks are given, each set is
suppressed while they are asked.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.neurons import NeuronSet, Site
from ..data.results import EvaluationResult
from ..data.scores import NeuronScores
from ..defaults import DROP_READING, MIN_Z, TOP_ATTN, TOP_MLP, TOP_SPECIFIC
from ..engine.models import HookedModel
from ..errors import NeuronError
from ..method.selection import rank_general, rank_specific
from ..study.opened import OpenStudy, open_study, study_of
from ..study.study import Study
from ..tasks.question import Task
from .compare_sets import accuracy_columns, compare_sets, pool_counts

log = logging.getLogger(__name__)

SHARES: tuple[float, ...] = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05)
"""The shares of a sweep: 0.1% to 5%."""


@dataclass(frozen=True)
class SweepPoint:
    """One choice of thresholds and what it gives."""

    thresholds: dict[str, float]
    """"top", "drop_reading", and "z" in a culture-specific sweep."""
    neurons: NeuronSet
    result: EvaluationResult | None = None
    """Answers with the set suppressed, where tasks were asked."""


@dataclass(frozen=True)
class Sweep:
    """The points of a sweep."""

    kind: str
    """"culture-general", or "culture-specific: Iran"."""
    points: tuple[SweepPoint, ...]
    base: EvaluationResult | None = None
    """Answers of the unchanged model, where tasks were asked."""
    culture: tuple[str, ...] = ()
    """Names of the tasks that are cultural."""
    country: str | None = None
    """Of a culture-specific sweep."""

    def table(self) -> pd.DataFrame:
        """One row per point: thresholds, counts, overlap with the paper's thresholds, then accuracy (percent)
        and drop (points) per task."""
        reference = next((p.neurons for p in self.points if p.neurons.provenance.paper_defaults), None)
        rows = []
        for point in self.points:
            known = point.neurons.provenance
            row: dict[str, Any] = {
                **point.thresholds,
                "neurons": len(point.neurons),
                **pool_counts(point.neurons),
                "candidates": known.candidates,
                "removed_by_reading": known.removed_by_reading,
            }
            if known.removed_by_z is not None:
                row["removed_by_z"] = known.removed_by_z
            if reference is not None:
                row["jaccard_paper"] = point.neurons.jaccard(reference)
            if point.result is not None and self.base is not None:
                row |= accuracy_columns(self.base, point.result)
            rows.append(row)
        return pd.DataFrame(rows)

    def tables(self) -> dict[str, pd.DataFrame]:
        """File stem -> table."""
        return {"sweep" if self.country is None else f"sweep {self.country}": self.table()}

    def curves(self) -> pd.DataFrame:
        """Accuracy along each threshold that moves, the others at their value in the paper (or the nearest
        one swept).

        Columns parameter, threshold, task, setting, culture, accuracy and se (percent), neurons. Raises
        `NeuronError` where no task was asked.
        """
        if self.base is None:
            raise NeuronError(
                "this sweep only counted neurons: give threshold_sweep a model and tasks to ask"
            )
        paper = {
            "top": TOP_MLP if self.country is None else TOP_SPECIFIC,
            "drop_reading": DROP_READING,
            "z": MIN_Z,
        }
        swept = {name: {p.thresholds[name] for p in self.points} for name in self.points[0].thresholds}
        fixed = {name: _nearest(values, paper[name]) for name, values in swept.items()}
        rows = []
        for name in [n for n, values in swept.items() if len(values) > 1] or ["top"]:
            label = "top_mlp" if name == "top" and self.country is None else name
            others = {other: value for other, value in fixed.items() if other != name}
            for point in self.points:
                if point.result is None or any(point.thresholds[o] != value for o, value in others.items()):
                    continue
                for setting, result in (("unchanged", self.base), (f"{self.kind}, suppress", point.result)):
                    table = result.accuracy().reset_index()[["task", "accuracy", "se"]]
                    rows.append(
                        table.assign(
                            culture=table["task"].isin(self.culture),
                            parameter=label,
                            threshold=point.thresholds[name],
                            setting=setting,
                            neurons=len(point.neurons),
                        )
                    )
        return pd.concat(rows, ignore_index=True)

    def __str__(self) -> str:
        sizes = [len(p.neurons) for p in self.points]
        return (
            f"Sweep of {self.kind} neurons: {len(self.points)} points, {min(sizes):,} to {max(sizes):,}"
            " neurons"
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table().round(3).to_html(index=False)


def sweep(
    study: Study | OpenStudy | str | Path,
    *,
    top: Sequence[float] = SHARES,
    drop_reading: Sequence[float] | None = None,
    z: Sequence[float] = (MIN_Z,),
    country: str | None = None,
    ask: bool = True,
    batch_size: int | str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> Sweep:
    """A study's selection at many thresholds, and what suppressing each set costs on its tasks.

    Args:
        study: its folder, or the study itself; device, dtype and data_dir as in `open_study`.
        top: shares that are candidates; attention's share keeps the study's proportion to it.
        drop_reading: shares removed for reading; the study's by default.
        z: least z, for a country's neurons.
        country: sweep this country's culture-specific neurons instead.
        ask: suppress every set and ask the study's tasks; otherwise neurons are only counted, and no model is
            loaded.

    Raises:
        StudyError: the study's model or questions have changed. NeuronError: no threshold, or a share outside
            0..1.
    """
    opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir) if ask else None
    done = study_of(study if opened is None else opened)
    return threshold_sweep(
        *(done.scores[name] for name in ("neuron", "control", "reading")),
        top=top,
        drop_reading=[done.config.drop_reading] if drop_reading is None else drop_reading,
        z=z,
        country=country,
        attn_ratio=done.config.top_attn / done.config.top_mlp,
        model=opened.model if opened else None,
        tasks=opened.tasks if opened else (),
        base=opened.unchanged(opened.tasks) if opened else None,
        batch_size=batch_size,
        progress=progress,
    )


def threshold_sweep(
    scores: NeuronScores,
    control: NeuronScores | None = None,
    reading: NeuronScores | None = None,
    *,
    top: Sequence[float] = SHARES,
    drop_reading: Sequence[float] = (DROP_READING,),
    z: Sequence[float] = (MIN_Z,),
    country: str | None = None,
    attn_ratio: float = TOP_ATTN / TOP_MLP,
    sites: Iterable[Site | str] | None = None,
    model: HookedModel | None = None,
    tasks: Sequence[Task] = (),
    base: EvaluationResult | None = None,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> Sweep:
    """Culture-general neurons (or one country's) at every combination of thresholds, from one ranking.

    Args:
        scores, control, reading, sites: as in `select_general`.
        top: shares that are candidates: of the MLP pool for culture-general neurons, of the one pool for a
            country's.
        drop_reading: shares, highest by reading, that are removed.
        z: least z; for a country's neurons only.
        country: sweep this country's culture-specific neurons instead.
        attn_ratio: attention's share over the MLPs'; a fifth in the paper.
        model, tasks: suppress every set and ask these tasks, cultural and NLU ones.
        base: answers of the unchanged model to them, where they are at hand.

    Raises:
        NeuronError: no threshold, a share outside 0..1, or tasks without a model.
    """
    if not top or not drop_reading or not z:
        raise NeuronError("a sweep needs at least one value each of top, drop_reading and z")
    if tasks and model is None:
        raise NeuronError("tasks are asked of a model: threshold_sweep(..., model=model, tasks=[...])")
    shares, cuts, least = (sorted(set(values)) for values in (top, drop_reading, z))
    if country is None:
        points = _general(scores, control, reading, shares, cuts, attn_ratio, sites)
    else:
        points = _specific(scores, control, reading, shares, cuts, least, country, sites)
    log.info("%d selections from one ranking", len(points))
    kind = "culture-general" if country is None else f"culture-specific: {country}"
    if not tasks or model is None:
        return Sweep(kind, tuple(SweepPoint(*point) for point in points), country=country)
    sets = {str(number): neurons for number, (_, neurons) in enumerate(points)}
    found = compare_sets(model, tasks, sets, base=base, batch_size=batch_size, progress=progress)
    made = tuple(SweepPoint(*point, found.results[name]) for name, point in zip(sets, points))
    return Sweep(kind, made, found.base, tuple(task.name for task in tasks if task.culture), country)


Points = list[tuple[dict[str, float], NeuronSet]]


def _general(
    scores: NeuronScores,
    control: NeuronScores | None,
    reading: NeuronScores | None,
    shares: Sequence[float],
    cuts: Sequence[float],
    attn_ratio: float,
    sites: Iterable[Site | str] | None,
) -> Points:
    """The culture-general neurons at every combination, from one ranking as deep as the largest shares."""
    ranking = rank_general(
        scores,
        control,
        reading,
        top_mlp=shares[-1],
        top_attn=attn_ratio * shares[-1],
        drop_reading=cuts[-1],
        sites=sites,
    )
    points = []
    for share, cut in itertools.product(shares, cuts):
        # 0.01 * 0.2 is a rounding error away from 0.002: the paper's point is to be exactly the paper's.
        papers = (share, attn_ratio) == (TOP_MLP, TOP_ATTN / TOP_MLP)
        top_attn = TOP_ATTN if papers else attn_ratio * share
        neurons = ranking.cut(top_mlp=share, top_attn=top_attn, drop_reading=cut)
        points.append(({"top": share, "drop_reading": cut}, neurons))
    return points


def _specific(
    scores: NeuronScores,
    control: NeuronScores | None,
    reading: NeuronScores | None,
    shares: Sequence[float],
    cuts: Sequence[float],
    least: Sequence[float],
    country: str,
    sites: Iterable[Site | str] | None,
) -> Points:
    """One country's neurons at every combination, from one ranking as deep as the largest shares."""
    ranking = rank_specific(
        scores, control, reading, countries=[country], top=shares[-1], drop_reading=cuts[-1], sites=sites
    )
    points = []
    for share, cut, z in itertools.product(shares, cuts, least):
        thresholds = {"top": share, "drop_reading": cut, "z": z}
        points.append((thresholds, ranking.cut(**thresholds).for_country(country)))
    return points


def _nearest(values: Iterable[float], wanted: float) -> float:
    """The value nearest to the one wanted; of two as near, the smaller."""
    return min(sorted(values), key=lambda value: abs(value - wanted))
