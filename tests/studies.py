"""Studies made by hand, with answers that are known, so that what a page says of them can be foretold; and a
real, small one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from culnig_tl import (
    describe,
    load_model,
    load_task,
    score_neurons,
    select_general,
    select_random,
    select_specific,
)
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.data.results import COLUMNS, EvaluationResult
from culnig_tl.method.evaluation import evaluate_sets
from culnig_tl.study.asked import asked_tasks
from culnig_tl.study.config import GENERAL, RANDOM, RIVAL, SPECIFIC, UNCHANGED, StudyConfig
from culnig_tl.study.study import Study

from .figures.builders import COUNTRIES, WIDTHS, make_scores, make_set, make_specific

TASKS = {"food": True, "sense": False, "pairs": False}
QUESTIONS = 120


def answers(
    lost: Mapping[str, float],
    *,
    tasks: Mapping[str, bool] = TASKS,
    seed: int = 0,
    questions: int = QUESTIONS,
    model: str = "small",
):
    """All right but a share of each task's questions, chosen by the seed; every question is a cluster of its
    own."""
    rows = []
    for task, culture in tasks.items():
        order = np.random.default_rng([seed, len(task)]).permutation(questions)
        wrong = set(order[: round(questions * lost.get(task, 0))].tolist())
        for i in range(questions):
            right, answer = i not in wrong, "ABCD"[i % 4]
            given = answer if right else "E"
            asked = (task, f"{task}-{i}", f"c{i}", COUNTRIES[i % 3] if culture else None, "Food", 0)
            rows.append((*asked, answer, given, given, 0.7 * right, right, right, np.nan))
    prints = {task: f"{task}-fingerprint" for task in tasks}
    metadata = {"model": model, "fingerprints": prints, "setting": "unchanged", "neuron_count": 0}
    return EvaluationResult(pd.DataFrame(rows, columns=list(COLUMNS)), metadata)


def made_study(
    *,
    own: Mapping[str, float],
    random: Mapping[str, float] | None = None,
    rival: Mapping[str, float] | None = None,
    unchanged: Mapping[str, float] | None = None,
    tasks: Mapping[str, bool] = TASKS,
    sets: int = 10,
    model: str = "small",
    countries: tuple[str, ...] = COUNTRIES,
    specific: bool = True,
    seed: int = 0,
    **given: Any,
) -> Study:
    """A study in which the settings lose these shares of each task's questions. Neurons are found on the
    first task."""
    first = next(iter(tasks))
    config = StudyConfig(model=model, tasks=tuple(tasks), rival="sense", random_sets=sets, **given)
    general = make_set(seed=seed)
    provenance = replace(
        general.provenance,
        candidates=len(general) + 4,
        removed_by_reading=4,
        thresholds={"top_mlp": 0.1, "top_attn": 0.05},
    )
    neurons = {GENERAL: NeuronSet(general.table, provenance)}
    if specific:
        neurons[SPECIFIC] = make_specific(countries=countries)
    results = {
        UNCHANGED: answers(unchanged or {}, tasks=tasks, model=model),
        GENERAL: answers(own, tasks=tasks, seed=1, model=model),
    }
    if rival is not None:
        results[RIVAL] = answers(rival, tasks=tasks, seed=2, model=model)
    for match in RANDOM.values():
        for number in range(sets):
            results[f"{match} {number}"] = answers(random or {}, tasks=tasks, seed=10 + number, model=model)
    info = {
        "model": model,
        "revision": "abc123",
        "dtype": "float32",
        "device": "cpu",
        "layers": 4,
        "widths": {site.value: width for site, width in WIDTHS.items()},
        "tasks": {
            task: {
                "culture": culture,
                "fingerprint": f"{task}-fingerprint",
                "source": "tests",
                "questions": QUESTIONS,
            }
            for task, culture in tasks.items()
        },
        "versions": {"culnig_tl": "0", "python": "3"},
    }
    scores = {
        "neuron": make_scores(task=first, countries=countries),
        "control": make_scores(task=f"{first}:control", seed=1, countries=countries),
    }
    return Study(config, info, scores, neurons, results)


def small_study(model: str, **given: Any) -> Study:
    """A study of a small checkpoint, really scored and answered, on a few questions of the toy's tasks;
    nothing is written."""
    config = StudyConfig(
        model=model,
        tasks=("miniculture", "minicommonsense"),
        reading="minireading",
        rival=None,
        limit=16,
        **{"top_mlp": 0.1, "top_attn": 0.05, "top_specific": 0.1, **given},
    )
    loaded = load_model(model, device="cpu")
    about, whole = describe(loaded), {name: load_task(name) for name in config.tasks}
    culture = whole["miniculture"].neuron_split().limit(config.limit)
    reading = load_task(config.reading).neuron_split().limit(config.limit)
    asked_of = {task.name: task for task in asked_tasks(config, list(whole.values()), culture, reading)}
    scores = {
        name: score_neurons(loaded, task, progress=False)
        for name, task in (("neuron", culture), ("control", culture.control()), ("reading", reading))
    }
    shares = {"top_mlp": config.top_mlp, "top_attn": config.top_attn, "drop_reading": config.drop_reading}
    general = select_general(*scores.values(), **shares)
    neurons = {GENERAL: general, SPECIFIC: select_specific(*scores.values(), top=config.top_specific, z=0)}
    for match, name in (("layer", RANDOM["layer"]), ("count", RANDOM["count"])):
        neurons |= {
            f"{name} {k}": select_random(general, scores["neuron"], seed=k, match=match) for k in range(2)
        }
    asked = {UNCHANGED: None, **{name: chosen for name, chosen in neurons.items() if name != SPECIFIC}}
    info = {
        "model": about.name,
        "revision": about.revision,
        "layers": about.layers,
        "widths": {site.value: width for site, width in about.widths.items()},
        "tasks": {
            name: {"culture": task.culture, "fingerprint": task.fingerprint}
            for name, task in asked_of.items()
        },
    }
    results = evaluate_sets(loaded, list(asked_of.values()), asked, progress=False)
    return Study(config, info, scores, neurons, results)


CASES: dict[str, dict[str, Any]] = {
    "shown": {
        "own": {"food": 0.5, "sense": 0.02},
        "random": {"food": 0.05},
        "rival": {"food": 0.1, "sense": 0.6},
    },
    "no rival": {"own": {"food": 0.5, "sense": 0.02}, "random": {"food": 0.05}},
    "random does it": {"own": {"food": 0.2}, "random": {"food": 0.45}, "rival": {"food": 0.02, "sense": 0.6}},
    "random may do it": {
        "own": {"food": 0.2},
        "random": {"food": 0.18},
        "rival": {"food": 0.02, "sense": 0.6},
    },
    "nearly all open": {
        "own": {"food": 0.03},
        "random": {"food": 0.01},
        "rival": {"food": 0.02, "sense": 0.6},
    },
    "not alone": {"own": {"food": 0.3, "pairs": 0.5}, "random": {}, "rival": {"food": 0.05, "sense": 0.6}},
    "rival does it": {"own": {"food": 0.3}, "random": {}, "rival": {"food": 0.5, "sense": 0.6}},
    "both": {"own": {"food": 0.3, "pairs": 0.5}, "random": {}, "rival": {"food": 0.5, "sense": 0.6}},
    "nearly alone": {
        "own": {"food": 0.3, "pairs": 0.25},
        "random": {},
        "rival": {"food": 0.02, "sense": 0.6},
    },
    "nothing": {"own": {}, "random": {}, "rival": {}},
    "ignorant": {"own": {"food": 0.8}, "unchanged": {"food": 0.78}, "random": {"food": 0.78}},
}
"""Name -> shares of questions lost in each setting."""
