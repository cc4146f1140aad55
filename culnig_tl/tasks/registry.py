"""The tasks by name. A task's own file is imported when it is loaded, not before."""

from __future__ import annotations

import difflib
import logging
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from ..errors import TaskError
from .question import Task
from .rows import FILE_TYPES, data_folder
from .wordings import read_wordings

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TaskInfo:
    """What is known of a task without loading it."""

    name: str
    about: str
    source: str
    """Hub id, "package", or "files" that the user brings."""
    licence: str
    rows: int
    """Rows of the data set as published (before wordings)."""
    module: str
    loader: str = "load"
    culture: bool = False
    """Asks about cultures; else an NLU task."""
    splits: tuple[str, ...] = ("test",)
    control: bool = True
    """Offers a control."""
    options: frozenset[str] = frozenset()
    """Further arguments of `load_task` that it takes."""


def _info(*args, splits: tuple[str, ...] = ("neuron", "test"), options: tuple[str, ...] = (), **more) -> TaskInfo:
    return TaskInfo(*args, splits=splits, options=frozenset(options), **more)


_TEST = ("test",)
_REAL = ("data_dir", "wordings")
TASKS: dict[str, TaskInfo] = {
    info.name: info
    for info in (
        _info("blend", "everyday knowledge of 16 countries and regions", "nayeon212/BLEnD", "CC BY-SA 4.0", 305_939, "blend",
              culture=True, options=(*_REAL, "language")),
        _info("blend-local", "blend with the question in the region's own language", "nayeon212/BLEnD", "CC BY-SA 4.0", 305_939, "blend",
              "load_local", culture=True, options=_REAL),
        _info("countryrc", "which country a passage names: reading, no culture", "package", "MIT", 72, "countryrc",
              options=("wordings", "path")),
        _info("culturalbench", "cultural knowledge of 45 regions", "kellycyy/CulturalBench", "CC BY 4.0", 1_227, "culturalbench",
              culture=True, options=_REAL),
        _info("normad", "is behaviour acceptable in one of 75 countries?", "akhilayerukola/NormAd", "CC BY 4.0", 2_633, "normad",
              culture=True, control=False, options=_REAL),
        _info("worldvaluesbench", "what most people of a country answer in the World Values Survey", "files", "licensed by the WVSA", 240,
              "worldvaluesbench", culture=True, control=False, options=(*_REAL, "path")),
        _info("commonsenseqa", "everyday sense without culture", "tau/commonsense_qa", "MIT", 1_221, "commonsenseqa",
              splits=_TEST, options=_REAL),
        _info("qnli", "does a sentence answer a question?", "nyu-mll/glue", "other", 5_463, "glue", "load_qnli",
              splits=_TEST, control=False, options=(*_REAL, "rows_from")),
        _info("mrpc", "do two sentences say the same?", "nyu-mll/glue", "other", 1_725, "glue", "load_mrpc",
              splits=_TEST, control=False, options=(*_REAL, "rows_from")),
        _info("miniculture", "the package's own cultural facts, for the toy model", "package", "MIT", 731, "miniculture", culture=True),
        _info("minireading", "countryrc in the toy model's words", "package", "MIT", 128, "minireading", control=False),
        _info("minicommonsense", "facts without culture, for the toy model", "package", "MIT", 473, "minicommonsense", control=False),
        _info("miniparaphrase", "do two sentences say the same? for the toy model", "package", "MIT", 400, "miniwords", "load_paraphrase",
              splits=_TEST, control=False),
        _info("minianswers", "does a sentence answer a question? for the toy model", "package", "MIT", 400, "miniwords", "load_answers",
              splits=_TEST, control=False),
    )
}  # fmt: skip
"""Every task that the package knows by name."""


