"""Small sets, scores and results with known numbers, and what several tests ask of a figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from culnig_tl.data.neurons import NeuronSet, Provenance, Site
from culnig_tl.data.results import COLUMNS, EvaluationResult
from culnig_tl.data.scores import NeuronScores
from culnig_tl.method.closeup import PromptScores
from culnig_tl.method.methods.registry import METHODS

WIDTHS = {Site.MLP_GATE: 40, Site.ATTN_Q: 12, Site.ATTN_K: 6, Site.ATTN_V: 6}
LARGE = {Site.MLP_GATE: 15_360, Site.ATTN_Q: 4_096, Site.ATTN_K: 2_048, Site.ATTN_V: 2_048}
COUNTRIES = ("Japan", "Spain", "Mexico")


def make_scores(
    layers: int = 4,
    *,
    widths: Mapping[Site, int] = WIDTHS,
    countries: Sequence[str] = COUNTRIES,
    seed: int = 0,
    task: str = "blend",
    fill: float | None = None,
) -> NeuronScores:
    """Heavy-tailed random scores; `fill` makes them all equal. Countries have 10, 11, 12, ... clusters of
    three questions."""
    rng = np.random.default_rng(seed)

    def values(width: int) -> np.ndarray:
        shape = (len(countries), layers, width)
        return (
            np.full(shape, fill, dtype=np.float32)
            if fill is not None
            else rng.standard_t(3, shape).astype(np.float32)
        )

    own = tuple(10 + i for i in range(len(countries)))
    arrays = {site: values(width) for site, width in widths.items()}
    return NeuronScores(
        arrays,
        tuple(countries),
        tuple(3 * n for n in own),
        tuple(1.5 * n for n in own),
        17,
        own,
        {"task": task, "model": "small"},
    )


def make_set(
    layers: int = 4,
    *,
    count: int = 60,
    widths: Mapping[Site, int] = WIDTHS,
    seed: int = 0,
    kind: str = "culture-general",
    scored: bool = True,
) -> NeuronSet:
    """Random neurons of a pool of that shape."""
    rng = np.random.default_rng(seed)
    sites = list(widths)
    rows = (
        [(s.value, layer, n) for s in sites for layer in range(layers) for n in range(widths[s])]
        if layers * sum(widths.values()) < 10_000
        else []
    )
    if rows:
        table = pd.DataFrame(rows, columns=["site", "layer", "neuron"]).iloc[
            np.sort(rng.permutation(len(rows))[:count])
        ]
    else:
        gate = rng.choice(layers * widths[sites[0]], count, replace=False)
        table = pd.DataFrame(
            {"site": sites[0].value, "layer": gate // widths[sites[0]], "neuron": gate % widths[sites[0]]}
        )
    table = table.assign(score=rng.exponential(1.0, len(table)) if scored else np.nan)
    return NeuronSet(table, provenance(layers, widths, kind))


def make_specific(layers: int = 4, *, countries: Sequence[str] = COUNTRIES) -> NeuronSet:
    """A culture-specific set: neurons of every country, some of them shared."""
    parts = [
        make_set(layers, count=20 + 5 * i, seed=i).table.assign(country=country)
        for i, country in enumerate(countries)
    ]
    return NeuronSet(pd.concat(parts), provenance(layers, WIDTHS, "culture-specific"))


def empty_set(layers: int = 4) -> NeuronSet:
    """No neurons, of a known pool."""
    return NeuronSet(
        pd.DataFrame({"site": [], "layer": [], "neuron": []}), provenance(layers, WIDTHS, "culture-general")
    )


def provenance(layers: int, widths: Mapping[Site, int], kind: str) -> Provenance:
    return Provenance(kind=kind, pool={site.value: width for site, width in widths.items()}, layers=layers)


def make_result(
    right: Callable[[str, str | None, int], bool],
    *,
    tasks: Sequence[str] = ("blend", "commonsenseqa"),
    countries: Sequence[str] = COUNTRIES,
    questions: int = 24,
) -> EvaluationResult:
    """Questions of each task, four a cluster; `right(task, country, number)` says which are answered right.
    CommonsenseQA has no countries."""
    rows = []
    for task in tasks:
        for i in range(questions):
            country = None if task == "commonsenseqa" else countries[i % len(countries)]
            ok = right(task, country, i)
            answer = "A" if ok else "B"
            rows.append(
                (
                    task,
                    f"{task}-{i}",
                    f"c{i // 4}",
                    country,
                    "Food",
                    0,
                    "A",
                    answer,
                    answer,
                    0.75 if ok else 0.25,
                    ok,
                    ok,
                    np.nan,
                )
            )
    return EvaluationResult(pd.DataFrame(rows, columns=list(COLUMNS)), {"setting": "unchanged"})


def make_prompt(
    layers: int = 3,
    tokens: Sequence[str] = ("<s>", "Ġrice", "Ċ", "?"),
    *,
    widths: Mapping[Site, int] = WIDTHS,
    seed: int = 0,
) -> PromptScores:
    """Attribution along a prompt of those tokens."""
    rng = np.random.default_rng(seed)
    arrays = {
        site: rng.standard_normal((layers, len(tokens), width)).astype(np.float32)
        for site, width in widths.items()
    }
    return PromptScores(arrays, tuple(tokens), "B", 0.5)


# ----------------------------------------------------------------------------------------- tables of analyses


def sweep(**changes) -> pd.DataFrame:
    """Accuracy as two thresholds move."""
    rows = [
        ("top_mlp", x, "blend", s, y - 100 * x, 2.0, int(1000 * x))
        for s, y in (("suppressed", 40.0), ("random", 70.0))
        for x in (0.02, 0.005, 0.01)
    ]
    rows += [("z", x, "blend", "suppressed", 50.0, np.nan, 10) for x in (0.5, 1.0)]
    return pd.DataFrame(
        rows, columns=["parameter", "threshold", "task", "setting", "accuracy", "se", "neurons"]
    ).assign(**changes)


SITES = ("mlp.gate", "attn.q", "attn.k", "attn.v")


def agreement() -> pd.DataFrame:
    rows = []
    for number, name in enumerate(METHODS):
        for site in ("all", *SITES) if name not in ("lape", "cape") else ("mlp.gate",):
            for layer in ("all", 0, 1):
                value = 0.9 - number / 20 - (site == "attn.q") / 10
                rows.append((name, site, layer, 64, value, value / 2, 0.5, 0.6))
    return pd.DataFrame(
        rows,
        columns=["method", "site", "layer", "neurons", "spearman", "pearson", "precision_1", "precision_5"],
    )


def curves() -> pd.DataFrame:
    rows = [
        (method, n, task, task == "culture", 90.0 - n * (i + 1) / 40 - (task == "other"), 1.0)
        for i, method in enumerate(METHODS)
        for n in (0, 10, 20, 40)
        for task in ("culture", "sense", "other")
    ]
    return pd.DataFrame(rows, columns=["method", "neurons", "task", "culture", "accuracy", "se"])


def enhancement() -> pd.DataFrame:
    rows = [
        (name, factor, task, 100, 400, 20, 90.0, 90 + c, c, c - 1, c + 1)
        for i, name in enumerate(("culture-general", "random by layer", "Iran's own", "each country's own"))
        for factor in (1.1, 1.5, 2.0)
        for task in (("culture", "sense") if i < 2 else ("culture",))
        for c in ((factor - 1) * (i - 1),)
    ]
    columns = [
        "set",
        "factor",
        "task",
        "neurons",
        "questions",
        "clusters",
        "base",
        "accuracy",
        "change",
        "low",
        "high",
    ]
    return pd.DataFrame(rows, columns=columns)


def stable(columns=("returns", "wordings")) -> NeuronSet:
    rng = np.random.default_rng(0)
    table = pd.DataFrame(
        {"site": ["mlp.gate"] * 40 + ["attn.v"] * 10, "layer": 0, "neuron": [*range(40), *range(10)]}
    )
    made = {"returns": rng.integers(0, 101, 50) / 100, "wordings": rng.integers(0, 6, 50) / 5}
    return NeuronSet(table.assign(**{c: made[c] for c in columns}))


def cross() -> pd.DataFrame:
    rows = [
        (a, b, 50, i - j + 0.5, i - j - 1.0, i - j + 2.0)
        for i, a in enumerate(("blend", "normad"))
        for j, b in enumerate(("blend", "normad"))
    ]
    return pd.DataFrame(rows, columns=["found_on", "asked", "neurons", "excess", "excess_low", "excess_high"])


# ------------------------------------------------------------------------------------------ what figures hold


def cells(figure: go.Figure) -> int:
    """Cells of heatmaps and marks of everything else, those waiting in menus included."""
    drawn = sum(
        np.size(trace.z) if trace.type == "heatmap" else len(trace.x)
        for trace in figure.data
        if trace.type != "table"
    )
    waiting = sum(
        len(x)
        for menu in figure.layout.updatemenus
        for button in menu.buttons
        for x in button.args[0].get("x", [])
    )
    return drawn + waiting


def notes(figure: go.Figure) -> str:
    """Everything that a figure says in words: title, annotations, axes."""
    axes = [axis.title.text or "" for axis in [*figure.select_xaxes(), *figure.select_yaxes()]]
    return " | ".join([figure.layout.title.text, *(note.text for note in figure.layout.annotations), *axes])
