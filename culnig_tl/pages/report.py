"""One self-contained HTML page of a study: opens from disk, without a network. Every number and sentence is computed from the study."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from ..analyses.paper import ResultsTable, results_table
from ..data.neurons import NeuronSet
from ..defaults import TOY
from ..engine.loading import looks_like_path
from ..figures.gallery import panels_of
from ..study.config import GENERAL, RANDOM, RIVAL, SPECIFIC, TOY_CONFIG, UNCHANGED, StudyConfig
from ..study.findings import Finding, Findings, Holds, change, interval
from ..study.study import Study
from ..tasks import worldvaluesbench
from . import page

MARKS: Mapping[Holds, str] = {Holds.NO: "no", Holds.OPEN: "open", Holds.CAUTION: "care", Holds.YES: "yes"}
"""What is said of a claim -> its class on the page."""
MAX_ROWS = 40_000
"""Neurons that the page's table holds; the folder holds all of them."""
PAGE = 50
"""Rows of the table that are shown at a time."""
SECTIONS = {
    "found": "Found", "cost": "Cost", "where": "Where", "countries": "Countries", "scores": "Scores", "neurons": "Neurons", "limits": "Limits",
    "repeat": "Repeat it",
}  # fmt: skip


def write_report(study: Study, path: str | Path) -> Path:
    """Writes the page of a study.

    Raises:
        ScoreError: a study without random sets, which no claim can be made of.
    """
    found = study.findings()
    general = study.neurons[GENERAL]
    figures: dict[str, list[page.Shown]] = {"cost": [], "where": [], "countries": [], "scores": []}
    for panel, figure in panels_of(study, found):
        figures[panel.section].append(
            page.shown(panel.name, panel.heading, panel.reading, figure, half=panel.half)
        )
    answers = accuracy_table(study)
    return page.write_page(
        "report.html.jinja",
        path,
        title=f"Culture neurons of {study.config.model}",
        subtitle=f"{len(study.info['tasks'])} tasks, {sum(t['questions'] for t in study.info['tasks'].values()):,} questions a setting, {len(study.results)} settings",
        sections=[
            (name, title) for name, title in SECTIONS.items() if name != "countries" or figures["countries"]
        ],
        holds=SAID[found.holds],
        mark=MARKS[found.holds],
        headline=found.headline(),
        measured=found.measured(),
        embedded=study.config.model == TOY,
        tiles=tiles(found),
        claims=[marked(finding) for finding in found.claims()],
        drops=drop_rows(found),
        rival=found.rival,
        sets=found.drops[found.task].layer.random_sets,
        accuracy=accuracy_cells(answers),
        aligned=worldvaluesbench.NAME in study.info["tasks"],
        paper=answers.frame["setting"].str.endswith("(paper)").any(),
        figures=figures,
        selection=selection(general),
        specific=_by_country(study),
        table=neuron_table(study),
        command=command(study),
        facts=facts(study),
        data=data_rows(study),
        versions=study.info["versions"],
    )


SAID: Mapping[Holds, str] = {Holds.NO: "not shown", Holds.OPEN: "open", Holds.YES: "shown"}
"""What the page says of the whole claim."""


def command(study: Study) -> str:
    """The command line that repeats the study, pinned to the model's commit on the Hub where it has one."""
    config = study.config
    if config.revision is None and config.model != TOY and not looks_like_path(config.model):
        config = replace(config, revision=study.info["revision"])
    defaults, given = asdict(TOY_CONFIG if config.model == TOY else StudyConfig()), asdict(config)
    parts = ["culnig-tl", "run"]
    for name, value in given.items():
        if value == defaults[name] and name != "model":
            continue
        text = "" if value is None else ",".join(value) if isinstance(value, (tuple, list)) else str(value)
        parts += [f"--{name.replace('_', '-')}", shlex.quote(text)]
    return " ".join(parts)


# ----------------------------------------------------------------------------------------------- what stands on the page


def marked(finding: Finding) -> dict[str, str]:
    """A finding as the page shows it."""
    return {
        "mark": MARKS[finding.holds],
        "holds": finding.holds.value,
        "title": finding.title,
        "text": finding.text,
    }


