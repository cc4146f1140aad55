"""A study's pieces, one at a time: `score`, `select` and `evaluate`."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from ..defaults import CONTRAST_OVER, MIN_Z, TOP_SPECIFIC
from ..errors import StudyError
from ..study.config import Asking, ModelConfig, Shares
from .output import say, show_frame
from .parsing import MaybeOutput, Output, Positional

if TYPE_CHECKING:
    from ..data.scores import NeuronScores

PAPER_SITES = ("mlp.gate", "attn.q", "attn.k", "attn.v")


def score(
    config: ModelConfig,
    asking: Asking,
    *,
    output: Output,
    task: str = "miniculture",
    control: bool = False,
    split: Literal["neuron", "test", "all"] = "neuron",
    method: tuple[str, ...] = ("culnig",),
    language: str | None = None,
    bootstrap: int = 0,
    seed: int = 0,
    sites: tuple[str, ...] = PAPER_SITES,
    resume: bool = False,
    save_every: float = 60.0,
) -> None:
    """Scores every neuron on a task, country by country. torchrun shares the questions among processes.

    Args:
        output: File to write; of several methods, each one's name is put before the file's ending.
        task: Name of one task, or a file of questions; `culnig-tl tasks` lists them. A name that ends in
            :control is its control.
        control: Score the task's control: options without the question.
        split: Which of the task's questions.
        method: culnig, or other methods, e.g. atp, lape, ig; methods that read the same pass share it.
        language: cape: task that language neurons are found on.
        bootstrap: Bootstrap replicates of the scores to keep as well.
        seed: Seed of the replicates, and of the method random.
        sites: Where the neurons are, e.g. mlp.gate,attn.v.
        resume: Resume where the same command was stopped.
        save_every: Seconds between two saves of what is unfinished.
    """
    from ..data.scores import NeuronScores
    from ..engine.checkpoint import Checkpoint
    from ..engine.world import world
    from ..method.score import score_neurons
    from ..run.pipeline import asked_as, load
    from ..tasks import load_task

    which = None if split == "all" else split
    model = load(config)
    how: dict[str, Any] = {"split": which, "limit": config.limit, "data_dir": config.data_dir}
    as_asked, chosen = asked_as(asking, model, task, config)
    how |= as_asked
    questions = load_task(task, control=control, **how)
    spoken = load_task(language, **how) if language is not None else None
    with Checkpoint.beside(output, resume=resume, every=save_every) as checkpoint:
        found = score_neurons(
            model,
            questions,
            method=method[0] if len(method) == 1 else method,
            sites=sites,
            language=spoken,
            bootstrap=bootstrap,
            seed=seed,
            batch_size=config.batch_size,
            progress=world().first,
            checkpoint=checkpoint("score"),
            resume=resume,
        )
        scored = {method[0]: found} if isinstance(found, NeuronScores) else found
        scored = {name: replace(s, metadata={**s.metadata, **chosen}) for name, s in scored.items()}
        for name, scores in scored.items():
            file = output if len(scored) == 1 else output.with_suffix(f".{name}{output.suffix}")
            world().on_first(lambda scores=scores, file=file: scores.save(file))
    for scores in scored.values():
        say(scores)
        show_frame(scores.top(20), _unit(scores))


def _unit(scores: NeuronScores) -> str:
    """What a number in the column "score" is."""
    from ..method.methods.registry import METHODS

    if METHODS[scores.method].weighted:
        counted = f"summed over {sum(scores.questions):,} questions"
        return f"score: P(answer) times the estimated loss of P(answer) without the neuron, {counted}"
    return f"score: {METHODS[scores.method].about}"


def select(
    kind: Positional[Literal["general", "specific", "random"]],
    shares: Shares,
    *,
    scores: Path,
    output: Output,
    control: Path | None = None,
    reading: Path | None = None,
    contrast: tuple[Path, ...] = (),
    contrast_way: Literal["filter", "subtract", "ranks"] = "filter",
    contrast_over: float = CONTRAST_OVER,
    top_specific: float = TOP_SPECIFIC,
    z: float = MIN_Z,
    matching: Path | None = None,
    match: Literal["count", "layer"] = "count",
    seed: int = 0,
) -> None:
    """Selects neurons from scores; writes .parquet, .csv, or the authors' .json.

    Args:
        kind: Culture-general neurons, those of single countries, or random ones to compare with.
        scores: Scores of the culture task.
        output: File to write.
        control: Scores of the task's control.
        reading: Scores of country reading comprehension.
        contrast: general: scores of tasks without culture, which are held against a neuron.
        contrast_way: general: pass over neurons that score high there, or rank by the difference, of scores
            on one scale or of ranks.
        contrast_over: general: standard deviations from which "filter" passes over a neuron.
        top_specific: specific: share of all neurons that are candidates for one country.
        z: specific: least z of a country's own neurons over the countries.
        matching: random: the set whose size they have.
        match: random: as many in all, or as many in every site and layer.
        seed: random: which set.
    """
    from ..data.neurons import NeuronSet
    from ..data.scores import NeuronScores
    from ..method.selection import select_general, select_random, select_specific

    culture, *others = (NeuronScores.load(path) if path else None for path in (scores, control, reading))
    assert culture is not None
    if kind == "general":
        how: dict[str, Any] = {"contrast_way": contrast_way, "contrast_over": contrast_over, **vars(shares)}
        against = [NeuronScores.load(path) for path in contrast]
        chosen = select_general(culture, *others, contrast=against, **how)
    elif kind == "specific":
        chosen = select_specific(culture, *others, top=top_specific, drop_reading=shares.drop_reading, z=z)
    elif matching is None:
        raise StudyError("random neurons need --matching FILE: the set to match")
    else:
        chosen = select_random(NeuronSet.load(matching), culture, seed=seed, match=match)
    chosen.save(output)
    say(chosen)
    unit = "score: of one question on average, less that of its control where one is given"
    show_frame(chosen.top(20), unit if kind == "general" else None)


def evaluate(
    config: ModelConfig,
    asking: Asking,
    *,
    tasks: tuple[str, ...] = ("miniculture",),
    neurons: Path | None = None,
    scale: float = 0.0,
    split: Literal["auto", "neuron", "test", "all"] = "auto",
    by: Literal["task", "country", "template", "group"] = "task",
    text: Path | None = None,
    output: MaybeOutput = None,
    resume: bool = False,
    save_every: float = 60.0,
) -> None:
    """Asks tasks' questions, with or without neurons. torchrun shares the questions among processes.

    Args:
        tasks: Tasks to ask; `culnig-tl tasks` lists them. lm_eval:NAME is one of lm-evaluation-harness.
        neurons: Neurons to scale; without them the model is unchanged.
        scale: What the neurons' outputs are multiplied by: 0 suppresses them, 2 enhances them.
        split: Which questions. auto: all, but the test split alone of a task that the neurons were found on,
            or may have been, where their file does not say; without neurons, what a study of these tasks
            would ask.
        by: What the printed table has a row for.
        text: File of plain text, passages separated by blank lines: its perplexity is printed as well.
        output: Parquet file to write, one row per question.
        resume: With --output: resume where the same command was stopped.
        save_every: Seconds between two saves of what is unfinished.
    """
    from ..data.neurons import NeuronSet
    from ..data.results import concat
    from ..engine.checkpoint import Checkpoint
    from ..engine.world import world
    from ..method.evaluation import evaluate as ask
    from ..method.plain_text import text_loss
    from ..run.pipeline import asked_as, load
    from ..study.asked import culture_of, parts_of
    from ..tasks import load_tasks

    if resume and output is None:
        raise StudyError("--resume needs --output: unfinished work is kept beside that file")
    chosen = NeuronSet.load(neurons) if neurons else None
    model = load(config)
    given, form = asked_as(asking, model, tasks[0], config)
    whole = load_tasks(tasks, data_dir=config.data_dir, **given)
    if chosen is None:
        found_on = {task.name for task in [culture_of(whole)] if task is not None}
    else:
        found_on = {task.name for task in whole if chosen.provenance.found_on(task.name)}
    asked = [task.limit(config.limit) for task in parts_of(whole, split, found_on)]
    how: dict[str, Any] = {"ablate": chosen, "scale": scale, "resume": resume}
    how |= {"batch_size": config.batch_size, "progress": world().first}
    kept: Any = nullcontext(lambda name: None)
    if output is not None:
        kept = Checkpoint.beside(output, resume=resume, every=save_every)
    with kept as checkpoint:
        result = concat([ask(model, task, checkpoint=checkpoint(task.name), **how) for task in asked])
        result = replace(result, metadata={**result.metadata, **form})
        if output is not None:
            world().on_first(lambda: result.save(output))
    show_frame(result.accuracy(by))
    say("Asked: " + "; ".join(f"{task}, {_questions(split)}" for task, split in result.splits.items()))
    if text is not None:
        say(f"{text}: {text_loss(model, text, ablate=chosen, scale=scale)}")


def _questions(split: str) -> str:
    return "all questions" if split == "all" else f"the {split} split"
