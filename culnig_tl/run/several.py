"""Several studies to be compared: finished ones by their folders, others made first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..defaults import TOY
from ..errors import StudyError
from ..study.config import defaults_for
from ..study.folder import RECORD
from ..study.study import Study
from .pipeline import run_study


def studies_of(named: Mapping[str, str], folder: Path, **options: Any) -> dict[str, Study]:
    """Every study, by name: read from its folder, or run in `folder/name`, and resumed where it was begun.

    Args:
        named: name -> a study's folder, or a model to study, as `named_sources` gives them.
        folder: for the studies that are run.
        options: of `StudyConfig`, for those; the toy's defaults hold for all of them where the toy is among
            them.
    """
    usual = defaults_for(TOY if TOY in named.values() else "")
    finished = {}
    for name, source in named.items():
        if is_study(source):
            finished[name] = Study.load(source)
        else:
            place = folder / name
            config = replace(usual, **{**options, "model": source})
            finished[name] = run_study(config, folder=place, resume=is_study(place))
    return finished


def is_study(source: str | Path) -> bool:
    """Whether it is a folder that a study was written to."""
    return (Path(source) / RECORD).is_file()


def named_sources(given: Sequence[str]) -> dict[str, str]:
    """Name -> study's folder or model, from FOLDER or NAME=MODEL.

    A folder is named by as much of the end of its path as tells it from the others.

    Raises:
        StudyError: fewer than two, a name twice, a folder without a study, a name that cannot be a folder's.
    """
    folders = [text for text in given if is_study(text)]
    named: dict[str, str] = {}
    for text in given:
        name, equals, source = (_short(text, folders), "=", text) if text in folders else text.partition("=")
        if not (equals and name and source):
            raise StudyError(
                f"{text} holds no study: give folders of finished studies, or NAME=MODEL to make one first"
            )
        if not is_study(source) and Path(name).name != name:
            raise StudyError(f"a checkpoint's name becomes a folder: use letters and digits, not {name!r}")
        if name in named:
            raise StudyError(
                f"two studies are called {name}: choose another name for one, e.g. other={source}"
            )
        named[name] = source
    if len(named) < 2:
        raise StudyError(
            "name two checkpoints or more, each once: culnig-tl compare runs/base runs/sft, or base=MODEL"
            " sft=MODEL"
        )
    return named


def _short(folder: str, folders: Sequence[str]) -> str:
    """The shortest end of a path that no other path has."""
    parts = {other: Path(other).resolve().parts for other in folders}
    own = parts[folder]
    for length in range(1, len(own) + 1):
        if sum(other[-length:] == own[-length:] for other in parts.values()) == 1:
            return "/".join(own[-length:])
    return folder
