"""`culnig-tl enhance`: does scaling the found neurons up raise accuracy?"""

from __future__ import annotations

from typing import Annotated

import typer

from ..study.opened import OutputDir, StudyDir, open_study, write_all
from .options import BatchSize, DataDir, Device, Dtype, batch_size_of, names, out, show_frame


def enhance(
    study: StudyDir,
    factors: Annotated[str, typer.Option("--factors", help="Comma separated.")] = "1.1,1.25,1.5,1.75,2",
    random_sets: Annotated[
        int, typer.Option("--random-sets", help="Layer-matched random sets beside the general one.", min=0)
    ] = 3,
    specific: Annotated[
        bool,
        typer.Option(
            "--specific/--general", help="Each country's own neurons too, or the general set alone."
        ),
    ] = True,
    output_dir: OutputDir = None,
    data_dir: DataDir = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """A study's neurons multiplied by 1.1 to 2, on topics that they were not found on: change of accuracy with 95% intervals."""
    from ..analyses.enhancing import enhance_sweep
    from ..study.config import GENERAL, SPECIFIC

    opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir)
    done = opened.study
    found = enhance_sweep(
        opened.model,
        opened.tasks,
        done.neurons[GENERAL],
        done.neurons.get(SPECIFIC) if specific else None,
        scores=done.scores["neuron"] if random_sets else None,
        random_sets=random_sets,
        factors=[float(value) for value in names(factors)],
        batch_size=batch_size_of(batch_size),
    )
    columns = [
        "set",
        "factor",
        "task",
        "neurons",
        "questions",
        "base",
        "accuracy",
        "change",
        "low",
        "high",
        "p_change",
    ]
    show_frame(found.rows[columns].round(2))
    out.print(found.sentence(), soft_wrap=True, highlight=False)
    page = found.figure().to_html(include_plotlyjs=True, full_html=True)
    write_all(output_dir or study, {"enhance.csv": found.rows.to_csv(index=False), "enhance.html": page})
