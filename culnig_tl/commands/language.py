"""`culnig-tl language`: language against culture."""

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
    batch_size_of,
    out,
    show_frame,
    split_of,
)


def language(
    model: Model,
    english: Annotated[
        str, typer.Option("--english", help="Task whose questions are in English, with both splits.")
    ] = "blend",
    local: Annotated[
        str, typer.Option("--local", help="The same questions in each region's own language.")
    ] = "blend-local",
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
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", help="Where tables and neurons go; runs/language by default."),
    ] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """The same questions in English and in the region's language: neurons of each, their overlap, and what each costs in each."""
    from ..analyses.language import compare_languages, pair
    from ..engine.models import load_model
    from ..tasks import load_task

    first, second = pair(load_task(english, data_dir=data_dir), load_task(local, data_dir=data_dir))
    first = first.limit(limit)
    crc = split_of(reading, "neuron", data_dir).limit(limit)
    found = compare_languages(
        load_model(model, device=device, dtype=dtype, revision=revision),
        first,
        second,
        crc,
        top_mlp=top_mlp,
        top_attn=top_attn,
        drop_reading=drop_reading,
        random_sets=random_sets,
        batch_size=batch_size_of(batch_size),
    )
    overlap, table = found.overlap(), found.table()
    show_frame(overlap)
    show_frame(
        table[
            [
                "set",
                "neurons",
                "asked",
                "base",
                "drop",
                "low",
                "high",
                "random_mean",
                "excess",
                "p_bootstrap_holm",
                "rank",
            ]
        ]
    )
    folder = output_dir or Path("runs") / "language"
    for name, neurons in found.sets.items():
        out.print(neurons, soft_wrap=True)
        neurons.save(folder / f"{name}.parquet")
    write_all(
        folder, {"overlap.csv": overlap.to_csv(index=False), "cross-effects.csv": table.to_csv(index=False)}
    )
