"""What a program does to a folder, seen change by change; and every state in which a kill could leave it.

A stop leaves the disk as it is: so one run is watched, and before each change (a file made, written, flushed,
renamed or removed, a folder made or removed) its folder is copied.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path


@dataclass
class Watch:
    """What is called before each change below a folder, and the paths that were changed outside of it."""

    folder: Path
    before: Callable[[str], None]
    changes: int = 0
    outside: list[str] = field(default_factory=list)
    busy: bool = False

    def see(self, what: str, path: object) -> None:
        if self.busy or not isinstance(path, (str, bytes, os.PathLike)):
            return
        real = os.path.realpath(os.fsdecode(path))
        if not Path(real).is_relative_to(os.path.realpath(self.folder)):
            self.outside.append(f"{what} {real}")
            return
        self.changes += 1
        self.busy = True
        try:
            self.before(what)
        finally:
            self.busy = False


watches: list[Watch] = []


def _audit(event: str, given: tuple) -> None:
    """Python tells of every change of a file before it makes it."""
    if not watches:
        return
    if event == "open" and isinstance(given[2], int) and given[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
        watches[-1].see("open", given[0])
    elif event in ("os.remove", "os.rmdir"):  # by a path, or by a name in an open folder
        folder = "" if given[1] == -1 else os.readlink(f"/proc/self/fd/{given[1]}")
        watches[-1].see(event, os.path.join(folder, os.fsdecode(given[0])))
    elif event in ("os.mkdir", "os.truncate", "os.chmod", "os.rename"):
        watches[-1].see(event, given[1] if event == "os.rename" else given[0])


@cache
def _listen() -> None:
    sys.addaudithook(_audit)  # which cannot be taken away again


@contextmanager
def watched(folder: Path, before: Callable[[str], None], monkeypatch) -> Iterator[Watch]:
    """Sees all changes; files are written in two halves, so that a stop in between leaves a torn one."""
    _listen()
    watch = Watch(folder, before)
    fsync, fdopen = os.fsync, os.fdopen

    class Torn:
        def __init__(self, stream):
            self.stream = stream

        def __getattr__(self, name):
            return getattr(self.stream, name)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.stream.close()

        def write(self, content):
            half = len(content) // 2
            self.stream.write(content[:half])
            self.stream.flush()
            watch.see("half a write", folder / "any")
            self.stream.write(content[half:])

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: (watch.see("fsync", folder / "any"), fsync(handle))[1])
        patch.setattr(os, "fdopen", lambda *given, **how: _torn(Torn, fdopen(*given, **how), given))
        watches.append(watch)
        try:
            yield watch
        finally:
            watches.remove(watch)


def _torn(kind, stream, given):
    return kind(stream) if given[1:] == ("wb",) else stream


def states(folder: Path, run: Callable[[], object], into: Path, monkeypatch) -> list[Path]:
    """Copies of the folder before each change that `run` makes to it, those that differ."""
    seen: dict[tuple, Path] = {}

    def copy(what: str) -> None:
        files = _all(folder)
        key = tuple(sorted(files.items()))
        if key not in seen:
            seen[key] = into / f"{len(seen):04} {what}"
            shutil.copytree(folder, seen[key], symlinks=True)

    with watched(folder, copy, monkeypatch) as watch:
        run()
    assert not watch.outside, watch.outside
    assert watch.changes >= len(seen)
    return list(seen.values())


def _all(folder: Path) -> dict[str, bytes | None]:
    return {
        path.relative_to(folder).as_posix(): None if path.is_dir() else path.read_bytes()
        for path in folder.rglob("*")
    }
