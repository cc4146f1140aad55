"""Knowledge against values: do the neurons that know a culture also hold what its people think is right?

Neurons are found on tasks of either kind (blend asks what people do; normad and worldvaluesbench ask what
they accept or value) with the same thresholds, and each task's set is suppressed while every task is asked.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.neurons import NeuronSet
from ..data.scores import NeuronScores
from ..data.statistics import DRAWS
from ..defaults import DROP_READING, RANDOM_SETS, TOP_ATTN, TOP_MLP
from ..engine.models import HookedModel
from ..errors import TaskError
from ..method.score import score_neurons
from ..method.selection import select_general
from ..tasks.question import Form, Normalise, Task
from .compare_sets import ComparedSets, compare_sets
from .inputs import model_of, task_of

log = logging.getLogger(__name__)


class TaskNeurons(ComparedSets):
    """Neurons found on several tasks, their overlap, and what each set costs on each task. Sets are named for
    their task."""

    def overlap(self) -> pd.DataFrame:
        """As `ComparedSets.overlap`; the first column is found_on."""
        return super().overlap().rename(columns={"set": "found_on"})

    def table(self, *, draws: int = DRAWS) -> pd.DataFrame:
        """Cross-effects, one row per task that neurons were found on and task asked: as `ComparedSets.table`,
        with found_on and p_holm.

        In points of accuracy; of alignment (0 to 100) on worldvaluesbench. An excess above 0 on the other
        kind's task says that the neurons serve both.
        """
        table = super().table(draws=draws)
        return table.rename(columns={"set": "found_on", "p_bootstrap_holm": "p_holm"})


def compare_tasks(
    model: HookedModel | str | Path,
    tasks: Sequence[Task | str],
    reading: Task | str | None = "countryrc",
    *,
    top_mlp: float = TOP_MLP,
    top_attn: float = TOP_ATTN,
    drop_reading: float = DROP_READING,
    limit: int | None = None,
    random_sets: int = RANDOM_SETS,
    form: Form = "letters",
    normalise: Normalise = "unconditional",
    chat_template: bool = False,
    wordings: str | Path | None = None,
    allow_regions: bool = False,
    data_dir: str | Path | None = None,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> TaskNeurons:
    """Finds neurons on each task with the same thresholds, and suppresses each set while all of them are
    asked.

    A task's control is subtracted where it offers one. normad and worldvaluesbench offer none (a warning says
    so): their sets also hold neurons that serve answering in their format, which only the reading filter
    takes out.

    Args:
        model: loaded, or its name or folder.
        tasks: two or more, whole, with a neuron and a test split.
        reading: neuron split of country reading comprehension, or the task's name; None removes nothing.
        top_mlp, top_attn, drop_reading: as in `select_general`.
        limit: questions per task and split.
        random_sets: layer-matched random sets per set.
        form, normalise, chat_template, wordings, allow_regions: of tasks that are given by name, as in
            `load_task`.
        data_dir: local mirror of the Hub's data sets, for tasks that are named.

    Raises:
        TaskError: fewer than two tasks, one without both splits, or two of one name.
    """
    how: dict[str, Any] = {"form": form, "normalise": normalise, "chat_template": chat_template}
    how |= {"wordings": wordings, "allow_regions": allow_regions}
    whole = [task_of(task, data_dir, **how) for task in tasks]
    if len({task.name for task in whole}) < max(2, len(whole)):
        raise TaskError("compare two tasks or more, each once: blend, normad, worldvaluesbench")
    splits = {task.name: (task.neuron_split().limit(limit), task.test_split().limit(limit)) for task in whole}
    loaded = model_of(model)
    common: dict[str, Any] = {"batch_size": batch_size, "progress": progress}

    def score(task: Task) -> NeuronScores:
        return score_neurons(loaded, task, **common)

    read = None if reading is None else score(task_of(reading, data_dir, split="neuron", limit=limit, **how))
    scored, sets = {}, {}
    for name, (found_on, _) in splits.items():
        scored[name] = score(found_on)
        if not found_on.has_control:
            log.warning("%s offers no control: its neurons are selected from its own scores", name)
        control = score(found_on.control()) if found_on.has_control else None
        chosen = select_general(
            scored[name], control, read, top_mlp=top_mlp, top_attn=top_attn, drop_reading=drop_reading
        )
        sets[name] = NeuronSet(chosen.table, replace(chosen.provenance, kind=f"found on {name}"))
    asked, first = [test for _, test in splits.values()], next(iter(scored.values()))
    found = compare_sets(loaded, asked, sets, random_sets, scores=first, **common)
    return TaskNeurons(**vars(found))
