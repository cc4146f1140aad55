"""What a notebook calls in one line: analyses of a finished study, and of a model and tasks by name."""

from __future__ import annotations

import dataclasses
from importlib import import_module

import numpy as np
import pytest

from culnig_tl import analyses, select_random
from culnig_tl.engine.models import describe
from culnig_tl.errors import NeuronError, StudyError, TaskError
from culnig_tl.study.config import GENERAL, RANDOM
from culnig_tl.study.opened import more_random_sets, open_study

from .studies import small_study
from .tasks.builders import write_saq

HOW = {"device": "cpu", "progress": False}


@pytest.fixture(scope="module")
def study(checkpoints):
    return small_study(str(checkpoints("llama")))


@pytest.fixture(scope="module")
def opened(study):
    return open_study(study, device="cpu")


@pytest.fixture(scope="module")
def claim(opened):
    return analyses.claim(opened, rival="minicommonsense", progress=False)


def test_public_names_are_functions_whatever_module_was_imported_first():
    from culnig_tl.analyses.sweep import Sweep

    assert analyses.Sweep is Sweep
    assert all(callable(getattr(analyses, name)) for name in dir(analyses))


# -------------------------------------------------------------------------------------------- opening a study


def test_an_open_study_asks_what_the_study_asked(study, opened):
    prints = {task.name: task.fingerprint for task in opened.tasks}
    assert prints == {name: about["fingerprint"] for name, about in study.info["tasks"].items()}


def test_an_open_study_is_not_opened_again(opened):
    assert open_study(opened) is opened


def test_another_model_is_refused(study, checkpoints):
    other = dataclasses.replace(
        study, config=dataclasses.replace(study.config, model=str(checkpoints("llama", seed=1)))
    )
    with pytest.raises(StudyError, match="not the model of the study"):
        open_study(other, device="cpu")


def test_other_questions_are_refused(study):
    other = dataclasses.replace(study, config=dataclasses.replace(study.config, limit=8))
    with pytest.raises(StudyError, match="questions of miniculture are not those"):
        open_study(other, device="cpu")


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        analyses.parts(tmp_path)


@pytest.fixture(scope="module")
def grown(study, opened, tmp_path_factory):
    """The study with three layer-matched random sets, and a folder to keep them in."""
    copy = dataclasses.replace(
        study, folder=tmp_path_factory.mktemp("study"), neurons={**study.neurons}, results={**study.results}
    )
    more_random_sets(dataclasses.replace(opened, study=copy), 3, progress=False)
    return copy


def test_more_random_sets_are_the_next_ones(grown):
    third = select_random(grown.neurons[GENERAL], grown.scores["neuron"], seed=2, match="layer")
    assert grown.results[f"{RANDOM['layer']} 2"].metadata["neurons"] == third.hash


def test_more_random_sets_are_kept_and_those_of_the_study_not_asked_again(grown):
    assert {path.stem for path in grown.folder.rglob("*.parquet")} == {f"{RANDOM['layer']} 2"}


# -------------------------------------------------------------------------------------------------- its claim


def test_claim_compares_with_random_sets_and_the_rival(claim):
    assert set(claim.tables()["claim"]["against"]) == {*RANDOM.values(), "rival (minicommonsense)"}


def test_claim_leaves_out_what_the_rival_was_found_on(claim, opened):
    own = next(task for task in opened.tasks if task.name == "minicommonsense")
    assert claim.against_rival.drops.keys() == {task.name for task in opened.tasks}
    left = own.filter(lambda q: q.split == "test")
    assert claim.against_rival.drops["minicommonsense"].questions == len(left) < len(own)


def test_the_rival_is_as_many_neurons_layer_by_layer(claim):
    sizes = [
        {key: len(index) for key, index in claim.sets[name].indices.items()} for name in (GENERAL, "rival")
    ]
    assert sizes[0] == sizes[1]


def test_claim_says_all_it_found(claim):
    for part in ("Against 2 sets: random by layer", "Against the rival", "Depth", "| model | setting |"):
        assert part in str(claim)


def test_claim_tables(claim):
    asked = ["plain-text"] if claim.text is not None else []
    assert list(claim.tables()) == ["claim", "depth", "table", *asked]


# ----------------------------------------------------------------------------------------- the other analyses


@pytest.fixture(scope="module")
def countries(opened):
    return analyses.countries(opened, relations=["region"], progress=False)


def test_countries(countries):
    tables = countries.tables()
    assert list(tables) == ["countries", "related", "own"]
    assert tables["related"]["relation"].tolist() == ["region"]


def test_the_own_row_is_the_mean_of_the_diagonal(countries):
    own = countries.tables()["own"].set_index("countries").loc["own", "mean"]
    assert own == pytest.approx(np.mean([countries.drops.loc[c, c] for c in countries.drops.index]))


