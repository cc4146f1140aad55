"""Checkpoints: studies side by side, of a base model and fine-tuned ones, or of different models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ..data.neurons import NeuronSet
from ..data.pools import NeuronPool
from ..data.results import EvaluationResult
from ..errors import StudyError
from ..study.config import GENERAL, UNCHANGED
from ..study.findings import Findings
from ..study.opened import study_of
from ..study.study import Study
from .paper import ResultsTable, results_table


@dataclass(frozen=True)
class CheckpointComparison:
    """Finished studies side by side. What cannot be compared is left out (NaN); `remarks` says why."""

    studies: Mapping[str, Study]
    """Name of the checkpoint -> its study, in the order of tables."""

    @property
    def sets(self) -> dict[str, NeuronSet]:
        """Checkpoint -> culture-general neurons."""
        return {name: study.neurons[GENERAL] for name, study in self.studies.items()}

    @cached_property
    def findings(self) -> dict[str, Findings]:
        """Checkpoint -> what its study's numbers say, for those that have random sets."""
        return {
            name: study.findings() for name, study in self.studies.items() if study.random_settings("layer")
        }

    def remarks(self) -> list[str]:
        """What cannot be compared between these studies, and why: one sentence each."""
        return [*self._of_shapes(), *self._of_questions(), *self._of_selections()]

    def overlap(self) -> pd.DataFrame:
        """Checkpoint x checkpoint: Jaccard index of their culture-general neurons; NaN between different
        shapes."""
        return self._matrix(lambda a, b: self.sets[a].jaccard(self.sets[b]))

    def chance_overlap(self) -> pd.DataFrame:
        """The overlap expected of sets of these sizes, drawn at random from each pool (MLP, attention)."""

        def expected(a: str, b: str) -> float:
            shared = 0.0
            layers = self.studies[a].info["layers"]
            first, second = self.sets[a], self.sets[b]
            pools = {site.pool for site, _ in first.indices}
            for pool in pools:
                mine, theirs = (
                    sum(len(i) for (site, _), i in s.indices.items() if site.pool == pool)
                    for s in (first, second)
                )
                size = layers * sum(
                    width for name, width in first.provenance.pool.items() if name.startswith(pool)
                )
                shared += mine * theirs / size if size else 0.0
            return shared / (len(first) + len(second) - shared) if len(first) + len(second) else 1.0

        return self._matrix(expected)

    def rank_correlation(self) -> pd.DataFrame:
        """Checkpoint x checkpoint: Spearman's correlation of G over all neurons; NaN between different
        shapes."""
        ranks = {name: stats.rankdata(_contrast(study)) for name, study in self.studies.items()}
        return self._matrix(lambda a, b: float(np.corrcoef(ranks[a], ranks[b])[0, 1]))

    def layers(self) -> pd.DataFrame:
        """Layer x checkpoint: number of culture-general neurons; NaN below a checkpoint's last layer."""
        deepest = max(study.info["layers"] for study in self.studies.values())
        table = {}
        for name, neurons in self.sets.items():
            counts = (
                neurons.table["layer"]
                .value_counts()
                .reindex(range(self.studies[name].info["layers"]), fill_value=0)
            )
            table[name] = counts if len(counts) == deepest else counts.reindex(range(deepest))
        return pd.DataFrame(table).rename_axis("layer")

    def accuracy(self) -> ResultsTable:
        """Accuracy of every checkpoint, unchanged and with its own culture-general neurons suppressed."""
        settings = {
            f"{name}, {setting}": self.told_apart(study.results[setting])
            for name, study in self.studies.items()
            for setting in (UNCHANGED, GENERAL)
        }
        return results_table(settings, paper=False)

    def drops(self) -> pd.DataFrame:
        """One row per checkpoint and task, in points: what its own neurons cost, against layer-matched random
        sets."""
        rows = [
            {
                "checkpoint": name,
                "task": task,
                "culture": drops.culture,
                **asdict(drops.layer),
                "p_rank": drops.layer.p_rank,
            }
            for name, found in self.findings.items()
            for task, drops in found.drops.items()
        ]
        return pd.DataFrame(rows)

    def told_apart(self, result: EvaluationResult) -> EvaluationResult:
        """A result whose tasks carry their fingerprint where studies asked different questions of one
        name."""
        mixed = {task for task, fingerprints in self._asked().items() if len(set(fingerprints.values())) > 1}
        names = {
            task: f"{task} #{mark[:6]}"
            for task, mark in result.metadata.get("fingerprints", {}).items()
            if task in mixed
        }
        return (
            EvaluationResult(result.table.assign(task=result.table["task"].replace(names)), result.metadata)
            if names
            else result
        )

    def tables(self) -> dict[str, pd.DataFrame]:
        """File stem -> table."""
        return {
            "overlap": self.overlap().rename_axis("checkpoint").reset_index(),
            "rank-correlation": self.rank_correlation().rename_axis("checkpoint").reset_index(),
            "layers": self.layers().reset_index(),
            "accuracy": self.accuracy().to_dataframe(),
        }

    # ---------------------------------------------------------------------------------------------- its parts

    def _of_shapes(self) -> list[str]:
        """Remarks on layers and widths."""
        groups, said = self._groups(_shape), []
        if len(groups) > 1:
            shapes = "; ".join(
                f"{', '.join(names)}: {_shape_in_words(self.studies[names[0]])}" for names in groups
            )
            said.append(
                f"These models have different shapes ({shapes}): neuron 7 of one is not neuron 7 of the"
                " other, so the overlap and the rank correlation are left out between them, and layers are"
                " compared as shares."
            )
        if any(len(names) > 1 for names in groups):
            said.append(
                "Overlap and rank correlation compare neurons by their place: they mean something where one"
                " checkpoint was trained from the other."
            )
        return said

    def _of_questions(self) -> list[str]:
        """Remarks on what neurons were found on and what was asked."""
        said = []
        if len({study.scores["neuron"].metadata.get("fingerprint") for study in self.studies.values()}) > 1:
            said.append(
                "The studies found their neurons on different questions: part of what differs between the"
                " sets is the questions."
            )
        asked = self._asked()
        mixed = [task for task, fingerprints in asked.items() if len(set(fingerprints.values())) > 1]
        if mixed:
            said.append(
                f"Different questions of {', '.join(mixed)} were asked: what the studies answer stands in"
                " columns of their own."
            )
        only = {
            task: fingerprints
            for task, fingerprints in asked.items()
            if task not in mixed and len(fingerprints) < len(self.studies)
        }
        return said + [f"{task} was asked of {', '.join(names)} only." for task, names in only.items()]

    def _of_selections(self) -> list[str]:
        """Remarks on thresholds and random sets."""
        said = []
        thresholds = self._groups(
            lambda s: tuple(sorted((k, str(v)) for k, v in s.neurons[GENERAL].provenance.thresholds.items()))
        )
        if len(thresholds) > 1:
            said.append(
                f"Thresholds differ ({' | '.join(', '.join(names) for names in thresholds)}): the sizes of"
                " the sets follow from that."
            )
        without = [name for name in self.studies if name not in self.findings]
        if without:
            said.append(f"{', '.join(without)} has no random sets: nothing is claimed of it.")
        return said

    def _groups(self, key: Callable[[Study], Any]) -> list[list[str]]:
        """Names of the checkpoints that are alike."""
        groups: dict[Any, list[str]] = {}
        for name, study in self.studies.items():
            groups.setdefault(key(study), []).append(name)
        return list(groups.values())

    def _asked(self) -> dict[str, dict[str, str]]:
        """Task -> checkpoint -> fingerprint of the questions."""
        tasks: dict[str, dict[str, str]] = {}
        for name, study in self.studies.items():
            for task, about in study.info["tasks"].items():
                tasks.setdefault(task, {})[name] = about["fingerprint"]
        return tasks

    def _matrix(self, value: Callable[[str, str], float]) -> pd.DataFrame:
        names = list(self.studies)
        alike = {name: number for number, group in enumerate(self._groups(_shape)) for name in group}
        rows = [[value(a, b) if alike[a] == alike[b] else float("nan") for b in names] for a in names]
        return pd.DataFrame(rows, index=names, columns=names)

    def __str__(self) -> str:
        parts = {
            "overlap of the culture-general neurons (Jaccard)": self.overlap().round(3).to_string(),
            "rank correlation over all neurons (Spearman)": self.rank_correlation().round(3).to_string(),
            "culture-general neurons by layer": self.layers().to_string(),
            "accuracy": self.accuracy().to_markdown(),
        }
        return "\n\n".join([*(f"{title}\n{text}" for title, text in parts.items()), *self.remarks()])

    __repr__ = __str__


