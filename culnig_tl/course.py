"""What the notebooks of the course share: a model with questions for it, predictions, and exercises that
check themselves.

    lesson = start()                     # says which model it is, and why
    guess = predict("How many points will be lost?", said=5)
    guess.compare(measured)
    ex1 = Exercise("1", right=lambda: ..., mistakes=lambda: [(wrong, "what was forgotten")])
    ex1(mine)

Nothing here computes anything about neurons: whatever a notebook shows, it does with the public names.
"""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from .defaults import TOP_ATTN, TOP_MLP, TOP_SPECIFIC, TOY
from .engine.loading import CAUSES, cache_where_offline, pretrained
from .engine.models import describe, load_model
from .errors import CulnigError
from .figures.prompts import plain_text
from .io import first_line
from .tasks import Task, load_task
from .tasks.question import Form

REAL = "HuggingFaceTB/SmolLM2-135M"
"""The model of the course where the Hub can be reached or has been: small enough for a laptop."""
CHOICE = "CULNIG_COURSE_MODEL"
"""Environment variable that names another model for all notebooks: "toy", a Hub id, a folder, a GGUF file."""
What = Literal["culture", "reading", "other"]
TASKS: Mapping[bool, Mapping[What, str]] = {
    True: {"culture": "miniculture", "reading": "minireading", "other": "minicommonsense"},
    False: {"culture": "blend", "reading": "countryrc", "other": "commonsenseqa"},
}
"""Whether the model is the toy -> what is asked: about cultures, about a text that names a country, about
neither."""
SHARES = {"top_mlp": 0.05, "top_attn": 0.01}
"""Shares of the toy's neurons that are candidates; of a real model the paper's."""
TOY_SPECIFIC = 0.02


@dataclass(frozen=True)
class Lesson:
    """The model that a notebook uses, and where its questions come from."""

    model: Any
    """What `load_model` returns."""
    name: str
    toy: bool
    form: Form
    """How the questions of a real model are asked: small base models cannot answer with a letter."""

    def name_of(self, what: What) -> str:
        """The task that is asked."""
        return TASKS[self.toy][what]

    def task(self, what: What, split: Literal["neuron", "test"], *, toy: int, real: int) -> Task:
        """So many questions of a task: of the toy, which is quick, more than of a real model.

        Raises:
            TaskError: the data set cannot be had.
        """
        return load_task(self.name_of(what), form=self.form, split=split, limit=toy if self.toy else real)

    @property
    def shares(self) -> dict[str, float]:
        """Thresholds of `select_general`: for 3,840 neurons 5% and 1%; of larger models the paper's."""
        return dict(SHARES) if self.toy else {"top_mlp": TOP_MLP, "top_attn": TOP_ATTN}

    @property
    def top_specific(self) -> float:
        """Threshold of `select_specific`."""
        return TOY_SPECIFIC if self.toy else TOP_SPECIFIC

    def claim(self, holds: bool, text: str) -> None:
        """Prints whether a sentence of the notebook holds. Of the toy it has to; a real model may say no.

        Raises:
            AssertionError: it does not hold of the toy.
        """
        print("holds:" if holds else "does NOT hold:", text)
        assert holds or not self.toy, text


def start(model: str | None = None, *, form: Form | None = None) -> Lesson:
    """Loads the model of a notebook and prints which it is and why.

    That is `model`; or what the environment variable CULNIG_COURSE_MODEL names; or SmolLM2-135M with the
    questions of BLEnD, CountryRC and CommonsenseQA, where the Hub can be reached or all of it is in the
    cache; or the embedded toy.

    Args:
        form: "letters" or "cloze"; by default letters for the toy, which was trained on them, and cloze for
            every other model.

    Raises:
        ModelError: a model that was asked for by name cannot be had.
    """
    name, why = model or os.environ.get(CHOICE, ""), "as you asked"
    if not name:
        missing = _missing()
        name, why = (TOY, f"because the real model cannot be had here: {missing}") if missing else (REAL, "")
    toy = name == TOY
    found = load_model(name)
    asked: Form = form or ("letters" if toy else "cloze")
    tasks = ", ".join(TASKS[toy].values())
    print(f"This notebook uses {'the toy' if toy else name}{', ' + why if why else ''}.")
    if toy:
        print("A toy shows how the method works. It is no evidence about large models.")
    print(f"Questions: {tasks}, answered {'with a letter' if asked == 'letters' else 'in words (cloze)'}.")
    print(describe(found))
    return Lesson(found, name, toy, asked)


def _missing() -> str:
    """Why the real model or its questions cannot be had, in one line; "" where they can."""
    from transformers import AutoConfig

    try:
        pretrained(AutoConfig, REAL)
        with cache_where_offline():  # a Hub that does not answer is not asked again and again
            for name in TASKS[False].values():
                load_task(name, form="cloze", limit=1)
    except (CulnigError, *CAUSES) as error:
        return first_line(error)
    return ""


