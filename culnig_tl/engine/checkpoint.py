"""Unfinished work on disk: a pass over questions that was killed goes on where it was, and ends in the same bytes.

A state holds the plan of batches, which of them ran, and what they have summed so far. It is written every so often (by time,
never in the middle of a batch), beside its place and renamed, so that a kill at any moment leaves the last whole one. Under
torchrun each process keeps its own. Whoever started the work removes the state once the result is stored.
"""

from __future__ import annotations

import json
import logging
import math
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
from ..errors import StudyError
from ..lock import locked
from .world import Ranks, ranks, sharded

log = logging.getLogger(__name__)

EVERY = 60.0
"""Seconds between two saves of a state."""
LONGEST_SHARE = 0.02
"""Of the time that saving may take: large states on slow disks are saved less often."""
_FORMAT = "culnig_tl state 1"

Part = tuple[int, int, int]
"""(batch, start, end): some questions of one batch of the plan; all of them unless memory ran out."""


@dataclass
class Ledger:
    """Which parts of a plan's batches ran in this process, and which wait."""

    waiting: deque[Part]
    ran: list[Part] = field(default_factory=list)
    limit: float = math.inf
    """Tokens that a batch may hold since memory ran out."""

    @classmethod
    def deal(cls, plan: Sequence[Sequence[int]], among: Ranks) -> Ledger:
        """A new ledger of this process's share: every so-manieth batch, so that all get long and short questions."""
        return cls(
            deque(
                (number, 0, len(batch))
                for number, batch in enumerate(plan)
                if number % among.count == among.rank
            )
        )

    @property
    def left(self) -> int:
        """Questions that wait."""
        return sum(end - start for _, start, end in self.waiting)


@dataclass
class Unfinished:
    """What a state holds."""

    plan: dict[str, Any]
    """How the pass is run: sizes of the batches in their order, kernels, padding."""
    ledger: Ledger
    tensors: dict[str, Tensor]
    """Sums so far, and what is known of each question that was asked."""


