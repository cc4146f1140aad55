"""`culnig-tl compare`: the same study on several checkpoints, side by side."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Annotated

import typer

from ..errors import StudyError
from .of_study import write_all
from .options import BatchSize, DataDir, Device, Dtype, Limit, batch_size_of, names, out, show_frame


def compare(
    checkpoints: Annotated[
        list[str], typer.Argument(help="NAME=FOLDER (or Hub id) of each checkpoint, e.g. base=models/base sft=models/sft.")
    ],
    output_dir: Annotated[Path, typer.Option("--output-dir", help="Folder: a study a checkpoint, and the comparison.")] = Path(
        "runs/compare"
    ),
    tasks: Annotated[str | None, typer.Option("--tasks", help="Names, comma separated; the study's by default.")] = None,
    reading: Annotated[str | None, typer.Option("--reading", help="Country reading comprehension.")] = None,
    t_mlp: Annotated[float | None, typer.Option("--t-mlp", help="Share of MLP neurons that are candidates.")] = None,
    t_attn: Annotated[float | None, typer.Option("--t-attn", help="Share of q, k, v neurons that are candidates.")] = None,
    r: Annotated[float | None, typer.Option("--r", help="Share, highest by reading, that is removed.")] = None,
    random_sets: Annotated[int | None, typer.Option("--random-sets", help="Random sets of each kind.", min=1)] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Overlap of the neurons, rank correlation, layers, and accuracy of a base model and its fine-tuned checkpoints.

    A study that is already in the folder is gone on with, not made again.
    """
    from ..checkpoints import compare_checkpoints
    from ..models import TOY
    from ..pipeline import run_study
    from ..study import TOY_CONFIG, StudyConfig

    named = {name: model for name, equals, model in (text.partition("=") for text in checkpoints) if equals and name and model}
    if len(named) != len(checkpoints) or len(named) < 2:
        raise StudyError("name two checkpoints or more, each once: culnig-tl compare base=FOLDER sft=FOLDER")
    if any(Path(name).name != name for name in named):
        raise StudyError("a checkpoint's name becomes a folder: use letters and digits")
    given = {name: value for name, value in locals().items() if name in {f.name for f in fields(StudyConfig)} and value is not None}
    given |= {"batch_size": batch_size_of(batch_size)} | ({"tasks": names(tasks)} if tasks else {})
    studies = {}
    for name, model in named.items():
        config = replace(TOY_CONFIG if TOY in named.values() else StudyConfig(), **{**given, "model": model})
        folder = output_dir / name
        out.print(f"{name}: {model}", highlight=False)
        studies[name] = run_study(config, folder=folder, resume=(folder / "study.json").is_file())
    found = compare_checkpoints(studies)
    parts = {"overlap": found.overlap(), "rank-correlation": found.rank_correlation(), "layers": found.layers()}
    for title, table in parts.items():
        out.print(title)
        show_frame(table.reset_index())
    out.print(found.accuracy().to_markdown(), soft_wrap=True, highlight=False)
    figure = found.figure().to_html(include_plotlyjs=True, full_html=True)
    contents = {**{f"{title}.csv": table.to_csv() for title, table in parts.items()}, "layers.html": figure}
    write_all(output_dir, {**contents, "accuracy.md": found.accuracy().to_markdown(), "accuracy.csv": found.accuracy().to_csv()})
