"""A study: what decides it, and what it found. `pipeline.run_study` makes one, `Study.load` reads one from its folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .comparison import in_first_half
from .errors import StudyError
from .evaluation import EvaluationResult
from .folder import read_record
from .models import TOY
from .neurons import NeuronSet
from .scores import NeuronScores
from .selection import T_ATTN, T_MLP, T_SPECIFIC, R, Z
from .statistics import Drop, compare_drops

UNCHANGED, GENERAL, SPECIFIC, RIVAL = "unchanged", "culture-general", "culture-specific", "rival"
RANDOM = {"count": "random", "layer": "random by layer"}
"""How random sets are matched -> what they are called in tables."""


@dataclass(frozen=True)
class StudyConfig:
    """All that decides a study's result: arguments, help texts and `study.json` at once."""

    model: str = TOY
    """"toy", a Hub id, or a folder with a Hugging Face checkpoint."""
    tasks: tuple[str, ...] = ("blend", "commonsenseqa", "qnli", "mrpc")
    """Tasks to ask; the neurons are found on the first that has cultural questions with a control."""
    reading: str = "countryrc"
    """Country reading comprehension: neurons that serve it are removed."""
    rival: str | None = "commonsenseqa"
    """Task without culture: as many neurons with its highest attribution are suppressed too, where it is among the tasks."""
    t_mlp: float = T_MLP
    """Share of the MLP neurons that are candidates."""
    t_attn: float = T_ATTN
    """Share of the pooled q, k, v neurons that are candidates."""
    r: float = R
    """Share, highest by reading comprehension, that is removed."""
    t_specific: float = T_SPECIFIC
    """Share of all neurons that are candidates for one country."""
    z: float = Z
    """Least z of a country's own neurons over the countries."""
    random_sets: int = 10
    """Random sets of each kind (matched by count as in the paper, and by count in every site and layer)."""
    limit: int | None = None
    """Questions a task and split, spread evenly over countries and wordings; None asks all."""
    seed: int = 0
    """Of the first random set; the others follow."""
    batch_size: int | str = "auto"
    """Questions a batch, or "auto"."""
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    data_dir: str | None = None
    """Local mirror of the Hub's data sets: FOLDER/<org>/<name>."""


TOY_CONFIG = StudyConfig(
    tasks=("miniculture", "minicommonsense", "minireading", "miniparaphrase", "minianswers"),
    reading="minireading",
    rival="minicommonsense",
    t_mlp=0.05,
    t_attn=0.01,
    t_specific=0.02,
)
"""The toy has a thousandth of a real model's neurons: 1% of them is two dozen. These shares were fixed before any
suppression of the shipped model was looked at."""


