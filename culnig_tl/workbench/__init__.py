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

import html
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import StudyError

if TYPE_CHECKING:
    from ..data.neurons import NeuronSet
    from ..data.scores import NeuronScores
    from ..engine.models import HookedModel
    from ..study.study import Study
    from ..tasks.question import Task
    from .view import Workbench

__all__ = ["explore"]


def explore(
    study_or_scores: Study | NeuronScores | str | Path,
    *,
    control: NeuronScores | None = None,
    model: HookedModel | None = None,
    neurons: NeuronSet | Mapping[str, NeuronSet] | None = None,
    task: Task | None = None,
    questions: int = 200,
) -> Workbench:
    """An interactive view of a study or of scores: heatmap, neuron cards, and a bench to ablate neurons.

        view = explore("runs/toy")
        view                      # choose, click, ask
        view.selection            # a NeuronSet: goes into ablate() and evaluate() as it is
        view.selection = neurons  # and the other way round

    Args:
        study_or_scores: a study's folder, or the name of one that comes with the package; what `run_study` or
            `Study.load` returns; or what `score_neurons` returns. Of a folder, the scores and sets are read,
            which is quick, and not the answers.
        control: of scores: those of the control, which are subtracted. A study has its own.
        model: the loaded model that it was made with. The embedded toy is loaded when it is first needed; no
            other model ever is: without it the view shows what scores alone can show, and says so.
        neurons: more sets to choose from; the first is the one chosen at the start.
        task: the questions that cards show; by default the task that the scores come from, loaded by name.
        questions: how many of them are read for the cards, spread evenly over countries. Each costs a forward
            and a backward pass, once, in the background: what is asked meanwhile comes first.

    Scores of cloze questions are explored in that form and with their normalisation: questions are answered
    by their options' words, and `labels` and `answer_prefix` are ignored.

    Returns:
        The view, an ipywidgets box. Its state is plain data in traits that can be read, set and observed:
        `set_name`, `country`, `site`, `layer`, `neuron`, `selection`, `operation`, `question`, `labels`,
        `answers`.

    Raises:
        StudyError: neither a study nor scores, a folder without one, or the packages of the extra
            ``notebooks`` are missing.
        ModelError, NeuronError, ScoreError, TaskError: a model, sets or a control of another shape than the
            scores, a count below 1, questions in another form than those that were scored.
    """
    packages = {"ipywidgets": "ipywidgets", "anywidget": "anywidget", "PIL": "pillow"}
    missing = [package for name, package in packages.items() if find_spec(name) is None]
    if missing:
        raise StudyError(f"explore() needs {' and '.join(missing)}: pip install 'culnig-tl[notebooks]'")
    named = str(study_or_scores) if isinstance(study_or_scores, (str, Path)) else "the workbench"
    opened = _sign_of_life(f"opening {named} …")
    try:
        from ..data.scores import NeuronScores
        from ..study.study import Study
        from .source import Source
        from .view import Workbench

        given: Any = study_or_scores  # in a notebook nothing has checked its type
        if not isinstance(given, (Study, NeuronScores, str, Path)):
            raise StudyError(
                "explore() takes a study (its folder, or what run_study and Study.load return) or "
                f"NeuronScores (score_neurons), not an object of type {type(given).__name__}"
            )
        return Workbench(
            Source.of(
                study_or_scores,
                control=control,
                model=model,
                neurons=neurons,
                task=task,
                questions=questions,
            )
        )
    finally:
        opened()


def _sign_of_life(text: str) -> Callable[[], object]:
    """Says in a notebook, at once, what is going on: in a fresh kernel the libraries alone take seconds to
    import. Returns what takes the words away."""
    from_notebook = sys.modules.get("IPython")
    shell = from_notebook.get_ipython() if from_notebook is not None else None
    if getattr(shell, "kernel", None) is None:
        return lambda: None
    from IPython.display import HTML, display

    shown = display(HTML(f"<div>{html.escape(text)}</div>"), display_id=True)
    return (lambda: None) if shown is None else (lambda: shown.update(HTML("")))
