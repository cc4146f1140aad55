"""The command line, `culnig-tl`. A command is a function: its parameters are the options, its docstring is
the help.

    study       run, report, compare, atlas
    pieces      score, select, evaluate
    analyses    what goes on from a finished study, or asks a question of a model
    tools       tasks, models, answers, finetune, bake
    parsing     options from a function's parameters, by tyro; output: what commands print and write

Only the chosen command's options are built, and nothing heavier than tyro is imported before they are
understood.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from ..defaults import TOY
from ..errors import CulnigError
from ..hub import check_spelling
from ..io import check_place
from ..names import nearest
from ..version import __version__

COMMANDS = {
    "study": {
        "run": "the whole study: scores, neurons, answers with and without them, figures, report.html",
        "report": "write a study's report.html again, from its folder, without a model",
        "compare": "studies side by side: checkpoints of one model, or different models",
        "atlas": "a page for every selected neuron of a study, or of two: a site that opens from disk",
    },
    "pieces": {
        "score": "score every neuron on a task",
        "select": "select neurons from scores",
        "evaluate": "ask a model test questions, with or without some of its neurons",
    },
    "analyses": {
        "claim": "a study's drops against random sets and a rival set",
        "countries": "what each country's neurons cost each country",
        "power": "how many questions it takes to see one country's neurons",
        "sweep": "a study's selection at other thresholds",
        "parts": "a study's selection with one part of the method left out at a time",
        "stability": "how often each neuron returns, on other questions and wordings",
        "enhance": "a study's neurons scaled up instead of switched off",
        "language": "neurons of the same questions in English and in each region's language",
        "values": "neurons of what is known against neurons of what is valued",
        "methods": "CULNIG beside other attribution methods",
        "truth": "zero neurons one at a time: what scores should have said",
    },
    "tools": {
        "tasks": "list the tasks, with source, licence, rows and splits",
        "tasks show": "print a task's whole prompts",
        "tasks export": "write a task for lm-evaluation-harness",
        "models": "list the paper's models, and the embedded one",
        "answers ask": "questions answered in words, region by region",
        "answers check": "how far the comparison of answers in words can be trusted",
        "finetune": "train chosen modules on a task, and measure what that costs in culture",
        "bake": "write a model with neurons suppressed as an ordinary checkpoint",
    },
}
"""Module of this package -> command -> what it does."""
EXAMPLES = {
    "run": "culnig-tl run --model Qwen/Qwen3-0.6B --tasks blend,commonsenseqa --limit 500",
    "report": "culnig-tl report runs/toy",
    "compare": "culnig-tl compare runs/base runs/sft",
    "atlas": "culnig-tl atlas runs/toy",
    "score": "culnig-tl score --model toy --task miniculture -o culture.safetensors",
    "select": "culnig-tl select general --scores culture.safetensors --control control.safetensors"
    " -o general.parquet",
    "evaluate": "culnig-tl evaluate --model toy --tasks miniculture --neurons general.parquet",
    "claim": "culnig-tl claim runs/toy --random-sets 200",
    "countries": "culnig-tl countries runs/toy",
    "power": "culnig-tl power runs/toy --own 10",
    "sweep": "culnig-tl sweep runs/toy --top 0.01,0.02,0.05",
    "parts": "culnig-tl parts runs/toy",
    "stability": "culnig-tl stability runs/toy --replicates 20",
    "enhance": "culnig-tl enhance runs/toy --factors 1.5,2",
    "language": "culnig-tl language --model Qwen/Qwen3-0.6B --limit 500",
    "values": "culnig-tl values --model Qwen/Qwen3-0.6B --limit 500",
    "methods": "culnig-tl methods --model toy --methods culnig,culnig-sum,atp",
    "truth": "culnig-tl truth --model toy --sample 16",
    "tasks": "culnig-tl tasks --data-dir ./mirror",
    "tasks show": "culnig-tl tasks show miniculture --limit 2",
    "tasks export": "culnig-tl tasks export miniculture --to exported --model toy",
    "models": "culnig-tl models",
    "answers ask": "culnig-tl answers ask --model Qwen/Qwen3-0.6B --limit 20",
    "answers check": "culnig-tl answers check --languages ko,zh",
    "finetune": "culnig-tl finetune --model toy --modules top,matched --seeds 0,1",
    "bake": "culnig-tl bake toy --neurons runs/toy/neurons/culture-general.parquet --output-dir suppressed",
}
"""Command -> how it is called; a panel's example is that of its first command."""
LIBRARIES = ("huggingface_hub", "datasets", "transformers", "httpx", "urllib3", "fsspec")
"""Libraries whose warnings are for those who want to hear everything."""
SHARED = ("run", "score", "evaluate", "finetune")
"""Commands that several processes, started by torchrun, can share."""
GLOBAL = {
    "--help": "print this, or a command's options and their defaults (-h)",
    "--version": "print the version",
    "--verbose": "log what happens (-v)",
    "--debug": "show the traceback of an error, too",
}
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code: 2 after an error of the package, in one line, and 130 after
    Ctrl-C."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    try:
        run_command(words)
        return 0
    except KeyboardInterrupt:
        _complain("Stopped. No file is half-written, finished work is kept, and --resume continues from it.")
        code = INTERRUPTED
    except BrokenPipeError:  # whoever read the output has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (CulnigError, OSError) as error:
        if debug:
            raise
        _complain("[bold red]Error:[/] ", error)
        code = 2
    if "RANK" in os.environ:
        from ..engine.world import hold_back

        hold_back()
    return code


