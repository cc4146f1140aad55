"""The pieces of a study: scores of four tasks, and each setting's answers to each task. Each is made, or
taken from the folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..data.neurons import SITES, NeuronSet
from ..data.results import EvaluationResult, concat, merged
from ..data.scores import NeuronScores
from ..defaults import TOY
from ..engine.checkpoint import SAVE_EVERY, Checkpoint
from ..engine.identity import differing, identity
from ..engine.loading import check_name
from ..engine.models import HookedModel
from ..errors import StudyError, TaskError
from ..method.ablation import operation_name
from ..method.evaluation import evaluate
from ..method.score import score_neurons
from ..method.selection import select_general, select_random, select_rival, select_specific
from ..progress import Advance
from ..study.asked import asked_tasks, culture_of
from ..study.comparison import halves
from ..study.config import GENERAL, RANDOM, RIVAL, SPECIFIC, UNCHANGED, StudyConfig
from ..study.folder import StudyFolder, part_name
from ..study.sampling import without
from ..tasks import Task, load_task, load_tasks
from ..tasks.question import Form
from ..tasks.registry import TASKS

log = logging.getLogger(__name__)

NEURON, CONTROL, READING = "neuron", "control", "reading"
LOOKED_AT = 20
"""Questions of a task whose words are looked up in the embedded model's vocabulary."""
UNKNOWN = 0.2
"""Share of a prompt's tokens that may be unknown to it: of its own tasks' tokens none is, of those of tasks
for real models 37% or more are."""


@dataclass(frozen=True)
class Questions:
    """The questions of a study."""

    asked: tuple[Task, ...]
    """What is asked with and without neurons: see `asked_tasks`."""
    scored: Mapping[str, Task]
    """"neuron", "control", "reading", and "rival" where there is one."""
    random: tuple[Task, ...] = ()
    """What random sets are asked of `asked`; empty for all."""

    def of(self, setting: str) -> tuple[Task, ...]:
        """What is asked in a setting."""
        return self.random if self.random and is_random(setting) else self.asked

    @property
    def form(self) -> Form:
        """How they are answered."""
        return self.scored[NEURON].form

    @classmethod
    def load(cls, config: StudyConfig, form: Form | None = None) -> Questions:
        """All of a study's tasks.

        Args:
            form: where the configuration leaves it open; letters, until the model was tried.

        Raises:
            StudyError: none of them is cultural, with a control and a neuron split.
        """
        how: dict[str, Any] = {"form": form or form_asked(config) or "letters", "data_dir": config.data_dir}
        how |= {name: getattr(config, name) for name in ("wordings", "allow_regions")}
        how |= {name: getattr(config, name) for name in ("normalise", "chat_template")}
        whole = load_tasks(config.tasks, beside=(config.reading, config.rival), **how)
        culture = culture_of(whole)
        if culture is None:
            raise StudyError(
                f"none of the tasks {', '.join(config.tasks)} has cultural questions with a control and a"
                " neuron split: add blend"
            )
        found_on = culture.neuron_split().rows(config.rows).limit(config.limit)
        reading = load_task(config.reading, **how)
        reading = reading.filter(lambda q: q.split in (None, "neuron")).rows(config.rows).limit(config.limit)
        scored = {NEURON: found_on, CONTROL: found_on.control(), READING: reading}
        asked = asked_tasks(config, whole, culture, reading)
        rival = next((t for t in asked if t.name == config.rival_task), None)
        if rival is not None:
            scored[RIVAL] = (
                halves(load_task(config.rival or rival.name, **how))[0].rows(config.rows).limit(config.limit)
            )
        return cls(asked, scored)

    def info(self) -> dict[str, Any]:
        """What `study.json` says of them."""
        return {
            "tasks": {
                t.name: {
                    "culture": t.culture,
                    "fingerprint": t.fingerprint,
                    "source": t.source,
                    "questions": len(t),
                    "split": t.split,
                }
                for t in self.asked
            },
            "scored": {
                name: {"task": t.name, "fingerprint": t.fingerprint, "questions": len(t)}
                for name, t in self.scored.items()
            },
        }


def check_model(config: StudyConfig) -> None:
    """What can be said of a study's model before anything is loaded.

    Raises:
        ModelError: there is no such model.
        TaskError: tasks of the package in words that the embedded model does not know.
    """
    check_name(config.model, revision=config.revision)
    if config.model != TOY:
        return
    for name in (*config.tasks, config.reading, config.rival):
        if name in TASKS and not TASKS[name].toy:
            raise TaskError(_unknown_words(name))


def check_words(tokenizer: Any, task: Task) -> None:
    """Raises `TaskError` where the embedded model's tokenizer does not know the words of a task."""
    tokens = [token for q in task.questions[:LOOKED_AT] for token in tokenizer(q.prompt)["input_ids"]]
    if tokens.count(tokenizer.unk_token_id) > UNKNOWN * len(tokens):
        raise TaskError(_unknown_words(task.name))


