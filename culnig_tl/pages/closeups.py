"""What the atlas shows of a study's neurons, computed for all of them together: one pass over questions with
gradients, one that suppresses each neuron alone, and what each writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import rankdata

from ..data.neurons import NeuronSet, Site
from ..data.scores import NO_COUNTRY
from ..data.statistics import clustered_mean
from ..engine.checkpoint import Checkpoint
from ..engine.cloze import asked_of
from ..engine.models import describe
from ..figures.prompts import Part, part_of, plain_text, prompt_parts
from ..figures.tokens import SILENT, promoted_by
from ..figures.values import per_cluster
from ..method.closeup import QuestionScores, question_scores
from ..method.exact import ExactEffects, exact_effects
from ..study.opened import OpenStudy
from ..study.study import Study
from ..tasks.question import Task
from .details import sets_of
from .drawings import Histogram, LayerMap

Key = tuple[str, int, int]
"""(site, layer, neuron)."""
BEST = 6
"""Top questions of a neuron."""
WORDS = 10
"""Promoted words of a neuron, and as many suppressed ones."""
NEIGHBOURS = 6


@dataclass(frozen=True)
class Selected:
    """What a study says of neurons without its model."""

    name: str
    study: Study
    sets: Mapping[Key, list[str]]
    """Every selected neuron, the strongest culture-general ones first -> the sets that it is in."""

    @classmethod
    def of(cls, name: str, study: Study) -> Selected:
        """The culture-general and culture-specific neurons of a study."""
        return cls(name, study, sets_of(study))

    @property
    def shape(self) -> tuple[int, dict[Site, int]]:
        """Layers, and neurons per layer of each site."""
        scores = self.study.scores["neuron"]
        return scores.layers, scores.widths

    @cached_property
    def values(self) -> dict[Site, np.ndarray]:
        """[layer, neuron] per site: score per cluster of all countries together, control subtracted."""
        return per_cluster(self.study.scores["neuron"], self.study.scores.get("control"))

    def score(self, key: Key) -> float:
        """A neuron's score per cluster, all countries together."""
        return float(self.values[Site(key[0])][key[1], key[2]])

    @cached_property
    def pools(self) -> dict[str, np.ndarray]:
        """Pool -> the scores of its neurons, ascending."""
        return {
            pool: np.sort(np.concatenate([v.ravel() for s, v in self.values.items() if s.pool == pool]))
            for pool in dict.fromkeys(site.pool for site in self.values)
        }

    @cached_property
    def histograms(self) -> dict[str, Histogram]:
        """Pool -> its scores' histogram."""
        return {pool: Histogram.of(values) for pool, values in self.pools.items()}

    @cached_property
    def map(self) -> LayerMap:
        """Of all selected neurons."""
        sites = [site for site in Site if site in self.values]
        counts = np.zeros((len(sites), self.shape[0]), dtype=int)
        for site, layer, _ in self.sets:
            counts[sites.index(Site(site)), layer] += 1
        return LayerMap.of(counts, [site.value for site in sites])

    def country_scores(self, keys: Sequence[Key]) -> dict[str, np.ndarray]:
        """Country -> score per cluster of each of these neurons, control subtracted; empty for scores that
        are not by country."""
        scores, control = self.study.scores["neuron"], self.study.scores.get("control")
        if len(scores.countries) < 2:
            return {}
        found = {}
        for country in scores.countries:
            both = control if control is not None and country in control.countries else None
            values = per_cluster(scores, both, country=country)
            found[country] = np.array([values[Site(site)][layer, i] for site, layer, i in keys])
        return found


