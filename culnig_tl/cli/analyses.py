"""The analyses: each command calls one function of `culnig_tl.analyses`, prints what it returns, and writes
tables and figures."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import io
from ..defaults import RANDOM_SETS, TOY
from ..errors import ScoreError
from ..study.config import Asking, Machine, ModelConfig, Shares, defaults_for
from .output import say, show
from .parsing import Output, Positional, defaults_from, given
from .pieces import PAPER_SITES


def claim(
    study: Positional[Path],
    machine: Machine,
    *,
    rival: str | None = None,
    random_sets: int | None = None,
    output_dir: Path | None = None,
) -> None:
    """A study's drops against both kinds of random sets and a rival set, what its neurons cost of plain text,
    depth in thirds, and the table in the paper's form.

    Args:
        study: Folder of a finished study, as `culnig-tl run` wrote it.
        rival: Task without culture that the rival's neurons are found on; the study's own where none is
            given.
        random_sets: Layer-matched random sets; those that the study lacks are asked and kept. 200 for the
            toy.
        output_dir: Where tables and figures go; the study's folder where none is given.
    """
    from .. import analyses

    found = analyses.claim(study, rival=rival, random_sets=random_sets, **vars(machine))
    show(found, output_dir or study, files={"table.md": found.results.to_markdown()})


def countries(
    study: Positional[Path],
    machine: Machine,
    *,
    relations: tuple[str, ...] = ("family", "region", "values"),
    table: Path | None = None,
    output_dir: Path | None = None,
) -> None:
    """Country x country drops, each country's rank under its own neurons, and what own, related and unrelated
    countries lose.

    Args:
        study: Folder of a finished study, as `culnig-tl run` wrote it.
        relations: family, region, values, or columns of --table.
        table: CSV of your own relations: country, and a column per relation.
        output_dir: Where tables and figures go; the study's folder where none is given.
    """
    from .. import analyses

    found = analyses.countries(study, relations=relations, table=table, **vars(machine))
    show(found, output_dir or study, "related", "own", drawn=True)


def power(
    study: Positional[str],
    *,
    own: float = 10.0,
    related: float = 0.0,
    unrelated: float = 0.0,
    relation: str = "region",
    questions: tuple[int, ...] = (10, 25, 50, 100, 200, 400),
    simulations: int = 200,
    seed: int = 0,
    output_dir: Path = Path("runs/power"),
) -> None:
    """How many questions a country it takes to see what its own neurons cost it: simulated from a study, no
    model runs.

    Args:
        study: Folder of a finished study, or the name of one that comes with the package.
        own: Points that a country loses under its own neurons, beyond random sets.
        related: Points that countries of its group lose.
        unrelated: Points that other countries lose.
        relation: family, region or values.
        questions: Questions per country to try.
        simulations: Experiments of each size.
        seed: Seed of the simulation.
        output_dir: Where the table goes.
    """
    from .. import analyses

    how: dict[str, Any] = {"own": own, "related": related, "unrelated": unrelated, "relation": relation}
    how |= {"questions": questions, "simulations": simulations, "seed": seed}
    show(analyses.power(study, **how), output_dir)


def sweep(
    study: Positional[Path],
    machine: Machine,
    *,
    top: tuple[float, ...] = (0.001, 0.002, 0.003, 0.005, 0.01, 0.02, 0.03, 0.05),
    drop_reading: tuple[float, ...] = (),
    z: tuple[float, ...] = (0.5,),
    country: str | None = None,
    count: bool = False,
    output_dir: Path | None = None,
) -> None:
    """Selections of a study at many thresholds, and what suppressing each costs: one table, one figure.

    Args:
        study: Folder of a finished study, as `culnig-tl run` wrote it.
        top: Shares that are candidates; attention's share moves along.
        drop_reading: Shares removed by reading; the study's where none is given.
        z: Least z, with --country.
        country: Sweep this country's own neurons.
        count: Only count neurons; without it every set is suppressed and the study's tasks are asked.
        output_dir: Where tables and figures go; the study's folder where none is given.
    """
    from .. import analyses

    how: dict[str, Any] = {"drop_reading": drop_reading or None, "z": z, "country": country, "ask": not count}
    found = analyses.sweep(study, top=top, **how, **vars(machine))
    show(found, output_dir or study, *found.tables(), drawn=not count)


def parts(study: Positional[Path], machine: Machine, *, output_dir: Path | None = None) -> None:
    """A study's selection with one part left out at a time: control, CountryRC, MLP or attention, maximum
    over tokens.

    Args:
        study: Folder of a finished study, as `culnig-tl run` wrote it.
        output_dir: Where the table goes; the study's folder where none is given.
    """
    from .. import analyses

    show(analyses.parts(study, **vars(machine)), output_dir or study)


def stability(
    study: Positional[Path],
    machine: Machine,
    *,
    replicates: int = 100,
    wordings: tuple[Path, ...] = (),
    seed: int = 0,
    output_dir: Path | None = None,
) -> None:
    """A study's selection again on bootstrap replicates of its questions and in other wordings: how often
    each neuron returns.

    Args:
        study: Folder of a finished study, as `culnig-tl run` wrote it.
        replicates: Bootstrap replicates; each takes the memory of the scores.
        wordings: TOML files of wordings, beside those that the task has itself.
        seed: Seed of the bootstrap.
        output_dir: Where tables and figures go; the study's folder where none is given.
    """
    from .. import analyses

    folder = output_dir or study
    found = analyses.stability(study, replicates=replicates, wordings=wordings, seed=seed, **vars(machine))
    found.neurons.save(folder / "stability.parquet")
    show(found, folder, "wordings", drawn=True)


def enhance(
    study: Positional[Path],
    machine: Machine,
    *,
    factors: tuple[float, ...] = (1.1, 1.25, 1.5, 1.75, 2.0),
    random_sets: int = 3,
    general: bool = False,
    output_dir: Path | None = None,
) -> None:
    """A study's neurons multiplied by 1.1 to 2, on topics that they were not found on: change of accuracy
    with 95% intervals.

    Args:
        study: Folder of a finished study, as `culnig-tl run` wrote it.
        factors: What the neurons' outputs are multiplied by.
        random_sets: Layer-matched random sets beside the culture-general one.
        general: The culture-general set alone, without each country's own neurons.
        output_dir: Where tables and figures go; the study's folder where none is given.
    """
    from .. import analyses

    how: dict[str, Any] = {"factors": factors, "random_sets": random_sets, "specific": not general}
    show(analyses.enhance(study, **how, **vars(machine)), output_dir or study, drawn=True)


def language(
    config: ModelConfig,
    asking: Asking,
    shares: Shares,
    *,
    english: str = "blend",
    local: str = "blend-local",
    reading: str = "countryrc",
    random_sets: int = RANDOM_SETS,
    output_dir: Path = Path("runs/language"),
) -> None:
    """The same questions in English and in the region's language: neurons of each, their overlap, and what
    each costs in each.

    Args:
        english: Task whose questions are in English, with both splits.
        local: The same questions in each region's own language.
        reading: Country reading comprehension: neurons that serve it are removed.
        random_sets: Layer-matched random sets per set.
        output_dir: Where tables and neurons go.
    """
    from .. import analyses
    from ..run.pipeline import asked_as, load

    model = load(config)
    how: dict[str, Any] = {"random_sets": random_sets, **_asked(config), **vars(shares)}
    as_asked, form = asked_as(asking, model, english, config)
    found = analyses.compare_languages(model, english, local, reading, **how, **as_asked)
    _show_sets(found, output_dir, form, drawn=False)


def values(
    config: ModelConfig,
    asking: Asking,
    shares: Shares,
    *,
    tasks: tuple[str, ...] = ("blend", "normad", "worldvaluesbench"),
    reading: str = "countryrc",
    random_sets: int = RANDOM_SETS,
    output_dir: Path = Path("runs/values"),
) -> None:
    """Neurons found on what is known and on what is valued: their overlap, and what each set costs on each
    task.

    Args:
        tasks: Tasks that neurons are found on, and that are asked.
        reading: Country reading comprehension: neurons that serve it are removed.
        random_sets: Layer-matched random sets per set.
        output_dir: Where tables, figures and neurons go.
    """
    from .. import analyses
    from ..run.pipeline import asked_as, load

    model = load(config)
    how: dict[str, Any] = {"random_sets": random_sets, **_asked(config), **vars(shares)}
    as_asked, form = asked_as(asking, model, tasks[0], config)
    found = analyses.compare_tasks(model, tasks, reading, **how, **as_asked)
    _show_sets(found, output_dir, form, drawn=True)


def _asked(config: ModelConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in ("limit", "data_dir", "batch_size")}


def _show_sets(found: Any, folder: Path, form: Mapping[str, Any], *, drawn: bool) -> None:
    """Shows a comparison of sets, and saves each set's neurons, and the form where it was left open."""
    for name, neurons in found.sets.items():
        say(neurons)
        neurons.save(folder / f"{io.file_name(name)}.parquet")
    show(found, folder, drawn=drawn, files=_file_of(form))


