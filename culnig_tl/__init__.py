"""culnig_tl: finds the neurons of a language model that carry its knowledge of cultures, switches them off inside real
benchmarks, and shows where they sit. CULNIG (ICLR 2026, arXiv 2510.08284) on TransformerLens."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "ablate": "ablation",
    "PromptScores": "attribution",
    "score_neurons": "attribution",
    "score_prompt": "attribution",
    "CulnigError": "errors",
    "EvaluationResult": "evaluation",
    "evaluate": "evaluation",
    "describe": "models",
    "load_model": "models",
    "NeuronSet": "neurons",
    "Site": "neurons",
    "NeuronScores": "scores",
    "select_culture_general": "selection",
    "select_culture_specific": "selection",
    "select_random": "selection",
    "Study": "study",
    "run_study": "study",
    "COUNTRIES": "tasks",
    "Question": "tasks",
    "Task": "tasks",
    "list_tasks": "tasks",
    "load_task": "tasks",
}
_MODULES = ("figures", "statistics")
__all__ = ["__version__", *sorted(_PUBLIC), *_MODULES]

if TYPE_CHECKING:
    from . import figures, statistics
    from .ablation import ablate
    from .attribution import PromptScores, score_neurons, score_prompt
    from .errors import CulnigError
    from .evaluation import EvaluationResult, evaluate
    from .models import describe, load_model
    from .neurons import NeuronSet, Site
    from .scores import NeuronScores
    from .selection import select_culture_general, select_culture_specific, select_random
    from .study import Study, run_study
    from .tasks import COUNTRIES, Question, Task, list_tasks, load_task


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used, so that ``culnig-tl --help`` need not wait for torch."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
