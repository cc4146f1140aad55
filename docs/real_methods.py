"""By method, on SmolLM2-135M-Instruct, in the cloze form: three questions that docs/findings.md answers.

python docs/real_methods.py truth SmolLM2-135M-Instruct.Q4_1.gguf runs/methods --data-dir mirror
python docs/real_methods.py methods ...                                      # each again: it resumes
python docs/real_methods.py others ...

The protocol, written down before anything of it was scored or asked:

    truth      480 neurons, four of every site and layer (seed 0), zeroed one at a time on four questions of
               BLEnD's neuron split; scores of the same questions. Spearman between a neuron's score and its
               mean effect, by site, with a 95% interval (neurons drawn anew, 2,000 times)
    methods    culnig (the maximum over tokens), culnig-sum, atp and lape rank neurons on 64 questions of
               BLEnD's neuron split, one row each; the CULNIG pair less the control's scores. The paper's
               budget (1% of the gate, 0.2% of q, k, v), less the top 1% by CountryRC; 96 questions of BLEnD's
               test split, one row each, and 48 of CommonsenseQA. Three random sets of that many neurons
    others     150 questions of QNLI and of MRPC, with the culture-general set of the study that comes with
               the package suppressed, and three of its layer-matched random sets
    what says  a difference counts where its 95% interval (paired bootstrap over clusters) leaves 0 out
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import spearmanr

from culnig_tl import (
    EvaluationResult,
    NeuronScores,
    NeuronSet,
    Task,
    describe,
    evaluate,
    load_model,
    load_study,
    load_task,
    score_neurons,
    select_random,
)
from culnig_tl.analyses.agreement import scores_of
from culnig_tl.analyses.methods import select_top
from culnig_tl.data.pools import NeuronPool, ranked, share_count
from culnig_tl.data.results import concat
from culnig_tl.data.statistics import compare_drops
from culnig_tl.engine.models import HookedModel
from culnig_tl.method.exact import exact_effects, stratified_sample
from culnig_tl.run.pieces import CONTROL, NEURON, READING
from culnig_tl.study.config import GENERAL, RANDOM, UNCHANGED

STUDY = "smollm2-135m-instruct"
METHODS = ("culnig", "culnig-sum", "atp", "lape")
CONTRASTED = METHODS[:2]
"""Ranked by their scores less the control's."""
SAMPLE, ZEROED_ON = 4, 4
RANKED_ON, BLEND, COMMONSENSE, OTHERS, RANDOM_SETS = 64, 96, 48, 150, 3
TOP_MLP, TOP_ATTN, DROP_READING = 0.01, 0.002, 0.01
DRAWS = 2_000


def scored(model: HookedModel, name: str, task: Task, folder: Path) -> dict[str, NeuronScores]:
    """Every method's scores of a task, from the folder where they are there."""
    wanted = METHODS if task.has_control else CONTRASTED
    paths = {method: folder / f"{name}, {method}.safetensors" for method in wanted}
    if not all(path.is_file() for path in paths.values()):
        how: dict[str, Any] = {"checkpoint": folder / f"{name}.state", "resume": True}
        for method, scores in score_neurons(model, task, method=wanted, **how).items():
            scores.save(paths[method])
    return {method: NeuronScores.load(path) for method, path in paths.items()}


def answers(
    model: HookedModel, tasks: list[Task], sets: Mapping[str, NeuronSet | None], folder: Path
) -> dict[str, EvaluationResult]:
    """Each setting's answers to the tasks, from the folder where they are there; a task is asked in all
    settings before the next."""
    found: dict[str, list[EvaluationResult]] = {name: [] for name in sets}
    for task in tasks:
        for name, neurons in sets.items():
            path = folder / f"{name}, {task.name}.parquet"
            if not path.is_file():
                evaluate(
                    model, task, ablate=neurons, checkpoint=path.with_suffix(".state"), resume=True
                ).save(path)
            found[name].append(EvaluationResult.load(path))
            print(found[name][-1], flush=True)
    return {name: concat(parts) for name, parts in found.items()}


def drops(found: Mapping[str, EvaluationResult], random: list[str]) -> pd.DataFrame:
    """What each setting costs each task, in points of accuracy and of mean P(answer), beyond random sets and
    beyond the first setting (culnig)."""
    base, rows = found[UNCHANGED].table, []
    settings = [name for name in found if name != UNCHANGED and name not in random]
    for task in dict.fromkeys(base["task"]):
        here = (base["task"] == task).to_numpy()
        clusters = base["cluster"].to_numpy()[here]
        for measure in ("correct", "p_answer"):
            values = {name: found[name].table[measure].to_numpy(float)[here] for name in found}
            for name in settings:
                beyond = compare_drops(values[UNCHANGED], values[name], [values[r] for r in random], clusters)
                row = {"task": task, "n": int(here.sum()), "measure": measure, "set": name}
                row |= {"unchanged": beyond.base, "drop": beyond.drop}
                row["95%"] = f"{beyond.low:.1f} to {beyond.high:.1f}"
                row["random"] = f"{beyond.random_mean:.1f} ± {beyond.random_sd:.1f}"
                row["beyond random"] = (
                    f"{beyond.excess:.1f} ({beyond.excess_low:.1f} to {beyond.excess_high:.1f})"
                )
                if name != settings[0]:
                    more = compare_drops(values[UNCHANGED], values[name], [values[settings[0]]], clusters)
                    row["beyond culnig"] = (
                        f"{more.excess:.1f} ({more.excess_low:.1f} to {more.excess_high:.1f})"
                    )
                rows.append(row)
    return pd.DataFrame(rows)


