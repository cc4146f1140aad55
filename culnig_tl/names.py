"""Names of parts, sites, tasks, countries: what was meant by one that is not there, and which there are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from .errors import UnknownNameError

Value = TypeVar("Value")


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
