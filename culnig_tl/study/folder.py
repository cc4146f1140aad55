"""The folder of a study: what it holds, what may be written, what is already done, and who is working in
it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from .. import io
from ..engine.world import World, world
from ..errors import StudyError
from ..io import locked
from ..version import __version__

log = logging.getLogger(__name__)

RECORD = "study.json"
STATE, PARTS, PLAN = "state", "parts", "plan"
"""Folders of unfinished work: states of passes, a setting's answers to single tasks, and lists of pieces for
a queue."""
WRITTEN = (
    "scores/*.safetensors",
    "neurons/*.parquet",
    "results/*.parquet",
    "figures/*.html",
    "report.html",
    f"{STATE}/*",
    f"{PARTS}/*/*.parquet",
    f"{PARTS}/*",
    f"{PLAN}/*.txt",
    RECORD,
)
"""Everything that a study writes."""


class StudyFolder:
    """Where a study is written; without a folder everything stays in memory.

    Under torchrun the first process writes and all processes read, so the folder must be one that they all
    see.
    """

    def __init__(self, folder: Path | None, config: Mapping[str, Any]) -> None:
        self.folder, self.config = folder, json.loads(json.dumps(config))
        self.world: World = world()
        self.resumed = False
        """Whether it held this study before."""
        self._replaces = False

    @contextmanager
    def opened(
        self, *, resume: bool = False, overwrite: bool = False, piece: str | None = None
    ) -> Iterator[None]:
        """Locks the folder for this run until the context is left.

        Args:
            resume: resume the study that it holds.
            overwrite: replace that study.
            piece: work on this piece of it alone, alongside runs that work on other pieces.

        Raises:
            StudyError: another run is working in it, or it holds another study or other files.
        """
        folder = self.folder
        if folder is None:
            yield
            return
        created = not folder.exists()
        with ExitStack() as held:
            self.world.on_first(lambda: self._lock(held, folder, piece))
            try:
                self.world.on_first(
                    lambda: self._check(
                        folder, resume=resume or piece is not None, overwrite=overwrite, alone=piece is None
                    )
                )
                self.resumed, self._replaces = self.world.broadcast([self.resumed, self._replaces])
                yield
            finally:
                held.close()
                if self.world.first and created and folder.is_dir() and not any(folder.iterdir()):
                    folder.rmdir()

    def _lock(self, held: ExitStack, folder: Path, piece: str | None) -> None:
        if folder.exists() and not folder.is_dir():
            raise StudyError(f"{folder} is a file: a study is written to a folder")
        held.enter_context(locked(folder / "study.lock", f"the study in {folder}", shared=piece is not None))
        if piece is not None:
            held.enter_context(
                locked(
                    folder / STATE / f"{io.file_name(piece)}.lock",
                    f"the piece {piece!r} of the study in {folder}",
                )
            )

    def _check(self, folder: Path, *, resume: bool, overwrite: bool, alone: bool) -> None:
        record = read_record(folder)
        if record is None:
            own = ("study.lock", STATE)
            if any(p.name not in own and (not p.is_dir() or any(p.iterdir())) for p in folder.iterdir()):
                raise StudyError(f"{folder} holds other things and no study: choose another --output-dir")
            return
        if resume:
            theirs = record["config"]
            differing = [name for name in self.config if self.config[name] != theirs.get(name)]
            if differing:
                name = differing[0]
                raise StudyError(
                    f"{folder} holds a study with {name} = {theirs.get(name)!r}, not {self.config[name]!r}:"
                    " choose another --output-dir"
                )
            self.resumed = True
            if alone:
                io.sweep(folder)
        elif not overwrite:
            raise StudyError(
                f"{folder} already holds a study of {record['config']['model']}: use --resume, --overwrite or"
                " another --output-dir"
            )
        else:
            self._replaces = True

    @staticmethod
    def _clear(folder: Path) -> None:
        """Removes what a study writes, and nothing else."""
        io.sweep(folder)
        for pattern in WRITTEN:
            for path in folder.glob(pattern):
                path.rmdir() if path.is_dir() else path.unlink()

    # ------------------------------------------------------------------------------------------------ writing

    def start(self, info: Mapping[str, Any]) -> None:
        """Writes `study.json`. A study that is replaced is removed only now, when nothing can refuse the new
        one any more."""
        folder = self.folder
        if folder is not None and self._replaces:
            self.world.on_first(lambda: self._clear(folder))
            self._replaces = False
        record = {"config": self.config, "info": info, "version": __version__}
        self.write(RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, once for all processes."""
        folder = self.folder
        if folder is not None:
            self.world.on_first(lambda: io.write(folder / name, content))

    def save(self, name: str, thing: Any) -> None:
        """Saves a set, scores or a result, once for all processes."""
        folder = self.folder
        if folder is not None:
            self.world.on_first(lambda: thing.save(folder / name))

    def state(self, piece: str) -> Path | None:
        """Where the state of an unfinished piece is kept; None without a folder."""
        return None if self.folder is None else self.folder / STATE / f"{io.file_name(piece)}.state"

    def tidy(self) -> None:
        """Removes what unfinished work left behind; called at the end of a study."""
        if self.folder is not None and self.world.first:
            for name in (STATE, PARTS):
                for path in [*sorted((self.folder / name).rglob("*"), reverse=True), self.folder / name]:
                    if path.is_dir():
                        path.rmdir()
                    else:
                        path.unlink(missing_ok=True)

    # ------------------------------------------------------------------------------------------------ reading

    def has(self, name: str) -> bool:
        """Whether the folder of a resumed study holds the file; the same answer in all processes."""
        return self.world.broadcast(
            self.resumed and self.folder is not None and (self.folder / name).is_file()
        )

    def load(self, name: str, kind: Any) -> Any:
        """What the file holds."""
        assert self.folder is not None
        return kind.load(self.folder / name)


def part_name(setting: str, task: str) -> str:
    """The file that keeps a setting's answers to one task until its other tasks have been asked."""
    return f"{PARTS}/{io.file_name(setting)}/{io.file_name(task)}.parquet"


def read_record(folder: Path) -> dict[str, Any] | None:
    """The contents of `study.json`; None where there is none. Raises `StudyError` where it cannot be read."""
    path = folder / RECORD
    if not path.is_file():
        return None
    return read_record_file(path)


def read_record_file(path: Path) -> dict[str, Any]:
    """The contents of a study's record. Raises `StudyError` where the file is missing or not one."""
    if not path.is_file():
        raise StudyError(f"no such record of a study: {path}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["config"]["model"], str) or not isinstance(record["info"]["tasks"], dict):
            raise ValueError("it lacks the model or the tasks")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StudyError(f"{path} is not a study's record: {error}") from error
    return record
