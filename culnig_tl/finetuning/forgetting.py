"""Forgetting: what training on a task costs in culture, by which modules are trained.

    found = measure_forgetting(TOY_FORGETTING, folder="runs/forgetting")
    found.table(); found.changes(); found.overlap(); found.figure()

The same base model is fine-tuned once a group of modules (top, bottom, matched, random) and seed; before and after, it is
asked the trained task, the cultural tasks and the others, and its culture-general neurons are found anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import io
from ..analyses.paper import ResultsTable, results_table
from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..data.statistics import Drop, compare_drops
from ..defaults import DROP_READING, TOP_ATTN, TOP_MLP, TOY
from ..errors import FineTuningError
from ..study.config import TOY_CONFIG
from .finetune import FineTuned, TrainingConfig
from .modules import CHOICES, SHARE, ModuleGroup

TRAINED, CULTURE, WITHOUT = "trained task", "culture", "without culture"


@dataclass(frozen=True)
class ForgettingConfig:
    """All that decides what is found."""

    model: str = TOY
    """"toy", a Hub id, or a folder with a checkpoint in safetensors."""
    task: str = "qnli"
    """Trained on: qnli, mrpc, blend's neuron topics, or a file with rows of the split neuron."""
    tasks: tuple[str, ...] = ("blend", "commonsenseqa", "qnli", "mrpc")
    """Asked before and after; the trained one is asked too where it has questions to test with."""
    modules: tuple[str, ...] = CHOICES
    """Groups to train, one at a time: top, bottom, matched, random; or modules by name (mlp.13), which make up one group."""
    share: float = SHARE
    """Of the parameters that a group holds."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """One training a group and seed: order of the questions, and which modules are random."""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Its seed is one of `seeds` in turn."""
    reading: str = "countryrc"
    """Country reading comprehension: neurons that serve it are none of culture's."""
    top_mlp: float = TOP_MLP
    top_attn: float = TOP_ATTN
    drop_reading: float = DROP_READING
    """As in a study; those of the given neurons take their place."""
    limit: int | None = None
    """Questions a task and split, asked or scored; training takes all."""
    batch_size: int | str = "auto"
    """Of asking and scoring."""
    revision: str | None = None
    data_dir: str | None = None


TOY_FORGETTING = ForgettingConfig(
    task="minisynonyms",
    tasks=TOY_CONFIG.tasks,
    reading=TOY_CONFIG.reading,
    training=TrainingConfig(learning_rate=1e-3),
    top_mlp=TOY_CONFIG.top_mlp,
    top_attn=TOY_CONFIG.top_attn,
    drop_reading=TOY_CONFIG.drop_reading,
)
"""What the toy is taught it half knows: it was never asked for a word of the same meaning. Of 3e-4 and 1e-3 the learning rate is
the smaller with which every set of modules tried learns the task to 90% in one epoch; still smaller ones were not tried on this
task. That was decided on the trained task alone, before any answer about culture was looked at."""


