"""Unfinished work on disk: a pass over questions that was killed resumes where it was, and ends in the same
bytes.

A checkpoint holds the plan of batches, which of them ran, and what they have summed so far. It is written
every so often (by time, never in the middle of a batch) under a temporary name and renamed, so that a kill at
any moment leaves the last whole one. Under torchrun each process keeps its own. Whoever started the work
removes the checkpoint once the result is stored.
"""

from __future__ import annotations

import json
import logging
import math
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from torch import Tensor

from .. import io
from ..errors import FileError, StudyError
from ..io import locked
from .world import World, world

log = logging.getLogger(__name__)

SAVE_EVERY = 60.0
"""Seconds between two saves of a checkpoint."""
MOST_TIME_SAVING = 0.02
"""Share of the time that saving may take: large checkpoints on slow disks are saved less often."""
_FORMAT = "culnig_tl state 3"

Part = tuple[int, int, int]
"""(batch, start, end): some questions of one batch of the plan; all of them unless memory ran out."""


@dataclass
class BatchQueue:
    """Which parts of a plan's batches ran in this process, and which wait."""

    waiting: deque[Part]
    ran: list[Part] = field(default_factory=list)
    limit: float = math.inf
    """Most tokens in a batch since memory ran out."""

    @classmethod
    def deal(cls, plan: Sequence[Sequence[int]], among: World) -> BatchQueue:
        """A new queue of this process's share: every n-th batch for n processes, so that all get long and
        short questions."""
        mine = range(among.rank, len(plan), among.size)
        return cls(deque((number, 0, len(plan[number])) for number in mine))

    @property
    def left(self) -> int:
        """Questions that wait."""
        return sum(end - start for _, start, end in self.waiting)

    @property
    def done(self) -> int:
        """Questions that ran."""
        return sum(end - start for _, start, end in self.ran)


@dataclass
class Stored:
    """What a checkpoint holds."""

    decided: dict[str, Any]
    """How the pass is run: sizes of the batches in their order, kernels, padding."""
    queue: BatchQueue
    state: dict[str, Tensor]
    """Sums so far, and what is known of each question that was asked."""


