"""What the commands that go on from a finished study share: its model, its tasks, and where they write."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .. import io
from ..commands.options import out
from ..errors import StudyError

if TYPE_CHECKING:
    from ..tasks import Task
    from .study import Study

StudyDir = Annotated[Path, typer.Argument(help="Folder of a finished study, as `culnig-tl run` wrote it.")]
OutputDir = Annotated[
    Path | None,
    typer.Option("--output-dir", help="Where tables and figures go; the study's folder by default."),
]


@dataclass(frozen=True)
class OpenStudy:
    """A finished study with its model and tasks loaded again."""

    study: Study
    model: Any
    tasks: tuple[Task, ...]
    """Test splits, as the study asked them."""
    culture: Task
    """Neuron split that the study's neurons were found on."""
    reading: Task
    """Neuron split of country reading comprehension."""


def open_study(folder: Path, *, device: str, dtype: str, data_dir: str | None) -> OpenStudy:
    """Reads a study's folder and loads what it was made of.

    Raises:
        StudyError: the model or the questions are no longer those of the study.
    """
    from ..engine.models import describe, load_model
    from ..tasks import load_task
    from .study import Study

    study = Study.load(folder)
    config = study.config
    where = data_dir or config.data_dir
    whole = {name: load_task(name, data_dir=where) for name in study.info["tasks"]}
    tasks = tuple(task.test_split().limit(config.limit) for task in whole.values())
    culture = whole[study.culture_task].neuron_split().limit(config.limit)
    reading = load_task(config.reading, data_dir=where)
    reading = reading.filter(lambda q: q.split in (None, "neuron")).limit(config.limit)
    for task, known in ((culture, study.scores["neuron"]), (reading, study.scores["reading"])):
        if task.fingerprint != known.metadata["fingerprint"]:
            raise StudyError(
                f"the questions of {task.name} are not those of the study in {folder}: run it again with --overwrite"
            )
    model = load_model(config.model, device=device, dtype=dtype, revision=config.revision)
    if describe(model).revision != study.info["revision"]:
        raise StudyError(
            f"{config.model} is not the model of the study in {folder} any more: run it again with --overwrite"
        )
    return OpenStudy(study, model, tasks, culture, reading)


def more_random_sets(opened: OpenStudy, folder: Path, count: int, *, batch_size: int | str) -> None:
    """Asks with layer-matched random sets until the study has `count` of them; each is kept in its folder as soon as it is asked."""
    from ..data.results import concat
    from ..method.evaluation import evaluate
    from ..method.selection import select_random
    from ..progress import progress_bar
    from .config import GENERAL, RANDOM

    study = opened.study
    seeds = range(study.config.seed, study.config.seed + count)
    missing = {
        f"{RANDOM['layer']} {seed}": seed
        for seed in seeds
        if f"{RANDOM['layer']} {seed}" not in study.results
    }
    questions = sum(map(len, opened.tasks))
    with progress_bar(
        len(missing) * questions, f"ask with {len(missing)} more random sets", enabled=bool(missing)
    ) as advance:
        for name, seed in missing.items():
            neurons = select_random(study.neurons[GENERAL], study.scores["neuron"], seed=seed, match="layer")
            asked = [
                evaluate(opened.model, task, neurons=neurons, batch_size=batch_size, progress=advance)
                for task in opened.tasks
            ]
            study.neurons[name], study.results[name] = neurons, concat(asked)
            neurons.save(folder / "neurons" / f"{name}.parquet")
            study.results[name].save(folder / "results" / f"{name}.parquet")


def write_all(folder: Path, contents: dict[str, str]) -> None:
    """Writes texts under their file names, and says where."""
    for name, text in contents.items():
        io.write(folder / name, text.encode())
    out.print(f"Written to {folder}: {', '.join(contents)}", soft_wrap=True, highlight=False)
