"""`culnig-tl sweep`: does what was found depend on the thresholds?"""

from __future__ import annotations

from typing import Annotated

import typer

from ..study.opened import OutputDir, StudyDir, open_study, write_all
from .options import BatchSize, DataDir, Device, Dtype, batch_size_of, names, out, show_frame


def sweep(
    study: StudyDir,
    t: Annotated[
        str, typer.Option("--t", help="Shares, comma separated; attention's share moves along.")
    ] = "0.001,0.002,0.003,0.005,0.01,0.02,0.03,0.05",
    r: Annotated[
        str | None, typer.Option("--r", help="Shares removed by reading; the study's by default.")
    ] = None,
    z: Annotated[str, typer.Option("--z", help="Least z, with --country.")] = "0.5",
    country: Annotated[
        str | None, typer.Option("--country", help="Sweep this country's own neurons.")
    ] = None,
    ask: Annotated[
        bool,
        typer.Option(
            "--ask/--count", help="Suppress every set and ask the study's tasks, or only count neurons."
        ),
    ] = True,
    output_dir: OutputDir = None,
    data_dir: DataDir = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Selections of a study at many thresholds, and what suppressing each costs: one table, one figure."""
    from ..analyses.sweep import threshold_sweep
    from ..study.study import Study

    opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir) if ask else None
    done = opened.study if opened else Study.load(study)
    swept = threshold_sweep(
        *(done.scores[name] for name in ("neuron", "control", "reading")),
        t=[float(value) for value in names(t)],
        drop_reading=[float(value) for value in names(r)] if r else [done.config.drop_reading],
        z=[float(value) for value in names(z)],
        country=country,
        attn_ratio=done.config.top_attn / done.config.top_mlp,
        model=opened.model if opened else None,
        tasks=opened.tasks if opened else (),
        batch_size=batch_size_of(batch_size),
    )
    table = swept.table()
    show_frame(table[[column for column in table.columns if not column.endswith((" se", " accuracy"))]])
    name = "sweep" if country is None else f"sweep {country}"
    contents = {f"{name}.csv": table.to_csv(index=False)}
    if ask:
        contents[f"{name}.html"] = swept.figure().to_html(include_plotlyjs=True, full_html=True)
    write_all(output_dir or study, contents)
    out.print(swept, soft_wrap=True)
