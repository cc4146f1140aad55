"""The method with one part switched off, the two languages, depth."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from culnig_tl import NeuronSet
from culnig_tl.analyses.depth import depth_thirds
from culnig_tl.analyses.language import ENGLISH, LANGUAGE, LOCAL, compare_languages, pair
from culnig_tl.analyses.parts import WHOLE, switch_off_parts
from culnig_tl.data.neurons import Provenance
from culnig_tl.errors import NeuronError, ScoreError, TaskError
from culnig_tl.method.score import score_neurons
from culnig_tl.method.selection import select_general

from .cultures import culture_task, plain_task

CUT = {"top_mlp": 0.1, "top_attn": 0.05, "drop_reading": 0.05}


def test_parts_are_the_selections_without_a_part(loaded):
    model, task, reading = loaded("llama"), culture_task(each=2), culture_task("reading", each=2)
    parts = switch_off_parts(
        model,
        task.neuron_split(),
        reading.neuron_split(),
        [task.test_split(), plain_task().test_split()],
        **CUT,
        progress=False,
    )
    table = parts.table()
    assert list(table.index) == [
        WHOLE, "no control", "no CountryRC filter", "MLP only", "attention only", "sum over tokens", "mean over tokens",
    ]  # fmt: skip
    neuron, control, crc = (
        score_neurons(model, t, progress=False)
        for t in (task.neuron_split(), task.neuron_split().control(), reading.neuron_split())
    )
    assert parts.sets["no control"] == select_general(neuron, None, crc, **CUT)
    assert parts.sets["MLP only"].keys() | parts.sets["attention only"].keys() == parts.sets[WHOLE].keys()
    assert table.loc["MLP only", "attn"] == 0 and table.loc["attention only", "mlp"] == 0
    assert table.loc[WHOLE, "jaccard"] == 1 and 0 <= table.loc["sum over tokens", "jaccard"] < 1
    base = parts.base.accuracy().loc["culture", "accuracy"]
    np.testing.assert_allclose(table["culture accuracy"] + table["culture drop"], base)
    with pytest.raises(ScoreError, match="no task"):
        switch_off_parts(model, task, reading, [])


def translated(task, name="culture-local"):
    """The question in other words; the USA keep theirs."""
    rows = [
        dataclasses.replace(
            q,
            task=name,
            prompt=q.prompt
            if q.country == "USA"
            else q.prompt.replace("What do people in", "Answer: Which is held in"),
        )
        for q in task
    ]
    return dataclasses.replace(task, name=name, questions=tuple(rows))


def test_two_languages_side_by_side(loaded):
    model, task = loaded("llama"), culture_task(each=2)
    found = compare_languages(
        model,
        task,
        translated(task),
        culture_task("reading", each=2).neuron_split(),
        **CUT,
        random_sets=3,
        progress=False,
    )
    assert list(found.sets) == [ENGLISH, LOCAL, LANGUAGE]
    assert set(found.base.table["task"]) == {"culture", "culture-local"} and "USA" not in set(
        found.base.table["country"]
    )
    overlap = found.overlap()
    assert overlap[["set", "other"]].to_numpy().tolist() == [
        [ENGLISH, LOCAL],
        [ENGLISH, LANGUAGE],
        [LOCAL, LANGUAGE],
    ]
    first = overlap.iloc[0]
    assert first["common"] == len(found.sets[ENGLISH].keys() & found.sets[LOCAL].keys())
    size = 3 * (72 + 48 + 16 + 16)
    assert first["by_chance"] == pytest.approx(len(found.sets[ENGLISH]) * len(found.sets[LOCAL]) / size)
    table = found.table()
    assert table[["set", "asked"]].to_numpy().tolist() == [
        [s, t] for s in found.sets for t in ("culture", "culture-local")
    ]
    assert (table["random_sets"] == 3).all() and {"drop", "low", "high", "p_bootstrap_holm"} <= set(
        table.columns
    )


def test_languages_that_share_no_question_are_a_clear_error():
    task = culture_task(each=1)
    with pytest.raises(TaskError, match="share no question"):
        pair(task, task)
    other = culture_task("other", each=1)
    with pytest.raises(TaskError, match="share no question"):
        pair(task, other)


def test_depth_against_the_pool():
    rows = [
        ("mlp.gate", layer, n) for layer, count in enumerate([9, 6, 3, 2, 0, 0]) for n in range(count)
    ] + [("attn.q", 5, 0)]
    neurons = NeuronSet.from_indices(rows, Provenance(pool={"mlp.gate": 50, "attn.q": 10}, layers=6))
    table = depth_thirds(neurons)
    assert table.loc["mlp", "neurons"].tolist() == [15, 5, 0] and table.loc["attn", "neurons"].tolist() == [
        0,
        0,
        1,
    ]
    assert table.loc[("all", "shallow"), "percent"] == pytest.approx(100 * 15 / 21)
    assert table["pool_percent"].tolist() == pytest.approx([100 / 3] * 9)
    interval = stats.binomtest(15, 20).proportion_ci(method="wilson")
    assert table.loc[("mlp", "shallow"), ["low", "high"]].tolist() == pytest.approx(
        [100 * interval.low, 100 * interval.high]
    )
    assert table.loc[("mlp", "shallow"), "p"] < 0.001 < table.loc[("attn", "deep"), "p"]
    with pytest.raises(NeuronError, match="does not know"):
        depth_thirds(NeuronSet.from_indices(rows))
    with pytest.raises(NeuronError, match="empty"):
        depth_thirds(NeuronSet.from_indices([], Provenance(pool={"mlp.gate": 50}, layers=6)))


def test_layers_that_three_does_not_divide():
    neurons = NeuronSet.from_indices(
        [("mlp.gate", layer, 0) for layer in range(4)], Provenance(pool={"mlp.gate": 5}, layers=4)
    )
    table = depth_thirds(neurons).loc["mlp"]
    assert table["neurons"].tolist() == [2, 1, 1] and table["pool_percent"].tolist() == [50, 25, 25]
