"""What commands share: their options, how they read them, and how they print."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from ..errors import StudyError

if TYPE_CHECKING:
    from ..tasks import Task

out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)
WIDEST = 1000
"""Columns of text that a printed table may need."""

Model = Annotated[
    str,
    typer.Option("--model", help='"toy", a Hub id such as Qwen/Qwen3-0.6B, or a folder with a checkpoint.'),
]
Tasks = Annotated[str, typer.Option("--tasks", help="Names, comma separated; `culnig-tl tasks` lists them.")]
OneTask = Annotated[str, typer.Option("--task", help="Name of one task; `culnig-tl tasks` lists them.")]
BatchSize = Annotated[str, typer.Option("--batch-size", help="Questions a batch, or auto.")]
Limit = Annotated[
    int | None,
    typer.Option("--limit", help="Questions a task, spread evenly over countries and wordings.", min=1),
]
Device = Annotated[str, typer.Option("--device", help="auto, cuda, cuda:0, mps or cpu.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, bfloat16, float32 or float64.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the Hub.")]
DataDir = Annotated[
    str | None,
    typer.Option(
        "--data-dir", envvar="CULNIG_DATA_DIR", help="Local mirror of data sets: FOLDER/<org>/<name>."
    ),
]
DeviceMap = Annotated[
    str | None,
    typer.Option(
        "--device-map", help='"auto" spreads a model over all GPUs and memory; instead of --device.'
    ),
]
SaveEvery = Annotated[
    float, typer.Option("--save-every", help="Seconds between two saves of what is unfinished.", min=0)
]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]


def names(text: str) -> tuple[str, ...]:
    """The comma-separated names."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def batch_size_of(text: str) -> int | str:
    """A number, or "auto". Raises `StudyError` for anything else."""
    if text == "auto":
        return text
    if not text.isdigit() or int(text) < 1:
        raise StudyError(f'batch_size must be "auto" or a number from 1, not {text!r}')
    return int(text)


def split_of(task: str, split: str, data_dir: str | None) -> Task:
    """A task's "neuron" or "test" split, or "all" of it."""
    from ..tasks import load_task

    whole = load_task(task, data_dir=data_dir)
    parts: dict[str, Callable[[], Any]] = {
        "neuron": whole.neuron_split,
        "test": whole.test_split,
        "all": lambda: whole,
    }
    if split not in parts:
        raise StudyError(f"unknown split {split!r}: neuron, test or all")
    return parts[split]()


def show_accuracy(table: Any) -> None:
    """Prints `Study.table()`."""
    shown = Table(
        title="Accuracy in percent with these neurons suppressed (± standard error; random: ± standard deviation over sets)",
        title_justify="left",
    )
    shown.add_column("setting", no_wrap=True)
    tasks = list(dict.fromkeys(task for task, _ in table.columns))
    for task in tasks:
        shown.add_column(task, justify="right", no_wrap=True)
    for setting, row in table.iterrows():
        cells = (
            f"{row[t, 'accuracy']:.1f} ± {row[t, 'se']:.1f}".removesuffix(" ± nan") for t in tasks
        )  # one random set has no spread
        shown.add_row(str(setting), *cells)
    out.print(shown)


def show_frame(frame: Any) -> None:
    """Prints a DataFrame; a wide one runs over the terminal's edge rather than lose digits."""
    shown = Table()
    for column in frame.columns:
        shown.add_column(
            str(column), justify="left" if frame[column].dtype == object else "right", no_wrap=True
        )
    for row in frame.itertuples(index=False):
        shown.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    needed = Console(width=WIDEST).measure(shown).maximum
    Console(width=max(needed, out.width)).print(shown)
