"""Several processes on one piece of work, as torchrun starts them: each takes a share of the batches, sums are added up.

    torchrun --nproc-per-node 4 -m culnig_tl run --model M

Gloo on the CPU, NCCL on GPUs (one a process). All processes walk through the same program; the first one alone writes and
prints. Alone, every function here does nothing. What the processes tell each other is tensors and JSON.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
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
SHARED = ("run", "score", "evaluate", "finetune")
"""Commands that several processes can share."""
POLITE = 5.0
"""Seconds for which the others let the first process speak."""
PATIENCE = timedelta(hours=24)
"""How long a process waits for the slowest; one that died is noticed at once."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that work together."""

    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """The one that writes and prints."""
        return self.rank == 0

    def add(self, tensor: Tensor) -> None:
        """The sum over all processes takes the tensor's place, in each of them."""
        if self.count > 1:
            import torch.distributed as dist

            together(lambda: dist.all_reduce(tensor))

    def collect(self, value: Any) -> list[Any]:
        """What each process gave, in their order; JSON."""
        if self.count == 1:
            return [value]
        import torch
        import torch.distributed as dist

        content = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        size = torch.tensor([len(content)])
        sizes = [torch.zeros_like(size) for _ in range(self.count)]
        together(lambda: dist.all_gather(sizes, size))
        longest = int(max(sizes))
        padded = torch.zeros(longest, dtype=torch.uint8)
        padded[: len(content)] = content
        rows = [torch.zeros_like(padded) for _ in range(self.count)]
        together(lambda: dist.all_gather(rows, padded))
        return [json.loads(bytes(row[: int(n)].tolist()).decode()) for row, n in zip(rows, sizes)]

    def share(self, value: T) -> T:
        """What the first process gave, in each of them; JSON."""
        return self.collect(value if self.first else None)[0]

    def first_does(self, work: Callable[[], Any]) -> None:
        """The first process does it, the others wait; an error that a user can act on is raised in all of them."""
        if self.count == 1:
            work()
            return
        failed: Exception | None = None
        if self.first:
            try:
                work()
            except (CulnigError, OSError) as error:
                failed = error
        message = self.share(None if failed is None else str(failed))
        if failed is not None:
            raise failed
        if message is not None:
            raise StudyError(message)


def ranks() -> Ranks:
    """This process among those of its group; alone where there is none."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        return Ranks(dist.get_rank(), dist.get_world_size())
    return Ranks()


def asked_for() -> int:
    """How many processes torchrun (or whatever sets WORLD_SIZE and RANK) has started."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def processes_here() -> int:
    """How many of them share this machine's memory."""
    return max(1, int(os.environ.get("LOCAL_WORLD_SIZE", "1"))) if asked_for() > 1 else 1


def start() -> Ranks:
    """Joins the group that torchrun's environment describes; does nothing where there is none, or where it was joined before.

    A group that is joined here is left when the program ends: Gloo's threads must be gone before the interpreter takes itself
    apart, or now and then one of them aborts a process whose work is done.

    Raises `StudyError` where the others cannot be reached.
    """
    import torch
    import torch.distributed as dist

    if asked_for() == 1 or dist.is_initialized():
        return ranks()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        backend = "cpu:gloo,cuda:nccl"
    else:
        backend = "gloo"
    try:
        dist.init_process_group(backend, timeout=PATIENCE)
        atexit.register(leave)
        ranks().collect(None)  # nobody goes on, or away, before all are connected
    except (RuntimeError, ValueError) as error:
        raise StudyError(
            f"the {asked_for()} processes cannot reach each other: {str(error).splitlines()[0]}"
        ) from error
    return ranks()


def prepare_console() -> None:
    """For the command line under torchrun: one process speaks, and commands that cannot be shared are refused."""
    from ..commands.options import err

    words = [word for word in sys.argv[1:] if not word.startswith("-")]
    if os.environ["RANK"] != "0":
        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # for as long as the process lasts
        err.quiet = True
    if words and words[0] not in SHARED:
        err.print(
            f"[bold red]Error:[/] torchrun can start {', '.join(SHARED)}; start `culnig-tl {words[0]}` alone",
            soft_wrap=True,
        )
        sys.exit(2)


def hold_back() -> None:
    """After an error: gives the first process time to say it, before torchrun sees that this one has ended and stops them all."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(POLITE)


def leave() -> None:
    """Leaves the group, if there is one."""
    import torch.distributed as dist

    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def together(work: Callable[[], Any]) -> None:
    """Does what needs all processes. Raises `LostProcess` where one of them is gone."""
    try:
        work()
    except RuntimeError as error:
        raise LostProcess(
            f"another process of this run has stopped (it says why above, or was killed): start all again with --resume "
            f"({str(error).strip().splitlines()[0][:120]})"
        ) from error


@contextmanager
def sharded(among: Ranks) -> Iterator[None]:
    """While it lasts, each process does something else: its errors are its own."""
    try:
        yield
    except CulnigError as error:
        if among.count == 1 or isinstance(error, OwnError):
            raise
        raise OwnError(f"{error} (in process {among.rank} of {among.count})") from error


class OwnError(CulnigError):
    """An error of one process alone: it is printed by whichever has it."""


class LostProcess(OwnError):
    """Another process is gone."""
