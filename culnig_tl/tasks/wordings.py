"""Instruction wordings: how a model is asked a question. The package's own are in ``data/wordings.toml``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..errors import TaskError

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

DATA = files("culnig_tl.tasks") / "data"
"""The package's own data."""
PAPER = "paper"
"""In a file's place: the package's wordings in the form of the paper's, in ``data/wordings_paper.toml``."""
ANSWER_PREFIX = '{"answer_choice":"'
LETTERS = "ABCDEFGHIJ"
_BLANK = re.compile(r"\{(\w+)\}")


@dataclass(frozen=True)
class Wording:
    """One way to ask a question. Blanks such as ``{question}`` are filled in; other braces are left alone."""

    prompt: str
    """The user turn."""
    control: str | None = None
    """The same without the question."""
    system: str | None = None
    """The system turn, if any."""
    answer_prefix: str = ANSWER_PREFIX
    """What the assistant turn begins with, "" for nothing; a tokenizer must not merge the label into its
    end."""
    labels: str = LETTERS
    """One character per label, in the order of the options."""


def fill(text: str, blanks: Mapping[str, str]) -> str:
    """`text` with its blanks filled in, in one pass, so that a blank inside a question stays as it is."""
    return _BLANK.sub(lambda match: blanks.get(match[1], match[0]), text)


@cache
def _package() -> Mapping[str, list[dict[str, Any]]]:
    return tomllib.loads((DATA / "wordings.toml").read_text(encoding="utf-8"))


@cache
def wordings(task: str) -> tuple[Wording, ...]:
    """The package's wordings of a task."""
    if task not in _package():
        raise TaskError(f"task {task!r} has no wordings")
    return tuple(Wording(**row) for row in _package()[task])


def read_wordings(path: str | Path) -> dict[str, tuple[Wording, ...]]:
    """A user's wordings by task, from a TOML file in the form of ``data/wordings.toml``; or `PAPER`.

    Raises `TaskError` naming the file and the table that is wrong.
    """
    try:
        file = DATA / "wordings_paper.toml" if path == PAPER else Path(path)
        tables = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise TaskError(
            f"{path}: not a readable TOML file of wordings ({str(error).splitlines()[0]})"
        ) from error
    known = {f.name for f in fields(Wording)}
    out: dict[str, tuple[Wording, ...]] = {}
    for task, rows in tables.items():
        if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
            raise TaskError(f"{path}: wordings of {task!r} are tables [[{task}]], each with a prompt")
        for number, row in enumerate(rows, start=1):
            here = f"{path}, [[{task}]] number {number}"
            if unknown := sorted(set(row) - known):
                raise TaskError(
                    f"{here}: unknown key {unknown[0]!r}, the keys are {', '.join(sorted(known))}"
                )
            empty = {"answer_prefix"}  # nothing starts the answer: the label is its first token
            if wrong := sorted(
                k for k, v in row.items() if not isinstance(v, str) or not v and k not in empty
            ):
                raise TaskError(f"{here}: {wrong[0]!r} must be text")
            if "prompt" not in row:
                raise TaskError(f"{here}: 'prompt' is missing")
            if len(set(row.get("labels", LETTERS))) < len(row.get("labels", LETTERS)):
                raise TaskError(f"{here}: 'labels' holds a character twice")
        out[task] = tuple(Wording(**row) for row in rows)
    return out


def check_blanks(
    task: str, rows: tuple[Wording, ...], needed: frozenset[str], also: frozenset[str] = frozenset()
) -> None:
    """Raises `TaskError` if a prompt lacks a blank of `needed`, or a text has one that is in neither set."""
    for number, row in enumerate(rows, start=1):
        if missing := sorted(needed - set(_BLANK.findall(row.prompt))):
            raise TaskError(f"wording {number} of {task!r}: the prompt lacks {{{missing[0]}}}")
        for text in (row.prompt, row.control or "", row.system or ""):
            if unknown := sorted(set(_BLANK.findall(text)) - needed - also):
                known = sorted(needed | also)
                raise TaskError(
                    f"wording {number} of {task!r}: unknown blank {{{unknown[0]}}}, it can hold {known}"
                )
