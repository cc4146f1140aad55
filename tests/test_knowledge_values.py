"""Knowledge against values: sets found on several tasks, their overlap and what each costs on each."""

from __future__ import annotations

import dataclasses

import pandas as pd
import pytest

from culnig_tl import evaluate, score_neurons, select_general
from culnig_tl.analyses.knowledge_values import TaskNeurons, compare_tasks
from culnig_tl.data.results import EvaluationResult
from culnig_tl.errors import TaskError
from culnig_tl.tasks.question import Task

from .cultures import culture_task

CUT = {"top_mlp": 0.2, "top_attn": 0.1, "drop_reading": 0.02}


def values_task() -> Task:
    """A task without control, of other words."""
    task = culture_task("values", each=2)
    rows = (dataclasses.replace(q, prompt=f"Is this right? {q.prompt}", control=None) for q in task)
    return dataclasses.replace(task, questions=tuple(rows))


@pytest.fixture(scope="module")
def found(loaded) -> TaskNeurons:
    tasks = [culture_task(each=2), values_task()]
    reading = culture_task("reading", each=1).neuron_split()
    return compare_tasks(loaded("llama"), tasks, reading, random_sets=2, progress=False, **CUT)


def test_sets_are_those_of_each_task_alone(found, loaded):
    model, task, other = loaded("llama"), culture_task(each=2).neuron_split(), values_task().neuron_split()
    reading = score_neurons(model, culture_task("reading", each=1).neuron_split(), progress=False)
    scores = [score_neurons(model, t, progress=False) for t in (task, task.control(), other)]
    assert found.sets["culture"] == select_general(scores[0], scores[1], reading, **CUT)
    assert found.sets["values"] == select_general(scores[2], None, reading, **CUT)


def test_overlap_and_cross_effects(found, loaded):
    (row,) = found.overlap().to_dict("records")
    one, other = found.sets["culture"].keys(), found.sets["values"].keys()
    assert (
        row["common"] == len(one & other)
        and row["jaccard"] == pytest.approx(len(one & other) / len(one | other))
        and row["p"] < 1
    )
    table = found.table(draws=200)
    assert list(zip(table["found_on"], table["asked"])) == [
        (a, b) for a in ("culture", "values") for b in ("culture", "values")
    ]
    test = values_task().test_split()
    before, after = (
        evaluate(loaded("llama"), test, neurons=n, progress=False).table["correct"].mean()
        for n in (None, found.sets["culture"])
    )
    cross = table[(table["found_on"] == "culture") & (table["asked"] == "values")].iloc[0]
    assert cross["drop"] == pytest.approx(100 * (before - after)) and cross["random_sets"] == 2
    assert {"p_holm", "excess_low"} <= set(table.columns) and found.figure().data


def test_worldvaluesbench_counts_alignment(found):
    def result(alignment):
        columns = {
            "id": ["a", "b"],
            "cluster": ["a", "b"],
            "country": ["China"] * 2,
            "correct": [False, False],
            "p_answer": [0.1, 0.1],
        }
        return EvaluationResult(pd.DataFrame({"task": "worldvaluesbench", **columns, "alignment": alignment}))

    name = "worldvaluesbench"
    made = TaskNeurons(
        {name: found.sets["culture"]},
        result([80.0, 60.0]),
        {name: result([50.0, 40.0])},
        {name: (result([80.0, 60.0]),)},
    )
    (row,) = made.table(draws=50).to_dict("records")
    assert (
        row["base"] == pytest.approx(70)
        and row["drop"] == pytest.approx(25)
        and row["random_mean"] == pytest.approx(0)
    )


def test_bad_requests_are_clear_errors(loaded):
    task = culture_task(each=1)
    for tasks in ([task], [task, task]):
        with pytest.raises(TaskError, match="two tasks or more"):
            compare_tasks(loaded("llama"), tasks, None)
    with pytest.raises(TaskError, match="neuron split"):
        lone = dataclasses.replace(
            task, name="lone", questions=tuple(dataclasses.replace(q, split=None) for q in task)
        )
        compare_tasks(loaded("llama"), [lone, task], None, progress=False)
