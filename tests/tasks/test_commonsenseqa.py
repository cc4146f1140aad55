"""commonsenseqa: real rows, and broken ones."""

from __future__ import annotations

import re
from collections import Counter

import pandas as pd
import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import TASKS, load_task
from culnig_tl.tasks.choice import choice_wordings
from culnig_tl.tasks.commonsenseqa import questions_of
from culnig_tl.tasks.rows import Rows


def row(**changed) -> dict:
    return {
        "id": "q1",
        "question": "Where is a book?",
        "choices": {"label": list("ABCDE"), "text": ["shelf", "sea", "sky", "sun", "sand"]},
        "answerKey": "A",
    } | changed


def questions(*rows: dict):
    return list(
        questions_of(Rows(pd.DataFrame(list(rows)), "f.parquet"), choice_wordings("commonsenseqa", None))
    )


def test_a_row_as_questions():
    got = questions(row(answerKey="C"))
    assert [q.template for q in got] == [0, 1, 2, 3] and {q.cluster for q in got} == {"q1"}
    for q in got:
        assert q.options == tuple("ABCDE") and q.answer == "C" and q.country is None and q.split is None
        assert "A. shelf\nB. sea\nC. sky\nD. sun\nE. sand" in q.prompt and "Where is a book?" in q.prompt
        assert q.control and "Where is a book?" not in q.control and "C. sky" in q.control


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"answerKey": "F"}, "column 'answerKey': 'F' is no option, the options are A, B, C, D, E"),
        ({"answerKey": ""}, "column 'answerKey': is empty"),
        ({"choices": {"label": ["A"], "text": ["x", "y"]}}, "column 'choices': must hold lists"),
        ({"choices": {"label": ["A", "B"], "text": ["x", " "]}}, "column 'choices': an option is empty"),
        ({"choices": {"text": ["x", "y"]}}, "column 'choices': must hold lists"),
        ({"id": "q0"}, "column 'id': 'q0' is already in row 1"),
    ],
)
def test_wrong_rows_are_named(changed, message):
    with pytest.raises(TaskError, match=re.escape(f"f.parquet, row 2, {message}")):
        questions(row(id="q0"), row(**changed))


def test_real_rows(hub):
    task = load_task("commonsenseqa", data_dir=hub)
    assert len(task) == 4 * 1_221 and task.cluster_count == 1_221 and not task.culture and task.has_control
    assert task.licence == TASKS["commonsenseqa"].licence
    assert set(Counter(q.template for q in task).values()) == {1_221}
    assert min(Counter(q.answer for q in task if q.template == 0).values()) > 200
    with pytest.raises(TaskError, match="no neuron split"):
        task.neuron_split()
