"""The tasks by name. A task's own file is imported when it is loaded, not before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

from ..errors import TaskError
from ..names import which
from .question import CLOZE_CONTROL, CONTROL, HARNESS, Form, Normalise, Task
from .rows import FILE_TYPES, is_unicode
from .sources import data_folder
from .wordings import Wording, check_blanks, read_wordings


@dataclass(frozen=True)
class TaskInfo:
    """What is known of a task before it is loaded."""

    name: str
    about: str
    source: str
    """Hub id, "package", or "files" for those that the user brings."""
    licence: str
    rows: int | None
    """Rows of the data set as published, before wordings; None for the package's own."""
    module: str
    loader: str = "load"
    culture: bool = False
    """Whether it asks about cultures; otherwise it is an NLU task."""
    splits: tuple[str, ...] = ("test",)
    control: bool = True
    """Whether it offers a control."""
    toy: bool = False
    """Whether it is in words that the embedded model knows."""
    options: frozenset[str] = frozenset()
    """The arguments of `load_task` that only some tasks take, as far as this one takes them."""
    tables: tuple[str, ...] = ()
    """Tables of a wordings file, of which it reads the first that is there; empty for fixed wordings."""


def _info(
    name: str,
    about: str,
    source: str,
    licence: str,
    rows: int | None = None,
    *,
    options: Iterable[str] = (),
    tables: tuple[str, ...] | None = None,
    module: str | None = None,
    **more: Any,
) -> TaskInfo:
    if tables is None:
        tables = () if source == "package" else (name,)
    return TaskInfo(
        name, about, source, licence, rows, module or name, options=frozenset(options), tables=tables, **more
    )


CLOZE_TABLE = "cloze"
"""Of a wordings file: the plain prompt of the cloze form."""
_BOTH = ("neuron", "test")
_BLEND = ("nayeon212/BLEnD", "CC BY-SA 4.0", 305_939)
_WVS = "World Values Survey Association"
TASKS: dict[str, TaskInfo] = {
    info.name: info
    for info in (
        _info(
            "blend",
            "everyday knowledge of 16 countries and regions",
            *_BLEND,
            culture=True,
            splits=_BOTH,
            options=("data_dir", "language"),
        ),
        _info(
            "blend-local",
            "blend with the question in each region's own language",
            *_BLEND,
            module="blend",
            loader="load_local",
            culture=True,
            splits=_BOTH,
            options=("data_dir",),
            tables=("blend-local", "blend"),
        ),
        _info(
            "blend-saq",
            "blend's short-answer questions, answered in words in each region's language",
            *_BLEND[:2],
            8_000,
            module="blend_saq",
            culture=True,
            control=False,
            options=("data_dir", "language"),
            tables=(),
        ),
        _info(
            "blend-saq-en",
            "blend-saq asked and answered in English",
            *_BLEND[:2],
            8_000,
            module="blend_saq",
            loader="load_english",
            culture=True,
            control=False,
            options=("data_dir",),
            tables=(),
        ),
        _info(
            "countryrc",
            "which country a passage names: reading, no culture",
            "package",
            "MIT",
            splits=_BOTH,
            options=("path",),
            tables=("countryrc",),
        ),
        _info(
            "countryrc-paper",
            "countryrc with wrong options and number of rows as in the paper",
            "package",
            "MIT",
            module="countryrc",
            loader="load_paper",
            splits=_BOTH,
            options=("path",),
            tables=("countryrc-paper", "countryrc"),
        ),
        _info(
            "culturalbench",
            "cultural knowledge of 45 regions",
            "kellycyy/CulturalBench",
            "CC BY 4.0",
            1_227,
            culture=True,
            splits=_BOTH,
            options=("data_dir",),
            tables=("culturalbench", "choice"),
        ),
        _info(
            "normad",
            "is behaviour acceptable in one of 75 countries?",
            "akhilayerukola/NormAd",
            "not stated",
            2_633,
            culture=True,
            splits=_BOTH,
            control=False,
            options=("data_dir",),
        ),
        _info(
            "worldvaluesbench",
            "what most people of a country answer in a survey",
            "files",
            _WVS,
            239,
            culture=True,
            splits=_BOTH,
            control=False,
            options=("data_dir", "path"),
        ),
        _info(
            "commonsenseqa",
            "everyday sense without culture",
            "tau/commonsense_qa",
            "MIT",
            1_221,
            options=("data_dir",),
            tables=("commonsenseqa", "choice"),
        ),
        _info(
            "qnli",
            "does a sentence answer a question?",
            "nyu-mll/glue",
            "other",
            5_463,
            module="glue",
            loader="load_qnli",
            control=False,
            options=("data_dir", "rows_from"),
        ),
        _info(
            "mrpc",
            "do two sentences say the same?",
            "nyu-mll/glue",
            "other",
            1_725,
            module="glue",
            loader="load_mrpc",
            control=False,
            options=("data_dir", "rows_from"),
        ),
        _info(
            "miniculture",
            "the package's own cultural facts, for the toy",
            "package",
            "MIT",
            toy=True,
            culture=True,
            splits=_BOTH,
        ),
        _info(
            "minireading",
            "countryrc in the toy's words",
            "package",
            "MIT",
            toy=True,
            splits=_BOTH,
            control=False,
        ),
        _info(
            "minicommonsense",
            "facts without culture, for the toy",
            "package",
            "MIT",
            toy=True,
            splits=_BOTH,
            control=False,
        ),
        _info(
            "miniparaphrase",
            "do two sentences say the same? for the toy",
            "package",
            "MIT",
            toy=True,
            module="miniwords",
            loader="load_paraphrase",
            control=False,
        ),
        _info(
            "minianswers",
            "does a sentence answer a question? for the toy",
            "package",
            "MIT",
            toy=True,
            module="miniwords",
            loader="load_answers",
            control=False,
        ),
        _info(
            "minisynonyms",
            "which word means the same? for fine-tuning the toy",
            "package",
            "MIT",
            toy=True,
            module="miniwords",
            loader="load_synonyms",
            splits=_BOTH,
            control=False,
        ),
    )
}
"""Every task that the package knows by name."""


