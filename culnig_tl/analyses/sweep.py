"""Sweep: does what was found depend on the thresholds?

One ranking is made and cut at every point of the sweep; where a model and tasks are given, each set is suppressed and asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..data.neurons import NeuronSet, Site
from ..data.results import EvaluationResult
from ..data.scores import NeuronScores
from ..defaults import DROP_READING, MIN_Z, TOP_ATTN, TOP_MLP, TOP_SPECIFIC
from ..errors import NeuronError
from ..method.evaluation import evaluate_sets
from ..method.selection import rank_general, rank_specific
from ..tasks.question import Task

log = logging.getLogger(__name__)

SHARES: tuple[float, ...] = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05)
"""The shares t of a sweep: 0.1% to 5%."""


@dataclass(frozen=True)
class SweepPoint:
    """One choice of thresholds and what it gives."""

    thresholds: dict[str, float]
    """t, r, and z of a culture-specific sweep."""
    neurons: NeuronSet
    result: EvaluationResult | None = None
    """Answers with the set suppressed, where tasks were asked."""


@dataclass(frozen=True)
class Sweep:
    """The points of a sweep; `table()` and `figure()` show all of them."""

    kind: str
    """"culture-general", or "culture-specific: Iran"."""
    points: tuple[SweepPoint, ...]
    base: EvaluationResult | None = None
    """Answers of the unchanged model."""
    culture: tuple[str, ...] = ()
    """Names of the tasks that are cultural."""
    country: str | None = None
    """Of a culture-specific sweep."""

    def table(self) -> pd.DataFrame:
        """One row a point: thresholds, counts, overlap with the point of the paper's thresholds, then accuracy and drop a task."""
        reference = next((p.neurons for p in self.points if p.neurons.provenance.paper_defaults), None)
        rows = []
        for point in self.points:
            known = point.neurons.provenance
            row: dict[str, Any] = {
                **point.thresholds,
                "neurons": len(point.neurons),
                "mlp": sum(len(i) for (site, _), i in point.neurons.indices.items() if site.pool == "mlp"),
                "attn": sum(len(i) for (site, _), i in point.neurons.indices.items() if site.pool == "attn"),
                "candidates": known.candidates,
                "removed_by_reading": known.removed_by_reading,
            }
            if known.removed_by_z is not None:
                row["removed_by_z"] = known.removed_by_z
            if reference is not None:
                row["jaccard_paper"] = point.neurons.jaccard(reference)
            if point.result is not None and self.base is not None:
                before, after = self.base.accuracy(), point.result.accuracy()
                for task in after.index:
                    row[f"{task} accuracy"] = after.loc[task, "accuracy"]
                    row[f"{task} se"] = after.loc[task, "se"]
                    row[f"{task} drop"] = before.loc[task, "accuracy"] - after.loc[task, "accuracy"]  # type: ignore[operator]
            rows.append(row)
        return pd.DataFrame(rows)

    def curves(self) -> pd.DataFrame:
        """Accuracy along each threshold that moves, the others at their value in the paper (or the nearest one swept).

        Columns parameter, threshold, task, setting, culture, accuracy, se, neurons: what `figures.threshold_curves` draws.
        """
        if self.base is None:
            raise NeuronError(
                "this sweep only counted neurons: give threshold_sweep a model and tasks to ask"
            )
        values = {
            name: sorted({p.thresholds[name] for p in self.points}) for name in self.points[0].thresholds
        }
        paper = {
            "t": TOP_MLP if self.country is None else TOP_SPECIFIC,
            "drop_reading": DROP_READING,
            "z": MIN_Z,
        }
        fixed = {name: min(swept, key=lambda v: abs(v - paper[name])) for name, swept in values.items()}  # noqa: B023
        rows = []
        for name in [n for n, swept in values.items() if len(swept) > 1] or ["t"]:
            label = "top_mlp" if name == "t" and self.country is None else name
            for point in self.points:
                if point.result is None or any(
                    point.thresholds[other] != value for other, value in fixed.items() if other != name
                ):
                    continue
                for setting, result in (("unchanged", self.base), (f"{self.kind}, suppress", point.result)):
                    table = result.accuracy().reset_index()
                    here = {
                        "parameter": label,
                        "threshold": point.thresholds[name],
                        "setting": setting,
                        "neurons": len(point.neurons),
                    }
                    rows.append(
                        table[["task", "accuracy", "se"]].assign(
                            culture=table["task"].isin(self.culture), **here
                        )
                    )
        return pd.concat(rows, ignore_index=True)

    def figure(self) -> Any:
        """The curves as a Plotly figure."""
        from .. import figures

        return figures.threshold_curves(self.curves())

    def __str__(self) -> str:
        sizes = [len(p.neurons) for p in self.points]
        return f"Sweep of {self.kind} neurons: {len(self.points)} points, {min(sizes):,} to {max(sizes):,} neurons"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table().round(3).to_html(index=False)


