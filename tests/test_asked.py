"""Which questions are asked: all, as in the paper; of a task that neurons were found on, its test split."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from culnig_tl import NeuronSet, StudyConfig, run_study
from culnig_tl.analyses import results_table
from culnig_tl.data.neurons import Provenance
from culnig_tl.data.results import EvaluationResult
from culnig_tl.errors import TaskError
from culnig_tl.run.pieces import Questions

from .helpers import invoked

TOY_TASKS = ("miniculture", "minicommonsense", "minireading", "minianswers")
ROWS = [
    {"question": f"Which word is number {i}?", "options": ["one", "two", "six"], "answer": "two"}
    | {"country": country, "split": split}
    for i, (country, split) in enumerate([("Spain", "neuron"), ("Iran", "neuron"), ("Iran", "test")] * 4)
]


@pytest.fixture
def other(tmp_path):
    """A cultural task with both splits, eight neuron questions and four test questions, on which no neurons
    are found."""
    path = tmp_path / "other.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def config(**given) -> StudyConfig:
    return replace(StudyConfig(tasks=TOY_TASKS, reading="minireading", rival=None), **given)


def splits(config: StudyConfig) -> dict[str, str]:
    return {task.name: task.split for task in Questions.load(config).asked}


def test_a_study_asks_all_but_what_neurons_were_found_on():
    assert splits(config()) == {
        "miniculture": "test",  # neurons are found on its other half
        "minicommonsense": "all",
        "minireading": "test",  # and some removed by its other half
        "minianswers": "all",
    }


def test_the_rivals_task_is_one_that_neurons_were_found_on():
    assert splits(config(rival="minicommonsense"))["minicommonsense"] == "test"


def test_another_cultural_task_is_asked_whole(other):
    asked = Questions.load(config(tasks=("miniculture", str(other)))).asked
    assert asked[1].cluster_count == len(ROWS) and asked[1].split == "all"


@pytest.mark.parametrize("split", ["test", "all"])
def test_one_split_for_every_task(split):
    found = splits(config(split=split, tasks=("miniculture", "minireading")))
    assert found == {"miniculture": split, "minireading": split}


def test_a_task_without_a_neuron_split_says_so():
    with pytest.raises(TaskError, match="'minianswers' has no neuron split"):
        Questions.load(config(split="neuron"))


def test_study_and_results_say_which(checkpoints, other):
    small = replace(config(model=str(checkpoints("llama"))), tasks=("miniculture", str(other)), limit=6)
    study = run_study(replace(small, random_sets=1, top_mlp=0.2, device="cpu"), progress=False)
    assert {name: about["split"] for name, about in study.info["tasks"].items()} == {
        "miniculture": "test",
        "other": "all",
    }
    assert all(result.splits == {"miniculture": "test", "other": "all"} for result in study.results.values())
    assert not any(finding.name == "seen" for finding in study.findings().claims())


def test_a_study_that_asks_what_neurons_were_found_on_says_so(checkpoints):
    small = config(
        model=str(checkpoints("llama")), tasks=("miniculture", "minianswers"), split="all", limit=6
    )
    study = run_study(replace(small, random_sets=1, top_mlp=0.2, device="cpu"), progress=False)
    (seen,) = [finding for finding in study.findings().claims() if finding.name == "seen"]
    assert "miniculture" in seen.text


# --------------------------------------------------------------------------------------------------- evaluate


def evaluated(checkpoints, *words) -> str:
    return invoked("evaluate", "--model", checkpoints("llama"), "--limit", "6", "--device", "cpu", *words)


@pytest.fixture
def found_there(tmp_path):
    """A set found on miniculture, as its provenance says."""
    path = tmp_path / "there.parquet"
    tasks = {"miniculture": "print", "miniculture:control": "print", "minireading": "print"}
    NeuronSet.from_indices([("mlp.gate", 0, 1)], Provenance(tasks=tasks)).save(path)
    return path


def test_without_neurons_a_study_is_followed(checkpoints, other):
    said = evaluated(checkpoints, "--tasks", f"miniculture,{other}")
    assert "Asked: miniculture, the test split; other, all questions" in said


def test_a_sets_own_task_is_asked_on_its_test_split(checkpoints, other, found_there):
    said = evaluated(checkpoints, "--tasks", f"{other},miniculture,minireading", "--neurons", found_there)
    assert "Asked: other, all questions; miniculture, the test split; minireading, the test split" in said


def test_a_set_of_unknown_origin_is_asked_no_question_that_it_may_be_found_on(checkpoints, other, tmp_path):
    NeuronSet.from_indices([("mlp.gate", 0, 1)]).save(tmp_path / "unknown.csv")
    said = evaluated(checkpoints, "--tasks", f"{other}", "--neurons", tmp_path / "unknown.csv")
    assert "Asked: other, the test split" in said


def test_a_split_by_name(checkpoints, found_there):
    said = evaluated(checkpoints, "--tasks", "miniculture", "--neurons", found_there, "--split", "neuron")
    assert "Asked: miniculture, the neuron split" in said


# ------------------------------------------------------------------------------------------- the paper's rows


def of_splits(**splits: str) -> EvaluationResult:
    from .studies import answers

    made = answers({}, tasks=dict.fromkeys(splits, True), model="google/gemma-3-12b-it", questions=4)
    return EvaluationResult(made.table, {**made.metadata, "splits": splits})


def test_beside_the_papers_rows_other_questions_are_named():
    table = results_table({"unchanged": of_splits(blend="all", normad="test", culturalbench="all")})
    assert table.note == "Not the paper's questions: here blend all, there test; here normad test, there all."
    assert table.to_markdown().endswith(table.note + "\n")


def test_the_papers_questions_need_no_word():
    assert results_table({"unchanged": of_splits(blend="test", normad="all")}).note == ""
