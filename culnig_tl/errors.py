"""Errors that a user can act on: each message says in one line what is wrong and what would be right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

Value = TypeVar("Value")


class CulnigError(Exception):
    """Base of the errors that are raised on purpose; the command line prints them and exits with 2."""


class FileError(CulnigError):
    """A file that is not what it should be: damaged, cut short, changed, of another program, or a link."""


class TaskError(CulnigError):
    """A task that is unknown, has bad rows, or cannot do what is asked of it."""


class ModelError(CulnigError):
    """A model that cannot be loaded, or lacks what is asked of it."""


class PromptError(CulnigError):
    """A question that cannot be turned into tokens, e.g. a label that is not one token."""


class ScoreError(CulnigError):
    """Scores that cannot be computed or combined."""


class NeuronError(CulnigError):
    """A set of neurons that is malformed or does not fit the model."""


class StudyError(CulnigError):
    """The folder or arguments of a study that cannot be used, or work that another process is doing."""


class UnknownNameError(StudyError, KeyError):
    """A name that a study has no part of; also a `KeyError`, which is what a dictionary raises."""

    __str__ = Exception.__str__  # that of KeyError puts the message in quotes


class MatchError(CulnigError):
    """Answers in words that cannot be compared, e.g. because a language's analyser is missing."""


class FineTuningError(CulnigError):
    """Modules that cannot be chosen, or a training run that cannot start or has failed."""


class Named(dict[str, Value]):
    """Parts by name. One that is not there raises `UnknownNameError`, which says which there are and what was
    meant.

    Args:
        what: what one part is called, e.g. "set of neurons".
    """

    def __init__(self, what: str, parts: Iterable[tuple[str, Value]] = ()) -> None:
        super().__init__(parts)
        self.what = what

    def __missing__(self, name: object) -> Value:
        raise UnknownNameError(f"no {self.what} {str(name)!r}{which(name, self)}")

    def __reduce__(self) -> tuple[type, tuple[str, list[tuple[str, Value]]]]:
        return Named, (self.what, list(self.items()))


def nearest(name: object, known: Iterable[object]) -> str | None:
    """The known name that an unknown one is most like, whatever its case; None where none is like it."""
    import difflib

    plain: dict[str, str] = {}
    for word in map(str, known):
        plain.setdefault(word.lower(), word)
    near = difflib.get_close_matches(str(name).lower(), plain, n=1, cutoff=0.5)
    return plain[near[0]] if near else None


def which(name: object, known: Iterable[object], there: str = "there are") -> str:
    """The end of a message about an unknown name: what was probably meant, and which names there are.

    which("Span", ["Spain", "Mexico"], "countries are")
    # ", did you mean 'Spain'? Countries are Spain, Mexico"
    """
    names = [str(word) for word in known]
    listed = f"{there} {', '.join(names) or 'none'}"
    near = nearest(name, names)
    if near is None:
        return f": {listed}"
    return f", did you mean {near!r}? {listed[:1].upper()}{listed[1:]}"
