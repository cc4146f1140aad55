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


def without(row, *columns):
    return {key: value for key, value in row.items() if key not in columns}


def same_as_written(path, rows=ROWS):
    """Whether the file asks what these rows ask when they are written as the documentation says."""
    plain = load_task(write_jsonl(path.parent / "plain" / f"{path.stem}.jsonl", rows))
    return load_task(path).fingerprint == plain.fingerprint


@pytest.mark.parametrize("separator", [";", "\t"])
def test_a_file_that_a_spreadsheet_saved(tmp_path, separator):
    """A byte order mark, other separators, capital letters, empty lines and columns at the end."""
    path = tmp_path / "drinks.csv"
    lines = [["Question", "Options", "Answer", "Country", ""]]
    lines += [[r["question"], "|".join(r["options"]), r["answer"], r["country"], ""] for r in ROWS]
    text = "\r\n".join(separator.join(line) for line in [*lines, [""] * 5, [""] * 5])
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert same_as_written(path)
    path.write_bytes(text.encode("utf-16"))
    assert same_as_written(path)


def test_an_excel_file(tmp_path, caplog):
    path = tmp_path / "drinks.xlsx"
    frame = pd.DataFrame([row | {"options": "|".join(row["options"])} for row in ROWS])
    with pd.ExcelWriter(path) as writer:
        frame.to_excel(writer, index=False, sheet_name="questions")
        pd.DataFrame({"note": ["mine"]}).to_excel(writer, index=False, sheet_name="notes")
    assert same_as_written(path) and "the sheet 'questions' is read, not 'notes'" in caplog.text


def test_a_comma_file_with_a_stray_semicolon_gets_a_hint(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("question;options;answer, country\na;b|c;b,Iran\n")
    with pytest.raises(TaskError, match="is missing, .* separated by semicolons"):
        load_task(path)


OTHER_FORMS = {
    "letter": lambda r: r | {"answer": "ABCD"[r["options"].index(r["answer"])]},
    "letter in brackets": lambda r: r | {"answer": f"({'abcd'[r['options'].index(r['answer'])]})"},
    "index from 0": lambda r: r | {"answer": r["options"].index(r["answer"])},
    "index from 1": lambda r: r | {"answer": r["options"].index(r["answer"]) + 1},
    "ARC": lambda r: (
        without(r, "options", "answer")
        | {
            "choices": {"text": r["options"], "label": ["A", "B", "C", "D"][: len(r["options"])]},
            "answerKey": "ABCD"[r["options"].index(r["answer"])],
        }
    ),
    "numbered labels": lambda r: (
        without(r, "options", "answer")
        | {
            "choices": {"text": r["options"], "label": ["1", "2", "3", "4"][: len(r["options"])]},
            "answerKey": str(r["options"].index(r["answer"]) + 1),
        }
    ),
    "HellaSwag": lambda r: {
        "ctx": r["question"],
        "endings": r["options"],
        "label": str(r["options"].index(r["answer"])),
        "country": r["country"],
    },
    "columns": lambda r: (
        without(r, "options") | {f"option_{'abcd'[i]}": option for i, option in enumerate(r["options"])}
    ),
    "numbered columns": lambda r: (
        without(r, "options") | {f"choice{i + 1}": option for i, option in enumerate(r["options"])}
    ),
    "MMLU": lambda r: (
        without(r, "options", "answer")
        | {"ABCD"[i]: option for i, option in enumerate(r["options"])}
        | {"Answer": "ABCD"[r["options"].index(r["answer"])]}
    ),
}
FORMED = [
    *ROWS,
    {"question": "Which is a river?", "options": ["Alps", "Rome", "Po"], "answer": "Po", "country": "Italy"},
    {"question": "Which is a lake?", "options": ["Garda", "Rome"], "answer": "Garda", "country": "Italy"},
]


@pytest.mark.parametrize("form", OTHER_FORMS)
def test_other_benchmarks_names_and_answers(tmp_path, form, caplog):
    path = write_jsonl(tmp_path / "forms.jsonl", [OTHER_FORMS[form](row) for row in FORMED])
    assert same_as_written(path, FORMED) and "read as" in caplog.text or form == "text"


def test_an_options_text_goes_before_its_letter_and_index(tmp_path, caplog):
    rows = [
        {"question": "1 + 1?", "options": [0, 1, 2], "answer": 2},
        {"question": "?", "options": ["B", "A"], "answer": "A"},
    ]
    write_jsonl(tmp_path / "sums.jsonl", rows)
    for q in load_task(tmp_path / "sums.jsonl"):
        assert q.texts[q.options.index(q.answer)] in ("2", "A")
    assert "read as" not in caplog.text


def test_an_index_that_may_count_from_0_or_1_is_refused(tmp_path):
    rows = [{"question": "Which?", "options": ["a", "b", "c"], "answer": 1}]
    with pytest.raises(TaskError, match="may count from 0 or from 1"):
        load_task(write_jsonl(tmp_path / "t.jsonl", rows))


def test_a_file_without_countries_is_no_culture_task(tmp_path):
    task = load_task(write_jsonl(tmp_path / "t.jsonl", [without(row, "country") for row in ROWS]))
    assert not task.culture and task.countries == () and len(task) == 8


@pytest.mark.parametrize("blank", [None, "", "  "])
def test_mixed_blanks_name_the_rows(tmp_path, blank):
    rows = [ROWS[i % 2] | {"country": "Japan" if i in (1, 3) else blank} for i in range(9)]
    with pytest.raises(TaskError, match="rows 1, 3, 5, 6, 7 and 2 more, column 'country': is empty"):
        load_task(write_jsonl(tmp_path / "t.jsonl", rows))


def test_regions_are_countries_of_their_own_where_they_are_allowed(tmp_path, caplog):
    path = write_jsonl(
        tmp_path / "t.jsonl", [ROWS[0] | {"country": "Nordics"}, ROWS[1] | {"country": "Germny"}]
    )
    with pytest.raises(TaskError, match="nobody knows the country 'Nordics'. .*--allow-regions") as error:
        load_task(path)
    assert "Zimbabwe" in str(error.value)
    assert load_task(path, allow_regions=True).countries == ("Germny", "Nordics")
    assert "regions, not countries: Nordics, Germny (is it Germany?)" in caplog.text


def test_england_is_a_part_of_the_uk(tmp_path):
    path = write_jsonl(tmp_path / "t.jsonl", [ROWS[0] | {"country": "England"}])
    with pytest.raises(TaskError, match="nobody knows the country 'England'; is it 'UK'?"):
        load_task(path)


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
        TaskError, match="t.jsonl: column 'answer' is missing, the columns are question, options, country"
    ):
        write_jsonl(tmp_path / "t.jsonl", [without(row, "answer") for row in ROWS])
        load_task(tmp_path / "t.jsonl")
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
