"""A study in independent pieces, for a cluster: who scores what, who asks what, and a last step that gathers.

    culnig-tl run --model M --output-dir F --plan   # F/plan/1-first.txt, 2-then.txt, 3-last.txt

Every piece is a command that can be started on any machine that sees the folder, in any order within its
list, again after it died, and alongside the others. No file is trusted for its name: the last step checks
what each says it was made from.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from .. import io
from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult, concat
from ..data.scores import NeuronScores
from ..engine.checkpoint import SAVE_EVERY
from ..engine.identity import MODEL_PARTS, differing, identity, model_identity
from ..errors import CulnigError, StudyError
from ..method.ablation import operation_name
from ..study.config import RANDOM, RIVAL, UNCHANGED, StudyConfig, check_config
from ..study.folder import PARTS, PLAN, RECORD, StudyFolder, check_info, part_name, read_record
from ..study.sampling import about_parts, questions_expected
from ..study.study import Study
from .asking import PART, with_parts
from .pieces import (
    SCORE_SETTINGS,
    Pieces,
    Questions,
    ask_label,
    check_model,
    form_asked,
    is_random,
    reason_against_result,
    reason_against_scores,
    score_label,
    select,
    settings_of,
)
from .pipeline import about_model, draw, files_of, load, rehearse, versions
from .repeat import words_of_places

LISTS = {1: "1-first.txt", 2: "2-then.txt", 3: "3-last.txt"}
"""Commands that need nothing; that need the first ones; the one that needs all."""
MODEL = f"{PARTS}/model.json"
"""What pieces say of the model that they were made with."""
MISSING = f"{PLAN}/missing.txt"
GATHER = "gather"
_NAMED = 4
"""Problems of a kind that a message names."""


@dataclass(frozen=True)
class Piece:
    """One thing to do, by itself."""

    label: str
    step: int
    """1 needs nothing, 2 the scores, 3 everything."""

    def command(self, folder: Path, config: StudyConfig) -> str:
        """How a shell starts it."""
        words = ["--from", str(folder / RECORD), "--piece", self.label, *words_of_places(config)]
        return shlex.join(["culnig-tl", "run", *words])


def pieces_of(config: StudyConfig, asked: Sequence[str], scored: Sequence[str]) -> list[Piece]:
    """All pieces of a study: scores, each setting's answers to each task, and the gathering."""
    found = [Piece(score_label(name), 1) for name in scored]
    for setting in settings_of(config, rival=RIVAL in scored):
        found += [Piece(ask_label(setting, task), 1 if setting == UNCHANGED else 2) for task in asked]
    return [*found, Piece(GATHER, 3)]


def write_plan(config: StudyConfig, folder: str | Path, *, overwrite: bool = False) -> list[Piece]:
    """Writes a study's record and the lists of its pieces, in ``plan/``. The model is not loaded, so nothing
    tells how many questions random sets need: left open, it is `questions_expected`.

    Raises `StudyError` where the folder holds another study, or the model would have to be tried first.
    """
    check_config(config)
    check_model(config)
    form = form_asked(config)
    if form is None:
        raise StudyError("a plan cannot try the model: say --form letters or --form cloze")
    questions = Questions.load(config)
    if config.random_questions == "auto":
        count = questions_expected(questions.asked, sets=len(RANDOM) * config.random_sets)
        config = replace(config, random_questions=count)
    place = StudyFolder(Path(folder).resolve(), asdict(config))
    with place.opened(resume=not overwrite, overwrite=overwrite):
        questions = with_parts(questions, config, {})
        if not place.resumed:
            info = {**questions.info(), "form": {"form": form, "why": "asked for"}, "versions": versions()}
            place.start(info | ({PART: about_parts(questions.random)} if questions.random else {}))
        pieces = pieces_of(config, [task.name for task in questions.asked], list(questions.scored))
        for step, name in LISTS.items():
            lines = [piece.command(place.folder or Path(), config) for piece in pieces if piece.step == step]
            place.write(f"{PLAN}/{name}", ("\n".join(lines) + "\n").encode())
    return pieces


def describe_plan(pieces: Sequence[Piece], folder: Path) -> str:
    """A line per list: its file, how many commands it holds, and which list must be done before."""
    lines = []
    for step, name in LISTS.items():
        count = sum(piece.step == step for piece in pieces)
        after = f", after {LISTS[step - 1]}" if step > 1 else ""
        lines.append(f"{folder / PLAN / name}: {count} command{'s' * (count != 1)}{after}")
    return "\n".join(lines)


