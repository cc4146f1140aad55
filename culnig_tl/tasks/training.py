"""Questions to fine-tune on; never those that a task tests with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import TaskError
from . import glue
from .glue import Draw
from .question import Form, Normalise, Task
from .registry import in_words, load_task
from .wordings import read_wordings


def load_training(
    name: str | Path,
    *,
    data_dir: str | Path | None = None,
    limit: int | None = None,
    draw: Draw = "spread",
    wordings: str | Path | None = None,
    form: Form = "letters",
    normalise: Normalise = "unconditional",
    chat_template: bool = False,
) -> Task:
    """A task's questions to fine-tune on.

    For qnli and mrpc the Hub's split "train": 10,000 sampled rows and all 3,668, each in one of the wordings.
    For any other task, also a user's own file, its neuron split (BLEnD's neuron topics, rows with ``split``
    "neuron").

    Args:
        limit: this many questions, spread evenly.
        draw: "paper" for the rows of the authors' script, all in the first wording: of qnli the first 10,000
            after ``Dataset.shuffle(seed=42)``, of mrpc all. Other tasks are the same either way.
        wordings, form, normalise, chat_template: as in `load_task`.

    Raises:
        TaskError: the task has no such rows, or they are missing or wrong.
    """
    if limit is not None and limit < 1:
        raise TaskError(f"limit must be at least 1, not {limit}")
    how: dict[str, Any] = {"normalise": normalise, "chat_template": chat_template}
    if name in glue.SOURCES:
        worded = None if wordings is None else read_wordings(wordings).get(str(name))
        task = glue.load_training(str(name), data_dir=data_dir, count=limit, draw=draw, wordings=worded)
        return in_words(task, wordings, **how) if form == "cloze" else task
    task = load_task(name, data_dir=data_dir, wordings=wordings, form=form, **how)
    if not any(question.split == "neuron" for question in task):
        instead = (
            "give them the split neuron"
            if str(name) == task.source
            else "fine-tune on qnli, mrpc, blend, or a file of your own"
        )
        raise TaskError(f"task {task.name!r} has no rows to train on, it only tests: {instead}")
    return task.neuron_split().limit(limit)
