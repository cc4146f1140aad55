"""Data sets turned into questions.

    task = load_task("blend")                     # by name, from the Hub or from a mirror of it
    task = load_task("my_questions.jsonl")        # a user's own file
    task.neuron_split(), task.test_split(), task.control(), task.limit(100)
"""

from .countries import COUNTRIES, SPECIFIC_COUNTRIES
from .question import Question, Split, Task, letters, seeded_random
from .registry import TASKS, TaskInfo, TaskRow, list_tasks, load_task
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
    "letters",
    "list_tasks",
    "load_task",
    "seeded_random",
]