def compare_checkpoints(studies: Mapping[str, Study | str | Path]) -> CheckpointComparison:
    """Puts finished studies side by side: of checkpoints of one model, or of different models.

    What cannot be compared, such as the overlap of neurons between models of different shapes, is left out,
    and `CheckpointComparison.remarks` says so.

    Args:
        studies: name of the checkpoint -> its study, or the study's folder.

    Raises:
        StudyError: fewer than two, or a folder without a finished study.
    """
    if len(studies) < 2:
        raise StudyError(f"compare two checkpoints or more, not {len(studies)}")
    return CheckpointComparison({name: study_of(study) for name, study in studies.items()})


def _shape(study: Study) -> tuple[int, tuple[tuple[str, int], ...]]:
    return study.info["layers"], tuple(sorted(study.info["widths"].items()))


def _shape_in_words(study: Study) -> str:
    widths = study.neurons[GENERAL].provenance.pool or study.info["widths"]
    return (
        f"{study.info['layers']} layers of {', '.join(f'{width:,} {site}' for site, width in widths.items())}"
    )


def _contrast(study: Study) -> np.ndarray:
    """[neuron] G: culture minus control, each per question."""
    neuron, control = study.scores["neuron"], study.scores["control"]
    pool = NeuronPool.of_scores(neuron, neuron.sites)
    return pool.total(neuron) / neuron.clusters - pool.total(control) / control.clusters
