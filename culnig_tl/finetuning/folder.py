"""The folder of a fine-tuning: what may be written there, what is known of it, and what is cleared away.

Nothing outside the folder is written or removed, and nothing in it that a fine-tuning did not write. It can
be recognised however early or late its training was killed: `training/run.json` is written first and removed
last, `culnig_tl.json` is written when all else is there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import io
from ..errors import FineTuningError
from .weights import write_json

RECORD = "culnig_tl.json"
"""Written last: a folder that holds it, and the files that it names, is finished."""
WORK = "training"
"""Subfolder with what a training needs to resume; gone when it is finished."""
RUN = "run.json"
ADAPTER = "adapter"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "README.md")
"""What PEFT writes there."""
_STATE = re.compile(r"(tmp-)?checkpoint-\d+")


def check_folder(
    out: Path,
    mine: Mapping[str, Any],
    known: Mapping[str, Any] | None,
    *,
    record: str = f"{WORK}/{RUN}",
    resume: bool,
    overwrite: bool,
) -> None:
    """Raises `FineTuningError` where the folder is in use, or is a link.

    Args:
        mine: what is to be made there.
        known: what the folder says it holds; None where it says nothing.
        record: the file that says it: one that a killed process left half-written is cleared away.
    """
    if out.is_symlink():
        raise FineTuningError(f"{out} is a link: give the folder that it leads to, {out.resolve()}")
    if known is None:
        there = [path for path in out.rglob("*") if path.is_symlink() or not path.is_dir()]
        half = [path for path in there if io.written_as(path) == out / record and not path.is_symlink()]
        if out.is_file() or len(half) < len(there):
            raise FineTuningError(f"{out} holds other things and no fine-tuning: choose another --output-dir")
        for path in half:
            path.unlink(missing_ok=True)
    elif resume:
        for key, value in json.loads(json.dumps(mine)).items():
            if value != known.get(key):
                raise FineTuningError(
                    f"{out} holds a fine-tuning with {key} = {known.get(key)}, not {value}: "
                    "choose another --output-dir"
                )
    elif not overwrite:
        raise FineTuningError(
            f"{out} already holds a fine-tuning: use --resume, --overwrite or another --output-dir"
        )


def read_json(path: Path) -> dict[str, Any] | None:
    """None where there is no such file. Raises `FineTuningError` where it cannot be read."""
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError, RecursionError) as error:
        said = io.first_line(error)
        raise FineTuningError(f"{path} cannot be read ({said}): choose another --output-dir") from error


def known_of(out: Path) -> dict[str, Any] | None:
    """What the folder says of the fine-tuning in it, finished or not."""
    records = (read_json(out / WORK / RUN), read_json(out / RECORD))
    return next((record for record in records if record and "modules" in record), None)


def check_links(out: Path, names: Iterable[str]) -> None:
    """Raises `FileError` where a link stands in the way of what is to be written: files of these names, and
    whatever training and PEFT write into their folders."""
    for name in (*names, RECORD, f"{WORK}/{RUN}"):
        io.inside(out, name)
    for place in (WORK, ADAPTER):
        for parent, folders, files in os.walk(io.inside(out, place)):
            for name in (*folders, *files):
                io.inside(out, Path(parent, name).relative_to(out))


def is_finished(out: Path, run: Mapping[str, Any]) -> bool:
    """Whether this very training was written to its end; what it needed on the way is cleared away then."""
    record = read_json(out / RECORD)
    if record is None or any(record.get(key) != value for key, value in json.loads(json.dumps(run)).items()):
        return False
    if any(not (out / str(name)).is_file() for name in record.get("files", ())):
        return False
    if (out / WORK / RUN).is_file():
        clear_work(out)
    return True


def start_folder(out: Path, run: Mapping[str, Any], files: Iterable[str], *, resume: bool) -> None:
    """Writes what is trained here, and the names of the files that are to be written.

    What an earlier training wrote is removed first, unless it is resumed; one of the two records is always
    there.
    """
    check_links(out, files)
    for path in out.glob("**/.*"):
        if io.written_as(path) in (out / RECORD, out / WORK / RUN):  # a killed process's
            path.unlink()
    if not resume:
        before = [read_json(path) or {} for path in (out / WORK / RUN, out / RECORD)]
        for name in {str(name) for record in before for name in record.get("files", ())} - {RECORD}:
            io.inside(out, name).unlink(missing_ok=True)
            partial_of(io.inside(out, name)).unlink(missing_ok=True)
        if any(record.get("config", {}).get("lora") for record in before):
            for name in ADAPTER_FILES:
                io.inside(out, f"{ADAPTER}/{name}").unlink(missing_ok=True)
            _remove_empty(out / ADAPTER)
        if before[0]:
            _clear_states(out / WORK)
    write_json(out / WORK / RUN, {**run, "files": sorted(files)})
    if not is_finished(out, run):
        io.inside(out, RECORD).unlink(missing_ok=True)


def clear_work(out: Path) -> None:
    """Removes what a training needed to resume, what says so last."""
    work = io.inside(out, WORK)
    _clear_states(work)
    (work / RUN).unlink(missing_ok=True)
    _remove_empty(work)


def _clear_states(work: Path) -> None:
    """Removes the states that Trainer saved, and half-written records."""
    for path in work.iterdir() if work.is_dir() else ():
        if _STATE.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif io.written_as(path) == work / RUN:
            path.unlink()


def _remove_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def partial_of(path: Path) -> Path:
    """The file that is to become `path` when it is whole."""
    return path.with_name(f".{path.name}.partial")
