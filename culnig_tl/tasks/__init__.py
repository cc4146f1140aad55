"""Data sets turned into questions.

`load_task("blend", split="neuron", limit=64)` loads a task by name, from the Hub or from a mirror of it;
`load_task("my_questions.jsonl")` loads a user's own file. The `Task` that comes back can also be narrowed
later, by `neuron_split()`, `test_split()`, `control()` and `limit(64)`.
"""

from .countries import COUNTRIES, SPECIFIC_COUNTRIES
from .question import Question, Split, Task, alignment, letters, seeded_random
from .registry import TASKS, TaskInfo, TaskRow, list_tasks, load_task, load_tasks
from .wordings import Wording

__all__ = [
    "COUNTRIES",
    "SPECIFIC_COUNTRIES",
    "TASKS",
    "Question",
    "Split",
    "Task",
    "TaskInfo",
    "TaskRow",
    "Wording",
    "alignment",
    "letters",
    "list_tasks",
    "load_task",
    "load_tasks",
    "seeded_random",
]
