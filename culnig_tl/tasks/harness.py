"""Tasks of lm-evaluation-harness (the extra ``culnig-tl[lm-eval]``), by name or from a file:

    load_task("lm_eval:hellaswag")
    load_task("lm_eval:./my_task.yaml")

The harness finds the task, reads its data set and builds every request, few-shot examples included; nothing
is worded here. Each document of a ``multiple_choice`` task becomes a question in the cloze form:

    prompt     the context, as the harness would send it without a chat template
    texts      the continuations; the blank between both stands at the prompt's end
    answer     the target
    cluster    the document
    group      the harness' task, one of several where a group such as ``mmlu`` was asked for

A question has no control: its options are held against nothing (``normalise="sum"`` and "unconditional" are
the same), so that its accuracy is the harness' ``acc``; ``normalise="length"`` gives ``acc_norm``. A file may
name functions in Python files beside it: the harness runs them.
"""

from __future__ import annotations

import difflib
import logging
import re
import string
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

from ..errors import CulnigError, TaskError
from .question import HARNESS, HARNESS_FILES, Question, Task, task_name

log = logging.getLogger(__name__)

FEWSHOT_SEED = 1234
"""That few-shot examples are drawn with: the default of the harness' ``simple_evaluate``."""


def harness(module: str) -> Any:
    """A module of lm-evaluation-harness. Raises `CulnigError` where it is not installed."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("lm_eval"):
            raise
        raise CulnigError("lm-evaluation-harness is needed: pip install 'culnig-tl[lm-eval]'") from error


def load(name: str) -> Task:
    """The harness' task ``lm_eval:NAME``, or all of a group's in one.

    Documents whose target is none of their options are left out, named in the log, and counted in `skipped`.

    Raises:
        CulnigError: lm-evaluation-harness is not installed.
        TaskError: a task that the harness does not know or cannot load, that is no multiple choice, or that
            cannot be put as cloze questions (see `question_of`).
    """
    subtasks = _subtasks(name.removeprefix(HARNESS))
    named = task_name(name)
    for title, task in subtasks.items():
        if task.OUTPUT_TYPE != "multiple_choice" or not hasattr(task, "doc_to_choice"):
            raise TaskError(
                f"task {name!r}: {title!r} is answered by {task.OUTPUT_TYPE}, and only multiple_choice can be"
                " turned into questions; ask it with the harness: python -m culnig_tl.lm_eval --model culnig"
            )
    questions: list[Question] = []
    skipped: list[str] = []
    for title, task in subtasks.items():
        if callable(task.config.process_results):
            log.warning(
                "%s: %s scores answers in a way of its own; here one is right when it is the target",
                named,
                title,
            )
        for number, requests in _documents(task):
            question = question_of(named, f"{title}/{number}", title, task, requests)
            questions += [question] if question is not None else []
            skipped += [f"{title}/{number}"] if question is None else []
    if skipped:
        log.warning(
            "%s: left out %d documents whose target is none of their options, e.g. %s",
            named,
            len(skipped),
            ", ".join(skipped[:3]),
        )
    source = f"lm-evaluation-harness {version('lm_eval')}"
    return Task(named, tuple(questions), source=source, skipped=len(skipped))


def question_of(name: str, row_id: str, title: str, task: Any, requests: Sequence[Any]) -> Question | None:
    """The question of one document; None where its target is none of its options.

    Args:
        requests: the harness' requests, one per option first. Others may follow, for metrics that need them.

    Raises `TaskError`, naming the document, for what the cloze form cannot ask: several right answers,
    options that differ in the context, an option without text, no context, or no blank between context and
    continuation.
    """

    def refused(why: str) -> TaskError:
        return TaskError(
            f"task {name!r}, document {row_id!r}: {why}; ask it with the harness:"
            " python -m culnig_tl.lm_eval --model culnig"
        )

    doc = requests[0].doc
    choices, target = task.doc_to_choice(doc), task.doc_to_target(doc)
    contexts, continuations = zip(*(request.args[:2] for request in requests[: len(choices)]))
    if isinstance(target, list):
        if len(target) != 1:
            raise refused(f"it has {len(target)} right answers")
        target = target[0]
    if len(set(contexts)) > 1:
        raise refused("its options differ in the context, not in the continuation")
    right = choices.index(target) if isinstance(target, str) and target in choices else target
    if not isinstance(right, int) or not 0 <= right < len(choices):
        return None
    texts = tuple(continuation.lstrip() for continuation in continuations)
    blanks = {whole[: len(whole) - len(text)] for whole, text in zip(continuations, texts)}
    if not all(texts):
        raise refused("an option has no text")
    if len(blanks) > 1:
        raise refused("its continuations begin with different blanks")
    prompt = contexts[0] + blanks.pop()
    if not contexts[0].strip():
        raise refused("its context is empty")
    if not prompt[-1].isspace():
        raise refused("no blank stands between context and continuation")
    labels = string.ascii_uppercase if len(texts) <= 26 else list(map(str, range(len(texts))))
    return Question(
        task=name,
        id=row_id,
        cluster=row_id,
        prompt=prompt,
        options=tuple(labels[: len(texts)]),
        answer=labels[right],
        group=title,
        texts=texts,
        form="cloze",
    )


def _documents(task: Any) -> Iterator[tuple[int, list[Any]]]:
    """(number, requests) of every document."""
    if task.config.num_fewshot is None:
        task.set_config(key="num_fewshot", value=0)
    task.set_fewshot_seed(seed=FEWSHOT_SEED)
    with _in_one_line(task.config.task):
        task.build_all_requests()
    for number, requests in groupby(task.instances, key=lambda request: request.doc_id):
        yield number, sorted(requests, key=lambda request: request.idx)


def _subtasks(name: str) -> dict[str, Any]:
    """The tasks of that name, file or group, by their names."""
    spec: Any = name
    is_task_file = False
    if name.endswith(HARNESS_FILES):
        path = Path(name).expanduser()
        if not path.is_file():
            raise TaskError(f"there is no file {name!r}")
        # The harness' own tasks take seconds to list: a task's file needs none of them, a group's may. The
        # harness finds a group by its name alone.
        group = re.search(r"^group\s*:\s*(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
        manager = _manager(
            include_path=str(path.parent) if group else None, include_defaults=group is not None
        )
        is_task_file = group is None
        spec = str(path) if group is None else group[1].strip("\"'")
    else:
        manager = _all_tasks()
        if name not in manager.all_tasks:
            near = difflib.get_close_matches(name, manager.all_tasks, n=1)
            raise TaskError(
                f"lm-evaluation-harness has no task {name!r}"
                + (f", did you mean {near[0]!r}?" if near else ": `lm_eval ls tasks` lists them")
            )
    with _in_one_line(name):
        if hasattr(manager, "load"):
            return dict(manager.load([spec])["tasks"])
        # Before 0.4.12 a file is read by the caller, and groups are nested.
        if is_task_file:
            spec = harness("lm_eval.utils").load_yaml_config(spec)
        return dict(_flat(manager.load_task_or_group([spec]).items()))


@contextmanager
def _in_one_line(name: str) -> Iterator[None]:
    """Whatever the harness, a data set or a file's functions raise, as a `TaskError`."""
    try:
        yield
    except Exception as error:
        first = (str(error).splitlines() or [""])[0]
        raise TaskError(
            f"lm-evaluation-harness cannot load {name!r}: {type(error).__name__}: {first}"
        ) from error


def _flat(tasks: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str, Any]]:
    for name, task in tasks:
        if isinstance(task, dict):
            yield from _flat(task.items())
        else:
            yield str(name), task


def _manager(**how: Any) -> Any:
    return harness("lm_eval.tasks").TaskManager(**how)


@cache
def _all_tasks() -> Any:
    """What the harness comes with, read once: it takes seconds."""
    return _manager()
