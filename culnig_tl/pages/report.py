"""The page of a study: opens from disk, without a network. All its numbers and sentences are computed."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas as pd

from ..analyses.paper import ResultsTable, results_table
from ..data.neurons import NeuronSet
from ..defaults import TOY
from ..engine.loading import has_commit
from ..figures.gallery import panels_of
from ..study.config import GENERAL, RANDOM, RIVAL, SPECIFIC, UNCHANGED, defaults_for
from ..study.findings import Finding, Findings, Holds, change, interval
from ..study.study import Study
from ..tasks import worldvaluesbench
from ..tasks.question import HARNESS, Form
from . import page
from .details import cards, flips

MARKS: Mapping[Holds, str] = {Holds.NO: "no", Holds.OPEN: "open", Holds.CAUTION: "care", Holds.YES: "yes"}
"""What is said of a claim -> its class on the page."""
SAID: Mapping[Holds, str] = {Holds.NO: "does not hold", Holds.OPEN: "open", Holds.YES: "holds on this model"}
"""What the page says of the whole claim."""
MAX_ROWS = 40_000
"""Neurons that the page's table holds; the folder holds all of them."""
SECTIONS = {
    "found": "Found",
    "cost": "Cost",
    "where": "Where",
    "countries": "Countries",
    "scores": "Scores",
    "neurons": "Neurons",
    "limits": "Limits",
    "repeat": "Repeat it",
}
USES: Sequence[tuple[str, str]] = (
    ("neuron", "find neurons"),
    ("control", "control"),
    ("reading", "remove neurons that serve reading"),
    ("rival", "find the rival's neurons"),
)
"""Scores of a study -> what their questions were used for."""


def write_report(study: Study, path: str | Path) -> Path:
    """Writes the page of a study.

    Raises:
        ScoreError: a study without random sets, which no claim can be made of.
    """
    found = study.findings()
    figures: dict[str, list[page.Shown]] = {"cost": [], "where": [], "countries": [], "scores": []}
    for panel, figure in panels_of(study, found):
        shown = page.shown(panel.name, panel.heading, panel.reading, figure, half=panel.half)
        figures[panel.section].append(shown)
    answers = accuracy_table(study)
    tasks = study.info["tasks"]
    questions = sum(about["questions"] for about in tasks.values())
    specific = study.neurons.get(SPECIFIC)
    return page.write_page(
        "report.html.jinja",
        path,
        title=("Preliminary: culture" if study.left else "Culture") + f" neurons of {study.config.model}",
        about=_about(study),
        subtitle=f"{len(tasks)} tasks, {questions:,} questions per setting, {len(study.results)} settings"
        + (", answered in words (cloze)" if study.form == "cloze" else ""),
        sections=[name for name in SECTIONS.items() if name[0] != "countries" or figures["countries"]],
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
        parts=any(d.layer.random_questions < d.layer.questions for d in found.drops.values()),
        preliminary=_preliminary(study),
        accuracy=accuracy_cells(answers, forms_of(study)),
        form=study.form,
        normalise=study.config.normalise,
        asked=asked_in_words(study),
        aligned=worldvaluesbench.NAME in tasks,
        paper=answers.frame["setting"].str.endswith("(paper)").any(),
        figures=figures,
        selection=selection(study.neurons[GENERAL]),
        specific="" if specific is None else _counted(specific, "country"),
        table=neuron_table(study),
        cards=cards(study),
        flipped=flips(study),
        command=command(study),
        facts=facts(study),
        data=data_rows(study),
        versions=study.info["versions"],
    )


def _preliminary(study: Study) -> str:
    """What is to be known of the report of a study that still runs; nothing of a finished one."""
    if not study.left:
        return ""
    asked = sum(map(len, study.results.values()))
    return (
        f"Preliminary: {asked:,} of {asked + study.left:,} answers are in, and this page is written again as"
        " others come. Intervals are of the questions that were asked so far; all numbers will change."
    )


