"""Processes that tests start, kill and wait for: forked ones, which have torch and a model already, and real
commands."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

LONGEST = 120.0


def forked(work: Callable[[], Any]) -> int:
    """Runs `work` in a forked process; returns its exit code, or minus the signal that ended it. 1 after an
    exception."""
    child = start(work)
    return finish(child)


def start(work: Callable[[], Any]) -> int:
    """Forks a process for `work`; returns its number."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except KeyboardInterrupt:
        os._exit(130)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def finish(child: int, timeout: float = LONGEST) -> int:
    """Waits for a forked process; one that hangs is killed and fails the test."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        number, status = os.waitpid(child, os.WNOHANG)
        if number:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    raise AssertionError(f"the process did not end within {timeout} s")


def kill_self() -> None:
    """As the kernel does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)


def counting(at: int, do: Callable[[], object]) -> Callable[[int], None]:
    """A progress bar that calls `do` when that many batches are done."""
    seen: list[int] = []

    def advance(count: int) -> None:
        if count:
            seen.append(count)
        if count and len(seen) == at:
            do()

    return advance


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        return place.getsockname()[1]


def together(count: int, work: Callable[[int], Any]) -> list[int]:
    """`work(rank)` in so many forked processes that are one gloo group; returns their exit codes."""
    import torch.distributed as dist

    port = free_port()

    def joined(rank: int) -> None:
        os.environ.update(
            RANK=str(rank),
            WORLD_SIZE=str(count),
            LOCAL_RANK=str(rank),
            LOCAL_WORLD_SIZE=str(count),
            MASTER_ADDR="127.0.0.1",
            MASTER_PORT=str(port),
        )
        from culnig_tl.engine.world import leave
        from culnig_tl.engine.world import start as join

        join()
        assert dist.get_world_size() == count
        work(rank)
        leave()

    children = [start(lambda rank=rank: joined(rank)) for rank in range(count)]
    return [finish(child) for child in children]


def command(*words: str, env: dict[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Starts ``culnig-tl`` as a real process."""
    given = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(env or {})}
    return subprocess.Popen(
        [sys.executable, "-m", "culnig_tl", *words],
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def torchrun(count: int, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
    """Starts ``torchrun -m culnig_tl`` with so many processes."""
    given = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", **(env or {})}
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={count}",
        "--master-port",
        str(free_port()),
    ]
    return subprocess.Popen(
        [*start, "-m", "culnig_tl", *words],
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[str], timeout: float = LONGEST) -> tuple[int, str, str]:
    """(exit code, what it printed, what it complained of); one that hangs is killed and fails the test."""
    try:
        printed, said = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise AssertionError(f"the command did not end within {timeout} s") from None
    return process.returncode, printed, said


def content(
    folder: Path, patterns: Sequence[str] = ("scores/*", "neurons/*", "results/*")
) -> dict[str, bytes]:
    """The bytes of a study's files, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
    }
