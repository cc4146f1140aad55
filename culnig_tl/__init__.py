"""culnig_tl: finds the neurons of a language model that carry its knowledge of cultures, switches them off inside real
benchmarks, and shows where they sit. CULNIG (ICLR 2026, arXiv 2510.08284) on TransformerLens."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "ablate": "ablation",
    "task_means": "ablation",
    "PromptScores": "attribution",
    "score_neurons": "attribution",
    "score_prompt": "attribution",
    "bake": "baking",
    "compare_checkpoints": "checkpoints",
    "QuestionScores": "closeup",
    "question_scores": "closeup",
    "Comparison": "comparison",
    "compare": "comparison",
    "CountryDrops": "crossing",
    "country_drops": "crossing",
    "depth_thirds": "depth",
    "CulnigError": "errors",
    "EvaluationResult": "evaluation",
    "evaluate": "evaluation",
    "compare_languages": "language",
    "describe": "models",
    "load_model": "models",
    "NeuronSet": "neurons",
    "Site": "neurons",
    "paper_rows": "paper",
    "results_table": "paper",
    "switch_off_parts": "parts",
    "NeuronScores": "scores",
    "select_culture_general": "selection",
    "select_culture_specific": "selection",
    "select_random": "selection",
    "diagnose": "specificity",
    "shared_pattern": "specificity",
    "Study": "study",
    "StudyConfig": "study",
    "run_study": "pipeline",
    "threshold_sweep": "sweep",
    "COUNTRIES": "tasks",
    "Question": "tasks",
    "Task": "tasks",
    "list_tasks": "tasks",
    "load_task": "tasks",
}
"""Public name -> its module."""
_MODULES = ("figures", "statistics")
__all__ = ["__version__", *sorted(_PUBLIC), *_MODULES]

if TYPE_CHECKING:
    from . import figures, statistics
    from .ablation import ablate, task_means
    from .attribution import PromptScores, score_neurons, score_prompt
    from .baking import bake
    from .checkpoints import compare_checkpoints
    from .closeup import QuestionScores, question_scores
    from .comparison import Comparison, compare
    from .crossing import CountryDrops, country_drops
    from .depth import depth_thirds
    from .errors import CulnigError
    from .evaluation import EvaluationResult, evaluate
    from .language import compare_languages
    from .models import describe, load_model
    from .neurons import NeuronSet, Site
    from .paper import paper_rows, results_table
    from .parts import switch_off_parts
    from .pipeline import run_study
    from .scores import NeuronScores
    from .selection import select_culture_general, select_culture_specific, select_random
    from .specificity import diagnose, shared_pattern
    from .study import Study, StudyConfig
    from .sweep import threshold_sweep
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
