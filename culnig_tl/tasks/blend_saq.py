"""blend-saq: BLEnD's short-answer questions, answered in words (Myung et al. 2024, arXiv 2406.09948).

Each region's questions are asked in its own language with the data set's own prompts, and an answer is right
if it contains one of the answers that annotators of the region gave (see
`culnig_tl.method.answers.matching`). Only the test topics of `blend` are asked: neurons are found on `blend`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import TaskError
from .blend import HUB_ID, LICENCE, TEST_TOPICS, read_country, read_topics
from .countries import COUNTRIES
from .question import Question, Task
from .rows import Rows

log = logging.getLogger(__name__)

NAME = "blend-saq"
ENGLISH = "en"
LANGUAGES: dict[str, str] = {
    "USA": "en", "UK": "en", "South Korea": "ko", "Algeria": "ar", "Indonesia": "id", "Spain": "es",
    "Iran": "fa", "Mexico": "es", "Assam": "as", "Greece": "el", "Ethiopia": "am", "Nigeria": "ha",
    "North Korea": "ko", "West Java": "su", "China": "zh", "Azerbaijan": "az",
}  # fmt: skip
"""Region -> ISO 639-1 code of the language of its annotations; thirteen languages."""
PROMPTS = ("inst-4", "pers-3")
"""The prompts that BLEnD's authors evaluate with; no others are there for every region in both languages."""
_BLANK = "{q}"


def load(*, data_dir: str | Path | None = None, language: str | None = None) -> Task:
    """The task, from the Hub or from a mirror: every answered question of the test topics, with two prompts.

    With `language` "en" it is asked in English and the answers' English translations are right; with None or
    "local" it is asked in the region's language. Raises `TaskError` for another language, or if the files are
    missing or wrong.
    """
    if language not in (None, "local", ENGLISH):
        raise TaskError(
            f"{NAME} comes in each region's own language (None or 'local') or in English ('en'), "
            f"not in {language!r}"
        )
    english = language == ENGLISH
    topics = read_topics(data_dir)
    questions: list[Question] = []
    unanswered = 0
    origin = HUB_ID
    for country in COUNTRIES:
        rows = read_country("annotations", "data/annotations_hf/{}_data.json", country, data_dir)
        prompts = _prompts(read_country("prompts", "data/prompts/{}_prompts.csv", country, data_dir), english)
        origin = rows.origin
        for question_id, text, accepted in _answered(rows, topics, english):
            if text is None or not accepted:
                unanswered += 1
                continue
            for template, prompt in enumerate(prompts):
                questions.append(
                    Question(
                        task=f"{NAME}-en" if english else NAME,
                        id=f"{question_id}:{country}:{PROMPTS[template]}",
                        cluster=question_id,
                        prompt=prompt.replace(_BLANK, text),
                        options=(),
                        answer=accepted[0],
                        country=country,
                        group=topics[question_id],
                        template=template,
                        accepted=accepted,
                        language=ENGLISH if english else LANGUAGES[country],
                    )
                )
    if not questions:
        raise TaskError(f"{origin} holds no answered question of the topics {', '.join(TEST_TOPICS)}")
    if unanswered:
        log.info(
            "%s: left out %d questions of a region that are blank or that nobody answered", NAME, unanswered
        )
    return Task(
        questions[0].task, tuple(questions), source=origin, licence=LICENCE, culture=True, skipped=unanswered
    )


def load_english(**options: Any) -> Task:
    """`load` in English."""
    return load(language=ENGLISH, **options)


def read_variants(
    country: str, *, data_dir: str | Path | None = None, english: bool = False
) -> dict[str, list[tuple[str, ...]]]:
    """Question ID -> its answers, on all topics; each is the variants that annotators counted as one."""
    rows = read_country("annotations", "data/annotations_hf/{}_data.json", country, data_dir)
    rows.need("ID", "annotations")
    column = "en_answers" if english else "answers"
    return {
        question_id: [group for group, _ in _groups(rows, position, value, column)]
        for position, (question_id, value) in enumerate(zip(rows.ids("ID"), rows.values("annotations")))
    }


def _prompts(rows: Rows, english: bool) -> list[str]:
    """The texts of `PROMPTS`, in that order.

    Where an id occurs twice (Azerbaijan), the first is taken, as by the authors.
    """
    column = "English" if english else "Translation"
    rows.need("id", column)
    ids, values = rows.ids("id", unique=False), rows.values(column)
    texts = []
    for name in PROMPTS:
        if name not in ids:
            raise TaskError(f"{rows.where}: prompt {name!r} is missing")
        position = ids.index(name)
        text = rows.text(position, column, values[position]).strip()
        if _BLANK not in text:
            raise rows.error(position, column, f"lacks {_BLANK}, where the question goes")
        texts.append(text)
    return texts


def _answered(
    rows: Rows, topics: dict[str, str], english: bool
) -> Iterator[tuple[str, str | None, tuple[str, ...]]]:
    """(ID, question or None, right answers, most votes first) of every question of the test topics."""
    column = "en_question" if english else "question"
    rows.need("ID", column, "annotations")
    for position, (question_id, text, value) in enumerate(
        zip(rows.ids("ID"), rows.values(column), rows.values("annotations"))
    ):
        if question_id not in topics:
            raise rows.error(position, "ID", f"{question_id!r} has no topic in BLEnD's list of questions")
        if topics[question_id] not in TEST_TOPICS:
            continue
        groups = sorted(
            _groups(rows, position, value, "en_answers" if english else "answers"),
            key=lambda group: -group[1],
        )
        accepted = tuple(
            dict.fromkeys(variant for variants, votes in groups if votes >= 1 for variant in variants)
        )
        yield question_id, text.strip() or None if isinstance(text, str) else None, accepted


def _groups(rows: Rows, position: int, value: Any, column: str) -> list[tuple[tuple[str, ...], int]]:
    """(variants, votes) of every answer to one question; blank variants are left out."""
    groups: list[tuple[tuple[str, ...], int]] = []
    for answer in value or []:
        variants, votes = (
            (answer.get(column), answer.get("count")) if isinstance(answer, dict) else (None, None)
        )
        if (
            not isinstance(variants, list)
            or not all(isinstance(text, str) for text in variants)
            or not isinstance(votes, int)
        ):
            raise rows.error(
                position,
                "annotations",
                f"must hold objects with {column} (a list of texts) and count (a whole number)",
            )
        groups.append((tuple(dict.fromkeys(text.strip() for text in variants if text.strip())), votes))
    return groups
