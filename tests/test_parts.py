"""The method with one part left out, two languages, depth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from culnig_tl import NeuronSet, score_neurons, select_general
from culnig_tl.analyses import compare_languages, depth_thirds, switch_off_parts
from culnig_tl.analyses.language import ENGLISH, LANGUAGE, LOCAL, pair
from culnig_tl.analyses.parts import WHOLE
from culnig_tl.data.neurons import Provenance
from culnig_tl.errors import NeuronError, ScoreError, TaskError

from .cultures import culture_task, plain_task

CUT = {"top_mlp": 0.1, "top_attn": 0.05, "drop_reading": 0.05}
TASK, READING = culture_task(each=2), culture_task("reading", each=2).neuron_split()


# ----------------------------------------------------------------------------------------- the method's parts


@pytest.fixture(scope="module")
def parts(loaded):
    asked = [TASK.test_split(), plain_task().test_split()]
    return switch_off_parts(loaded("llama"), TASK.neuron_split(), READING, asked, **CUT, progress=False)


def test_every_part_is_left_out(parts):
    assert list(parts.table().index) == [
        WHOLE,
        "no control",
        "no CountryRC filter",
        "MLP only",
        "attention only",
        "sum over tokens",
        "mean over tokens",
    ]


@pytest.mark.parametrize(
    ("name", "method", "without"),
    [
        ("no control", "culnig", 1),
        ("no CountryRC filter", "culnig", 2),
        ("sum over tokens", "culnig-sum", None),
    ],
)
def test_a_variant_is_the_selection_without_the_part(parts, loaded, name, method, without):
    splits = (TASK.neuron_split(), TASK.neuron_split().control(), READING)
    scores = [
        None if place == without else score_neurons(loaded("llama"), task, method=method, progress=False)
        for place, task in enumerate(splits)
    ]
    assert parts.sets[name] == select_general(*scores, **CUT)


def test_mlp_and_attention_make_the_whole(parts):
    assert parts.sets["MLP only"].keys() | parts.sets["attention only"].keys() == parts.sets[WHOLE].keys()


def test_counts_by_pool(parts):
    table = parts.table()
    assert table.loc["MLP only", "attn"] == table.loc["attention only", "mlp"] == 0
    assert (table["mlp"] + table["attn"] == table["neurons"]).all()


def test_overlap_is_with_the_whole_method(parts):
    table = parts.table()
    assert table.loc[WHOLE, "jaccard"] == 1 and 0 <= table.loc["sum over tokens", "jaccard"] < 1


def test_accuracy_and_drop_add_up_to_the_unchanged_model(parts):
    table, base = parts.table(), parts.base.accuracy().loc["culture", "accuracy"]
    np.testing.assert_allclose(table["culture accuracy"] + table["culture drop"], base)


def test_parts_want_a_task(loaded):
    with pytest.raises(ScoreError, match="no task"):
        switch_off_parts(loaded("llama"), TASK, READING, [])


# ---------------------------------------------------------------------------------------------- two languages


def translated(task, name="culture-local"):
    """The question in other words; the USA keep theirs."""

    def said(q):
        return (
            q.prompt
            if q.country == "USA"
            else q.prompt.replace("What do people in", "Answer: Which is held in")
        )

    rows = tuple(dataclasses.replace(q, task=name, prompt=said(q)) for q in task)
    return dataclasses.replace(task, name=name, questions=rows)


@pytest.fixture(scope="module")
def languages(loaded):
    return compare_languages(
        loaded("llama"), TASK, translated(TASK), READING, **CUT, random_sets=3, progress=False
    )


def test_three_sets_are_found(languages):
    assert list(languages.sets) == [ENGLISH, LOCAL, LANGUAGE]


def test_questions_with_one_wording_are_left_out(languages):
    assert set(languages.base.table["task"]) == {"culture", "culture-local"}
    assert "USA" not in set(languages.base.table["country"])


def test_overlap_of_every_pair_against_chance(languages):
    overlap, sets = languages.overlap(), languages.sets
    assert overlap[["set", "other"]].to_numpy().tolist() == [
        [ENGLISH, LOCAL],
        [ENGLISH, LANGUAGE],
        [LOCAL, LANGUAGE],
    ]
    first, size = overlap.iloc[0], 3 * (72 + 48 + 16 + 16)
    assert first["common"] == len(sets[ENGLISH].keys() & sets[LOCAL].keys())
    assert first["by_chance"] == pytest.approx(len(sets[ENGLISH]) * len(sets[LOCAL]) / size)


def test_each_set_is_asked_about_in_both_languages(languages):
    table = languages.table(draws=50)
    expected = [[name, task] for name in languages.sets for task in ("culture", "culture-local")]
    assert table[["set", "asked"]].to_numpy().tolist() == expected and (table["random_sets"] == 3).all()


@pytest.mark.parametrize("name", ["culture", "other"])
def test_languages_that_share_no_question_are_a_clear_error(name):
    with pytest.raises(TaskError, match="share no question"):
        pair(culture_task(each=1), culture_task(name, each=1))


def test_the_two_languages_need_names_of_their_own():
    with pytest.raises(TaskError, match="same name"):
        pair(TASK, translated(TASK, "culture"))


# ------------------------------------------------------------------------------------------------------ depth


@pytest.fixture(scope="module")
def thirds():
    counts = [9, 6, 3, 2, 0, 0]
    rows = [("mlp.gate", layer, n) for layer, count in enumerate(counts) for n in range(count)]
    known = Provenance(pool={"mlp.gate": 50, "attn.q": 10}, layers=6)
    return depth_thirds(NeuronSet.from_indices([*rows, ("attn.q", 5, 0)], known))


def test_neurons_are_counted_by_pool_and_third(thirds):
    assert thirds.loc["mlp", "neurons"].tolist() == [15, 5, 0]
    assert thirds.loc["attn", "neurons"].tolist() == [0, 0, 1]


def test_depth_in_percent_beside_the_pool(thirds):
    assert thirds.loc[("all", "shallow"), "percent"] == pytest.approx(100 * 15 / 21)
    assert thirds["pool_percent"].tolist() == pytest.approx([100 / 3] * 9)


def test_intervals_are_wilsons(thirds):
    interval = stats.binomtest(15, 20).proportion_ci(method="wilson")
    expected = [100 * interval.low, 100 * interval.high]
    assert thirds.loc[("mlp", "shallow"), ["low", "high"]].tolist() == pytest.approx(expected)


def test_depth_has_a_p(thirds):
    assert thirds.loc[("mlp", "shallow"), "p"] < 0.001 < thirds.loc[("attn", "deep"), "p"]


def test_layers_that_three_does_not_divide():
    known = Provenance(pool={"mlp.gate": 5}, layers=4)
    table = depth_thirds(NeuronSet.from_indices([("mlp.gate", layer, 0) for layer in range(4)], known)).loc[
        "mlp"
    ]
    assert table["neurons"].tolist() == [2, 1, 1] and table["pool_percent"].tolist() == [50, 25, 25]


@pytest.mark.parametrize(
    ("rows", "known", "says"),
    [
        ([("mlp.gate", 0, 0)], Provenance(), "does not know"),
        ([], Provenance(pool={"mlp.gate": 5}, layers=6), "empty"),
    ],
)
def test_sets_without_a_depth_are_refused(rows, known, says):
    with pytest.raises(NeuronError, match=says):
        depth_thirds(NeuronSet.from_indices(rows, known))