@dataclass(frozen=True)
class Forgetting:
    """A base model and its fine-tuned ones, asked the same."""

    config: ForgettingConfig
    trained: str
    """The task that was trained on."""
    culture: Mapping[str, bool]
    """Task -> whether it asks about cultures."""
    groups: Mapping[str, Mapping[int, ModuleGroup]]
    """Group -> seed -> modules; those of random differ by seed."""
    before: EvaluationResult
    after: Mapping[str, Mapping[int, EvaluationResult]]
    """Group -> seed -> answers of the fine-tuned model."""
    general: NeuronSet
    """Culture-general neurons of the base model."""
    general_after: Mapping[str, Mapping[int, NeuronSet]]
    models: Mapping[str, Mapping[int, FineTuned]]

    def table(self) -> ResultsTable:
        """Accuracy before, and after by group: mean and standard deviation over seeds, in the form of the paper's table."""
        return results_table(
            {"before": self.before, **{g: list(seeds.values()) for g, seeds in self.after.items()}},
            paper=False,
        )

    def changes(self) -> pd.DataFrame:
        """A row a training and task, in points.

        Columns group, seed, task, culture, trained, before, after, change (accuracy), p_before, p_after, p_change (mean
        P(answer), which moves before accuracy does).
        """
        before = self.before.accuracy()
        rows = []
        for group, seeds in self.after.items():
            for seed, result in seeds.items():
                after = result.accuracy()
                for task in after.index:
                    row: dict[str, Any] = {
                        "group": group,
                        "seed": seed,
                        "task": task,
                        "culture": self.culture[str(task)],
                    }
                    row["trained"] = task == self.trained
                    for label, column, scale in (("", "accuracy", 1), ("p_", "p_answer", 100)):
                        old, new = (scale * float(table.loc[task, column]) for table in (before, after))  # type: ignore[arg-type]
                        row |= {f"{label}before": old, f"{label}after": new, f"{label}change": new - old}
                    rows.append(row)
        return pd.DataFrame(rows)

    def summary(self) -> pd.DataFrame:
        """Change in points by group, of the trained task, of culture, and of the tasks without it (means over tasks).

        Columns group, asked, change (mean over seeds), std, min, max (over seeds), p_change (mean P(answer)), seeds.
        """
        changes = self.changes()
        changes["asked"] = np.where(
            changes["trained"], TRAINED, np.where(changes["culture"], CULTURE, WITHOUT)
        )
        each: Any = changes.groupby(["group", "asked", "seed"], sort=False)[["change", "p_change"]].mean()
        groups = each.groupby(level=["group", "asked"], sort=False)
        change = groups["change"]
        columns = {"change": change.mean(), "std": change.std(), "min": change.min(), "max": change.max()}
        return pd.DataFrame(
            {**columns, "p_change": groups["p_change"].mean(), "seeds": groups.size()}
        ).reset_index()

    def against(self, task: str, *, group: str = "top", rival: str = "matched") -> Drop:
        """What training a group costs on a task, against training a rival group: both as the mean over seeds.

        `excess` is the difference in points, its interval over clusters of questions; the spread over seeds is in `summary`.
        Raises `FineTuningError` for a group or task that was not measured.
        """
        for name in (group, rival):
            if name not in self.after:
                raise FineTuningError(f"no modules {name!r} were trained: groups are {', '.join(self.after)}")
        here = (self.before.table["task"] == task).to_numpy()
        if not here.any():
            raise FineTuningError(f"{task!r} was not asked: tasks are {', '.join(self.culture)}")

        def right(result: EvaluationResult) -> np.ndarray:
            return result.table.loc[here, "correct"].to_numpy(float)

        mine, theirs = ([right(result) for result in self.after[name].values()] for name in (group, rival))
        return compare_drops(
            right(self.before),
            np.mean(mine, axis=0),
            theirs,
            self.before.table.loc[here, "cluster"].to_numpy(),
        )

    def overlap(self) -> pd.DataFrame:
        """Where the culture-general neurons went: a row a training.

        Columns group, seed, neurons (after), jaccard (with those before), stayed (share of those before that are still among
        them), in_trained_before, in_trained_after (share of the neurons that sit in the trained modules).
        """
        rows = []
        for group, seeds in self.general_after.items():
            for seed, after in seeds.items():
                trained = {(module.layer, module.kind) for module in self.groups[group][seed]}
                rows.append(
                    {
                        "group": group,
                        "seed": seed,
                        "neurons": len(after),
                        "jaccard": self.general.jaccard(after),
                        "stayed": len(self.general & after) / len(self.general),
                        "in_trained_before": _share_in(self.general, trained),
                        "in_trained_after": _share_in(after, trained),
                    }
                )
        return pd.DataFrame(rows)

    def figure(self) -> Any:
        """Change in accuracy by task and group, a mark a seed, as a Plotly figure."""
        from .. import figures

        return figures.forgetting_marks(self.changes())  # type: ignore[attr-defined]

    def accuracy_figure(self) -> Any:
        """Accuracy before, and after by group at the first seed."""
        from .. import figures

        return figures.accuracy_bars(
            {"before": self.before, **{g: next(iter(seeds.values())) for g, seeds in self.after.items()}}
        )

    def layers_figure(self) -> Any:
        """Culture-general neurons by layer, before and after (first seed)."""
        from .. import figures

        return figures.checkpoint_heatmap(
            {
                "before": self.general,
                **{f"after {g}": next(iter(seeds.values())) for g, seeds in self.general_after.items()},
            }
        )

    def sentence(self) -> str:
        """What training cost culture, group by group with the spread over seeds, and whether top costs more than matched."""
        summary = self.summary().set_index(["group", "asked"])
        parts = []
        for group in self.after:
            said = []
            for asked in (TRAINED, CULTURE, WITHOUT):
                if (group, asked) in summary.index:
                    row = summary.loc[(group, asked)]
                    where = (
                        f"on {self.trained}"
                        if asked == TRAINED
                        else "on culture"
                        if asked == CULTURE
                        else asked
                    )
                    said.append(
                        f"{_signed(row['change'])} ({_signed(row['min'])} to {_signed(row['max'])}) {where}"
                    )
            parts.append(f"{group} {', '.join(said)}")
        count = len(self.config.seeds)
        text = f"Points after training on {self.trained}, mean of {count} seed{'s' * (count > 1)} (least to most): {'; '.join(parts)}."
        if {"top", "matched"} <= set(self.after):
            for task in (task for task, culture in self.culture.items() if culture and task != self.trained):
                text += f" On {task} {_compared(self.against(task))}."
        return text

    def __str__(self) -> str:
        return f"{self.sentence()}\n{self.table()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(self.sentence())}</p>{self.table()._repr_html_()}{self.overlap().round(3).to_html(index=False)}"

    def save(self, folder: str | Path) -> Path:
        """Writes tables and figures to the folder."""
        folder = Path(folder)
        contents = {
            "accuracy.md": self.table().to_markdown(),
            "accuracy.csv": self.table().to_csv(),
            "changes.csv": self.changes().to_csv(index=False),
            "summary.csv": self.summary().to_csv(index=False),
            "overlap.csv": self.overlap().to_csv(index=False),
        }
        for name, figure in (
            ("forgetting", self.figure()),
            ("accuracy", self.accuracy_figure()),
            ("layers", self.layers_figure()),
        ):
            contents[f"figures/{name}.html"] = figure.to_html(include_plotlyjs=True, full_html=True)
        for name, text in contents.items():
            io.write(folder / name, text.encode())
        return folder


def _share_in(neurons: NeuronSet, places: Iterable[tuple[int, str]]) -> float:
    """Share of the neurons that sit in these modules."""
    inside = set(places)
    found = [
        (layer, site.pool) in inside for site, layer in neurons.indices for _ in neurons.indices[site, layer]
    ]
    return float(np.mean(found)) if found else 0.0


def _compared(drop: Drop) -> str:
    """Whether training top costs more than training matched."""
    over = "95% interval over questions"
    if drop.excess_low > 0:
        return f"training top costs {drop.excess:.1f} points more than training matched ({over} {drop.excess_low:.1f} to {drop.excess_high:.1f})"
    if drop.excess_high < 0:
        return f"training top costs {-drop.excess:.1f} points less than training matched ({over} {-drop.excess_high:.1f} to {-drop.excess_low:.1f})"
    between = (
        f"{_signed(-drop.excess)} points, {over} {_signed(-drop.excess_high)} to {_signed(-drop.excess_low)}"
    )
    return f"no difference is seen between training top and training matched ({between})"


def _signed(value: Any) -> str:
    return f"{round(float(value), 1) + 0.0:+.1f}".replace("-", "−")