def run_command(words: Sequence[str]) -> None:
    """Runs a command and raises its errors. `--help` of a command raises `SystemExit(0)` when it is printed.

    Raises:
        CulnigError: there is no such command, or it does not understand the words.
    """
    verbose = any(word in ("-v", "--verbose", "--debug") for word in words)
    words = [word for word in words if word not in ("-v", "--verbose", "--debug")]
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        return
    if words[0] == "--version":
        print(__version__)
        return
    name, module = _command(words)
    rest = words[len(name.split()) :]
    _log(verbose)
    processes = _share(name)

    from .parsing import given, parse

    check_spelling(given(rest, "--model") or TOY)  # before libraries are imported, which takes seconds
    function = getattr(import_module(f".{module}", __name__), name.replace(" ", "_"))
    call = parse(function, rest, name, EXAMPLES[name])
    for place in ("output", "output_dir", "to"):  # where it cannot be written is said before anything is made
        if isinstance(path := getattr(call, "keywords", {}).get(place), Path):
            check_place(path, folder=place != "output")
    if processes > 1:
        from ..engine.world import start

        start()
    call()


def overview(beginning: str = "") -> str:
    """The commands by panel, or those alone whose name begins so."""
    lines = [f"usage: culnig-tl {beginning.strip() or '[-v] [--debug]'} COMMAND [OPTIONS]", ""]
    if not beginning:
        lines += [
            (
                "Finds the neurons that carry a model's knowledge of cultures, switches them off, and shows"
                " where they sit."
            ),
            "",
        ]
    for panel, commands in COMMANDS.items():
        chosen = {name: said for name, said in commands.items() if name.startswith(beginning)}
        if chosen:
            lines += [panel.capitalize(), *(f"  {name:<15}{said}" for name, said in chosen.items())]
            lines += [f"  e.g. {EXAMPLES[next(iter(chosen))]}", ""]
    if not beginning:
        lines += ["Options", *(f"  {name:<15}{said}" for name, said in GLOBAL.items()), ""]
    return "\n".join([*lines, "culnig-tl COMMAND --help says what a command takes."])


def _command(words: Sequence[str]) -> tuple[str, str]:
    """(the command's name, its module). Raises `CulnigError` for words that name none."""
    modules = {name: module for module, commands in COMMANDS.items() for name in commands}
    for name in (" ".join(words[:2]), words[0]):
        if name in modules:
            return name, modules[name]
    group = f"{words[0]} "
    if any(name.startswith(group) for name in modules):
        if words[1:] in ([], ["-h"], ["--help"]):
            print(overview(group))
            raise SystemExit(0)
        words = [" ".join(words[:2])]
    near = nearest(words[0], modules)
    hint = f": did you mean {near}?" if near else "; culnig-tl --help lists the commands"
    raise CulnigError(f"there is no command {words[0]!r}{hint}")


def _log(verbose: bool) -> None:
    from rich.logging import RichHandler

    from .output import err

    handlers = [RichHandler(console=err, show_path=False, show_time=False)]
    logging.basicConfig(level=logging.WARNING, format="%(message)s", force=True, handlers=handlers)
    logging.getLogger("culnig_tl").setLevel(logging.INFO if verbose else logging.WARNING)
    if not verbose:
        for library in LIBRARIES:
            logging.getLogger(library).setLevel(logging.ERROR)
        # they set their own levels when they are imported
        os.environ.setdefault("HF_HUB_VERBOSITY", "error")
        os.environ.setdefault("DATASETS_VERBOSITY", "error")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def _share(name: str) -> int:
    """How many processes run this command; of several, the first one alone speaks. Raises `CulnigError` where
    it cannot be shared."""
    if "RANK" not in os.environ:
        return 1
    from ..engine.world import launched

    if launched() == 1:
        return 1
    if os.environ["RANK"] != "0":
        from .output import err

        os.environ["TQDM_DISABLE"] = "1"
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # for as long as the process lasts
        err.quiet = True
    if name not in SHARED:
        raise CulnigError(f"torchrun can start {', '.join(SHARED)}; start `culnig-tl {name}` alone")
    return launched()


def _complain(text: str, error: Exception | None = None) -> None:
    """Prints to stderr in one line. Of several processes the first one speaks, and one that has an error of
    its own."""
    from rich.markup import escape

    from .output import err

    if error is not None:
        from ..engine.world import OwnError

        err.quiet = err.quiet and not isinstance(error, OwnError)
        text += escape(" ".join(str(error).split()))
    err.print(text, soft_wrap=True, highlight=False)
