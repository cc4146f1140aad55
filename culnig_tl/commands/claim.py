"""`culnig-tl claim`: could what a study found have come out otherwise?"""

from __future__ import annotations

from typing import Annotated

import typer

from ..study.opened import OutputDir, StudyDir, more_random_sets, open_study, write_all
from .options import BatchSize, DataDir, Device, Dtype, batch_size_of, out, show_frame

RIVAL_TASK = "commonsenseqa"
TOY_RANDOM_SETS = 200
"""Enough for a rank to mean something; a quarter of an hour on the toy, days on a large model."""


def claim(
    study: StudyDir,
    rival: Annotated[
        str | None,
        typer.Option(
            "--rival",
            help="Task without culture that the rival's neurons are found on; the study's own by default.",
        ),
    ] = None,
    random_sets: Annotated[
        int | None,
        typer.Option(
            "--random-sets",
            min=1,
            help="Layer-matched random sets; more than the study's are asked and kept. 200 on the toy.",
        ),
    ] = None,
    output_dir: OutputDir = None,
    data_dir: DataDir = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
) -> None:
    """The study's drops against both kinds of random sets and a rival set, depth in thirds, and the table in the paper's form."""
    import pandas as pd

    from ..analyses.depth import depth_thirds
    from ..analyses.paper import results_table
    from ..defaults import TOY
    from ..method.evaluation import evaluate_sets
    from ..method.score import score_neurons
    from ..method.selection import select_rival
    from ..study.comparison import compare, halves
    from ..study.config import GENERAL, RANDOM, UNCHANGED
    from ..tasks import load_task

    opened = open_study(study, device=device, dtype=dtype, data_dir=data_dir)
    done, size = opened.study, batch_size_of(batch_size)
    general, base, ablated = done.neurons[GENERAL], done.results[UNCHANGED], done.results[GENERAL]
    name = rival or done.config.rival or RIVAL_TASK
    if random_sets is None and done.config.model == TOY:
        random_sets = TOY_RANDOM_SETS
    if random_sets is not None:
        more_random_sets(opened, study, random_sets, batch_size=size)
    found_on, asked_on = halves(load_task(name, data_dir=data_dir or done.config.data_dir))
    rivals = select_rival(general, score_neurons(opened.model, found_on, batch_size=size))
    # The rival's neurons were found on one half of its task; both sets are compared on what is left of it.
    left = {q.id for q in asked_on}
    tasks = [task.filter(lambda q: q.id in left) if task.name == name else task for task in opened.tasks]
    if not any(task.name == name for task in tasks):
        tasks.append(asked_on)

    answers = evaluate_sets(
        opened.model, tasks, {"unchanged": None, "culture-general": general, "rival": rivals}, batch_size=size
    )
    settings: dict = {"unchanged": base, "culture-general": ablated}
    frames = []
    for match, label in RANDOM.items():
        random = [done.results[setting] for setting in done.random_settings(match)]
        if random:
            settings[label] = random
            comparison = compare(base, ablated, random)
            out.print(f"\nAgainst {len(random)} sets: {label}\n{comparison}", soft_wrap=True)
            frames.append(comparison.table().reset_index().assign(against=label))
    against_rival = compare(answers["unchanged"], answers["culture-general"], [answers["rival"]])
    out.print(
        f"\nAgainst the rival: {len(rivals)} neurons, layer by layer, highest on {name} ({len(rivals & general)} of them are culture-general too)"
    )
    rows = against_rival.table().reset_index().rename(columns={"random_mean": "rival_drop"})
    show_frame(
        rows.reindex(columns=["task", "base", "drop", "rival_drop", "excess", "excess_low", "excess_high"])
    )
    frames.append(against_rival.table().reset_index().assign(against=f"rival ({name})"))
    out.print("\nDepth: percent of the neurons in each third of the layers, 95% interval, against the pool")
    depth = depth_thirds(general).reset_index()
    show_frame(depth)
    table = results_table(settings)
    out.print(f"\n{table.to_markdown()}", soft_wrap=True, highlight=False)
    contents = {
        "claim.csv": pd.concat(frames, ignore_index=True).to_csv(index=False),
        "depth.csv": depth.to_csv(index=False),
    }
    write_all(output_dir or study, {**contents, "table.md": table.to_markdown(), "table.csv": table.to_csv()})
