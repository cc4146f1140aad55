"""Parts of the method switched off one at a time: what each is good for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import pandas as pd

from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..defaults import DROP_READING, TOP_ATTN, TOP_MLP
from ..errors import ScoreError
from ..method.evaluation import evaluate_sets
from ..method.score import Aggregation, score_neurons
from ..method.selection import select_general
from ..tasks.question import Task

WHOLE = "whole method"


@dataclass(frozen=True)
class Parts:
    """The whole method and its variants: their neurons, and what suppressing them costs."""

    sets: Mapping[str, NeuronSet]
    """Variant -> culture-general neurons."""
    base: EvaluationResult
    results: Mapping[str, EvaluationResult]
    """Variant -> answers with its neurons suppressed; none for a variant without neurons."""

    def table(self) -> pd.DataFrame:
        """One row a variant: neurons by pool, overlap with the whole method's, then accuracy and drop a task, in points."""
        before, rows = self.base.accuracy(), {}
        for name, neurons in self.sets.items():
            pools = [
                sum(len(i) for (site, _), i in neurons.indices.items() if site.pool == pool)
                for pool in ("mlp", "attn")
            ]
            row: dict[str, float] = {
                "neurons": len(neurons),
                "mlp": pools[0],
                "attn": pools[1],
                "jaccard": neurons.jaccard(self.sets[WHOLE]),
            }
            if name in self.results:
                after = self.results[name].accuracy()
                for task in after.index:
                    row[f"{task} accuracy"] = float(after.loc[task, "accuracy"])  # type: ignore[arg-type]
                    row[f"{task} se"] = float(after.loc[task, "se"])  # type: ignore[arg-type]
                    row[f"{task} drop"] = float(before.loc[task, "accuracy"] - after.loc[task, "accuracy"])  # type: ignore[operator]
            rows[name] = row
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("part")

    def __str__(self) -> str:
        return self.table().round(2).to_string()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table().round(2).to_html()


def switch_off_parts(
    model: Any,
    culture: Task,
    reading: Task,
    tasks: Sequence[Task],
    *,
    top_mlp: float = TOP_MLP,
    top_attn: float = TOP_ATTN,
    drop_reading: float = DROP_READING,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> Parts:
    """Selects culture-general neurons with one part left out at a time, suppresses each set, and asks the tasks.

    Variants: no control, no CountryRC filter, MLP only, attention only, and sum or mean over tokens instead of the maximum.

    Args:
        culture: neuron split of the culture task; it must have a control.
        reading: neuron split of country reading comprehension.
        tasks: to ask, cultural ones and others.
        top_mlp, top_attn, r: as in `select_general`.
    """
    if not tasks:
        raise ScoreError("no task to ask: name one at least")
    sets: dict[str, NeuronSet] = {}
    for how in get_args(Aggregation):

        def score(task: Task) -> Any:
            return score_neurons(model, task, aggregation=how, batch_size=batch_size, progress=progress)  # noqa: B023 - called in this turn of the loop

        neuron, control, crc = score(culture), score(culture.control()), score(reading)
        whole = select_general(
            neuron, control, crc, top_mlp=top_mlp, top_attn=top_attn, drop_reading=drop_reading
        )
        if how != "max":
            sets[f"{how} over tokens"] = whole
            continue
        sets[WHOLE] = whole
        sets["no control"] = select_general(
            neuron, None, crc, top_mlp=top_mlp, top_attn=top_attn, drop_reading=drop_reading
        )
        sets["no CountryRC filter"] = select_general(
            neuron, control, None, top_mlp=top_mlp, top_attn=top_attn, drop_reading=drop_reading
        )
        sets["MLP only"] = select_general(
            neuron, control, crc, top_mlp=top_mlp, top_attn=0, drop_reading=drop_reading
        )
        sets["attention only"] = select_general(
            neuron, control, crc, top_mlp=0, top_attn=top_attn, drop_reading=drop_reading
        )

    filled = {name: neurons for name, neurons in sets.items() if len(neurons)}
    answers = evaluate_sets(
        model, tasks, {"unchanged": None, **filled}, batch_size=batch_size, progress=progress
    )
    return Parts(sets, answers.pop("unchanged"), answers)