class Saving:
    """Where a pass over questions saves its state, and how often.

        saving = Saving("blend.state")
        scores = score_neurons(model, task, saving=saving)  # goes on from the state, if there is one of the same work
        scores.save("blend.safetensors")
        saving.remove()

    Args:
        path: the file; under torchrun each process adds its number.
        every: seconds between two saves; 0 saves after every batch.
        model: the model's `identity.model_identity`, where it is known already: for large models it takes a while.
        tokens_a_batch: for passes whose plan depends on free memory: take this many instead of looking, so that a study's
            later pieces are planned alike whenever they are started.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        every: float = EVERY,
        model: Mapping[str, Any] | None = None,
        tokens_a_batch: int | None = None,
    ) -> None:
        self.path, self.every, self.model, self.tokens_a_batch = Path(path), every, model, tokens_a_batch
        self.ranks = ranks()
        self._next = time.monotonic() + every
        self._stop: str | None = None
        self.written = False
        """Whether the state was saved after a batch."""

    @property
    def file(self) -> Path:
        """This process's file."""
        return self._file(self.ranks.rank, self.ranks.count)

    def _file(self, rank: int, count: int) -> Path:
        return self.path if count == 1 else self.path.with_name(f"{self.path.name}.{rank}-of-{count}")

    def read(self, work: Mapping[str, Any]) -> Unfinished | None:
        """The state of this work; None where there is none, or one of other work.

        Raises `StudyError` for a file that is no state, and for a state of this work by another number of processes.
        """
        others = [
            path
            for path in self._all()
            if path.name not in {self._file(r, self.ranks.count).name for r in range(self.ranks.count)}
        ]
        for path in others:
            if _read(path, work) is not None:
                count = path.name.rpartition("-of-")[2] if "-of-" in path.name else "1"
                raise StudyError(
                    f"{path} was left by a run of {count} process(es), this one has {self.ranks.count}: "
                    f"go on with as many (torchrun --nproc-per-node), or remove it to begin this piece again"
                )
        found = _read(self.file, work) if self.file.is_file() else None
        if found is not None:
            log.info("goes on from %s: %d batches are done", self.file, len(found.ledger.ran))
        return found

    def write(self, work: Mapping[str, Any], state: Unfinished) -> None:
        """Saves, whether it is due or not."""
        from safetensors.torch import save

        began = time.monotonic()
        ledger = {"waiting": list(state.ledger.waiting), "ran": state.ledger.ran}
        header = {"format": _FORMAT, "work": dict(work), "plan": state.plan, **ledger}
        header["limit"] = state.ledger.limit if math.isfinite(state.ledger.limit) else None
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in state.tensors.items()}
        io.write(self.file, save(tensors, metadata={"culnig_tl": json.dumps(header, ensure_ascii=False)}))
        ended = time.monotonic()
        self._next = ended + max(self.every, (ended - began) / LONGEST_SHARE if self.every else 0.0)

    @property
    def due(self) -> bool:
        """Whether it is time to save, or to stop. Looks at the clock alone."""
        return self.asked_to_stop or time.monotonic() >= self._next

    @property
    def asked_to_stop(self) -> bool:
        """Whether Ctrl-C or SIGTERM came meanwhile."""
        return self._stop is not None

    def stop_if_asked(self) -> None:
        """Raises `KeyboardInterrupt` where Ctrl-C or SIGTERM came while a batch ran; to be called when all is saved."""
        if self._stop is not None:
            raise KeyboardInterrupt(self._stop)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """While it lasts, Ctrl-C and SIGTERM wait for the batch that runs, so that its work is saved; a second Ctrl-C does not."""
        if threading.current_thread() is not threading.main_thread():  # only there may handlers be set
            yield
            return

        def note(number: int, frame: FrameType | None) -> None:
            if self._stop is not None and number == signal.SIGINT:
                raise KeyboardInterrupt
            self._stop = signal.Signals(number).name

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        heeded = {
            number: handler for number, handler in before.items() if handler not in (signal.SIG_IGN, None)
        }
        for number in heeded:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in heeded.items():
                signal.signal(number, handler)

    def remove(self) -> None:
        """Removes the state, of all processes."""
        for path in self._all():
            path.unlink(missing_ok=True)

    @classmethod
    @contextmanager
    def beside(cls, output: Path, *, resume: bool, every: float = EVERY) -> Iterator[Callable[[str], Saving]]:
        """For work whose result is one file: yields what gives a state for each of its passes, beside that file.

        While it lasts no other run may work on the same file; states are removed when it ends without an error. Raises
        `StudyError` where another run does.
        """
        among = ranks()
        made: list[Saving] = []

        def state(name: str) -> Saving:
            made.append(cls(output.with_name(f"{output.name}.{io.file_name(name)}.state"), every=every))
            if not resume and among.first:
                made[-1].remove()
            among.collect(None)  # no process reads a state that is being removed
            return made[-1]

        with ExitStack() as held:
            lock = output.with_name(f"{output.name}.lock")
            among.first_does(lambda: held.enter_context(locked(lock, str(output))))
            yield state
            if among.first:
                for saving in made:
                    saving.remove()

    def _all(self) -> list[Path]:
        if not self.path.parent.is_dir():
            return []
        own, start = self.path.name, f"{self.path.name}."
        return sorted(
            p
            for p in self.path.parent.iterdir()
            if p.name == own or (p.name.startswith(start) and "-of-" in p.name)
        )


