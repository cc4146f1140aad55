"""What a study's page shows on demand: a card for each neuron, and the questions whose answers flipped."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..data.neurons import NeuronSet, Site
from ..errors import CulnigError
from ..figures.theme import number
from ..figures.values import country_label, per_cluster
from ..study.config import GENERAL, SPECIFIC, UNCHANGED
from ..study.study import Study
from ..tasks import load_task
from . import page

log = logging.getLogger(__name__)
MAX_CARDS = 2_000
"""Neurons that have a card, the strongest first."""
MAX_FLIPS = 400
"""Flipped questions that a page holds, spread evenly over countries."""
LONGEST = 700
"""Characters of a question; the middle is left out."""
_SAME = ["task", "id", "template"]


def cards(study: Study) -> dict[str, Any]:
    """The neurons of the study's sets by name, each with its sets, its score and rank, and its scores by
    country."""
    scores, control = study.scores["neuron"], study.scores.get("control")
    if not len(study.neurons[GENERAL]):
        return {"countries": [], "neurons": {}}
    values = per_cluster(scores, control)
    sorted_pools = {
        pool: np.sort(np.concatenate([v.ravel() for s, v in values.items() if s.pool == pool]))
        for pool in {site.pool for site in values}
    }
    divisor = np.maximum(scores.country_clusters, 1)
    found = {}
    for (name, layer, neuron), sets in list(sets_of(study).items())[:MAX_CARDS]:
        site = Site(name)
        score, pool = float(values[site][layer, neuron]), sorted_pools[site.pool]
        rank = 1 + len(pool) - int(np.searchsorted(pool, score, side="right"))
        kind = "MLP" if site.pool == "mlp" else "attention"
        words = (
            f"In the set{'s' * (len(sets) > 1)} {', '.join(sets)}. Score of all countries together "
            f"{number(score, '.3g')} per cluster{' (control subtracted)' if control is not None else ''}: "
            f"rank {rank:,} of {len(pool):,} {kind} neurons. Below: each country's, control not subtracted."
        )
        each = scores.arrays[site][:, layer, neuron] / divisor
        found[f"{name} {layer} {neuron}"] = {
            "words": words,
            "scores": [float(f"{value:.4g}") for value in each],
        }
    return {"countries": [country_label(country) for country in scores.countries], "neurons": found}


def sets_of(study: Study) -> dict[tuple[str, int, int], list[str]]:
    """(site, layer, neuron) -> the sets that it is in, the strongest culture-general neurons first."""
    general = study.neurons[GENERAL].table.sort_values("score", ascending=False, kind="stable")
    parts = [general.assign(set=GENERAL)]
    specific: NeuronSet | None = study.neurons.get(SPECIFIC)
    if specific is not None and len(specific):
        parts.append(specific.table.assign(set=specific.table["country"]))
    found: dict[tuple[str, int, int], list[str]] = {}
    for site, layer, neuron, name in pd.concat(parts)[["site", "layer", "neuron", "set"]].itertuples(False):
        found.setdefault((str(site), int(layer), int(neuron)), []).append(str(name))
    return found


def flips(study: Study) -> dict[str, Any] | None:
    """The questions of the cultural task whose answer was right before and wrong after, or the reverse, as
    columns of a table; None where none flipped."""
    before, after = (_cultural(study, setting) for setting in (UNCHANGED, GENERAL))
    both = before.merge(after, on=[*_SAME, "country", "answer"], suffixes=("", "_after"))
    flipped = both.loc[both["correct"] != both["correct_after"]].copy()
    if flipped.empty:
        return None
    flipped["country"] = flipped["country"].fillna("no country").map(str)
    turn = flipped.groupby("country").cumcount()
    chosen = flipped.assign(turn=turn).sort_values(["turn", "country"], kind="stable").head(MAX_FLIPS)
    texts = _questions(study)
    names = ["country", "change", "question", "right", "before", "after"]
    rows = [
        (
            row["country"],
            "lost" if row["correct"] else "gained",
            texts.get(row["id"], row["id"]),
            *(str(row[name]).strip() for name in ("answer", "predicted", "predicted_after")),
        )
        for row in chosen.sort_values(["country", "correct"], ascending=[True, False]).to_dict("records")
    ]
    lost = int(flipped["correct"].sum())
    words = f"{lost:,} answers were lost and {len(flipped) - lost:,} gained, of {len(both):,}"
    if len(flipped) > len(chosen):
        words += f"; {len(chosen)} are here, spread evenly over countries"
    return {
        "names": names,
        "columns": page.columns(rows, names),
        "filters": {
            name: sorted({str(row[names.index(name)]) for row in rows}) for name in ("country", "change")
        },
        "first": rows[: page.ROWS],
        "words": f"{words}.",
        "file": "flipped.csv",
    }


def _cultural(study: Study, setting: str) -> pd.DataFrame:
    table = study.results[setting].table
    here = table.loc[table["task"] == study.culture_task]
    return here[[*_SAME, "country", "answer", "predicted", "correct"]]


def _questions(study: Study) -> Mapping[str, str]:
    """Id -> the question as it was asked; empty where the questions cannot be loaded any more."""
    words = {word.rpartition("/")[2].partition(".")[0]: word for word in study.config.tasks}
    word = words.get(study.culture_task, study.culture_task)
    try:
        task = load_task(word, form=study.form, data_dir=study.config.data_dir)
    except CulnigError as error:
        log.info("questions are shown by their ids: %s", error)
        return {}
    return {question.id: _short(question.prompt) for question in task.test_split()}


def _short(text: str) -> str:
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]} … {text[-half:]}"
