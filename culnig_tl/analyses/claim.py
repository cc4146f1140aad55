"""The claim: could what a study found have come out otherwise?

Against random sets of both kinds, against a rival set, by depth, and in the form of the paper's table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..defaults import TOY
from ..method.score import score_neurons
from ..method.selection import select_rival
from ..study.comparison import Comparison, compare, halves
from ..study.config import GENERAL, RANDOM, RIVAL, UNCHANGED
from ..study.opened import OpenStudy, more_random_sets, open_study
from ..study.study import Study
from ..tasks import load_task
from .compare_sets import compare_sets
from .depth import depth_thirds
from .paper import ResultsTable, results_table
from .plain_text import TextComparison, compare_text

RIVAL_TASK = "commonsenseqa"
TOY_RANDOM_SETS = 200
"""Enough for a rank to mean something; a quarter of an hour on the toy, days on a large model."""

TEXT_RANDOM_SETS = 10
"""Random sets that plain text is read with."""


@dataclass(frozen=True)
class Claim:
    """What a study's culture-general neurons cost, against everything that it could be mistaken for."""

    against_random: Mapping[str, Comparison]
    """Kind of random sets ("random", "random by layer"), where the study has some -> drops on every task."""
    against_rival: Comparison
    """Drops against the rival set, whose own drop is `random_mean`; questions that the rival was found on are
    left out."""
    rival_task: str
    """Task without culture that the rival's neurons were found on."""
    sets: Mapping[str, NeuronSet]
    """The study's culture-general neurons and the rival's."""
    depth: pd.DataFrame
    """What `depth_thirds` says of the culture-general neurons."""
    results: ResultsTable
    """Accuracy in the form of the paper's table."""
    text: TextComparison | None = None
    """What both sets cost of plain text; None for a model that has no words for it."""

    def rival_table(self) -> pd.DataFrame:
        """One row per task, in points: drop, the rival's drop, and the excess over it (95% interval)."""
        rows = self.against_rival.table().reset_index().rename(columns={"random_mean": "rival_drop"})
        columns = ["task", "base", "drop", "rival_drop", "excess", "excess_low", "excess_high"]
        return rows.reindex(columns=columns)

    def tables(self) -> dict[str, pd.DataFrame]:
        """File stem -> table: "claim" (every comparison), "depth", "table" (in the paper's form), and
        "plain-text" where that was asked."""
        every = {**self.against_random, f"rival ({self.rival_task})": self.against_rival}
        frames = [found.table().reset_index().assign(against=label) for label, found in every.items()]
        tables = {
            "claim": pd.concat(frames, ignore_index=True),
            "depth": self.depth.reset_index(),
            "table": self.results.to_dataframe(),
        }
        return tables if self.text is None else tables | {"plain-text": self.text.table().reset_index()}

    def __str__(self) -> str:
        parts = []
        for label, found in self.against_random.items():
            count = min(drop.random_sets for drop in found.drops.values())
            parts.append(f"Against {count} sets: {label}\n{found}")
        general, rival = self.sets[GENERAL], self.sets[RIVAL]
        parts.append(
            f"Against the rival: {len(rival)} neurons, layer by layer, highest on {self.rival_task} "
            f"({len(rival & general)} of them are culture-general too)\n{_text(self.rival_table())}"
        )
        if self.text is not None:
            parts.append(
                f"Plain text\n{self.text.sentence(GENERAL)}\n{_text(self.text.table().reset_index())}"
            )
        title = "Depth: percent of the neurons in each third of the layers, 95% interval, against the pool"
        parts += [f"{title}\n{_text(self.depth.reset_index())}", self.results.to_markdown()]
        return "\n\n".join(parts)

    __repr__ = __str__


def claim(
    study: Study | OpenStudy | str | Path,
    *,
    rival: str | None = None,
    random_sets: int | None = None,
    batch_size: int | str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    data_dir: str | Path | None = None,
    progress: bool = True,
) -> Claim:
    """A study's drops against both kinds of random sets and a rival set, depth in thirds, and the table in
    the paper's form.

    Args:
        study: its folder, or the study itself; device, dtype and data_dir as in `open_study`.
        rival: task without culture that the rival's neurons are found on; the study's own, or commonsenseqa,
            by default.
        random_sets: layer-matched random sets. What the study lacks is evaluated, and kept in its folder. 200
            by default for the toy, for other models those of the study.

    Raises:
        StudyError: the study's model or questions have changed. TaskError: an unknown rival, or one too small
            to be cut in two.
    """
    opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir)
    done = opened.study
    where = data_dir or done.config.data_dir
    how: dict[str, Any] = {"data_dir": where, "wordings": done.config.wordings, **done.asked_as}
    plain = load_task(rival or done.config.rival or RIVAL_TASK, **how)
    name, (found_on, asked_on) = plain.name, halves(plain)
    if random_sets is None and done.config.model == TOY:
        random_sets = TOY_RANDOM_SETS
    if random_sets is not None:
        more_random_sets(opened, random_sets, batch_size=batch_size, progress=progress)
    general, base, ablated = done.neurons[GENERAL], done.results[UNCHANGED], done.results[GENERAL]
    settings: dict[str, EvaluationResult | Sequence[EvaluationResult]] = {UNCHANGED: base, GENERAL: ablated}
    for match, label in RANDOM.items():
        random = [done.results[setting] for setting in done.random_settings(match)]
        settings |= {label: random} if random else {}
    against_random = {
        label: compare(base, ablated, settings[label])  # type: ignore[arg-type]
        for label in RANDOM.values()
        if label in settings
    }
    scores = score_neurons(opened.model, found_on, batch_size=batch_size, progress=progress)
    sets = {GENERAL: general, RIVAL: select_rival(general, scores)}
    # The rival's neurons were found on one half of its task; both sets are compared on what is left of it.
    left = {q.id for q in asked_on}
    tasks = [task.filter(lambda q: q.id in left) if task.name == name else task for task in opened.tasks]
    if not any(task.name == name for task in tasks):
        tasks.append(asked_on)
    known = opened.unchanged(tasks)
    drawn = [done.neurons[setting] for setting in done.random_settings("layer") if setting in done.neurons]
    answers = compare_sets(opened.model, tasks, sets, base=known, batch_size=batch_size, progress=progress)
    return Claim(
        against_random,
        compare(answers.base, answers.results[GENERAL], [answers.results[RIVAL]]),
        name,
        sets,
        depth_thirds(general),
        results_table(settings, base=base),
        compare_text(opened.model, sets, drawn[:TEXT_RANDOM_SETS]),
    )


def _text(table: pd.DataFrame) -> str:
    return table.round(3).to_string(index=False)
