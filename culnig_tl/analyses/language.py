"""Language against culture: the same questions in English and in each region's own language.

Three sets are selected with the same thresholds: culture neurons found with the questions in English, culture neurons found
with the same questions in the local language, and language neurons, which the local wording uses beyond the English one
(the English questions take the control's place). Where the two culture sets overlap, and the language set hurts local
questions alone, what was found is culture and not language.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..data.scores import NeuronScores
from ..defaults import DROP_READING, RANDOM_SETS, TOP_ATTN, TOP_MLP
from ..errors import TaskError
from ..method.evaluation import evaluate_sets
from ..method.score import score_neurons
from ..method.selection import select_general, select_random
from ..study.comparison import Comparison, compare
from ..tasks.question import Task
from .overlap import overlaps

ENGLISH, LOCAL, LANGUAGE = "culture, asked in English", "culture, asked locally", "language"


@dataclass(frozen=True)
class LanguageComparison:
    """Neurons of the same questions in two languages, their overlap, and what each set costs in each language."""

    sets: Mapping[str, NeuronSet]
    base: EvaluationResult
    results: Mapping[str, EvaluationResult]
    """Set -> answers in both languages with it suppressed."""
    random: Mapping[str, tuple[EvaluationResult, ...]]
    """Set -> answers with layer-matched random sets suppressed."""

    def overlap(self) -> pd.DataFrame:
        """One row a pair of sets: common neurons, how many chance would give, Jaccard index, p (hypergeometric, one-sided)."""
        return overlaps(self.sets)

    def drops(self) -> dict[str, Comparison]:
        """Set -> what it costs on the questions in English and in the local language, against layer-matched random sets."""
        return {name: compare(self.base, result, self.random[name]) for name, result in self.results.items()}

    def table(self) -> pd.DataFrame:
        """Cross-effects: one row a (set, language): neurons, accuracy unchanged, drop and interval, random sets' drop, p."""
        parts = []
        for name, comparison in self.drops().items():
            table = comparison.table().reset_index(names="asked")
            table.insert(0, "set", name)
            table.insert(1, "neurons", len(self.sets[name]))
            parts.append(table)
        return pd.concat(parts, ignore_index=True)

    def __str__(self) -> str:
        return f"{self.overlap().round(4).to_string(index=False)}\n\n{self.table().round(3).to_string(index=False)}"

    __repr__ = __str__


def compare_languages(
    model: Any,
    english: Task,
    local: Task,
    reading: Task,
    *,
    top_mlp: float = TOP_MLP,
    top_attn: float = TOP_ATTN,
    drop_reading: float = DROP_READING,
    random_sets: int = RANDOM_SETS,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> LanguageComparison:
    """Finds the neurons of each language's questions, and suppresses each set on both.

    Args:
        english, local: the same questions (by id) with their splits, e.g. ``load_task("blend")`` and ``load_task("blend-local")``;
            pairs whose wording is the same in both (UK, USA) are left out.
        reading: neuron split of country reading comprehension.
        random_sets: layer-matched random sets a set.

    Raises:
        TaskError: tasks that share no question in two wordings.
    """
    english, local = pair(english, local)

    def score(task: Task) -> NeuronScores:
        return score_neurons(model, task, batch_size=batch_size, progress=progress)

    crc, said, said_locally = score(reading), score(english.neuron_split()), score(local.neuron_split())
    control, local_control = score(english.neuron_split().control()), score(local.neuron_split().control())

    def select(scores: NeuronScores, contrast: NeuronScores, filtered: NeuronScores | None) -> NeuronSet:
        return select_general(
            scores, contrast, filtered, top_mlp=top_mlp, top_attn=top_attn, drop_reading=drop_reading
        )

    language = select(said_locally, said, None)
    sets = {
        ENGLISH: select(said, control, crc),
        LOCAL: select(said_locally, local_control, crc),
        LANGUAGE: NeuronSet(
            language.table, replace(language.provenance, kind=LANGUAGE, paper_defaults=False)
        ),
    }
    drawn = {
        f"{name} {seed}": select_random(neurons, said, seed=seed, match="layer")
        for name, neurons in sets.items()
        for seed in range(random_sets)
    }
    asked = [english.test_split(), local.test_split()]
    answers = evaluate_sets(
        model, asked, {"unchanged": None, **sets, **drawn}, batch_size=batch_size, progress=progress
    )
    random = {name: tuple(answers[f"{name} {seed}"] for seed in range(random_sets)) for name in sets}
    return LanguageComparison(sets, answers["unchanged"], {name: answers[name] for name in sets}, random)


def pair(english: Task, local: Task) -> tuple[Task, Task]:
    """The questions that both tasks ask, in different words, in the first task's order. Raises `TaskError` where there are none."""
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