def truth(model: HookedModel, folder: Path, **how: Any) -> pd.DataFrame:
    """Each method's Spearman with the exact effects, by site."""
    task = load_task("blend", **how).neuron_split().rows(1).limit(ZEROED_ON)
    sample = stratified_sample(describe(model), each=SAMPLE)
    scores = scored(model, "zeroed on", task, folder)
    effects = exact_effects(model, task, sample, checkpoint=folder / "effects.state", resume=True)
    effects.save(folder / "truth.parquet")
    table, rows = effects.neurons.table, []
    for method, given in scores.items():
        values = scores_of(given, table)
        for site in ("all", *dict.fromkeys(table["site"])):
            at = np.flatnonzero((table["site"] == site).to_numpy() | (site == "all"))
            low, high = spearman_interval(values[at], effects.mean[at])
            rho = spearmanr(values[at], effects.mean[at]).statistic
            rows.append((method, site, len(at), rho, low, high))
    print(effects)
    return pd.DataFrame(rows, columns=["method", "site", "neurons", "spearman", "low", "high"])


def spearman_interval(one: np.ndarray, other: np.ndarray) -> tuple[float, float]:
    """95% interval, neurons drawn anew."""
    rng = np.random.default_rng(0)
    drawn = [spearmanr(one[at], other[at]).statistic for at in rng.integers(len(one), size=(DRAWS, len(one)))]
    return float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))


def methods(model: HookedModel, folder: Path, **how: Any) -> pd.DataFrame:
    """What each method's neurons cost."""
    blend = load_task("blend", **how)
    found_on = blend.neuron_split().rows(1).limit(RANKED_ON)
    scores = scored(model, NEURON, found_on, folder)
    control = scored(model, CONTROL, found_on.control(), folder)
    reading = load_study(STUDY).scores[READING]
    info = describe(model)
    counts = [
        share_count(sum(info.count(s) for s in info.widths if s.value in sites), share)
        for sites, share in ((("mlp.gate",), TOP_MLP), (("attn.q", "attn.k", "attn.v"), TOP_ATTN))
    ]
    removed = NeuronSet(
        pd.concat(
            pool.table(ranked(pool.total(reading), share_count(pool.size, DROP_READING)))
            for pool in (NeuronPool.of_scores(reading, reading.sites, name) for name in ("mlp", "attn"))
        )
    )
    sets: dict[str, NeuronSet | None] = {UNCHANGED: None}
    for method, given in scores.items():
        sets[method] = select_top(given, *counts, control=control.get(method), without=removed, kind=method)
    whole = sets["culnig"]
    assert whole is not None
    random = [f"random {seed}" for seed in range(RANDOM_SETS)]
    sets |= {name: select_random(whole, scores["culnig"], seed=n) for n, name in enumerate(random)}
    for one in METHODS:
        shared = {other: len(sets[one] & sets[other]) for other in METHODS}  # type: ignore[operator]
        early = (sets[one].table["layer"] < info.layers / 3).mean()  # type: ignore[union-attr]
        print(one, "shares", shared, f"first third of the layers {100 * early:.0f}%", flush=True)
    asked = [
        blend.test_split().rows(1).limit(BLEND),
        load_task("commonsenseqa", limit=COMMONSENSE, **how),
    ]
    return drops(answers(model, asked, sets, folder), random)


def others(model: HookedModel, folder: Path, **how: Any) -> pd.DataFrame:
    """What the study's culture-general neurons cost tasks without culture."""
    known = load_study(STUDY).neurons
    random = [f"{RANDOM['layer']} {seed}" for seed in range(RANDOM_SETS)]
    sets: dict[str, NeuronSet | None] = {UNCHANGED: None, GENERAL: known[GENERAL]}
    sets |= {name: known[name] for name in random}
    asked = [load_task(name, limit=OTHERS, **how) for name in ("qnli", "mrpc")]
    return drops(answers(model, asked, sets, folder), random)


def main() -> None:
    parts = {"truth": truth, "methods": methods, "others": others}
    parser = argparse.ArgumentParser(description="Methods side by side on a real model, in the cloze form.")
    parser.add_argument("part", choices=parts)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    given = parser.parse_args()
    folder = given.folder / given.part
    folder.mkdir(parents=True, exist_ok=True)
    model = load_model(given.model, dtype="float32", device="cpu")
    table = parts[given.part](model, folder, form="cloze", data_dir=given.data_dir)
    table.to_csv(folder / "table.csv", index=False)
    pd.set_option("display.width", 250)
    pd.set_option("display.max_columns", 20)
    print(table.round(2).to_string(index=False))


if __name__ == "__main__":
    main()
