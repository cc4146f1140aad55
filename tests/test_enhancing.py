"""Enhancing: every point against evaluations of its own, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from culnig_tl import evaluate, score_neurons, select_general, select_specific
from culnig_tl.analyses import Enhancement, enhance_sweep
from culnig_tl.analyses.enhancing import OWN, RANDOM
from culnig_tl.errors import ScoreError
from culnig_tl.study.config import GENERAL

from .cultures import culture_task, plain_task

TASKS = [culture_task(each=3).test_split(), plain_task().test_split()]


@pytest.fixture(scope="module")
def scores(loaded):
    found_on = culture_task(each=3).neuron_split()
    return [
        score_neurons(loaded("llama"), task, progress=False)
        for task in (found_on, found_on.control(), found_on)
    ]


@pytest.fixture(scope="module")
def general(scores):
    return select_general(*scores, top_mlp=0.3, top_attn=0.1, drop_reading=0)


@pytest.fixture(scope="module")
def specific(scores):
    return select_specific(*scores, top=0.2, drop_reading=0, countries=TASKS[0].countries[:3], z=0)


@pytest.fixture(scope="module")
def rows(loaded, general, specific, scores):
    sets = {"scores": scores[0], "random_sets": 2, "factors": [1.5, 3.0]}
    return enhance_sweep(loaded("llama"), TASKS, general, specific, **sets, draws=200, progress=False).rows


def row_of(rows, name, factor, task="culture"):
    (row,) = rows[(rows["set"] == name) & (rows["factor"] == factor) & (rows["task"] == task)].to_dict(
        "records"
    )
    return row


def test_every_set_is_tried_with_every_factor(rows, specific):
    assert set(rows["set"]) == {GENERAL, RANDOM, OWN, *(f"{c}'s own" for c in specific.countries)}
    assert set(rows["factor"]) == {1.5, 3.0}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_point_is_an_evaluation_of_its_own(rows, task, loaded, general):
    before = evaluate(loaded("llama"), task, progress=False).table
    after = evaluate(loaded("llama"), task, ablate=general, scale=3.0, progress=False).table
    row = row_of(rows, GENERAL, 3.0, task.name)
    assert row["base"] == pytest.approx(100 * before["correct"].mean())
    assert row["change"] == pytest.approx(100 * (after["correct"].mean() - before["correct"].mean()))
    assert row["p_change"] == pytest.approx(
        100 * (after["p_answer"].mean() - before["p_answer"].mean()), abs=1e-4
    )


def test_changes_lie_in_their_intervals(rows):
    assert rows["change"].between(rows["low"], rows["high"]).all()
    assert rows["p_change"].between(rows["p_low"], rows["p_high"]).all() and (rows["p_change"] != 0).any()


def test_a_countrys_neurons_are_tried_on_its_questions(rows, loaded, specific):
    country = specific.countries[0]
    part = TASKS[0].filter(lambda q: q.country == country)
    after = evaluate(loaded("llama"), part, ablate=specific.for_country(country), scale=1.5, progress=False)
    row = row_of(rows, f"{country}'s own", 1.5)
    assert row["accuracy"] == pytest.approx(100 * after.table["correct"].mean())
    assert row["questions"] == len(part)


def test_all_countries_together_are_their_weighted_mean(rows):
    singles = rows[rows["set"].str.endswith("'s own") & (rows["factor"] == 1.5)]
    expected = np.average(singles["change"], weights=singles["questions"])
    assert row_of(rows, OWN, 1.5)["change"] == pytest.approx(expected)


def test_a_factor_of_one_changes_nothing(loaded, general):
    rows = enhance_sweep(loaded("llama"), TASKS, general, factors=[1.0], draws=50, progress=False).rows
    assert (rows["change"] == 0).all() and (rows["high"] == 0).all() and set(rows["set"]) == {GENERAL}


@pytest.mark.parametrize(
    ("low", "high", "says", "raised"),
    [
        (1.0, 3.0, "Enhancing raises cultural accuracy", 1),
        (-1.0, 3.0, "It is open whether", 0),
        (-3.0, -1.0, "at none of 1 points", 0),
    ],
)
def test_the_sentence_says_what_the_rows_say(rows, low, high, says, raised):
    one = rows[(rows["set"] == GENERAL) & (rows["task"] == "culture") & (rows["factor"] == 1.5)]
    found = Enhancement(one.assign(change=(low + high) / 2, low=low, high=high), ("culture",))
    assert says in found.sentence() and len(found.raised()) == raised


def test_questions_that_neurons_were_found_on_are_refused(loaded, general):
    with pytest.raises(ScoreError, match=r"test_split\(\)"):
        enhance_sweep(loaded("llama"), [culture_task(each=1)], general, progress=False)


def test_no_factor_is_refused(loaded, general):
    with pytest.raises(ScoreError, match="factor"):
        enhance_sweep(loaded("llama"), TASKS, general, factors=[], progress=False)
