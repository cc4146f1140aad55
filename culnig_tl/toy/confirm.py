"""Does another training show the same? ``python -m culnig_tl.toy.confirm MODEL... --output FOLDER``.

Takes toys of several seeds through the study with `TOY_CONFIG`'s thresholds, many random sets and each
country's own neurons, and reports for each what holds, and how many of the neurons found are those that
training gave to culture (`homes`). A run that was killed resumes where it stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table

from .. import io
from ..analyses.crossing import country_drops
from ..method.evaluation import evaluate_sets
from ..run.pipeline import run_study
from ..study.comparison import compare
from ..study.config import GENERAL, RIVAL, SPECIFIC, TOY_CONFIG, UNCHANGED
from ..study.opened import more_random_sets, open_study
from .homes import homes_of

RANDOM_SETS = 200
CULTURE, COMMONSENSE, *OTHERS = TOY_CONFIG.tasks
LEAST_EXCESS = 6.0
"""Points that culture must lose beyond the mean of the random sets; it must also lose more than under each of
them."""
MOST_EXCESS = 2.0
"""Points that a task without culture may lose beyond it."""
OWN_SHARE = 3.0
"""How many times as much as unrelated countries a country must lose under its own neurons."""
HOME = "culture"
"""Whose neurons the selected ones should be (`homes.KINDS`)."""
RELATION = "region"
"""What makes countries related."""
MARGINS_APART, MARGIN = 0.05, 0.9
"""How far apart mean P(answer) of culture and of common sense may be, and what neither may exceed."""


def effect(model: Path, folder: Path, random_sets: int = RANDOM_SETS) -> dict[str, Any]:
    """Everything that `findings` looks at, measured on one toy; its study is kept in `folder`."""
    run_study(replace(TOY_CONFIG, model=str(model)), folder=folder, resume=(folder / "study.json").is_file())
    opened = open_study(folder, device="cpu")
    more_random_sets(opened, random_sets)
    study = opened.study
    base, general = study.results[UNCHANGED], study.results[GENERAL]
    random = [study.results[setting] for setting in study.random_settings("layer")]
    drops = compare(base, general, random).drops
    rival = compare(base, study.results[RIVAL], random).drops
    countries = country_drops(opened.model, opened.tasks[0], study.neurons[SPECIFIC])
    homes, found = homes_of(model), study.neurons[GENERAL]
    homeless = evaluate_sets(opened.model, opened.tasks, {HOME: homes[HOME]}, progress=False)[HOME]
    return {
        "neurons": len(found),
        "in_homes": {kind: round(len(found & home) / len(found), 3) for kind, home in homes.items()},
        "random_sets": len(random),
        "p_answer": {str(task): round(float(p), 4) for task, p in base.accuracy()["p_answer"].items()},
        "drops": {task: {k: round(v, 2) for k, v in asdict(drop).items()} for task, drop in drops.items()},
        "rival": {task: {k: round(v, 2) for k, v in asdict(drop).items()} for task, drop in rival.items()},
        "countries": {
            str(kind): row for kind, row in countries.by_relation(RELATION).round(2).to_dict("index").items()
        },
        "home": {task: round(drop.drop, 2) for task, drop in compare(base, homeless, random).drops.items()},
        "countries_p": round(countries.own_p(), 5),
        "related_p": round(countries.related(RELATION).p, 5),
    }


def findings(effect: Mapping[str, Any]) -> dict[str, bool]:
    """What is claimed of the toy, and whether it holds."""
    drops, rival = effect["drops"], effect["rival"]
    kinds = {kind: row["mean"] for kind, row in effect["countries"].items()}
    p = [effect["p_answer"][task] for task in (CULTURE, COMMONSENSE)]
    return {
        "margins alike": abs(p[0] - p[1]) <= MARGINS_APART and max(p) <= MARGIN,
        f"{CULTURE} {LEAST_EXCESS:g} beyond random": drops[CULTURE]["excess"] >= LEAST_EXCESS,
        "and more than every set": drops[CULTURE]["rank"] == 1,
        **{
            f"{task} within {MOST_EXCESS:g}": drops[task]["excess"] <= MOST_EXCESS
            for task in (COMMONSENSE, *OTHERS)
        },
        "rival the other way": rival[COMMONSENSE]["drop"] > drops[COMMONSENSE]["drop"]
        and rival[CULTURE]["drop"] < drops[CULTURE]["drop"],
        f"own country {OWN_SHARE:g} x unrelated": kinds["own"] >= OWN_SHARE * kinds["unrelated"],
        "related in between": kinds["unrelated"] < kinds["related"] < kinds["own"],
    }


def table(records: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """One column per toy: what was measured (points beyond the random sets' mean, 95% interval), then what
    holds."""
    columns = {}
    for name, record in records.items():
        column = {f"P {task}": f"{record['p_answer'][task]:.2f}" for task in (CULTURE, COMMONSENSE)}
        column["neurons"] = str(record["neurons"])
        column |= {f"of them at home in {kind}": f"{share:.0%}" for kind, share in record["in_homes"].items()}
        for task, d in record["drops"].items():
            column[task] = (
                f"{d['excess']:.1f} ({d['excess_low']:.1f} to {d['excess_high']:.1f}), rank {d['rank']}"
            )
        for task in (CULTURE, COMMONSENSE):
            column[f"rival, {task}"] = f"{record['rival'][task]['excess']:.1f}"
        column |= {f"without culture's home, {task}": f"{drop:.1f}" for task, drop in record["home"].items()}
        for kind, row in record["countries"].items():
            column[f"countries, {kind}"] = f"{row['mean']:.1f} ({row['low']:.1f} to {row['high']:.1f})"
        columns[name] = column | {
            finding: "yes" if holds else "no" for finding, holds in findings(record).items()
        }
    return pd.DataFrame(columns)


def show(columns: pd.DataFrame) -> None:
    """Prints a table of texts, as wide as it is."""
    shown = Table("", *map(str, columns.columns))
    for name, row in columns.iterrows():
        shown.add_row(str(name), *row)
    Console(width=1000).print(shown)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+", help="folders that culnig_tl.toy.train wrote")
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the studies and one record per model"
    )
    parser.add_argument("--random-sets", type=int, default=RANDOM_SETS, help="layer-matched random sets")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if len({model.name for model in arguments.models}) < len(arguments.models):
        parser.error("two of the folders have one name, which names their records: rename one")
    if missing := [str(model) for model in arguments.models if not (model / "training.json").is_file()]:
        parser.error(f"no training.json in {', '.join(missing)}: give folders that culnig_tl.toy.train wrote")
    records = {}
    for model in arguments.models:
        training = json.loads((model / "training.json").read_text(encoding="utf-8"))
        measured = effect(model, arguments.output / model.name, arguments.random_sets)
        records[f"{model.name} (seed {training['config']['seed']})"] = measured
        record = {"training": training, "effect": measured}
        io.write(arguments.output / f"{model.name}.json", (json.dumps(record, indent=1) + "\n").encode())
    show(table(records))


if __name__ == "__main__":
    main()
