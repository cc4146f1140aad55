"""culnig_tl: finds the neurons of a language model that carry its knowledge of cultures, switches them off inside real
benchmarks, and shows where they sit. CULNIG (ICLR 2026, arXiv 2510.08284) on TransformerLens."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "compare_tasks": "knowledge_values",
    "enhance_sweep": "enhancing",
    "selection_stability": "stability",
    "score_methods": "methods",
    "exact_effects": "exact",
    "compare_methods": "benchmark",
    "ablate": "ablation",
    "task_means": "ablation",
    "PromptScores": "attribution",
    "score_neurons": "attribution",
    "score_prompt": "attribution",
    "bake": "baking",
    "finetune": "finetuning",
    "measure_forgetting": "measuring",
    "choose_modules": "modules",
    "export_freeze_list": "modules",
    "rank_modules": "modules",
    "load_training": "tasks.training",
    "compare_checkpoints": "checkpoints",
    "write_comparison": "comparison_page",
    "write_report": "report",
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
    "explore": "workbench",
    "ask_short_answers": "short_answers",
    "Matcher": "matching",
}
"""Public name -> its module."""
_MODULES = ("figures", "statistics")
__all__ = ["__version__", *sorted(_PUBLIC), *_MODULES]

if TYPE_CHECKING:
    from . import figures, statistics
    from .ablation import ablate, task_means
    from .attribution import PromptScores, score_neurons, score_prompt
    from .baking import bake
    from .benchmark import compare_methods
    from .checkpoints import compare_checkpoints
    from .closeup import QuestionScores, question_scores
    from .comparison import Comparison, compare
    from .comparison_page import write_comparison
    from .crossing import CountryDrops, country_drops
    from .depth import depth_thirds
    from .enhancing import enhance_sweep
    from .errors import CulnigError
    from .evaluation import EvaluationResult, evaluate
    from .exact import exact_effects
    from .finetuning import finetune
    from .knowledge_values import compare_tasks
    from .language import compare_languages
    from .matching import Matcher
    from .measuring import measure_forgetting
    from .methods import score_methods
    from .models import describe, load_model
    from .modules import choose_modules, export_freeze_list, rank_modules
    from .neurons import NeuronSet, Site
    from .paper import paper_rows, results_table
    from .parts import switch_off_parts
    from .pipeline import run_study
    from .report import write_report
    from .scores import NeuronScores
    from .selection import select_culture_general, select_culture_specific, select_random
    from .short_answers import ask_short_answers
    from .specificity import diagnose, shared_pattern
    from .stability import selection_stability
    from .study import Study, StudyConfig
    from .sweep import threshold_sweep
    from .tasks import COUNTRIES, Question, Task, list_tasks, load_task
    from .tasks.training import load_training
    from .workbench import explore


def __getattr__(name: str) -> Any:
    """Loads a public name when it is first used, so that ``culnig-tl --help`` need not wait for torch."""
    if name in _PUBLIC:
        return getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(__all__)
