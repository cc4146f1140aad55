"""The folder of a study: what stands there, what may be written, what is already done."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from . import __version__, files
from .errors import StudyError

log = logging.getLogger(__name__)

T = TypeVar("T")
WRITTEN = ("scores/*.safetensors", "neurons/*.parquet", "results/*.parquet", "figures/*.html", "report.html", "study.json")
"""All that a study writes."""


class StudyFolder:
    """Where a study is written; without a folder everything stays in memory."""

    def __init__(self, folder: Path | None, config: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        self.folder, self.config, self.resume = folder, config, resume
        if folder is None:
            return
        if folder.exists() and not folder.is_dir():
            raise StudyError(f"{folder} is a file: a study is written to a folder")
        record = read_record(folder)
        if record is None:
            if folder.is_dir() and any(folder.iterdir()):
                raise StudyError(f"{folder} holds other things and no study: choose another --output-dir")
            self.resume = False
        elif resume:
            mine, theirs = json.loads(json.dumps(config)), record["config"]
            differing = [name for name in mine if mine[name] != theirs.get(name)]
            if differing:
                name = differing[0]
                raise StudyError(
                    f"{folder} holds a study with {name} = {theirs.get(name)!r}, not {mine[name]!r}: choose another --output-dir"
                )
        elif not overwrite:
            raise StudyError(
                f"{folder} already holds a study of {record['config']['model']}: use --resume, --overwrite or another --output-dir"
            )
        else:
            self._clear(folder)

    @staticmethod
    def _clear(folder: Path) -> None:
        """Removes what a study writes, and nothing else."""
        for pattern in WRITTEN:
            for path in folder.glob(pattern):
                path.unlink()

    def start(self, info: Mapping[str, Any]) -> None:
        """Writes `study.json`."""
        if self.folder is not None:
            record = {"config": dict(self.config), "info": info, "version": __version__}
            files.write(self.folder / "study.json", (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())

    def save(self, name: str, thing: Any) -> None:
        """Has a set, scores or a result save itself."""
        if self.folder is not None:
            thing.save(self.folder / name)

    def piece(self, name: str, load: Callable[[Path], T], make: Callable[[], T], matches: Callable[[T], bool]) -> T:
        """A finished piece of a resumed study if it is of the same questions, model and neurons; else it is made and saved."""
        path = self.folder / name if self.folder is not None else None
        if self.resume and path is not None and path.is_file():
            stored = load(path)
            if matches(stored):
                log.info("taken from the folder: %s", name)
                return stored
        made = make()
        self.save(name, made)
        return made


def read_record(folder: Path) -> dict[str, Any] | None:
    """What `study.json` says; None where there is none. Raises `StudyError` where it cannot be read."""
    path = folder / "study.json"
    if not path.is_file():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record["config"]["model"], str) or not isinstance(record["info"]["tasks"], dict):
            raise ValueError("it lacks the model or the tasks")
    except (ValueError, KeyError, TypeError) as error:
        raise StudyError(f"{path} is not a study's record: {error}") from error
    return record
