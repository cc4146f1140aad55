"""`culnig-tl tasks` and `culnig-tl models`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from .options import DataDir, Limit, Model, out

app = typer.Typer(
    help="Lists tasks with source, licence, rows and splits; `show` prints whole prompts.",
    invoke_without_command=True,
)


@app.callback()
def list_all(context: typer.Context, data_dir: DataDir = None) -> None:
    """Lists the tasks, and where their rows were found."""
    if context.invoked_subcommand:
        return
    from ..tasks import list_tasks

    shown = Table()
    for column in (
        "task",
        "rows",
        "questions",
        "splits",
        "control",
        "licence",
        "source and where it was found",
    ):
        shown.add_column(
            column,
            justify="right" if column in ("rows", "questions") else "left",
            no_wrap=column == "task",
            overflow="fold",
        )
    for row in list_tasks(data_dir=data_dir):
        numbers = (f"{n:,}" if n is not None else "-" for n in (row.published, row.questions))
        where = row.source if row.found in (row.source, None) else f"{row.source}: {row.found}"
        if row.problem is not None:
            where += f" ({row.problem.split(';')[0]})"
        shown.add_row(
            row.name,
            *numbers,
            ", ".join(row.splits),
            "yes" if row.control else "no",
            row.licence,
            escape(where),
        )
    out.print(shown)


@app.command()
def show(
    task: Annotated[str, typer.Argument(help="A task's name, or a file of questions.")],
    model: Model = "toy",
    limit: Limit = 3,
    control: Annotated[bool, typer.Option("--control", help="Show the control prompts.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Prints whole prompts as the model gets them, the answer marked."""
    from ..defaults import TOY
    from ..engine.loading import load_tokenizer
    from ..engine.prompts import render
    from ..tasks import load_task
    from ..toy import FOLDER

    questions = load_task(task, data_dir=data_dir)
    tokenizer = load_tokenizer(str(FOLDER) if model == TOY else model)
    for question in (questions.control() if control else questions).limit(limit):
        about = ", ".join(
            str(part) for part in (question.id, question.split, question.country, question.group) if part
        )
        out.rule(escape(about), align="left")
        out.print(
            f"{escape(render(tokenizer, question))}[bold green]{escape(question.answer)}[/]",
            soft_wrap=True,
            highlight=False,
        )


def models() -> None:
    """Models of the paper, and the embedded one."""
    from ..defaults import PAPER_MODELS, TOY

    for name in (TOY, *PAPER_MODELS):
        out.print(name, highlight=False)
    out.print("... and any other Hub id that TransformerLens' bridge can hold, or a folder.")