def test_countries_say_how_much_one_shared_pattern_explains(countries):
    assert "rank1_share" in str(countries)


def test_an_unknown_relation_is_refused_before_anything_is_asked(study):
    with pytest.raises(TaskError, match="unknown relation"):
        analyses.countries(study, relations=["religion"])


def test_stability(opened):
    found = analyses.stability(opened, replicates=2, progress=False)
    assert found.neurons == opened.study.neurons[GENERAL]
    assert list(found.tables()) == ["stability", "returns", "wordings"]


def test_sweep_asks_the_studys_tasks(opened):
    table = analyses.sweep(opened, top=[0.05, 0.1], progress=False).tables()["sweep"]
    assert table["top"].tolist() == [0.05, 0.1] and "miniculture drop" in table


def test_sweep_holds_the_studys_own_point(opened):
    swept = analyses.sweep(opened, top=[0.05, 0.1], ask=False)
    assert swept.points[1].neurons == opened.study.neurons[GENERAL]


def test_sweep_counts_without_a_model(study):
    counted = analyses.sweep(study, top=[0.1, 0.2], z=[0, 1], country="Iran", ask=False)
    assert list(counted.tables()) == ["sweep Iran"] and len(counted.points) == 4


def test_parts(opened):
    found = analyses.parts(opened, progress=False)
    assert found.sets["whole method"] == opened.study.neurons[GENERAL]


def test_enhance(opened):
    found = analyses.enhance(opened, factors=[1.5], random_sets=1, specific=False, progress=False)
    assert found.tables()["enhance"]["set"].unique().tolist() == [GENERAL, RANDOM["layer"]]


def test_methods_by_name(loaded):
    found = analyses.methods(
        loaded("llama"),
        ["miniculture", "minicommonsense"],
        reading="minireading",
        methods=["culnig", "random"],
        sample=4,
        limit=2,
        asked=8,
        top_mlp=0.1,
        top_attn=0.05,
        progress=False,
    )
    tables = ["methods", "agreement", "overlap", "curves", "selectivity", "held-out"]
    assert list(found.tables()) == tables
    assert found.tables()["methods"]["method"].tolist() == ["culnig", "random", "unchanged"]


def test_methods_need_culture(loaded):
    with pytest.raises(StudyError, match="add blend"):
        analyses.methods(loaded("llama"), ["minicommonsense"])


def test_truth_zeroes_every_neuron_of_a_small_model(loaded):
    found = analyses.truth(loaded("llama"), sites=["mlp.gate", "attn.v"], limit=1, progress=False)
    info = describe(loaded("llama"))
    sizes = {site.value: info.layers * width for site, width in info.widths.items()}
    counts = found.tables()["truth"].groupby("site").size().to_dict()
    assert counts == {site: sizes[site] for site in ("attn.v", "mlp.gate")}


def test_truth_wants_a_sample_of_a_large_model(loaded, monkeypatch):
    monkeypatch.setattr(import_module("culnig_tl.analyses.agreement"), "SMALL", 10)
    with pytest.raises(StudyError, match="give a sample"):
        analyses.truth(loaded("llama"), limit=1)


def test_tasks_by_name(loaded):
    found = analyses.compare_tasks(
        loaded("llama"),
        ["miniculture", "minicommonsense"],
        "minireading",
        limit=4,
        random_sets=1,
        top_mlp=0.1,
        top_attn=0.05,
        progress=False,
    )
    assert list(found.sets) == ["miniculture", "minicommonsense"] and len(found.table(draws=20)) == 4


# ------------------------------------------------------------------------------------------- answers in words


@pytest.fixture(scope="module")
def in_words(loaded, opened, tmp_path_factory):
    folder, neurons = tmp_path_factory.mktemp("words"), opened.study.neurons
    return analyses.short_answers(
        loaded("llama"),
        folder / "answers",
        neurons=neurons[GENERAL],
        random=[neurons[f"{RANDOM['layer']} {k}"] for k in (0, 1)],
        language="en",
        max_new_tokens=2,
        limit=16,
        data_dir=write_saq(folder / "hub"),
        progress=False,
    )


def test_answers_in_words_are_compared_region_by_region(in_words):
    tables = in_words.tables()
    assert len(tables["regions"]) == len(tables["comparison"]) == 16
    assert list(tables["regions"]) == [
        "country",
        "language",
        "unchanged",
        "se",
        "questions",
        "suppressed",
        "random 0",
        "random 1",
    ]


def test_it_is_said_what_answers_were_compared_with(in_words):
    assert in_words.analysers and in_words.analysers[0] in str(in_words)


def test_random_sets_alone_are_refused(loaded, opened):
    with pytest.raises(NeuronError, match="give both"):
        analyses.short_answers(loaded("llama"), random=[opened.study.neurons[GENERAL]])
