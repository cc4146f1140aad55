"""A sweep is the selections one by one, and its table and figure say so."""

from __future__ import annotations

import numpy as np
import pytest

from culnig_tl.analyses import sweep as sweep_module
from culnig_tl.analyses.sweep import SHARES, threshold_sweep
from culnig_tl.errors import NeuronError
from culnig_tl.method.score import score_neurons
from culnig_tl.method.selection import select_general, select_specific

from .cultures import culture_task, plain_task
from .test_selection import CONTROL, CULTURE, READING


def test_every_point_is_the_selection_made_alone():
    swept = threshold_sweep(CULTURE, CONTROL, READING, t=[0.05, 0.1, 0.3], drop_reading=[0, 0.01, 0.2])
    assert len(swept.points) == 9
    for point in swept.points:
        t, r = point.thresholds["t"], point.thresholds["drop_reading"]
        alone = select_general(
            CULTURE, CONTROL, READING, top_mlp=t, top_attn=t / 5, drop_reading=drop_reading
        )
        assert point.neurons == alone
        assert point.neurons.provenance.candidates == alone.provenance.candidates
    table = swept.table()
    assert table["neurons"].tolist() == [len(p.neurons) for p in swept.points]
    assert (table["mlp"] + table["attn"] == table["neurons"]).all()
    assert (table["candidates"] - table["removed_by_reading"] == table["neurons"]).all()


def test_a_countrys_points_too():
    swept = threshold_sweep(
        CULTURE, CONTROL, READING, country="Iran", t=[0.05, 0.2], drop_reading=[0.01, 0.1], z=[0, 0.5, 1.5]
    )
    assert len(swept.points) == 12
    for point in swept.points:
        alone = select_specific(CULTURE, CONTROL, READING, countries=["Iran"], **point.thresholds)
        assert point.neurons.keys() == alone.keys()


def test_the_sweep_ranks_once(monkeypatch):
    calls = []
    original = sweep_module.rank_general
    monkeypatch.setattr(sweep_module, "rank_general", lambda *a, **k: calls.append(1) or original(*a, **k))
    swept = threshold_sweep(CULTURE, CONTROL, READING)
    assert len(calls) == 1 and [p.thresholds["t"] for p in swept.points] == list(SHARES)
    assert [p.neurons.provenance.paper_defaults for p in swept.points] == [t == 0.01 for t in SHARES]
    sizes = [len(p.neurons) for p in swept.points]
    assert sizes == sorted(sizes)


def test_accuracy_and_figure(loaded):
    model, task, reading = loaded("llama"), culture_task(), culture_task("reading")
    scores = [
        score_neurons(model, t, progress=False)
        for t in (task.neuron_split(), task.neuron_split().control(), reading.neuron_split())
    ]
    asked = [task.test_split(), plain_task().test_split()]
    swept = threshold_sweep(*scores, t=[0.02, 0.3], model=model, tasks=asked, progress=False)
    table = swept.table()
    assert {"culture accuracy", "culture drop", "culture se", "sense accuracy"} <= set(table.columns)
    base = swept.base.accuracy().loc["culture", "accuracy"]
    np.testing.assert_allclose(table["culture accuracy"] + table["culture drop"], base)
    curves = swept.curves()
    assert set(curves["setting"]) == {"unchanged", "culture-general, suppress"} and set(
        curves["parameter"]
    ) == {"top_mlp"}
    assert set(curves[curves["culture"]]["task"]) == {"culture"}
    figure = swept.figure()
    assert len(figure.data) >= 4 and "accuracy" in figure.layout.yaxis.title.text


def test_bad_input_is_a_clear_error():
    for arguments, message in (
        ({"t": []}, "one value"),
        ({"t": [2.0]}, "between 0 and 1"),
        ({"tasks": [culture_task()]}, "model"),
    ):
        with pytest.raises(NeuronError, match=message):
            threshold_sweep(CULTURE, CONTROL, READING, **arguments)
    with pytest.raises(NeuronError, match="only counted"):
        threshold_sweep(CULTURE, CONTROL, READING).curves()
