"""Power by simulation: sure effects are always seen, none is seen as often as chance has it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from culnig_tl import EvaluationResult, load_study
from culnig_tl.analyses.power import _answers, _experiment, power
from culnig_tl.errors import ScoreError
from culnig_tl.study.config import UNCHANGED

HOW = {"simulations": 60, "draws": 200, "progress": False}


@pytest.fixture(scope="module")
def study():
    return load_study("gemma-3-270m")


def test_a_large_effect_shows_and_more_questions_show_more(study):
    found = power(study, own=6.0, questions=[200, 5], **HOW)
    small, large = found.rows["own_power"]
    assert list(found.rows["questions"]) == [5, 200] and small < 0.7 and large > 0.95
    assert found.needed() == 200 and found.needed(0.0) == 5
    assert "From 200 questions" in str(found)


def test_no_effect_is_seen_at_the_rate_of_the_test(study):
    row = power(study, own=0.0, questions=[40], **HOW).rows.iloc[0]
    assert row["own_power"] < 0.2 and row["related_power"] < 0.2
    nothing = power(study, own=0.0, questions=[5], **HOW)
    assert nothing.needed() is None and "None of these numbers" in str(nothing)


def test_related_countries_are_seen_when_they_lose(study):
    row = power(study, own=12.0, related=12.0, questions=[300], relation="region", **HOW).rows.iloc[0]
    assert row["related_power"] > 0.6


def test_an_experiment_loses_the_effect_beyond_random_sets():
    rng = np.random.default_rng(0)
    right = np.tile((rng.random(400) < 0.6).astype(float), (3, 1))  # random sets that change nothing
    effects = np.array([[20.0, 0.0, 5.0]])
    drops = np.mean([_experiment(right, effects, 50, rng) for _ in range(800)], axis=0)
    np.testing.assert_allclose(drops, effects, atol=1.0)


def test_answers_are_those_that_every_set_was_asked(study):
    base = study.results[UNCHANGED].of_task("blend")
    part = EvaluationResult(base.table.iloc[10:50], base.metadata)
    right, countries = _answers(base, [part, base])
    expected = part.table["correct"].to_numpy(float)
    assert right.shape == (3, 40) and (right == expected).all()
    assert set(countries) == set(part.table["country"])


def test_what_cannot_be_is_said(study):
    with pytest.raises(ScoreError, match="what there is to lose"):
        power(study, own=90.0, questions=[5], **HOW)
    alone = type(study)(
        study.config, study.info, study.scores, study.neurons, {UNCHANGED: study.results[UNCHANGED]}
    )
    with pytest.raises(ScoreError, match="this study has none"):
        power(alone, questions=[5], **HOW)


def test_the_table_is_one_row_a_size(study):
    table = power(study, questions=[5, 10], simulations=5, draws=50, progress=False).tables()["power"]
    assert isinstance(table, pd.DataFrame) and len(table) == 2
