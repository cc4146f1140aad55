"""The pieces of a study: scores of four tasks, and each setting's answers to each task. Each is made, or taken from the folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..data.neurons import SITES, NeuronSet
from ..data.results import EvaluationResult, concat
from ..data.scores import NeuronScores
from ..engine.checkpoint import EVERY, Saving
from ..engine.identity import differing, identity, model_identity
from ..errors import StudyError, TaskError
from ..method.evaluation import evaluate
from ..method.score import score_neurons
from ..method.selection import select_general, select_random, select_rival, select_specific
from ..progress import Advance
from ..study.comparison import halves
from ..study.config import GENERAL, RANDOM, RIVAL, SPECIFIC, UNCHANGED, StudyConfig
from ..study.folder import StudyFolder, part_name
from ..tasks import Task, load_task

log = logging.getLogger(__name__)

NEURON, CONTROL, READING = "neuron", "control", "reading"


@dataclass(frozen=True)
class Questions:
    """The questions of a study."""

    asked: tuple[Task, ...]
    """Test splits."""
    scored: Mapping[str, Task]
    """"neuron", "control", "reading", and "rival" where there is one."""

    @classmethod
    def load(cls, config: StudyConfig) -> Questions:
        """All of a study's tasks.

        Raises:
            StudyError: none of them is cultural, with a control and a neuron split.
        """
        whole = [load_task(name, data_dir=config.data_dir) for name in dict.fromkeys(config.tasks)]
        culture = next((t for t in whole if t.culture and _has_control(t)), None)
        if culture is None:
            raise StudyError(
                f"none of the tasks {', '.join(config.tasks)} has cultural questions with a control and a neuron split: add blend"
            )
        found_on = culture.neuron_split().limit(config.limit)
        reading = load_task(config.reading, data_dir=config.data_dir)
        reading = reading.filter(lambda q: q.split in (None, "neuron")).limit(config.limit)
        scored = {NEURON: found_on, CONTROL: found_on.control(), READING: reading}
        asked = tuple(task.test_split().limit(config.limit) for task in whole)
        rival = next((t for t in asked if t.name == config.rival), None)
        if rival is not None:
            scored[RIVAL] = halves(load_task(rival.name, data_dir=config.data_dir))[0].limit(config.limit)
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
                }
                for t in self.asked
            },
            "scored": {
                name: {"task": t.name, "fingerprint": t.fingerprint, "questions": len(t)}
                for name, t in self.scored.items()
            },
        }


def _has_control(task: Task) -> bool:
    try:
        task.neuron_split().control()
    except TaskError:
        return False
    return True


def score_settings() -> dict[str, Any]:
    """How a study scores: with `score_neurons`' defaults."""
    return {"sites": [site.value for site in SITES], "aggregation": "max", "bootstrap": 0, "seed": 0}


def score_label(name: str) -> str:
    """What the scores of one of `Questions.scored` are called as a piece."""
    return f"score {name}"


def ask_label(setting: str, task: str) -> str:
    """What a setting's answers to a task are called as a piece."""
    return f"ask {setting}: {task}"


def settings_of(config: StudyConfig, *, rival: bool) -> tuple[str, ...]:
    """What a study asks all its tasks with: nothing switched off, the culture-general neurons, the rival's, random sets."""
    seeds = range(config.seed, config.seed + config.random_sets)
    return (
        UNCHANGED,
        GENERAL,
        *([RIVAL] if rival else []),
        *(f"{label} {seed}" for label in RANDOM.values() for seed in seeds),
    )


def select(
    config: StudyConfig, scores: Mapping[str, NeuronScores], only: str | None = None
) -> dict[str, NeuronSet]:
    """Every set of a study, by name, from its scores (or `only` one of them): quick, and the same whoever does it."""
    neuron, control, crc = (scores[name] for name in (NEURON, CONTROL, READING))
    general = select_general(
        neuron,
        control,
        crc,
        top_mlp=config.top_mlp,
        top_attn=config.top_attn,
        drop_reading=config.drop_reading,
    )
    ways: dict[str, Callable[[], NeuronSet]] = {
        GENERAL: lambda: general,
        SPECIFIC: lambda: select_specific(
            neuron, control, crc, top=config.top_specific, drop_reading=config.drop_reading, z=config.z
        ),
    }
    if RIVAL in scores:
        ways[RIVAL] = lambda: select_rival(general, scores[RIVAL])
    for match, label in RANDOM.items():
        for seed in range(config.seed, config.seed + config.random_sets):
            ways[f"{label} {seed}"] = partial(select_random, general, neuron, seed=seed, match=match)  # type: ignore[arg-type]
    return {name: way() for name, way in ways.items() if only in (None, name)}


