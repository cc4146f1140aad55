"""`culnig-tl countries`: what each country's neurons cost each country."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..errors import ScoreError
from ..study.opened import OutputDir, StudyDir, open_study, write_all
from .options import BatchSize, DataDir, Device, Dtype, batch_size_of, names, out, show_frame


def countries(
    study: StudyDir,
    relations: Annotated[
        str,
        typer.Option("--relations", help="Comma separated: family, region, values, or columns of --table."),
    ] = "family,region,values",
    table: Annotated[
        Path | None,
        typer.Option("--table", help="CSV of your own relations: country and a column a relation."),
    ] = None,
    output_dir: OutputDir = None,
    data_dir: DataDir = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """Country x country drops, each country's rank under its own neurons, and what own, related and unrelated countries lose."""
    import pandas as pd

    from ..analyses.crossing import country_drops
    from ..analyses.relations import SOURCES
    from ..method.specificity import diagnose

    opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir)
    done = opened.study
    shared = diagnose(done.scores["neuron"], done.scores["control"])
    task = next(task for task in opened.tasks if task.name == done.culture_task)
    found = country_drops(
        opened.model, task, done.neurons["culture-specific"], batch_size=batch_size_of(batch_size)
    )
    out.print("Before any claim about one country: how much one shared pattern explains")
    show_frame(shared.reset_index())
    out.print(found, soft_wrap=True)
    tests, kinds = [], []
    for relation in names(relations):
        try:
            test = found.related(relation, table=table)
            tests.append(
                {
                    "relation": relation,
                    "related": test.related,
                    "unrelated": test.unrelated,
                    "pairs": test.pairs,
                    "p": test.p,
                }
            )
            kinds.append(
                found.by_relation(relation, table=table)
                .rename_axis("countries")
                .reset_index()
                .assign(relation=relation)
            )
        except ScoreError as error:
            out.print(f"{relation}: {error}", soft_wrap=True)
            continue
        out.print(f"{relation}: {SOURCES.get(relation, table)}", soft_wrap=True, highlight=False)
    show_frame(pd.DataFrame(tests))
    contents = {
        "countries.csv": found.drops.to_csv(),
        "countries.html": found.figure().to_html(include_plotlyjs=True, full_html=True),
    }
    contents["related.csv"] = pd.DataFrame(tests).to_csv(index=False)
    if kinds:
        out.print(
            "\nWhat a country's set costs, points: mean over countries, and its 95% interval over countries"
        )
        show_frame(pd.concat(kinds))
        contents["own.csv"] = pd.concat(kinds).to_csv(index=False)
    write_all(output_dir or study, contents)
