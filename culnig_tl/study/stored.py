"""Studies of real models that come with the package, so that a notebook need not wait an hour for one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from .. import io
from ..data.results import EvaluationResult
from ..data.scores import NeuronScores
from ..errors import StudyError
from ..version import __version__
from .folder import RECORD
from .study import Study

FOLDER = Path(str(resources.files("culnig_tl"))) / "study" / "shipped"
WHOLE = "all countries"
"""The one row of scores that are summed over the countries."""
SECOND = "second-half"
"""Folder of the answers to questions that nobody had looked at before."""
BITS = 10
"""Significant bits of scores that are kept: a score is off by a thousandth at most."""
WORDS = ("texts", "log_likelihoods", "priors")
"""Columns of answers in words that are not kept."""


def load_study(name: str | Path) -> Study:
    """A study that comes with the package, or the one in a folder; no model is loaded.

    Of a study that comes with the package, scores are summed over the countries and rounded (each by a
    thousandth at most), to be small; sets and answers are complete.

    Args:
        name: e.g. "smollm2-135m-instruct", or the folder of a finished study.

    Raises:
        StudyError: no study of that name, and no folder with one.
    """
    stored = {path.name: path for path in FOLDER.iterdir() if path.is_dir()} if FOLDER.is_dir() else {}
    if str(name) in stored:
        return Study.load(stored[str(name)])
    if not Path(name).is_dir():
        have = ", ".join(sorted(stored)) or "none"
        raise StudyError(
            f"no study {str(name)!r}: neither a folder nor one that comes with the package ({have})"
        )
    return Study.load(name)


def store(study: Study, folder: Path, second: Mapping[str, EvaluationResult] | None = None) -> Path:
    """Writes a study as it comes with the package: record, sets, answers, and scores summed over countries
    and rounded.

    The words of a data set's options stay with it: an answer is kept as its label.

    Args:
        second: setting -> answers to the half of the questions that was not looked at until the end.
    """
    for name, scores in study.scores.items():
        summed(scores).save(folder / "scores" / f"{name}.safetensors")
    for name, neurons in study.neurons.items():
        neurons.save(folder / "neurons" / f"{name}.parquet")
    for half, results in (("results", study.results), (SECOND, second or {})):
        for name, answers in results.items():
            rows: Any = answers.table.drop(columns=list(WORDS), errors="ignore")
            rows = rows.assign(predicted=rows["predicted_label"])
            EvaluationResult(rows, answers.metadata).save(folder / half / f"{name}.parquet")
    record = {"config": asdict(study.config), "info": study.info, "version": __version__}
    io.write(folder / RECORD, (json.dumps(record, indent=1, ensure_ascii=False) + "\n").encode())
    return folder


def summed(scores: NeuronScores) -> NeuronScores:
    """The scores with one row instead of one per country: their sum, rounded to be small in a wheel."""
    return NeuronScores(
        {site: rounded(scores.total(site)[None]) for site in scores.sites},
        (WHOLE,),
        (sum(scores.questions),),
        (sum(scores.p_answer),),
        scores.clusters,
        (scores.clusters,),
        {**scores.metadata, "summed": list(scores.countries)},
    )


def rounded(values: np.ndarray) -> np.ndarray:
    """float32 values rounded to `BITS` significant bits: a wheel packs the bits away that are then 0."""
    fraction, exponent = np.frexp(values)
    return np.ldexp(np.round(np.ldexp(fraction, BITS)), exponent - BITS).astype(np.float32)
