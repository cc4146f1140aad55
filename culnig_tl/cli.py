"""The `culnig-tl` command: thin, every command is one public function of the package."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.table import Table

from . import __version__
from .errors import CulnigError, StudyError

app = typer.Typer(
    help="Finds the neurons that carry a model's knowledge of cultures, switches them off, and shows where they sit.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
out = Console()
err = Console(stderr=True)

# ------------------------------------------------------------------------------------------------ options that commands share

Model = Annotated[str, typer.Option("--model", help='"toy", a Hub id such as Qwen/Qwen3-0.6B, or a folder with a checkpoint.')]
Tasks = Annotated[str, typer.Option("--tasks", help="Names, comma separated; `culnig-tl tasks` lists them.")]
OneTask = Annotated[str, typer.Option("--task", help="Name of one task; `culnig-tl tasks` lists them.")]
BatchSize = Annotated[str, typer.Option("--batch-size", help="Questions a batch, or auto.")]
Limit = Annotated[int | None, typer.Option("--limit", help="Questions a task, spread evenly over countries and wordings.", min=1)]
Device = Annotated[str, typer.Option("--device", help="auto, cuda, cuda:0, mps or cpu.")]
Dtype = Annotated[str, typer.Option("--dtype", help="auto, bfloat16, float32 or float64.")]
Revision = Annotated[str | None, typer.Option("--revision", help="Branch, tag or commit on the Hub.")]
DataDir = Annotated[str | None, typer.Option("--data-dir", envvar="CULNIG_DATA_DIR", help="Local mirror of data sets: FOLDER/<org>/<name>.")]
Output = Annotated[Path, typer.Option("--output", "-o", help="File to write.")]


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
        level=logging.WARNING, format="%(message)s", force=True, handlers=[RichHandler(console=err, show_path=False, show_time=False)]
    )
    logging.getLogger("culnig_tl").setLevel(logging.INFO if verbose or debug else logging.WARNING)


@app.command()
def run(
    model: Model = "toy",
    tasks: Annotated[str | None, typer.Option("--tasks", help="Names, comma separated; neurons are found on the first cultural one.")] = None,
    reading: Annotated[str | None, typer.Option("--reading", help="Country reading comprehension, whose neurons are removed.")] = None,
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
    from dataclasses import replace

    from .study import TOY_CONFIG, StudyConfig, run_study

    given = {name: value for name, value in locals().items() if name in {f.name for f in fields(StudyConfig)} and value is not None}
    given |= {"batch_size": _batch_size(batch_size)} | ({"tasks": _names(tasks)} if tasks else {})
    config = replace(TOY_CONFIG if model == "toy" else StudyConfig(), **given)
    folder = output_dir or Path("runs") / Path(model).name
    study = run_study(config, folder=folder, resume=resume, overwrite=overwrite)
    _show_accuracy(study.table())
    out.print(study.sentence(), soft_wrap=True)
    out.print(f"\nThe report: {folder / 'report.html'}", soft_wrap=True, highlight=False)


@app.command()
def score(
    output: Output,
    model: Model = "toy",
    task: OneTask = "miniculture",
    control: Annotated[bool, typer.Option("--control", help="Score the task's control: options without the question.")] = False,
    split: Annotated[str, typer.Option("--split", help="neuron, test or all.")] = "neuron",
    sites: Annotated[str, typer.Option("--sites", help="Comma separated, e.g. mlp.gate,attn.v.")] = "mlp.gate,attn.q,attn.k,attn.v",
    aggregation: Annotated[str, typer.Option("--aggregation", help="Over the prompt's tokens: max, sum or mean.")] = "max",
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Scores every neuron on a task, country by country."""
    from .attribution import score_neurons
    from .models import load_model

    questions = _split(task, split, data_dir).limit(limit)
    hooked = load_model(model, device=device, dtype=dtype, revision=revision)
    scores = score_neurons(
        hooked,
        questions.control() if control else questions,
        sites=_names(sites),
        aggregation=aggregation,  # type: ignore[arg-type]
        batch_size=_batch_size(batch_size),
    )
    scores.save(output)
    out.print(scores, soft_wrap=True)
    _show_frame(scores.top(20))


