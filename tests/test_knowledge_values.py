"""Knowledge against values: sets found on several tasks, their overlap and what each costs on each."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from culnig_tl import EvaluationResult, evaluate, score_neurons, select_general
from culnig_tl.analyses import TaskNeurons, compare_tasks
from culnig_tl.errors import TaskError
from culnig_tl.tasks.question import Task

from .cultures import culture_task

CUT = {"top_mlp": 0.2, "top_attn": 0.1, "drop_reading": 0.02}
READING = culture_task("reading", each=1).neuron_split()


def values_task() -> Task:
    """A task without control, of other words."""
    task = culture_task("values", each=2)
    rows = (dataclasses.replace(q, prompt=f"Is this right? {q.prompt}", control=None) for q in task)
    return dataclasses.replace(task, questions=tuple(rows))


@pytest.fixture(scope="module")
def found(loaded) -> TaskNeurons:
    tasks = [culture_task(each=2), values_task()]
    return compare_tasks(loaded("llama"), tasks, READING, random_sets=2, progress=False, **CUT)


def test_sets_are_those_of_each_task_alone(found, loaded):
    task, other = culture_task(each=2).neuron_split(), values_task().neuron_split()
    reading, scores, control, others = (
        score_neurons(loaded("llama"), t, progress=False) for t in (READING, task, task.control(), other)
    )
    assert found.sets["culture"] == select_general(scores, control, reading, **CUT)
    assert found.sets["values"] == select_general(others, None, reading, **CUT)


def test_overlap(found):
    (row,) = found.overlap().to_dict("records")
    one, other = (found.sets[name].keys() for name in ("culture", "values"))
    assert (row["found_on"], row["other"], row["common"]) == ("culture", "values", len(one & other))
    assert row["jaccard"] == pytest.approx(len(one & other) / len(one | other))


def test_every_set_is_asked_about_on_every_task(found):
    table = found.table(draws=50)
    assert list(zip(table["found_on"], table["asked"])) == [
        (a, b) for a in ("culture", "values") for b in ("culture", "values")
    ]
    assert (table["random_sets"] == 2).all()


def test_a_cross_effect_is_the_other_tasks_drop(found, loaded):
    table = found.table(draws=50).set_index(["found_on", "asked"])
    before, after = (
        evaluate(loaded("llama"), values_task().test_split(), ablate=neurons, progress=False)
        .table["correct"]
        .mean()
        for neurons in (None, found.sets["culture"])
    )
    assert table.loc[("culture", "values"), "drop"] == pytest.approx(100 * (before - after))


def aligned(alignment) -> EvaluationResult:
    columns = {"id": ["a", "b"], "cluster": ["a", "b"], "country": ["China"] * 2}
    columns |= {"correct": [False, False], "p_answer": [0.1, 0.1], "alignment": alignment}
    return EvaluationResult(pd.DataFrame({"task": "worldvaluesbench", **columns}))


def test_worldvaluesbench_counts_alignment(found):
    name, base = "worldvaluesbench", aligned([80.0, 60.0])
    results, random = {name: aligned([50.0, 40.0])}, {name: (base,)}
    (row,) = (
        TaskNeurons({name: found.sets["culture"]}, base, results, random).table(draws=50).to_dict("records")
    )
    assert [row[key] for key in ("base", "drop", "random_mean")] == pytest.approx([70, 25, 0])


@pytest.mark.parametrize("times", [1, 2])
def test_one_task_is_not_compared(loaded, times):
    with pytest.raises(TaskError, match="two tasks or more"):
        compare_tasks(loaded("llama"), [culture_task(each=1)] * times, None)


def test_a_task_without_splits_is_refused(loaded):
    task = culture_task(each=1)
    rows = tuple(dataclasses.replace(q, split=None) for q in task)
    with pytest.raises(TaskError, match="neuron split"):
        compare_tasks(loaded("llama"), [dataclasses.replace(task, name="lone", questions=rows), task], None)