def threshold_sweep(
    neuron: NeuronScores,
    control: NeuronScores | None,
    countryrc: NeuronScores | None,
    *,
    t: Sequence[float] = SHARES,
    drop_reading: Sequence[float] = (DROP_READING,),
    z: Sequence[float] = (MIN_Z,),
    country: str | None = None,
    attn_ratio: float = TOP_ATTN / TOP_MLP,
    sites: Iterable[Site | str] | None = None,
    model: Any = None,
    tasks: Sequence[Task] = (),
    batch_size: int | str = "auto",
    progress: bool = True,
) -> Sweep:
    """Culture-general neurons (or one country's) at every combination of thresholds, from one ranking.

    Args:
        neuron, control, countryrc, sites: as in `select_general`.
        t: shares; of the MLP pool for culture-general neurons (attention's share is `attn_ratio` of it), of the one pool for a country's.
        r: shares removed by CountryRC.
        z: least z; for a country's neurons only.
        country: sweep this country's culture-specific neurons instead.
        attn_ratio: attention's share over the MLPs'; a fifth in the paper.
        model, tasks: suppress every set and ask these tasks, cultural and NLU ones.

    Raises:
        NeuronError: no threshold, a share outside 0..1, tasks without a model.
    """
    if not t or not r or not z:
        raise NeuronError("a sweep needs one value of t, r and z at least")
    if tasks and model is None:
        raise NeuronError("tasks are asked of a model: threshold_sweep(..., model=model, tasks=[...])")
    points: list[tuple[dict[str, float], NeuronSet]] = []
    if country is None:
        general = rank_general(
            neuron,
            control,
            countryrc,
            top_mlp=max(t),
            top_attn=attn_ratio * max(t),
            drop_reading=max(drop_reading),
            sites=sites,
        )
        for share in sorted(set(t)):
            # 0.01 * 0.2 is a rounding error away from 0.002: the paper's point is the paper's.
            top_attn = (
                TOP_ATTN if (share, attn_ratio) == (TOP_MLP, TOP_ATTN / TOP_MLP) else attn_ratio * share
            )
            points += [
                (
                    {"t": share, "drop_reading": cut},
                    general.cut(top_mlp=share, top_attn=top_attn, drop_reading=cut),
                )
                for cut in sorted(set(drop_reading))
            ]
        kind = "culture-general"
    else:
        specific = rank_specific(
            neuron,
            control,
            countryrc,
            countries=[country],
            t=max(t),
            drop_reading=max(drop_reading),
            sites=sites,
        )
        for share in sorted(set(t)):
            for cut in sorted(set(drop_reading)):
                for least in sorted(set(z)):
                    points.append(
                        (
                            {"t": share, "drop_reading": cut, "z": least},
                            specific.cut(t=share, drop_reading=cut, z=least).for_country(country),
                        )
                    )
        kind = f"culture-specific: {country}"
    log.info("%d selections from one ranking", len(points))
    if not tasks:
        return Sweep(
            kind, tuple(SweepPoint(thresholds, neurons) for thresholds, neurons in points), country=country
        )

    names = [str(number) for number in range(len(points))]
    sets = {"unchanged": None, **{name: neurons for name, (_, neurons) in zip(names, points)}}
    answers = evaluate_sets(model, tasks, sets, batch_size=batch_size, progress=progress)
    made = tuple(
        SweepPoint(thresholds, neurons, answers[name]) for name, (thresholds, neurons) in zip(names, points)
    )
    return Sweep(
        kind, made, answers["unchanged"], tuple(task.name for task in tasks if task.culture), country
    )
