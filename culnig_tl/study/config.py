"""What decides a study: one dataclass is its arguments, the command line's options with their help, and `study.json`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from ..defaults import DROP_READING, MIN_Z, RANDOM_SETS, TOP_ATTN, TOP_MLP, TOP_SPECIFIC, TOY
from ..errors import StudyError

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
    top_mlp: float = TOP_MLP
    """Share of the MLP neurons that are candidates."""
    top_attn: float = TOP_ATTN
    """Share of the pooled q, k, v neurons that are candidates."""
    drop_reading: float = DROP_READING
    """Share, highest by reading comprehension, that is removed."""
    top_specific: float = TOP_SPECIFIC
    """Share of all neurons that are candidates for one country."""
    z: float = MIN_Z
    """Least z of a country's own neurons over the countries."""
    random_sets: int = RANDOM_SETS
    """Random sets of each kind (matched by count as in the paper, and by count in every site and layer)."""
    limit: int | None = None
    """Questions a task and split, spread evenly over countries and wordings; None asks all."""
    seed: int = 0
    """Of the first random set; the others follow."""
    batch_size: int | str = "auto"
    """Questions a batch, or "auto"."""
    device: str = "auto"
    device_map: str | None = None
    """"auto" spreads a model over all GPUs (and the CPU); instead of `device`."""
    dtype: str = "auto"
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    data_dir: str | None = None
    """Local mirror of the Hub's data sets: FOLDER/<org>/<name>."""


TOY_CONFIG = StudyConfig(
    tasks=("miniculture", "minicommonsense", "minireading", "miniparaphrase", "minianswers"),
    reading="minireading",
    rival="minicommonsense",
    top_mlp=0.05,
    top_attn=0.01,
    top_specific=0.02,
)
"""The toy has a thousandth of a real model's neurons: 1% of them is two dozen. These shares were fixed before any
suppression of the shipped model was looked at."""


def config_from(stored: Mapping[str, Any]) -> StudyConfig:
    """The configuration that a `study.json` holds. Raises `StudyError` for an argument that this version does not know."""
    known = {f.name for f in fields(StudyConfig)}
    unknown = set(stored) - known
    if unknown:
        raise StudyError(f"study.json has an argument that this version does not know: {sorted(unknown)[0]}")
    return replace(StudyConfig(), **{**stored, "tasks": tuple(stored["tasks"])})
