"""culturalbench, on a small file in its columns."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import load_task

from .builders import culturalbench_rows, write_culturalbench


def test_rows_as_questions(tmp_path):
    rows = culturalbench_rows(12)
    task = load_task("culturalbench", data_dir=write_culturalbench(tmp_path, rows))
    assert len(task) == 48 and task.culture and task.countries == ("Hong Kong", "South Korea", "USA")
    for q in task:
        row = rows[int(q.cluster)]
        options = re.findall(r"^[A-D]\. (.+)$", q.prompt, flags=re.M)
        assert sorted(options) == sorted(row[f"prompt_option_{letter}"] for letter in "abcd")
        assert options[q.options.index(q.answer)] == row[f"prompt_option_{row['answer'].lower()}"]
        assert row["prompt_question"] in q.prompt and q.control and row["prompt_question"] not in q.control
        assert re.findall(r"^[A-D]\. (.+)$", q.control, flags=re.M) == options
        assert "question" not in q.control.lower() and "In ," not in q.control
    assert len({q.options.index(q.answer) for q in task if q.cluster == "0"} | {q.answer for q in task}) > 3


def test_the_first_half_of_each_country_finds_neurons(tmp_path):
    rows = culturalbench_rows(12)[:11]  # 4 US, 4 Hong Kong, 3 South Korea
    task = load_task("culturalbench", data_dir=write_culturalbench(tmp_path, rows))
    assert {q.cluster for q in task.neuron_split()} == {"0", "3", "1", "4", "2"}
    assert Counter(q.template for q in task.neuron_split()) == {0: 5, 1: 5, 2: 5, 3: 5}


@pytest.mark.parametrize("missing", ["", "None"])
def test_a_row_without_an_option_is_left_out_and_counted(tmp_path, caplog, missing):
    rows = culturalbench_rows(12)
    rows[4]["prompt_option_d"] = missing
    task = load_task("culturalbench", data_dir=write_culturalbench(tmp_path, rows))
    assert task.skipped == 1 and task.cluster_count == 11 and "4" not in {q.cluster for q in task}
    assert "CulturalBench-Easy.csv, row 5" in caplog.text
    assert {q.cluster for q in task.neuron_split()} == {
        "0",
        "3",
        "1",
        "2",
        "5",
    }  # the split is that of the whole file


def test_the_raw_file_is_read_without_a_readme(tmp_path):
    root = write_culturalbench(tmp_path, culturalbench_rows())
    built = load_task("culturalbench", data_dir=root)
    (root / "kellycyy" / "CulturalBench" / "README.md").unlink()
    assert load_task("culturalbench", data_dir=root).fingerprint == built.fingerprint


def test_the_order_of_rows_does_not_matter(tmp_path):
    rows = culturalbench_rows()
    first = load_task("culturalbench", data_dir=write_culturalbench(tmp_path / "a", rows))
    second = load_task("culturalbench", data_dir=write_culturalbench(tmp_path / "b", rows[::-1]))
    assert {(q.id, q.prompt, q.answer) for q in first} == {(q.id, q.prompt, q.answer) for q in second}


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"answer": "E"}, "row 3, column 'answer': 'E' is none of 'a', 'b', 'c', 'd'"),
        ({"answer": ""}, "row 3, column 'answer': is empty"),
        ({"country": "Atlantis"}, "row 3, column 'country': nobody knows the country 'Atlantis'"),
        ({"prompt_question": ""}, "row 3, column 'prompt_question': is empty"),
        ({"data_idx": 0}, "row 3, column 'data_idx': '0' is already in row 1"),
    ],
)
def test_wrong_rows_are_named(tmp_path, changed, message):
    rows = culturalbench_rows()
    rows[2] |= changed
    with pytest.raises(TaskError, match=re.escape(f"CulturalBench-Easy.csv, {message}")):
        load_task("culturalbench", data_dir=write_culturalbench(tmp_path, rows))
