"""Which of a task's questions a study asks.

In the paper (CULNIG, arXiv 2510.08284) neurons are found on one half of BLEnD; the other half and all rows of
every other task are asked. So are they here, with any task in BLEnD's place.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ..errors import TaskError
from ..tasks import Task
from ..tasks.question import Part
from .config import StudyConfig


def culture_of(tasks: Sequence[Task]) -> Task | None:
    """The task that neurons are found on: the first that is cultural, with a control and a neuron split."""
    return next((task for task in tasks if task.culture and _has_control(task)), None)


def _has_control(task: Task) -> bool:
    try:
        task.neuron_split().control()
    except TaskError:
        return False
    return True


def parts_of(tasks: Sequence[Task], which: Part, found_on: Collection[str]) -> tuple[Task, ...]:
    """The questions that are asked of each task (see `Task.part`).

    Args:
        found_on: names of the tasks that neurons were found on.
    """
    return tuple(task.part(which, found_on=task.name in found_on) for task in tasks)


def asked_tasks(config: StudyConfig, tasks: Sequence[Task], culture: Task, reading: Task) -> tuple[Task, ...]:
    """The questions of a study: each of its tasks whole, but the test split alone of those that neurons were
    found on, which are `culture`, `reading` and the rival's task; or the split that `config` names."""
    found_on = {culture.name, reading.name, *([config.rival_task] if config.rival_task else [])}
    asked = parts_of(tasks, config.split, found_on)
    return tuple(task.rows(config.rows).limit(config.limit) for task in asked)
