"""A thread in which the latest request wins, so that clicks never wait for work."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

log = logging.getLogger(__name__)

Show = Callable[[], object]
"""Puts a result on the screen."""
Job = Callable[[], Iterator[Show]]
"""Works in steps; each yields what shows the result so far."""


class Worker:
    """Runs jobs step by step in one thread. Of each kind only the latest counts: older ones are dropped.

    The job of the lowest rank goes first, also where another has begun: what was asked for by hand waits for
    one step of what is read in the background, never for all of it. Jobs of one rank take turns step by step.
    The thread ends when there is nothing to do.
    """

    def __init__(
        self, failed: Callable[[str, Exception], object], *, idle: Show, screen: AbstractContextManager[Any]
    ) -> None:
        """`failed` gets (kind, error) of a job that raised; `idle` is called when nothing is left to do.

        Both, and every show, run while `screen` (a lock) is held.
        """
        self._failed, self._idle, self._screen = failed, idle, screen
        self._changed = threading.Condition()
        self._jobs: dict[str, tuple[int, Iterator[Show]]] = {}
        """Kind -> (rank, job); of the lowest rank the first is next."""
        self._thread: threading.Thread | None = None

    @property
    def waiting(self) -> int:
        """Jobs that are not finished."""
        with self._changed:
            return len(self._jobs)

    def submit(self, kind: str, job: Job, rank: int = 0) -> None:
        """Runs a job before all of a higher rank; an unfinished one of the same kind is dropped."""
        with self._changed:
            self._jobs[kind] = rank, iter(job())  # a generator: nothing of it runs here
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="culnig-tl workbench", daemon=True)
                self._thread.start()

    def wait(self, timeout: float) -> bool:
        """Waits until nothing is left to do; False if that took longer than `timeout` seconds."""
        with self._changed:
            return self._changed.wait_for(lambda: self._thread is None, max(0.0, timeout))

    def _run(self) -> None:
        while True:
            with self._changed:
                kind = min(self._jobs, key=lambda kind: self._jobs[kind][0], default=None)
                rank, job = self._jobs[kind] if kind is not None else (0, None)
            if kind is not None and job is not None:
                self._step(kind, rank, job)
                continue
            self._guard("idle", self._idle)  # not under the lock: it waits for the screen's
            with self._changed:
                if not self._jobs:
                    self._thread = None
                    self._changed.notify_all()
                    return

    def _step(self, kind: str, rank: int, job: Iterator[Show]) -> None:
        """One step of a job; its result goes on the screen unless a newer job of the kind has come."""
        show: Show | None = None
        error: Exception | None = None
        try:
            show = next(job, None)
        except Exception as caught:  # whatever a model or tokenizer raises: shown in words, logged in full
            error = caught
        with self._changed:
            if self._jobs.get(kind) != (rank, job):
                return
            del self._jobs[kind]
            if show is not None:
                self._jobs[kind] = rank, job  # to the end of the queue
        if error is not None:
            log.debug("%s failed", kind, exc_info=error)
            self._guard(kind, lambda: self._failed(kind, error))
        elif show is not None:
            self._guard(kind, show)

    def _guard(self, kind: str, show: Show) -> None:
        """The thread outlives a screen that fails, such as a closed view."""
        try:
            with self._screen:
                show()
        except Exception:
            log.warning("%s could not be shown", kind, exc_info=True)
