"""What culture loses against the worst other task, against loops."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from culnig_tl import EvaluationResult
from culnig_tl.analyses.selectivity import (
    CHOSEN,
    held_out,
    losses,
    selective,
    selectivity_curves,
    selectivity_table,
)
from culnig_tl.data.results import COLUMNS
from culnig_tl.study.comparison import in_first_half

TASKS = {"culture": 40, "sums": 30, "words": 30}


def answers(lost: dict[str, tuple[float, float]], *, known: bool = True) -> EvaluationResult:
    """Answers whose P is 0.8 less what each half of a task loses; two questions a cluster."""
    rows = []
    for task, count in TASKS.items():
        for i in range(count):
            cluster = f"{task} {i // 2}"
            first, second = lost.get(task, (0.0, 0.0))
            p = 0.8 - (first if in_first_half(task, cluster) else second) + 0.01 * (i % 3 - 1)
            row = dict.fromkeys(COLUMNS, "") | {"task": task, "id": f"{task} {i}", "cluster": cluster}
            row |= {"p_answer": p if known else np.nan, "correct": p > 0.5, "correct_label": p > 0.5}
            rows.append(row | {"alignment": np.nan})
    return EvaluationResult(pd.DataFrame(rows, columns=list(COLUMNS)), {"model": "m"})


BASE = answers({})
SETS = {
    "broad": [{"culture": (0.1, 0.1), "sums": (0.1, 0.1)}, {"culture": (0.3, 0.3), "words": (0.4, 0.4)}],
    "narrow": [{"culture": (0.1, 0.2), "sums": (0.02, 0.02)}, {"culture": (0.2, 0.1), "sums": (0.06, 0.0)}],
}
OF = {name: [losses(BASE, answers(lost)) for lost in several] for name, several in SETS.items()}


def test_curves_are_the_means_by_task():
    curves = selectivity_curves(OF, [10, 20], ["culture"])
    assert list(curves["neurons"]) == [0, 10, 20] * 2
    broad = curves[curves["method"] == "broad"]
    np.testing.assert_allclose(broad["culture_lost"], [0, 10, 30])
    np.testing.assert_allclose(broad["worst_lost"], [0, 10, 40])
    assert list(broad["worst_task"]) == ["", "sums", "words"]


def test_areas_and_the_point_where_half_is_gone():
    curves = selectivity_curves(OF, [10, 20], ["culture"])
    table = selectivity_table(curves)
    # culture - worst: 0, 0, -10; the most that culture loses is 30, and 15 lies a quarter of the way from 10
    assert table.loc["broad", "area_selective"] == pytest.approx((0 * 10 + -5 * 10) / 20)
    assert table.loc["broad", "neurons_there"] == pytest.approx(12.5)
    assert table.loc["broad", "worst_there"] == pytest.approx(10 + 0.25 * 30)
    gone = selectivity_table(curves, gone=1.0)
    assert np.isnan(gone.loc["narrow", "neurons_there"]) and gone.loc["broad", "neurons_there"] == 20


def test_the_size_is_chosen_on_one_half_and_reported_on_the_other():
    # narrow: by the first half D is 10 - 4 and 20 - 12, by the second 20 - 4 and 10 - 0
    found = held_out(OF, [10, 20], ["culture"], draws=200)
    row = found.loc["narrow"]
    assert row["neurons"] == "20 and 10"
    lost, asked = {"culture": 0.0, "sums": 0.0}, {"culture": 0, "sums": 0}
    for task in lost:
        for i in range(TASKS[task]):  # the second half by the first's choice, the first by the second's
            first = in_first_half(task, f"{task} {i // 2}")
            lost[task] += 100 * SETS["narrow"][0 if first else 1][task][0 if first else 1]
            asked[task] += 1
    own, worst = (lost[task] / asked[task] for task in lost)
    assert row["culture_lost"] == pytest.approx(own) and row["worst_lost"] == pytest.approx(worst)
    assert row["d"] == pytest.approx(own - 2 * worst)
    assert row["d_low"] <= row["d"] <= row["d_high"]
    assert found.loc[CHOSEN, "neurons"] == "narrow, 20 and narrow, 10"
    assert found.loc[CHOSEN, "d"] == pytest.approx(row["d"])
    assert found.loc["broad", "d_high"] < 0 < found.loc["narrow", "d_low"]


def test_a_gain_elsewhere_does_not_count_for_it():
    assert selective(3.0, -5.0) == 3.0 and selective(3.0, 1.0) == 1.0


def test_answers_without_a_p_count_as_right_or_wrong():
    of = losses(answers({}, known=False), answers({"culture": (0.5, 0.5)}, known=False))
    assert of["culture"].mean() == pytest.approx(100) and of["sums"].mean() == 0


def test_without_a_task_beside_culture_nothing_is_chosen_for():
    culture_alone = {name: [{"culture": one["culture"]} for one in several] for name, several in OF.items()}
    found = held_out(culture_alone, [10, 20], ["culture"], draws=50)
    assert np.isnan(found["d"]).all() and (found["culture_lost"] > 0).all()