def load_task(
    name: str | Path,
    *,
    data_dir: str | Path | None = None,
    wordings: str | Path | None = None,
    language: str | None = None,
    path: str | Path | None = None,
    rows_from: str | None = None,
) -> Task:
    """A task by name, or from a user's own JSONL, CSV or Parquet file (see `culnig_tl.tasks.custom`).

    Args:
        data_dir: a mirror of the Hub's data sets, ``<data_dir>/<org>/<name>/``; the variable ``CULNIG_DATA_DIR`` names one for all
            tasks. Without either, rows come from the Hub. Tasks of the package itself need none.
        wordings: a TOML file of instruction wordings in place of the package's, for the tasks that it names.
        language: "local" asks `blend` in each region's own language.
        path: the user's own files: passages of `countryrc`, the survey of `worldvaluesbench`.
        rows_from: another of the Hub's splits of `qnli` or `mrpc`, e.g. "train" to fine-tune on.

    Raises:
        TaskError: the task is unknown, does not take an argument, or its rows are missing or wrong.
    """
    given = {} if wordings is None else read_wordings(wordings)
    for table in given:
        if table not in TASKS and table != "choice":
            raise TaskError(f"{wordings}: wordings for {table!r}, which is no task{_suggest(table)}")
    if _is_file(name):
        from . import custom

        stray = {"language": language, "path": path, "rows_from": rows_from}
        for option in (key for key, value in stray.items() if value is not None):
            raise TaskError(f"a task from a file takes no {option!r}")
        return custom.load(name, wordings=given.get("choice"))
    if name not in TASKS:
        raise TaskError(f"task {str(name)!r} is unknown{_suggest(str(name))}; tasks are {', '.join(TASKS)}, or a file ending in {', '.join(FILE_TYPES)}")
    info = TASKS[str(name)]
    options = {"data_dir": data_dir, "wordings": given.get(info.name), "language": language, "path": path, "rows_from": rows_from}
    if "choice" in given and info.module in ("culturalbench", "commonsenseqa"):
        options["wordings"] = options["wordings"] or given["choice"]
    for option, value in list(options.items()):
        if option not in info.options:
            # A mirror is named once for a whole study; the other arguments mean this task.
            if value is not None and option != "data_dir":
                raise TaskError(f"task {info.name!r} takes no {option!r}")
            del options[option]
        elif value is None:
            del options[option]
    return getattr(import_module(f".{info.module}", __package__), info.loader)(**options)


@dataclass(frozen=True)
class TaskRow:
    """A line of the list of tasks."""

    name: str
    about: str
    source: str
    licence: str
    culture: bool
    splits: tuple[str, ...]
    control: bool
    published: int
    """Rows as published."""
    questions: int | None
    """Questions that loading gives here; None where the rows are not at hand."""
    found: str | None
    """Where the rows were found; None where they were not."""
    problem: str | None
    """Why they were not found or cannot be read."""


def list_tasks(*, data_dir: str | Path | None = None) -> list[TaskRow]:
    """All tasks, with where their rows were found. What is at hand (package, mirror) is loaded and counted; the Hub is not asked."""
    folder = data_folder(data_dir)
    out = []
    for info in TASKS.values():
        task, problem = None, None
        if info.source == "package" or folder is not None:
            try:
                task = load_task(info.name, data_dir=folder)
            except TaskError as error:
                problem = str(error)
        else:
            problem = "no data folder is given" if info.source == "files" else "not looked for: the Hub serves it when it is loaded"
        out.append(
            TaskRow(
                info.name, info.about, info.source, info.licence, info.culture, info.splits, info.control, info.rows,
                None if task is None else len(task), None if task is None else task.source, problem,
            )  # fmt: skip
        )
    return out


def _is_file(name: str | Path) -> bool:
    return isinstance(name, Path) or name.lower().endswith(FILE_TYPES) or (name not in TASKS and Path(name).is_file())


def _suggest(name: str) -> str:
    near = difflib.get_close_matches(name.lower(), TASKS, n=1, cutoff=0.5)
    return f", did you mean {near[0]!r}?" if near else ""