def _about(study: Study) -> str:
    """Model and date."""
    info = study.info
    revision = f", revision {str(info['revision'])[:12]}" if info.get("revision") else ""
    written = None if study.folder is None else (study.folder / "study.json")
    when = ""
    if written is not None and written.is_file():
        made = datetime.fromtimestamp(written.stat().st_mtime)
        when = f", {made.day} {made:%B %Y}"
    return f"{study.config.model}{revision}{when}"


def command(study: Study) -> str:
    """The command line that repeats the study, pinned to the model's commit on the Hub where it has one."""
    config = study.config
    if config.revision is None and config.model != TOY and has_commit(config.model):
        config = replace(config, revision=study.info["revision"])
    defaults = asdict(defaults_for(config.model))
    parts = ["culnig-tl", "run"]
    for name, value in asdict(config).items():
        if value is True:
            parts.append(f"--{name.replace('_', '-')}")
        elif value != defaults[name] or name == "model":
            text = ",".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
            parts += [f"--{name.replace('_', '-')}", "none" if value is None else shlex.quote(text)]
    return " ".join(parts)


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
    here, shown = found.drops[found.task], []

    def tile(label: str, value: str, unit: str, detail: str) -> None:
        shown.append({"label": label, "value": value, "unit": unit, "detail": detail})

    own, plain = here.layer, {task: d.layer.drop for task, d in found.drops.items() if not d.culture}
    points = f"{change(own.drop)} points (95% interval {interval(own.low, own.high)})"
    tile(found.task, f"{own.base:.1f}% → {own.base - own.drop:.1f}%", "", points)
    rank = f"mean of {own.random_sets}; rank {own.rank} of {own.random_sets + 1}"
    tile("random sets, same layers and sites", change(own.random_mean), "points", rank)
    if here.rival is not None and found.rival is not None:
        words = f"the rival set, on {found.task} too"
        tile(f"as many neurons of {found.rival}", change(here.rival.random_mean), "points", words)
    if plain:
        worst = max(plain, key=lambda task: plain[task])
        mean = change(sum(plain.values()) / len(plain))
        tile("tasks without culture, mean", mean, "points", f"most: {worst} {change(plain[worst])}")
    tile("culture-general neurons", f"{found.neurons:,}", "", f"{found.share:.1f}% of those scored")
    return shown


def drop_rows(found: Findings) -> list[dict[str, Any]]:
    """A row for each task: the cells of the table of changes."""
    rows = []
    for task, drops in found.drops.items():
        own, cells = drops.layer, []
        cells += [f"{own.base:.1f}", f"{own.base - own.drop:.1f}", change(own.drop)]
        cells += [interval(own.low, own.high), change(own.random_mean)]
        cells.append("–" if drops.count is None else change(drops.count.random_mean))
        if found.rival is not None:
            cells.append("–" if drops.rival is None else change(drops.rival.random_mean))
        cells += [change(own.excess), interval(own.excess_low, own.excess_high)]
        cells.append(f"{own.rank} of {own.random_sets + 1}")
        rows.append({"task": task, "culture": drops.culture, "cells": cells})
    return rows


def accuracy_table(study: Study) -> ResultsTable:
    """Settings x tasks in percent, WorldValuesBench as alignment; and the paper's rows of the same model."""
    settings: dict[str, Any] = {name: study.results[name] for name in (UNCHANGED, GENERAL)}
    if RIVAL in study.results:
        settings[f"rival ({study.config.rival_task})"] = study.results[RIVAL]
    for match, name in RANDOM.items():
        if study.random_settings(match):
            settings[name] = [study.results[setting] for setting in study.random_settings(match)]
    return results_table(settings, base=study.results[UNCHANGED])


RIGHT: Mapping[Form, str] = {
    "letters": "the likeliest token of the whole vocabulary is the right label",
    "cloze": "the right option's words are the likeliest of the options'",
}
"""Form of a study -> when an answer is right."""


def forms_of(study: Study) -> set[Form]:
    """The forms that its tasks were asked in: its own, and that of lm-evaluation-harness' tasks."""
    return {study.form, *study.results[UNCHANGED].metadata.get("form", {}).values()}


