"""A user's own file as a task."""

from __future__ import annotations

import json
import re

import pandas as pd
import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import load_task, load_tasks

from .builders import write_csv, write_jsonl

ROWS = [
    {
        "question": "What is eaten at New Year in Japan?",
        "options": ["soba", "tapas", "tacos"],
        "answer": "soba",
        "country": "Japan",
    },
    {
        "question": "Which drink goes with breakfast in Turkey?",
        "options": ["tea", "wine"],
        "answer": "tea",
        "country": "türkiye",
    },
]


def test_jsonl_csv_and_parquet_are_the_same_task(tmp_path):
    write_jsonl(tmp_path / "a" / "drinks.jsonl", ROWS)
    write_csv(tmp_path / "b" / "drinks.csv", [row | {"options": "|".join(row["options"])} for row in ROWS])
    write_csv(tmp_path / "c" / "drinks.csv", [row | {"options": json.dumps(row["options"])} for row in ROWS])
    (tmp_path / "d").mkdir()
    pd.DataFrame(ROWS).to_parquet(tmp_path / "d" / "drinks.parquet")
    tasks = [load_task(file) for file in sorted(tmp_path.glob("*/*"))]
    assert len(tasks) == 4 and {task.fingerprint for task in tasks} == {tasks[0].fingerprint}
    task = tasks[0]
    assert task.name == "drinks" and len(task) == 8 and task.culture and task.countries == ("Japan", "Turkey")
    assert task.cluster_count == 2 and task.test_split() is task and task.has_control
    for q in task:
        options = re.findall(r"^[A-C]\. (.+)$", q.prompt, flags=re.M)
        row = ROWS[int(q.cluster) - 1]
        assert (
            sorted(options) == sorted(row["options"]) and options[q.options.index(q.answer)] == row["answer"]
        )
    assert load_task(str(tmp_path / "a" / "drinks.jsonl")).fingerprint == task.fingerprint


def test_optional_columns(tmp_path):
    rows = [
        row | {"id": f"n{i}", "cluster": "same", "topic": "Food", "split": ("neuron", "test")[i]}
        for i, row in enumerate(ROWS)
    ]
    task = load_task(write_jsonl(tmp_path / "t.jsonl", rows))
    assert {q.id for q in task} == {
        f"n{i}/{t}" for i in range(2) for t in range(4)
    } and task.cluster_count == 1
    assert {q.group for q in task} == {"Food"} and len(task.neuron_split()) == len(task.test_split()) == 4


def test_a_task_without_countries_is_no_culture_task(tmp_path):
    rows = [{"question": "1 + 1?", "options": [2, 3.5, "11"], "answer": 2, "country": None}]
    task = load_task(write_jsonl(tmp_path / "sums.jsonl", rows))
    assert not task.culture and task.countries == () and "2" in task[0].prompt and "3.5" in task[0].prompt


def test_a_users_wordings(tmp_path):
    wordings = tmp_path / "w.toml"
    wordings.write_text(
        '[[choice]]\nprompt = "{question}|{options}|"\nanswer_prefix = "=>("\nlabels = "12345"\n'
    )
    task = load_task(write_jsonl(tmp_path / "t.jsonl", ROWS), wordings=wordings)
    assert len(task) == 2 and task[0].prompt.startswith("What is eaten at New Year in Japan?|1. ")
    assert task[0].options == ("1", "2", "3") and task[0].answer_prefix == "=>(" and not task.has_control


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"question": ""}, "column 'question': is empty"),
        ({"question": 3}, "column 'question': must be text, not int"),
        ({"options": None}, "column 'options': is empty"),
        ({"options": ["tea"]}, "column 'options': holds 1 options, it takes 2 to 10"),
        ({"options": ["tea", "tea"]}, "column 'options': holds an option twice"),
        ({"options": ["tea", " "]}, "column 'options': is empty"),
        ({"options": ["tea", None]}, "column 'options': is empty"),
        ({"options": ["tea", {"a": 1}]}, "column 'options': must be text, not dict"),
        ({"options": {"a": 1}}, "column 'options': must be a list, not dict"),
        ({"options": '["tea", '}, "column 'options': broken JSON"),
        ({"options": [str(i) for i in range(11)]}, "column 'options': holds 11 options"),
        ({"answer": "coffee"}, "column 'answer': 'coffee' is no option, the options are tea, wine"),
        ({"answer": None}, "column 'answer': is empty"),
        ({"country": "Atlantis"}, "column 'country': nobody knows the country 'Atlantis'"),
        ({"country": "Turkei"}, "nobody knows the country 'Turkei'; is it 'Turkey'?"),
        ({"country": None}, "column 'country': is empty"),
        ({"id": "1"}, "column 'id': '1' is already in row 1"),
        ({"split": "train"}, "column 'split': 'train' is none of 'neuron', 'test'"),
    ],
)
def test_wrong_rows_are_named(tmp_path, changed, message):
    rows = [ROWS[0] | {"id": "1", "split": "test"}, ROWS[1] | {"id": "2", "split": "test"} | changed]
    path = write_jsonl(tmp_path / "t.jsonl", rows)
    with pytest.raises(TaskError, match=re.escape(message)) as error:
        load_task(path)
    assert str(error.value).startswith(f"{path}, row 2, ")


def test_missing_columns_and_files(tmp_path):
    with pytest.raises(
        TaskError, match="t.jsonl: column 'country' is missing, the columns are question, options, answer"
    ):
        load_task(
            write_jsonl(
                tmp_path / "t.jsonl", [{key: ROWS[0][key] for key in ("question", "options", "answer")}]
            )
        )
    with pytest.raises(TaskError, match="none.csv: no such file"):
        load_task(tmp_path / "none.csv")
    with pytest.raises(TaskError, match="t.jsonl: the file is empty"):
        load_task(write_jsonl(tmp_path / "t.jsonl", []))
    with pytest.raises(TaskError, match="rename the file: blend is the name of a task"):
        load_task(write_jsonl(tmp_path / "blend.jsonl", ROWS))
    for option in ("language", "path", "rows_from"):
        with pytest.raises(TaskError, match=f"takes no '{option}'"):
            load_task(write_jsonl(tmp_path / "t.jsonl", ROWS), **{option: "x"})


def test_two_files_of_one_name_are_refused(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
    files = [str(write_jsonl(tmp_path / place / "mine.jsonl", [])) for place in ("a", "b")]
    with pytest.raises(TaskError, match=r"a/mine.jsonl and .*b/mine.jsonl would be one task: rename one"):
        load_tasks(files)
    with pytest.raises(TaskError, match="would be one task"):
        load_tasks(files[:1], beside=files[1:])


def test_a_file_that_is_called_a_control_is_none(tmp_path):
    row = {"question": "What?", "options": ["a", "b"], "answer": "a", "country": None}
    task = load_task(write_jsonl(tmp_path / "x:control.jsonl", [row]))
    assert task.name == "x:control" and not task.is_control
