"""Questions to fine-tune on; never those that a task tests with."""

from __future__ import annotations

from pathlib import Path

from ..errors import TaskError
from . import glue
from .glue import Draw
from .question import Task
from .registry import load_task
from .wordings import read_wordings


def load_training(
    name: str | Path,
    *,
    data_dir: str | Path | None = None,
    limit: int | None = None,
    draw: Draw = "spread",
    wordings: str | Path | None = None,
) -> Task:
    """A task's questions to fine-tune on.

    For qnli and mrpc the Hub's split "train": 10,000 sampled rows and all 3,668, each in one of the wordings.
    For any other task, also a user's own file, its neuron split (BLEnD's neuron topics, rows with ``split``
    "neuron").

    Args:
        limit: this many questions, spread evenly.
        draw: "paper" for the rows of the authors' script, all in the first wording: of qnli the first 10,000
            after ``Dataset.shuffle(seed=42)``, of mrpc all. Other tasks are the same either way.
        wordings: as in `load_task`.

    Raises:
        TaskError: the task has no such rows, or they are missing or wrong.
    """
    if limit is not None and limit < 1:
        raise TaskError(f"limit must be at least 1, not {limit}")
    if name in glue.SOURCES:
        worded = None if wordings is None else read_wordings(wordings).get(str(name))
        return glue.load_training(str(name), data_dir=data_dir, count=limit, draw=draw, wordings=worded)
    task = load_task(name, data_dir=data_dir, wordings=wordings)
    if not any(question.split == "neuron" for question in task):
        how = (
            "give them the split neuron"
            if str(name) == task.source
            else "fine-tune on qnli, mrpc, blend, or a file of your own"
        )
        raise TaskError(f"task {task.name!r} has no rows to train on, it only tests: {how}")
    return task.neuron_split().limit(limit)