def accuracy_cells(table: ResultsTable, forms: Collection[Form]) -> dict[str, Any]:
    """A results table as the page's cells; `forms` are those of the studies in it."""
    tasks = list(table.errors.columns)
    rows: list[dict[str, Any]] = []
    for values, errors in zip(table.frame.to_dict("records"), table.errors.to_dict("records")):
        setting = str(values["setting"])
        cells = [{"value": f"{int(values['neurons']):,}", "error": ""}]
        for task in tasks:
            value, error = (float(row[task]) for row in (values, errors))
            cells.append({"value": _percent(value, "–"), "error": _percent(error, "")})
        rows.append({"name": setting, "paper": setting.endswith("(paper)"), "cells": cells})
    when = [RIGHT[form] + (f" ({form})" if len(forms) > 1 else "") for form in RIGHT if form in forms]
    caption = f"Accuracy in percent with these neurons at 0. An answer is right when {', or '.join(when)}"
    caption += f". {table.note.removesuffix('.')}" if table.note else ""
    return {"head": ["setting", "neurons", *tasks], "rows": rows, "caption": caption}


def _percent(value: float, missing: str) -> str:
    return missing if pd.isna(value) else f"{value:.1f}"


def selection(general: NeuronSet) -> str:
    """How the set came about, in a sentence."""
    known = general.provenance
    text = f"{len(general):,} culture-general neurons ({_counted(general, 'site') or 'none'})"
    if known.candidates is None:
        return f"{text}."
    return (
        f"{known.candidates:,} candidates by score, {known.removed_by_reading or 0:,} of them removed "
        f"because they serve reading a country's name: {text}."
    )


def _counted(neurons: NeuronSet, column: str) -> str:
    """``Spain 20, Iran 12``; empty without neurons."""
    if not len(neurons):
        return ""
    return ", ".join(f"{name} {count:,}" for name, count in neurons.counts(column).items())


def neuron_table(study: Study) -> dict[str, Any]:
    """The neurons as columns for the page's table, its filters, and rows for readers without scripts."""
    general = study.neurons[GENERAL].table.assign(set=GENERAL)
    parts = [general]
    specific = study.neurons.get(SPECIFIC)
    if specific is not None and len(specific):
        parts.append(specific.table.assign(set=specific.table["country"]))
    names = ["set", "site", "layer", "neuron", "score"]
    everything = pd.concat([part[names] for part in parts], ignore_index=True)
    table = everything.head(MAX_ROWS)
    rows = [
        (name, site, int(layer), int(neuron), None if pd.isna(score) else float(f"{score:.6g}"))
        for name, site, layer, neuron, score in table.itertuples(index=False)
    ]
    words = f"{len(general):,} culture-general neurons"
    if len(parts) > 1:
        words += f" and {len(everything) - len(general):,} culture-specific ones, once per country"
    if len(everything) > len(table):
        words += f"; the first {len(table):,} are here, the folder neurons/ holds all"
    top = general.sort_values("score", ascending=False, kind="stable").head(page.ROWS)
    return {
        "names": names,
        "columns": page.columns(rows, names),
        "filters": {name: list(dict.fromkeys(table[name])) for name in ("set", "site")},
        "first": [(*place, f"{score:.3g}") for *place, score in top[names].itertuples(index=False)],
        "words": f"{words}.",
        "file": "neurons.csv",
    }


