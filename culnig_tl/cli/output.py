"""What commands print, and the files they write."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    import pandas as pd

out = Console(width=None if sys.stdout.isatty() else 120)
err = Console(stderr=True)
WIDEST = 1000
"""Columns of text that a printed table may need."""


def say(*texts: object) -> None:
    """Prints texts as they are, each from a new line; long lines are not broken."""
    for text in texts:
        out.print(str(text), soft_wrap=True, highlight=False, markup=False)


def show(
    result: Any, folder: Path, *printed: str, drawn: bool = False, files: Mapping[str, str] | None = None
) -> None:
    """Prints a result of `culnig_tl.analyses`, and writes its tables and figures into a folder.

    Args:
        result: has a text, and `tables()`: file stem -> DataFrame.
        printed: tables to print beside the text, where the result has them.
        drawn: with its figures.
        files: further texts to write, by file name.
    """
    from ..io import csv_of, file_name

    say(result)
    tables = result.tables()
    for name in printed:
        if name in tables:
            hidden = [c for c in tables[name].columns if str(c).endswith((" se", " accuracy"))]
            say(f"\n{name}")
            show_frame(tables[name].drop(columns=hidden))
    write_files(
        folder,
        {**{f"{file_name(name)}.csv": csv_of(table) for name, table in tables.items()}, **(files or {})},
    )
    if drawn:
        from ..figures.export import save_figure
        from ..figures.plot import plots

        drawings = [
            save_figure(figure, folder / f"{file_name(name)}.html").path
            for name, figure in plots(result).items()
        ]
        say(f"Drawn: {', '.join(map(str, drawings))}")


def show_frame(frame: pd.DataFrame, heading: str | None = None) -> None:
    """Prints a table under a heading; a wide one runs over the terminal's edge rather than lose digits."""
    if heading is not None:
        say(heading)
    named = frame.reset_index() if any(name is not None for name in frame.index.names) else frame
    shown = Table()
    for column in named.columns:
        words = named[column].dtype.kind == "O"
        shown.add_column(str(column), justify="left" if words else "right", no_wrap=True)
    for row in named.itertuples(index=False):
        shown.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    needed = Console(width=WIDEST).measure(shown).maximum
    Console(width=max(needed, out.width)).print(shown)


def show_accuracy(table: pd.DataFrame) -> None:
    """Prints `Study.table()`."""
    title = (
        "Accuracy in percent with these neurons suppressed (± standard error; random: ± standard deviation"
        " over sets)"
    )
    shown = Table(title=title, title_justify="left")
    shown.add_column("setting", no_wrap=True)
    tasks = list(dict.fromkeys(task for task, _ in table.columns))
    for task in tasks:
        shown.add_column(task, justify="right", no_wrap=True)
    for setting, row in table.iterrows():
        cells = (f"{row[t, 'accuracy']:.1f} ± {row[t, 'se']:.1f}" for t in tasks)
        shown.add_row(
            str(setting), *(cell.removesuffix(" ± nan") for cell in cells)
        )  # one random set has no spread
    out.print(shown)


def write_files(folder: Path, contents: Mapping[str, str]) -> None:
    """Writes texts under their file names, and says where."""
    from .. import io

    for name, text in contents.items():
        io.write(folder / name, text.encode())
    say(f"Written to {folder}: {', '.join(contents)}")
