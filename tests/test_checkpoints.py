"""Checkpoints side by side."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from culnig_tl import evaluate
from culnig_tl.analyses.checkpoints import compare_checkpoints
from culnig_tl.engine.models import describe
from culnig_tl.errors import StudyError
from culnig_tl.method.score import score_neurons
from culnig_tl.method.selection import select_general
from culnig_tl.study.config import GENERAL, UNCHANGED, StudyConfig
from culnig_tl.study.study import Study

from .cultures import culture_task

CUT = {"top_mlp": 0.1, "top_attn": 0.05, "drop_reading": 0.05}


def study(model, task) -> Study:
    """What a finished study holds, made by hand."""
    about = describe(model)
    neuron, control, reading = (
        score_neurons(model, t, progress=False)
        for t in (task.neuron_split(), task.neuron_split().control(), task.neuron_split())
    )
    general = select_general(neuron, control, reading, **CUT)
    info = {
        "layers": about.layers,
        "widths": {site.value: width for site, width in about.widths.items()},
        "tasks": {task.name: {"culture": True, "fingerprint": task.fingerprint}},
    }
    results = {
        UNCHANGED: evaluate(model, task.test_split(), progress=False),
        GENERAL: evaluate(model, task.test_split(), neurons=general, progress=False),
    }
    return Study(
        StudyConfig(),
        info,
        {"neuron": neuron, "control": control, "reading": reading},
        {GENERAL: general},
        results,
    )


@pytest.fixture(scope="module")
def studies(loaded):
    task = culture_task(each=2)
    return {"base": study(loaded("llama"), task), "tuned": study(loaded("llama", seed=1), task)}


def test_two_checkpoints_side_by_side(studies):
    found = compare_checkpoints(studies)
    overlap, ranks, layers = found.overlap(), found.rank_correlation(), found.layers()
    assert (
        overlap.loc["base", "base"] == 1 and overlap.loc["base", "tuned"] == overlap.loc["tuned", "base"] < 1
    )
    g = {}
    for name, one in studies.items():
        neuron, control = one.scores["neuron"], one.scores["control"]
        g[name] = np.concatenate(
            [
                (neuron.total(s) / neuron.clusters - control.total(s) / control.clusters).ravel()
                for s in neuron.sites
            ]
        )
    assert ranks.loc["base", "tuned"] == pytest.approx(
        stats.spearmanr(g["base"], g["tuned"]).statistic, abs=1e-3
    )
    assert list(layers.columns) == ["base", "tuned"] and len(layers) == 3
    assert layers.sum().tolist() == [len(s.neurons[GENERAL]) for s in studies.values()]
    table = found.accuracy().frame
    assert table["setting"].tolist() == [
        "base, unchanged",
        "base, culture-general",
        "tuned, unchanged",
        "tuned, culture-general",
    ]
    assert table["neurons"].tolist()[::2] == [0, 0]
    assert len(found.figure().data) >= 1
    assert "Spearman" in str(found)


def test_what_cannot_be_compared_is_left_out_and_said(studies, loaded):
    base = studies["base"]
    with pytest.raises(StudyError, match="two checkpoints"):
        compare_checkpoints({"base": base})
    alike = compare_checkpoints(studies)
    assert not any(
        "different shapes" in remark or "Different questions" in remark for remark in alike.remarks()
    )
    other = study(loaded("qwen3"), culture_task(each=2))
    found = compare_checkpoints({"base": base, "other": other})
    assert np.isnan(found.overlap().loc["base", "other"]) and np.isnan(
        found.rank_correlation().loc["other", "base"]
    )
    assert found.overlap().loc["other", "other"] == 1
    assert "different shapes" in " ".join(found.remarks()) and "different shapes" in str(found)
    assert len(found.figure().data) >= 1
    prints = {"culture": {**base.info["tasks"]["culture"], "fingerprint": "x"}}
    elsewhere = dataclasses.replace(base, info={**base.info, "tasks": prints})
    assert "Different questions of culture were asked" in " ".join(
        compare_checkpoints({"base": base, "b": elsewhere}).remarks()
    )
