"""How often neurons return: against counting by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from culnig_tl import NeuronSet, load_task, score_neurons, select_general
from culnig_tl.analyses import in_wordings, select_by_wording, selection_stability
from culnig_tl.errors import NeuronError, TaskError
from culnig_tl.tasks.question import Task

from .cultures import culture_task

CUT = {"top_mlp": 0.1, "top_attn": 0.05, "drop_reading": 0.02}


@pytest.fixture(scope="module")
def scored(loaded):
    task = culture_task()
    tasks = (task.neuron_split(), task.neuron_split().control(), culture_task("reading").neuron_split())
    return [score_neurons(loaded("llama"), t, bootstrap=12, progress=False) for t in tasks]


@pytest.fixture(scope="module")
def found(scored):
    return selection_stability(*scored, **CUT)


@pytest.fixture(scope="module")
def by_hand(scored):
    """The neurons of every replicate in which some cluster of each task was drawn."""
    drawn = [k for k in range(12) if all(s.replicate_clusters[k][0] for s in scored)]
    return [select_general(*(s.replicate(k) for s in scored), **CUT).keys() for k in drawn]


def test_the_set_itself_is_the_selection_on_all_questions(found, scored):
    assert found.neurons == select_general(*scored, **CUT)


def test_returns_are_counted(found, by_hand):
    assert 8 <= len(by_hand) == len(found.replicates)
    for row in found.neurons.table.itertuples():
        times = sum((row.site, row.layer, row.neuron) in keys for keys in by_hand)
        assert row.returns == pytest.approx(times / len(by_hand))


def test_some_neurons_return_and_not_all_always(found):
    assert 0 < found.neurons.table["returns"].mean() < 1


def test_every_neuron_that_was_ever_selected_is_listed(found, by_hand):
    ever = found.ever_selected()
    assert len(ever) == len(set().union(*by_hand, found.neurons.keys()))
    assert ever["selected"].sum() == len(found.neurons) and ever["wordings"].isna().all()


def test_the_table_sums_returns_up(found, by_hand):
    whole, mine = found.table().set_index("pool").loc["all"], found.neurons.keys()
    assert whole["mean_returns"] == pytest.approx(found.neurons.table["returns"].mean())
    own = [len(keys & mine) / len(keys | mine) for keys in by_hand]
    assert whole["jaccard_with_set"] == pytest.approx(np.mean(own))


def test_returns_are_saved_with_the_set(found, tmp_path):
    read = NeuronSet.load(found.neurons.save(tmp_path / "stable.parquet"))
    np.testing.assert_allclose(read.table["returns"], found.neurons.table["returns"])


@pytest.fixture(scope="module")
def asked():
    """A task in two wordings, taken apart."""
    task = culture_task(each=1).neuron_split()
    longer = tuple(
        dataclasses.replace(q, id=f"{q.id} again", prompt=f"Answer with one letter. {q.prompt}", template=1)
        for q in task
    )
    return in_wordings(Task(task.name, (*task.questions, *longer)))


def test_a_task_is_taken_apart_by_wording(asked):
    assert {name: len(task) for name, task in asked.items()} == {"wording 0": 5, "wording 1": 5}


@pytest.fixture(scope="module")
def worded(asked, scored, loaded):
    sets = select_by_wording(loaded("llama"), asked, scored[2], progress=False, **CUT)
    return selection_stability(*scored, wordings=sets, **CUT)


def test_wordings_are_counted(worded):
    for row in worded.neurons.table.itertuples():
        times = sum((row.site, row.layer, row.neuron) in chosen.keys() for chosen in worded.wordings.values())
        assert row.wordings == pytest.approx(times / 2)


def test_overlap_between_wordings(worded):
    sets = worded.wordings
    assert worded.overlap().loc["wording 0", "wording 1"] == sets["wording 0"].jaccard(sets["wording 1"])


def test_tables_hold_wordings_where_there_are_some(found, worded):
    assert list(found.tables()) == ["stability", "returns"]
    assert list(worded.tables()) == ["stability", "returns", "wordings"]


MINICULTURE = load_task("miniculture").neuron_split().limit(40)


def test_miniculture_has_five_wordings_of_the_same_questions():
    asked = in_wordings(MINICULTURE)
    assert len({other[0].prompt for other in asked.values()}) == len(asked) == 5
    for name, other in asked.items():
        assert name == f"wording {other[0].template}" and other.has_control
        assert [(q.id, q.answer) for q in other] == [(q.id, q.answer) for q in MINICULTURE]


def test_its_own_wording_is_one_of_them():
    own = in_wordings(MINICULTURE)[f"wording {MINICULTURE[0].template}"]
    assert [dataclasses.replace(q, group=None) for q in own] == [
        dataclasses.replace(q, group=None) for q in MINICULTURE
    ]


def test_a_task_in_one_wording_comes_back_alone():
    assert list(in_wordings(load_task("minireading").neuron_split().limit(4))) == ["wording 0"]


def test_scores_without_as_many_replicates_are_refused(scored, loaded):
    bare = score_neurons(loaded("llama"), culture_task(each=1).neuron_split(), progress=False)
    for given in ((bare,), (scored[0], bare)):
        with pytest.raises(NeuronError, match="replicates"):
            selection_stability(*given)


def test_no_wording_is_refused(loaded):
    with pytest.raises(TaskError, match="no wording"):
        select_by_wording(loaded("llama"), {}, None)