def run_piece(
    config: StudyConfig,
    folder: str | Path,
    label: str,
    *,
    progress: bool = True,
    save_every: float = SAVE_EVERY,
) -> str:
    """Makes one piece of a planned study, alongside runs that make others; returns what was made, in a
    sentence.

    Raises:
        StudyError: no such piece, one that another process is working on, or scores that it needs and that
            are missing.
    """
    place = StudyFolder(Path(folder), asdict(config))
    planned = _planned(Path(folder))
    known = pieces_of(config, list(planned["tasks"]), list(planned["scored"]))
    if label not in {piece.label for piece in known}:
        raise StudyError(f"this study has no piece {label!r}: {place.folder}/{PLAN} lists them")
    if label == GATHER:
        return str(gather(config, folder))
    with place.opened(piece=label):
        questions = with_parts(Questions.load(config), config, planned)
        _check_questions(questions, planned)
        settings = settings_of(config, rival=RIVAL in questions.scored)
        asks = {ask_label(s, task.name): (s, task) for s in settings for task in questions.of(s)}
        setting, task = asks.get(label, (UNCHANGED, None))
        if task is not None and setting != UNCHANGED:
            missing = [name for name in questions.scored if not place.has(f"scores/{name}.safetensors")]
            if missing:
                wanted = ", ".join(map(score_label, missing))
                raise StudyError(f"the piece {label!r} needs scores that are not there yet: {wanted}")
        model = load(config)
        about = about_model(model, model_identity(model))
        said = _model_of(place, about)
        if said and (why := differing(about["identity"], said.get("identity"))):
            raise StudyError(
                f"the other pieces in {folder} are of another model ({why}): plan the study anew"
            )
        if task is None:
            rehearse(config, model, questions, place)
        how: dict[str, Any] = {"progress": progress, "save_every": save_every}
        pieces = Pieces(config, questions, model, place, about["identity"], **how)
        place.write(MODEL, json.dumps(about).encode())
        if task is None:
            return str(pieces.score(next(name for name in questions.scored if score_label(name) == label)))
        neurons = None
        if setting != UNCHANGED:
            scores = {name: pieces.score(name) for name in questions.scored}
            neurons = select(config, scores, only=setting)[setting]
        return str(pieces.ask(setting, task, neurons, progress=pieces.progress, keep=True))


def gather(config: StudyConfig, folder: str | Path) -> Study:
    """Puts a planned study together once all its pieces are there: neurons, results, figures, report. Needs
    no model.

    Raises:
        StudyError: missing pieces, or files that do not belong to this study. It names them, and leaves the
            commands that are still to be run in ``plan/missing.txt``.
    """
    place = StudyFolder(Path(folder), asdict(config))
    with place.opened(resume=True):
        folder = place.folder or Path()
        planned = _planned(folder)
        check = _Check(folder, config, planned)
        scores = check.scores()
        neurons = select(config, scores) if len(scores) == len(planned["scored"]) else {}
        results = check.results(neurons)
        check.strangers()
        check.finish(place)
        info = {**_model_of(place, planned), **planned, "versions": versions()}
        place.start(info)
        study = Study(config, info, scores, neurons, results, folder)
        for name, neuron_set in neurons.items():
            place.save(f"neurons/{name}.parquet", neuron_set)
        for setting, result in results.items():
            place.save(f"results/{setting}.parquet", result)
        drawn = draw(study, place)
        place.finish([*files_of(study), *drawn])
    return study


