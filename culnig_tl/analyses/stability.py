"""Stability: how often each neuron returns when the questions, or the words they are asked in, change.

Two answers for each neuron of a set: the share of bootstrap replicates in which the same selection finds it
again (whole clusters of questions are drawn, see `score_neurons(..., bootstrap=B)`), and the share of
instruction wordings on which it is found. Both are stored with the set, in its columns `returns` and
`wordings`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..data.neurons import NeuronSet
from ..data.scores import NeuronScores
from ..defaults import DROP_READING, TOP_ATTN, TOP_MLP
from ..engine.models import HookedModel
from ..errors import NeuronError, TaskError
from ..method.score import score_neurons
from ..method.selection import select_general
from ..study.opened import OpenStudy, open_study
from ..study.study import Study
from ..tasks import load_task, miniculture
from ..tasks.countries import COUNTRIES
from ..tasks.facts import fact_questions
from ..tasks.question import Task
from ..tasks.wordings import wordings as wordings_of

REPLICATES = 100


@dataclass(frozen=True)
class Stability:
    """One selection, repeated on bootstrap replicates and on other wordings."""

    neurons: NeuronSet
    """The selection on all questions, with its columns `returns` and, where wordings were compared,
    `wordings`."""
    replicates: tuple[NeuronSet, ...]
    wordings: Mapping[str, NeuronSet]
    """Name of a wording -> the neurons found with it."""

    def ever_selected(self) -> pd.DataFrame:
        """Every neuron that some replicate or wording selects: site, layer, neuron, selected (in the set
        itself), returns, wordings."""
        times = Counter(key for chosen in self.replicates for key in chosen.keys())
        across = Counter(key for chosen in self.wordings.values() for key in chosen.keys())
        mine = self.neurons.keys()
        keys = sorted({*times, *across, *mine})
        table = pd.DataFrame(keys, columns=["site", "layer", "neuron"])
        table["selected"] = [key in mine for key in keys]
        table["returns"] = _share(times, keys, len(self.replicates))
        table["wordings"] = _share(across, keys, len(self.wordings))
        return table.sort_values(["returns", "wordings"], ascending=False, kind="stable").reset_index(
            drop=True
        )

    def table(self) -> pd.DataFrame:
        """One row per kind of repeat and pool.

        Columns neurons (of the set), mean_returns, always and half_or_more (shares of them that return every
        time, or at least every other time), and the mean Jaccard index of the repeated selections with the
        set and among each other.
        """
        rows = []
        for kind, sets in (("bootstrap", list(self.replicates)), ("wordings", list(self.wordings.values()))):
            if not sets:
                continue
            column = "returns" if kind == "bootstrap" else "wordings"
            for pool in ("mlp", "attn", "all"):
                inside = [s if pool == "all" else _of_pool(s, pool) for s in (self.neurons, *sets)]
                if not len(inside[0]):
                    continue
                share = inside[0].table[column].to_numpy(float)
                pairs = [one.jaccard(other) for i, one in enumerate(inside[1:]) for other in inside[i + 2 :]]
                own = [inside[0].jaccard(other) for other in inside[1:]]
                rows.append(
                    (
                        kind,
                        pool,
                        len(inside[0]),
                        len(sets),
                        share.mean(),
                        (share == 1).mean(),
                        (share >= 0.5).mean(),
                        np.mean(own),
                        np.mean(pairs) if pairs else np.nan,
                    )
                )
        columns = [
            "kind",
            "pool",
            "neurons",
            "repeats",
            "mean_returns",
            "always",
            "half_or_more",
            "jaccard_with_set",
            "jaccard_among",
        ]
        return pd.DataFrame(rows, columns=columns)

    def overlap(self) -> pd.DataFrame:
        """Wording x wording: Jaccard index of the neurons found with each."""
        cells = [[one.jaccard(other) for other in self.wordings.values()] for one in self.wordings.values()]
        return pd.DataFrame(
            cells, index=pd.Index(list(self.wordings), name="wording"), columns=list(self.wordings)
        )

    def tables(self) -> dict[str, pd.DataFrame]:
        """File stem -> table; "wordings" where several were compared."""
        tables = {"stability": self.table(), "returns": self.ever_selected()}
        return tables | ({"wordings": self.overlap().reset_index()} if self.wordings else {})

    def __str__(self) -> str:
        return f"{self.neurons}\n{self.table().round(3).to_string(index=False)}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.table().round(3).to_html(index=False)


def stability(
    study: Study | OpenStudy | str | Path,
    *,
    replicates: int = REPLICATES,
    wordings: Sequence[str | Path] = (),
    seed: int = 0,
    batch_size: int | str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> Stability:
    """A study's selection again on bootstrap replicates of its questions and in other wordings: how often
    each neuron returns.

    Args:
        study: its folder, or the study itself; device, dtype and data_dir as in `open_study`.
        replicates: of the bootstrap; each takes the memory of the scores.
        wordings: TOML files of wordings, beside those that the task has itself.
        seed: of the bootstrap.

    Raises:
        StudyError: the study's model or questions have changed.
    """
    opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir)
    config, culture = opened.study.config, opened.culture
    how: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    shares = {
        "top_mlp": config.top_mlp,
        "top_attn": config.top_attn,
        "drop_reading": config.drop_reading,
    }
    asked = in_wordings(culture)
    for path in wordings:
        where: dict[str, Any] = {"data_dir": data_dir or config.data_dir, "wordings": path}
        task = load_task(culture.name, **where, **opened.study.asked_as)
        others = in_wordings(task.neuron_split().rows(config.rows).limit(config.limit))
        asked |= {f"{path}, {name}": other for name, other in others.items()}
    scored = [
        score_neurons(opened.model, task, bootstrap=replicates, seed=seed, **how)
        for task in (culture, culture.control(), opened.reading)
    ]
    found: dict[str, NeuronSet] = {}
    if len(asked) > 1:
        found = select_by_wording(opened.model, asked, scored[2], **shares, **how)
    return selection_stability(*scored, wordings=found, **shares)


def selection_stability(
    scores: NeuronScores,
    control: NeuronScores | None = None,
    reading: NeuronScores | None = None,
    *,
    wordings: Mapping[str, NeuronSet] | None = None,
    top_mlp: float = TOP_MLP,
    top_attn: float = TOP_ATTN,
    drop_reading: float = DROP_READING,
) -> Stability:
    """Repeats the selection of culture-general neurons on every bootstrap replicate.

    Args:
        scores, control, reading: as in `select_general`, each scored with as many replicates
            (``bootstrap=B``) and the same seed: the same cluster is then drawn equally often for a task and
            its control.
        wordings: what `select_by_wording` returned.
        top_mlp, top_attn, drop_reading: as in `select_general`.

    Raises:
        NeuronError: scores without replicates, or with different numbers of them.
    """
    everything = (scores, control, reading)
    given = [s for s in everything if s is not None]
    counts = {len(s.replicate_clusters) for s in given}
    if counts == {0} or len(counts) > 1:
        raise NeuronError(
            "stability needs scores with replicates, as many for each task: score_neurons(..., bootstrap=100)"
        )

    def select(*of: NeuronScores | None) -> NeuronSet:
        return select_general(*of, top_mlp=top_mlp, top_attn=top_attn, drop_reading=drop_reading)  # type: ignore[misc]

    drawn = [
        number for number in range(counts.pop()) if all(s.replicate_clusters[number][0] for s in given)
    ]  # some cluster of each was drawn
    repeated = tuple(select(*(s and s.replicate(number) for s in everything)) for number in drawn)
    by_wording = dict(wordings or {})
    return Stability(with_returns(select(*everything), repeated, by_wording), repeated, by_wording)


def with_returns(
    neurons: NeuronSet, replicates: Sequence[NeuronSet], wordings: Mapping[str, NeuronSet]
) -> NeuronSet:
    """The set with its columns `returns` and `wordings`: the share of the repeated selections that hold each
    neuron."""
    keys = list(zip(neurons.table["site"], neurons.table["layer"], neurons.table["neuron"]))
    table = neurons.table.copy()
    for column, sets in (("returns", list(replicates)), ("wordings", list(wordings.values()))):
        if sets:
            table[column] = _share(Counter(key for chosen in sets for key in chosen.keys()), keys, len(sets))
    return NeuronSet(table, neurons.provenance)


def select_by_wording(
    model: HookedModel,
    tasks: Mapping[str, Task],
    reading: NeuronScores | None,
    *,
    top_mlp: float = TOP_MLP,
    top_attn: float = TOP_ATTN,
    drop_reading: float = DROP_READING,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> dict[str, NeuronSet]:
    """Selects culture-general neurons on the same questions in each wording.

    Args:
        tasks: name of a wording -> the culture task's neuron split in it, see `in_wordings`. Controls are
            subtracted where there are any.
        reading: scores of country reading comprehension, the same for all wordings.
        top_mlp, top_attn, drop_reading: as in `select_general`.

    Raises:
        TaskError: no wording.
    """
    if not tasks:
        raise TaskError("no wording to compare")

    def score(task: Task) -> NeuronScores:
        return score_neurons(model, task, batch_size=batch_size, progress=progress)

    sets = {}
    for name, task in tasks.items():
        scores, control = score(task), score(task.control()) if task.has_control else None
        sets[name] = select_general(
            scores, control, reading, top_mlp=top_mlp, top_attn=top_attn, drop_reading=drop_reading
        )
    return sets


def in_wordings(task: Task) -> dict[str, Task]:
    """The same questions in every instruction wording, as far as the task has them.

    A task that asks each question in several wordings (culturalbench, normad, a user's file) is split by
    wording. miniculture, which asks in one, is put into the others too; of those, the embedded model has read
    the facts in training. Any other task comes back alone: read it again with wordings of your own
    (``load_task(name, wordings=FILE)``).
    """
    templates = sorted({q.template for q in task})
    if len(templates) > 1:
        return {f"wording {k}": task.filter(lambda q, k=k: q.template == k) for k in templates}
    if task.name != miniculture.NAME or not len(task):
        return {f"wording {templates[0]}": task} if templates else {}
    return {
        f"wording {number}": _miniculture(task, wording, number)
        for number, wording in enumerate(wordings_of(miniculture.NAME))
    }


def _miniculture(task: Task, wording: Any, number: int) -> Task:
    """The questions of miniculture that the task asks, in another wording."""
    asked = {q.id for q in task}
    order = {country: place for place, country in enumerate(COUNTRIES)}
    facts = [fact for fact in {fact.id: fact for fact in miniculture.facts()}.values() if not fact.told]
    rows = [
        question
        for fact in facts
        for question in fact_questions(
            miniculture.NAME, fact, wording, number, country=fact.subject, split=task[0].split
        )
        if question.id in asked
    ]
    rows.sort(key=lambda q: (order[q.country or ""], q.cluster))
    return Task(task.name, tuple(rows), source=task.source, licence=task.licence, culture=True)


def _share(times: Counter[Any], keys: Sequence[Any], of: int) -> np.ndarray:
    return np.array([times[key] / of for key in keys]) if of else np.full(len(keys), np.nan)


def _of_pool(neurons: NeuronSet, pool: str) -> NeuronSet:
    return NeuronSet(neurons.table.loc[neurons.table["site"].str.startswith(pool)], neurons.provenance)