def load_task(
    name: str | Path,
    *,
    split: str | None = None,
    control: bool = False,
    rows: int | None = None,
    limit: int | None = None,
    form: Form = "letters",
    normalise: Normalise = "unconditional",
    chat_template: bool = False,
    data_dir: str | Path | None = None,
    wordings: str | Path | None = None,
    language: str | None = None,
    path: str | Path | None = None,
    rows_from: str | None = None,
    allow_regions: bool = False,
) -> Task:
    """A task by name, from a user's own JSONL, CSV, Excel or Parquet file (see `culnig_tl.tasks.custom`), or
    of lm-evaluation-harness (see `culnig_tl.tasks.harness`).

        load_task("blend", split="neuron", control=True, limit=64)
        load_task("blend").neuron_split().limit(64).control()  # the same
        load_task("lm_eval:hellaswag"); load_task("lm_eval:./my_task.yaml")

    Args:
        split: "neuron" for the questions to find neurons with, "test" for those to test them on; None for
            all. "test" is the whole task where it has a single split.
        control: leave the question out: instruction and options only. The name "blend:control" asks for the
            same.
        form: "letters" to answer with a label, as in the paper; "cloze" for the likelihood of the options'
            words (see `Task.cloze`; a table ``cloze`` of `wordings` replaces its prompt). Tasks of
            lm-evaluation-harness are cloze questions whatever is said here.
        normalise, chat_template: of the form "cloze", see `Task.cloze`.
        rows: at most this many rows of the same question, which differ in their wrong options alone.
        limit: this many questions, spread evenly over countries and templates.
        data_dir: a mirror of the Hub's data sets, ``<data_dir>/<org>/<name>/``; the variable
            ``CULNIG_DATA_DIR`` names one for all tasks. Without either, rows come from the Hub. The package's
            own tasks need none.
        wordings: a TOML file of instruction wordings that replace the package's, for the tasks that it names;
            or "paper" for the package's wordings in the paper's form.
        language: "local" asks `blend` in each region's own language, "en" asks `blend-saq` in English.
        path: the user's own files: passages of `countryrc`, the survey of `worldvaluesbench`.
        rows_from: another of the Hub's splits of `qnli` or `mrpc`, e.g. "train" to fine-tune on.
        allow_regions: in the user's own file, a name in the column `country` that is no country's is a
            region: a group of countries, or a part of one. Without it, such a name is an error.

    Raises:
        TaskError: the task or split is unknown, the task has no such split or no control, it does not take an
            argument, or its rows are missing or wrong.
    """
    if split not in (None, *_BOTH):
        raise TaskError(f"split {split!r} is unknown{which(split, _BOTH, 'splits are')}")
    if isinstance(name, str) and name.endswith(CONTROL) and not is_file(name):
        name, control = name.removesuffix(CONTROL), True
    given = {} if wordings is None else read_wordings(wordings)
    for table in given:
        if table not in TASKS and table not in ("choice", CLOZE_TABLE):
            raise TaskError(
                f"{wordings}: wordings for {table!r}, which is no task{which(table, TASKS, 'tasks are')}"
            )
    asked = {"language": language, "path": path, "rows_from": rows_from}
    options = {option: value for option, value in asked.items() if value is not None}
    theirs = str(name).startswith(HARNESS)
    if theirs:
        task = _load_harness(str(name), options).normalised(normalise)
    elif is_file(name):
        task = _load_file(name, given, options, allow_regions)
    else:
        task = _load_known(str(name), given, options, data_dir)
    if form not in get_args(Form):
        raise TaskError(f"form {form!r} is unknown{which(form, get_args(Form), 'forms are')}")
    if form == "cloze" and not theirs:
        task = in_words(task, given, normalise=normalise, chat_template=chat_template)
    if split is not None:
        task = task.neuron_split() if split == "neuron" else task.test_split()
    task = task.rows(rows).limit(limit)
    return task.control() if control else task


