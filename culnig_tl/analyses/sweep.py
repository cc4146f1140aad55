"""Sweep: does what was found depend on the thresholds?

One ranking is made and cut at every point of the sweep; where a model and tasks are given, each set is suppressed and asked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from ..errors import NeuronError
from ..evaluation import evaluate_sets
from ..neurons import NeuronSet, Site
from ..results import EvaluationResult
from ..scores import NeuronScores
from ..selection import T_ATTN, T_MLP, T_SPECIFIC, R, Z, rank_general, rank_specific
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
                "removed_by_countryrc": known.removed_by_countryrc,
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
            raise NeuronError("this sweep only counted neurons: give threshold_sweep a model and tasks to ask")
        values = {name: sorted({p.thresholds[name] for p in self.points}) for name in self.points[0].thresholds}
        paper = {"t": T_MLP if self.country is None else T_SPECIFIC, "r": R, "z": Z}
        fixed = {name: min(swept, key=lambda v: abs(v - paper[name])) for name, swept in values.items()}  # noqa: B023
        rows = []
        for name in [n for n, swept in values.items() if len(swept) > 1] or ["t"]:
            label = "t_mlp" if name == "t" and self.country is None else name
            for point in self.points:
                if point.result is None or any(point.thresholds[other] != value for other, value in fixed.items() if other != name):
                    continue
                for setting, result in (("unchanged", self.base), (f"{self.kind}, suppress", point.result)):
                    table = result.accuracy().reset_index()
                    here = {"parameter": label, "threshold": point.thresholds[name], "setting": setting, "neurons": len(point.neurons)}
                    rows.append(table[["task", "accuracy", "se"]].assign(culture=table["task"].isin(self.culture), **here))
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
    r: Sequence[float] = (R,),
    z: Sequence[float] = (Z,),
    country: str | None = None,
    attn_ratio: float = T_ATTN / T_MLP,
    sites: Iterable[Site | str] | None = None,
    model: Any = None,
    tasks: Sequence[Task] = (),
    batch_size: int | str = "auto",
    progress: bool = True,
) -> Sweep:
    """Culture-general neurons (or one country's) at every combination of thresholds, from one ranking.

    Args:
        neuron, control, countryrc, sites: as in `select_culture_general`.
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
        general = rank_general(neuron, control, countryrc, t_mlp=max(t), t_attn=attn_ratio * max(t), r=max(r), sites=sites)
        for share in sorted(set(t)):
            # 0.01 * 0.2 is a rounding error away from 0.002: the paper's point is the paper's.
            t_attn = T_ATTN if (share, attn_ratio) == (T_MLP, T_ATTN / T_MLP) else attn_ratio * share
            points += [({"t": share, "r": cut}, general.cut(t_mlp=share, t_attn=t_attn, r=cut)) for cut in sorted(set(r))]
        kind = "culture-general"
    else:
        specific = rank_specific(neuron, control, countryrc, countries=[country], t=max(t), r=max(r), sites=sites)
        for share in sorted(set(t)):
            for cut in sorted(set(r)):
                for least in sorted(set(z)):
                    points.append(({"t": share, "r": cut, "z": least}, specific.cut(t=share, r=cut, z=least).for_country(country)))
        kind = f"culture-specific: {country}"
    log.info("%d selections from one ranking", len(points))
    if not tasks:
        return Sweep(kind, tuple(SweepPoint(thresholds, neurons) for thresholds, neurons in points), country=country)

    names = [str(number) for number in range(len(points))]
    sets = {"unchanged": None, **{name: neurons for name, (_, neurons) in zip(names, points)}}
    answers = evaluate_sets(model, tasks, sets, batch_size=batch_size, progress=progress)
    made = tuple(SweepPoint(thresholds, neurons, answers[name]) for name, (thresholds, neurons) in zip(names, points))
    return Sweep(kind, made, answers["unchanged"], tuple(task.name for task in tasks if task.culture), country)
