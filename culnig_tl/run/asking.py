"""The answers of a study, setting by setting: the first questions of all settings before the rest of any.

So there are figures early, and the first random set says how many questions the others need.

    first questions of every setting -> a preliminary report, and the part that random sets are asked
    the rest, setting by setting     -> the report, again as answers come in
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..data.neurons import NeuronSet
from ..progress import StudyBar
from ..study.config import RANDOM, UNCHANGED, StudyConfig
from ..study.sampling import (
    about_parts,
    least_part,
    part_of,
    parts_known,
    parts_needed,
    questions_expected,
    spread_of,
)
from ..study.study import Study
from ..tasks import Task
from .pieces import Pieces, Questions, is_random

PART = "random_questions"
"""What a study's record calls the questions that random sets are asked."""
SCORING = 3
"""A question that is scored takes about as long as so many that are asked: a backward pass is twice a forward
one."""


def ask_settings(
    study: Study,
    pieces: Pieces,
    settings: Sequence[str],
    bar: StudyBar,
    *,
    decided: Callable[[], None],
    reported: Callable[[], None],
) -> None:
    """Asks every setting its questions; the answers go to `study.results`.

    Args:
        decided: called once it is known what random sets are asked; `study.info` says so then.
        reported: called when there are answers of every setting to report, and more are to come.
    """
    first = [least_part(task, seed=study.config.seed) for task in pieces.questions.asked]
    in_rounds = any(len(part) < len(task) for part, task in zip(first, pieces.questions.asked))
    for setting in settings if in_rounds else ():
        asked = [min(pair, key=len) for pair in zip(first, pieces.questions.of(setting))]
        advance = bar.stage(f"ask {setting}, first questions", each(asked))
        neurons = _neurons(study, setting)
        study.results[setting] = pieces.ask_first(setting, asked, neurons, progress=advance)
        if is_random(setting) and study.config.random_questions == "auto" and not pieces.questions.random:
            pieces.questions = replace(pieces.questions, random=_needed(study, setting, pieces))
            study.info[PART] = about_parts(pieces.questions.random)
            bar.total(cost(pieces.questions, settings, study.config))
            decided()
    pieces.save()
    for setting in settings:
        if in_rounds:
            reported()
        asked, known = pieces.questions.of(setting), study.results.get(setting)
        advance = bar.stage(f"ask {setting}", each(asked))
        neurons = _neurons(study, setting)
        study.results[setting] = pieces.ask_all(setting, neurons, progress=advance, known=known)


def with_parts(questions: Questions, config: StudyConfig, known: Mapping[str, Any]) -> Questions:
    """The questions with those of the random sets, where they can be told before anything is asked.

    Args:
        known: what the record of the same study says, where it was begun before.
    """
    if PART in known:
        return replace(questions, random=parts_known(questions.asked, known, seed=config.seed))
    if isinstance(config.random_questions, str):
        return questions
    parts = (part_of(task, config.random_questions, seed=config.seed) for task in questions.asked)
    return replace(questions, random=tuple(parts))


def cost(questions: Questions, settings: Sequence[str], config: StudyConfig) -> float:
    """What a study's passes count for together, in characters that are read; while it is open what random
    sets are asked, as many as is expected."""
    scored = SCORING * sum(len(task) * each([task]) for task in questions.scored.values())
    total, expected = float(scored), questions_expected(questions.asked, sets=sum(map(is_random, settings)))
    for setting in settings:
        for task in questions.of(setting):
            unknown = is_random(setting) and config.random_questions == "auto" and not questions.random
            total += (min(expected, len(task)) if unknown else len(task)) * each([task])
    return total


def each(tasks: Sequence[Task]) -> float:
    """Characters of a question, on average."""
    return sum(len(q.prompt) for task in tasks for q in task) / max(1, sum(map(len, tasks)))


def _needed(study: Study, setting: str, pieces: Pieces) -> tuple[Task, ...]:
    """The parts of the tasks that random sets are asked, from what the first of these sets costs."""
    unchanged, random, asked = study.results[UNCHANGED], study.results[setting], pieces.questions.asked
    spreads = [spread_of(unchanged, random, task.name) for task in asked]
    return parts_needed(asked, spreads, sets=len(RANDOM) * study.config.random_sets, seed=study.config.seed)


def _neurons(study: Study, setting: str) -> NeuronSet | None:
    return None if setting == UNCHANGED else study.neurons[setting]
