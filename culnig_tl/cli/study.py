"""Whole studies: `run`, `report`, `compare` and `atlas`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from .. import io
from ..defaults import TOY
from ..errors import StudyError
from ..study.config import Asking, Machine, Shares, StudyConfig, defaults_for
from .output import say, show, show_accuracy, show_frame
from .parsing import Positional, defaults_from, given


def _of_record_or_model(words: Sequence[str]) -> dict[str, Any]:
    """The defaults of `run`: the study that is to be repeated, or what holds for the model."""
    record, preset = given(words, "--from"), given(words, "--preset")
    if record is None:
        return {"config": defaults_for(given(words, "--model") or TOY, preset)}
    if preset is not None:
        raise StudyError("--from repeats a study as it was: leave out --preset")
    from ..run.repeat import recorded

    return {"config": recorded(Path(record), _options(words)).config}


def _options(words: Sequence[str]) -> list[str]:
    """The options among the words, without their values."""
    return [word.partition("=")[0] for word in words if word.startswith("--")]


@defaults_from(_of_record_or_model)
def run(
    config: StudyConfig,
    *,
    preset: Literal["paper"] | None = None,
    output_dir: Path | None = None,
    record: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    resume: bool = False,
    overwrite: bool = False,
    save_every: float = 60.0,
    dry_run: bool = False,
    plan: bool = False,
    piece: str | None = None,
) -> None:
    """The whole study: scores, neurons, answers with and without them, figures, report.html.

    The defaults below are those of the model that is given. torchrun shares the questions among processes.

    Args:
        preset: paper: the defaults are the paper's protocol: its tasks, rows and form of wordings.
        output_dir: Folder of the study; runs/<model> where none is given.
        record: study.json of a study: repeat it. Only the data's and the model's place may differ.
        resume: Resume the study in the folder.
        overwrite: Replace the study in the folder.
        save_every: Seconds between two saves of what is unfinished.
        dry_run: Print what it would take (questions, tokens, time, memory, disk); run nothing.
        plan: Write the study's pieces as commands, for a queue; run nothing.
        piece: With --from: make this one piece of a planned study.
    """
    from ..run.pipeline import run_study
    from ..run.repeat import recorded, words_of_places

    original = recorded(record, words_of_places(config)) if record is not None else None
    if original is not None:
        original.check(config)
    folder = output_dir or Path("runs") / Path(config.model).name
    if piece is not None:
        if original is None:
            raise StudyError("--piece needs --from FOLDER/study.json, which --plan writes")
        from ..run.plan import run_piece

        say(run_piece(config, original.folder, piece, save_every=save_every))
    elif dry_run:
        from ..run.forecast import forecast_study

        found = forecast_study(config)
        show_frame(found.shown())
        say(found)
    elif plan:
        from ..run.plan import describe_plan, write_plan

        say(describe_plan(write_plan(config, folder, overwrite=overwrite), folder))
    else:
        repeats = original.info if original is not None else None
        study = run_study(
            config, folder=folder, resume=resume, overwrite=overwrite, save_every=save_every, repeats=repeats
        )
        show_accuracy(study.table())
        say(study.sentence(), f"\nThe report: {folder / 'report.html'}")


def report(folder: Positional[Path]) -> None:
    """Writes a study's report.html again, from its folder, without a model.

    Args:
        folder: A study's folder.
    """
    from ..study.study import Study

    study = Study.load(folder)
    from ..pages.report import write_report  # loads Plotly and torch: later than what may be refused

    path = write_report(study, io.inside(folder, "report.html"))
    say(study.findings().headline(), f"\nThe report: {path}")


def _of_models(words: Sequence[str]) -> dict[str, Any]:
    """The defaults of `compare`: the toy's where the toy is among the models to study."""
    usual = defaults_for(TOY if any(word.endswith(f"={TOY}") for word in words) else "")
    names = ("shares", "tasks", "reading", "random_sets")
    return {name: getattr(usual, name) for name in names}


@defaults_from(_of_models)
def compare(
    studies: Positional[tuple[str, ...]],
    machine: Machine,
    asking: Asking,
    shares: Shares,
    *,
    output_dir: Path = Path("runs/compare"),
    tasks: tuple[str, ...],
    reading: str,
    random_sets: int,
    limit: int | None = None,
) -> None:
    """Accuracy, layers, overlap and rank correlation of several studies, on one page: compare.html.

    Finished studies are taken as they are. For NAME=MODEL a study is made in the output folder, or resumed,
    with the options below. What cannot be compared, as the overlap between models of different shapes, is
    left out, and the page says so.

    Args:
        studies: Folders of finished studies, or NAME=MODEL of checkpoints to study first, e.g. runs/base
            sft=models/sft.
        output_dir: Folder of the comparison, and of the studies that are made, each under its name.
        tasks: Tasks to ask; the neurons are found on the first one that has cultural questions with a
            control.
        reading: Country reading comprehension: neurons that serve it are removed.
        random_sets: Random sets of each kind.
        limit: Questions per task and split, spread evenly over countries and wordings; none asks all of them.
    """
    from ..analyses import compare_checkpoints
    from ..pages.comparison_page import write_comparison
    from ..run.several import named_sources, studies_of

    options = {**vars(machine), **vars(asking), **vars(shares), "tasks": tasks, "reading": reading}
    named = named_sources(studies)
    say(*(f"{name}: {source}" for name, source in named.items()))
    finished = studies_of(named, output_dir, random_sets=random_sets, limit=limit, **options)
    found = compare_checkpoints(finished)
    show(found, output_dir, files={"accuracy.md": found.accuracy().to_markdown()})
    say(f"The page: {write_comparison(found, output_dir / 'compare.html')}")


def atlas(
    studies: Positional[tuple[Path, ...]],
    machine: Machine,
    *,
    limit: int = 200,
    alone: int = 16,
    top: int | None = None,
    output_dir: Path | None = None,
) -> None:
    """A page for every selected neuron of a study, or of two side by side, with an index to search.

    The site opens from disk and needs no network. Run again, it resumes where it was stopped.

    Args:
        studies: Folder of a finished study, or two of them.
        limit: Questions that are read, of those that the neurons were found on.
        alone: Questions on which each neuron is suppressed alone, spread evenly over countries; 0: none.
        top: Neurons per study, the strongest first; none: all selected ones.
        output_dir: Folder of the site; atlas in the study's folder, or runs/atlas of two studies.
    """
    from ..pages.atlas import write_atlas
    from ..run.several import named_sources

    if not studies:
        raise StudyError("name a finished study, or two: culnig-tl atlas runs/x")
    single = len(studies) == 1
    named = studies[0] if single else named_sources([str(path) for path in studies])
    folder = output_dir or (studies[0] / "atlas" if single else Path("runs/atlas"))
    index = write_atlas(named, folder, limit=limit, alone=alone, top=top, **vars(machine))
    say(f"The atlas: {index}")