@dataclass(frozen=True)
class Closeup:
    """What a study's model said of the neurons."""

    selected: Selected
    keys: tuple[Key, ...]
    """The neurons, in the order of their pages."""
    questions: QuestionScores
    effects: ExactEffects | None
    """None where the model cannot be asked so, or nobody wanted it."""
    promoted: Mapping[Key, pd.DataFrame]
    """None of neurons that write nothing."""
    texts: tuple[tuple[str, ...], ...]
    """The tokens of every question as text."""
    parts: tuple[tuple[Part, ...], ...]
    """Of every cloze question; see `prompt_parts`."""
    gated: bool
    seen: bool
    """Whether neurons were found on questions that each was suppressed on."""

    @cached_property
    def column(self) -> dict[Key, int]:
        """Of a neuron in `questions` and `effects`."""
        return self.questions.neurons.columns

    @cached_property
    def by_country(self) -> dict[str, np.ndarray]:
        """`Selected.country_scores` in the order of `keys`."""
        return self.selected.country_scores(self.keys)

    @cached_property
    def place(self) -> dict[Key, int]:
        """Of a neuron among `keys`."""
        return {key: place for place, key in enumerate(self.keys)}

    @cached_property
    def countries_asked(self) -> dict[str, np.ndarray]:
        """Country -> rows of `effects` that are about it."""
        if self.effects is None:
            return {}
        named = np.array([question.country or NO_COUNTRY for question in self.effects.task])
        return {country: np.flatnonzero(named == country) for country in dict.fromkeys(sorted(named))}

    def cost(self, key: Key) -> tuple[float, float] | None:
        """(points of P(answer) that suppressing a neuron alone costs, standard error over clusters)."""
        if self.effects is None:
            return None
        drops = 100 * self.effects.drops[:, self.column[key]].astype(float)
        mean, error, _ = clustered_mean(drops, np.array([q.cluster for q in self.effects.task]))
        return mean, error

    def costs(self, key: Key) -> dict[str, tuple[float, int]]:
        """Country -> (the same, questions)."""
        if self.effects is None:
            return {}
        drops = 100 * self.effects.drops[:, self.column[key]].astype(float)
        return {c: (float(drops[rows].mean()), len(rows)) for c, rows in self.countries_asked.items()}

    @cached_property
    def neighbours(self) -> dict[Key, list[tuple[Key, float]]]:
        """Neuron -> those whose scores go up and down most like its own from question to question, with
        Spearman's rank correlation: a single question of a high score does not decide."""
        order = [self.column[key] for key in self.keys]
        values = np.array(rankdata(self.questions.weighted[:, order], axis=0), dtype=np.float64)
        values -= values.mean(0)
        norms = np.sqrt((values**2).sum(0))
        values /= np.where(norms > 0, norms, np.inf)
        found = {}
        for start in range(0, len(self.keys), 512):  # [neuron, neuron] of all of them would be large
            alike = np.round(values[:, start : start + 512].T @ values, 6)
            for row, key in zip(alike, self.keys[start : start + 512]):
                row[self.place[key]] = -np.inf
                best = np.argsort(-row, kind="stable")[:NEIGHBOURS]
                found[key] = [(self.keys[i], float(row[i])) for i in best if row[i] > 0]
        return found

    def tokens(self, key: Key, best: int) -> tuple[int, list[tuple[str, list[tuple[str, float]]]]] | None:
        """(position of a neuron's best question of that place, its parts with their tokens and what each of
        these attributes); None where there is none."""
        kept, column = self.questions.best, self.column[key]
        assert kept is not None
        at = int(kept.questions[column, best])
        if at < 0:
            return None
        texts, parts = self.texts[at], self.parts[at] or (("", 0),)
        along = kept.track(column, best, len(texts)).tolist()
        ends = [start for _, start in parts[1:]] + [len(texts)]
        pairs = list(zip(texts, along))
        return at, [
            (part_of(self.parts[at], start), pairs[start:end]) for (_, start), end in zip(parts, ends)
        ]


def unrepeated(task: Task, limit: int | None) -> Task:
    """So many questions spread over the countries, each underlying question once per country: of a neuron's
    top questions no two are the same in other words."""
    seen: set[tuple[str, str | None]] = set()
    kept = []
    for question in task:
        if (question.cluster, question.country) not in seen:
            seen.add((question.cluster, question.country))
            kept.append(question.id)
    chosen = set(kept)
    return task.filter(lambda question: question.id in chosen).limit(limit)


def look(
    selected: Selected,
    opened: OpenStudy,
    keys: Sequence[Key],
    *,
    limit: int,
    alone: int,
    batch_size: int | str,
    state: Path,
    progress: bool,
) -> Closeup:
    """Looks at neurons of a study's model, all of them together. What is unfinished is kept at `state`.

    Args:
        limit: questions that are read, of those that the neurons were found on.
        alone: questions on which each neuron is suppressed alone, of those that the study asked.
    """
    model = opened.model
    neurons = NeuronSet.from_indices(keys)
    read = question_scores(
        model,
        unrepeated(opened.culture, limit),
        neurons,
        keep=BEST,
        batch_size=batch_size,
        progress=progress,
        checkpoint=Checkpoint(reading_state(state)),
    )
    asked = next(task for task in opened.tasks if task.name == opened.culture.name)
    effects = None
    if alone:
        few = unrepeated(asked, alone)
        if all(len(prompt.rows) == 1 for prompt in asked_of(model, few).prompts):
            kept = Checkpoint(alone_state(state))
            effects = exact_effects(model, few, neurons, progress=progress, checkpoint=kept)
    gated = Site.MLP_UP in describe(model).widths
    writing = [key for key in keys if Site(key[0]) not in SILENT]
    tables = promoted_by(model, writing, count=WORDS)
    found_on = {question.id for question in opened.culture}
    return Closeup(
        selected,
        tuple(keys),
        read,
        effects,
        dict(zip(writing, tables)),
        tuple(tuple(plain_text(tokens)) for tokens in read.token_texts),
        tuple(prompt_parts(model, question) for question in read.task),
        gated,
        any(question.id in found_on for question in (effects.task if effects is not None else ())),
    )


def reading_state(state: Path) -> Path:
    """Where the unfinished pass over questions is kept."""
    return state.with_name(f"{state.name} questions.state")


def alone_state(state: Path) -> Path:
    """Where the unfinished pass that suppresses each neuron alone is kept."""
    return state.with_name(f"{state.name} alone.state")


def facts(closeup: Closeup) -> dict[str, Any]:
    """What was read and asked, for the pages' small print."""
    effects = closeup.effects
    return {
        "read": len(closeup.questions.task),
        "alone": 0 if effects is None else len(effects.task),
        "seen": closeup.seen,
        "task": closeup.questions.task.name,
    }
