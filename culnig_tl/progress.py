"""Progress bars: questions per second and time left, for everything that takes more than a moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

Advance = Callable[[int], object]
"""Advances a bar by a number of questions."""


@contextmanager
def progress_bar(
    total: int, description: str, *, enabled: bool | Advance = True, unit: str = "question"
) -> Iterator[Advance]:
    """A bar that is advanced by calling what it yields; not shown if it is done within half a second.

    `enabled` may be the advance function of another bar, which is then used instead of a new one.
    """
    if callable(enabled):
        yield enabled
        return
    with tqdm(
        total=total, desc=description, unit=unit, disable=not enabled, delay=0.5, dynamic_ncols=True
    ) as bar:
        yield bar.update
