"""`culnig-tl values`: knowledge against values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..study.opened import write_all
from .options import (
    BatchSize,
    DataDir,
    Device,
    Dtype,
    Limit,
    Model,
    Revision,
    Tasks,
    batch_size_of,
    names,
    out,
    show_frame,
    split_of,
)


def values(
    model: Model,
    tasks: Tasks = "blend,normad,worldvaluesbench",
    reading: Annotated[str, typer.Option("--reading", help="Country reading comprehension.")] = "countryrc",
    top_mlp: Annotated[
        float, typer.Option("--top-mlp", help="Share of MLP neurons that are candidates.")
    ] = 0.01,
    top_attn: Annotated[
        float, typer.Option("--top-attn", help="Share of q, k, v neurons that are candidates.")
    ] = 0.002,
    drop_reading: Annotated[
        float, typer.Option("--r", help="Share, highest by reading, that is removed.")
    ] = 0.01,
    random_sets: Annotated[
        int, typer.Option("--random-sets", help="Layer-matched random sets a set.", min=1)
    ] = 10,
    output_dir: Annotated[Path, typer.Option("--output-dir", help="Where tables and neurons go.")] = Path(
        "runs/values"
    ),
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Neurons found on what is known and on what is valued: their overlap, and what each set costs on each task."""
    from ..analyses.knowledge_values import compare_tasks
    from ..engine.models import load_model
    from ..tasks import load_task

    whole = [load_task(name, data_dir=data_dir) for name in names(tasks)]
    found = compare_tasks(
        load_model(model, device=device, dtype=dtype, revision=revision),
        whole,
        split_of(reading, "neuron", data_dir).limit(limit),
        top_mlp=top_mlp,
        top_attn=top_attn,
        drop_reading=drop_reading,
        limit=limit,
        random_sets=random_sets,
        batch_size=batch_size_of(batch_size),
    )
    overlap, table = found.overlap(), found.table()
    show_frame(overlap)
    columns = [
        "found_on",
        "neurons",
        "asked",
        "base",
        "drop",
        "low",
        "high",
        "random_mean",
        "excess",
        "excess_low",
        "excess_high",
        "p_holm",
        "rank",
    ]
    show_frame(table[columns].round(3))
    for name, neurons in found.sets.items():
        out.print(neurons, soft_wrap=True)
        neurons.save(output_dir / f"{name}.parquet")
    page = found.figure().to_html(include_plotlyjs=True, full_html=True)
    write_all(
        output_dir,
        {
            "overlap.csv": overlap.to_csv(index=False),
            "cross-effects.csv": table.to_csv(index=False),
            "cross-effects.html": page,
        },
    )
