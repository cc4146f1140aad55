"""The whole study: score, select, switch off, ask, draw. One folder holds all of it.

Each step is a piece that `pieces` makes or takes from the folder; `plan` distributes them over a cluster.
"""

from __future__ import annotations

import logging
import platform
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from ..data.neurons import SITES
from ..data.scores import NO_COUNTRY, NeuronScores
from ..defaults import TOY
from ..engine.checkpoint import SAVE_EVERY
from ..engine.cloze import encode_cloze
from ..engine.identity import model_identity
from ..engine.loading import check_name
from ..engine.memory import check_memory
from ..engine.models import HookedModel, ModelInfo, describe, load_model, tokenizer_of
from ..engine.prompts import Asked, encode
from ..errors import StudyError
from ..method.form import choose_form
from ..progress import StudyBar
from ..study.config import RIVAL, TOY_CONFIG, Asking, Machine, ModelConfig, StudyConfig, check_config
from ..study.folder import RECORD, StudyFolder, read_record
from ..study.sampling import about_parts
from ..study.study import Study
from ..tasks import Task, load_task
from ..tasks.question import CONTROL
from ..tasks.registry import in_words
from ..version import __version__
from .asking import PART, SCORING, ask_settings, cost, each, with_parts
from .pieces import NEURON, Pieces, Questions, check_model, check_words, form_asked, select, settings_of
from .repeat import check_repeats

log = logging.getLogger(__name__)

FORM = "form_chosen"
"""What a file's header calls a form that was left open: which one, why, and what was tried."""


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
    if model is None:
        check_model(config)  # before data sets are fetched
    check_config(config)
    place = StudyFolder(Path(folder) if folder is not None else None, asdict(config))
    with place.opened(resume=resume, overwrite=overwrite):
        questions = Questions.load(config)
        model = model if model is not None else load(config)
        form = _form_of(config, model, questions, place)
        if form["form"] != questions.form:
            questions = Questions.load(config, form["form"])
        known = _recorded(place).get(PART) or (repeats or {}).get(PART)
        questions = with_parts(questions, config, {PART: known} if known else {})
        rehearse(config, model, questions, place)
        of_model = model_identity(model) if place.folder is not None else None
        info = {**about_model(model, of_model), **questions.info(), "form": form, "versions": versions()}
        if questions.random:
            info[PART] = about_parts(questions.random)
        if repeats is not None:
            check_repeats(info, repeats)
        place.start(info)
        study = Study(config, info, folder=place.folder)
        how: dict[str, Any] = {"progress": progress, "save_every": save_every}
        pieces = Pieces(config, questions, model, place, of_model, **how)
        settings = settings_of(config, rival=RIVAL in questions.scored)
        with StudyBar(cost(questions, settings, config), enabled=progress and place.world.first) as bar:
            for name, task in questions.scored.items():
                advance = bar.stage(f"score {name}", SCORING * each([task]))
                study.scores[name] = pieces.score(name, progress=advance)
            study.neurons.update(select(config, study.scores))
            for name, neurons in study.neurons.items():
                place.save(f"neurons/{name}.parquet", neurons)
            early = Early(study, pieces, settings, every=save_every)
            ask_settings(
                study, pieces, settings, bar, decided=lambda: place.start(info), reported=early.report
            )
        study.left = 0
        drawn = draw(study, place)
        place.finish([*files_of(study), *drawn])
    return study


def rehearse(config: StudyConfig, model: HookedModel, questions: Questions, place: StudyFolder) -> None:
    """Raises now what would be raised hours later: questions without tokens, tasks of which none fits in the
    model's context, shares and countries that nothing can be selected with, a disk without room for the
    scores. Everything is encoded, and selected from random scores."""
    rng, about, said = np.random.default_rng(0), describe(model), logging.getLogger("culnig_tl")
    level = said.level
    said.setLevel(logging.ERROR)  # what there is to say is said when the work is done
    try:
        tasks = (*questions.asked, *questions.scored.values(), *questions.random)
        for task in {t.fingerprint: t for t in tasks}.values():
            Asked.of(model, task, encode_cloze if task.form == "cloze" else encode)
            if about.name == TOY and not task.is_control:  # whose prompts may hold no words at all
                check_words(tokenizer_of(model), task)
        scores = _imagined(questions, about, rng)
        check_room(place, scores)
        select(config, scores)
    finally:
        said.setLevel(level)


def _imagined(questions: Questions, about: ModelInfo, rng: np.random.Generator) -> dict[str, NeuronScores]:
    """Random scores in the shape of those that are to come."""
    scores = {}
    for name, task in questions.scored.items():
        countries = task.countries or (NO_COUNTRY,)
        shapes = {s: (len(countries), about.layers, about.widths[s]) for s in SITES if s in about.widths}
        arrays = {site: rng.random(shape, dtype=np.float32) for site, shape in shapes.items()}
        ones = (1,) * len(countries)
        known = {"task": task.name, "form": task.form, "model": about.name, "revision": about.revision}
        scores[name] = NeuronScores(arrays, countries, ones, (1.0,) * len(countries), 1, ones, known)
    return scores


