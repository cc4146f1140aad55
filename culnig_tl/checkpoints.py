"""Checkpoints: the same study on a base model and its fine-tuned ones, side by side."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from .errors import StudyError
from .neurons import NeuronSet
from .paper import ResultsTable, results_table
from .pools import NeuronPool
from .study import GENERAL, UNCHANGED, Study


@dataclass(frozen=True)
class CheckpointComparison:
    """Studies of several checkpoints of one architecture, on the same questions."""

    studies: Mapping[str, Study]
    """Name of the checkpoint -> its study, in the order that is shown."""

    @property
    def sets(self) -> dict[str, NeuronSet]:
        """Checkpoint -> culture-general neurons."""
        return {name: study.neurons[GENERAL] for name, study in self.studies.items()}

    def overlap(self) -> pd.DataFrame:
        """Jaccard index of the culture-general neurons, checkpoint x checkpoint."""
        return self._matrix(lambda a, b: self.sets[a].jaccard(self.sets[b]))

    def rank_correlation(self) -> pd.DataFrame:
        """Spearman's rank correlation of G over all neurons, checkpoint x checkpoint."""
        ranks = {name: stats.rankdata(_contrast(study)) for name, study in self.studies.items()}
        return self._matrix(lambda a, b: float(np.corrcoef(ranks[a], ranks[b])[0, 1]))

    def layers(self) -> pd.DataFrame:
        """Culture-general neurons by layer (rows) and checkpoint (columns)."""
        count = int(next(iter(self.sets.values())).provenance.layers or 0)
        table = {name: neurons.table["layer"].value_counts().reindex(range(count), fill_value=0) for name, neurons in self.sets.items()}
        return pd.DataFrame(table).rename_axis("layer")

    def accuracy(self) -> ResultsTable:
        """Accuracy of every checkpoint, unchanged and with its own culture-general neurons suppressed."""
        settings = {
            f"{name}, {setting}": study.results[setting] for name, study in self.studies.items() for setting in (UNCHANGED, GENERAL)
        }
        return results_table(settings, paper=False)

    def figure(self) -> Any:
        """Layer x checkpoint, as a Plotly figure."""
        from . import figures

        return figures.checkpoint_heatmap(self.sets)  # type: ignore[attr-defined]

    def _matrix(self, value: Any) -> pd.DataFrame:
        names = list(self.studies)
        return pd.DataFrame([[value(a, b) for b in names] for a in names], index=names, columns=names)

    def __str__(self) -> str:
        parts = {
            "overlap of the culture-general neurons (Jaccard)": self.overlap().round(3).to_string(),
            "rank correlation over all neurons (Spearman)": self.rank_correlation().round(3).to_string(),
            "culture-general neurons by layer": self.layers().to_string(),
            "accuracy": self.accuracy().to_markdown(),
        }
        return "\n\n".join(f"{title}\n{text}" for title, text in parts.items())

    __repr__ = __str__


def compare_checkpoints(studies: Mapping[str, Study]) -> CheckpointComparison:
    """Puts finished studies of checkpoints side by side.

    Raises:
        StudyError: fewer than two, models of different shapes, or studies of other questions or thresholds.
    """
    if len(studies) < 2:
        raise StudyError(f"two checkpoints or more are compared, not {len(studies)}")
    (first_name, first), *others = studies.items()
    for name, study in others:
        for what, mine, theirs in (
            ("shapes", (first.info["layers"], first.info["widths"]), (study.info["layers"], study.info["widths"])),
            ("questions", _fingerprints(first), _fingerprints(study)),
            ("thresholds", first.neurons[GENERAL].provenance.thresholds, study.neurons[GENERAL].provenance.thresholds),
        ):
            if mine != theirs:
                raise StudyError(
                    f"{first_name} and {name} are studies with different {what}: run both with the same arguments on checkpoints of one model"
                )
    return CheckpointComparison(dict(studies))


def _fingerprints(study: Study) -> dict[str, Any]:
    return {name: task["fingerprint"] for name, task in study.info["tasks"].items()} | {
        n: s.metadata["fingerprint"] for n, s in study.scores.items()
    }


def _contrast(study: Study) -> np.ndarray:
    """G of every neuron: culture minus control, a question each."""
    neuron, control = study.scores["neuron"], study.scores["control"]
    pool = NeuronPool.of_scores(neuron, neuron.sites)
    return pool.total(neuron) / neuron.clusters - pool.total(control) / control.clusters
