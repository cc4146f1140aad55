"""Rows to fine-tune on."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import load_task
from culnig_tl.tasks.training import load_training


def glue(root, name: str, split: str, count: int, *, shuffle: bool = False):
    first, second = {"qnli": ("question", "sentence"), "mrpc": ("sentence1", "sentence2")}[name]
    rows = [{first: f"first {i}?", second: f"second {i}.", "label": i % 2, "idx": i} for i in range(count)]
    order = np.random.default_rng(0).permutation(count) if shuffle else range(count)
    path = root / "nyu-mll" / "glue" / name / f"{split}-00000-of-00001.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([rows[i] for i in order]).to_parquet(path)
    return root


def test_glue_is_trained_on_its_train_split(tmp_path):
    mirror = glue(tmp_path / "a", "qnli", "train", 300)
    task = load_training("qnli", data_dir=mirror, limit=100)
    assert len(task) == task.cluster_count == 100  # each row in one wording
    assert {q.template for q in task} == {0, 1, 2, 3} and {q.answer for q in task} == {"0", "1"}
    shuffled = load_training(
        "qnli", data_dir=glue(tmp_path / "b", "qnli", "train", 300, shuffle=True), limit=100
    )
    assert {q.id: q.prompt for q in shuffled} == {q.id: q.prompt for q in task}
    assert {q.id for q in load_training("qnli", data_dir=mirror, limit=30)} < {q.id for q in task}
    assert len(load_training("qnli", data_dir=mirror)) == 300  # 10,000 where there are so many
    assert len(load_training("mrpc", data_dir=glue(mirror, "mrpc", "train", 20))) == 20
    with pytest.raises(TaskError, match="split 'train'"):
        load_training("qnli", data_dir=glue(tmp_path / "c", "qnli", "validation", 8))


def test_other_tasks_are_trained_on_their_neuron_split(tmp_path):
    task = load_training("minisynonyms")
    assert len(task) == 2000 and {q.split for q in task} == {"neuron"}
    assert {q.split for q in load_training("miniculture", limit=7)} == {"neuron"}
    with pytest.raises(TaskError, match="'minianswers' has no rows to train on"):
        load_training("minianswers")
    rows = [
        {"question": f"What is {i}?", "options": ["this", "that"], "answer": "this", "country": None}
        for i in range(4)
    ]
    pd.DataFrame(rows).to_json(tmp_path / "own.jsonl", orient="records", lines=True)
    with pytest.raises(
        TaskError, match="'own' has no rows to train on, it only tests: give them the split neuron"
    ):
        load_training(tmp_path / "own.jsonl")
    pd.DataFrame([{**row, "split": "neuron"} for row in rows]).to_json(
        tmp_path / "own.jsonl", orient="records", lines=True
    )
    assert len(load_training(tmp_path / "own.jsonl")) >= 4
    with pytest.raises(TaskError, match="at least 1"):
        load_training("minisynonyms", limit=0)


def test_what_is_trained_on_is_not_what_is_tested():
    tests = {q.prompt for q in load_task("minisynonyms").test_split()}
    assert not tests & {q.prompt for q in load_training("minisynonyms")}


# ------------------------------------------------------------------------------------------- as in the paper


def test_the_papers_rows_of_qnli_are_those_that_datasets_shuffles_to_the_front(tmp_path):
    from datasets import Dataset

    mirror = glue(tmp_path, "qnli", "train", 300)
    task = load_training("qnli", data_dir=mirror, limit=40, draw="paper")
    wanted = Dataset.from_dict({"idx": range(300)}).shuffle(seed=42).select(range(40))["idx"]
    assert [q.cluster for q in task] == [str(idx) for idx in wanted]
    assert {q.template for q in task} == {0}


def test_the_papers_rows_of_mrpc_are_all_in_the_files_order(tmp_path):
    task = load_training("mrpc", data_dir=glue(tmp_path, "mrpc", "train", 20), draw="paper")
    assert [q.cluster for q in task] == [str(i) for i in range(20)] and {q.template for q in task} == {0}


def test_the_papers_form_of_wordings_starts_no_answer(tmp_path):
    mirror = glue(tmp_path, "qnli", "train", 8)
    task = load_training("qnli", data_dir=mirror, draw="paper", wordings="paper")
    assert {q.answer_prefix for q in task} == {""}