def _file_of(form: Mapping[str, Any]) -> dict[str, str]:
    """A form that was left open, as a file for people to read: which one, why, and what was tried."""
    return {f"{name}.json": json.dumps(said, indent=1) + "\n" for name, said in form.items()}


def _of_model(words: Sequence[str]) -> dict[str, Any]:
    """The defaults of `methods`: what holds for the model."""
    usual = defaults_for(given(words, "--model") or TOY)
    named = {name: getattr(usual, name) for name in ("tasks", "reading", "top_mlp", "top_attn")}
    return {"config": ModelConfig(limit=64), **named}


@defaults_from(_of_model)
def methods(
    config: ModelConfig,
    asking: Asking,
    *,
    tasks: tuple[str, ...],
    reading: str,
    language: str | None = None,
    contrast: str | None = None,
    ways: tuple[str, ...] = ("filter",),
    methods: tuple[str, ...] = (),
    sample: int | None = None,
    ranked: int | None = None,
    asked: int | None = 400,
    top_mlp: float,
    top_attn: float,
    seed: int = 0,
    output_dir: Path = Path("runs/methods"),
) -> None:
    """Every method on the same sites, model and questions: agreement with exact effects, accuracy without its
    neurons, overlap.

    --limit is the number of questions that neurons are scored and zeroed on.

    Args:
        tasks: Tasks to ask; neurons are ranked on the first one that has cultural questions with a control.
        reading: Country reading comprehension: what serves it is left out of every ranking.
        language: Task that CAPE finds language neurons on; the reading task where none is given.
        contrast: Task without culture to hold against neurons: each method is there with and without it.
        ways: What is done with it: filter, subtract, ranks.
        methods: Methods to compare; all that score the form where none is given.
        sample: Zero this many random neurons per site and layer; all of a small model's where none is given.
        ranked: Questions that all but the costly methods (ig, ig-all, atp-qk) rank on; --limit where none is
            given.
        asked: Test questions per task.
        top_mlp: Share of the MLP neurons that are suppressed at budget 1.
        top_attn: Share of the pooled q, k, v neurons that are suppressed at budget 1.
        seed: Seed of the sample, and of the random method.
        output_dir: Where tables and figures go.
    """
    from .. import analyses
    from ..run.pipeline import asked_as, load

    model = load(config)
    how: dict[str, Any] = {"methods": methods} if methods else {}
    as_asked, form = asked_as(asking, model, tasks[0], config)
    how |= as_asked
    how |= {"reading": reading, "language": language, "sample": sample, "ranked": ranked, "asked": asked}
    how |= {"contrast": contrast, "ways": ways}
    how |= {"top_mlp": top_mlp, "top_attn": top_attn, "seed": seed}
    found = analyses.methods(model, tasks, **how, **_asked(config))
    found.effects.save(output_dir / "truth.parquet")
    say(found.effects)
    show(found, output_dir, drawn=True, files=_file_of(form))


@defaults_from(lambda words: {"config": ModelConfig(limit=64)})
def truth(
    config: ModelConfig,
    asking: Asking,
    *,
    task: str = "miniculture",
    sites: tuple[str, ...] = PAPER_SITES,
    sample: int | None = None,
    output: Output = Path("truth.parquet"),
) -> None:
    """Zeroes neurons one at a time: what each costs P(answer), and how CULNIG's score agrees with that.

    Args:
        task: Task whose neuron split is asked.
        sites: Where the neurons are, e.g. mlp.gate,attn.v.
        sample: Zero this many random neurons per site and layer; all of a small model's where none is given.
        output: Table to write: .parquet or .csv.
    """
    from .. import analyses
    from ..run.pipeline import asked_as, load

    if output.suffix not in (".parquet", ".csv"):  # said before hours of work
        raise ScoreError(f"{output.name}: exact effects are saved as .parquet or .csv")
    model = load(config)
    as_asked, form = asked_as(asking, model, task, config)
    found = analyses.truth(model, task, sites=sites, sample=sample, **_asked(config), **as_asked)
    found.effects.save(output, **form)
    say(found, f"Written to {output}")
