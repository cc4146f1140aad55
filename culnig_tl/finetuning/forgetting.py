"""Forgetting: what training on a task costs in culture, by which modules are trained.

    found = measure_forgetting(TOY_FORGETTING, folder="runs/forgetting")
    found.table(); found.changes(); found.overlap(); figures.plot(found)

One base model is fine-tuned once per group of modules (top, bottom, matched, random) and seed. Before and
after, it is asked the trained task, the cultural tasks and the others, and its culture-general neurons are
found.
"""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from ..analyses.paper import ResultsTable, results_table
from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..data.statistics import Drop, compare_drops
from ..errors import FineTuningError
from ..figures import accuracy_bars, checkpoint_heatmap, forgetting_marks, plot, plots
from .config import ForgettingConfig
from .modules import ModuleGroup
from .tuning import FineTuned

TRAINED, CULTURE, WITHOUT = "trained task", "culture", "without culture"


@dataclass(frozen=True)
class Forgetting:
    """A base model and its fine-tuned ones, asked the same questions."""

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
        """Accuracy before, and after by group (mean and spread over seeds), as in the paper's table."""
        return results_table(
            {"before": self.before, **{g: list(seeds.values()) for g, seeds in self.after.items()}},
            paper=False,
        )

    def changes(self) -> pd.DataFrame:
        """One row per training and task, in points.

        Columns group, seed, task, culture, trained, before, after, change (accuracy), p_before, p_after,
        p_change (mean P(answer), which moves before accuracy does).
        """
        before = self.before.accuracy()
        rows = []
        for group, seeds in self.after.items():
            for seed, result in seeds.items():
                after = result.accuracy()
                for task in after.index:
                    row: dict[str, Any] = {"group": group, "seed": seed, "task": task}
                    row |= {"culture": self.culture[str(task)], "trained": task == self.trained}
                    for label, column, scale in (("", "accuracy", 1), ("p_", "p_answer", 100)):
                        old, new = (scale * t[column][task] for t in (before, after))
                        row |= {f"{label}before": old, f"{label}after": new, f"{label}change": new - old}
                    rows.append(row)
        return pd.DataFrame(rows)

    def summary(self) -> pd.DataFrame:
        """Change in points by group: of the trained task, of culture, of tasks without it (means over tasks).

        Columns group, asked, change (mean over seeds), std, min, max (over seeds), p_change (mean P(answer)),
        seeds.
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
        """What training a group costs on a task, beside training a rival group; both are means over seeds.

        `excess` is the difference in points, with an interval over clusters of questions; the spread over
        seeds is in `summary`. Raises `FineTuningError` for a group or task that was not measured.
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
        clusters = self.before.table.loc[here, "cluster"].to_numpy()
        return compare_drops(right(self.before), np.mean(mine, axis=0), theirs, clusters)

    def overlap(self) -> pd.DataFrame:
        """Where the culture-general neurons went: one row per training.

        Columns group, seed, neurons (after), jaccard (with those before), stayed (share of those before that
        are still among them), in_trained_before, in_trained_after (share of the neurons that sit in the
        trained modules).
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

    def tables(self) -> dict[str, pd.DataFrame]:
        """Every table, by the name of its file."""
        return {
            "accuracy": self.table().to_dataframe(),
            "changes": self.changes(),
            "summary": self.summary(),
            "overlap": self.overlap(),
        }

    def sentence(self) -> str:
        """What training each group cost, with the spread over seeds, and how top compares with matched."""
        summary = self.summary().set_index(["group", "asked"])
        names = {TRAINED: f"on {self.trained}", CULTURE: "on culture", WITHOUT: WITHOUT}
        parts = []
        for group in self.after:
            rows = {
                name: summary.loc[(group, asked)]
                for asked, name in names.items()
                if (group, asked) in summary.index
            }
            said = [
                f"{_signed(row['change'])} ({_signed(row['min'])} to {_signed(row['max'])}) {name}"
                for name, row in rows.items()
            ]
            parts.append(f"{group} {', '.join(said)}")
        count = len(self.config.seeds)
        over = f"mean of {count} seed{'s' * (count > 1)} (least to most)"
        text = f"Points after training on {self.trained}, {over}: {'; '.join(parts)}."
        if {"top", "matched"} <= set(self.after):
            for task, culture in self.culture.items():
                if culture and task != self.trained:
                    text += f" On {task} {_compared(self.against(task))}{self._control(task)}."
        return text

    def _control(self, task: str) -> str:
        """The same difference on the tasks without culture, as part of a sentence about a cultural one."""
        others = [name for name, culture in self.culture.items() if not culture and name != self.trained]
        if not others:
            return ""
        excess = {name: self.against(name).excess for name in others}
        said = (
            f"{abs(points):.1f} {'more' if points > 0 else 'less'} on {name}"
            for name, points in excess.items()
        )
        text = f"; of the tasks without culture {', '.join(said)}"
        beyond = self.against(task)
        if beyond.excess_low > 0 and max(excess.values()) >= beyond.excess:
            text += ", so it is not culture alone that loses more"
        return text

    def __str__(self) -> str:
        return f"{self.sentence()}\n{self.table()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        overlap = self.overlap().round(3).to_html(index=False)
        table: Any = self.table()
        return f"<p>{html.escape(self.sentence())}</p>{table._repr_html_()}{overlap}"


def _share_in(neurons: NeuronSet, places: set[tuple[int, str]]) -> float:
    """Share of the neurons that sit in these modules."""
    inside = sum(
        len(index) for (site, layer), index in neurons.indices.items() if (layer, site.pool) in places
    )
    return inside / max(1, sum(map(len, neurons.indices.values())))


def _compared(drop: Drop) -> str:
    """Whether training top costs more than training matched."""
    low, high, interval = drop.excess_low, drop.excess_high, "95% interval over questions"
    if low > 0 or high < 0:
        word = "more" if low > 0 else "less"
        least, most = sorted((abs(low), abs(high)))
        return (
            f"training top costs {abs(drop.excess):.1f} points {word} than training matched "
            f"({interval} {least:.1f} to {most:.1f})"
        )
    between = f"{_signed(-drop.excess)} points, {interval} {_signed(-high)} to {_signed(-low)}"
    return f"it is open whether training top costs more or less than training matched ({between})"


def _signed(value: Any) -> str:
    return f"{round(float(value), 1) + 0.0:+.1f}".replace("-", "−")


# ------------------------------------------------------------------------------------------------- as figures


@plot.register
def _(found: Forgetting) -> go.Figure:
    return forgetting_marks(found.changes())


@plots.register
def _(found: Forgetting) -> dict[str, go.Figure]:
    """Accuracy and layers are shown before, and after by group at the first seed."""
    after = {group: next(iter(seeds.values())) for group, seeds in found.after.items()}
    general = {f"after {group}": next(iter(seeds.values())) for group, seeds in found.general_after.items()}
    return {
        "forgetting": plot(found),
        "accuracy": accuracy_bars({"before": found.before, **after}),
        "layers": checkpoint_heatmap({"before": found.general, **general}),
    }