class Checkpoint:
    """Where a pass over questions saves its state, and how often.

        scores = score_neurons(model, task, checkpoint="blend.state", resume=True)
        scores.save("blend.safetensors")
        Checkpoint("blend.state").remove()

    Passed as an object it always resumes, where the file holds the same work.

    Args:
        path: the file; under torchrun each process adds its number.
        every: seconds between two saves; 0 saves after every batch.
        model: the model's `identity.model_identity`, where it is known already: for large models it takes a
            while.
        tokens_per_batch: for passes whose plan depends on free memory: take this many instead of looking, so
            that a study's later pieces are planned alike whenever they are started.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        every: float = SAVE_EVERY,
        model: Mapping[str, Any] | None = None,
        tokens_per_batch: int | None = None,
    ) -> None:
        self.path, self.every, self.model, self.tokens_per_batch = Path(path), every, model, tokens_per_batch
        self.world = world()
        self._next = time.monotonic() + every
        self._signal: str | None = None
        self.written = False
        """Whether it was saved after a batch."""

    @classmethod
    def of(cls, where: str | Path | Checkpoint | None, *, resume: bool) -> Checkpoint | None:
        """What an argument `checkpoint` means: with a path, `resume` says whether an earlier state is used or
        removed."""
        if where is None or isinstance(where, Checkpoint):
            return where
        made = cls(where)
        if not resume:
            made.world.on_first(made.remove)
        return made

    def beneath(self, name: str) -> Checkpoint:
        """A checkpoint of its own for one of several passes of the same work."""
        path = self.path.with_name(f"{self.path.name}.pass-{io.file_name(name)}")
        return Checkpoint(path, every=self.every, model=self.model, tokens_per_batch=self.tokens_per_batch)

    @property
    def file(self) -> Path:
        """This process's file."""
        return self._file(self.world.rank, self.world.size)

    def _file(self, rank: int, size: int) -> Path:
        return self.path if size == 1 else self.path.with_name(f"{self.path.name}.{rank}-of-{size}")

    def read(self, work: Mapping[str, Any]) -> Stored | None:
        """What was stored of this work; None where there is nothing, or something of other work.

        Raises `FileError` for a file that is no checkpoint, and `StudyError` for one of this work by another
        number of processes.
        """
        mine = {self._file(rank, self.world.size).name for rank in range(self.world.size)}
        for path in (path for path in self._all(beneath=False) if path.name not in mine):
            if _read(path, work) is not None:
                count = path.name.rpartition("-of-")[2] if "-of-" in path.name else "1"
                raise StudyError(
                    f"{path} was left by a run of {count} process(es), this one has {self.world.size}: resume"
                    " with as many (torchrun --nproc-per-node), or remove the file to begin this piece again"
                )
        found = _read(self.file, work) if self.file.is_file() else None
        if found is not None:
            log.info("resumes from %s: %d batches are done", self.file, len(found.queue.ran))
        return found

    def write(self, work: Mapping[str, Any], stored: Stored) -> None:
        """Saves, whether it is due or not."""
        began = time.monotonic()
        queue = stored.queue
        header = {
            "format": _FORMAT,
            "work": dict(work),
            "decided": stored.decided,
            "waiting": list(queue.waiting),
            "ran": queue.ran,
            "limit": queue.limit if math.isfinite(queue.limit) else None,
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in stored.state.items()}
        io.write_tensors(self.file, tensors, header)
        ended = time.monotonic()
        self._next = ended + (max(self.every, (ended - began) / MOST_TIME_SAVING) if self.every else 0.0)

    @property
    def due(self) -> bool:
        """Whether it is time to save, or to stop. Looks at the clock alone."""
        return self.asked_to_stop or time.monotonic() >= self._next

    @property
    def asked_to_stop(self) -> bool:
        """Whether Ctrl-C or SIGTERM came meanwhile."""
        return self._signal is not None

    def stop_if_asked(self) -> None:
        """Raises `KeyboardInterrupt` where Ctrl-C or SIGTERM came while a batch ran; to be called when all is
        saved."""
        if self._signal is not None:
            raise KeyboardInterrupt(self._signal)

    @contextmanager
    def signals_deferred(self) -> Iterator[None]:
        """While it lasts, Ctrl-C and SIGTERM wait for the batch that runs, so that its work is saved; a
        second Ctrl-C does not."""
        if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            if self._signal is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._signal = signal.Signals(number).name

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        heeded = {n: handler for n, handler in before.items() if handler not in (signal.SIG_IGN, None)}
        for number in heeded:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in heeded.items():
                signal.signal(number, handler)

    def remove(self) -> None:
        """Removes the file, of all processes."""
        for path in self._all():
            path.unlink(missing_ok=True)

    @classmethod
    @contextmanager
    def beside(
        cls, output: Path, *, resume: bool, every: float = SAVE_EVERY
    ) -> Iterator[Callable[[str], Checkpoint]]:
        """For work whose result is one file: yields what gives a checkpoint for each of its passes, beside
        that file.

        While it lasts no other run may work on the same file; checkpoints are removed when it ends without an
        error. Raises `StudyError` where another run does.
        """
        among = world()
        made: list[Checkpoint] = []

        def checkpoint(name: str) -> Checkpoint:
            made.append(cls(output.with_name(f"{output.name}.{io.file_name(name)}.state"), every=every))
            if not resume:
                among.on_first(made[-1].remove)  # no process reads one that is being removed
            return made[-1]

        with ExitStack() as held:
            lock = output.with_name(f"{output.name}.lock")
            among.on_first(lambda: held.enter_context(locked(lock, str(output))))
            yield checkpoint
            if among.first:
                for one in made:
                    one.remove()

    def _all(self, *, beneath: bool = True) -> list[Path]:
        """This file, those of other processes and, where `beneath`, those of passes beneath it; nothing
        else's."""
        if not self.path.parent.is_dir():
            return []
        passes = r"(\.pass-[^.]+)?" if beneath else ""
        ours = re.compile(rf"{re.escape(self.path.name)}{passes}(\.\d+-of-\d+)?")
        return sorted(path for path in self.path.parent.iterdir() if ours.fullmatch(path.name))


def _read(path: Path, work: Mapping[str, Any]) -> Stored | None:
    """What the file holds, if it is of this work."""
    try:
        with io.reading(path, "unfinished work"), io.open_tensors(path, "pt") as (header, stream):
            if header["format"] != _FORMAT:
                raise ValueError("written by another version")
            if header["work"] != json.loads(json.dumps(dict(work))):
                log.info("%s is of other work: not used", path)
                return None
            queue = BatchQueue(
                deque(_part(part) for part in header["waiting"]),
                [_part(part) for part in header["ran"]],
                math.inf if header["limit"] is None else float(header["limit"]),
            )
            if not isinstance(header["decided"], dict):
                raise ValueError("it lacks the plan")
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}
            return Stored(header["decided"], queue, tensors)
    except FileError as error:
        raise FileError(f"{error}; remove it to begin this piece again") from error


def _part(part: Any) -> Part:
    number, start, end = (int(value) for value in part)
    if not 0 <= start < end or number < 0:
        raise ValueError(f"a part of a batch cannot be {part}")
    return number, start, end