@dataclass(frozen=True)
class Prediction:
    """A number that was written down before it was measured."""

    question: str
    said: float | None
    unit: str

    def compare(self, measured: float) -> None:
        """Prints the prediction beside what was measured."""
        unit = f" {self.unit}" if self.unit else ""
        print(f"{self.question} Measured: {_short(measured)}{unit}.", end=" ")
        if self.said is None:
            print("You made no prediction: next time, write one down first.")
            return
        off = measured - self.said
        if abs(off) <= 0.1 * abs(measured):
            print(f"You said {_short(self.said)}: close.")
        else:
            print(f"You said {_short(self.said)}, {_short(abs(off))} too {'low' if off > 0 else 'high'}.")


def predict(question: str, said: float | None = None, *, unit: str = "") -> Prediction:
    """Keeps a number that a reader writes in place of None, to be compared with what is then measured."""
    return Prediction(question, said, unit)


class Exercise:
    """An exercise that says whether an answer is right, and if not, what is wrong.

    Args:
        number: what the notebook calls it.
        right: gives the right answer: a number, an array, a text, or a set. It is a function because the
            notebook has not computed it yet.
        mistakes: gives (wrong answer, what is wrong with it), for mistakes that are often made.
        use: applied to the answer first, where that is a function that the reader writes.
        tolerance: relative, of numbers.
    """

    def __init__(
        self,
        number: str,
        right: Callable[[], Any],
        *,
        mistakes: Callable[[], Iterable[tuple[Any, str]]] = lambda: (),
        use: Callable[[Any], Any] = lambda answer: answer,
        tolerance: float = 1e-3,
    ) -> None:
        self.number, self.right, self.mistakes, self.use = number, right, mistakes, use
        self.tolerance, self.solved = tolerance, False

    def __call__(self, answer: Any) -> None:
        """Prints what is to be said of an answer; None is no answer yet. `solved` keeps if it is right."""
        said = "still to do" if answer is None else self._wrong(answer)
        self.solved = not said
        print(f"Exercise {self.number}: {said or 'right'}.")

    def _wrong(self, answer: Any) -> str:
        try:
            given = self.use(answer)
        except Exception as error:  # the reader's own code
            return f"not yet: your code raised {type(error).__name__}: {first_line(error)}"
        if given is None:
            return "not yet: your function returns None; is there a return?"
        right = self.right()
        if self._same(given, right):
            return ""
        for wrong, why in self.mistakes():
            if self._same(given, wrong):
                return f"not yet: {why}"
        return f"not yet: {_difference(given, right)}"

    def _same(self, given: Any, right: Any) -> bool:
        if isinstance(right, str):
            return str(given).strip().lower() == right.lower()
        if isinstance(right, Set):
            return isinstance(given, Iterable) and set(given) == right
        given, right = _array(given), _array(right)
        if given is None or right is None or given.shape != right.shape:
            return False
        scale = self.tolerance * float(np.abs(right).max(initial=0.0))
        return bool(np.allclose(given, right, rtol=self.tolerance, atol=max(1e-3 * scale, 1e-9)))


def _difference(given: Any, right: Any) -> str:
    """What is wrong with an answer, without giving the right one away."""
    if isinstance(right, str):
        return f"{given!r} is not the one"
    if isinstance(right, Set):
        if not isinstance(given, Iterable):
            return f"a set is wanted, this is of type {type(given).__name__}"
        given = set(given)
        return f"{len(right - given)} are missing, {len(given - right)} do not belong there"
    found, wanted = _array(given), _array(right)
    if found is None or wanted is None:
        return f"{'a number' if np.ndim(right) == 0 else 'an array'} is wanted, not {type(given).__name__}"
    if found.shape != wanted.shape:
        return f"the shape is {found.shape}, it should be {wanted.shape}"
    if found.ndim == 0:
        if float(found) * float(wanted) < 0:
            return f"{_short(float(found))} has the wrong sign"
        return f"{_short(float(found))} is too {'low' if found < wanted else 'high'}"
    apart = ~np.isclose(found, wanted, rtol=1e-3, atol=1e-3 * float(np.abs(wanted).max(initial=0.0)))
    at = ", ".join(map(str, np.argwhere(apart)[0])) if apart.any() else "several places"
    return f"{int(apart.sum()):,} of {apart.size:,} values are off, the first at [{at}]"


def _array(value: Any) -> np.ndarray | None:
    """Numbers as an array of float64; None for anything else."""
    if hasattr(value, "detach"):
        value = value.detach().cpu().float().numpy()
    try:
        return np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        return None


def _short(value: float) -> str:
    return f"{float(value):.3g}".replace("-", "−")


def coloured(tokens: Sequence[str], values: Sequence[float]) -> Any:
    """A prompt whose tokens are coloured by one number each, for Jupyter: red pushes the right answer, blue
    works against it, as in `token_heatmap`; the strongest token has the full colour."""
    from IPython.display import HTML

    reach = max(map(abs, values), default=0.0) or 1.0
    spans = [
        f'<span title="{value:+.4f}" style="background:rgba({"178,24,43" if value > 0 else "33,102,172"},'
        f'{abs(value) / reach:.2f});color:{"#fff" if abs(value) > 0.55 * reach else "inherit"}">'
        f"{html.escape(text)}</span>"
        for text, value in zip(plain_text(tokens), values)
    ]
    return HTML(f'<p style="line-height:1.9;max-width:60em">{"".join(spans)}</p>')
