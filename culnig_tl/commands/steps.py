"""`culnig-tl score`, `select` and `evaluate`: the study's pieces, one at a time."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import StudyError
from .options import (  # fmt: skip
    BatchSize,
    DataDir,
    Device,
    DeviceMap,
    Dtype,
    Limit,
    Model,
    OneTask,
    Output,
    Revision,
    SaveEvery,
    Tasks,
    batch_size_of,
    names,
    out,
    show_frame,
    split_of,
)

CULNIG = "culnig"


def score(
    output: Output,
    model: Model = "toy",
    task: OneTask = "miniculture",
    control: Annotated[
        bool, typer.Option("--control", help="Score the task's control: options without the question.")
    ] = False,
    split: Annotated[str, typer.Option("--split", help="neuron, test or all.")] = "neuron",
    sites: Annotated[
        str, typer.Option("--sites", help="Comma separated, e.g. mlp.gate,attn.v.")
    ] = "mlp.gate,attn.q,attn.k,attn.v",
    aggregation: Annotated[
        str, typer.Option("--aggregation", help="Over the prompt's tokens: max, sum or mean.")
    ] = "max",
    method: Annotated[
        str, typer.Option("--method", help="culnig, or another of `culnig-tl methods`, e.g. atp, lape, ig.")
    ] = CULNIG,
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on where the same command was stopped.")
    ] = False,
    save_every: SaveEvery = 60.0,
) -> None:
    """Scores every neuron on a task, country by country. torchrun shares the questions among processes."""
    from ..engine.checkpoint import Saving
    from ..engine.world import start
    from ..method.methods import score_by
    from ..method.score import score_neurons

    among = start()
    questions = split_of(task, split, data_dir).limit(limit)
    if method != CULNIG:
        if among.count > 1 or resume or aggregation != "max":
            raise StudyError(
                f"--method {method} runs in one process and in one go, and says itself how tokens are joined: leave the rest out"
            )
        loaded = _load(model, device=device, device_map=device_map, dtype=dtype, revision=revision)
        asked = questions.control() if control else questions
        others = score_by(loaded, asked, method, sites=names(sites), batch_size=batch_size_of(batch_size))
        others.save(output)
        out.print(others, soft_wrap=True)
        show_frame(others.top(20))
        return
    with Saving.beside(output, resume=resume, every=save_every) as state:
        scores = score_neurons(
            _load(model, device=device, device_map=device_map, dtype=dtype, revision=revision),
            questions.control() if control else questions,
            sites=names(sites),
            aggregation=aggregation,  # type: ignore[arg-type]
            batch_size=batch_size_of(batch_size),
            progress=among.first,
            saving=state("score"),
        )
        among.first_does(lambda: scores.save(output))
    out.print(scores, soft_wrap=True)
    show_frame(scores.top(20))


def select(
    kind: Annotated[str, typer.Argument(help="general, specific or random.")],
    output: Output,
    neuron: Annotated[Path, typer.Option("--neuron", help="Scores of the culture task.")],
    control: Annotated[Path | None, typer.Option("--control", help="Scores of its control.")] = None,
    reading: Annotated[
        Path | None, typer.Option("--reading", help="Scores of country reading comprehension.")
    ] = None,
    matching: Annotated[Path | None, typer.Option("--matching", help="random: the set to match.")] = None,
    match: Annotated[
        str, typer.Option("--match", help="random: count, or layer (as many in every site and layer).")
    ] = "count",
    seed: Annotated[int, typer.Option("--seed", help="random: which set.")] = 0,
    top_mlp: Annotated[float, typer.Option("--top-mlp", help="general: share of MLP neurons.")] = 0.01,
    top_attn: Annotated[float, typer.Option("--top-attn", help="general: share of q, k, v neurons.")] = 0.002,
    t: Annotated[float, typer.Option("--t", help="specific: share of all neurons.")] = 0.003,
    drop_reading: Annotated[
        float, typer.Option("--r", help="Share, highest by reading, that is removed.")
    ] = 0.01,
    z: Annotated[float, typer.Option("--z", help="specific: least z over the countries.")] = 0.5,
) -> None:
    """Selects neurons from scores; writes .parquet, .csv, or the authors' .json."""
    from ..data.neurons import NeuronSet
    from ..data.scores import NeuronScores
    from ..method.selection import select_general, select_random, select_specific

    if kind not in ("general", "specific", "random"):
        raise StudyError(f"unknown kind of neurons {kind!r}: general, specific or random")
    culture, other, crc = (NeuronScores.load(path) if path else None for path in (neuron, control, reading))
    assert culture is not None
    if kind == "general":
        chosen = select_general(
            culture, other, crc, top_mlp=top_mlp, top_attn=top_attn, drop_reading=drop_reading
        )
    elif kind == "specific":
        chosen = select_specific(culture, other, crc, top=t, drop_reading=drop_reading, z=z)
    else:
        if matching is None:
            raise StudyError("random neurons need --matching FILE: the set to match")
        chosen = select_random(NeuronSet.load(matching), culture, seed=seed, match=match)  # type: ignore[arg-type]
    chosen.save(output)
    out.print(chosen, soft_wrap=True)
    show_frame(chosen.top(20))


def evaluate(
    tasks: Tasks = "miniculture",
    model: Model = "toy",
    neurons: Annotated[
        Path | None,
        typer.Option("--neurons", help="Neurons to switch off; without them the model is unchanged."),
    ] = None,
    operation: Annotated[str, typer.Option("--operation", help="suppress or enhance.")] = "suppress",
    scale: Annotated[
        float | None, typer.Option("--scale", help="Multiply the neurons' outputs by this instead.")
    ] = None,
    by: Annotated[str, typer.Option("--by", help="task, country, template or group.")] = "task",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Parquet file to write, one row a question.")
    ] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    device_map: DeviceMap = None,
    dtype: Dtype = "auto",
    revision: Revision = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="With --output: go on where the same command was stopped.")
    ] = False,
    save_every: SaveEvery = 60.0,
) -> None:
    """Asks tasks' test questions, with or without neurons. torchrun shares the questions among processes."""
    from ..data.neurons import NeuronSet
    from ..data.results import concat
    from ..engine.checkpoint import Saving
    from ..engine.world import start
    from ..method.evaluation import evaluate as ask

    if resume and output is None:
        raise StudyError("--resume needs --output: what was asked is kept beside that file")
    among = start()
    chosen = NeuronSet.load(neurons) if neurons else None
    asked = [split_of(name, "test", data_dir).limit(limit) for name in names(tasks)]
    how: dict[str, Any] = {"neurons": chosen, "operation": operation, "scale": scale}
    how |= {"batch_size": batch_size_of(batch_size), "progress": among.first}
    with (
        Saving.beside(output, resume=resume, every=save_every)
        if output
        else nullcontext(lambda name: None) as state
    ):
        hooked = _load(model, device=device, device_map=device_map, dtype=dtype, revision=revision)
        result = concat([ask(hooked, task, saving=state(task.name), **how) for task in asked])
        if output:
            among.first_does(lambda: result.save(output))
    show_frame(result.accuracy(by).reset_index())


def _load(model: str, **where: Any) -> Any:
    """The model, where memory has room for it."""
    from ..engine.memory import check_memory
    from ..engine.models import load_model

    check_memory(model, **where)
    return load_model(model, **where)
