"""qnli and mrpc: language understanding without culture (GLUE, Wang et al. 2018, arXiv 1804.07461).

qnli: does a sentence answer a question (0) or not (1)? mrpc: do two sentences say the same (1) or not (0)?
Neither offers a control: without the sentences, only the instruction would be left.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..errors import TaskError
from .question import Question, Task, seeded_random
from .rows import Rows
from .sources import Source, read
from .wordings import Wording, check_blanks, fill
from .wordings import wordings as package_wordings

HUB_ID = "nyu-mll/glue"
SOURCES = {
    "qnli": Source(HUB_ID, "qnli", "validation", ("qnli/validation-*.parquet",)),
    "mrpc": Source(HUB_ID, "mrpc", "test", ("mrpc/test-*.parquet",)),
}
COLUMNS = {"qnli": ("question", "sentence"), "mrpc": ("sentence1", "sentence2")}
LABELS = ("0", "1")
ASKED = {
    "qnli": ("{question}\n{sentence}\nDoes the sentence answer the question?", ("yes", "no")),
    "mrpc": ("{sentence1}\n{sentence2}\nDo both sentences say the same?", ("no", "yes")),
}
"""Task -> the question in the cloze form, and the words of both labels."""
LICENCE = "other"  # GLUE's data sets keep their own
TRAINING_ROWS = {"qnli": 10_000, "mrpc": 3_668}
"""Rows to fine-tune on: sampled from QNLI's 104,743 as in CULNIG, and all of MRPC's."""
PAPER_SHUFFLED, PAPER_SEED = {"qnli": True, "mrpc": False}, 42
"""Whether the authors' script shuffles a task's rows before it takes the first of them, and by which seed."""
Draw = Literal["spread", "paper"]
"""How rows to fine-tune on are drawn: see `load_training`."""


def load(
    name: str,
    *,
    data_dir: str | Path | None = None,
    wordings: tuple[Wording, ...] | None = None,
    rows_from: str | None = None,
) -> Task:
    """The task `name`, from the Hub or a mirror; `rows_from` is another of the Hub's splits, e.g. "train"."""
    if name not in SOURCES:
        raise TaskError(f"GLUE task {name!r} is unknown, it is qnli or mrpc")
    source = SOURCES[name]
    if rows_from is not None:
        source = replace(source, split=rows_from, files=(f"{name}/{rows_from}-*.parquet",))
    rows = read(source, data_dir)
    given = wordings or package_wordings(name)
    return Task(name, tuple(questions_of(name, rows, given)), source=rows.origin, licence=LICENCE)


def load_training(
    name: str,
    *,
    data_dir: str | Path | None = None,
    count: int | None = None,
    draw: Draw = "spread",
    wordings: tuple[Wording, ...] | None = None,
) -> Task:
    """Rows to fine-tune on, from the Hub's split "train": `count`, or `TRAINING_ROWS` for None.

    Each row is asked in one of the wordings. Its own hash decides whether it is taken, and in which wording;
    or, with `draw` "paper", the rows and their order are those of the authors' script, all in the first
    wording.
    """
    rows = read(replace(SOURCES[name], split="train", files=(f"{name}/train-*.parquet",)), data_dir)
    rows.need("idx")
    wanted = TRAINING_ROWS[name] if count is None else count
    given = wordings or package_wordings(name)
    if draw == "paper":
        shuffled = PAPER_SHUFFLED[name]
        order = shuffled_rows(len(rows))[:wanted] if shuffled else range(min(wanted, len(rows)))
        questions = tuple(questions_of(name, rows, given[:1]))
        return Task(name, tuple(questions[i] for i in order), source=rows.origin, licence=LICENCE)
    drawn = [seeded_random("train", name, row_id).random() for row_id in rows.ids("idx")]
    last = sorted(drawn)[min(wanted, len(drawn)) - 1]
    rows = rows.pick([number <= last for number in drawn])
    questions = (
        q
        for q in questions_of(name, rows, given)
        if q.template == seeded_random("wording", name, q.cluster).randrange(len(given))
    )
    return Task(name, tuple(questions), source=rows.origin, licence=LICENCE)


def shuffled_rows(count: int) -> list[int]:
    """The order in which ``Dataset.shuffle(seed=42)`` puts rows, which the authors draw QNLI's from."""
    import numpy as np

    return np.random.default_rng(PAPER_SEED).permutation(count).tolist()


def load_qnli(**options: Any) -> Task:
    """See `load`."""
    return load("qnli", **options)


def load_mrpc(**options: Any) -> Task:
    """See `load`."""
    return load("mrpc", **options)


def questions_of(name: str, rows: Rows, wordings: tuple[Wording, ...]) -> Iterator[Question]:
    """The questions of GLUE's rows, one per row and wording."""
    columns = COLUMNS[name]
    check_blanks(name, wordings, frozenset(columns))
    rows.need("idx", *columns, "label")
    stem, texts = ASKED[name]
    labels = rows.one_of("label", {0: "0", 1: "1", "0": "0", "1": "1"})
    for row_id, first, second, label in zip(
        rows.ids("idx"), rows.texts(columns[0]), rows.texts(columns[1]), labels
    ):
        blanks = {columns[0]: first, columns[1]: second}
        for template, wording in enumerate(wordings):
            yield Question(
                task=name,
                id=f"{row_id}/{template}",
                cluster=row_id,
                prompt=fill(wording.prompt, blanks).strip(),
                system=wording.system,
                options=LABELS,
                answer=label,
                answer_prefix=wording.answer_prefix,
                template=template,
                stem=fill(stem, blanks),
                texts=texts,
            )
