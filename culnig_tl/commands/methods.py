"""`culnig-tl methods` and `culnig-tl truth`: other methods beside CULNIG, and how true an attribution is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import StudyError
from ..study.opened import write_all
from .options import (
    BatchSize,
    DataDir,
    Device,
    Dtype,
    Model,
    OneTask,
    Revision,
    Tasks,
    batch_size_of,
    names,
    out,
    show_frame,
    split_of,
)

if TYPE_CHECKING:
    from ..method.exact import ExactEffects
    from ..tasks import Task

QUESTIONS = 64
SMALL = 20_000
"""Models with so many neurons at most have every one of them zeroed."""

Questions = Annotated[
    int, typer.Option("--limit", help="Questions that neurons are scored and zeroed on.", min=1)
]
Sample = Annotated[
    int | None,
    typer.Option(
        "--sample",
        help="Zero so many random neurons a site and layer; all of a small model's by default.",
        min=1,
    ),
]
Sites = Annotated[str, typer.Option("--sites", help="Comma separated, e.g. mlp.gate,attn.v.")]
PAPER_SITES = "mlp.gate,attn.q,attn.k,attn.v"


def truth(
    model: Model = "toy",
    task: OneTask = "miniculture",
    sites: Sites = PAPER_SITES,
    sample: Sample = None,
    limit: Questions = QUESTIONS,
    output: Annotated[Path, typer.Option("--output", "-o", help="Table to write: .parquet or .csv.")] = Path(
        "truth.parquet"
    ),
    data_dir: DataDir = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Zeroes neurons one at a time: what each costs P(answer), and how CULNIG's score agrees with that."""
    from ..analyses.agreement import ALL, agreement
    from ..engine.models import load_model
    from ..method.methods import score_methods

    questions = split_of(task, "neuron", data_dir).limit(limit)
    hooked = load_model(model, device=device, dtype=dtype, revision=revision)
    effects = _effects(hooked, questions, names(sites), sample)
    effects.save(output)
    out.print(effects, soft_wrap=True, highlight=False)
    scores = score_methods(hooked, questions, ["culnig", "culnig-sum"], sites=names(sites))
    table = agreement(scores, effects)
    show_frame(table[table["layer"] == ALL].drop(columns="layer"))
    out.print(f"Written to {output}", soft_wrap=True, highlight=False)


def methods(
    model: Model = "toy",
    tasks: Tasks = "miniculture,minicommonsense,minireading,miniparaphrase,minianswers",
    reading: Annotated[
        str,
        typer.Option(
            "--reading", help="Country reading comprehension: what serves it is out of every ranking."
        ),
    ] = "",
    language: Annotated[
        str,
        typer.Option(
            "--language", help="Task that CAPE finds language neurons on; the reading task by default."
        ),
    ] = "",
    method: Annotated[
        str, typer.Option("--methods", help="Names, comma separated; all of them by default.")
    ] = "",
    sample: Sample = None,
    limit: Questions = QUESTIONS,
    ranked: Annotated[
        int | None,
        typer.Option(
            "--ranked",
            help="Questions that all but the costly methods (ig, ig-all, atp-qk) are ranked on; --limit by default.",
            min=1,
        ),
    ] = None,
    asked: Annotated[int | None, typer.Option("--asked", help="Test questions a task.", min=1)] = 400,
    top_mlp: Annotated[
        float | None, typer.Option("--top-mlp", help="Share of MLP neurons of the budget 1.")
    ] = None,
    top_attn: Annotated[
        float | None, typer.Option("--top-attn", help="Share of q, k, v neurons of the budget 1.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of the sample and of random scores.")] = 0,
    output_dir: Annotated[Path, typer.Option("--output-dir", help="Where tables and figures go.")] = Path(
        "runs/methods"
    ),
    data_dir: DataDir = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Every method on the same sites, model and questions: agreement with the exact effects, accuracy as its neurons are suppressed, overlap."""
    from ..analyses.methods import compare_methods
    from ..defaults import DROP_READING, TOY
    from ..engine.models import load_model
    from ..method.methods import METHODS, parse_methods
    from ..study.config import TOY_CONFIG, StudyConfig
    from ..tasks import load_task

    usual = TOY_CONFIG if model == TOY else StudyConfig()
    whole = [load_task(name, data_dir=data_dir) for name in names(tasks)]
    culture = next((task for task in whole if task.culture and task.has_control), None)
    if culture is None:
        raise StudyError(f"none of the tasks {tasks} has cultural questions with a control: add blend")
    beside = load_task(language, data_dir=data_dir) if language else None
    crc = load_task(reading or usual.reading, data_dir=data_dir).neuron_split().limit(asked)
    asked_methods = parse_methods(names(method) or METHODS)
    hooked = load_model(model, device=device, dtype=dtype, revision=revision)
    questions = culture.neuron_split().limit(limit)
    effects = _effects(hooked, questions, names(PAPER_SITES), sample, seed)
    found = compare_methods(
        hooked,
        questions,
        crc,
        [task.test_split().limit(asked) for task in whole],
        effects,
        methods=asked_methods,
        ranked_on=culture.neuron_split().limit(ranked) if ranked else None,
        language=beside.filter(lambda q: q.split in (None, "neuron")).limit(asked) if beside else None,
        top_mlp=usual.top_mlp if top_mlp is None else top_mlp,
        top_attn=usual.top_attn if top_attn is None else top_attn,
        drop_reading=DROP_READING,
        batch_size=batch_size_of(batch_size),
        seed=seed,
    )
    table = found.table()
    out.print(effects, soft_wrap=True, highlight=False)
    areas = ["questions", "area_culture", "area_nlu", "area_difference"]
    out.print(
        "Against these effects: Spearman, Pearson, share of the top 1% and 5% that is truly there; Spearman by site",
        highlight=False,
    )
    show_frame(table.drop(columns=areas).drop("unchanged").reset_index().round(3))
    out.print(
        f"Questions that neurons were ranked on; area under accuracy (%) against neurons suppressed ({', '.join(map(str, found.budgets))})",
        highlight=False,
    )
    show_frame(table[areas].reset_index().round(2))
    out.print(found.sentence(), soft_wrap=True, highlight=False)
    effects.save(output_dir / "truth.parquet")
    contents = {
        "methods.csv": table.to_csv(),
        "agreement.csv": found.agreement().to_csv(index=False),
        "overlap.csv": found.overlap().to_csv(),
        "curves.csv": found.curves().to_csv(index=False),
    }
    pages = {
        f"{name}.html": figure.to_html(include_plotlyjs=True, full_html=True)
        for name, figure in found.figures().items()
    }
    write_all(output_dir, {**contents, **pages})


def _effects(
    model: Any, questions: Task, sites: tuple[str, ...], sample: int | None, seed: int = 0
) -> ExactEffects:
    """The exact effects of all neurons of a small model, of a sample of a larger one's."""
    from ..engine.models import describe
    from ..method.exact import all_neurons, exact_effects, stratified_sample

    info = describe(model)
    if sample is None:
        chosen = all_neurons(info, sites)
        if len(chosen) > SMALL:
            raise StudyError(
                f"{info.name} has {len(chosen):,} neurons at {', '.join(sites)}: say how many to zero a site and layer (--sample 16)"
            )
    else:
        chosen = stratified_sample(info, sites, each=sample, seed=seed)
    return exact_effects(model, questions, chosen)
