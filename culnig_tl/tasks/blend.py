"""blend: everyday knowledge of 16 countries and regions (BLEnD, Myung et al. 2024, arXiv 2406.09948).

Multiple-choice questions; of each question and country at most five rows, which differ in their wrong
options. Three topics are there to find neurons and three to test them, as in CULNIG.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import TaskError
from .choice import BLANKS, choice_questions
from .countries import COUNTRIES
from .question import Question, Task
from .rows import Rows, first_of_each
from .sources import Source, read
from .wordings import ANSWER_PREFIX, Wording, check_blanks

log = logging.getLogger(__name__)

NAME = "blend"
HUB_ID, MOVED_TO = "nayeon212/BLEnD", ("uilab/BLEnD",)
SOURCE = Source(
    HUB_ID,
    "multiple-choice-questions",
    "test",
    (
        "data/mc_questions_hf/mc_questions_file_v1.1.json",
        "data/mc_questions_hf/mc_questions_file.json*",
        "evaluation/mc_data/**/mc_questions_file*",
    ),
    MOVED_TO,
)
TOPICS = Source(
    HUB_ID,
    "short-answer-questions",
    "US",
    ("data/questions_hf/US_questions.json", "data/questions/US_questions.csv"),
    MOVED_TO,
)
LICENCE = "CC BY-SA 4.0"
PER_QUESTION = 5
"""Rows kept per question and country, in file order."""
NEURON_TOPICS = ("Food", "Work life", "Sport")
TEST_TOPICS = ("Education", "Family", "Holidays/Celebration/Leisure")
_FILES = {"Nigeria": "Northern_Nigeria", "USA": "US"}
_INSTRUCTION = re.compile(r"\s+(?=Without any explanation)")


def load(
    *,
    data_dir: str | Path | None = None,
    wordings: tuple[Wording, ...] | None = None,
    language: str | None = None,
) -> Task:
    """The task, from the Hub or from a mirror.

    With `language` "local" the question is in the region's own language (from BLEnD's annotations);
    instruction, options and ids stay as they are, so that the two versions can be paired. `wordings` replace
    the data set's own prompt.
    """
    if language not in (None, "local"):
        raise TaskError(
            f"blend comes in English (None) or in each region's own language ('local'), not in {language!r}"
        )
    rows = read(SOURCE, data_dir)
    rows.need("MCQID", "ID", "country", "prompt", "choices", "answer_idx")
    rows.countries("country", among=COUNTRIES)
    rows.ids("ID", unique=False)
    rows = rows.pick(first_of_each(rows.frame, ["country", "ID"], PER_QUESTION))
    topics = read_topics(data_dir)
    local = (
        None
        if language is None
        else {country: read_local(country, data_dir) for country in set(rows.countries("country"))}
    )
    questions = tuple(questions_of(rows, topics, wordings=wordings, local=local))
    if skipped := len(rows) * len(wordings or (None,)) - len(questions):
        log.warning("blend: left out %d rows whose question is blank in the region's language", skipped)
    name = NAME if language is None else f"{NAME}-local"
    return Task(name, questions, source=rows.origin, licence=LICENCE, culture=True, skipped=skipped)


def read_topics(data_dir: str | Path | None = None) -> dict[str, str]:
    """Topic of every question ID, from BLEnD's own list of questions."""
    rows = read(TOPICS, data_dir)
    rows.need("ID", "Topic")
    named = {topic.lower(): topic for topic in (*NEURON_TOPICS, *TEST_TOPICS)}
    return dict(zip(rows.ids("ID"), rows.one_of("Topic", named)))


def read_local(country: str, data_dir: str | Path | None = None) -> dict[str, str | None]:
    """Every question of a country in its own language, by question ID; None where the annotation is blank."""
    rows = read_country("annotations", "data/annotations_hf/{}_data.json", country, data_dir)
    rows.need("ID", "question")
    texts = (value.strip() if isinstance(value, str) else None for value in rows.values("question"))
    return {question_id: text or None for question_id, text in zip(rows.ids("ID"), texts)}


def read_country(config: str, file: str, country: str, data_dir: str | Path | None = None) -> Rows:
    """A country's file of one of BLEnD's configurations; `file` has ``{}`` in place of the country's name."""
    name = _FILES.get(country, country.replace(" ", "_"))
    return read(Source(HUB_ID, config, name, (file.format(name),), MOVED_TO, raw=True), data_dir)


def questions_of(
    rows: Rows,
    topics: Mapping[str, str],
    *,
    wordings: tuple[Wording, ...] | None = None,
    local: Mapping[str, Mapping[str, str | None]] | None = None,
) -> Iterator[Question]:
    """The questions of BLEnD's rows; `local` holds questions in the region's language, by country and ID."""
    if wordings is not None:
        check_blanks(NAME, wordings, BLANKS)
    task = NAME if local is None else f"{NAME}-local"
    columns = zip(
        rows.ids("MCQID"),
        rows.ids("ID", unique=False),
        rows.countries("country"),
        rows.texts("prompt"),
        rows.objects("choices"),
        rows.texts("answer_idx"),
    )
    for position, (row_id, question_id, country, prompt, choices, answer) in enumerate(columns):
        if question_id not in topics:
            raise rows.error(position, "ID", f"{question_id!r} has no topic in {TOPICS.config}")
        choices = _options(rows, position, choices)
        if answer not in choices:
            raise rows.error(
                position, "answer_idx", f"{answer!r} is no option, the options are {', '.join(choices)}"
            )
        instruction = _INSTRUCTION.search(prompt)
        if instruction is None:
            raise rows.error(
                position, "prompt", "has no instruction that starts with 'Without any explanation'"
            )
        question, rest = prompt[: instruction.start()], prompt[instruction.end() :]
        if local is not None:
            if question_id not in local.get(country, {}):
                raise rows.error(position, "ID", f"{question_id!r} is not in the annotations of {country}")
            said = local[country][question_id]
            if said is None:
                continue
            question = said
        topic = topics[question_id]
        split = "neuron" if topic in NEURON_TOPICS else "test"
        if wordings is None:
            yield Question(
                task=task,
                id=row_id,
                cluster=question_id,
                prompt=question + instruction[0] + rest,
                options=tuple(choices),
                answer=answer,
                country=country,
                group=topic,
                split=split,
                answer_prefix=ANSWER_PREFIX,
                control=rest,
                stem=question,
                texts=tuple(choices.values()),
            )
            continue
        yield from choice_questions(
            [replace(wording, labels="".join(choices)) for wording in wordings],
            row_id=row_id,
            question=question,
            options=list(choices.values()),
            answer=list(choices).index(answer),
            shuffle=False,
            task=task,
            cluster=question_id,
            country=country,
            group=topic,
            split=split,
        )


def _options(rows: Rows, position: int, choices: Mapping[str, Any]) -> dict[str, str]:
    """Label -> option, those without a text left out."""
    options = {label: text for label, text in choices.items() if text is not None}
    if len(options) < 2 or not all(
        len(label) == 1 and isinstance(text, str) and text.strip() for label, text in options.items()
    ):
        raise rows.error(position, "choices", "must hold two options or more, each a letter with text")
    return options


def load_local(**options: Any) -> Task:
    """`load` with the question in the region's own language."""
    return load(language="local", **options)
