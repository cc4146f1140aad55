"""Checkpoints side by side."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from culnig_tl import describe, score_neurons, select_general
from culnig_tl.analyses import compare_checkpoints
from culnig_tl.errors import StudyError
from culnig_tl.method.evaluation import evaluate_sets
from culnig_tl.study.config import GENERAL, UNCHANGED, StudyConfig
from culnig_tl.study.study import Study

from .cultures import culture_task

CUT = {"top_mlp": 0.1, "top_attn": 0.05, "drop_reading": 0.05}
TASK = culture_task(each=2)


def study(model) -> Study:
    """What a finished study holds, made by hand."""
    about, found_on = describe(model), TASK.neuron_split()
    neuron, control, reading = (
        score_neurons(model, task, progress=False) for task in (found_on, found_on.control(), found_on)
    )
    general = select_general(neuron, control, reading, **CUT)
    info = {
        "layers": about.layers,
        "widths": {site.value: width for site, width in about.widths.items()},
        "tasks": {TASK.name: {"culture": True, "fingerprint": TASK.fingerprint}},
    }
    scores = {"neuron": neuron, "control": control, "reading": reading}
    results = evaluate_sets(model, [TASK.test_split()], {UNCHANGED: None, GENERAL: general}, progress=False)
    return Study(StudyConfig(), info, scores, {GENERAL: general}, results)


@pytest.fixture(scope="module")
def studies(loaded):
    return {"base": study(loaded("llama")), "tuned": study(loaded("llama", seed=1))}


@pytest.fixture(scope="module")
def alike(studies):
    return compare_checkpoints(studies)


@pytest.fixture(scope="module")
def unlike(studies, loaded):
    return compare_checkpoints({"base": studies["base"], "other": study(loaded("qwen3"))})


def test_overlap_is_that_of_the_sets(alike, studies):
    overlap, sets = alike.overlap(), [s.neurons[GENERAL] for s in studies.values()]
    assert overlap.loc["base", "tuned"] == overlap.loc["tuned", "base"] == sets[0].jaccard(sets[1]) < 1
    assert overlap.loc["base", "base"] == 1


def test_rank_correlation_is_spearmans_of_the_contrast(alike, studies):
    contrasts = []
    for one in studies.values():
        neuron, control = one.scores["neuron"], one.scores["control"]
        values = [
            neuron.total(s) / neuron.clusters - control.total(s) / control.clusters for s in neuron.sites
        ]
        contrasts.append(np.concatenate([value.ravel() for value in values]))
    expected = stats.spearmanr(*contrasts).statistic
    assert alike.rank_correlation().loc["base", "tuned"] == pytest.approx(expected, abs=1e-3)


def test_layers_count_every_neuron(alike, studies):
    layers = alike.layers()
    assert len(layers) == 3
    assert layers.sum().to_dict() == {name: len(s.neurons[GENERAL]) for name, s in studies.items()}


def test_accuracy_has_a_row_per_checkpoint_and_setting(alike):
    table = alike.accuracy().frame
    assert table["setting"].tolist() == [
        "base, unchanged",
        "base, culture-general",
        "tuned, unchanged",
        "tuned, culture-general",
    ]
    assert table["neurons"].tolist()[::2] == [0, 0]


def test_tables_are_named_for_their_files(alike):
    assert list(alike.tables()) == ["overlap", "rank-correlation", "layers", "accuracy"]
    assert alike.tables()["layers"].columns.tolist() == ["layer", "base", "tuned"]


def test_nothing_is_remarked_on_shapes_and_questions_that_are_alike(alike):
    said = " ".join(alike.remarks())
    assert "different shapes" not in said and "Different questions" not in said


def test_neurons_of_different_shapes_are_not_compared(unlike):
    assert np.isnan(unlike.overlap().loc["base", "other"]) and unlike.overlap().loc["other", "other"] == 1
    assert np.isnan(unlike.rank_correlation().loc["other", "base"])
    assert "different shapes" in str(unlike)


def test_different_questions_stand_in_columns_of_their_own(studies):
    base = studies["base"]
    about = {**base.info["tasks"]["culture"], "fingerprint": "another"}
    other = dataclasses.replace(base, info={**base.info, "tasks": {"culture": about}})
    found = compare_checkpoints({"base": base, "b": other})
    assert "Different questions of culture were asked" in " ".join(found.remarks())


def test_one_checkpoint_is_not_compared(studies):
    with pytest.raises(StudyError, match="two checkpoints"):
        compare_checkpoints({"base": studies["base"]})


def test_folders_are_read(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        compare_checkpoints({"base": tmp_path / "base", "sft": tmp_path / "sft"})