class _Check:
    """Compares what a planned study's folder holds with what it should hold."""

    def __init__(self, folder: Path, config: StudyConfig, info: Mapping[str, Any]) -> None:
        self.folder, self.config, self.info = folder, config, info
        parts = info.get(PART, {})
        self.prints = {name: task["fingerprint"] for name, task in info["tasks"].items()}
        self.of_random = self.prints | {name: part["fingerprint"] for name, part in parts.items()}
        self.missing: list[str] = []
        self.foreign: list[str] = []
        self.known: set[Path] = {folder / MODEL}
        self.of_model: dict[str, Any] | None = None
        """Identity of the model that the first scores were made with: all others are compared with it."""

    def read(self, name: str, kind: Any, label: str) -> Any:
        """What a file holds; None where it is missing or cannot be read."""
        path = self.folder / name
        self.known.add(path)
        if not path.is_file():
            self.missing.append(label)
            return None
        try:
            return kind.load(path)
        except CulnigError as error:
            self.reject(label, str(error))
            return None

    def reject(self, label: str, reason: str) -> None:
        self.missing.append(label)
        self.foreign.append(reason)

    def scores(self) -> dict[str, NeuronScores]:
        """The scores that are there and belong."""
        found = {}
        for name, about in self.info["scored"].items():
            file, label = f"scores/{name}.safetensors", score_label(name)
            scores = self.read(file, NeuronScores, label)
            if scores is None:
                continue
            said = scores.metadata.get("identity")
            if self.of_model is None and isinstance(said, dict):
                self.of_model = {part: said.get(part) for part in MODEL_PARTS}
            reason = reason_against_scores(
                scores,
                about["fingerprint"],
                identity(self.of_model or {}, **SCORE_SETTINGS),
            )
            if reason is not None:
                self.reject(label, f"{file} does not belong: {reason}")
            else:
                found[name] = scores
        return found

    def results(self, neurons: Mapping[str, NeuronSet]) -> dict[str, EvaluationResult]:
        """The answers of every setting whose parts are all there and belong."""
        found = {}
        for setting in settings_of(self.config, rival=RIVAL in self.info["scored"]):
            whole = self.folder / f"results/{setting}.parquet"
            self.known.add(whole)
            if (done := self.whole(whole, neurons.get(setting), setting)) is not None:
                found[setting] = done
                continue
            parts = []
            for task, fingerprint in self.asked(setting).items():
                file, label = part_name(setting, task), ask_label(setting, task)
                part = self.read(file, EvaluationResult, label)
                if part is None or (setting != UNCHANGED and setting not in neurons):
                    continue  # without scores nobody can say whether it belongs
                of_work = identity(
                    self.of_model or {}, neurons=neurons.get(setting), operation=operation_name()
                )
                reason = reason_against_result(part, {task: fingerprint}, of_work)
                if reason is not None:
                    self.reject(label, f"{file} does not belong: {reason}")
                else:
                    parts.append(part)
            if len(parts) == len(self.prints):
                found[setting] = concat(parts)
        return found

    def asked(self, setting: str) -> Mapping[str, str]:
        """Task -> fingerprint of the questions that a setting is asked."""
        return self.of_random if is_random(setting) else self.prints

    def whole(self, path: Path, neurons: NeuronSet | None, setting: str) -> EvaluationResult | None:
        """A setting's answers to all tasks, where they were gathered before."""
        if not path.is_file() or (setting != UNCHANGED and neurons is None):
            return None
        result = EvaluationResult.load(path)
        of_work = identity(self.of_model or {}, neurons=neurons, operation=operation_name())
        return result if reason_against_result(result, self.asked(setting), of_work) is None else None

    def strangers(self) -> None:
        """Files that are no piece of this study."""
        for pattern in ("scores/*", "results/*", f"{PARTS}/*/*", f"{PARTS}/*.json"):
            for path in sorted(self.folder.glob(pattern)):
                if path not in self.known and path.is_file() and path.suffix != io.TEMPORARY:
                    self.foreign.append(f"{path.relative_to(self.folder)} is no piece of this study")

    def finish(self, place: StudyFolder) -> None:
        """Raises `StudyError` where something is missing or foreign."""
        lines = [Piece(label, 0).command(self.folder.resolve(), self.config) for label in self.missing]
        if lines:
            place.write(MISSING, ("\n".join(lines) + "\n").encode())
        else:
            place.remove(MISSING)
        said = []
        if self.missing:
            said.append(
                f"{len(self.missing)} pieces are missing: {_few(self.missing)}; their commands are in"
                f" {self.folder / MISSING}"
            )
        if self.foreign:
            said.append(f"not of this study: {_few(self.foreign)}; remove it")
        if said:
            raise StudyError(f"{self.folder} cannot be gathered: {'; '.join(said)}")


def _planned(folder: Path) -> Mapping[str, Any]:
    """What a planned study's record says of its questions. Raises `StudyError` where the folder holds no
    plan."""
    record = read_record(folder)
    if record is None or "scored" not in record["info"]:
        raise StudyError(
            f"{folder} holds no planned study: culnig-tl run --output-dir {folder} --plan makes one"
        )
    return record["info"]


def _model_of(place: StudyFolder, info: Mapping[str, Any]) -> dict[str, Any]:
    """What the pieces have said of their model; a study that was gathered before knows it itself."""
    path = place.at(MODEL)
    if not path.is_file():
        if "layers" in info:
            return {}
        raise StudyError(f"{path} is missing: run one of the pieces again")
    with io.reading(path, "what pieces say of their model"):
        said = json.loads(path.read_text(encoding="utf-8"))
        check_info({**said, "tasks": {}})
        return said


def _few(items: Sequence[str]) -> str:
    more = f", and {len(items) - _NAMED} more" if len(items) > _NAMED else ""
    return ", ".join(items[:_NAMED]) + more


def _check_questions(questions: Questions, info: Mapping[str, Any]) -> None:
    """Raises `StudyError` where this machine has other questions than those that were planned."""
    mine = questions.info()
    for kind in ("tasks", "scored"):
        for name, planned in info[kind].items():
            if mine[kind].get(name, {}).get("fingerprint") != planned["fingerprint"]:
                raise StudyError(
                    f"the questions of {name} are not those that were planned: is it the same data here?"
                )
