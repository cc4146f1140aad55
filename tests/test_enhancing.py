"""Enhancing: the sweep against single evaluations, and what it refuses."""

from __future__ import annotations

import numpy as np
import pytest

from culnig_tl import evaluate, score_neurons, select_general, select_specific
from culnig_tl.analyses.enhancing import OWN, Enhancement, enhance_sweep
from culnig_tl.errors import ScoreError
from culnig_tl.study.config import GENERAL, RANDOM

from .cultures import culture_task, plain_task


@pytest.fixture(scope="module")
def parts(loaded):
    model, task = loaded("llama"), culture_task(each=3)
    scores = [
        score_neurons(model, t, progress=False)
        for t in (task.neuron_split(), task.neuron_split().control(), task.neuron_split())
    ]
    general = select_general(*scores, top_mlp=0.3, top_attn=0.1, drop_reading=0)
    specific = select_specific(*scores, top=0.2, drop_reading=0, countries=task.countries[:3], z=0)
    return model, [task.test_split(), plain_task().test_split()], general, specific, scores[0]


def test_every_point_is_an_evaluation_of_its_own(parts):
    model, tasks, general, specific, scores = parts
    found = enhance_sweep(
        model,
        tasks,
        general,
        specific,
        scores=scores,
        random_sets=2,
        factors=[1.5, 3.0],
        draws=200,
        progress=False,
    )
    rows = found.rows
    assert set(rows["set"]) == {GENERAL, RANDOM, OWN, *(f"{c}'s own" for c in specific.countries)}
    assert set(rows["factor"]) == {1.5, 3.0} and found.culture == ("culture",)
    for task in tasks:
        before = evaluate(model, task, progress=False).table
        after = evaluate(model, task, neurons=general, scale=3.0, progress=False).table
        row = rows[(rows["set"] == GENERAL) & (rows["factor"] == 3.0) & (rows["task"] == task.name)].iloc[0]
        assert row["base"] == pytest.approx(100 * before["correct"].mean())
        assert row["change"] == pytest.approx(100 * (after["correct"].mean() - before["correct"].mean()))
        assert row["p_change"] == pytest.approx(
            100 * (after["p_answer"].mean() - before["p_answer"].mean()), abs=1e-4
        )
        assert row["low"] <= row["change"] <= row["high"] and row["p_low"] <= row["p_change"] <= row["p_high"]
    assert (rows["p_change"].abs() > 0).any()
    country = specific.countries[0]
    part = tasks[0].filter(lambda q: q.country == country)
    after = evaluate(model, part, neurons=specific.for_country(country), scale=1.5, progress=False).table
    row = rows[(rows["set"] == f"{country}'s own") & (rows["factor"] == 1.5)].iloc[0]
    assert row["accuracy"] == pytest.approx(100 * after["correct"].mean()) and row["questions"] == len(part)
    own = rows[(rows["set"] == OWN) & (rows["factor"] == 1.5)].iloc[0]
    singles = rows[rows["set"].str.endswith("'s own") & (rows["factor"] == 1.5)]
    assert own["change"] == pytest.approx(np.average(singles["change"], weights=singles["questions"]))
    assert found.figure().data and "cultural accuracy" in found.sentence()


def test_a_factor_of_one_changes_nothing(parts):
    model, tasks, general, _, _ = parts
    rows = enhance_sweep(model, tasks, general, factors=[1.0], draws=50, progress=False).rows
    assert (rows["change"] == 0).all() and (rows["high"] == 0).all() and set(rows["set"]) == {GENERAL}


def test_the_sentence_says_what_the_rows_say(parts):
    model, tasks, general, _, _ = parts
    rows = enhance_sweep(model, tasks, general, factors=[1.1], draws=50, progress=False).rows
    up = Enhancement(rows.assign(change=2.0, low=1.0, high=3.0), ("culture",))
    flat = Enhancement(rows.assign(change=0.5, low=-1.0, high=2.0), ("culture",))
    assert "raises cultural accuracy beyond its interval at 1 of 1" in up.sentence() and len(up.raised()) == 1
    assert "does not raise" in flat.sentence() and not len(flat.raised())


def test_questions_that_neurons_were_found_on_are_refused(parts):
    model, tasks, general, _, _ = parts
    with pytest.raises(ScoreError, match=r"test_split\(\)"):
        enhance_sweep(model, [culture_task(each=1)], general, progress=False)
    with pytest.raises(ScoreError, match="factor"):
        enhance_sweep(model, tasks, general, factors=[], progress=False)
