"""Regions: questions answered in words, region by region, unchanged and with neurons suppressed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult
from ..engine.models import HookedModel
from ..errors import NeuronError
from ..method.answers.generation import MAX_NEW_TOKENS
from ..method.answers.short_answers import LANGUAGE, ask_in_folder, by_region
from ..study.comparison import Comparison, compare
from ..study.config import UNCHANGED
from ..tasks import load_task
from .inputs import model_of


@dataclass(frozen=True)
class RegionAnswers:
    """Answers in words, unchanged and with sets of neurons suppressed."""

    results: Mapping[str, EvaluationResult]
    """"unchanged", then the set, then random sets -> answers."""

    def table(self) -> pd.DataFrame:
        """One row per region and language: accuracy unchanged with its standard error (percent), questions,
        and accuracy with each set suppressed."""
        base, *others = self.results.items()
        by = ["country", LANGUAGE]
        table = base[1].accuracy(by).filter(["accuracy", "se", "questions"])
        table = table.rename(columns={"accuracy": UNCHANGED})
        for name, result in others:
            table[name] = result.accuracy(by)["accuracy"]
        return table

    def whole(self) -> Comparison | None:
        """What the set costs on all questions together, against the random sets; None without any."""
        return self._compared(list(self.results.values()))

    def regions(self) -> Comparison | None:
        """What the set costs on each region's questions in each language, against the random sets; None
        without any."""
        return self._compared([by_region(result) for result in self.results.values()])

    @property
    def analysers(self) -> tuple[str, ...]:
        """What answers were compared with."""
        return tuple(sorted(set(self.results[UNCHANGED].metadata["analysers"].values())))

    def tables(self) -> dict[str, pd.DataFrame]:
        """File stem -> table; "comparison" where there are random sets."""
        regions = self.regions()
        tables = {"regions": self.table().reset_index()}
        return tables | ({} if regions is None else {"comparison": regions.table().reset_index()})

    @staticmethod
    def _compared(results: Sequence[EvaluationResult]) -> Comparison | None:
        return compare(results[0], results[1], results[2:]) if len(results) > 2 else None

    def __str__(self) -> str:
        whole = self.whole()
        parts = [self.table().round(1).to_string(), *([] if whole is None else [str(whole)])]
        return "\n\n".join([*parts, f"answers compared with: {'; '.join(self.analysers)}"])

    __repr__ = __str__


def short_answers(
    model: HookedModel | str | Path,
    folder: str | Path = Path("runs") / "answers",
    *,
    neurons: NeuronSet | None = None,
    random: Sequence[NeuronSet] = (),
    language: Literal["local", "en"] = "local",
    scale: float = 0.0,
    max_new_tokens: int = MAX_NEW_TOKENS,
    limit: int | None = None,
    data_dir: str | Path | None = None,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> RegionAnswers:
    """Asks blend-saq, unchanged and with neurons suppressed. Called again, it resumes where it was stopped.

    Args:
        model: loaded, or its name or folder.
        folder: where answers are kept, one file per set.
        neurons: to suppress.
        random: random neurons to compare with, as `select_random` gives them.
        language: "local" (each region's own) or "en".
        scale: what the neurons' outputs are multiplied by; 0 suppresses.
        max_new_tokens: tokens of an answer at most.
        limit: questions, spread evenly over countries.
        data_dir: local mirror of the Hub's data sets.

    Raises:
        NeuronError: random sets without neurons.
    """
    if random and neurons is None:
        raise NeuronError("random sets are compared with neurons: give both")
    sets: dict[str, NeuronSet | None] = {UNCHANGED: None}
    if neurons is not None:
        sets["suppressed" if scale == 0 else f"x {scale:g}"] = neurons
    sets |= {f"random {number}": chosen for number, chosen in enumerate(random)}
    task = load_task("blend-saq", data_dir=data_dir, language=language).limit(limit)
    return RegionAnswers(
        ask_in_folder(
            model_of(model),
            task,
            sets,
            folder,
            scale=scale,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=progress,
        )
    )
