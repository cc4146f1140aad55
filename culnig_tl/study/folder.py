"""The folder of a study: what it holds, what may be written, what is already done, and who is working in
it."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, get_args

from .. import io
from ..data.neurons import Site
from ..engine.world import World, world
from ..errors import FileError, StudyError
from ..io import locked
from ..tasks.question import Form
from ..version import __version__
from .config import check_config, config_from

log = logging.getLogger(__name__)

RECORD = "study.json"
LOCK = "study.lock"
STATE, PARTS, PLAN = "state", "parts", "plan"
"""Folders of unfinished work: states of passes, a setting's answers to single tasks, and lists of pieces for
a queue."""
FOLDERS = ("scores", "neurons", "results", "figures", STATE, PARTS, PLAN)
"""Folders that a study makes in its own."""
_SET = r"(culture-general|culture-specific|rival|random( by layer)? \d+)"
_OWN = re.compile(
    "|".join(
        (
            r"study\.(json|lock)",
            r"(report|figures/[^/]+)\.html",
            r"figures/plotly\.min\.js",
            r"scores/(neuron|control|reading|rival)\.safetensors",
            rf"neurons/{_SET}\.parquet",
            rf"results/(unchanged|{_SET})\.parquet",
            rf"{STATE}/(score|ask) [^/]+\.(lock|state(\.pass-[^/.]+)?(\.\d+-of-\d+)?)",
            rf"{PARTS}/(model\.json|(unchanged|{_SET})/[^/]+\.parquet)",
            rf"{PLAN}/(1-first|2-then|3-last|missing)\.txt",
        )
    )
)
"""Names of everything that a study writes."""


def own_files(folder: Path) -> list[Path]:
    """The files in a folder that a study wrote there, its record last, and none of anybody else's: by their
    names, and pages by what they say of themselves. Half-written ones of killed processes are among them.

    Raises `FileError` where one of its names is a link: what is behind it is not the study's.
    """
    found: list[Path] = []
    for parent, folders, files in os.walk(folder):  # which follows no links
        for path in (Path(parent, name) for name in (*folders, *files)):
            name = (io.written_as(path) or path).relative_to(folder)
            if path.is_symlink():
                if name.parts[0] in FOLDERS or _OWN.fullmatch(name.as_posix()):
                    io.inside(folder, path.relative_to(folder))
            elif path.is_file() and _OWN.fullmatch(name.as_posix()):
                if path.suffix != ".html" or io.is_own_page(path):
                    found.append(path)
    return sorted(found, key=lambda path: path.name == RECORD)


def _remove(folder: Path, files: Iterable[Path]) -> None:
    """Removes files of a study, in this order, and the folders of its own that are empty then."""
    for path in files:
        path.unlink(missing_ok=True)
    for name in FOLDERS:
        for place, _, _ in os.walk(folder / name, topdown=False):
            if not os.listdir(place):
                os.rmdir(place)


class StudyFolder:
    """Where a study is written; without a folder everything stays in memory.

    Nothing outside the folder is written or removed, and nothing in it that a study did not write. Under
    torchrun the first process writes and all processes read, so the folder must be one that they all see.
    """

    def __init__(self, folder: Path | None, config: Mapping[str, Any]) -> None:
        self.folder, self.config = folder, json.loads(json.dumps(config))
        self.world: World = world()
        self.resumed = False
        """Whether it held this study before."""
        self._replaces = False
        self._is: os.stat_result | None = None
        """The folder that was opened, whatever lies at its path later."""

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
            StudyError: another run is working in it, it holds another study or other files, or it is a link.
        """
        folder = self.folder
        if folder is None:
            yield
            return
        created = not folder.exists()
        with ExitStack() as held:
            self.world.on_first(lambda: self._lock(held, folder, piece))
            self._is = folder.stat()
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
        if folder.is_symlink():
            raise StudyError(f"{folder} is a link: give the folder that it leads to, {folder.resolve()}")
        if folder.exists() and not folder.is_dir():
            raise StudyError(f"{folder} is a file: a study is written to a folder")
        held.enter_context(locked(folder / LOCK, f"the study in {folder}", shared=piece is not None))
        if piece is not None:
            lock = io.inside(folder, f"{STATE}/{io.file_name(piece)}.lock")
            held.enter_context(locked(lock, f"the piece {piece!r} of the study in {folder}"))

    def _check(self, folder: Path, *, resume: bool, overwrite: bool, alone: bool) -> None:
        own = own_files(folder)
        record = read_record(folder)
        if record is None:
            there = {path for path in folder.rglob("*") if path.is_symlink() or not path.is_dir()}
            if there - {path for path in own if path.suffix in (".lock", io.TEMPORARY)}:
                raise StudyError(f"{folder} holds other things and no study: choose another --output-dir")
            self._sweep(own)
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
                self._sweep(own)
        elif not overwrite:
            raise StudyError(
                f"{folder} already holds a study of {record['config']['model']}: use --resume, --overwrite or"
                " another --output-dir"
            )
        else:
            self._replaces = True

    @staticmethod
    def _sweep(own: Iterable[Path]) -> None:
        """Removes half-written files of killed processes. Nobody else may be writing there."""
        for path in own:
            if path.suffix == io.TEMPORARY:
                path.unlink(missing_ok=True)

    def at(self, name: str) -> Path:
        """The path of a file in the folder. Raises `StudyError` where the folder is not there any more, and
        `FileError` where a link leads out of it."""
        folder = self.folder
        assert folder is not None
        try:
            same = self._is is None or os.path.samestat(folder.lstat(), self._is)
        except OSError:
            same = False
        if not same:
            raise StudyError(f"{folder} was removed or replaced while the study ran: nothing more is written")
        return io.inside(folder, name)

    # ------------------------------------------------------------------------------------------------ writing

    def start(self, info: Mapping[str, Any]) -> None:
        """Writes `study.json`. A study that is replaced is removed only now, when nothing can refuse the new
        one any more."""
        folder = self.folder
        if folder is not None and self._replaces:
            self.world.on_first(lambda: _remove(folder, [p for p in own_files(folder) if p.name != LOCK]))
            self._replaces = False
        record = {"config": self.config, "info": info, "version": __version__}
        self.write(RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())

    def write(self, name: str, content: bytes) -> None:
        """Writes a file, once for all processes."""
        if self.folder is not None:
            self.world.on_first(lambda: io.write(self.at(name), content))

    def save(self, name: str, thing: Any) -> None:
        """Saves a set, scores or a result, once for all processes."""
        if self.folder is not None:
            self.world.on_first(lambda: thing.save(self.at(name)))

    def state(self, piece: str) -> Path | None:
        """Where the state of an unfinished piece is kept; None without a folder."""
        return None if self.folder is None else self.at(f"{STATE}/{io.file_name(piece)}.state")

    def remove(self, name: str) -> None:
        """Removes one file of the study, where it is there."""
        self.world.on_first(lambda: self.at(name).unlink(missing_ok=True))

    def finish(self, names: Iterable[str]) -> None:
        """Removes what unfinished work left behind; called at the end of a study, which is to have left these
        files. Raises `StudyError` where one of them is not there."""
        folder = self.folder
        if folder is None or not self.world.first:
            return
        missing = [name for name in names if not self.at(name).is_file()]
        if missing:
            raise StudyError(
                f"{folder / missing[0]} is not there any more, {len(missing)} files of the study are missing:"
                " --resume makes them again"
            )
        unfinished = [p for p in own_files(folder) if p.relative_to(folder).parts[0] in (STATE, PARTS)]
        _remove(folder, unfinished)

    # ------------------------------------------------------------------------------------------------ reading

    def has(self, name: str) -> bool:
        """Whether the folder of a resumed study holds the file; the same answer in all processes."""
        return self.world.broadcast(self.resumed and self.folder is not None and self.at(name).is_file())

    def load(self, name: str, kind: Any) -> Any:
        """What the file holds."""
        try:
            return kind.load(self.at(name))
        except FileError as error:
            raise FileError(f"{error}; remove it, and --resume makes it again") from error


