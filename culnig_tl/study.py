"""The whole study: score, select, switch off, ask, draw. One folder holds all of it."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from . import __version__, files
from .attribution import score_neurons
from .errors import StudyError, TaskError
from .evaluation import EvaluationResult, concat, evaluate
from .folder import StudyFolder, read_record
from .loading import check_folder, looks_like_path
from .models import TOY, describe, load_model
from .neurons import NeuronSet
from .progress import progress_bar
from .scores import NeuronScores
from .selection import T_ATTN, T_MLP, T_SPECIFIC, R, Z, select_culture_general, select_culture_specific, select_random
from .statistics import Drop, compare_drops
from .tasks import Task, load_task

UNCHANGED, GENERAL = "unchanged", "culture-general"
RANDOM = {"count": "random", "layer": "random by layer"}
"""How random sets are matched -> what they are called in tables."""


@dataclass(frozen=True)
class StudyConfig:
    """All that decides a study's result: arguments, help texts and `study.json` at once."""

    model: str = TOY
    """"toy", a Hub id, or a folder with a Hugging Face checkpoint."""
    tasks: tuple[str, ...] = ("blend", "commonsenseqa", "qnli", "mrpc")
    """Tasks to ask; the neurons are found on the first that has cultural questions with a control."""
    reading: str = "countryrc"
    """Country reading comprehension: neurons that serve it are removed."""
    t_mlp: float = T_MLP
    """Share of the MLP neurons that are candidates."""
    t_attn: float = T_ATTN
    """Share of the pooled q, k, v neurons that are candidates."""
    r: float = R
    """Share, highest by reading comprehension, that is removed."""
    t_specific: float = T_SPECIFIC
    """Share of all neurons that are candidates for one country."""
    z: float = Z
    """Least z of a country's own neurons over the countries."""
    random_sets: int = 10
    """Random sets of each kind (matched by count as in the paper, and by count in every site and layer)."""
    limit: int | None = None
    """Questions a task and split, spread evenly over countries and wordings; None asks all."""
    seed: int = 0
    """Of the first random set; the others follow."""
    batch_size: int | str = "auto"
    """Questions a batch, or "auto"."""
    device: str = "auto"
    dtype: str = "auto"
    revision: str | None = None
    """Branch, tag or commit on the Hub."""
    data_dir: str | None = None
    """Local mirror of the Hub's data sets: FOLDER/<org>/<name>."""


TOY_CONFIG = StudyConfig(
    tasks=("miniculture", "minicommonsense", "minireading", "miniparaphrase", "minianswers"),
    reading="minireading",
    t_mlp=0.05,
    t_attn=0.01,
    t_specific=0.02,
)
"""The toy has a thousandth of a real model's neurons: 1% of them is two dozen. These shares were fixed before any
suppression of the shipped model was looked at."""


