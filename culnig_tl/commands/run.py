"""`culnig-tl run` and `culnig-tl report`: the whole study, and its page."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated

import typer

from .options import BatchSize, DataDir, Device, Dtype, Limit, Model, Revision, batch_size_of, names, out, show_accuracy


def run(
    model: Model = "toy",
    tasks: Annotated[
        str | None, typer.Option("--tasks", help="Names, comma separated; neurons are found on the first cultural one.")
    ] = None,
    reading: Annotated[str | None, typer.Option("--reading", help="Country reading comprehension, whose neurons are removed.")] = None,
    rival: Annotated[
        str | None, typer.Option("--rival", help="Task without culture, of --tasks, whose neurons are suppressed too.")
    ] = None,
    output_dir: Annotated[Path | None, typer.Option("--output-dir", help="Folder of the study; runs/<model> by default.")] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    t_mlp: Annotated[float | None, typer.Option("--t-mlp", help="Share of MLP neurons that are candidates.")] = None,
    t_attn: Annotated[float | None, typer.Option("--t-attn", help="Share of q, k, v neurons that are candidates.")] = None,
    r: Annotated[float | None, typer.Option("--r", help="Share, highest by reading, that is removed.")] = None,
    t_specific: Annotated[float | None, typer.Option("--t-specific", help="Share that are candidates for one country.")] = None,
    z: Annotated[float | None, typer.Option("--z", help="Least z of a country's own neurons.")] = None,
    random_sets: Annotated[int | None, typer.Option("--random-sets", help="Random sets of each kind.", min=1)] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the first random set.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study in the folder.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the study in the folder.")] = False,
) -> None:
    """The whole study: scores, neurons, answers with and without them, figures, report.html."""
    from ..pipeline import run_study
    from ..study import TOY_CONFIG, StudyConfig

    given = {name: value for name, value in locals().items() if name in {f.name for f in fields(StudyConfig)} and value is not None}
    given |= {"batch_size": batch_size_of(batch_size)} | ({"tasks": names(tasks)} if tasks else {})
    config = replace(TOY_CONFIG if model == "toy" else StudyConfig(), **given)
    folder = output_dir or Path("runs") / Path(model).name
    study = run_study(config, folder=folder, resume=resume, overwrite=overwrite)
    show_accuracy(study.table())
    out.print(study.sentence(), soft_wrap=True)
    out.print(f"\nThe report: {folder / 'report.html'}", soft_wrap=True, highlight=False)


def report(folder: Annotated[Path, typer.Argument(help="A study's folder.")]) -> None:
    """Writes a study's report.html again, from its folder, without a model."""
    from ..report import write_report
    from ..study import Study

    study = Study.load(folder)
    out.print(f"The report: {write_report(study, folder / 'report.html')}", soft_wrap=True, highlight=False)
