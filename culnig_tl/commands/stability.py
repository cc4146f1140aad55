"""`culnig-tl stability`: do the same neurons return?"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from ..study.opened import OutputDir, StudyDir, open_study, write_all
from .options import BatchSize, DataDir, Device, Dtype, batch_size_of, names, out, show_frame


def stability(
    study: StudyDir,
    replicates: Annotated[
        int,
        typer.Option(
            "--replicates", help="Bootstrap replicates; each takes the memory of the scores.", min=1
        ),
    ] = 100,
    wordings: Annotated[
        str,
        typer.Option(
            "--wordings",
            help="TOML files of wordings, comma separated, beside those that the task has itself.",
        ),
    ] = "",
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap.")] = 0,
    output_dir: OutputDir = None,
    data_dir: DataDir = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """A study's selection again on bootstrap replicates of its questions and on other wordings: how often each neuron returns."""
    from ..analyses.stability import in_wordings, select_by_wording, selection_stability
    from ..method.score import score_neurons
    from ..tasks import load_task

    opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir)
    config, size, culture = opened.study.config, batch_size_of(batch_size), opened.culture
    shares: dict[str, Any] = {
        "top_mlp": config.top_mlp,
        "top_attn": config.top_attn,
        "drop_reading": config.drop_reading,
    }
    scored = [
        score_neurons(opened.model, task, bootstrap=replicates, seed=seed, batch_size=size)
        for task in (culture, culture.control(), opened.reading)
    ]
    asked = in_wordings(culture)
    for path in names(wordings):
        other = (
            load_task(culture.name, data_dir=data_dir or config.data_dir, wordings=path)
            .neuron_split()
            .limit(config.limit)
        )
        asked |= {f"{path}, {name}": task for name, task in in_wordings(other).items()}
    by_wording = (
        select_by_wording(opened.model, asked, scored[2], batch_size=size, **shares) if len(asked) > 1 else {}
    )
    found = selection_stability(*scored, wordings=by_wording, **shares)
    out.print(found.neurons, soft_wrap=True)
    show_frame(found.table().round(3))
    contents = {
        "stability.csv": found.table().to_csv(index=False),
        "returns.csv": found.ever_selected().to_csv(index=False),
    }
    if by_wording:
        out.print("Jaccard index of the neurons found with each wording")
        show_frame(found.overlap().round(3).reset_index())
        contents["wordings.csv"] = found.overlap().to_csv()
    folder = output_dir or study
    found.neurons.save(folder / "stability.parquet")
    write_all(
        folder, {**contents, "stability.html": found.figure().to_html(include_plotlyjs=True, full_html=True)}
    )
