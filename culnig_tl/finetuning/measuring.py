"""The measuring of forgetting: every group is trained once per seed, every model asked before and after.

Everything is in one folder: the fine-tuned checkpoints, answers, neurons, tables, figures. What is there is
not made again.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from .. import io
from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult, concat
from ..engine.models import HookedModel, load_model
from ..engine.run import clear_device_cache
from ..engine.world import start, world
from ..errors import FineTuningError
from ..figures import plots, save_figure
from ..method.evaluation import evaluate
from ..method.form import choose_form
from ..method.score import score_neurons
from ..method.selection import select_general
from ..study.asked import culture_of
from ..tasks import Task, load_task, load_tasks
from ..tasks.question import Form
from ..tasks.registry import in_words
from ..tasks.training import load_training
from ..version import __version__
from .config import CHOICES, TOY_FORGETTING, ForgettingConfig
from .folder import check_folder, read_json
from .forgetting import Forgetting
from .modules import (
    ModuleGroup,
    ModuleRanking,
    choose_modules,
    export_freeze_list,
    list_modules,
    rank_modules,
)
from .tuning import FineTuned, finetune
from .weights import revision_of_checkpoint, write_json

log = logging.getLogger(__name__)

RECORD, FREEZE_LIST = "finetune.json", "freeze-list.json"
Kept = TypeVar("Kept", EvaluationResult, NeuronSet)


def measure_forgetting(
    config: ForgettingConfig = TOY_FORGETTING,
    *,
    folder: str | Path,
    neurons: NeuronSet | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Forgetting:
    """Fine-tunes a model once per group and seed, and measures each before and after.

    Where torchrun started several processes, they share training, asking and scoring; the first writes.

    Args:
        config: model, task, groups, share, seeds.
        folder: for the fine-tuned checkpoints (``models/<group>-<seed>``), answers, neurons, tables and
            figures.
        neurons: the base model's culture-general neurons; found here by default.
        resume: continue with what the folder holds.
        overwrite: replace everything in it.

    Raises:
        FineTuningError: no cultural task, a folder that holds something else, modules that cannot be chosen.
    """
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise FineTuningError("give at least one seed, and none twice")
    out = Path(folder)
    train, asked, culture, reading = _load_tasks(config)
    # A bad choice is reported before anything is made; what matched takes depends on a ranking not known yet.
    known_so_far = tuple("top" if name in CHOICES else name for name in config.modules)
    _groups(replace(config, modules=known_so_far), list_modules(config.model))
    among = start()
    mine = {**asdict(config), "neurons": neurons.hash if neurons is not None else None}
    known = read_json(out / RECORD)
    among.on_first(lambda: _check_folder(out, mine, known, resume=resume, overwrite=overwrite))
    if config.form == "auto":
        chosen = (known or {}).get("form_chosen") if resume else None
        mine["form_chosen"] = chosen or _choose_form(config, culture, progress)
        train, asked, culture, reading = _load_tasks(config, mine["form_chosen"]["form"])
    among.on_first(lambda: _open_folder(out, mine, known, resume=resume))

    measure = _Measure(
        config, out, asked, (culture, culture.control(), reading), _shares(config, neurons), progress
    )
    general = neurons if neurons is not None else measure.neurons("before", config.model)
    groups = _groups(config, rank_modules(general, config.model))
    if "top" in groups:
        spared = export_freeze_list(next(iter(groups["top"].values())), config.model)
        among.on_first(lambda: spared.save(out / FREEZE_LIST))
    models: dict[str, dict[int, FineTuned]] = {group: {} for group in groups}
    for group, seeds in groups.items():
        for seed, modules in seeds.items():
            measure.forget_model()
            log.info("training %s", modules)
            models[group][seed] = finetune(
                config.model,
                train,
                modules,
                output_dir=out / "models" / f"{group}-{seed}",
                config=replace(config.training, seed=seed),
                revision=config.revision,
                resume=resume,
                overwrite=overwrite,
                progress=progress,
            )
    before = measure.answers("before", config.model)
    after: dict[str, dict[int, EvaluationResult]] = {group: {} for group in groups}
    general_after: dict[str, dict[int, NeuronSet]] = {group: {} for group in groups}
    for group, tuned in models.items():
        for seed, one in tuned.items():
            after[group][seed] = measure.answers(f"{group}-{seed}", one.folder)
            general_after[group][seed] = measure.neurons(f"{group}-{seed}", one.folder)
    kinds = {task.name: task.culture for task in asked}
    found = Forgetting(config, train.name, kinds, groups, before, after, general, general_after, models)
    among.on_first(lambda: _save(found, out))
    return found


# ----------------------------------------------------------------------------------------- asking and scoring


@dataclass
class _Measure:
    """Asks models and finds their neurons, unless the folder holds those of the same model and questions."""

    config: ForgettingConfig
    out: Path
    asked: Sequence[Task]
    found_on: tuple[Task, Task, Task]
    """Culture, its control, reading: neuron splits."""
    shares: Mapping[str, float]
    progress: bool
    _loaded: tuple[str, HookedModel] | None = None
    _revisions: dict[str, str | None] = field(default_factory=dict)

    def answers(self, name: str, source: str | Path) -> EvaluationResult:
        """The answers of a checkpoint to all tasks."""

        def ask(model: HookedModel) -> EvaluationResult:
            size = self.config.batch_size
            result = concat(
                [evaluate(model, task, batch_size=size, progress=self.progress) for task in self.asked]
            )
            return replace(result, metadata={**result.metadata, "model": self.config.model})

        return self._once(EvaluationResult, self.out / "results" / f"{name}.parquet", source, self.asked, ask)

    def neurons(self, name: str, source: str | Path) -> NeuronSet:
        """The culture-general neurons of a checkpoint."""

        def find(model: HookedModel) -> NeuronSet:
            size = self.config.batch_size
            scores = [
                score_neurons(model, task, batch_size=size, progress=self.progress) for task in self.found_on
            ]
            return select_general(*scores, **self.shares)

        return self._once(NeuronSet, self.out / "neurons" / f"{name}.parquet", source, self.found_on, find)

    def forget_model(self) -> None:
        """Lets go of the loaded model and of what trainings leave behind: the next one needs the memory."""
        self._loaded = None
        gc.collect()  # Trainer and its callbacks refer to each other
        clear_device_cache()

    def _once(
        self,
        kind: type[Kept],
        path: Path,
        source: str | Path,
        tasks: Sequence[Task],
        make: Callable[[HookedModel], Kept],
    ) -> Kept:
        """What the file holds where that is of the same model and questions; else it is made, and saved."""
        source = str(source)
        revision = self.config.revision if source == self.config.model else None
        if source not in self._revisions:
            self._revisions[source] = revision_of_checkpoint(source, revision=revision)
        if path.is_file():
            stored = kind.load(path)
            if _origin(stored) == (self._revisions[source], {task.name: task.fingerprint for task in tasks}):
                return stored
        if self._loaded is None or self._loaded[0] != source:
            self._loaded = None
            device, dtype = self.config.training.device, self.config.training.dtype
            self._loaded = (source, load_model(source, device=device, dtype=dtype, revision=revision))
        made = make(self._loaded[1])
        world().on_first(lambda: made.save(io.inside(self.out, path.relative_to(self.out))))
        return made


def _origin(stored: EvaluationResult | NeuronSet) -> tuple[str | None, dict[str, str]]:
    """(revision, task -> fingerprint)."""
    if isinstance(stored, NeuronSet):
        return stored.provenance.revision, dict(stored.provenance.tasks)
    return stored.metadata["revision"], dict(stored.metadata["fingerprints"])


# ------------------------------------------------------------------------------------------- what is measured


def _shares(config: ForgettingConfig, neurons: NeuronSet | None) -> dict[str, float]:
    """What neurons are selected by: given neurons bring the shares that they were found with."""
    known = dict(neurons.provenance.thresholds) if neurons is not None else {}
    names = ("top_mlp", "top_attn", "drop_reading")
    return {name: float(known.get(name) or getattr(config, name)) for name in names}


def _groups(config: ForgettingConfig, ranking: ModuleRanking) -> dict[str, dict[int, ModuleGroup]]:
    """Group -> seed -> modules. Raises `FineTuningError` where modules cannot be chosen."""
    named = [name for name in config.modules if name not in CHOICES]
    wanted: dict[str, str | list[str]] = {name: name for name in config.modules if name in CHOICES}
    if named:
        wanted["chosen"] = named
    if not wanted:
        raise FineTuningError(f"no modules are named: use {', '.join(CHOICES)}, or names like mlp.0")
    return {
        group: {seed: choose_modules(ranking, how, share=config.share, seed=seed) for seed in config.seeds}
        for group, how in wanted.items()
    }


def _choose_form(config: ForgettingConfig, culture: Task, progress: bool) -> dict[str, Any]:
    """The form in which the unchanged model knows more of the culture task, and why."""
    where: dict[str, Any] = {
        "device": config.training.device,
        "dtype": config.training.dtype,
        "revision": config.revision,
    }
    how: dict[str, Any] = {"normalise": config.normalise, "chat_template": config.chat_template}
    choice = choose_form(
        load_model(config.model, **where),
        culture,
        cloze=lambda task: in_words(task, config.wordings, **how),
        batch_size=config.batch_size,
        progress=progress,
    )
    log.warning("%s", choice)
    return choice.to_dict()


def _load_tasks(config: ForgettingConfig, form: Form | None = None) -> tuple[Task, list[Task], Task, Task]:
    """(questions to train on; questions to ask, without these; neuron splits of the culture and the reading
    task).

    What is asked is as in a study: see `Task.part`. No question that is trained on is asked.

    Args:
        form: where the configuration leaves it open; letters, until the model was tried.
    """
    how: dict[str, Any] = {"data_dir": config.data_dir, "wordings": config.wordings}
    how["form"] = form or ("letters" if config.form == "auto" else config.form)
    how |= {"normalise": config.normalise, "chat_template": config.chat_template}
    train = load_training(config.task, draw=config.draw, **how)
    whole = load_tasks((*config.tasks, config.task), **how)
    culture = culture_of(whole)
    if culture is None:
        raise FineTuningError(
            f"none of the tasks {', '.join(config.tasks)} has cultural questions with a control and a neuron "
            "split: add blend"
        )
    reading = load_task(config.reading, **how)
    found_on = {culture.name, reading.name, train.name}
    trained_on = {(q.task, q.prompt) for q in train}
    asked = []
    for task in whole:
        tests = task.part(config.split, found_on=task.name in found_on)
        tests = tests.filter(lambda q: (q.task, q.prompt) not in trained_on)
        if len(tests):
            asked.append(tests.limit(config.limit))
    if not any(task.culture for task in asked):
        raise FineTuningError(
            f"none of the tasks {', '.join(config.tasks)} asks about cultures: add one that does"
        )
    reading = reading.filter(lambda q: q.split in (None, "neuron"))
    return train, asked, culture.neuron_split().limit(config.limit), reading.limit(config.limit)


# ------------------------------------------------------------------------------------------------- the folder


def _check_folder(
    out: Path, mine: Mapping[str, Any], known: Mapping[str, Any] | None, *, resume: bool, overwrite: bool
) -> None:
    """Raises `FineTuningError` where the folder holds something else."""
    check_folder(out, mine, known, record=RECORD, resume=resume, overwrite=overwrite)
    names = [f"models/{name}" for name in _models_of(mine)]
    names += [f"{kind}/{name}.parquet" for name in _models_of(mine) for kind in ("results", "neurons")]
    for name in (RECORD, FREEZE_LIST, "figures", *names):
        io.inside(out, name)  # a link that leads elsewhere is said before anything is trained


def _open_folder(
    out: Path, mine: Mapping[str, Any], known: Mapping[str, Any] | None, *, resume: bool
) -> None:
    """Writes the record; what an earlier measurement found is removed first, unless it is resumed."""
    if not resume:
        for name in _models_of(known or {}):
            for kind in ("results", "neurons"):
                io.inside(out, f"{kind}/{name}.parquet").unlink(missing_ok=True)
    write_json(out / RECORD, {**mine, "version": __version__})


def _models_of(record: Mapping[str, Any]) -> list[str]:
    """Names of the models that a folder's record speaks of."""
    named, seeds = record.get("modules", ()), record.get("seeds", ())
    groups = [name for name in CHOICES if name in named]
    groups += ["chosen"] * any(name not in CHOICES for name in named)
    return ["before", *(io.file_name(f"{group}-{seed}") for group in groups for seed in seeds)]


def _save(found: Forgetting, out: Path) -> None:
    """Writes tables and figures."""
    io.write(out / "accuracy.md", found.table().to_markdown().encode())
    for name, table in found.tables().items():
        io.write(out / f"{name}.csv", io.csv_of(table).encode())
    for name, figure in plots(found).items():
        save_figure(figure, io.inside(out, f"figures/{name}.html"))
