"""The workbench: an interactive view of neurons in Jupyter. Only `explore` is public.

source    what is explored: scores, sets, model, task; no widget knows more
twin      a copy of the model on the same weights, for the view's own hooks
asking    a typed question -> answers before and after
reading   the questions to which a neuron responds, and the tokens in them
worker    a thread in which the latest request wins
heat      the live heatmap
panes     the neuron's card and the bench, as widgets
page      the pieces of HTML, including what shows without a kernel
view      the widget that ties them together
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..data.neurons import NeuronSet
from ..data.scores import NeuronScores
from ..engine.models import HookedModel
from ..errors import StudyError
from ..study.study import Study
from ..tasks.question import Task

if TYPE_CHECKING:
    from .view import Workbench

__all__ = ["explore"]


def explore(
    study_or_scores: Study | NeuronScores,
    *,
    model: HookedModel | None = None,
    neurons: NeuronSet | Mapping[str, NeuronSet] | None = None,
    task: Task | None = None,
    questions: int = 200,
) -> Workbench:
    """An interactive view of a study or of scores: heatmap, neuron cards, and a bench to ablate neurons.

        view = explore(run_study())
        view                      # choose, click, ask
        view.selection            # a NeuronSet: goes into ablate() and evaluate() as it is
        view.selection = neurons  # and the other way round

    Args:
        study_or_scores: what `run_study` or `Study.load` returns, or what `score_neurons` returns.
        model: the loaded model that it was made with. The embedded toy is loaded when it is first needed; no
            other model ever is: without it the view shows what scores alone can show, and says so.
        neurons: more sets to choose from; the first is the one chosen at the start.
        task: the questions that cards show; by default the task that the scores come from, loaded by name.
        questions: how many of them are read for the cards, spread evenly over countries. Each costs a forward
            and a backward pass, once.

    Scores of cloze questions are explored in that form and with their normalisation: questions are answered
    by their options' words, and `labels` and `answer_prefix` are ignored.

    Returns:
        The view, an ipywidgets box. Its state is plain data in traits that can be read, set and observed:
        `set_name`, `country`, `site`, `layer`, `neuron`, `selection`, `operation`, `question`, `labels`,
        `answers`.

    Raises:
        StudyError: neither a study nor scores, or the packages of the extra ``notebooks`` are missing.
        ModelError, NeuronError, TaskError: a model or sets of another shape than the scores, a count below 1,
            questions in another form than those that were scored.
    """
    given: Any = study_or_scores  # in a notebook nothing has checked its type
    if not isinstance(given, (Study, NeuronScores)):
        raise StudyError(
            "explore() takes a Study (run_study, Study.load) or NeuronScores (score_neurons), "
            f"not an object of type {type(study_or_scores).__name__}"
        )
    packages = {"ipywidgets": "ipywidgets", "anywidget": "anywidget", "PIL": "pillow"}
    missing = [package for name, package in packages.items() if find_spec(name) is None]
    if missing:
        raise StudyError(f"explore() needs {' and '.join(missing)}: pip install 'culnig-tl[notebooks]'")
    from .source import Source
    from .view import Workbench

    return Workbench(Source.of(study_or_scores, model=model, neurons=neurons, task=task, questions=questions))
