"""Language against culture: the same questions in English and in each region's own language.

Three sets are selected with the same thresholds: culture neurons found on the questions in English, culture
neurons found on the same questions in the local language, and language neurons, which the local wording uses
beyond the English one (the English questions take the control's place). Where the two culture sets overlap,
and the language set hurts only questions in the local language, what was found is culture and not language.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..data.neurons import NeuronSet
from ..data.scores import NeuronScores
from ..defaults import DROP_READING, RANDOM_SETS, TOP_ATTN, TOP_MLP
from ..engine.models import HookedModel
from ..errors import TaskError
from ..method.score import score_neurons
from ..method.selection import select_general
from ..tasks.question import Form, Normalise, Task
from .compare_sets import ComparedSets, compare_sets
from .inputs import model_of, task_of

ENGLISH, LOCAL, LANGUAGE = "culture, asked in English", "culture, asked locally", "language"


class LanguageComparison(ComparedSets):
    """Neurons of the same questions in two languages, their overlap, and what each set costs in each
    language."""


def compare_languages(
    model: HookedModel | str | Path,
    english: Task | str = "blend",
    local: Task | str = "blend-local",
    reading: Task | str = "countryrc",
    *,
    top_mlp: float = TOP_MLP,
    top_attn: float = TOP_ATTN,
    drop_reading: float = DROP_READING,
    limit: int | None = None,
    random_sets: int = RANDOM_SETS,
    form: Form = "letters",
    normalise: Normalise = "unconditional",
    chat_template: bool = False,
    wordings: str | Path | None = None,
    allow_regions: bool = False,
    data_dir: str | Path | None = None,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> LanguageComparison:
    """Finds the neurons of each language's questions, and suppresses each set while the questions in both are
    asked.

    Args:
        model: loaded, or its name or folder.
        english, local: the same questions (by id) with both splits; pairs with the same wording in both (UK,
            USA) are left out.
        reading: neuron split of country reading comprehension, or the task's name.
        top_mlp, top_attn, drop_reading: as in `select_general`.
        limit: question pairs, and questions of a named reading task.
        random_sets: layer-matched random sets per set.
        form, normalise, chat_template, wordings, allow_regions: of tasks that are given by name, as in
            `load_task`.
        data_dir: local mirror of the Hub's data sets, for tasks that are named.

    Raises:
        TaskError: tasks that share no question in two wordings.
    """
    how: dict[str, Any] = {"form": form, "normalise": normalise, "chat_template": chat_template}
    how |= {"wordings": wordings, "allow_regions": allow_regions}
    english, local = pair(task_of(english, data_dir, **how), task_of(local, data_dir, **how))
    english, local = pair(english.limit(limit), local)
    reading = task_of(reading, data_dir, split="neuron", limit=limit, **how)
    loaded = model_of(model)

    def score(task: Task) -> NeuronScores:
        return score_neurons(loaded, task, batch_size=batch_size, progress=progress)

    read, said, said_locally = score(reading), score(english.neuron_split()), score(local.neuron_split())
    control, local_control = score(english.neuron_split().control()), score(local.neuron_split().control())

    def select(scores: NeuronScores, contrast: NeuronScores, filtered: NeuronScores | None) -> NeuronSet:
        return select_general(
            scores, contrast, filtered, top_mlp=top_mlp, top_attn=top_attn, drop_reading=drop_reading
        )

    language = select(said_locally, said, None)
    about = replace(language.provenance, kind=LANGUAGE, paper_defaults=False)
    sets = {
        ENGLISH: select(said, control, read),
        LOCAL: select(said_locally, local_control, read),
        LANGUAGE: NeuronSet(language.table, about),
    }
    asked = [english.test_split(), local.test_split()]
    found = compare_sets(
        loaded, asked, sets, random_sets, scores=said, batch_size=batch_size, progress=progress
    )
    return LanguageComparison(**vars(found))


def pair(english: Task, local: Task) -> tuple[Task, Task]:
    """The questions that both tasks ask in different words, in the first task's order. Raises `TaskError`
    where there are none."""
    wording = {q.id: q for q in local}
    both = {q.id for q in english if q.id in wording and wording[q.id].prompt != q.prompt}
    if not both:
        raise TaskError(f"{english.name} and {local.name} share no question in two wordings")
    first = english.filter(lambda q: q.id in both)
    second = replace(local, questions=tuple(wording[q.id] for q in first))
    if first.name == second.name:
        raise TaskError(
            "the two tasks have the same name: give them different ones, e.g. blend and blend-local"
        )
    return first, second