def part_name(setting: str, task: str) -> str:
    """The file that keeps a setting's answers to one task until its other tasks have been asked."""
    return f"{PARTS}/{io.file_name(setting)}/{io.file_name(task)}.parquet"


def read_record(folder: Path) -> dict[str, Any] | None:
    """The contents of `study.json`; None where there is none. Raises `FileError` where it cannot be read."""
    path = folder / RECORD
    return read_record_file(path) if path.is_file() else None


def read_record_file(path: Path) -> dict[str, Any]:
    """The contents of a study's record. Raises `FileError` where the file is missing or not one."""
    with io.reading(path, "a record of a study"):
        if path.stat().st_size > _LARGEST_RECORD:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        record = json.loads(path.read_text(encoding="utf-8"))
        check_config(config_from(record["config"]))
        check_info(record["info"])
    return record


_LARGEST_RECORD = 100_000_000
_MOST_LAYERS, _MOST_NEURONS = 10_000, 10_000_000
"""More than any model has: what is drawn takes memory by these numbers."""


def check_info(info: Mapping[str, Any]) -> None:
    """Raises `ValueError`, or what comes of another type, where it is not what `run.pipeline` wrote."""
    for name, task in info["tasks"].items():
        if not isinstance(task["culture"], bool) or not isinstance(task["fingerprint"], str):
            raise ValueError(f"it does not say what task {name!r} is")
    for task in info.get("scored", {}).values():
        if not isinstance(task["fingerprint"], str):
            raise ValueError("it does not say what was scored")
    if info.get("form", {}).get("form", "letters") not in get_args(Form):
        raise ValueError("it does not say in which form questions were asked")
    if "layers" in info and not 0 < int(info["layers"]) <= _MOST_LAYERS:
        raise ValueError(f"a model cannot have {info['layers']} layers")
    for site, width in info.get("widths", {}).items():
        if not 0 < int(width) <= _MOST_NEURONS:
            raise ValueError(f"{Site.parse(site)} cannot have {width} neurons")
    for name in ("versions", "identity"):
        if not isinstance(info.get(name) or {}, dict):
            raise ValueError(f"its {name} are none")
