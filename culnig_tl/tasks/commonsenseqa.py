"""commonsenseqa: everyday sense without culture (CommonsenseQA, Talmor et al. 2019, arXiv 1811.00937)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from .choice import choice_questions, choice_wordings
from .question import Question, Task
from .rows import Rows
from .sources import Source, read
from .wordings import Wording

NAME = "commonsenseqa"
SOURCE = Source(
    "tau/commonsense_qa", None, "validation", ("data/validation-*.parquet", "dev_rand_split.jsonl")
)
LICENCE = "MIT"


def load(*, data_dir: str | Path | None = None, wordings: tuple[Wording, ...] | None = None) -> Task:
    """The task, from the Hub or from a mirror: the validation rows."""
    rows = read(SOURCE, data_dir)
    return Task(
        NAME, tuple(questions_of(rows, choice_wordings(NAME, wordings))), source=rows.origin, licence=LICENCE
    )


def questions_of(rows: Rows, wordings: tuple[Wording, ...]) -> Iterator[Question]:
    """The questions of CommonsenseQA's rows, options in the data set's order."""
    rows.need("id", "question", "choices", "answerKey")
    columns = zip(rows.ids("id"), rows.texts("question"), rows.objects("choices"), rows.texts("answerKey"))
    for position, (row_id, question, choices, answer) in enumerate(columns):
        labels, texts = choices.get("label"), choices.get("text")
        if (
            not isinstance(labels, list)
            or not isinstance(texts, list)
            or len(labels) != len(texts)
            or not 2 <= len(labels) <= 10
        ):
            raise rows.error(position, "choices", "must hold lists 'label' and 'text' of one length, 2 to 10")
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise rows.error(position, "choices", "an option is empty")
        if answer not in labels:
            raise rows.error(
                position,
                "answerKey",
                f"{answer!r} is no option, the options are {', '.join(map(str, labels))}",
            )
        yield from choice_questions(
            wordings,
            row_id=row_id,
            question=question,
            options=texts,
            answer=labels.index(answer),
            shuffle=False,
            task=NAME,
            cluster=row_id,
        )
