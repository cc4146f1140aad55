"""Sets of neurons side by side: each is suppressed in turn, and so are random sets of its size.

    sets + random sets  ->  answers  ->  drops against the random sets

The analyses that suppress sets come here; each selects its own sets, and reads its own tables from the
answers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..data.scores import NeuronScores
from ..data.statistics import DRAWS
from ..engine.models import HookedModel
from ..errors import ScoreError
from ..method.evaluation import evaluate_sets
from ..method.selection import select_random
from ..study.comparison import Comparison, compare
from ..tasks.question import Task
from .overlap import overlaps


@dataclass(frozen=True)
class ComparedSets:
    """Several sets of one model: their neurons, their overlap, and what each costs on every task."""

    sets: Mapping[str, NeuronSet]
    """Name -> neurons."""
    base: EvaluationResult
    """Answers of the unchanged model."""
    results: Mapping[str, EvaluationResult]
    """Name -> answers with the set suppressed."""
    random: Mapping[str, tuple[EvaluationResult, ...]] = field(default_factory=dict)
    """Name -> answers with layer-matched random sets of its size suppressed."""

    def overlap(self) -> pd.DataFrame:
        """One row per pair of sets: shared neurons, how many chance would give, Jaccard index, p
        (hypergeometric, one-sided)."""
        return overlaps(self.sets)

    def drops(self, *, draws: int = DRAWS) -> dict[str, Comparison]:
        """Set -> its cost on every task, against its random sets. Raises `ScoreError` where there are
        none."""
        return {
            name: compare(self.base, result, self.random.get(name, ()), draws=draws)
            for name, result in self.results.items()
        }

    def table(self, *, draws: int = DRAWS) -> pd.DataFrame:
        """One row per set and task asked, in points: drop and its 95% interval, random sets' drop, excess, p
        (by Holm over a set's tasks)."""
        parts = []
        for name, comparison in self.drops(draws=draws).items():
            part = comparison.table().reset_index(names="asked")
            part.insert(0, "set", name)
            part.insert(1, "neurons", len(self.sets[name]))
            parts.append(part)
        return pd.concat(parts, ignore_index=True)

    def tables(self) -> dict[str, pd.DataFrame]:
        """File stem -> table."""
        return {"overlap": self.overlap(), "cross-effects": self.table()}

    def __str__(self) -> str:
        overlap, table = (part.round(digits) for part, digits in zip((self.overlap(), self.table()), (4, 3)))
        return f"{overlap.to_string(index=False)}\n\n{table.to_string(index=False)}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return "".join(part.round(4).to_html(index=False) for part in self.tables().values())


def compare_sets(
    model: HookedModel,
    tasks: Sequence[Task],
    sets: Mapping[str, NeuronSet],
    random_sets: int = 0,
    *,
    scores: NeuronScores | None = None,
    base: EvaluationResult | None = None,
    scale: float = 0.0,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> ComparedSets:
    """Asks the tasks unchanged, with each set suppressed, and with random sets of its size suppressed.

    Args:
        tasks: to ask; questions that the sets were not found on.
        sets: name -> neurons.
        random_sets: how many layer-matched random sets are drawn for each set, with seeds 0, 1, ...
        scores: of the same model: they say which neurons random sets are drawn from.
        base: answers of the unchanged model to the same tasks, where they are at hand.
        scale: what the neurons' outputs are multiplied by; 0 suppresses.

    Raises:
        ScoreError: no task, or random sets without scores. NeuronError: random sets for an empty set.
    """
    if random_sets and scores is None:
        raise ScoreError(
            "random sets are drawn from the neurons of scores: give scores=... of the same model"
        )
    drawn = {
        f"random {seed} for {name}": select_random(neurons, scores, seed=seed, match="layer")  # type: ignore[arg-type]
        for name, neurons in sets.items()
        for seed in range(random_sets)
    }
    wanted: dict[str, NeuronSet | None] = {} if base is not None else {"unchanged": None}
    wanted |= {f"set {name}": neurons for name, neurons in sets.items()} | drawn
    answers = evaluate_sets(model, tasks, wanted, scale=scale, batch_size=batch_size, progress=progress)
    return ComparedSets(
        sets,
        answers["unchanged"] if base is None else base,
        {name: answers[f"set {name}"] for name in sets},
        {
            name: tuple(answers[f"random {seed} for {name}"] for seed in range(random_sets))
            for name in (sets if random_sets else ())
        },
    )


def accuracy_columns(base: EvaluationResult, result: EvaluationResult) -> dict[str, float]:
    """A row's columns "<task> accuracy", "<task> se" (percent) and "<task> drop" (points) for every task."""
    before, after = base.accuracy(), result.accuracy()
    row = {}
    for task in after.index:
        row[f"{task} accuracy"] = float(after.loc[task, "accuracy"])  # type: ignore[arg-type]
        row[f"{task} se"] = float(after.loc[task, "se"])  # type: ignore[arg-type]
        row[f"{task} drop"] = float(before.loc[task, "accuracy"] - after.loc[task, "accuracy"])  # type: ignore[operator]
    return row


def pool_counts(neurons: NeuronSet) -> dict[str, int]:
    """A row's columns "mlp" and "attn": neurons of each pool."""
    return {
        pool: sum(len(index) for (site, _), index in neurons.indices.items() if site.pool == pool)
        for pool in ("mlp", "attn")
    }
