"""Which form a model can answer in: by a label, or by the likelihood of the options' words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from ..engine.models import HookedModel
from ..errors import TaskError
from ..progress import Advance
from ..tasks.question import Form, Task
from .evaluation import evaluate

PER_COUNTRY = 24
"""Questions of each country that a form is tried on."""


@dataclass(frozen=True)
class FormChoice:
    """A form, and why."""

    form: Form
    why: str
    above_chance: dict[str, float]
    """Form -> accuracy less that of guessing, in points, with the model unchanged."""
    questions: int
    """That were tried."""

    def __str__(self) -> str:
        return f"form {self.form}: {self.why}"

    def to_dict(self) -> dict[str, Any]:
        """For `study.json`."""
        return asdict(self)


def choose_form(
    model: HookedModel,
    task: Task,
    *,
    cloze: Callable[[Task], Task] = Task.cloze,
    per_country: int = PER_COUNTRY,
    batch_size: int | str = "auto",
    progress: bool | Advance = True,
) -> FormChoice:
    """Tries both forms on a few questions of each country with the unchanged model, and takes the one further
    above chance; letters where they are equal.

    Args:
        task: in the form "letters", e.g. the neuron split of a culture task.
        cloze: puts it in the cloze form, in the words that are to be asked with.
    """
    letters = task.limit(per_country * max(1, len(task.countries)))
    try:
        in_words = cloze(letters)
    except TaskError as error:
        return FormChoice("letters", str(error), {}, 0)
    above = {}
    for asked in (letters, in_words):
        result = evaluate(model, asked, batch_size=batch_size, progress=progress)
        chance = sum(1 / len(q.options) for q in asked) / len(asked)
        above[asked.form] = float(result.accuracy(None)["accuracy"].iloc[0]) - 100 * chance
    form: Form = "cloze" if above["cloze"] > above["letters"] else "letters"
    why = (
        f"on {len(letters):,} questions of {task.name} the unchanged model is {above['letters']:+.1f} points"
        f" from chance by letters, {above['cloze']:+.1f} by the options' words"
    )
    return FormChoice(form, why, above, len(letters))