def tiles(found: Findings) -> list[dict[str, str]]:
    """The few numbers that decide, large."""
    here = found.drops[found.task]
    own, plain = here.layer, {task: d.layer for task, d in found.drops.items() if not d.culture}
    shown = [
        (found.task, f"{own.base:.1f}% → {own.base - own.drop:.1f}%", "", f"{change(own.drop)} points (95% interval {interval(own.low, own.high)})"),
        ("random sets, same layers and sites", change(own.random_mean), "points", f"mean of {own.random_sets}; rank {own.rank} of {own.random_sets + 1}"),
    ]  # fmt: skip
    if here.rival is not None and found.rival is not None:
        shown.append(
            (
                f"as many neurons of {found.rival}",
                change(here.rival.random_mean),
                "points",
                f"the rival set, on {found.task} too",
            )
        )
    if plain:
        worst = max(plain, key=lambda task: plain[task].drop)
        mean = sum(drop.drop for drop in plain.values()) / len(plain)
        shown.append(
            (
                "tasks without culture, mean",
                change(mean),
                "points",
                f"most: {worst} {change(plain[worst].drop)}",
            )
        )
    shown.append(("culture-general neurons", f"{found.neurons:,}", "", f"{found.share:.1f}% of those scored"))
    return [dict(zip(("label", "value", "unit", "detail"), tile)) for tile in shown]


def drop_rows(found: Findings) -> list[dict[str, Any]]:
    """A row a task: the cells of the table of changes."""
    rows = []
    for task, drops in found.drops.items():
        d = drops.layer
        rival = (
            []
            if found.rival is None
            else [change(drops.rival.random_mean) if drops.rival is not None else "–"]
        )
        cells = [
            f"{d.base:.1f}", f"{d.base - d.drop:.1f}", change(d.drop), interval(d.low, d.high), change(d.random_mean), change(drops.count.random_mean), *rival,
            change(d.excess), interval(d.excess_low, d.excess_high), f"{d.rank} of {d.random_sets + 1}",
        ]  # fmt: skip
        rows.append({"task": task, "culture": drops.culture, "cells": cells})
    return rows


def accuracy_table(study: Study) -> ResultsTable:
    """Settings x tasks in percent, WorldValuesBench as alignment, and the paper's rows where the model is one of its own."""
    settings: dict[str, Any] = {name: study.results[name] for name in (UNCHANGED, GENERAL)}
    if RIVAL in study.results:
        settings[f"rival ({study.config.rival})"] = study.results[RIVAL]
    for match, name in RANDOM.items():
        if study.random_settings(match):
            settings[name] = [study.results[setting] for setting in study.random_settings(match)]
    return results_table(settings)


def accuracy_cells(table: ResultsTable) -> dict[str, Any]:
    """A results table as the page's cells."""
    tasks = list(table.errors.columns)
    rows: list[dict[str, Any]] = []
    for i in range(len(table.frame)):
        setting, neurons = str(table.frame["setting"].iloc[i]), int(table.frame["neurons"].iloc[i])
        cells: list[dict[str, str]] = [{"value": f"{neurons:,}", "error": ""}]
        for task in tasks:
            value, error = float(table.frame[task].iloc[i]), float(table.errors[task].iloc[i])
            cells.append(
                {
                    "value": "–" if pd.isna(value) else f"{value:.1f}",
                    "error": "" if pd.isna(error) else f"{error:.1f}",
                }
            )
        rows.append({"name": setting, "paper": setting.endswith("(paper)"), "cells": cells})
    caption = "Accuracy in percent with these neurons at 0: right is when the likeliest token of the whole vocabulary is the right label"
    return {"head": ["setting", "neurons", *tasks], "rows": rows, "caption": caption}


def selection(general: NeuronSet) -> str:
    """How the set came about, in a sentence."""
    known = general.provenance
    sites = ", ".join(f"{site} {count:,}" for site, count in general.counts("site").items())
    text = f"{len(general):,} culture-general neurons ({sites or 'none'})"
    if known.candidates is None:
        return f"{text}."
    removed = known.removed_by_reading or 0
    return f"{known.candidates:,} candidates by score, {removed:,} of them removed because they serve reading a country's name: {text}."


