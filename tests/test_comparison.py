"""Sets side by side: every analysis that runs a model goes through `compare_sets`."""

from __future__ import annotations

import pytest

from culnig_tl import evaluate, score_neurons, select_general, select_random
from culnig_tl.analyses import ComparedSets, compare_sets
from culnig_tl.errors import NeuronError, ScoreError

from .cultures import culture_task, plain_task

TASKS = [culture_task(each=2).test_split(), plain_task().test_split()]


@pytest.fixture(scope="module")
def scores(loaded):
    return score_neurons(loaded("llama"), culture_task(each=2).neuron_split(), progress=False)


@pytest.fixture(scope="module")
def sets(scores):
    return {f"top {top}": select_general(scores, top_mlp=top, top_attn=top / 2) for top in (0.1, 0.3)}


@pytest.fixture(scope="module")
def found(loaded, sets, scores) -> ComparedSets:
    return compare_sets(loaded("llama"), TASKS, sets, 2, scores=scores, progress=False)


def test_each_set_is_evaluated(found, loaded, sets):
    alone = evaluate(loaded("llama"), TASKS[0], ablate=sets["top 0.3"], progress=False).table
    mine = found.results["top 0.3"].table
    assert mine.loc[mine["task"] == "culture", "p_answer"].tolist() == alone["p_answer"].tolist()


def test_random_sets_match_their_set_by_layer(found, sets, scores):
    drawn = [select_random(sets["top 0.1"], scores, seed=seed, match="layer") for seed in (0, 1)]
    assert [r.metadata["neurons"] for r in found.random["top 0.1"]] == [neurons.hash for neurons in drawn]


def test_the_unchanged_model_is_asked_once(found, loaded, sets):
    again = compare_sets(loaded("llama"), TASKS, sets, base=found.base, progress=False)
    assert again.base is found.base and again.random == {}


def test_one_row_per_set_and_task(found):
    table = found.table(draws=50)
    assert table[["set", "asked"]].to_numpy().tolist() == [
        [name, task] for name in ("top 0.1", "top 0.3") for task in ("culture", "sense")
    ]


def test_drops_are_points_of_accuracy(found):
    row = found.table(draws=50).set_index(["set", "asked"]).loc[("top 0.3", "culture")]
    before, after = (r.accuracy().loc["culture", "accuracy"] for r in (found.base, found.results["top 0.3"]))
    assert row["drop"] == pytest.approx(before - after)


def test_tables_are_named_for_their_files(found):
    assert set(found.tables()) == {"overlap", "cross-effects"}


def test_random_sets_need_scores(loaded, sets):
    with pytest.raises(ScoreError, match="scores="):
        compare_sets(loaded("llama"), TASKS, sets, 2)


def test_an_empty_set_has_no_random_sets(loaded, scores):
    empty = select_general(scores, top_mlp=0, top_attn=0)
    with pytest.raises(NeuronError, match="empty"):
        compare_sets(loaded("llama"), TASKS, {"none": empty}, 1, scores=scores)
