"""`culnig-tl answers`: questions answered in words, region by region, and how far the comparison of answers can be trusted."""

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
    names,
    out,
    show_frame,
)

app = typer.Typer(
    help="Questions answered in words (BLEnD's short answers): `ask` a model, or `check` that answers are compared as people do.",
    no_args_is_help=True,
)


@app.command()
def ask(
    model: Model,
    language: Annotated[str, typer.Option("--language", help="local (each region's own), or en.")] = "local",
    neurons: Annotated[
        Path | None,
        typer.Option("--neurons", help="Neurons to switch off; without them the model is unchanged."),
    ] = None,
    random: Annotated[
        list[Path] | None,
        typer.Option(
            "--random",
            help="Random neurons to compare with, as `select random` writes them; may be repeated.",
        ),
    ] = None,
    operation: Annotated[str, typer.Option("--operation", help="suppress or enhance.")] = "suppress",
    max_new_tokens: Annotated[
        int, typer.Option("--max-new-tokens", min=1, help="Tokens of an answer at most.")
    ] = 512,
    output_dir: Annotated[
        Path | None,
        typer.Option("--output-dir", help="Where answers and tables go; runs/answers by default."),
    ] = None,
    data_dir: DataDir = None,
    limit: Limit = None,
    batch_size: BatchSize = "auto",
    device: Device = "auto",
    dtype: Dtype = "auto",
    revision: Revision = None,
) -> None:
    """Asks blend-saq, unchanged and with neurons switched off. Run again, it goes on where it was stopped."""
    from ..data.neurons import NeuronSet
    from ..engine.models import load_model
    from ..errors import NeuronError
    from ..method.answers.short_answers import LANGUAGE, ask_in_folder, by_region
    from ..study.comparison import compare
    from ..tasks import load_task

    if random and neurons is None:
        raise NeuronError("--random compares with --neurons: name both")
    sets: dict[str, NeuronSet | None] = {"unchanged": None}
    if neurons is not None:
        sets["suppressed" if operation == "suppress" else operation] = NeuronSet.load(neurons)
    sets |= {f"random {number}": NeuronSet.load(path) for number, path in enumerate(random or [])}
    folder = output_dir or Path("runs") / "answers"
    task = load_task("blend-saq", data_dir=data_dir, language=language).limit(limit)
    hooked = load_model(model, device=device, dtype=dtype, revision=revision)
    size = batch_size_of(batch_size)
    results = ask_in_folder(
        hooked, task, sets, folder, operation=operation, max_new_tokens=max_new_tokens, batch_size=size
    )
    base, *others = results.values()
    table = base.accuracy(["country", LANGUAGE]).filter(["accuracy", "se", "questions"])
    for name, result in list(results.items())[1:]:
        table[name] = result.accuracy(["country", LANGUAGE])["accuracy"]
    show_frame(table.rename(columns={"accuracy": "unchanged"}).reset_index())
    written = {"regions.csv": table.to_csv()}
    if len(others) > 1:
        whole, regions = (
            compare(of(base), of(others[0]), [of(result) for result in others[1:]])
            for of in (lambda result: result, by_region)
        )
        out.print(whole, soft_wrap=True)
        show_frame(
            regions.table().reset_index()[
                ["task", "base", "drop", "low", "high", "random_mean", "excess", "p_bootstrap_holm", "rank"]
            ]
        )
        written["comparison.csv"] = regions.table().to_csv()
    write_all(folder, written)
    out.print(
        f"answers compared with: {'; '.join(sorted(set(base.metadata['analysers'].values())))}",
        soft_wrap=True,
    )


@app.command()
def check(
    languages: Annotated[
        str, typer.Option("--languages", help="Comma separated codes, e.g. ko,zh; all thirteen by default.")
    ] = "",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="CSV file to write.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Precision and recall of comparing answers, by language, on variants that BLEnD's annotators grouped or told apart."""
    from .. import io
    from ..method.answers.variants import agreement

    table = agreement(data_dir=data_dir, languages=names(languages) or None)
    shown = table.drop(columns="analyser").round(3).reset_index()
    show_frame(shown)
    for language, analyser in table["analyser"].items():
        out.print(f"{language}: {analyser}", soft_wrap=True, highlight=False)
    if output:
        io.write(output, table.to_csv().encode())
