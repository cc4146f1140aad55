"""The package's tasks as tasks of lm-evaluation-harness, for those who have only that, or vLLM behind it."""

from __future__ import annotations

import json
import logging
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..engine.prompts import before_label, render
from ..errors import TaskError
from ..io import write
from ..tasks.question import Question, Task

log = logging.getLogger(__name__)

READER = "culnig_questions"
"""Name of the Python file that reads the questions: `exported`, copied."""
METRICS = {"letters": ("exact_match", "acc"), "cloze": ("acc_unconditional", "acc", "acc_norm")}
"""Form -> what the harness finds. The first is the accuracy that `evaluate` finds."""


def export_task(task: Task, folder: str | Path, *, tokenizer: Any = None) -> Path:
    """Writes a task for lm-evaluation-harness: a YAML file, its questions in JSON lines, and the Python file
    that reads them.

        lm_eval --model hf --model_args pretrained=M --include_path FOLDER --tasks culnig_blend

    In the form "letters", `exact_match` is the accuracy of `evaluate` (the likeliest token of the whole
    vocabulary is the right label) and `acc` that among the labels. In the form "cloze", `acc_unconditional`,
    `acc` and `acc_norm` are its accuracies with ``normalise="unconditional"``, "sum" and "length".

    Args:
        folder: where the files go; it may hold other exported tasks.
        tokenizer: of the model that is to be asked: letters prompts are written in its chat template. Without
            one they are plain text, as a base model gets them. The harness must not apply a template itself.

    Returns:
        The YAML file.

    Raises:
        TaskError: a task that is answered in words or scored by nearness, or cloze prompts that end in
            different blanks or stand in a chat template.
    """
    if task.short_answers or task.metric != "accuracy" or not len(task):
        why = "holds no question" if not len(task) else "is not answered by one right option"
        raise TaskError(f"task {task.name!r} {why}: it cannot be exported")
    if task.chat_template:
        raise TaskError(f"task {task.name!r} is asked in a chat template: export it with plain prompts")
    name = "culnig_" + re.sub(r"\W", "_", task.name) + ("_cloze" if task.form == "cloze" else "")
    rows, blank = _cloze_rows(task) if task.form == "cloze" else (_letters_rows(task, tokenizer), "")
    settings: dict[str, Any] = {
        "task": name,
        "custom_dataset": f"!function {READER}.rows",
        "dataset_kwargs": {"questions": f"{name}.jsonl"},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "prompt",
        "doc_to_choice": "choices",
        "doc_to_target": "right",
        "target_delimiter": blank,
        "num_fewshot": 0,
        "metric_list": [
            {"metric": metric, "aggregation": "mean", "higher_is_better": True}
            for metric in METRICS[task.form]
        ],
        "metadata": {"version": 1.0, "fingerprint": task.fingerprint},
    }
    if task.form == "cloze":
        settings |= {
            "class": f"!function {READER}.Cloze",
            "process_results": f"!function {READER}.accuracies",
        }
    out = Path(folder)
    out.mkdir(parents=True, exist_ok=True)
    reader = (files("culnig_tl.lm_eval") / "exported.py").read_text(encoding="utf-8")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    yaml = "".join(f"{key}: {_yaml(value)}\n" for key, value in settings.items())
    for file, text in ((f"{READER}.py", reader), (f"{name}.jsonl", lines), (f"{name}.yaml", yaml)):
        write(out / file, text.encode())
    return out / f"{name}.yaml"


def _row(question: Question, prompt: str, choices: list[str]) -> dict[str, Any]:
    about = {name: getattr(question, name) for name in ("id", "cluster", "country", "group", "template")}
    right = question.options.index(question.answer)
    return {**about, "prompt": prompt, "choices": choices, "right": right}


def _letters_rows(task: Task, tokenizer: Any) -> list[dict[str, Any]]:
    rows = []
    for question in task:
        text = render(tokenizer, question)
        blank = before_label(tokenizer, question, text)
        rows.append(_row(question, text, [blank + label.lstrip() for label in question.options]))
    if any(row["prompt"][-1:].isspace() for row in rows):
        log.warning(
            "prompts of %s end in a blank, which the harness counts with the label: exact_match may be lower"
            " than accuracy here, acc is the same",
            task.name,
        )
    return rows


def _cloze_rows(task: Task) -> tuple[list[dict[str, Any]], str]:
    """(rows, the blank between prompt and text)."""
    blanks = {question.prompt[len(question.prompt.rstrip()) :] or " " for question in task}
    if len(blanks) > 1:
        raise TaskError(f"task {task.name!r}: its prompts end in different blanks, and the harness has one")
    rows = [
        {**_row(question, question.prompt.rstrip(), list(question.texts)), "control": question.control}
        for question in task
    ]
    return rows, blanks.pop()


def _yaml(value: Any) -> str:
    """JSON is YAML, but for the harness' functions."""
    return value if isinstance(value, str) and value.startswith("!function") else json.dumps(value)
