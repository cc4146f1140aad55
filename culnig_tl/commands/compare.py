"""`culnig-tl compare`: studies side by side, of checkpoints of one model or of different models."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import StudyError
from ..study.opened import write_all
from .options import BatchSize, DataDir, Device, Dtype, Limit, batch_size_of, names, out, show_frame

if TYPE_CHECKING:
    from ..study.study import Study


def compare(
    studies: Annotated[
        list[str],
        typer.Argument(
            help="Folders of finished studies, or NAME=MODEL of checkpoints to study first, e.g. runs/base sft=models/sft."
        ),
    ],
    output_dir: Annotated[
        Path, typer.Option("--output-dir", help="Folder: the comparison, and a study a checkpoint named so.")
    ] = Path("runs/compare"),
    tasks: Annotated[
        str | None, typer.Option("--tasks", help="Names, comma separated; the study's by default.")
    ] = None,
    reading: Annotated[str | None, typer.Option("--reading", help="Country reading comprehension.")] = None,
    top_mlp: Annotated[
        float | None, typer.Option("--top-mlp", help="Share of MLP neurons that are candidates.")
    ] = None,
    top_attn: Annotated[
        float | None, typer.Option("--top-attn", help="Share of q, k, v neurons that are candidates.")
    ] = None,
    r: Annotated[
        float | None, typer.Option("--r", help="Share, highest by reading, that is removed.")
    ] = None,
    random_sets: Annotated[
        int | None, typer.Option("--random-sets", help="Random sets of each kind.", min=1)
    ] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Accuracy, layers, overlap and rank correlation of several studies, on one page: compare.html.

    Folders of finished studies are taken as they are. For NAME=MODEL a study is made in the output folder, or gone on with.
    What cannot be compared, as the overlap between models of different shapes, is left out, and the page says so.
    """
    from ..analyses.checkpoints import compare_checkpoints
    from ..defaults import TOY
    from ..pages.comparison_page import write_comparison
    from ..run.pipeline import run_study
    from ..study.config import TOY_CONFIG, StudyConfig
    from ..study.study import Study

    given = {
        name: value
        for name, value in locals().items()
        if name in {f.name for f in fields(StudyConfig)} and value is not None
    }
    given |= {"batch_size": batch_size_of(batch_size)} | ({"tasks": names(tasks)} if tasks else {})
    named = named_sources(studies)
    models = [source for source in named.values() if not is_study(source)]
    finished: dict[str, Study] = {}
    for name, source in named.items():
        out.print(f"{name}: {source}", highlight=False, markup=False)
        if is_study(source):
            finished[name] = Study.load(source)
            continue
        config = replace(TOY_CONFIG if TOY in models else StudyConfig(), **{**given, "model": source})
        folder = output_dir / name
        finished[name] = run_study(config, folder=folder, resume=(folder / "study.json").is_file())
    found = compare_checkpoints(finished)
    parts: dict[str, Any] = {
        "overlap": found.overlap(),
        "rank-correlation": found.rank_correlation(),
        "layers": found.layers(),
    }
    for title, table in parts.items():
        out.print(title)
        show_frame(table.reset_index())
    out.print(found.accuracy().to_markdown(), soft_wrap=True, highlight=False, markup=False)
    for remark in found.remarks():
        out.print(remark, soft_wrap=True, highlight=False, markup=False)
    contents = {f"{title}.csv": table.to_csv() for title, table in parts.items()}
    write_all(
        output_dir,
        {
            **contents,
            "accuracy.md": found.accuracy().to_markdown(),
            "accuracy.csv": found.accuracy().to_csv(),
        },
    )
    out.print(
        f"The page: {write_comparison(found, output_dir / 'compare.html')}",
        soft_wrap=True,
        highlight=False,
        markup=False,
    )


def is_study(source: str) -> bool:
    """Whether it is a folder that a study was written to."""
    return (Path(source) / "study.json").is_file()


def named_sources(given: list[str]) -> dict[str, str]:
    """Name -> study's folder or model. A folder is called by as much of the end of its path as tells it from the others.

    Raises:
        StudyError: fewer than two, a name twice, a folder without a study, a name that cannot be a folder's.
    """
    folders = [text for text in given if is_study(text)]
    named = {}
    for text in given:
        name, equals, source = (_short(text, folders), "=", text) if text in folders else text.partition("=")
        if not (equals and name and source):
            raise StudyError(
                f"{text} holds no study: give folders of finished studies, or NAME=MODEL to make one first"
            )
        if not is_study(source) and Path(name).name != name:
            raise StudyError(f"a checkpoint's name becomes a folder: use letters and digits, not {name!r}")
        if name in named:
            raise StudyError(f"two studies are called {name}: call one otherwise, e.g. other={source}")
        named[name] = source
    if len(named) < 2:
        raise StudyError(
            "name two checkpoints or more, each once: culnig-tl compare runs/base runs/sft, or base=MODEL sft=MODEL"
        )
    return named


def _short(folder: str, folders: list[str]) -> str:
    """The shortest end of a path that no other path has."""
    parts = {other: Path(other).resolve().parts for other in folders}
    own = parts[folder]
    for length in range(1, len(own) + 1):
        if sum(other[-length:] == own[-length:] for other in parts.values()) == 1:
            return "/".join(own[-length:])
    return folder
