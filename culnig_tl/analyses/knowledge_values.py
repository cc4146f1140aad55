"""Knowledge against values: are the neurons of what people know about a culture those of what its people hold right?

Neurons are found on tasks of either kind (blend asks what is so; normad and worldvaluesbench ask what is acceptable or valued), with the same
thresholds, and each task's set is suppressed while every task is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pandas as pd

from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..data.statistics import DRAWS, compare_drops, holm
from ..defaults import DROP_READING, RANDOM_SETS, TOP_ATTN, TOP_MLP
from ..errors import TaskError
from ..method.evaluation import evaluate_sets
from ..method.score import score_neurons
from ..method.selection import select_general, select_random
from ..tasks.question import Task
from .overlap import overlaps

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskNeurons:
    """Neurons found on several tasks, their overlap, and what each set costs on each task."""

    sets: Mapping[str, NeuronSet]
    """Task -> the neurons found on it."""
    base: EvaluationResult
    results: Mapping[str, EvaluationResult]
    """Task -> answers to all tasks with its neurons suppressed."""
    random: Mapping[str, tuple[EvaluationResult, ...]]
    """Task -> answers with layer-matched random sets suppressed."""

    def overlap(self) -> pd.DataFrame:
        """One row a pair of sets: common neurons, how many chance would give, Jaccard index, p (hypergeometric, one-sided)."""
        return overlaps(self.sets).rename(columns={"set": "found_on"})

    def table(self, *, draws: int = DRAWS) -> pd.DataFrame:
        """Cross-effects, one row a (set, task asked): drop with its interval, random sets' drop, excess with its interval, p (Holm over a set's tasks).

        In points of accuracy; of alignment (0 to 100) on worldvaluesbench. An excess over 0 on the other kind's task says that the neurons serve both.
        """
        parts = []
        for name, result in self.results.items():
            rows = []
            for task in dict.fromkeys(self.base.table["task"]):
                values = [r.values(task) for r in (self.base, result, *self.random[name])]
                clusters = self.base.table.loc[self.base.table["task"] == task, "cluster"].to_numpy()
                rows.append(
                    {
                        "asked": task,
                        **asdict(compare_drops(values[0], values[1], values[2:], clusters, draws=draws)),
                    }
                )
            part = pd.DataFrame(rows)
            part.insert(0, "found_on", name)
            part.insert(1, "neurons", len(self.sets[name]))
            parts.append(part.assign(p_holm=holm(part["p_bootstrap"].tolist())))
        return pd.concat(parts, ignore_index=True)

    def figure(self) -> Any:
        """What each set costs on each task beyond random sets, as a Plotly figure."""
        from .. import figures

        return figures.cross_effects(self.table())

    def __str__(self) -> str:
        return f"{self.overlap().round(4).to_string(index=False)}\n\n{self.table().round(3).to_string(index=False)}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.overlap().round(4).to_html(index=False) + self.table().round(3).to_html(index=False)


def compare_tasks(
    model: Any,
    tasks: Sequence[Task],
    reading: Task | None,
    *,
    top_mlp: float = TOP_MLP,
    top_attn: float = TOP_ATTN,
    drop_reading: float = DROP_READING,
    limit: int | None = None,
    random_sets: int = RANDOM_SETS,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> TaskNeurons:
    """Finds neurons on each task with the same thresholds, and suppresses each set on all of them.

    A task's control is subtracted where it offers one; normad and worldvaluesbench offer none (a warning says so): their sets hold
    neurons of answering in their format too, which the reading filter alone takes out.

    Args:
        tasks: two or more, whole, with a neuron and a test split.
        reading: neuron split of country reading comprehension; None removes nothing.
        limit: questions a task and split.
        random_sets: layer-matched random sets a set.

    Raises:
        TaskError: fewer than two tasks, one without both splits, or two of one name.
    """
    if len({task.name for task in tasks}) < max(2, len(tasks)):
        raise TaskError("two tasks or more are compared, each once: blend, normad, worldvaluesbench")
    splits = {task.name: (task.neuron_split().limit(limit), task.test_split().limit(limit)) for task in tasks}
    common: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    crc = None if reading is None else score_neurons(model, reading, **common)
    sets, drawn = {}, {}
    for name, (found_on, _) in splits.items():
        scores = score_neurons(model, found_on, **common)
        if not found_on.has_control:
            log.warning("%s offers no control: its neurons are selected from its own scores", name)
        control = score_neurons(model, found_on.control(), **common) if found_on.has_control else None
        chosen = select_general(
            scores, control, crc, top_mlp=top_mlp, top_attn=top_attn, drop_reading=drop_reading
        )
        sets[name] = NeuronSet(chosen.table, replace(chosen.provenance, kind=f"found on {name}"))
        drawn |= {
            f"{name} {seed}": select_random(chosen, scores, seed=seed, match="layer")
            for seed in range(random_sets)
        }
    asked = [test for _, test in splits.values()]
    answers = evaluate_sets(model, asked, {"unchanged": None, **sets, **drawn}, **common)
    random = {name: tuple(answers[f"{name} {seed}"] for seed in range(random_sets)) for name in sets}
    return TaskNeurons(sets, answers["unchanged"], {name: answers[name] for name in sets}, random)
