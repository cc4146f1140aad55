"""The `culnig-tl` command: thin, every command is one public function of the package."""

from __future__ import annotations

import logging
import sys
from typing import Annotated

import typer
from rich.logging import RichHandler

from .commands import (
    answers,
    bake,
    claim,
    compare,
    countries,
    enhance,
    finetune,
    language,
    methods,
    parts,
    run,
    stability,
    steps,
    sweep,
    tasks,
    values,
)
from .commands.options import err, out
from .engine.world import OwnError
from .errors import CulnigError
from .version import __version__

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""

app = typer.Typer(
    help="Finds the neurons that carry a model's knowledge of cultures, switches them off, and shows where they sit.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
COMMANDS = (
    run.run, steps.score, steps.select, steps.evaluate, claim.claim, sweep.sweep, parts.parts, countries.countries,
    methods.methods, methods.truth, enhance.enhance, stability.stability, values.values,
    language.language, compare.compare, bake.bake, finetune.finetune, run.report, tasks.models,
)  # fmt: skip
for command in COMMANDS:
    app.command()(command)
app.add_typer(tasks.app, name="tasks")
app.add_typer(answers.app, name="answers")


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what happens.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    if version:
        out.print(__version__)
        raise typer.Exit
    logging.basicConfig(
        level=logging.WARNING,
        format="%(message)s",
        force=True,
        handlers=[RichHandler(console=err, show_path=False, show_time=False)],
    )
    logging.getLogger("culnig_tl").setLevel(logging.INFO if verbose or debug else logging.WARNING)


def main() -> None:
    """Runs the command: errors of the package in one line with exit code 2, Ctrl-C with 130."""
    debug = "--debug" in sys.argv
    try:
        code = app(standalone_mode=False)  # Typer turns Ctrl-C into the code 130, older versions into Abort
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except typer.Exit as leave:
        code = leave.exit_code
    except Exception as error:
        if debug:
            raise
        message = _one_line(error)
        if message is None:
            raise
        err.quiet = err.quiet and not isinstance(
            error, OwnError
        )  # of several processes one speaks, but for an error of another's own
        err.print(f"[bold red]Error:[/] {message}", soft_wrap=True, highlight=False)
        sys.exit(2)
    if code == INTERRUPTED:
        err.print(
            "Stopped. Nothing is half-written; what was finished is kept, and --resume goes on with it."
        )
    if code:
        sys.exit(code)


def _one_line(error: Exception) -> str | None:
    """What to say of an error that a user can act on; None for a defect of ours, whose traceback is wanted."""
    from rich.markup import escape

    if hasattr(error, "format_message"):  # a usage error of the command line
        return escape(error.format_message())  # type: ignore[attr-defined]
    if isinstance(error, CulnigError | OSError):
        return escape(" ".join(str(error).split()))
    return None