def _by_country(study: Study) -> str:
    specific = study.neurons.get(SPECIFIC)
    if specific is None or not len(specific):
        return ""
    return ", ".join(f"{country} {count:,}" for country, count in specific.counts("country").items())


def neuron_table(study: Study) -> dict[str, Any]:
    """The neurons as columns for the page's table, its filters, and the first rows for readers without scripts."""
    general = study.neurons[GENERAL].table.assign(set=GENERAL)
    parts = [general]
    specific = study.neurons.get(SPECIFIC)
    if specific is not None and len(specific):
        parts.append(specific.table.assign(set=specific.table["country"]))
    names = ["set", "site", "layer", "neuron", "score"]
    everything = pd.concat([part[names] for part in parts], ignore_index=True)
    table = everything.head(MAX_ROWS)
    rows = [
        (s, site, int(layer), int(n), _digits(score))
        for s, site, layer, n, score in table.itertuples(index=False)
    ]
    words = f"{len(general):,} culture-general neurons"
    if len(parts) > 1:
        words += f" and {len(everything) - len(general):,} culture-specific ones, once a country"
    if len(everything) > len(table):
        words += f"; the first {len(table):,} are here, the folder neurons/ holds all"
    top = general.sort_values("score", ascending=False, kind="stable").head(PAGE)
    return {
        "names": names,
        "columns": page.columns(rows, names),
        "filters": {name: list(dict.fromkeys(table[name])) for name in ("set", "site")},
        "first": [
            (s, site, layer, n, f"{score:.3g}")
            for s, site, layer, n, score in top[names].itertuples(index=False)
        ],
        "page": PAGE,
        "words": f"{words}.",
        "file": "neurons.csv",
    }


def _digits(score: float) -> float | None:
    return None if pd.isna(score) else float(f"{score:.6g}")


def facts(study: Study) -> list[tuple[str, str]]:
    """Model and settings, as name and value."""
    config, info, general = study.config, study.info, study.neurons[GENERAL]
    widths = ", ".join(
        f"{site} {width:,}" for site, width in info["widths"].items() if site in general.provenance.pool
    )
    paper = " (the paper's)" if general.provenance.paper_defaults else " (not the paper's)"
    shares = f"top_mlp {config.top_mlp:g}, top_attn {config.top_attn:g}, r {config.drop_reading:g}, top_specific {config.top_specific:g}, z {config.z:g}"
    return [
        ("model", f"{info['model']}"),
        ("revision", str(info["revision"] or "unknown")),
        ("numbers", f"{info['dtype']} on {info['device']}"),
        ("shape", f"{info['layers']} layers; neurons a layer: {widths}"),
        ("thresholds", shares + paper),
        (
            "random sets",
            f"{config.random_sets} of each kind, seeds {config.seed} to {config.seed + config.random_sets - 1}",
        ),
        ("questions a task", "all" if config.limit is None else f"at most {config.limit:,}"),
        ("batch size", str(config.batch_size)),
        ("neuron set", f"hash {general.hash}"),
        ("data", config.data_dir or "the Hub, or the package"),
    ]


USES: Sequence[tuple[str, str]] = (
    ("neuron", "find neurons"),
    ("control", "control"),
    ("reading", "remove neurons that serve reading"),
    ("rival", "find the rival's neurons"),
)
"""Scores of a study -> what their questions were used to."""


def data_rows(study: Study) -> list[tuple[str, str, str, str, str]]:
    """Task, use, questions, source and fingerprint of all questions that the study rests on."""
    tasks = study.info["tasks"]
    rows = [
        (task, "ask", f"{about['questions']:,}", str(about["source"]), str(about["fingerprint"]))
        for task, about in tasks.items()
    ]
    for name, use in USES:
        if name in study.scores:
            scores = study.scores[name]
            task = scores.task.removesuffix(":control")
            source = str(tasks[task]["source"]) if task in tasks else "–"
            rows.append(
                (
                    scores.task,
                    use,
                    f"{sum(scores.questions):,}",
                    source,
                    str(scores.metadata.get("fingerprint", "unknown")),
                )
            )
    return rows