class Course:
    """One pass over questions, gone on from where it was, and shared among the processes that work together.

    Args:
        work: what the pass is made of; a state of other work is not gone on from.
        saving: where its state is kept; None keeps none.
        decide: how the pass is run (JSON): "sizes" of the batches, and more; asked where no state says it. The first process's
            word counts.
        batches: from those sizes, the batches themselves.
        at_once: save the plan before the first batch: for plans that depend on free memory.
    """

    def __init__(
        self,
        work: Mapping[str, Any],
        saving: Saving | None,
        decide: Callable[[], dict[str, Any]],
        batches: Callable[[dict[str, Any]], list[list[int]]],
        *,
        at_once: bool = False,
    ) -> None:
        self.work, self.saving, self.ranks = work, saving, ranks()
        stored = saving.read(work) if saving is not None else None
        known = [
            plan
            for plan in self.ranks.collect(stored.plan if stored is not None else None)
            if plan is not None
        ]
        self.decided: dict[str, Any] = known[0] if known else self.ranks.share(decide())
        if stored is not None and stored.plan != self.decided:
            stored = None
        self.plan = batches(self.decided)
        self.ledger = stored.ledger if stored is not None else Ledger.deal(self.plan, self.ranks)
        self.tensors = stored.tensors if stored is not None else {}
        """What the state held: sums and answers so far."""
        if saving is not None and stored is None and at_once:
            saving.write(
                work, Unfinished(self.decided, self.ledger, {})
            )  # the plan is the study's from now on

    @contextmanager
    def saved(self, snapshot: Callable[[], dict[str, Tensor]]) -> Iterator[Callable[[], None]]:
        """Yields what is to be called after every batch; saves `snapshot()` when it is time, and when this process is done.

        `snapshot` raises where what it would save is not sound (NaN): the last state then stays.
        """
        saving = self.saving
        if saving is None:
            with sharded(self.ranks):
                yield lambda: None
            return

        def save() -> None:
            saving.write(self.work, Unfinished(self.decided, self.ledger, snapshot()))

        def after() -> None:
            if saving.due:
                save()
                saving.written = True
                saving.stop_if_asked()

        with saving.patient(), sharded(self.ranks):
            yield after
            # Others may take longer, or die; and what takes longer than a save apart is saved when it is done.
            if self.ranks.count > 1 or saving.asked_to_stop or saving.written:
                save()
                saving.stop_if_asked()

    def advancing(self, advance: Callable[[int], object]) -> Callable[[int], None]:
        """Moves a bar of all questions on by this process's share of them; what was done before counts at once."""
        if not self.ranks.first:
            return lambda count: None
        whole, done, shown = sum(map(len, self.plan)), 0, 0
        own = self.ledger.left + sum(end - start for _, start, end in self.ledger.ran)

        def on(count: int) -> None:
            nonlocal done, shown
            done += count
            target = whole * done // max(own, 1)
            advance(target - shown)
            shown = target

        on(own - self.ledger.left)
        return on

    def sizes(self) -> list[int]:
        """Sizes of the batches that were run, in the plan's order, of all processes."""
        ran = sorted(_part(part) for parts in self.ranks.collect(self.ledger.ran) for part in parts)
        return [end - start for _, start, end in ran]


def _read(path: Path, work: Mapping[str, Any]) -> Unfinished | None:
    """The file's state if it is of this work."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as stream:
            header = json.loads((stream.metadata() or {})["culnig_tl"])
            if header["format"] != _FORMAT:
                raise ValueError("written by another version")
            if header["work"] != json.loads(json.dumps(dict(work))):
                log.info("%s is of other work: not used", path)
                return None
            tensors = {name: stream.get_tensor(name) for name in stream.keys()}
        ledger = Ledger(
            deque(_part(part) for part in header["waiting"]),
            [_part(part) for part in header["ran"]],
            math.inf if header["limit"] is None else float(header["limit"]),
        )
        if not isinstance(header["plan"], dict):
            raise ValueError("it lacks the plan")
        return Unfinished(header["plan"], ledger, tensors)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise StudyError(
            f"{path} is no state that can be gone on from ({error}): remove it to begin this piece again"
        ) from error


def _part(part: Any) -> Part:
    number, start, end = (int(value) for value in part)
    if not 0 <= start < end or number < 0:
        raise ValueError(f"a part of a batch cannot be {part}")
    return number, start, end