@app.command()
def select(
    kind: Annotated[str, typer.Argument(help="general, specific or random.")],
    output: Output,
    neuron: Annotated[Path, typer.Option("--neuron", help="Scores of the culture task.")],
    control: Annotated[Path | None, typer.Option("--control", help="Scores of its control.")] = None,
    reading: Annotated[Path | None, typer.Option("--reading", help="Scores of country reading comprehension.")] = None,
    matching: Annotated[Path | None, typer.Option("--matching", help="random: the set to match.")] = None,
    match: Annotated[str, typer.Option("--match", help="random: count, or layer (as many in every site and layer).")] = "count",
    seed: Annotated[int, typer.Option("--seed", help="random: which set.")] = 0,
    t_mlp: Annotated[float, typer.Option("--t-mlp", help="general: share of MLP neurons.")] = 0.01,
    t_attn: Annotated[float, typer.Option("--t-attn", help="general: share of q, k, v neurons.")] = 0.002,
    t: Annotated[float, typer.Option("--t", help="specific: share of all neurons.")] = 0.003,
    r: Annotated[float, typer.Option("--r", help="Share, highest by reading, that is removed.")] = 0.01,
    z: Annotated[float, typer.Option("--z", help="specific: least z over the countries.")] = 0.5,
) -> None:
    """Selects neurons from scores; writes .parquet, .csv, or the authors' .json."""
    from .neurons import NeuronSet
    from .scores import NeuronScores
    from .selection import select_culture_general, select_culture_specific, select_random

    if kind not in ("general", "specific", "random"):
        raise StudyError(f"unknown kind of neurons {kind!r}: general, specific or random")
    culture, other, crc = (NeuronScores.load(path) if path else None for path in (neuron, control, reading))
    assert culture is not None
    if kind == "general":
        chosen = select_culture_general(culture, other, crc, t_mlp=t_mlp, t_attn=t_attn, r=r)
    elif kind == "specific":
        chosen = select_culture_specific(culture, other, crc, t=t, r=r, z=z)
    else:
        if matching is None:
            raise StudyError("random neurons need --matching FILE: the set to match")
        chosen = select_random(NeuronSet.load(matching), culture, seed=seed, match=match)  # type: ignore[arg-type]
    chosen.save(output)
    out.print(chosen, soft_wrap=True)
    _show_frame(chosen.top(20))


@app.command()
def evaluate(
    tasks: Tasks = "miniculture",
    model: Model = "toy",
    neurons: Annotated[Path | None, typer.Option("--neurons", help="Neurons to switch off; without them the model is unchanged.")] = None,
    operation: Annotated[str, typer.Option("--operation", help="suppress or enhance.")] = "suppress",
    scale: Annotated[float | None, typer.Option("--scale", help="Multiply the neurons' outputs by this instead.")] = None,
    by: Annotated[str, typer.Option("--by", help="task, country, template or group.")] = "task",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Parquet file to write, one row a question.")] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Asks tasks' test questions, with or without neurons."""
    from .evaluation import concat
    from .evaluation import evaluate as ask
    from .models import load_model
    from .neurons import NeuronSet

    chosen = NeuronSet.load(neurons) if neurons else None
    asked = [_split(name, "test", data_dir).limit(limit) for name in _names(tasks)]
    hooked = load_model(model, device=device, dtype=dtype, revision=revision)
    size = _batch_size(batch_size)
    result = concat([ask(hooked, t, neurons=chosen, operation=operation, scale=scale, batch_size=size) for t in asked])
    if output:
        result.save(output)
    _show_frame(result.accuracy(by).reset_index())


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A study's folder.")]) -> None:
    """Writes a study's report.html again, from its folder, without a model."""
    from .report import write_report
    from .study import Study

    study = Study.load(folder)
    out.print(f"The report: {write_report(study, folder / 'report.html')}", soft_wrap=True, highlight=False)


@app.command()
def models() -> None:
    """Models of the paper, and the embedded one."""
    from .models import PAPER_MODELS, TOY

    for name in (TOY, *PAPER_MODELS):
        out.print(name, highlight=False)
    out.print("... and any other Hub id that TransformerLens' bridge can hold, or a folder.")


def main() -> None:
    """Runs the command: errors of the package in one line with exit code 2, Ctrl-C with 130."""
    debug = "--debug" in sys.argv
    try:
        app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        err.print("Stopped. Nothing half-written; what was finished is kept, --resume goes on with it.")
        sys.exit(130)
    except typer.Exit as leave:
        sys.exit(leave.exit_code)
    except Exception as error:
        if debug:
            raise
        message = _one_line(error)
        if message is None:
            raise
        err.print(f"[bold red]Error:[/] {message}", soft_wrap=True, highlight=False)
        sys.exit(2)


def _one_line(error: Exception) -> str | None:
    """What to say of an error that a user can act on; None for a defect of ours, whose traceback is wanted."""
    from rich.markup import escape

    if hasattr(error, "format_message"):  # a usage error of the command line
        return escape(error.format_message())  # type: ignore[attr-defined]
    if isinstance(error, CulnigError | OSError):
        return escape(" ".join(str(error).split()))
    return None


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


def _batch_size(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _split(task: str, split: str, data_dir: str | None) -> Any:
    from .tasks import load_task

    whole = load_task(task, data_dir=data_dir)
    parts: dict[str, Callable[[], Any]] = {"neuron": whole.neuron_split, "test": whole.test_split, "all": lambda: whole}
    if split not in parts:
        raise StudyError(f"unknown split {split!r}: neuron, test or all")
    return parts[split]()


def _show_accuracy(table: Any) -> None:
    shown = Table(title="Accuracy, percent (± standard error; random: ± standard deviation over sets)", title_justify="left")
    shown.add_column("setting")
    tasks = list(dict.fromkeys(task for task, _ in table.columns))
    for task in tasks:
        shown.add_column(task, justify="right")
    for setting, row in table.iterrows():
        shown.add_row(str(setting), *(f"{row[t, 'accuracy']:.2f} ± {row[t, 'se']:.2f}" for t in tasks))
    out.print(shown)


def _show_frame(frame: Any) -> None:
    shown = Table()
    for column in frame.columns:
        shown.add_column(str(column), justify="left" if frame[column].dtype == object else "right")
    for row in frame.itertuples(index=False):
        shown.add_row(*(f"{value:.4g}" if isinstance(value, float) else str(value) for value in row))
    out.print(shown)