@dataclass
class Study:
    """A study's results; `run_study` makes one, `Study.load` reads one back."""

    config: StudyConfig
    info: dict[str, Any]
    """Model, revision, layers, versions, and each task's fingerprint and kind."""
    scores: dict[str, NeuronScores] = field(default_factory=dict)
    """"neuron", "control", "reading", and "rival" where there is one."""
    neurons: dict[str, NeuronSet] = field(default_factory=dict)
    """"culture-general", "culture-specific", "rival", and the random sets."""
    results: dict[str, EvaluationResult] = field(default_factory=dict)
    """Setting -> answers on all tasks: "unchanged" and every set that was suppressed."""
    folder: Path | None = None

    # ------------------------------------------------------------------------------------------- what was found

    @property
    def culture_task(self) -> str:
        """The task that neurons were found on."""
        return self.scores["neuron"].task

    def random_settings(self, match: str) -> list[str]:
        """Names of the random sets of one kind that were evaluated."""
        return [name for name in self.results if name.rpartition(" ")[0] == RANDOM[match]]

    def drop(self, task: str, match: str = "layer") -> Drop:
        """What suppressing the culture-general neurons costs on a task, against random sets."""

        def right(setting: str) -> np.ndarray:
            table = self.results[setting].table
            return table.loc[table["task"] == task, "correct"].to_numpy(float)

        table = self.results[UNCHANGED].table
        clusters = table.loc[table["task"] == task, "cluster"].to_numpy()
        if not len(clusters):
            raise StudyError(f"no answers to {task!r}: this study asked {', '.join(self.info['tasks'])}")
        return compare_drops(right(UNCHANGED), right(GENERAL), [right(s) for s in self.random_settings(match)], clusters)

    def drop_against_rival(self, task: str) -> Drop:
        """What suppressing the culture-general neurons costs on a task, against as many neurons of the rival's.

        Of the rival's own task only the half that its neurons were not found on is counted. Raises `StudyError` without a rival.
        """
        if RIVAL not in self.results:
            raise StudyError(f"this study has no rival: it asked {', '.join(self.info['tasks'])}, and the rival is {self.config.rival}")
        table = self.results[UNCHANGED].table
        rows = (table["task"] == task).to_numpy()
        if task == self.config.rival:
            rows &= ~table["cluster"].map(lambda cluster: in_first_half(task, cluster)).to_numpy(bool)
        right = [self.results[s].table.loc[rows, "correct"].to_numpy(float) for s in (UNCHANGED, GENERAL, RIVAL)]
        return compare_drops(right[0], right[1], right[2:], table.loc[rows, "cluster"].to_numpy())

    def drops(self, match: str = "layer") -> pd.DataFrame:
        """One row a task: what suppressing costs, against random sets matched by "layer" or "count"."""
        rows = {}
        for task in self.info["tasks"]:
            drop = self.drop(task, match)
            rows[task] = {**asdict(drop), "p_rank": drop.p_rank, "culture": self.info["tasks"][task]["culture"]}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")

    def table(self) -> pd.DataFrame:
        """Settings x tasks: accuracy in percent; columns (task, "accuracy" | "se"). Random rows are means over their sets.

        The error of a random row is the standard deviation over its sets, of the others the standard error over clusters.
        """
        rows: dict[str, dict[tuple[str, str], float]] = {}
        for label, setting in ((UNCHANGED, UNCHANGED), (GENERAL, GENERAL), (f"rival ({self.config.rival})", RIVAL)):
            if setting not in self.results:
                continue
            accuracy = self.results[setting].accuracy()
            rows[label] = {(t, c): float(accuracy.loc[t, c]) for t in accuracy.index for c in ("accuracy", "se")}  # type: ignore[arg-type]
        for match, name in RANDOM.items():
            settings = self.random_settings(match)
            if settings:
                each = pd.DataFrame({s: self.results[s].accuracy()["accuracy"] for s in settings})
                label = f"{name} (mean of {len(settings)})"
                rows[label] = {
                    (t, c): v for t in each.index for c, v in (("accuracy", each.loc[t].mean()), ("se", each.loc[t].std(ddof=1)))
                }  # type: ignore[misc]
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("setting")

    def sentence(self) -> str:
        """What was found, in one sentence that the numbers write."""
        general = self.neurons[GENERAL]
        share = len(general) / (sum(general.provenance.pool.values()) * int(general.provenance.layers or 0))
        culture = self.drop(self.culture_task)
        others = [task for task, about in self.info["tasks"].items() if not about["culture"]]
        nlu = [self.drop(task) for task in others]
        text = (
            f"Suppressing {len(general):,} culture-general neurons ({100 * share:.1f}% of those scored) takes {self.culture_task} from "
            f"{culture.base:.1f}% to {culture.base - culture.drop:.1f}% ({_signed(-culture.drop)} points, 95% interval {_signed(-culture.high)} to "
            f"{_signed(-culture.low)}; layer-matched random sets {_signed(-culture.random_mean)} on average, rank {culture.rank} of {culture.random_sets + 1})"
        )
        if nlu:
            text += f", and the tasks without culture by {_signed(-float(np.mean([d.drop for d in nlu])))} on average (random {_signed(-float(np.mean([d.random_mean for d in nlu])))})"
        return f"{text}: {self.verdict()}."

    def verdict(self) -> str:
        """Whether the drop is more than random, and whether it is culture alone."""
        culture = self.drop(self.culture_task)
        if culture.excess_low <= 0 or culture.rank > 1:
            return "no more than random sets cost, so nothing is shown about culture"
        worst = max((self.drop(task).excess for task, about in self.info["tasks"].items() if not about["culture"]), default=None)
        if worst is None:
            return "more than every random set; no task without culture was asked, so it may not be culture alone"
        if worst >= culture.excess:
            return "more than every random set, but a task without culture loses as much, so it is not culture alone"
        return "more than every random set, and more than any task without culture loses"

    def figures(self) -> dict[str, Any]:
        """Name -> Plotly figure."""
        from . import figures

        general = self.neurons[GENERAL]
        answers = {setting: self.results[setting] for setting in (UNCHANGED, GENERAL)}
        for match, name in RANDOM.items():
            answers[f"one {name}"] = self.results[self.random_settings(match)[0]]
        return {
            "layer_distribution": figures.layer_distribution(general),
            "layer_heatmap": figures.layer_heatmap(general),
            "accuracy": figures.accuracy_bars(answers),
        }

    def __str__(self) -> str:
        return f"Study of {self.config.model}: {self.sentence()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(str(self))}</p>{self.table().round(2).to_html()}"

    # ------------------------------------------------------------------------------------------- its folder

    @classmethod
    def load(cls, folder: str | Path) -> Study:
        """Reads a study's folder. Raises `StudyError` where it holds none."""
        folder = Path(folder)
        record = read_record(folder)
        if record is None:
            raise StudyError(f"{folder} holds no study: no study.json in it")
        study = cls(_config(record["config"]), record["info"], folder=folder)
        for path in sorted((folder / "scores").glob("*.safetensors")):
            study.scores[path.stem] = NeuronScores.load(path)
        for path in sorted((folder / "neurons").glob("*.parquet")):
            study.neurons[path.stem] = NeuronSet.load(path)
        for path in sorted((folder / "results").glob("*.parquet")):
            study.results[path.stem] = EvaluationResult.load(path)
        missing = (
            [n for n in ("neuron",) if n not in study.scores]
            + [n for n in (GENERAL,) if n not in study.neurons]
            + [n for n in (UNCHANGED, GENERAL) if n not in study.results]
        )
        if missing:
            raise StudyError(f"the study in {folder} is not finished ({', '.join(missing)} missing): run it again with --resume")
        return study


def _config(stored: Mapping[str, Any]) -> StudyConfig:
    known = {f.name for f in fields(StudyConfig)}
    unknown = set(stored) - known
    if unknown:
        raise StudyError(f"study.json has an argument that this version does not know: {sorted(unknown)[0]}")
    return replace(StudyConfig(), **{**stored, "tasks": tuple(stored["tasks"])})


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")
