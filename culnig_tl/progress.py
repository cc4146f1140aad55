"""Progress bars: questions a second and time left, on everything over a few seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm.auto import tqdm


@contextmanager
def progress_bar(total: int, description: str, *, enabled: bool = True, unit: str = "question") -> Iterator[Callable[[int], object]]:
    """A bar that is advanced by calling what it yields; silent where it would be gone within a moment."""
    with tqdm(total=total, desc=description, unit=unit, disable=not enabled, delay=0.5, dynamic_ncols=True) as bar:
        yield bar.update