@dataclass
class Study:
    """A study's results; `run_study` makes one, `Study.load` reads one back."""

    config: StudyConfig
    info: dict[str, Any]
    """Model, revision, layers, versions, and each task's fingerprint and kind."""
    scores: dict[str, NeuronScores] = field(default_factory=dict)
    """"neuron", "control", "reading"."""
    neurons: dict[str, NeuronSet] = field(default_factory=dict)
    """"culture-general", "culture-specific", and the random sets."""
    results: dict[str, EvaluationResult] = field(default_factory=dict)
    """Setting -> answers on all tasks: "unchanged" and every set that was suppressed."""
    folder: Path | None = None

    # ------------------------------------------------------------------------------------------- what was found

    @property
    def culture_task(self) -> str:
        """The task that neurons were found on."""
        return self.scores["neuron"].task

    def random_settings(self, match: str) -> list[str]:
        """Names of the random sets of one kind that were evaluated."""
        return [name for name in self.results if name.rpartition(" ")[0] == RANDOM[match]]

    def drop(self, task: str, match: str = "layer") -> Drop:
        """What suppressing the culture-general neurons costs on a task, against random sets."""

        def right(setting: str) -> np.ndarray:
            table = self.results[setting].table
            return table.loc[table["task"] == task, "correct"].to_numpy(float)

        table = self.results[UNCHANGED].table
        clusters = table.loc[table["task"] == task, "cluster"].to_numpy()
        if not len(clusters):
            raise StudyError(f"no answers to {task!r}: this study asked {', '.join(self.info['tasks'])}")
        return compare_drops(right(UNCHANGED), right(GENERAL), [right(s) for s in self.random_settings(match)], clusters)

    def drops(self, match: str = "layer") -> pd.DataFrame:
        """One row a task: what suppressing costs, against random sets matched by "layer" or "count"."""
        rows = {}
        for task in self.info["tasks"]:
            drop = self.drop(task, match)
            rows[task] = {**asdict(drop), "p_rank": drop.p_rank, "culture": self.info["tasks"][task]["culture"]}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("task")

    def table(self) -> pd.DataFrame:
        """Settings x tasks: accuracy in percent; columns (task, "accuracy" | "se"). Random rows are means over their sets.

        The error of a random row is the standard deviation over its sets, of the others the standard error over clusters.
        """
        rows: dict[str, dict[tuple[str, str], float]] = {}
        for label, setting in ((UNCHANGED, UNCHANGED), (GENERAL, GENERAL)):
            accuracy = self.results[setting].accuracy()
            rows[label] = {(t, c): float(accuracy.loc[t, c]) for t in accuracy.index for c in ("accuracy", "se")}  # type: ignore[arg-type]
        for match, name in RANDOM.items():
            settings = self.random_settings(match)
            if settings:
                each = pd.DataFrame({s: self.results[s].accuracy()["accuracy"] for s in settings})
                label = f"{name} (mean of {len(settings)})"
                rows[label] = {
                    (t, c): v for t in each.index for c, v in (("accuracy", each.loc[t].mean()), ("se", each.loc[t].std(ddof=1)))
                }  # type: ignore[misc]
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("setting")

    def sentence(self) -> str:
        """What was found, in one sentence that the numbers write."""
        general = self.neurons[GENERAL]
        share = len(general) / (sum(general.provenance.pool.values()) * int(general.provenance.layers or 0))
        culture = self.drop(self.culture_task)
        others = [task for task, about in self.info["tasks"].items() if not about["culture"]]
        nlu = [self.drop(task) for task in others]
        text = (
            f"Suppressing {len(general):,} culture-general neurons ({100 * share:.1f}% of those scored) takes {self.culture_task} from "
            f"{culture.base:.1f}% to {culture.base - culture.drop:.1f}% ({_signed(-culture.drop)} points, 95% interval {_signed(-culture.high)} to "
            f"{_signed(-culture.low)}; layer-matched random sets {_signed(-culture.random_mean)} on average, rank {culture.rank} of {culture.random_sets + 1})"
        )
        if nlu:
            text += f", and the tasks without culture by {_signed(-float(np.mean([d.drop for d in nlu])))} on average (random {_signed(-float(np.mean([d.random_mean for d in nlu])))})"
        return f"{text}: {self.verdict()}."

    def verdict(self) -> str:
        """Whether the drop is more than random, and whether it is culture alone."""
        culture = self.drop(self.culture_task)
        if culture.excess_low <= 0 or culture.rank > 1:
            return "no more than random sets cost, so nothing is shown about culture"
        worst = max((self.drop(task).excess for task, about in self.info["tasks"].items() if not about["culture"]), default=None)
        if worst is None:
            return "more than every random set; no task without culture was asked, so it may not be culture alone"
        if worst >= culture.excess:
            return "more than every random set, but a task without culture loses as much, so it is not culture alone"
        return "more than every random set, and more than any task without culture loses"

    def figures(self) -> dict[str, Any]:
        """Name -> Plotly figure."""
        from . import figures

        general = self.neurons[GENERAL]
        answers = {setting: self.results[setting] for setting in (UNCHANGED, GENERAL)}
        for match, name in RANDOM.items():
            answers[f"one {name}"] = self.results[self.random_settings(match)[0]]
        return {
            "layer_distribution": figures.layer_distribution(general),
            "layer_heatmap": figures.layer_heatmap(general),
            "accuracy": figures.accuracy_bars(answers),
        }

    def __str__(self) -> str:
        return f"Study of {self.config.model}: {self.sentence()}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        import html

        return f"<p>{html.escape(str(self))}</p>{self.table().round(2).to_html()}"

    # ------------------------------------------------------------------------------------------- its folder

    @classmethod
    def load(cls, folder: str | Path) -> Study:
        """Reads a study's folder. Raises `StudyError` where it holds none."""
        folder = Path(folder)
        record = read_record(folder)
        if record is None:
            raise StudyError(f"{folder} holds no study: no study.json in it")
        study = cls(_config(record["config"]), record["info"], folder=folder)
        for path in sorted((folder / "scores").glob("*.safetensors")):
            study.scores[path.stem] = NeuronScores.load(path)
        for path in sorted((folder / "neurons").glob("*.parquet")):
            study.neurons[path.stem] = NeuronSet.load(path)
        for path in sorted((folder / "results").glob("*.parquet")):
            study.results[path.stem] = EvaluationResult.load(path)
        missing = (
            [n for n in ("neuron",) if n not in study.scores]
            + [n for n in (GENERAL,) if n not in study.neurons]
            + [n for n in (UNCHANGED, GENERAL) if n not in study.results]
        )
        if missing:
            raise StudyError(f"the study in {folder} is not finished ({', '.join(missing)} missing): run it again with --resume")
        return study


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

    general = select_culture_general(neuron, control, crc, t_mlp=config.t_mlp, t_attn=config.t_attn, r=config.r)
    study.neurons[GENERAL] = general
    study.neurons["culture-specific"] = select_culture_specific(neuron, control, crc, t=config.t_specific, r=config.r, z=config.z)
    for match, label in RANDOM.items():
        for seed in range(config.seed, config.seed + config.random_sets):
            study.neurons[f"{label} {seed}"] = select_random(general, neuron, seed=seed, match=match)  # type: ignore[arg-type]
    for name, neurons in study.neurons.items():
        place.save(f"neurons/{name}.parquet", neurons)

    settings = (UNCHANGED, GENERAL, *(name for name in study.neurons if name.startswith(RANDOM["count"])))
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


def _config(stored: Mapping[str, Any]) -> StudyConfig:
    known = {f.name for f in fields(StudyConfig)}
    unknown = set(stored) - known
    if unknown:
        raise StudyError(f"study.json has an argument that this version does not know: {sorted(unknown)[0]}")
    return replace(StudyConfig(), **{**stored, "tasks": tuple(stored["tasks"])})


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names: Sequence[str] = ("torch", "transformer-lens", "transformers", "datasets", "numpy")
    return {"culnig_tl": __version__, "python": platform.python_version(), **{name: version(name) for name in names}}


def _signed(value: float) -> str:
    return f"{round(value, 1) + 0.0:+.1f}".replace("-", "−")
