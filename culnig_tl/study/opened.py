"""A finished study, opened again to continue from: its model and its questions, checked to be the study's
own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from .. import io
from ..data.results import EvaluationResult, concat
from ..engine.models import HookedModel, describe, load_model
from ..errors import StudyError
from ..method.evaluation import evaluate
from ..method.selection import select_random
from ..progress import progress_bar
from ..tasks import Task, load_task, load_tasks
from .asked import asked_tasks
from .config import GENERAL, RANDOM, UNCHANGED
from .sampling import parts_known
from .study import Study


@dataclass(frozen=True)
class OpenStudy:
    """A finished study with its model and tasks loaded again."""

    study: Study
    model: HookedModel
    tasks: tuple[Task, ...]
    """The questions that the study asked."""
    random: tuple[Task, ...]
    """The parts of them that its random sets were asked."""
    culture: Task
    """Neuron split that the study's neurons were found on."""
    reading: Task
    """Neuron split of country reading comprehension."""

    def unchanged(self, tasks: Sequence[Task]) -> EvaluationResult | None:
        """The unchanged model's answers to these tasks, which the study holds: they need not be asked again.

        None where it does not hold all of them, or the model runs in another dtype now.
        """
        known = self.study.results[UNCHANGED]
        if describe(self.model).dtype != self.study.info.get("dtype"):
            return None
        asked = pd.MultiIndex.from_tuples([(q.task, q.id) for task in tasks for q in task])
        rows = known.table.set_index(pd.MultiIndex.from_frame(known.asked))
        if not asked.isin(rows.index).all():
            return None
        prints = {"fingerprints": {task.name: task.fingerprint for task in tasks}}
        return EvaluationResult(rows.loc[asked].reset_index(drop=True), {**known.metadata, **prints})


def study_of(study: Study | OpenStudy | str | Path) -> Study:
    """The study, read from its folder where one is given. Raises `StudyError` where the folder holds none."""
    if isinstance(study, OpenStudy):
        return study.study
    return study if isinstance(study, Study) else Study.load(study)


def open_study(
    study: Study | OpenStudy | str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    data_dir: str | Path | None = None,
) -> OpenStudy:
    """Loads a study's model and questions again, and checks that they are still the same.

    Args:
        study: its folder, or the study itself. One that is already open is returned as it is.
        device, dtype: as in `load_model`.
        data_dir: local mirror of the Hub's data sets; the study's own by default.

    Raises:
        StudyError: no study in the folder, or its model or questions have changed since.
    """
    if isinstance(study, OpenStudy):
        return study
    done = study_of(study)
    config, where = done.config, data_dir or done.config.data_dir
    label = "the study" if done.folder is None else f"the study in {done.folder}"
    how: dict[str, Any] = {"data_dir": where, "wordings": config.wordings, **done.asked_as}
    how["allow_regions"] = config.allow_regions
    loaded = load_tasks(config.tasks, **how)
    whole = {task.name: task for task in loaded}
    culture = whole[done.culture_task].neuron_split().rows(config.rows).limit(config.limit)
    reading = load_task(config.reading, **how)
    reading = reading.filter(lambda q: q.split in (None, "neuron")).rows(config.rows).limit(config.limit)
    tasks = asked_tasks(config, loaded, culture, reading)
    known = [(task, done.info["tasks"][task.name]["fingerprint"]) for task in tasks]
    known += [(culture, done.scores["neuron"].metadata["fingerprint"])]
    known += [(reading, done.scores["reading"].metadata["fingerprint"])]
    for task, fingerprint in known:
        if task.fingerprint != fingerprint:
            raise StudyError(
                f"the questions of {task.name} are not those of {label}: run it again with --overwrite"
            )
    model = load_model(config.model, device=device, dtype=dtype, revision=config.revision)
    if describe(model).revision != done.info["revision"]:
        raise StudyError(
            f"{config.model} is not the model of {label} any more: run it again with --overwrite"
        )
    parts = parts_known(tasks, done.info, seed=config.seed)
    return OpenStudy(done, model, tasks, parts, culture, reading)


def more_random_sets(
    opened: OpenStudy, count: int, *, batch_size: int | str = "auto", progress: bool = True
) -> None:
    """Evaluates layer-matched random sets until the study has `count` of them.

    Each is added to the study, and saved in its folder as soon as it has been evaluated: a run that is killed
    loses one at most.
    """
    study = opened.study
    named = {
        f"{RANDOM['layer']} {seed}": seed for seed in range(study.config.seed, study.config.seed + count)
    }
    missing = {name: seed for name, seed in named.items() if name not in study.results}
    total = len(missing) * sum(map(len, opened.random))
    label = f"ask with {len(missing)} more random sets"
    with progress_bar(total, label, enabled=progress and bool(missing)) as advance:
        for name, seed in missing.items():
            neurons = select_random(study.neurons[GENERAL], study.scores["neuron"], seed=seed, match="layer")
            answers = [
                evaluate(opened.model, task, ablate=neurons, batch_size=batch_size, progress=advance)
                for task in opened.random
            ]
            study.neurons[name], study.results[name] = neurons, concat(answers)
            if study.folder is not None:
                neurons.save(io.inside(study.folder, f"neurons/{name}.parquet"))
                study.results[name].save(io.inside(study.folder, f"results/{name}.parquet"))
