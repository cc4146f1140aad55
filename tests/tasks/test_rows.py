"""Files of rows and their columns."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks.rows import Rows, first_half, read_file

from .builders import write_csv


def rows(**columns) -> Rows:
    return Rows(
        pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in columns.items()}), "f.csv"
    )


def test_formats_agree(tmp_path):
    data = [{"id": "1", "x": "a,b"}, {"id": "2", "x": 'say "é"'}]
    write_csv(tmp_path / "f.csv", data)
    (tmp_path / "f.jsonl").write_text("\n\n".join(json.dumps(row) for row in data), encoding="utf-8-sig")
    (tmp_path / "f.json").write_text(json.dumps(data))
    (tmp_path / "f.tsv").write_text('id\tx\n1\ta,b\n2\t"say ""é"""\n', encoding="utf-8")
    pd.DataFrame(data).set_index("id", drop=False).to_parquet(tmp_path / "f.parquet")
    for file in tmp_path.iterdir():
        got = read_file(file)
        assert got.texts("id") == ["1", "2"] and got.texts("x") == ["a,b", 'say "é"'], file
        with pytest.raises(TaskError, match=r"row 2, column 'x': why"):
            raise got.error(1, "x", "why")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("f.txt", b"x", "files of rows end in .jsonl"),
        ("f.jsonl", b"", "the file is empty"),
        ("f.csv", b"\n\n", "the file is empty"),
        ("f.jsonl", b'{"a": 1}\n{"a": \n', r"line 2: broken JSON \(JSONDecodeError"),
        ("f.jsonl", b'{"a": 1}\n3\n', "row 2: a row is a JSON object, not int"),
        ("f.json", b'[{"a": 1}', "broken JSON"),
        ("f.json", b"[" * 100_000, "broken JSON"),
        ("f.csv", b"a,a\n1,2\n", "names a column twice"),
        ("f.csv", b"a,b\n1,2\n3\n", "row 2: 1 fields, the header has 2"),
        ("f.csv", b'a\n"x', "not a whole CSV file"),
        ("f.csv", b"a\n\xff\xfe\n", "not readable as UTF-8"),
        ("f.parquet", b"PAR1", "not a whole Parquet file"),
        ("f.parquet", b"", "not a whole Parquet file"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TaskError, match=message) as error:
        read_file(tmp_path / name)
    assert str(error.value).startswith(str(tmp_path / name)) and "\n" not in str(error.value)


def test_a_missing_file_and_a_folder(tmp_path):
    for path in (tmp_path / "no.csv", tmp_path):
        with pytest.raises(TaskError, match="no such file|files of rows end in"):
            read_file(path)


def test_need():
    with pytest.raises(TaskError, match="f.csv: column 'y' is missing, the columns are x"):
        rows(x=["1"]).need("x", "y")
    with pytest.raises(TaskError, match="f.csv: the file is empty"):
        rows(x=[]).need("x")


@pytest.mark.parametrize(
    "value, message",
    [
        (None, "is empty"),
        (float("nan"), "is empty"),
        (" ", "is empty"),
        (3, "must be text, not int"),
        ("a\ud800", "half a character"),
    ],
)
def test_texts(value, message):
    with pytest.raises(TaskError, match=f"f.csv, row 2, column 'x': .*{message}"):
        rows(x=["a", value]).texts("x")


def test_ids():
    assert rows(x=["a", 2, 3.0]).ids("x") == ["a", "2", "3"]
    assert rows(x=["a", "a"]).ids("x", unique=False) == ["a", "a"]
    for value, message in (
        ("1", "'1' is already in row 1"),
        (2.5, "must be text"),
        (True, "must be text, not bool"),
        (None, "is empty"),
        (float("inf"), "must be text, not float"),
    ):
        with pytest.raises(TaskError, match=f"row 2, column 'x': {message}"):
            rows(x=[1, value]).ids("x")


def test_one_of():
    allowed = {"yes": "0", 1: "1"}
    assert rows(x=[" Yes", 1, 1.0]).one_of("x", allowed) == ["0", "1", "1"]
    for value, message in (
        ("no", "'no' is none of 'yes', 1"),
        (None, "is empty"),
        (True, "True is none"),
        ([1], "none of"),
    ):
        with pytest.raises(TaskError, match=f"row 1, column 'x': .*{message}"):
            rows(x=[value]).one_of("x", allowed)


def test_countries():
    assert rows(x=["US", "Great Britain"]).countries("x") == ["USA", "UK"]
    with pytest.raises(
        TaskError, match="row 1, column 'x': nobody knows the country 'Sout Korea'; is it 'South Korea'?"
    ):
        rows(x=["Sout Korea"]).countries("x")


def test_picked_rows_keep_their_number():
    picked = rows(x=["a", "b", "c", "d"]).pick([False, True, False, True])
    assert picked.texts("x") == ["b", "d"] and "row 4" in str(picked.error(1, "x", ""))


def test_first_half_is_rounded_down():
    frame = pd.DataFrame({"c": ["a", "b", "a", "a", "b", "c"]})
    assert first_half(frame, ["c"]).tolist() == [True, True, False, False, False, False]
