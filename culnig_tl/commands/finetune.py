"""`culnig-tl finetune`: what training on a task costs in culture, and which modules to spare."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from ..errors import FineTuningError
from .options import (
    BatchSize,
    DataDir,
    Device,
    Dtype,
    Limit,
    Model,
    Revision,
    batch_size_of,
    names,
    out,
    show_frame,
)


def finetune(
    model: Model = "toy",
    task: Annotated[
        str | None,
        typer.Option(
            "--task",
            help="Trained on: qnli, mrpc, blend (its neuron topics), or your own file with rows of the split neuron.",
        ),
    ] = None,
    modules: Annotated[
        str,
        typer.Option(
            "--modules",
            help="Groups, comma separated: top, bottom, matched, random; or modules such as mlp.13,attn.2.",
        ),
    ] = "top,bottom,matched,random",
    share: Annotated[float, typer.Option("--share", help="Of the parameters that a group holds.")] = 0.10,
    lora: Annotated[
        bool, typer.Option("--lora", help="Train LoRA (r 32, alpha 64) in these modules, and merge it.")
    ] = False,
    seeds: Annotated[
        str, typer.Option("--seeds", help="Comma separated: one training a group and seed.")
    ] = "0,1,2",
    tasks: Annotated[
        str | None,
        typer.Option("--tasks", help="Asked before and after, comma separated; the trained one too."),
    ] = None,
    neurons: Annotated[
        Path | None,
        typer.Option("--neurons", help="The model's culture-general neurons; found anew without them."),
    ] = None,
    reading: Annotated[
        str | None, typer.Option("--reading", help="Country reading comprehension, to find neurons.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", help="Constant; 3e-5, for the toy 1e-3.")
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the questions.", min=1)] = 1,
    train_batch_size: Annotated[
        int, typer.Option("--train-batch-size", help="Questions a process trains on together.", min=1)
    ] = 4,
    accumulation: Annotated[
        int, typer.Option("--accumulation", help="Batches a step, shared by torchrun's processes.", min=1)
    ] = 4,
    output_dir: Annotated[
        Path | None, typer.Option("--output-dir", help="Folder; runs/finetune-<model>-<task> by default.")
    ] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what the folder holds.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Make what the folder holds anew.")] = False,
) -> None:
    """Trains a model on a task by chosen modules alone, and measures what becomes of culture, group by group.

    The fine-tuned checkpoints are ordinary Hugging Face folders under models/; freeze-list.json names what to spare elsewhere.
    """
    from ..data.neurons import NeuronSet
    from ..finetuning.forgetting import TOY_FORGETTING, ForgettingConfig
    from ..finetuning.measuring import measure_forgetting

    if any(not seed.lstrip("-").isdigit() for seed in names(seeds)):
        raise FineTuningError(f"seeds are whole numbers, comma separated, not {seeds!r}")
    config = TOY_FORGETTING if model == "toy" else ForgettingConfig()
    rate = config.training.learning_rate if learning_rate is None else learning_rate
    training = replace(
        config.training, learning_rate=rate, epochs=epochs, lora=lora, batch_size=train_batch_size, accumulation=accumulation,
        device=device, dtype=dtype,
    )  # fmt: skip
    config = replace(
        config,
        model=model,
        task=task or config.task,
        tasks=names(tasks) if tasks else config.tasks,
        modules=names(modules),
        share=share,
        seeds=tuple(int(seed) for seed in names(seeds)),
        training=training,
        reading=reading or config.reading,
        limit=limit,
        batch_size=batch_size_of(batch_size),
        revision=revision,
        data_dir=data_dir,
    )
    folder = output_dir or Path("runs") / f"finetune-{Path(model).name}-{Path(config.task).stem}"
    given = NeuronSet.load(neurons) if neurons else None
    found = measure_forgetting(config, folder=folder, neurons=given, resume=resume, overwrite=overwrite)
    for seeds_of in found.groups.values():
        for modules_of in dict.fromkeys(map(str, seeds_of.values())):
            out.print(modules_of, soft_wrap=True, highlight=False)
    for tuned in (next(iter(models.values())) for models in found.models.values()):
        out.print(str(tuned), soft_wrap=True, highlight=False)
    out.print(f"\n{found.table().to_markdown()}", soft_wrap=True, highlight=False)
    out.print("Change in points; over seeds: standard deviation, least, most")
    show_frame(found.summary())
    out.print("Where the culture-general neurons went")
    show_frame(found.overlap())
    out.print(found.sentence(), soft_wrap=True, highlight=False)
    out.print(
        f"\nWritten to {folder}: models/, results/, neurons/, figures/, tables, freeze-list.json",
        soft_wrap=True,
        highlight=False,
    )
