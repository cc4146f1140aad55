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


class StudyBar:
    """One bar over all passes of a study, with the time left; what its parts count for is up to the caller.

    with StudyBar(total) as bar:
        advance = bar.stage("ask unchanged", 400.0)  # every question counts for 400
    """

    def __init__(self, total: float, *, enabled: bool = True) -> None:
        self._bar = tqdm(
            total=total,
            disable=not enabled,
            delay=0.5,
            dynamic_ncols=True,
            bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed} gone, {remaining} left",
        )

    def __enter__(self) -> StudyBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def total(self, total: float) -> None:
        """What there is to do was found to be more, or less."""
        self._bar.total = total
        self._bar.refresh()

    def stage(self, description: str, each: float) -> Advance:
        """The advance function of a pass in which every question counts for `each`."""
        bar = self._bar
        bar.set_description_str(description, refresh=False)
        return lambda count: bar.update(min(count * each, bar.total - bar.n))
