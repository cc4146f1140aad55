"""The whole study: score, select, switch off, ask, draw. One folder holds all of it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from . import __version__, files
from .attribution import score_neurons
from .comparison import halves
from .errors import StudyError, TaskError
from .evaluation import EvaluationResult, concat, evaluate
from .folder import StudyFolder
from .loading import check_folder, looks_like_path
from .models import describe, load_model
from .progress import progress_bar
from .scores import NeuronScores
from .selection import select_culture_general, select_culture_specific, select_random, select_rival
from .study import GENERAL, RANDOM, RIVAL, SPECIFIC, TOY_CONFIG, UNCHANGED, Study, StudyConfig
from .tasks import Task, load_task


def run_study(
    config: StudyConfig = TOY_CONFIG,
    *,
    model: Any = None,
    folder: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Study:
    """Runs a study, and writes it to `folder` as it goes.

    Args:
        config: model, tasks, thresholds.
        model: a loaded model; `config.model` is loaded without it.
        folder: where to write scores, neurons, results, figures and report.html; None keeps all in memory.
        resume: go on with the study that the folder holds; finished pieces are not made again.
        overwrite: replace the study that the folder holds.

    Raises:
        StudyError: a folder that holds another study, tasks of which none is cultural.
    """
    if model is None and looks_like_path(config.model):
        check_folder(Path(config.model))  # before data sets are fetched
    place = StudyFolder(Path(folder) if folder is not None else None, asdict(config), resume=resume, overwrite=overwrite)
    tasks, culture, reading = _load_tasks(config)
    if model is None:
        model = load_model(config.model, device=config.device, dtype=config.dtype, revision=config.revision)
    about = describe(model)
    info = {
        "model": about.name,
        "revision": about.revision,
        "dtype": about.dtype,
        "device": about.device,
        "layers": about.layers,
        "widths": {site.value: width for site, width in about.widths.items()},
        "tasks": {t.name: {"culture": t.culture, "fingerprint": t.fingerprint, "source": t.source, "questions": len(t)} for t in tasks},
        "versions": _versions(),
    }
    place.start(info)
    study = Study(config, info, folder=place.folder)

    def score(name: str, task: Task) -> NeuronScores:
        return place.piece(
            f"scores/{name}.safetensors",
            NeuronScores.load,
            lambda: score_neurons(model, task, batch_size=config.batch_size, progress=progress),
            lambda s: (s.metadata["fingerprint"], s.metadata["revision"]) == (task.fingerprint, about.revision),
        )

    found_on = culture.neuron_split().limit(config.limit)
    study.scores["neuron"] = score("neuron", found_on)
    study.scores["control"] = score("control", found_on.control())
    study.scores["reading"] = score("reading", reading)
    neuron, control, crc = (study.scores[n] for n in ("neuron", "control", "reading"))
    rival = next((t for t in tasks if t.name == config.rival), None)
    if rival is not None:
        study.scores[RIVAL] = score(RIVAL, halves(load_task(rival.name, data_dir=config.data_dir))[0].limit(config.limit))

    general = select_culture_general(neuron, control, crc, t_mlp=config.t_mlp, t_attn=config.t_attn, r=config.r)
    study.neurons[GENERAL] = general
    study.neurons[SPECIFIC] = select_culture_specific(neuron, control, crc, t=config.t_specific, r=config.r, z=config.z)
    if rival is not None:
        study.neurons[RIVAL] = select_rival(general, study.scores[RIVAL])
    for match, label in RANDOM.items():
        for seed in range(config.seed, config.seed + config.random_sets):
            study.neurons[f"{label} {seed}"] = select_random(general, neuron, seed=seed, match=match)  # type: ignore[arg-type]
    for name, neurons in study.neurons.items():
        place.save(f"neurons/{name}.parquet", neurons)

    settings = (UNCHANGED, *(name for name in study.neurons if name != SPECIFIC))
    questions = sum(len(task) for task in tasks)
    with progress_bar(len(settings) * questions, f"ask {len(tasks)} tasks in {len(settings)} settings", enabled=progress) as advance:
        for setting in settings:
            switched = None if setting == UNCHANGED else study.neurons[setting]
            study.results[setting] = place.piece(
                f"results/{setting}.parquet",
                EvaluationResult.load,
                lambda n=switched: concat([evaluate(model, t, neurons=n, batch_size=config.batch_size, progress=advance) for t in tasks]),
                lambda r, n=switched: (
                    (r.metadata["neurons"], r.metadata["revision"], r.metadata["fingerprints"])
                    == (n.hash if n is not None else None, about.revision, {t.name: t.fingerprint for t in tasks})
                ),
            )
    if place.folder is not None:
        from .report import write_report

        for name, figure in study.figures().items():
            files.write(place.folder / "figures" / f"{name}.html", figure.to_html(include_plotlyjs=True, full_html=True).encode())
        write_report(study, place.folder / "report.html")
    return study


def _load_tasks(config: StudyConfig) -> tuple[list[Task], Task, Task]:
    """(test splits to ask, the whole task that neurons are found on, the reading task's neuron split)."""
    whole = [load_task(name, data_dir=config.data_dir) for name in dict.fromkeys(config.tasks)]
    culture = next((t for t in whole if t.culture and _has_control(t)), None)
    if culture is None:
        raise StudyError(f"none of the tasks {', '.join(config.tasks)} has cultural questions with a control and a neuron split: add blend")
    reading = load_task(config.reading, data_dir=config.data_dir)
    reading = reading.filter(lambda q: q.split in (None, "neuron")).limit(config.limit)
    return [task.test_split().limit(config.limit) for task in whole], culture, reading


def _has_control(task: Task) -> bool:
    try:
        task.neuron_split().control()
    except TaskError:
        return False
    return True


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names: Sequence[str] = ("torch", "transformer-lens", "transformers", "datasets", "numpy")
    return {"culnig_tl": __version__, "python": platform.python_version(), **{name: version(name) for name in names}}
