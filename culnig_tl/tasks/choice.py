"""Multiple-choice questions in the package's wordings: for CulturalBench, CommonsenseQA and users' files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ..errors import TaskError
from .question import Question, letters, seeded_random
from .wordings import Wording, check_blanks, fill
from .wordings import wordings as package_wordings

TABLE = "choice"
BLANKS = frozenset({"question", "options"})


def choice_wordings(task: str, given: tuple[Wording, ...] | None) -> tuple[Wording, ...]:
    """The user's wordings of a task, checked, or the package's."""
    rows = given or package_wordings(TABLE)
    check_blanks(task, rows, BLANKS)
    return rows


def choice_questions(
    wordings: Sequence[Wording],
    *,
    row_id: str,
    question: str,
    options: Sequence[str],
    answer: int,
    shuffle: bool = True,
    blanks: dict[str, str] | None = None,
    stem: str | None = None,
    **fields: Any,
) -> Iterator[Question]:
    """One question per wording.

    Args:
        answer: the right option's place in `options`.
        shuffle: draw the order of the options from the question's hash.
        blanks: what fills other blanks of a wording than ``{question}`` and ``{options}``.
        stem: what is asked in the cloze form; the question by default.
        fields: further fields of the questions.
    """
    for template, wording in enumerate(wordings):
        name = f"{row_id}/{template}"
        order = list(range(len(options)))
        if shuffle:
            seeded_random(fields["task"], name).shuffle(order)
        labels = wording.labels[: len(options)]
        if len(labels) < len(options):
            raise TaskError(
                f"task {fields['task']!r}, question {row_id!r}: "
                f"{len(options)} options and only {len(labels)} labels"
            )
        filled = {
            "question": question,
            "options": letters([options[i] for i in order], labels),
            **(blanks or {}),
        }
        yield Question(
            id=name,
            prompt=fill(wording.prompt, filled).strip(),
            control=fill(wording.control, filled).strip() if wording.control else None,
            system=fill(wording.system, filled) if wording.system else None,
            options=tuple(labels),
            answer=labels[order.index(answer)],
            answer_prefix=wording.answer_prefix,
            template=template,
            stem=question if stem is None else stem,
            texts=tuple(options[i] for i in order),
            **fields,
        )
