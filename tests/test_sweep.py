"""A sweep is the selections one by one, and its tables say so."""

from __future__ import annotations

import numpy as np
import pytest

from culnig_tl import score_neurons, select_general, select_specific
from culnig_tl.analyses import threshold_sweep
from culnig_tl.defaults import TOP_MLP
from culnig_tl.errors import NeuronError

from .builders import CONTROL, CULTURE, READING
from .cultures import culture_task, plain_task

SCORES = (CULTURE, CONTROL, READING)


@pytest.fixture(scope="module")
def general():
    return threshold_sweep(*SCORES, top=[0.05, 0.1, 0.3], drop_reading=[0, 0.01, 0.2])


def test_every_point_is_the_selection_made_alone(general):
    for point in general.points:
        top, cut = point.thresholds["top"], point.thresholds["drop_reading"]
        alone = select_general(*SCORES, top_mlp=top, top_attn=top / 5, drop_reading=cut)
        assert point.neurons == alone and point.neurons.provenance.candidates == alone.provenance.candidates


def test_all_combinations_are_swept(general):
    assert len(general.points) == 9


def test_counts_add_up(general):
    table = general.table()
    assert table["neurons"].tolist() == [len(p.neurons) for p in general.points]
    assert (table["mlp"] + table["attn"] == table["neurons"]).all()
    assert (table["candidates"] - table["removed_by_reading"] == table["neurons"]).all()


def test_a_countrys_points_too():
    swept = threshold_sweep(
        *SCORES, country="Iran", top=[0.05, 0.2], drop_reading=[0.01, 0.1], z=[0, 0.5, 1.5]
    )
    assert len(swept.points) == 12
    for point in swept.points:
        assert point.neurons.keys() == select_specific(*SCORES, countries=["Iran"], **point.thresholds).keys()


def test_the_papers_point_is_known():
    swept = threshold_sweep(*SCORES)
    papers = [p.neurons.provenance.paper_defaults for p in swept.points]
    assert papers == [p.thresholds["top"] == TOP_MLP for p in swept.points]


@pytest.fixture(scope="module")
def asked(loaded):
    model, task, reading = loaded("llama"), culture_task(), culture_task("reading")
    splits = (task.neuron_split(), task.neuron_split().control(), reading.neuron_split())
    scores = [score_neurons(model, t, progress=False) for t in splits]
    tests = [task.test_split(), plain_task().test_split()]
    return threshold_sweep(*scores, top=[0.02, 0.3], model=model, tasks=tests, progress=False)


def test_accuracy_and_drop_add_up_to_the_unchanged_model(asked):
    table, base = asked.table(), asked.base.accuracy()
    for task in ("culture", "sense"):
        np.testing.assert_allclose(
            table[f"{task} accuracy"] + table[f"{task} drop"], base.loc[task, "accuracy"]
        )


def test_curves_follow_the_threshold_that_moves(asked):
    curves = asked.curves()
    assert set(curves["parameter"]) == {"top_mlp"} and set(curves["threshold"]) == {0.02, 0.3}
    assert set(curves["setting"]) == {"unchanged", "culture-general, suppress"}


def test_curves_know_which_tasks_are_cultural(asked):
    curves = asked.curves()
    assert set(curves[curves["culture"]]["task"]) == {"culture"}


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"top": []}, "at least one value"),
        ({"drop_reading": []}, "at least one value"),
        ({"top": [2.0]}, "between 0 and 1"),
        ({"tasks": [culture_task()]}, "model"),
    ],
)
def test_bad_input_is_a_clear_error(given, says):
    with pytest.raises(NeuronError, match=says):
        threshold_sweep(*SCORES, **given)


def test_a_sweep_that_only_counted_has_no_curves():
    with pytest.raises(NeuronError, match="only counted"):
        threshold_sweep(*SCORES).curves()