def _unknown_words(task: str) -> str:
    known = ", ".join(name for name, info in TASKS.items() if info.toy)
    return (
        f"the embedded model does not know the words of {task!r}: it knows those of {known};"
        " ask these, or name another model with --model"
    )


def form_asked(config: StudyConfig) -> Form | None:
    """The form that the configuration names; None where the model is to be tried."""
    return None if config.form == "auto" else config.form


SCORE_SETTINGS: dict[str, Any] = {
    "sites": [site.value for site in SITES],
    "method": "culnig",
    "bootstrap": 0,
    "seed": 0,
}
"""How a study scores: with the defaults of `score_neurons`."""


def score_label(name: str) -> str:
    """What the scores of one of `Questions.scored` are called as a piece."""
    return f"score {name}"


def ask_label(setting: str, task: str) -> str:
    """What a setting's answers to one task are called as a piece."""
    return f"ask {setting}: {task}"


def settings_of(config: StudyConfig, *, rival: bool) -> tuple[str, ...]:
    """What a study asks all its tasks with: nothing suppressed, the culture-general neurons, the rival's, and
    random sets."""
    seeds = range(config.seed, config.seed + config.random_sets)
    return (
        UNCHANGED,
        GENERAL,
        *([RIVAL] if rival else []),
        *(f"{label} {seed}" for label in RANDOM.values() for seed in seeds),
    )


def is_random(setting: str) -> bool:
    """Whether a setting suppresses a random set."""
    return setting.rpartition(" ")[0] in RANDOM.values()


def select(
    config: StudyConfig, scores: Mapping[str, NeuronScores], only: str | None = None
) -> dict[str, NeuronSet]:
    """Every set of a study, by name, from its scores; `only` selects one of them. Quick, and the same on
    every machine."""
    found = [scores[name] for name in (NEURON, CONTROL, READING)]
    drop = config.drop_reading
    general = select_general(*found, top_mlp=config.top_mlp, top_attn=config.top_attn, drop_reading=drop)
    ways: dict[str, Callable[[], NeuronSet]] = {
        GENERAL: lambda: general,
        SPECIFIC: lambda: select_specific(*found, top=config.top_specific, drop_reading=drop, z=config.z),
    }
    if RIVAL in scores:
        ways[RIVAL] = lambda: select_rival(general, scores[RIVAL])
    for match, label in RANDOM.items():
        for seed in range(config.seed, config.seed + config.random_sets):
            ways[f"{label} {seed}"] = partial(select_random, general, scores[NEURON], seed=seed, match=match)  # type: ignore[arg-type]
    return {name: way() for name, way in ways.items() if only in (None, name)}


