"""The whole study: score, select, switch off, ask, draw. One folder holds all of it.

Each step is a piece that `pieces` makes or takes from the folder; `plan` distributes them over a cluster.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..engine.checkpoint import SAVE_EVERY
from ..engine.loading import check_path, looks_like_path
from ..engine.memory import check_memory
from ..engine.models import HookedModel, describe, load_model
from ..method.form import choose_form
from ..progress import progress_bar
from ..study.config import RIVAL, TOY_CONFIG, UNCHANGED, Asking, ModelConfig, StudyConfig
from ..study.folder import StudyFolder, read_record
from ..study.study import Study
from ..tasks import load_task
from ..tasks.question import CONTROL, Form
from ..version import __version__
from .pieces import NEURON, Pieces, Questions, form_asked, select, settings_of
from .repeat import check_repeats

log = logging.getLogger(__name__)


def run_study(
    config: StudyConfig = TOY_CONFIG,
    *,
    model: HookedModel | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    save_every: float = SAVE_EVERY,
    repeats: Mapping[str, Any] | None = None,
) -> Study:
    """Runs a study, and writes it to `folder` as it goes.

    Where torch.distributed was started, the processes share the questions; the first writes.

    Args:
        config: model, tasks, thresholds.
        model: a loaded model; `config.model` is loaded without it.
        folder: where to write scores, neurons, results, figures and report.html; None keeps all in memory.
        resume: resume the study in the folder; finished pieces are kept, unfinished ones continue from where
            they were.
        overwrite: replace the study in the folder.
        save_every: seconds between two saves of what is unfinished.
        repeats: the `info` of the study that this one repeats.

    Raises:
        StudyError: a folder that holds another study or that another run is working in, no cultural task, or
            a model or questions that are not those of the study to be repeated.
        ScoreError: a question that gives NaN; the work before it is kept.
    """
    if model is None and looks_like_path(config.model):
        check_path(Path(config.model))  # before data sets are fetched
    place = StudyFolder(Path(folder) if folder is not None else None, asdict(config))
    with place.opened(resume=resume, overwrite=overwrite):
        questions = Questions.load(config)
        model = model if model is not None else load(config)
        form = _form_of(config, model, questions, place)
        if form["form"] != questions.form:
            questions = Questions.load(config, form["form"])
        info = {**about_model(model), **questions.info(), "form": form, "versions": versions()}
        if repeats is not None:
            check_repeats(info, repeats)
        place.start(info)
        study = Study(config, info, folder=place.folder)
        pieces = Pieces(config, questions, model, place, progress=progress, save_every=save_every)
        for name in questions.scored:
            study.scores[name] = pieces.score(name)
        study.neurons.update(select(config, study.scores))
        for name, neurons in study.neurons.items():
            place.save(f"neurons/{name}.parquet", neurons)

        settings = settings_of(config, rival=RIVAL in study.scores)
        count = sum(map(len, questions.asked))
        enabled = progress and place.world.first
        bar = progress_bar(
            len(settings) * count,
            f"ask {len(questions.asked)} tasks in {len(settings)} settings",
            enabled=enabled,
        )
        with bar as advance:
            for setting in settings:
                switched = None if setting == UNCHANGED else study.neurons[setting]
                study.results[setting] = pieces.ask_all(setting, switched, progress=advance)
        draw(study, place)
        place.tidy()
    return study


def _form_of(
    config: StudyConfig, model: HookedModel, questions: Questions, place: StudyFolder
) -> dict[str, Any]:
    """The form that the study asks in, and why: the one asked for, that of the study resumed, or what the
    model shows."""
    if (asked := form_asked(config)) is not None:
        return {"form": asked, "why": "asked for"}
    record = read_record(place.folder) if place.resumed and place.folder is not None else None
    if record is not None:
        return record["info"]["form"]
    choice = choose_form(model, questions.scored[NEURON], batch_size=config.batch_size)
    log.info("%s", choice)
    return choice.to_dict()


def form_for(asking: Asking, model: HookedModel, task: str, config: ModelConfig) -> Form:
    """The form that is asked for; where it is left open, the one in which the model knows more of the
    task."""
    if asking.form != "auto":
        return asking.form
    whole = load_task(task.removesuffix(CONTROL), data_dir=config.data_dir)
    found = whole if all(q.split is None for q in whole) else whole.neuron_split()
    choice = choose_form(model, found, batch_size=config.batch_size)
    log.warning("%s", choice)
    return choice.form


def load(config: ModelConfig) -> HookedModel:
    """The model, where memory has room for it. Raises `ModelError` where it has not, or the model cannot be
    loaded."""
    where: dict[str, Any] = {
        name: getattr(config, name) for name in ("device", "device_map", "dtype", "revision")
    }
    check_memory(config.model, **where)
    return load_model(config.model, **where)


def draw(study: Study, place: StudyFolder) -> None:
    """Figures and report, from what the study holds."""
    if place.folder is None or not place.world.first:
        return
    from ..figures.gallery import figures_of
    from ..pages.page import write_figures
    from ..pages.report import write_report

    write_figures(figures_of(study), place.folder / "figures")
    write_report(study, place.folder / "report.html")


def about_model(model: HookedModel) -> dict[str, Any]:
    """What `study.json` says of the model."""
    about = describe(model)
    return {
        "model": about.name,
        "revision": about.revision,
        "dtype": about.dtype,
        "device": about.device,
        "layers": about.layers,
        "widths": {site.value: width for site, width in about.widths.items()},
    }


def versions() -> dict[str, str]:
    """Versions of the software that results depend on."""
    from importlib.metadata import version

    names: Sequence[str] = ("torch", "transformer-lens", "transformers", "datasets", "numpy")
    return {
        "culnig_tl": __version__,
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }
