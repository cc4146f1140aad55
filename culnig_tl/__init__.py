"""culnig_tl: finds the neurons of a language model that carry its knowledge of cultures, switches them off inside real
benchmarks, and shows where they sit. CULNIG (ICLR 2026, arXiv 2510.08284) on TransformerLens."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "ablate": "ablation",
    "task_means": "ablation",
    "compare_checkpoints": "analyses.checkpoints",
    "Comparison": "analyses.comparison",
    "compare": "analyses.comparison",
    "halves": "analyses.comparison",
    "CountryDrops": "analyses.crossing",
    "country_drops": "analyses.crossing",
    "depth_thirds": "analyses.depth",
    "enhance_sweep": "analyses.enhancing",
    "compare_tasks": "analyses.knowledge_values",
    "compare_languages": "analyses.language",
    "paper_rows": "analyses.paper",
    "results_table": "analyses.paper",
    "switch_off_parts": "analyses.parts",
    "diagnose": "analyses.specificity",
    "shared_pattern": "analyses.specificity",
    "selection_stability": "analyses.stability",
    "threshold_sweep": "analyses.sweep",
    "Matcher": "answers.matching",
    "ask_short_answers": "answers.short_answers",
    "PromptScores": "attribution",
    "score_neurons": "attribution",
    "score_prompt": "attribution",
    "bake": "baking",
    "QuestionScores": "closeup",
    "question_scores": "closeup",
    "CulnigError": "errors",
    "evaluate": "evaluation",
    "evaluate_sets": "evaluation",
    "TrainingConfig": "finetuning.finetune",
    "finetune": "finetuning.finetune",
    "ForgettingConfig": "finetuning.forgetting",
    "measure_forgetting": "finetuning.measuring",
    "choose_modules": "finetuning.modules",
    "export_freeze_list": "finetuning.modules",
    "rank_modules": "finetuning.modules",
    "score_methods": "methods",
    "compare_methods": "methods.benchmark",
    "exact_effects": "methods.exact",
    "describe": "models",
    "load_model": "models",
    "NeuronSet": "neurons",
    "Site": "neurons",
    "write_comparison": "pages.comparison_page",
    "write_report": "pages.report",
    "EvaluationResult": "results",
    "run_study": "running.pipeline",
    "NeuronScores": "scores",
    "select_culture_general": "selection",
    "select_culture_specific": "selection",
    "select_random": "selection",
    "select_rival": "selection",
    "Study": "study",
    "StudyConfig": "study",
    "COUNTRIES": "tasks",
    "Question": "tasks",
    "Task": "tasks",
    "list_tasks": "tasks",
    "load_task": "tasks",
    "load_training": "tasks.training",
    "explore": "workbench",
}
"""Public name -> its module."""
_MODULES = ("figures", "statistics")
__all__ = ["__version__", *sorted(_PUBLIC), *_MODULES]

if TYPE_CHECKING:
    from . import figures, statistics
    from .ablation import ablate, task_means
    from .analyses.checkpoints import compare_checkpoints
    from .analyses.comparison import Comparison, compare, halves
    from .analyses.crossing import CountryDrops, country_drops
    from .analyses.depth import depth_thirds
    from .analyses.enhancing import enhance_sweep
    from .analyses.knowledge_values import compare_tasks
    from .analyses.language import compare_languages
    from .analyses.paper import paper_rows, results_table
    from .analyses.parts import switch_off_parts
    from .analyses.specificity import diagnose, shared_pattern
    from .analyses.stability import selection_stability
    from .analyses.sweep import threshold_sweep
    from .answers.matching import Matcher
    from .answers.short_answers import ask_short_answers
    from .attribution import PromptScores, score_neurons, score_prompt
    from .baking import bake
    from .closeup import QuestionScores, question_scores
    from .errors import CulnigError
    from .evaluation import evaluate, evaluate_sets
    from .finetuning.finetune import TrainingConfig, finetune
    from .finetuning.forgetting import ForgettingConfig
    from .finetuning.measuring import measure_forgetting
    from .finetuning.modules import choose_modules, export_freeze_list, rank_modules
    from .methods import score_methods
    from .methods.benchmark import compare_methods
    from .methods.exact import exact_effects
    from .models import describe, load_model
    from .neurons import NeuronSet, Site
    from .pages.comparison_page import write_comparison
    from .pages.report import write_report
    from .results import EvaluationResult
    from .running.pipeline import run_study
    from .scores import NeuronScores
    from .selection import select_culture_general, select_culture_specific, select_random, select_rival
    from .study import Study, StudyConfig
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
