"""The method with one part left out at a time: what each part is good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..defaults import DROP_READING, TOP_ATTN, TOP_MLP
from ..engine.models import HookedModel
from ..errors import ScoreError
from ..method.score import score_neurons
from ..method.selection import select_general
from ..study.opened import OpenStudy, open_study
from ..study.study import Study
from ..tasks.question import Task
from .compare_sets import accuracy_columns, compare_sets, pool_counts

WHOLE = "whole method"
METHODS = ("culnig", "culnig-sum", "culnig-mean")
"""The maximum, the sum and the mean over tokens."""


@dataclass(frozen=True)
class Parts:
    """The whole method and its variants: their neurons, and what suppressing them costs."""

    sets: Mapping[str, NeuronSet]
    """Variant -> culture-general neurons."""
    base: EvaluationResult
    """Answers of the unchanged model."""
    results: Mapping[str, EvaluationResult]
    """Variant -> answers with its neurons suppressed; none for a variant without neurons."""

    def table(self) -> pd.DataFrame:
        """One row per variant: neurons by pool, overlap with the whole method's, then accuracy (percent) and
        drop (points) per task."""
        rows = {}
        for name, neurons in self.sets.items():
            row: dict[str, float] = {"neurons": len(neurons), **pool_counts(neurons)}
            row["jaccard"] = neurons.jaccard(self.sets[WHOLE])
            rows[name] = (
                row | accuracy_columns(self.base, self.results[name]) if name in self.results else row
            )
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("part")

    def tables(self) -> dict[str, pd.DataFrame]:
        """File stem -> table."""
        return {"parts": self.table().reset_index()}

    def __str__(self) -> str:
        table = self.table().round(2)
        return table[[c for c in table.columns if not c.endswith((" se", " accuracy"))]].to_string()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table().round(2).to_html()


def parts(
    study: Study | OpenStudy | str | Path,
    *,
    batch_size: int | str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> Parts:
    """A study's selection with one part of the method left out at a time, and what suppressing each set costs
    on its tasks.

    Args:
        study: its folder, or the study itself; device, dtype and data_dir as in `open_study`.

    Raises:
        StudyError: the study's model or questions have changed.
    """
    opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir)
    config = opened.study.config
    return switch_off_parts(
        opened.model,
        opened.culture,
        opened.reading,
        opened.tasks,
        top_mlp=config.top_mlp,
        top_attn=config.top_attn,
        drop_reading=config.drop_reading,
        base=opened.unchanged(opened.tasks),
        batch_size=batch_size,
        progress=progress,
    )


def switch_off_parts(
    model: HookedModel,
    culture: Task,
    reading: Task,
    tasks: Sequence[Task],
    *,
    top_mlp: float = TOP_MLP,
    top_attn: float = TOP_ATTN,
    drop_reading: float = DROP_READING,
    base: EvaluationResult | None = None,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> Parts:
    """Selects culture-general neurons with one part left out at a time, suppresses each set, and asks the
    tasks.

    Variants: no control, no CountryRC filter, MLP only, attention only, and sum or mean over tokens instead
    of the maximum.

    Args:
        culture: neuron split of the culture task; it must have a control.
        reading: neuron split of country reading comprehension.
        tasks: to ask, cultural ones and others.
        top_mlp, top_attn, drop_reading: as in `select_general`.
        base: answers of the unchanged model to `tasks`, where they are at hand.

    Raises:
        ScoreError: no task to ask. TaskError: a culture task without a control.
    """
    if not tasks:
        raise ScoreError("no task to ask: name at least one")

    def select(method: str, *, without: str = "", mlp: float = top_mlp, attn: float = top_attn) -> NeuronSet:
        scores, control, read = (of_task[method] for of_task in scored)
        return select_general(
            scores,
            None if without == "control" else control,
            None if without == "reading" else read,
            top_mlp=mlp,
            top_attn=attn,
            drop_reading=drop_reading,
        )

    scored = [
        score_neurons(model, task, method=METHODS, batch_size=batch_size, progress=progress)
        for task in (culture, culture.control(), reading)
    ]
    sets = {
        WHOLE: select("culnig"),
        "no control": select("culnig", without="control"),
        "no CountryRC filter": select("culnig", without="reading"),
        "MLP only": select("culnig", attn=0),
        "attention only": select("culnig", mlp=0),
        "sum over tokens": select("culnig-sum"),
        "mean over tokens": select("culnig-mean"),
    }
    filled = {name: neurons for name, neurons in sets.items() if len(neurons)}
    found = compare_sets(model, tasks, filled, base=base, batch_size=batch_size, progress=progress)
    return Parts(sets, found.base, found.results)
