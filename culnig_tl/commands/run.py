"""`culnig-tl run` and `culnig-tl report`: the whole study, and its page."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import StudyError
from .options import (  # fmt: skip
    BatchSize,
    DataDir,
    Device,
    DeviceMap,
    Dtype,
    Limit,
    Model,
    Revision,
    SaveEvery,
    batch_size_of,
    names,
    out,
    show_accuracy,
    show_frame,
)

if TYPE_CHECKING:
    from ..study.config import StudyConfig

log = logging.getLogger(__name__)

ELSEWHERE = ("data_dir", "device", "device_map")
"""What may differ where a study is repeated: where things are, not what they are."""


def run(
    model: Model = "toy",
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", help="Names, comma separated; neurons are found on the first cultural one."),
    ] = None,
    reading: Annotated[
        str | None,
        typer.Option("--reading", help="Country reading comprehension, whose neurons are removed."),
    ] = None,
    rival: Annotated[
        str | None,
        typer.Option("--rival", help="Task without culture, of --tasks, whose neurons are suppressed too."),
    ] = None,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="Folder of the study; runs/<model> by default.")
    ] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
    top_mlp: Annotated[
        float | None, typer.Option("--top-mlp", help="Share of MLP neurons that are candidates.")
    ] = None,
    top_attn: Annotated[
        float | None, typer.Option("--top-attn", help="Share of q, k, v neurons that are candidates.")
    ] = None,
    drop_reading: Annotated[
        float | None, typer.Option("--r", help="Share, highest by reading, that is removed.")
    ] = None,
    top_specific: Annotated[
        float | None, typer.Option("--top-specific", help="Share that are candidates for one country.")
    ] = None,
    z: Annotated[float | None, typer.Option("--z", help="Least z of a country's own neurons.")] = None,
    random_sets: Annotated[
        int | None, typer.Option("--random-sets", help="Random sets of each kind.", min=1)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the first random set.")] = 0,
    record: Annotated[Path | None, typer.Option("--from", help="study.json of a study: repeat it.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the study in the folder.")] = False,
    save_every: SaveEvery = 60.0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would take: questions, tokens, time, memory, disk.")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Write the study's pieces as commands, for a queue; run nothing.")
    ] = False,
    piece: Annotated[
        str | None, typer.Option("--piece", help="With --from: make this one piece of a planned study.")
    ] = None,
) -> None:
    """The whole study: scores, neurons, answers with and without them, figures, report.html."""
    from ..engine.world import start
    from ..run.pipeline import run_study
    from ..study.config import TOY_CONFIG, StudyConfig

    start()
    given = {
        name: value
        for name, value in locals().items()
        if name in {f.name for f in fields(StudyConfig)} and value is not None
    }
    given |= {"batch_size": batch_size_of(batch_size)} | ({"tasks": names(tasks)} if tasks else {})
    repeats: Mapping[str, Any] | None = None
    if record is not None:
        config, repeats = _repeated(record, given)
    else:
        config = replace(TOY_CONFIG if model == "toy" else StudyConfig(), **given)
    folder = output_dir or Path("runs") / Path(config.model).name
    if piece is not None:
        if record is None:
            raise StudyError("--piece needs --from FOLDER/study.json, which --plan writes")
        from ..run.plan import run_piece

        out.print(
            run_piece(config, record.parent, piece, save_every=save_every), soft_wrap=True, highlight=False
        )
    elif dry_run:
        _dry_run(config)
    elif plan:
        _plan(config, folder, overwrite=overwrite)
    else:
        study = run_study(
            config, folder=folder, resume=resume, overwrite=overwrite, save_every=save_every, repeats=repeats
        )
        show_accuracy(study.table())
        out.print(study.sentence(), soft_wrap=True)
        out.print(f"\nThe report: {folder / 'report.html'}", soft_wrap=True, highlight=False)


def _repeated(path: Path, given: Mapping[str, Any]) -> tuple[StudyConfig, Mapping[str, Any]]:
    """The arguments of the study whose record this is, and what it says of model and questions."""
    from ..defaults import TOY
    from ..engine.loading import looks_like_path
    from ..study.config import StudyConfig
    from ..study.config import _config as config_of
    from ..study.folder import read_record_file
    from ..version import __version__

    record = read_record_file(path / "study.json" if path.is_dir() else path)
    plain = asdict(StudyConfig())
    spoken = {name: value for name, value in given.items() if value != plain[name]}
    here = {name: spoken.pop(name) for name in ELSEWHERE if name in spoken}
    if spoken:
        raise StudyError(
            f"--from repeats a study as it was: leave out --{next(iter(spoken)).replace('_', '-')}"
        )
    stored, info = record["config"], record["info"]
    tasks = stored.get("tasks")
    scalar = (str, int, float, type(None))
    if (
        not isinstance(tasks, list)
        or not all(isinstance(task, str) for task in tasks)
        or not all(isinstance(value, scalar) for name, value in stored.items() if name != "tasks")
    ):
        raise StudyError(
            f"{path} is not a study's record: its arguments are not of the types that a study has"
        )
    config = config_of(stored)
    on_hub = config.model != TOY and not looks_like_path(config.model) and not Path(config.model).is_dir()
    if on_hub and config.revision is None:
        config = replace(config, revision=info.get("revision"))  # the commit of then, not the branch of now
    if record.get("version") != __version__:
        log.warning("%s was written by version %s, this is %s", path, record.get("version"), __version__)
    return replace(config, **here), info


def _dry_run(config: StudyConfig) -> None:
    """Prints what the study would take."""
    from ..run.forecast import duration, forecast
    from ..run.pieces import Questions
    from ..run.pipeline import load

    questions = Questions.load(config)
    found = forecast(config, load(config), questions)
    shown = found.table.assign(seconds=found.table["seconds"].map(duration)).rename(
        columns={"seconds": "takes"}
    )
    show_frame(shown)
    out.print(str(found), soft_wrap=True, highlight=False)


def _plan(config: StudyConfig, folder: Path, *, overwrite: bool) -> None:
    """Writes the pieces, and prints how many there are."""
    from ..run.plan import LISTS, write_plan
    from ..study.folder import PLAN

    pieces = write_plan(config, folder, overwrite=overwrite)
    for step, name in LISTS.items():
        count = sum(piece.step == step for piece in pieces)
        after = "" if step == 1 else f", after {LISTS[step - 1]}"  # type: ignore[index]
        out.print(f"{folder / PLAN / name}: {count} commands{after}", soft_wrap=True, highlight=False)


def report(folder: Annotated[Path, typer.Argument(help="A study's folder.")]) -> None:
    """Writes a study's report.html again, from its folder, without a model."""
    from ..pages.report import write_report
    from ..study.study import Study

    study = Study.load(folder)
    path = write_report(study, folder / "report.html")
    out.print(
        f"{study.findings().headline()}\n\nThe report: {path}", soft_wrap=True, highlight=False, markup=False
    )
