"""Whatever a file holds, a reader returns rows or questions, or raises a `TaskError` of one line."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from culnig_tl.errors import TaskError
from culnig_tl.tasks import blend, commonsenseqa, countryrc, culturalbench, custom, glue, load_task, normad
from culnig_tl.tasks.choice import choice_wordings
from culnig_tl.tasks.countries import is_known, nearest, unify
from culnig_tl.tasks.question import Task
from culnig_tl.tasks.rows import FILE_TYPES, Rows, read_file
from culnig_tl.tasks.wordings import read_wordings, wordings

from .builders import blend_row, culturalbench_rows, normad_rows, survey, write_survey

TIMES = int(os.environ.get("CULNIG_FUZZ", "1"))
"""`make fuzz` tries ten times as many examples; they are the same in every run."""
quick = settings(
    max_examples=60 * TIMES,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@contextlib.contextmanager
def only_task_errors() -> Iterator[None]:
    try:
        yield
    except TaskError as error:
        assert str(error) and "\n" not in str(error)
        str(error).encode("utf-8", "backslashreplace")


@contextlib.contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


surrogates = st.text(st.characters(), max_size=8)  # half characters included, as JSON escapes can make them
numbers = st.integers() | st.floats() | st.integers(10**30, 10**40)
values = st.recursive(
    st.none()
    | st.booleans()
    | numbers
    | surrogates
    | st.sampled_from(["A", "a|b", '["a", "b"]', '{"A": "x"}', "[" * 2_000, "Iran", "yes", "1"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.text(max_size=3) | st.sampled_from(["label", "text", "A", "B"]), inner, max_size=4
        )
    ),
    max_leaves=8,
)

TEXT = '{"question": "Who?", "options": ["a", "b"], "answer": "a", "country": "Iran"}\n'
CSV = 'question,options,answer,country\nWho?,a|b,a,Iran\n"Wh\no?","[""a"", ""b""]",b,Spain\n'


def parquet() -> bytes:
    out = io.BytesIO()
    frame = pd.DataFrame([json.loads(TEXT)] * 3)
    frame.to_parquet(out)
    return out.getvalue()


def excel() -> bytes:
    out = io.BytesIO()
    pd.read_csv(io.StringIO(CSV)).to_excel(out, index=False)
    return out.getvalue()


VALID = {
    ".jsonl": TEXT.encode() * 3,
    ".json": f"[{TEXT}, {TEXT}]".encode(),
    ".csv": CSV.encode(),
    ".tsv": CSV.replace(", ", "|").replace(",", "\t").replace('"[""a""|""b""]"', "a|b").encode(),
    ".parquet": parquet(),
    ".xlsx": excel(),
}


@quick
@given(
    suffix=st.sampled_from(FILE_TYPES),
    content=st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode()),
)
def test_any_bytes_as_a_file(suffix, content):
    with folder() as root, only_task_errors():
        (root / f"f{suffix}").write_bytes(content)
        load_task(root / f"f{suffix}")


@pytest.mark.parametrize("suffix", FILE_TYPES)
@settings(quick, max_examples=50 * TIMES)
@given(data=st.data())
def test_a_good_file_with_some_bytes_changed(suffix, data):
    content = bytearray(VALID[suffix])
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with folder() as root, only_task_errors():
        file = root / f"f{suffix}"
        file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        load_task(file)


def test_the_good_files_are_good():
    for suffix, content in VALID.items():
        with folder() as root:
            (root / f"f{suffix}").write_bytes(content)
            assert len(load_task(root / f"f{suffix}")) >= 8


def shuffled_labels(name: str) -> Callable[[Rows], list]:
    return lambda rows: list(glue.questions_of(name, rows, wordings(name)))


READERS: dict[str, tuple[list[dict], Callable[[Rows], list]]] = {
    "blend": (
        [blend_row(0), blend_row(1)],
        lambda rows: list(blend.questions_of(rows, {"Al-en-01": "Food"})),
    ),
    "commonsenseqa": (
        [
            {
                "id": str(i),
                "question": "?",
                "choices": {"label": ["A", "B"], "text": ["x", "y"]},
                "answerKey": "A",
            }
            for i in range(2)
        ],
        lambda rows: list(commonsenseqa.questions_of(rows, choice_wordings("commonsenseqa", None))),
    ),
    "qnli": (
        [{"idx": i, "question": "?", "sentence": ".", "label": 1} for i in range(2)],
        shuffled_labels("qnli"),
    ),
    "mrpc": (
        [{"idx": i, "sentence1": "?", "sentence2": ".", "label": 0} for i in range(2)],
        shuffled_labels("mrpc"),
    ),
    "culturalbench": (
        culturalbench_rows(2),
        lambda rows: list(
            culturalbench.questions_of(rows, choice_wordings("culturalbench", None), [True] * len(rows))
        ),
    ),
    "normad": (normad_rows(3), lambda rows: list(normad.questions_of(rows, wordings("normad")))),
    "custom": (
        [json.loads(TEXT)] * 2,
        lambda rows: list(custom.questions_of("t", rows, choice_wordings("t", None))),
    ),
}


@pytest.mark.parametrize("name", READERS)
@quick
@given(data=st.data())
def test_any_value_in_any_column(name, data):
    good, read = READERS[name]
    rows = [dict(row) for row in good]
    for _ in range(data.draw(st.integers(1, 3))):
        row = data.draw(st.sampled_from(rows))
        row[data.draw(st.sampled_from(sorted(good[0])))] = data.draw(values)
    columns = (
        data.draw(st.lists(st.sampled_from(sorted(good[0])), unique=True))
        if data.draw(st.booleans())
        else list(good[0])
    )
    frame = pd.DataFrame(
        {column: pd.Series([row.get(column) for row in rows], dtype=object) for column in columns}
    )
    with only_task_errors():
        task = Task(name, tuple(read(Rows(frame, "f.jsonl"))))
        assert task.fingerprint and all(q.answer in q.options for q in task)


@pytest.mark.parametrize("name", READERS)
def test_the_good_rows_are_good(name):
    good, read = READERS[name]
    assert len(read(Rows(pd.DataFrame(good, dtype=object), "f"))) >= len(good)


@quick
@given(
    rows=st.lists(
        st.dictionaries(
            st.sampled_from(["id", "context", "question"]),
            values | st.sampled_from(["{country}", "a{country_dummy}"]),
            max_size=3,
        ),
        max_size=3,
    )
)
def test_any_passages(rows):
    with folder() as root, only_task_errors():
        (root / "f.json").write_text(json.dumps(rows))
        list(countryrc.questions_of(countryrc.read_passages(root / "f.json"), wordings("countryrc")))


@quick
@given(
    text=st.text(max_size=80)
    | st.sampled_from(["[[qnli]]\nprompt = '{question}{sentence}'", "[[choice]]\nprompt='{x}'\n"])
)
def test_any_file_of_wordings(text):
    with folder() as root, only_task_errors():
        (root / "w.toml").write_bytes(text.encode("utf-8", "surrogatepass"))
        read_wordings(root / "w.toml")


@settings(quick, max_examples=40 * TIMES)
@given(data=st.data())
def test_a_survey_with_some_bytes_changed(data):
    with folder() as root, only_task_errors():
        write_survey(root, *survey(people=24))
        file = root / data.draw(
            st.sampled_from(["question_metadata.json", "full_demographic_qa.tsv", "full_value_qa.tsv"])
        )
        content = bytearray(file.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        file.write_bytes(content[: data.draw(st.integers(0, len(content)))])
        load_task("worldvaluesbench", path=root)


@settings(quick, max_examples=60 * TIMES)
@given(table=st.dictionaries(st.sampled_from(["Q1", "Q2", "Q50"]), values, max_size=3) | values)
def test_any_metadata(table):
    with folder() as root, only_task_errors():
        write_survey(root, *survey(people=16))
        (root / "question_metadata.json").write_text(json.dumps(table))
        load_task("worldvaluesbench", path=root)


@quick
@given(name=st.text(max_size=20))
def test_any_name_of_a_task_or_country(name):
    country = unify(name)
    assert unify(country) == country and all(is_known(near) for near in nearest(name))
    with only_task_errors():
        load_task(name)


@quick
@given(columns=st.dictionaries(st.text(max_size=5), st.lists(values, min_size=2, max_size=2), max_size=3))
def test_any_rows_in_jsonl(columns):
    with folder() as root, only_task_errors():
        (root / "f.jsonl").write_text(
            "".join(json.dumps({key: pair[i] for key, pair in columns.items()}) + "\n" for i in range(2))
        )
        rows = read_file(root / "f.jsonl")
        assert len(rows) == (2 if columns else 0)
        for column in rows.frame.columns:
            for check in (rows.texts, rows.ids, rows.objects, rows.countries):
                with only_task_errors():
                    check(column)
            with only_task_errors():
                rows.one_of(column, {"yes": "1", 0: "0"})
