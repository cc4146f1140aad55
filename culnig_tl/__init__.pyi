from . import analyses, figures, finetuning
from .data.neurons import NeuronSet, Site
from .data.results import EvaluationResult
from .data.scores import NeuronScores
from .engine.models import describe, load_model
from .errors import CulnigError
from .finetuning.baking import bake
from .method.ablation import ablate, ablation_hooks, mean_outputs
from .method.closeup import question_scores, score_prompt
from .method.evaluation import evaluate
from .method.exact import exact_effects
from .method.score import score_neurons
from .method.selection import select_general, select_random, select_rival, select_specific
from .run.pipeline import run_study
from .study.comparison import compare
from .study.config import StudyConfig
from .study.study import Study
from .tasks import Question, Task, list_tasks, load_task
from .workbench import explore
