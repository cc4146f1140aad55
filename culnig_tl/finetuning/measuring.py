"""The measuring of forgetting: every group of modules is trained once a seed, every model asked before and after.

All of it is in one folder: the fine-tuned checkpoints, answers, neurons, tables, figures. What is there is not made again.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from .. import io
from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult, concat
from ..engine.models import load_model
from ..engine.run import empty_caches
from ..engine.world import ranks, start
from ..errors import FineTuningError
from ..method.evaluation import evaluate
from ..method.score import score_neurons
from ..method.selection import select_general
from ..tasks import Task, load_task
from ..tasks.training import load_training
from ..version import __version__
from .finetune import FineTuned, finetune
from .forgetting import TOY_FORGETTING, Forgetting, ForgettingConfig
from .modules import (
    CHOICES,
    ModuleGroup,
    ModuleRanking,
    choose_modules,
    export_freeze_list,
    list_modules,
    rank_modules,
)
from .weights import revision_of_checkpoint

log = logging.getLogger(__name__)

RECORD = "finetune.json"


def measure_forgetting(
    config: ForgettingConfig = TOY_FORGETTING,
    *,
    folder: str | Path,
    neurons: NeuronSet | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> Forgetting:
    """Fine-tunes a model once a group and seed, and measures each before and after.

    Args:
        config: model, task, groups, share, seeds.
        folder: for the fine-tuned checkpoints (``models/<group>-<seed>``), answers, neurons, tables and figures.
        neurons: the base model's culture-general neurons; found anew without them.
        resume: go on with what the folder holds.
        overwrite: make everything in it anew.

    Where torchrun started several processes, they share training, asking and scoring; the first writes.

    Raises:
        FineTuningError: no cultural task, a folder that holds something else, modules that cannot be chosen.
    """
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise FineTuningError("seeds are numbers, one at least and none twice")
    out = Path(folder)
    train = load_training(config.task, data_dir=config.data_dir)
    asked, culture, reading = _load_tasks(config, train)
    # What cannot be chosen is said before anything is made; the ranking, which matched depends on, is not known yet.
    _groups(
        replace(config, modules=tuple("top" if name in CHOICES else name for name in config.modules)),
        list_modules(config.model),
    )
    among = start()
    among.first_does(lambda: _open_folder(out, config, neurons, resume=resume, overwrite=overwrite))

    known = dict(neurons.provenance.thresholds) if neurons is not None else {}
    shares = {
        name: float(known.get(name) or getattr(config, name))
        for name in ("top_mlp", "top_attn", "drop_reading")
    }
    measure = _Measure(config, out, asked, (culture, culture.control(), reading), shares, progress)
    general = neurons if neurons is not None else measure.neurons("before", config.model)

    ranking = rank_modules(general, config.model)
    groups = _groups(config, ranking)
    if "top" in groups:
        spared = export_freeze_list(next(iter(groups["top"].values())), config.model)
        among.first_does(lambda: spared.save(out / "freeze-list.json"))
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
    for group, seeds in models.items():
        for seed, tuned in seeds.items():
            after[group][seed] = measure.answers(f"{group}-{seed}", tuned.folder)
            general_after[group][seed] = measure.neurons(f"{group}-{seed}", tuned.folder)
    kinds = {task.name: task.culture for task in asked}
    found = Forgetting(config, train.name, kinds, groups, before, after, general, general_after, models)
    among.first_does(lambda: found.save(out))
    return found


# ------------------------------------------------------------------------------------------------ its pieces


@dataclass
class _Measure:
    """Asks models and finds their neurons; what a folder already holds of the same model and questions is not made again."""

    config: ForgettingConfig
    out: Path
    asked: Sequence[Task]
    found_on: tuple[Task, Task, Task]
    """Culture, its control, reading: neuron splits."""
    shares: Mapping[str, float]
    progress: bool
    _loaded: tuple[str, Any] | None = None
    _revisions: dict[str, str | None] = field(default_factory=dict)

    def answers(self, name: str, source: str | Path) -> EvaluationResult:
        """The answers of a checkpoint to all tasks."""
        path, revision = self.out / "results" / f"{name}.parquet", self._revision(source)
        fingerprints = {task.name: task.fingerprint for task in self.asked}
        if path.is_file():
            stored = EvaluationResult.load(path)
            if (stored.metadata["revision"], stored.metadata["fingerprints"]) == (revision, fingerprints):
                return stored
        model, size = self._model(source), self.config.batch_size
        result = concat(
            [evaluate(model, task, batch_size=size, progress=self.progress) for task in self.asked]
        )
        result = replace(result, metadata={**result.metadata, "model": self.config.model})
        ranks().first_does(lambda: result.save(path))
        return result

    def neurons(self, name: str, source: str | Path) -> NeuronSet:
        """The culture-general neurons of a checkpoint."""
        path, revision = self.out / "neurons" / f"{name}.parquet", self._revision(source)
        fingerprints = {task.name: task.fingerprint for task in self.found_on}
        if path.is_file():
            stored = NeuronSet.load(path)
            if (stored.provenance.revision, dict(stored.provenance.tasks)) == (revision, fingerprints):
                return stored
        model, size = self._model(source), self.config.batch_size
        scores = [
            score_neurons(model, task, batch_size=size, progress=self.progress) for task in self.found_on
        ]
        found = select_general(*scores, **self.shares)
        ranks().first_does(lambda: found.save(path))
        return found

    def forget_model(self) -> None:
        """Lets go of the loaded model, and of what trainings leave behind, so that the next one has the memory."""
        self._loaded = None
        gc.collect()  # Trainer and its callbacks hold each other
        empty_caches()

    def _revision(self, source: str | Path) -> str | None:
        if str(source) not in self._revisions:
            revision = self.config.revision if str(source) == self.config.model else None
            self._revisions[str(source)] = revision_of_checkpoint(source, revision=revision)
        return self._revisions[str(source)]

    def _model(self, source: str | Path) -> Any:
        if self._loaded is None or self._loaded[0] != str(source):
            self._loaded = None
            revision = self.config.revision if str(source) == self.config.model else None
            device, dtype = self.config.training.device, self.config.training.dtype
            self._loaded = (str(source), load_model(source, device=device, dtype=dtype, revision=revision))
        return self._loaded[1]


def _groups(config: ForgettingConfig, ranking: ModuleRanking) -> dict[str, dict[int, ModuleGroup]]:
    """Group -> seed -> modules. Raises `FineTuningError` where modules cannot be chosen."""
    named = [name for name in config.modules if name not in CHOICES]
    wanted: dict[str, str | list[str]] = {name: name for name in config.modules if name in CHOICES}
    if named:
        wanted["chosen"] = named
    if not wanted:
        raise FineTuningError(f"no modules are named: use {', '.join(CHOICES)}, or names such as mlp.0")
    return {
        group: {seed: choose_modules(ranking, how, share=config.share, seed=seed) for seed in config.seeds}
        for group, how in wanted.items()
    }


def _load_tasks(config: ForgettingConfig, train: Task) -> tuple[list[Task], Task, Task]:
    """(test splits to ask, neuron split of the culture task, of the reading task). None of what is trained on is asked."""
    whole = [
        load_task(name, data_dir=config.data_dir) for name in dict.fromkeys((*config.tasks, config.task))
    ]
    found_on = next(
        (
            t
            for t in whole
            if t.culture and any(q.split == "neuron" for q in t) and t.neuron_split().has_control
        ),
        None,
    )
    if found_on is None:
        raise FineTuningError(
            f"none of the tasks {', '.join(config.tasks)} has cultural questions with a control and a neuron split: add blend"
        )
    trained_on = {(q.task, q.prompt) for q in train}
    asked = []
    for task in whole:
        tests = task.filter(lambda q: q.split in (None, "test") and (q.task, q.prompt) not in trained_on)
        if len(tests):
            asked.append(tests.limit(config.limit))
    if not any(task.culture for task in asked):
        raise FineTuningError(
            f"none of the tasks {', '.join(config.tasks)} asks about cultures: what training costs culture cannot be seen"
        )
    reading = load_task(config.reading, data_dir=config.data_dir).filter(
        lambda q: q.split in (None, "neuron")
    )
    return asked, found_on.neuron_split().limit(config.limit), reading.limit(config.limit)


def _open_folder(
    out: Path, config: ForgettingConfig, neurons: NeuronSet | None, *, resume: bool, overwrite: bool
) -> None:
    """Writes the record. Raises `FineTuningError` where the folder holds something else."""
    mine = json.loads(
        json.dumps({"config": asdict(config), "neurons": neurons.hash if neurons is not None else None})
    )
    path = out / RECORD
    if path.is_file():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise FineTuningError(f"{path} cannot be read ({error}): choose another --output-dir") from error
        differing = [
            key for key in mine["config"] if mine["config"][key] != theirs.get("config", {}).get(key)
        ]
        if mine["neurons"] != theirs.get("neurons"):
            differing.append("neurons")
        if not (resume or overwrite):
            raise FineTuningError(
                f"{out} already holds a fine-tuning: use --resume, --overwrite or another --output-dir"
            )
        if resume and differing:
            raise FineTuningError(
                f"{out} holds a fine-tuning with other {', '.join(differing)}: choose another --output-dir"
            )
    elif out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise FineTuningError(f"{out} holds other things and no fine-tuning: choose another --output-dir")
    if not resume:
        for old in (*out.glob("results/*.parquet"), *out.glob("neurons/*.parquet")):
            old.unlink()
    io.write(
        path, (json.dumps({**mine, "version": __version__}, indent=1, ensure_ascii=False) + "\n").encode()
    )