class Pieces:
    """Makes the pieces of one study with its model, or takes them from its folder where they are of the same work."""

    def __init__(
        self,
        config: StudyConfig,
        questions: Questions,
        model: Any,
        place: StudyFolder,
        *,
        progress: bool | Advance = True,
        save_every: float = EVERY,
    ) -> None:
        self.config, self.questions, self.model, self.place = config, questions, model, place
        self.progress: bool | Advance = progress if place.ranks.first else False
        self.save_every = save_every
        self.of_model = model_identity(model) if place.folder is not None else None
        self.tokens_a_batch: int | None = None
        """Of the first scores: all of a study are planned alike."""
        self._saved_at = time.monotonic()
        self._unsaved: list[tuple[str, EvaluationResult, Saving | None]] = []
        """Answers to single tasks that no file holds yet: less than `save_every` seconds of work."""

    def score(self, name: str) -> NeuronScores:
        """Scores of one of `questions.scored`."""
        task = self.questions.scored[name]
        file = f"scores/{name}.safetensors"
        of_work = self._identity(**score_settings())
        scores = self._stored(
            file, NeuronScores, lambda s: reason_against_scores(s, task.fingerprint, of_work)
        )
        if scores is None:
            saving = self._saving(score_label(name))
            size = self.config.batch_size
            scores = score_neurons(self.model, task, batch_size=size, progress=self.progress, saving=saving)
            self.place.save(file, scores)
            self._done(saving)
        self.tokens_a_batch = self.tokens_a_batch or scores.metadata.get("tokens_a_batch")
        return scores

    def ask(
        self,
        setting: str,
        task: Task,
        neurons: NeuronSet | None,
        *,
        progress: bool | Advance,
        keep: bool = False,
    ) -> EvaluationResult:
        """A setting's answers to one task; kept as a part of the setting's when `save_every` has passed, or on `keep`."""
        file = part_name(setting, task.name)
        of_work = self._identity(neurons=neurons, operation="suppress")
        result = self._stored(
            file, EvaluationResult, lambda r: reason_against_result(r, {task.name: task.fingerprint}, of_work)
        )
        if result is not None:
            if callable(progress):
                progress(len(task))
            return result
        saving = self._saving(ask_label(setting, task.name))
        result = evaluate(
            self.model,
            task,
            neurons=neurons,
            batch_size=self.config.batch_size,
            progress=progress,
            saving=saving,
        )
        self._unsaved.append((file, result, saving))
        if keep or self.place.ranks.share(time.monotonic() - self._saved_at >= self.save_every):
            for name, answers, state in self._unsaved:
                self.place.save(name, answers)
                self._done(state)
            self._settle()
        return result

    def ask_all(
        self, setting: str, neurons: NeuronSet | None, *, progress: bool | Advance
    ) -> EvaluationResult:
        """A setting's answers to all tasks."""
        file = f"results/{setting}.parquet"
        of_work = self._identity(neurons=neurons, operation="suppress")
        wanted = {task.name: task.fingerprint for task in self.questions.asked}
        result = self._stored(file, EvaluationResult, lambda r: reason_against_result(r, wanted, of_work))
        if result is not None:
            if callable(progress):
                progress(sum(map(len, self.questions.asked)))
            return result
        result = concat(
            [self.ask(setting, task, neurons, progress=progress) for task in self.questions.asked]
        )
        self.place.save(file, result)
        for _, _, state in self._unsaved:
            self._done(state)
        self._settle()
        return result

    def _identity(self, **work: Any) -> dict[str, Any]:
        return identity(self.of_model or {}, **work)

    def _stored(self, file: str, kind: Any, reason: Callable[[Any], str | None]) -> Any:
        """What the folder holds under that name, where nothing speaks against it."""
        if not self.place.has(file):
            return None
        stored = self.place.load(file, kind)
        against = reason(stored)
        if against is not None:
            log.warning("%s in %s is of other work (%s): made again", file, self.place.folder, against)
            return None
        log.info("taken from the folder: %s", file)
        return stored

    def _saving(self, piece: str) -> Saving | None:
        path = self.place.state(piece)
        if path is None:
            return None
        return Saving(path, every=self.save_every, model=self.of_model, tokens_a_batch=self.tokens_a_batch)

    def _settle(self) -> None:
        """All answers are stored."""
        self._unsaved.clear()
        self._saved_at = time.monotonic()

    def _done(self, saving: Saving | None) -> None:
        """The piece is stored: its state is not needed any more."""
        if saving is not None and self.place.ranks.first:
            saving.remove()


def reason_against_scores(scores: NeuronScores, fingerprint: str, of_work: Mapping[str, Any]) -> str | None:
    """Why scores are not those of the work; None where they are."""
    if scores.metadata.get("fingerprint") != fingerprint:
        return f"other questions of {scores.task}"
    return differing(of_work, scores.metadata.get("identity"))


def reason_against_result(
    result: EvaluationResult, fingerprints: Mapping[str, str], of_work: Mapping[str, Any]
) -> str | None:
    """Why answers are not those of the work; None where they are."""
    theirs = result.metadata.get("fingerprints")
    if theirs != fingerprints:
        return f"other questions of {', '.join(theirs if isinstance(theirs, dict) else fingerprints)}"
    return differing(of_work, result.metadata.get("identity"))
