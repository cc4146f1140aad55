"""Several processes on one piece of work, as torchrun starts them: each takes a share of the batches, sums
are added up.

    torchrun --nproc-per-node 4 -m culnig_tl run --model M

Gloo on the CPU, NCCL on GPUs (one per process). All processes walk through the same program; the first one
alone writes and prints. In a single process every function here does nothing. What the processes tell each
other is tensors and, pickled by torch.distributed, values of their own making: nothing that came from a file
or a network is unpickled.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import CulnigError, StudyError

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
SPEAKING_TIME = 5.0
"""Seconds for which the other processes wait with their end, so that the first one can say what went
wrong."""
TIMEOUT = timedelta(hours=24)
"""How long a process waits for the slowest; one that died is noticed at once."""


@dataclass(frozen=True)
class World:
    """This process among those that work together."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """The one that writes and prints."""
        return self.rank == 0

    def all_reduce(self, tensor: Tensor) -> None:
        """Replaces the tensor, in every process, by its sum over all of them."""
        if self.size > 1:
            import torch.distributed as dist

            shared(lambda: dist.all_reduce(tensor))

    def gather(self, value: Any) -> list[Any]:
        """What each process gave, by rank; in every process."""
        if self.size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.size
        shared(lambda: dist.all_gather_object(values, value))
        return values

    def broadcast(self, value: T) -> T:
        """What the first process gave; in every process."""
        return self.gather(value if self.first else None)[0]

    def on_first(self, work: Callable[[], Any]) -> None:
        """The first process does it, the others wait; an error that a user can act on is raised in all of
        them."""
        failed: Exception | None = None
        if self.first:
            try:
                work()
            except (CulnigError, OSError) as error:
                if self.size == 1:
                    raise
                failed = error
        message = self.broadcast(None if failed is None else str(failed))
        if failed is not None:
            raise failed
        if message is not None:
            raise StudyError(message)


def world() -> World:
    """This process among those of its group; a world of one where there is no group."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return World()


def launched() -> int:
    """How many processes torchrun (or whatever sets WORLD_SIZE and RANK) has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def processes_here() -> int:
    """How many of them share this machine's memory."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) if launched() > 1 else 1


def start() -> World:
    """Joins the group that torchrun's environment describes; does nothing where there is none, or where it
    was joined before.

    A group that is joined here is left when the program ends: Gloo's threads must be gone before the
    interpreter is torn down, or occasionally one of them aborts a process whose work is done.

    Raises `StudyError` where the other processes cannot be reached.
    """
    import torch
    import torch.distributed as dist

    if launched() == 1 or dist.is_initialized():
        return world()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    else:
        backend = "gloo"
    try:
        dist.init_process_group(backend, timeout=TIMEOUT)
        atexit.register(leave)
        world().gather(None)  # nobody goes on, or away, before all are connected
    except (RuntimeError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise StudyError(f"the {launched()} processes cannot reach each other: {first}") from error
    return world()


def hold_back() -> None:
    """After an error: gives the first process time to report it before torchrun notices this one's end and
    stops them all."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(SPEAKING_TIME)


def leave() -> None:
    """Leaves the group, if there is one."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def shared(work: Callable[[], Any]) -> None:
    """Does what needs all processes. Raises `LostProcess` where one of them is gone."""
    try:
        work()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[0][:120]
        raise LostProcess(
            "another process of this run has stopped (it says why above, or was killed): "
            f"start all again with --resume ({reason})"
        ) from error


@contextmanager
def apart(among: World) -> Iterator[None]:
    """While it lasts, each process works on its own share: its errors are its own."""
    try:
        yield
    except CulnigError as error:
        if among.size == 1 or isinstance(error, OwnError):
            raise
        raise OwnError(f"{error} (in process {among.rank} of {among.size})") from error


class OwnError(CulnigError):
    """An error of one process alone: it is printed by whichever has it."""


class LostProcess(OwnError):
    """Another process is gone."""
