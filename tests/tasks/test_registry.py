"""Tasks by name, and the list of them."""

from __future__ import annotations

import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import TASKS, Task, list_tasks, load_task

from .builders import (
    blend_row,
    culturalbench_rows,
    normad_rows,
    survey,
    write_blend,
    write_culturalbench,
    write_jsonl,
    write_normad,
    write_survey,
)

PACKAGE = [name for name, info in TASKS.items() if info.source == "package"]


@pytest.mark.parametrize("name", PACKAGE)
def test_the_packages_own_tasks_need_no_data(name):
    task, info = load_task(name), TASKS[name]
    assert (task.name, task.source, task.culture, task.has_control) == (
        name,
        "package",
        info.culture,
        info.control,
    )
    assert task.licence == info.licence
    splits = ("test",) if all(q.split is None for q in task) else ("neuron", "test")
    assert splits == info.splits and all(q.cluster and q.prompt and q.answer_prefix for q in task)


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    root = tmp_path_factory.mktemp("mirror")
    write_blend(
        root,
        [
            blend_row(number, question=question)
            for number in range(3)
            for question in ("Al-en-01", "Al-en-02")
        ],
    )
    write_culturalbench(root, culturalbench_rows())
    write_normad(root, normad_rows())
    write_survey(root / "WorldValuesBench", *survey())
    return root


@pytest.mark.parametrize("name", ["blend", "blend-local", "culturalbench", "normad", "worldvaluesbench"])
def test_what_is_said_of_a_task_is_true(mirror, name):
    task, info = load_task(name, data_dir=mirror), TASKS[name]
    assert (task.name, task.culture, task.has_control) == (name, info.culture, info.control)
    assert task.licence == info.licence and task.skipped == 0
    assert info.splits == ("neuron", "test") and {q.split for q in task} <= set(info.splits)
    assert all(q.answer_prefix.startswith("{") and q.prompt.endswith("Answer:") for q in task)


# ------------------------------------------------------------------------------------ narrowing while loading


def same(a: Task, b: Task) -> bool:
    return a == b and a.fingerprint == b.fingerprint


def test_split_limit_and_control_are_the_methods_in_that_order(mirror):
    loaded = load_task("blend", split="neuron", control=True, limit=2, data_dir=mirror)
    assert same(loaded, load_task("blend", data_dir=mirror).neuron_split().limit(2).control())


@pytest.mark.parametrize("split, method", [("neuron", Task.neuron_split), ("test", Task.test_split)])
def test_split_alone(split, method):
    assert same(load_task("miniculture", split=split), method(load_task("miniculture")))


def test_the_test_split_of_a_task_without_splits_is_the_whole():
    assert same(load_task("miniparaphrase", split="test"), load_task("miniparaphrase"))


def test_the_neuron_split_of_a_task_without_splits_is_an_error():
    with pytest.raises(TaskError, match="'miniparaphrase' has no neuron split"):
        load_task("miniparaphrase", split="neuron")


def test_an_unknown_split_names_those_there_are():
    with pytest.raises(TaskError, match="^split 'train' is unknown: splits are neuron, test$"):
        load_task("blend", split="train")


def test_a_name_can_ask_for_the_control():
    assert same(load_task("miniculture:control", limit=9), load_task("miniculture", control=True, limit=9))


def test_a_control_of_no_task_is_an_unknown_task():
    with pytest.raises(TaskError, match="task 'blnd' is unknown, did you mean 'blend'"):
        load_task("blnd:control")


OWN = [{"question": f"{i}?", "options": ["a", "b"], "answer": "a", "country": "Iran"} for i in range(6)]


def test_a_file_called_control_is_none(tmp_path):
    task = load_task(str(write_jsonl(tmp_path / "x:control.jsonl", OWN)))
    assert task.name == "x:control" and not task.is_control and "0?" in task[0].prompt


def test_a_file_can_be_narrowed_too(tmp_path):
    path = write_jsonl(tmp_path / "x.jsonl", OWN)
    assert same(load_task(path, control=True, limit=3), load_task(path).limit(3).control())


# --------------------------------------------------------------------------------------------------- the list


def test_the_variable_names_the_mirror(mirror, monkeypatch):
    monkeypatch.setenv("CULNIG_DATA_DIR", str(mirror))
    assert load_task("normad").source == str(mirror / "akhilayerukola" / "NormAd")
    found = {row.name: row for row in list_tasks()}
    assert (
        found["normad"].found == str(mirror / "akhilayerukola" / "NormAd")
        and found["normad"].questions == 120
    )


def test_the_list(mirror):
    rows = {row.name: row for row in list_tasks(data_dir=mirror)}
    assert list(rows) == list(TASKS)
    assert (
        rows["blend"].questions == 6
        and rows["blend"].published == 305_939
        and rows["blend"].splits == ("neuron", "test")
    )
    assert (
        rows["mrpc"].questions is None
        and rows["mrpc"].found is None
        and "has no nyu-mll/glue" in (rows["mrpc"].problem or "")
    )
    assert (
        rows["countryrc"].found == "package"
        and rows["countryrc"].questions == 2_304
        and rows["countryrc"].problem is None
    )
    assert rows["worldvaluesbench"].found == str(mirror / "WorldValuesBench")


def test_the_list_without_a_mirror_asks_no_network():
    rows = {row.name: row for row in list_tasks()}
    assert "the Hub serves it" in (rows["blend"].problem or "") and rows["blend"].found is None
    assert rows["worldvaluesbench"].problem == "no data folder is given" and rows[
        "miniculture"
    ].questions == len(load_task("miniculture"))


@pytest.mark.parametrize(
    "name, meant",
    [("blnd", "blend"), ("culturebench", "culturalbench"), ("mini-culture", "miniculture"), ("QNLI", "qnli")],
)
def test_an_unknown_name_gets_the_closest(name, meant):
    with pytest.raises(
        TaskError,
        match=f"task '{name}' is unknown, did you mean '{meant}'\\? Tasks are blend, .*, a file ending",
    ):
        load_task(name)


def test_a_name_like_nothing():
    with pytest.raises(TaskError, match="task 'zzz' is unknown: tasks are blend"):
        load_task("zzz")


def test_arguments_of_other_tasks_are_refused(tmp_path):
    for name, option in (("countryrc", "language"), ("blend", "path"), ("miniculture", "rows_from")):
        with pytest.raises(TaskError, match=f"task '{name}' takes no '{option}'"):
            load_task(name, **{option: "x"})
    wordings = tmp_path / "w.toml"
    wordings.write_text('[[miniculture]]\nprompt = "{question} {options}"\n')
    with pytest.raises(TaskError, match="'miniculture' keeps its own wordings"):
        load_task("miniculture", wordings=wordings)
    assert load_task("minireading", wordings=wordings).fingerprint == load_task("minireading").fingerprint


def test_wordings_of_one_task_leave_the_others_alone(mirror, tmp_path):
    wordings = tmp_path / "w.toml"
    wordings.write_text(
        '[[normad]]\nprompt = "{country}: {story} {options}"\nlabels = "abc"\n'
        '[[choice]]\nprompt = "{question} {options}"\n'
    )
    normad = load_task("normad", data_dir=mirror, wordings=wordings)
    assert (
        len(normad) == 30
        and normad[0].options == ("a", "b", "c")
        and normad[0].prompt.startswith("the USA: At dinner")
    )
    assert len(load_task("culturalbench", data_dir=mirror, wordings=wordings)) == 12
    assert load_task("countryrc", wordings=wordings).fingerprint == load_task("countryrc").fingerprint
