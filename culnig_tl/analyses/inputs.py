"""Models and tasks by name: what the analyses take from a notebook's one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from ..engine.models import HookedModel, load_model
from ..tasks import Task, load_task


def model_of(model: HookedModel | str | Path) -> HookedModel:
    """A model, loaded with the defaults of `load_model` where its name or folder is given."""
    return load_model(model) if isinstance(model, (str, Path)) else model


def task_of(
    task: Task | str | Path,
    data_dir: str | Path | None = None,
    *,
    split: Literal["neuron", "test"] | None = None,
    limit: int | None = None,
    **how: Any,
) -> Task:
    """A task as it is; of one that is named, the split, at most `limit` questions of it.

    Args:
        how: further arguments of `load_task`.
    """
    if isinstance(task, Task):
        return task
    whole = load_task(task, data_dir=data_dir, **how)
    parts = {None: lambda: whole, "neuron": whole.neuron_split, "test": whole.test_split}
    return parts[split]().limit(limit)
