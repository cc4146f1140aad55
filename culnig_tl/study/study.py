"""A study: its configuration and what it found. `run_study` makes one, `Study.load` reads one from its
folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import io
from ..data.neurons import NeuronSet
from ..data.results import EvaluationResult, on_all_questions
from ..data.scores import NeuronScores
from ..data.statistics import Drop
from ..engine.identity import MODEL_PARTS, differing, digest_of
from ..errors import StudyError
from ..names import Named, which
from ..tasks.question import Form
from .comparison import in_first_half, task_drop
from .config import GENERAL, RANDOM, RIVAL, SPECIFIC, UNCHANGED, StudyConfig, config_from
from .findings import Findings, TaskDrops
from .folder import own_files, read_record
from .sampling import error_of, spread_of


@dataclass
class Study:
    """A study's results; `run_study` makes one, `Study.load` reads one back."""

    config: StudyConfig
    info: dict[str, Any]
    """Model, revision, layers, versions, and each task's fingerprint and kind."""
    scores: dict[str, NeuronScores] = field(default_factory=dict)
    """"neuron", "control", "reading", and "rival" where there is one."""
    neurons: dict[str, NeuronSet] = field(default_factory=dict)
    """"culture-general", "culture-specific", "rival", and the random sets."""
    results: dict[str, EvaluationResult] = field(default_factory=dict)
    """Setting -> answers on all tasks: "unchanged" and every set that was suppressed."""
    folder: Path | None = None
    left: int = 0
    """Answers that are still to come: while a study runs, all that it says is preliminary."""

    def __post_init__(self) -> None:
        self.scores = Named("scores", self.scores.items())
        self.neurons = Named("set of neurons", self.neurons.items())
        self.results = Named("answers with", self.results.items())

    # ----------------------------------------------------------------------------------------- what was found

    @property
    def culture_task(self) -> str:
        """The task that neurons were found on."""
        return self.scores["neuron"].task

    @property
    def form(self) -> Form:
        """How its questions were answered: "letters" or "cloze"."""
        return self.info.get("form", {}).get("form", "letters")

    @property
    def asked_as(self) -> dict[str, Any]:
        """What `load_task` is given so that questions are asked as the study asked them."""
        known: dict[str, Any] = {name: getattr(self.config, name) for name in ("normalise", "chat_template")}
        return {"form": self.form, **known}

    def random_settings(self, match: str) -> list[str]:
        """Names of the random sets of one kind that were evaluated."""
        return [name for name in self.results if name.rpartition(" ")[0] == RANDOM[match]]

    def drop(self, task: str, match: str = "layer") -> Drop:
        """What suppressing the culture-general neurons costs on a task, against random sets.

        Args:
            match: "layer" for random sets with the same counts in every site and layer, "count" for any of
                the same size.

        Raises:
            StudyError: a task that this study did not ask.
        """

        if task not in set(self.results[UNCHANGED].table["task"]):
            raise StudyError(f"no answers to {task!r}{which(task, self.info['tasks'], 'this study asked')}")
        random = [self.results[setting] for setting in self.random_settings(match)]
        return task_drop(self.results[UNCHANGED], self.results[GENERAL], random, task)

    def random_errors(self) -> dict[str, float]:
        """Task -> points: the standard error of one random set's drop on the questions that it was asked, as
        an estimate of that on all of them; the root of the mean square over the sets."""
        unchanged, found = self.results[UNCHANGED], {}
        random = [self.results[name] for match in RANDOM for name in self.random_settings(match)]
        for task in self.info["tasks"] if random else ():
            whole = int((unchanged.table["task"] == task).sum())
            errors = [
                error_of(spread_of(unchanged, result, task), int((result.table["task"] == task).sum()), whole)
                for result in random
            ]
            found[task] = float(np.sqrt(np.mean(np.square(errors))))
        return found

    def drop_against_rival(self, task: str) -> Drop:
        """What suppressing the culture-general neurons costs on a task, against as many of the rival's
        neurons.

        Of the rival's own task, only the half that its neurons were not found on counts. Raises `StudyError`
        without a rival.
        """
        if RIVAL not in self.results:
            raise StudyError(
                f"this study has no rival: it asked {', '.join(self.info['tasks'])}, and the rival is"
                f" {self.config.rival_task}"
            )
        return task_drop(self._asked_of_rival(task), self.results[GENERAL], [self.results[RIVAL]], task)

    def _asked_of_rival(self, task: str) -> EvaluationResult:
        """The unchanged model's answers to those of a task's questions that the rival's neurons were not
        found on."""
        unchanged = self.results[UNCHANGED]
        table = unchanged.table.loc[unchanged.table["task"] == task]
        if task == self.config.rival_task:
            table = table.loc[~table["cluster"].map(lambda c: in_first_half(task, c)).astype(bool)]
        return EvaluationResult(table, unchanged.metadata)

    def drops(self, match: str = "layer") -> pd.DataFrame:
        """One row per task, in points: what suppressing costs, against random sets matched by "layer" or
        "count"."""
        rows = {}
        for task in self.info["tasks"]:
            drop = self.drop(task, match)
            rows[task] = {
                **asdict(drop),
                "p_rank": drop.p_rank,
                "culture": self.info["tasks"][task]["culture"],
            }
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")

    def table(self) -> pd.DataFrame:
        """Settings x tasks: accuracy in percent; columns (task, "accuracy" | "se"). Random rows are means
        over their sets.

        "se" is the standard deviation over the sets in random rows, and the standard error over clusters in
        all others. A setting that was asked a part of the questions has the unchanged model's accuracy on all
        of them, less what it loses on its part.
        """
        rows: dict[str, dict[tuple[str, str], float]] = {}
        for label, setting in (
            (UNCHANGED, UNCHANGED),
            (GENERAL, GENERAL),
            (f"rival ({self.config.rival_task})", RIVAL),
        ):
            if setting not in self.results:
                continue
            accuracy = self.results[setting].accuracy().assign(accuracy=self._accuracy(setting))
            rows[label] = {
                (t, c): float(accuracy.loc[t, c]) for t in accuracy.index for c in ("accuracy", "se")
            }  # type: ignore[arg-type]
        for match, name in RANDOM.items():
            settings = self.random_settings(match)
            if settings:
                each = pd.DataFrame({s: self._accuracy(s) for s in settings})
                label = f"{name} (mean of {len(settings)})"
                rows[label] = {
                    (t, c): v
                    for t in each.index
                    for c, v in (("accuracy", each.loc[t].mean()), ("se", each.loc[t].std(ddof=1)))
                }  # type: ignore[misc]
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("setting")

    def _accuracy(self, setting: str) -> pd.Series:
        """Task -> accuracy in percent on all questions."""
        return on_all_questions(
            self.results[setting], self.results[UNCHANGED], lambda result: result.accuracy()["accuracy"]
        )

    def findings(self) -> Findings:
        """What the numbers say: every claim that could have failed, and whether it holds."""
        general = self.neurons[GENERAL]
        specific = self.neurons.get(SPECIFIC)
        has_rival = RIVAL in self.results
        unchanged = self.results[UNCHANGED]
        errors: dict[Any, float] = unchanged.accuracy()["se"].to_dict()
        drops = {
            task: TaskDrops(
                culture=about["culture"],
                layer=self.drop(task),
                count=self.drop(task, "count") if self.random_settings("count") else None,
                rival=(
                    self.drop_against_rival(task) if has_rival and len(self._asked_of_rival(task)) else None
                ),
                se=errors[task],
                trivial=_always_one_label(unchanged, task),
            )
            for task, about in self.info["tasks"].items()
        }
        return Findings(
            task=self.culture_task,
            drops=drops,
            neurons=len(general),
            share=100
            * len(general)
            / (sum(general.provenance.pool.values()) * int(general.provenance.layers or 0)),
            rival=self.config.rival_task if has_rival else None,
            shared_pattern=specific.provenance.shared_pattern if specific is not None else None,
            limit=self.config.limit,
            split=self.info["tasks"][self.culture_task].get("split", "test"),
        )

    def sentence(self) -> str:
        """What was found, in a sentence or two written from the numbers; what does not hold comes first."""
        return self.findings().sentence()

    def verdict(self) -> str:
        """Whether the drop is larger than that of random sets, and whether it is limited to culture."""
        return self.findings().verdict()

    def __str__(self) -> str:
        return f"Study of {self.config.model}: {self.sentence()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(str(self))}</p>{self.table().round(2).to_html()}"

    # --------------------------------------------------------------------------------------------- its folder

    @classmethod
    def load(cls, folder: str | Path) -> Study:
        """Reads a study's folder. Raises `StudyError` where it holds none, an unfinished one, or parts of
        several; `FileError` where a file is damaged or a link leads out of it."""
        folder = Path(folder)
        record = read_record(folder)
        if record is None:
            raise StudyError(f"{folder} holds no study: no study.json in it")
        config = replace(config_from(record["config"]), data_dir=None)  # a place is named by who is here
        study = cls(config, record["info"], folder=folder)
        for path in own_files(folder):
            if path.suffix == io.TEMPORARY:
                continue
            if path.parent == folder / "scores":
                study.scores[path.stem] = NeuronScores.load(path)
            elif path.parent == folder / "neurons":
                study.neurons[path.stem] = NeuronSet.load(path)
            elif path.parent == folder / "results":
                study.results[path.stem] = EvaluationResult.load(path)
        missing = (
            [n for n in ("neuron",) if n not in study.scores]
            + [n for n in (GENERAL,) if n not in study.neurons]
            + [n for n in (UNCHANGED, GENERAL) if n not in study.results]
        )
        if missing:
            raise StudyError(
                f"the study in {folder} is not finished ({', '.join(missing)} missing): run it again with"
                " --resume"
            )
        reason = study._mixed()
        if reason is not None:
            raise StudyError(f"{folder} holds parts of several studies: {reason}; run it again with --resume")
        return study

    def _mixed(self) -> str | None:
        """Which of its parts are not of the model, the questions and the neurons that the others are of."""
        said = self.info.get("identity") or self.scores["neuron"].metadata.get("identity") or {}
        of_model = {part: said.get(part) for part in MODEL_PARTS}
        first = self.scores["neuron"]
        shape = (self.info.get("layers", first.layers), {s.value: w for s, w in first.widths.items()})
        for name, scores in self.scores.items():
            theirs = scores.metadata.get("identity") or {}
            if reason := differing(of_model, {part: theirs.get(part) for part in MODEL_PARTS}):
                return f"in scores/{name} the {reason}"
            known = self.info.get("scored", {}).get(name, {}).get("fingerprint")
            if known not in (None, scores.metadata.get("fingerprint")):
                return f"scores/{name} are of other questions"
            if shape != (scores.layers, {s.value: w for s, w in scores.widths.items()}):
                return f"scores/{name} are of a model of another shape"
        for name, neurons in self.neurons.items():
            known = neurons.provenance
            if known.identity not in (None, digest_of(of_model)):
                return f"neurons/{name} are of another model"
            reach: Any = neurons.table.groupby("site")[["layer", "neuron"]].max()
            for site, layer, neuron in reach.itertuples():
                if layer >= shape[0] or neuron >= shape[1].get(site, 0):
                    return f"neurons/{name} are of a model of another shape"
        for name, result in self.results.items():
            theirs = result.metadata.get("identity") or {}  # none in what an analysis asked more
            if theirs and (reason := differing(of_model, {part: theirs.get(part) for part in MODEL_PARTS})):
                return f"in results/{name} the {reason}"
            neurons = None if name == UNCHANGED else self.neurons.get(name)
            hashed = None if neurons is None else neurons.hash
            known = name == UNCHANGED or neurons is not None
            if known and theirs and theirs.get("neurons") != hashed:
                return f"results/{name} are of other neurons"
            if {*result.table["task"].unique()} != {*self.info["tasks"]}:
                return f"results/{name} are of other tasks"
        return None


def _always_one_label(result: EvaluationResult, task: str) -> float | None:
    """Accuracy in percent of always giving the most frequent right label of each wording, or of guessing
    among the options' words; None where answers are scored by alignment."""
    rows = result.table.loc[result.table["task"] == task]
    if "labels" in rows.columns and rows["labels"].notna().all():
        return 100 * float((1 / rows["labels"].map(len)).mean())
    if rows["alignment"].notna().any():
        return None
    best = rows.groupby("template", dropna=False)["answer"].agg(
        lambda answers: answers.value_counts().iloc[0]
    )
    return 100 * float(best.sum()) / len(rows)
