"""Progress bars: questions a second and time left, on everything over a few seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm

Advance = Callable[[int], object]
"""Moves a bar on by so many questions."""


@contextmanager
def progress_bar(
    total: int, description: str, *, enabled: bool | Advance = True, unit: str = "question"
) -> Iterator[Advance]:
    """A bar that is advanced by calling what it yields; silent where it would be gone within a moment.

    `enabled` may be the advance function of a bar that already stands: then that one goes on.
    """
    if callable(enabled):
        yield enabled
        return
    with tqdm(
        total=total, desc=description, unit=unit, disable=not enabled, delay=0.5, dynamic_ncols=True
    ) as bar:
        yield bar.update
