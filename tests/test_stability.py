"""How often neurons return: against counting by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from culnig_tl import NeuronSet, load_task, score_neurons, select_general
from culnig_tl.analyses.stability import in_wordings, select_by_wording, selection_stability
from culnig_tl.errors import NeuronError, TaskError
from culnig_tl.tasks.question import Task

from .cultures import culture_task

CUT = {"top_mlp": 0.1, "top_attn": 0.05, "drop_reading": 0.02}


@pytest.fixture(scope="module")
def scored(loaded):
    task = culture_task()
    tasks = (task.neuron_split(), task.neuron_split().control(), culture_task("reading").neuron_split())
    return [score_neurons(loaded("llama"), t, bootstrap=12, progress=False) for t in tasks]


def test_returns_are_counted(scored, tmp_path):
    found = selection_stability(*scored, **CUT)
    assert found.neurons == select_general(*scored, **CUT)
    drawn = [k for k in range(12) if all(s.replicate_clusters[k][0] for s in scored)]
    assert 8 <= len(drawn) == len(found.replicates)
    by_hand = [select_general(*(s.replicate(k) for s in scored), **CUT).keys() for k in drawn]
    for row in found.neurons.table.itertuples():
        times = sum((row.site, row.layer, row.neuron) in keys for keys in by_hand)
        assert row.returns == pytest.approx(times / len(drawn))
    assert 0 < found.neurons.table["returns"].mean() < 1, "some return, not all always"
    ever = found.ever_selected()
    assert ever["selected"].sum() == len(found.neurons) and len(ever) == len(
        set().union(*by_hand, found.neurons.keys())
    )
    assert ever["wordings"].isna().all()
    whole = found.table().set_index("pool").loc["all"]
    assert whole["mean_returns"] == pytest.approx(found.neurons.table["returns"].mean())
    own = [len(keys & found.neurons.keys()) / len(keys | found.neurons.keys()) for keys in by_hand]
    assert whole["jaccard_with_set"] == pytest.approx(np.mean(own))
    read = NeuronSet.load(found.neurons.save(tmp_path / "stable.parquet"))
    np.testing.assert_allclose(read.table["returns"], found.neurons.table["returns"])
    assert found.figure().data


def test_wordings(scored, loaded):
    task = culture_task(each=1).neuron_split()
    longer = tuple(
        dataclasses.replace(q, id=f"{q.id} again", prompt=f"Answer with one letter. {q.prompt}", template=1)
        for q in task
    )
    asked = in_wordings(Task(task.name, (*task.questions, *longer)))
    assert list(asked) == ["wording 0", "wording 1"] and len(asked["wording 1"]) == len(task)
    sets = select_by_wording(loaded("llama"), asked, scored[2], progress=False, **CUT)
    found = selection_stability(*scored, wordings=sets, **CUT)
    for row in found.neurons.table.itertuples():
        times = sum((row.site, row.layer, row.neuron) in neurons.keys() for neurons in sets.values())
        assert row.wordings == pytest.approx(times / 2)
    assert found.overlap().loc["wording 0", "wording 1"] == sets["wording 0"].jaccard(sets["wording 1"])
    assert set(found.table()["kind"]) == {"bootstrap", "wordings"}


def test_miniculture_in_its_other_wordings():
    task = load_task("miniculture").neuron_split().limit(40)
    asked = in_wordings(task)
    assert len(asked) == 5
    own = asked[f"wording {task[0].template}"]
    assert [dataclasses.replace(q, group=None) for q in own] == [
        dataclasses.replace(q, group=None) for q in task
    ]
    for name, other in asked.items():
        assert [q.id for q in other] == [q.id for q in task] and [q.answer for q in other] == [
            q.answer for q in task
        ]
        assert name == f"wording {other[0].template}" and other.has_control
    assert len({other[0].prompt for other in asked.values()}) == 5
    single = load_task("minireading").neuron_split().limit(4)
    assert list(in_wordings(single)) == ["wording 0"]


def test_bad_requests_are_clear_errors(scored, loaded):
    bare = score_neurons(loaded("llama"), culture_task(each=1).neuron_split(), progress=False)
    for given in ((bare,), (scored[0], bare)):
        with pytest.raises(NeuronError, match="replicates"):
            selection_stability(*given)
    with pytest.raises(TaskError, match="no wording"):
        select_by_wording(loaded("llama"), {}, None)