def check_room(place: StudyFolder, scores: Mapping[str, NeuronScores]) -> None:
    """Raises `StudyError` where the disk has no room for the scores, which take more than all else: for those
    that are not there yet, and the state of the largest while it is made."""
    if place.folder is None:
        return
    sizes = {
        name: sum(array.nbytes for array in each.arrays.values())
        for name, each in scores.items()
        if not place.has(f"scores/{name}.safetensors")
    }
    needed, free = sum(sizes.values()) + max(sizes.values(), default=0), shutil.disk_usage(place.folder).free
    if needed > free:
        raise StudyError(
            f"{place.folder}: the scores take {needed / 1e9:.3g} GB on the way, and {free / 1e9:.3g} GB are"
            " free there: make room, or choose another --output-dir"
        )


def files_of(study: Study) -> list[str]:
    """Names of the files that a finished study has in its folder."""
    return [
        RECORD,
        *(f"scores/{name}.safetensors" for name in study.scores),
        *(f"neurons/{name}.parquet" for name in study.neurons),
        *(f"results/{name}.parquet" for name in study.results),
    ]


def _form_of(
    config: StudyConfig, model: HookedModel, questions: Questions, place: StudyFolder
) -> dict[str, Any]:
    """The form that the study asks in, and why: the one asked for, that of the study resumed, or what the
    model shows."""
    if (asked := form_asked(config)) is not None:
        return {"form": asked, "why": "asked for"}
    if recorded := _recorded(place):
        return recorded["form"]
    choice = choose_form(
        model, questions.scored[NEURON], cloze=_in_words_of(config), batch_size=config.batch_size
    )
    log.info("%s", choice)
    return choice.to_dict()


def _in_words_of(asking: Asking) -> Callable[[Task], Task]:
    """What puts a task in the cloze form that is asked for."""
    how: dict[str, Any] = {"normalise": asking.normalise, "chat_template": asking.chat_template}
    return lambda task: in_words(task, asking.wordings, **how)


def _recorded(place: StudyFolder) -> Mapping[str, Any]:
    """What the record of the study that is resumed says; nothing of a new one."""
    record = read_record(place.folder) if place.resumed and place.folder is not None else None
    return {} if record is None else record["info"]


def asked_as(
    asking: Asking, model: HookedModel, task: str, config: Machine
) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what `load_task` is given so that questions are asked as is asked for, what is to be stored of that).

    A form that is left open is the one in which the model knows more of the task. Which one, why, and what
    was tried is stored; of a form that was named there is nothing to store.
    """
    how: dict[str, Any] = {"wordings": asking.wordings, "allow_regions": asking.allow_regions}
    in_form: dict[str, Any] = {"normalise": asking.normalise, "chat_template": asking.chat_template}
    if asking.form != "auto":
        return {**how, **in_form, "form": asking.form}, {}
    whole = load_task(task.removesuffix(CONTROL), data_dir=config.data_dir, **how)
    found = whole if all(q.split is None for q in whole) else whole.neuron_split()
    choice = choose_form(model, found, cloze=_in_words_of(asking), batch_size=config.batch_size)
    log.warning("%s", choice)
    return {**how, **in_form, "form": choice.form}, {FORM: choice.to_dict()}


def load(config: ModelConfig) -> HookedModel:
    """The model, where memory has room for it. Raises `ModelError` where it has not, or the model cannot be
    loaded."""
    where: dict[str, Any] = {
        name: getattr(config, name) for name in ("device", "device_map", "dtype", "revision")
    }
    check_name(config.model, revision=config.revision)
    check_memory(config.model, **where)
    return load_model(config.model, **where)


class Early:
    """Writes the report while answers are still to come: at once, then no sooner than `every` seconds after
    the last, and never for more than a twentieth of the time."""

    def __init__(self, study: Study, pieces: Pieces, settings: Sequence[str], *, every: float) -> None:
        self.study, self.pieces, self.settings, self.every = study, pieces, settings, every
        self._next = 0.0

    def report(self) -> None:
        """Writes it, where it is time."""
        began = time.monotonic()
        if began < self._next or self.pieces.place.folder is None or not self.pieces.place.world.first:
            return
        whole = sum(len(task) for setting in self.settings for task in self.pieces.questions.of(setting))
        self.study.left = whole - sum(map(len, self.study.results.values()))
        if self.study.left > 0:
            from ..pages.report import write_report

            write_report(self.study, self.pieces.place.at("report.html"))
        ended = time.monotonic()
        self._next = ended + max(self.every, 20 * (ended - began))


def draw(study: Study, place: StudyFolder) -> list[str]:
    """Figures and report, from what the study holds; returns the names of their files."""
    if place.folder is None or not place.world.first:
        return []
    from ..figures.gallery import figures_of
    from ..pages.page import write_figures
    from ..pages.report import write_report

    figures = figures_of(study)
    write_figures(figures, place.at("figures"))
    write_report(study, place.at("report.html"))
    return ["report.html", *(f"figures/{name}.html" for name in figures)]


def about_model(model: HookedModel, known: Mapping[str, Any] | None) -> dict[str, Any]:
    """What `study.json` says of the model; `known` is its identity."""
    about = describe(model)
    return {
        "model": about.name,
        "revision": about.revision,
        "dtype": about.dtype,
        "device": about.device,
        "layers": about.layers,
        "widths": {site.value: width for site, width in about.widths.items()},
        "identity": known,
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
