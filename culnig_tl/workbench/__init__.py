"""The workbench: ask the neurons in Jupyter. `explore` is all that is public.

source    what is explored: scores, sets, model, task; no widget knows more
twin      a copy of the model on the same weights, for the view's own hooks
asking    a typed question -> answers before and after
reading   which questions, and which of their tokens, a neuron answers to
worker    a thread in which the latest request wins
heat      the live heatmap
panes     the neuron's card and the bench, as widgets
page      the pieces of HTML, what shows without a kernel among them
view      the widget that ties them together
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ..data.neurons import NeuronSet
from ..data.scores import NeuronScores
from ..errors import StudyError
from ..study.study import Study
from ..tasks.question import Task

if TYPE_CHECKING:
    from .view import Workbench

__all__ = ["explore"]


def explore(
    study_or_scores: Study | NeuronScores,
    *,
    model: Any = None,
    neurons: NeuronSet | Mapping[str, NeuronSet] | None = None,
    task: Task | None = None,
    questions: int = 200,
) -> Workbench:
    """An interactive view of a study, or of scores, in a notebook: heatmap, neuron cards, and a bench to switch neurons off.

        view = explore(run_study())
        view                                     # choose, click, ask
        view.selection                           # a NeuronSet: goes into ablate() and evaluate() as it is
        view.selection = neurons                 # and the other way round

    Args:
        study_or_scores: what `run_study` or `Study.load` returns, or what `score_neurons` returns.
        model: the loaded model that it was made with. The embedded toy is loaded when it is first needed; no other model ever is:
            without it the view shows what scores alone can show, and says so.
        neurons: further sets to choose from; the first is the one chosen at the start.
        task: the questions that cards show; the task that the scores come from, loaded by name, by default.
        questions: so many of them are read for the cards, spread evenly over countries. It costs a forward and backward pass each, once.

    Returns:
        The view, an ipywidgets box. Its state is plain data in traits that can be read, set and observed: `set_name`, `country`,
        `site`, `layer`, `neuron`, `selection`, `operation`, `question`, `labels`, `answers`.

    Raises:
        StudyError: something else than a study or scores, or the packages of the extra ``notebooks`` are missing.
        NeuronError, ScoreError: sets or a model of other shape than the scores.
    """
    if not isinstance(study_or_scores, (Study, NeuronScores)):
        raise StudyError(
            "explore() takes a Study (run_study, Study.load) or NeuronScores (score_neurons), "
            f"not an object of type {type(study_or_scores).__name__}"
        )
    missing = [name for name in ("ipywidgets", "anywidget") if find_spec(name) is None]
    if missing:
        raise StudyError(f"explore() needs {' and '.join(missing)}: pip install 'culnig-tl[notebooks]'")
    from .source import Source
    from .view import Workbench

    return Workbench(Source.of(study_or_scores, model=model, neurons=neurons, task=task, questions=questions))
