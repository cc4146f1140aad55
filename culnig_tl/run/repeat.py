"""Repeating a study from its record: the same arguments, the same commit of the model, and the same
questions."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from ..defaults import TOY
from ..engine.identity import differing
from ..engine.loading import has_commit
from ..errors import StudyError
from ..study.config import StudyConfig, config_from
from ..study.folder import RECORD, read_record_file
from ..tasks.registry import is_file
from ..tasks.wordings import PAPER
from ..version import __version__

log = logging.getLogger(__name__)

ELSEWHERE = ("data_dir", "wordings", "device", "device_map")
"""What may differ where a study is repeated: where things are, not what they are."""


@dataclass(frozen=True)
class Recorded:
    """A study that is to be repeated."""

    folder: Path
    config: StudyConfig
    info: Mapping[str, Any]
    """What its record says of model and questions."""
    version: str | None
    """Of this package, when it was recorded."""

    def check(self, config: StudyConfig) -> None:
        """Raises `StudyError` where a configuration is not the recorded one, except for where things are."""
        if self.version != __version__:
            log.warning(
                "the study in %s is of version %s, this is %s", self.folder, self.version, __version__
            )
        for field in fields(StudyConfig):
            if field.name not in ELSEWHERE and getattr(config, field.name) != getattr(
                self.config, field.name
            ):
                option = field.name.replace("_", "-")
                raise StudyError(f"--from repeats a study as it was: leave out --{option}")


def words_of_places(config: StudyConfig) -> list[str]:
    """Options with the folders and files that a study's questions are read from, as a command line has them.
    A record alone does not have them read: it may be somebody else's."""
    places = {"tasks": ",".join(config.tasks), "reading": config.reading, "rival": config.rival or ""}
    words = ["--data-dir", config.data_dir] if config.data_dir is not None else []
    words += ["--wordings", config.wordings] if config.wordings not in (None, PAPER) else []
    for name, value in places.items():
        if any(is_file(word) for word in value.split(",") if word):
            words += [f"--{name}", value]
    return words


def recorded(path: Path, given: Sequence[str] = ()) -> Recorded:
    """Reads a study's record, from study.json or the folder that holds it.

    Args:
        given: options of the command line: places that questions are read from are taken from there alone.

    Raises:
        StudyError: there is none, or it cannot be read.
    """
    file = path / RECORD if path.is_dir() else path
    record = read_record_file(file)
    config, info = config_from(record["config"]), record["info"]
    named = words_of_places(config)
    for option in named[::2]:
        if option not in given:
            said = f"{file} has questions read from elsewhere: where you trust it, say {shlex.join(named)}"
            if option != "--data-dir":
                raise StudyError(said)
            log.warning("%s", said)
            config = replace(config, data_dir=None)
    if config.revision is None and config.model != TOY and has_commit(config.model):
        config = replace(config, revision=info.get("revision"))  # the commit of then, not the branch of now
    return Recorded(file.parent, config, info, record.get("version"))


def check_repeats(info: Mapping[str, Any], original: Mapping[str, Any]) -> None:
    """Raises `StudyError` where model or questions are not those of the study to be repeated.

    Args:
        info: what `study.json` is to say of model and questions.
        original: what it says in the study that is repeated.
    """
    for what in ("revision", "dtype"):
        if what in original and info[what] != original[what]:
            raise StudyError(
                f"this would not repeat the study: {what} of the model is {info[what]!r}, it was"
                f" {original[what]!r}"
            )
    prints = [
        {name: task["fingerprint"] for name, task in each["tasks"].items()} for each in (info, original)
    ]
    if reason := differing(prints[1], prints[0]):
        raise StudyError(f"this would not repeat the study: other questions, the fingerprint of {reason}")