def in_words(task: Task, wordings: str | Path | Mapping[str, tuple[Wording, ...]] | None, **how: Any) -> Task:
    """The task in the cloze form, with the plain prompt that a wordings file names, or its tables; the usual
    one where it names none.

    Args:
        how: further arguments of `Task.cloze`.
    """
    if isinstance(wordings, (str, Path)):
        wordings = read_wordings(wordings)
    worded = (wordings or {}).get(CLOZE_TABLE, ())[:1]
    check_blanks(CLOZE_TABLE, worded, frozenset({"question"}))
    given = [worded[0].prompt, worded[0].control or CLOZE_CONTROL] if worded else []
    return task.cloze(*given, **how)


def _load_harness(name: str, options: Mapping[str, object]) -> Task:
    from . import harness

    if options:
        raise TaskError(f"a task of lm-evaluation-harness takes no {next(iter(options))!r}")
    return harness.load(name)


def load_tasks(names: Iterable[str], *, beside: Iterable[str | None] = (), **how: Any) -> list[Task]:
    """Several tasks by name or file, each once, as `load_task` gives them.

    Args:
        beside: further names or files, which are not loaded here.
        how: arguments of `load_task`.

    Raises `TaskError` where two of all these files have one name: their answers would be taken for one
    another's.
    """
    wanted = list(dict.fromkeys(names))
    files: dict[str, str] = {}
    for word in dict.fromkeys((*wanted, *beside)):
        if word is not None and is_file(word) and files.setdefault(Path(word).stem, word) != word:
            raise TaskError(f"{files[Path(word).stem]} and {word} would be one task: rename one of the files")
    return [load_task(name, **how) for name in wanted]


def _load_file(
    path: str | Path,
    wordings: Mapping[str, tuple[Wording, ...]],
    options: Mapping[str, object],
    allow_regions: bool,
) -> Task:
    from . import custom

    if options:
        raise TaskError(f"a task from a file takes no {next(iter(options))!r}")
    if not is_unicode(str(path)):
        raise TaskError(f"{str(path)!r} is no name in UTF-8: rename the file")
    if Path(path).stem in TASKS:
        raise TaskError(f"{path}: rename the file: {Path(path).stem} is the name of a task of the package")
    return custom.load(path, wordings=wordings.get("choice"), allow_regions=allow_regions)


def _load_known(
    name: str,
    wordings: Mapping[str, tuple[Wording, ...]],
    options: Mapping[str, object],
    data_dir: str | Path | None,
) -> Task:
    if name not in TASKS:
        raise TaskError(
            f"task {name!r} is unknown{which(name, TASKS, 'tasks are')}, "
            f"a file ending in {', '.join(FILE_TYPES)}, or {HARNESS}NAME for one of lm-evaluation-harness"
        )
    info = TASKS[name]
    if name in wordings and not info.tables:
        own = info.source == "package"
        why = "the toy model knows no others" if own else "they come with the data set, region by region"
        raise TaskError(f"task {name!r} keeps its own wordings: {why}")
    for option in options:
        if option not in info.options:
            raise TaskError(f"task {name!r} takes no {option!r}")
    more: dict[str, object] = {}
    if "data_dir" in info.options:  # one mirror is named for all tasks, also for those that need none
        more["data_dir"] = data_dir
    if table := next((wordings[table] for table in info.tables if table in wordings), None):
        more["wordings"] = table
    return getattr(import_module(f".{info.module}", __package__), info.loader)(**options, **more)


@dataclass(frozen=True)
class TaskRow:
    """A row of the list of tasks."""

    name: str
    about: str
    source: str
    licence: str
    culture: bool
    splits: tuple[str, ...]
    control: bool
    published: int | None
    """Rows of the data set as published, before wordings; None for the package's own."""
    questions: int | None
    """Questions that loading gives here; None where the rows are not available."""
    found: str | None
    """Where the rows were found; None where they were not."""
    problem: str | None
    """Why they were not found or cannot be read."""


def list_tasks(*, data_dir: str | Path | None = None) -> list[TaskRow]:
    """All tasks, and where their rows were found.

    Tasks whose rows are on this machine (in the package or a mirror) are loaded and counted; the Hub is not
    asked.
    """
    folder = data_folder(data_dir)
    return [_row(info, folder) for info in TASKS.values()]


def _row(info: TaskInfo, folder: Path | None) -> TaskRow:
    task, problem = None, None
    if info.source == "package" or folder is not None:
        try:
            task = load_task(info.name, data_dir=folder)
        except TaskError as error:
            problem = str(error)
    else:
        problem = (
            "no data folder is given"
            if info.source == "files"
            else "not looked for: the Hub serves it when it is loaded"
        )
    return TaskRow(
        name=info.name,
        about=info.about,
        source=info.source,
        licence=info.licence,
        culture=info.culture,
        splits=info.splits,
        control=info.control,
        published=info.rows,
        questions=None if task is None else len(task),
        found=None if task is None else task.source,
        problem=problem,
    )


def is_file(name: str | Path) -> bool:
    """Whether a task's name is that of a file of questions."""
    return (
        isinstance(name, Path)
        or name.lower().endswith(FILE_TYPES)
        or (name not in TASKS and Path(name).is_file())
    )