class Pieces:
    """Makes the pieces of one study with its model, or takes them from its folder where they belong to the
    same work."""

    def __init__(
        self,
        config: StudyConfig,
        questions: Questions,
        model: HookedModel,
        place: StudyFolder,
        of_model: Mapping[str, Any] | None,
        *,
        progress: bool | Advance = True,
        save_every: float = SAVE_EVERY,
    ) -> None:
        self.config, self.questions, self.model, self.place = config, questions, model, place
        self.progress: bool | Advance = progress if place.world.first else False
        self.save_every = save_every
        self.of_model = of_model
        """The model's identity, where there is a folder."""
        self.tokens_per_batch: int | None = None
        """Of the first scores: all scores of a study are planned alike."""
        self._saved_at = time.monotonic()
        self._unsaved: list[tuple[str, EvaluationResult, Checkpoint | None]] = []
        """Answers to single tasks that no file holds yet: less than `save_every` seconds of work."""

    def score(self, name: str, *, progress: bool | Advance | None = None) -> NeuronScores:
        """Scores of one of `questions.scored`."""
        progress = self.progress if progress is None else progress
        task = self.questions.scored[name]
        file = f"scores/{name}.safetensors"
        of_work = self._identity(**SCORE_SETTINGS)
        scores = self._stored(
            file, NeuronScores, lambda s: reason_against_scores(s, task.fingerprint, of_work)
        )
        if scores is not None:
            if callable(progress):
                progress(len(task))
        else:
            checkpoint = self._checkpoint(score_label(name))
            how: dict[str, Any] = {"batch_size": self.config.batch_size, "progress": progress}
            scores = score_neurons(self.model, task, checkpoint=checkpoint, **how)
            self.place.save(file, scores)
            self._done(checkpoint)
        self.tokens_per_batch = self.tokens_per_batch or scores.metadata.get("tokens_per_batch")
        return scores

    def ask(
        self,
        setting: str,
        task: Task,
        neurons: NeuronSet | None,
        *,
        progress: bool | Advance,
        keep: bool = False,
        known: EvaluationResult | None = None,
        label: str | None = None,
    ) -> EvaluationResult:
        """A setting's answers to one task; written as a part of the setting's once `save_every` has passed,
        or on `keep`.

        Args:
            known: the setting's answers to some of the task's questions, which are not asked again.
            label: what they are kept under, where it is not the task's name.
        """
        label = label or task.name
        file = part_name(setting, label)
        of_work = self._identity(neurons=neurons, operation=operation_name())
        result = self._stored(
            file, EvaluationResult, lambda r: reason_against_result(r, {task.name: task.fingerprint}, of_work)
        )
        left = task if known is None else without(task, set(known.table["id"]))
        result = known if result is None and not len(left) else result
        if result is not None:
            if callable(progress):
                progress(len(left))
            return result
        checkpoint = self._checkpoint(ask_label(setting, label))
        how: dict[str, Any] = {"batch_size": self.config.batch_size, "progress": progress}
        result = evaluate(self.model, left, ablate=neurons, checkpoint=checkpoint, **how)
        if known is not None:
            result = merged([known, result], task)
        self._unsaved.append((file, result, checkpoint))
        if keep or self.place.world.broadcast(time.monotonic() - self._saved_at >= self.save_every):
            self.save()
        return result

    def save(self) -> None:
        """Writes the answers that no file holds yet."""
        for name, answers, unfinished in self._unsaved:
            self.place.save(name, answers)
            self._done(unfinished)
        self._settle()

    def ask_first(
        self, setting: str, tasks: Sequence[Task], neurons: NeuronSet | None, *, progress: bool | Advance
    ) -> EvaluationResult:
        """A setting's answers to the first questions of every task, or to all where they are there."""
        if (result := self._whole(setting, neurons)) is not None:
            if callable(progress):
                progress(sum(map(len, tasks)))
            return result
        how: dict[str, Any] = {"progress": progress}
        answers = [
            self.ask(setting, task, neurons, label=f"{task.name}, first questions", **how) for task in tasks
        ]
        return concat(answers)

    def ask_all(
        self,
        setting: str,
        neurons: NeuronSet | None,
        *,
        progress: bool | Advance,
        known: EvaluationResult | None = None,
    ) -> EvaluationResult:
        """A setting's answers to all tasks; `known` ones are not asked again."""
        tasks = self.questions.of(setting)
        first = {task.name: None if known is None else known.of_task(task.name) for task in tasks}
        if (result := self._whole(setting, neurons)) is not None:
            if callable(progress):
                left = sum(len(task) - len(first[task.name] or ()) for task in tasks)
                progress(left)
            return result
        result = concat(
            [self.ask(setting, task, neurons, progress=progress, known=first[task.name]) for task in tasks]
        )
        self.place.save(f"results/{setting}.parquet", result)
        for _, _, unfinished in self._unsaved:
            self._done(unfinished)
        self._settle()
        return result

    def _whole(self, setting: str, neurons: NeuronSet | None) -> EvaluationResult | None:
        """The finished answers of a setting, where the folder holds them."""
        of_work = self._identity(neurons=neurons, operation=operation_name())
        wanted = {task.name: task.fingerprint for task in self.questions.of(setting)}
        return self._stored(
            f"results/{setting}.parquet",
            EvaluationResult,
            lambda r: reason_against_result(r, wanted, of_work),
        )

    def _identity(self, **work: Any) -> dict[str, Any]:
        return identity(self.of_model or {}, **work)

    def _stored(self, file: str, kind: Any, reason: Callable[[Any], str | None]) -> Any:
        """What the folder holds under that name, unless there is a reason against it."""
        if not self.place.has(file):
            return None
        stored = self.place.load(file, kind)
        against = reason(stored)
        if against is not None:
            log.warning("%s in %s belongs to other work (%s): made again", file, self.place.folder, against)
            return None
        log.info("taken from the folder: %s", file)
        return stored

    def _checkpoint(self, piece: str) -> Checkpoint | None:
        """Where a piece's unfinished work is kept; None without a folder."""
        path = self.place.state(piece)
        if path is None:
            return None
        known: dict[str, Any] = {"model": self.of_model, "tokens_per_batch": self.tokens_per_batch}
        return Checkpoint(path, every=self.save_every, **known)

    def _settle(self) -> None:
        """All answers are stored."""
        self._unsaved.clear()
        self._saved_at = time.monotonic()

    def _done(self, checkpoint: Checkpoint | None) -> None:
        """The piece is stored: its checkpoint is not needed any more."""
        if checkpoint is not None and self.place.world.first:
            checkpoint.remove()


def reason_against_scores(scores: NeuronScores, fingerprint: str, of_work: Mapping[str, Any]) -> str | None:
    """Why scores do not belong to the work; None where they do."""
    if scores.metadata.get("fingerprint") != fingerprint:
        return f"other questions of {scores.task}"
    return differing(of_work, scores.metadata.get("identity"))


def reason_against_result(
    result: EvaluationResult, fingerprints: Mapping[str, str], of_work: Mapping[str, Any]
) -> str | None:
    """Why answers do not belong to the work; None where they do."""
    theirs = result.metadata.get("fingerprints")
    if theirs != fingerprints:
        return f"other questions of {', '.join(theirs if isinstance(theirs, dict) else fingerprints)}"
    return differing(of_work, result.metadata.get("identity"))