def facts(study: Study) -> list[tuple[str, str]]:
    """Model and settings, as name and value."""
    config, info, general = study.config, study.info, study.neurons[GENERAL]
    widths = ", ".join(
        f"{site} {width:,}" for site, width in info["widths"].items() if site in general.provenance.pool
    )
    names = ("top_mlp", "top_attn", "drop_reading", "top_specific", "z")
    paper = "the paper's" if general.provenance.paper_defaults else "not the paper's"
    last = config.seed + config.random_sets - 1
    return [
        ("model", f"{info['model']}"),
        ("revision", str(info["revision"] or "unknown")),
        ("numbers", f"{info['dtype']} on {info['device']}"),
        ("shape", f"{info['layers']} layers; neurons per layer: {widths}"),
        ("thresholds", f"{', '.join(f'{name} {getattr(config, name):g}' for name in names)} ({paper})"),
        ("random sets", f"{config.random_sets} of each kind, seeds {config.seed} to {last}"),
        ("random sets were asked", _of_random_sets(study)),
        ("form", _form_in_words(study)),
        ("wordings", config.wordings or "the package's"),
        ("questions per task", "all" if config.limit is None else f"at most {config.limit:,}"),
        ("rows per question", "all" if config.rows is None else f"at most {config.rows:,}"),
        ("batch size", str(config.batch_size)),
        ("neuron set", f"hash {general.hash}"),
        ("data", ", ".join(dict.fromkeys(str(t.get("source", "?")) for t in study.info["tasks"].values()))),
    ]


def _of_random_sets(study: Study) -> str:
    """What random sets were asked, task by task, and by how much one set's drop errs so."""
    parts = study.info.get("random_questions", {})
    errors = study.random_errors()
    said = [
        f"{part['questions']:,} of {study.info['tasks'][task]['questions']:,} of {task}"
        f" ({part['clusters']:,} clusters; one set's drop has a standard error of {errors[task]:.1f} points)"
        for task, part in parts.items()
        if part["questions"] < study.info["tasks"][task]["questions"]
    ]
    return ", ".join(said) or "all questions"


def _form_in_words(study: Study) -> str:
    """How questions were asked, and why so."""
    why = study.info.get("form", {}).get("why", "asked for")
    if study.form == "letters":
        return f"letters: the answer is a label ({why})"
    prompt = "in the chat template" if study.config.chat_template else "plain prompt"
    compared = f"normalised by {study.config.normalise!r}"
    return f"cloze: the likelihood of the options' words, {prompt}, {compared} ({why})"


COMPARED: Mapping[str, str] = {
    "unconditional": "less that after the control, the prompt without the question",
    "sum": "with nothing subtracted",
    "length": "per character",
}
"""Normalisation -> what becomes of the log-likelihood of an option's words after the question."""


def asked_in_words(study: Study) -> str:
    """What an answer and P(answer) are, beside the accuracies."""
    theirs = ""
    if any(task.startswith(HARNESS) for task in study.info["tasks"]):
        theirs = (
            f" Tasks that begin with {HARNESS} are asked in the words of lm-evaluation-harness, in the cloze"
            " form; nothing is subtracted from their log-likelihoods."
        )
    if study.form == "letters":
        return f"P(answer) is the probability of the right label among all tokens of the vocabulary.{theirs}"
    return (
        "Questions were asked in the cloze form: the model sees the question without its options, and "
        "answers with the option whose words are the likeliest by their log-likelihood after the question, "
        f"{COMPARED[study.config.normalise]}. P(answer) is the right option's share of the softmax over "
        f"these.{theirs}"
    )


def data_rows(study: Study) -> list[tuple[str, str, str, str, str]]:
    """Task, use, questions, source and fingerprint of all questions that the study rests on."""
    tasks = study.info["tasks"]
    rows = [
        (task, _ask(about), f"{about['questions']:,}", str(about["source"]), str(about["fingerprint"]))
        for task, about in tasks.items()
    ]
    for name, use in USES:
        if name in study.scores:
            scores = study.scores[name]
            source = tasks.get(scores.task.removesuffix(":control"), {"source": "–"})["source"]
            fingerprint = str(scores.metadata.get("fingerprint", "unknown"))
            rows.append((scores.task, use, f"{sum(scores.questions):,}", str(source), fingerprint))
    return rows


def _ask(about: Mapping[str, Any]) -> str:
    """Which of a task's questions were asked, in words."""
    split = about.get("split")
    return "ask" if split is None else "ask all" if split == "all" else f"ask the {split} split"
