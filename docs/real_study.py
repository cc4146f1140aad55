"""The study of Gemma 3 270M (base) that comes with the package, in the cloze form.

python docs/real_study.py gemma-3-270m-q4_k_m.gguf runs/gemma --data-dir mirror   # again: it resumes

The protocol, written down before anything was scored. Thresholds are the paper's.

    neurons     160 questions of BLEnD's neuron split, one row a (country, question); less their control, less
                the top 1% by CountryRC (160 passages)
    rival       as many neurons in every site and layer, by their scores on 160 questions of the first half of
                CommonsenseQA
    random      ten sets with the same counts in every site and layer, seeds 0 to 9
    asked       256 questions of BLEnD's test split, one row each, cut in two by a hash of their cluster; 128
                of the second half of CommonsenseQA; 32 of QNLI and of MRPC, which show a large loss alone
    order       all settings on the first half of BLEnD, then CommonsenseQA, then the second half of BLEnD,
                which nobody looks at before all of it is there, then MRPC and QNLI
    the claim   on the second half, BLEnD's drop beyond random sets has a 95% interval above 0 (paired
                bootstrap over clusters), and so has its drop beyond the rival's
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from culnig_tl import (
    EvaluationResult,
    NeuronScores,
    Task,
    evaluate,
    load_model,
    load_task,
    score_neurons,
)
from culnig_tl.data.results import concat
from culnig_tl.engine.models import HookedModel
from culnig_tl.run.pieces import CONTROL, NEURON, READING, select
from culnig_tl.run.pipeline import about_model, versions
from culnig_tl.study.comparison import halves, in_first_half
from culnig_tl.study.config import GENERAL, RANDOM, RIVAL, SPECIFIC, UNCHANGED, StudyConfig
from culnig_tl.study.stored import SECOND, store
from culnig_tl.study.study import Study

FOUND_ON, BLEND, COMMONSENSE, OTHERS, RANDOM_SETS = 160, 256, 128, 32, 10
ROUNDS = (("blend",), ("commonsenseqa",), (SECOND,), ("mrpc",), ("qnli",))
"""What every setting is asked before the next begins."""


def questions(**how: Any) -> tuple[dict[str, Task], dict[str, Task]]:
    """(what is scored, what is asked), by name."""
    blend, commonsense = load_task("blend", **how), load_task("commonsenseqa", **how)
    found_on = blend.neuron_split().rows(1).limit(FOUND_ON)
    for_rival, for_test = halves(commonsense)
    test = blend.test_split().rows(1).limit(BLEND)
    scored = {
        NEURON: found_on,
        CONTROL: found_on.control(),
        READING: load_task("countryrc", split="neuron", limit=FOUND_ON, **how),
        RIVAL: for_rival.limit(FOUND_ON),
    }
    asked = {
        "blend": test.filter(lambda q: in_first_half("blend", q.cluster)),
        SECOND: test.filter(lambda q: not in_first_half("blend", q.cluster)),
        "commonsenseqa": for_test.limit(COMMONSENSE),
        **{name: load_task(name, limit=OTHERS, **how) for name in ("mrpc", "qnli")},
    }
    return scored, asked


def scores_of(model: HookedModel, name: str, task: Task, folder: Path) -> NeuronScores:
    """A task's scores, from the folder where they are there."""
    path = folder / "scores" / f"{name}.safetensors"
    if not path.is_file():
        score_neurons(model, task, checkpoint=folder / f"{name}.state", resume=True).save(path)
    return NeuronScores.load(path)


def answers_of(model: HookedModel, task: Task, neurons: Any, path: Path) -> EvaluationResult:
    """A setting's answers to one task, from the folder where they are there."""
    if not path.is_file():
        evaluate(model, task, ablate=neurons).save(path)
    return EvaluationResult.load(path)


def main() -> None:
    parser = argparse.ArgumentParser(description="The study of a real model, in the cloze form.")
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir")
    parser.add_argument("--store", type=Path, help="also write it here as it comes with the package")
    given = parser.parse_args()
    scored, asked = questions(form="cloze", data_dir=given.data_dir)
    model = load_model(given.model, dtype="float32", device="cpu")
    config = StudyConfig(
        model=Path(given.model).name,
        device="cpu",
        dtype="float32",
        form="cloze",
        limit=FOUND_ON,
        rows=1,
        random_sets=RANDOM_SETS,
        random_questions="all",
        tasks=tuple(name for name in asked if name != SECOND),
    )
    scores = {name: scores_of(model, name, task, given.folder) for name, task in scored.items()}
    sets = {n: s for n, s in select(config, scores).items() if n.rpartition(" ")[0] != RANDOM["count"]}
    settings = {UNCHANGED: None, **{name: s for name, s in sets.items() if name != SPECIFIC}}
    answers: dict[str, dict[str, EvaluationResult]] = {setting: {} for setting in settings}
    for names in ROUNDS:
        for setting, neurons in settings.items():
            for name in names:
                path = given.folder / "answers" / f"{setting}, {name}.parquet"
                answers[setting][name] = answers_of(model, asked[name], neurons, path)
        print("asked in every setting:", *names, flush=True)
    if given.store is not None:
        study = Study(config, {**about_model(model, None), **about(scored, asked)}, scores, sets)
        for setting, by_task in answers.items():
            study.results[setting] = concat([by_task[name] for name in config.tasks])
        second = {setting: by_task[SECOND] for setting, by_task in answers.items()}
        store(study, given.store, second)
    print(sets[GENERAL])


def about(scored: dict[str, Task], asked: dict[str, Task]) -> dict[str, Any]:
    """What `study.json` says of the questions and of the versions."""
    return {
        "tasks": {
            name: {
                "culture": task.culture,
                "fingerprint": task.fingerprint,
                "source": task.source,
                "questions": len(task),
                "split": task.split,
            }
            for name, task in asked.items()
            if name != SECOND
        },
        "scored": {
            name: {"task": task.name, "fingerprint": task.fingerprint, "questions": len(task)}
            for name, task in scored.items()
        },
        "form": {"form": "cloze", "why": "asked for"},
        "versions": versions(),
    }


if __name__ == "__main__":
    main()
