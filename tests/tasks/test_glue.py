"""qnli and mrpc: real rows, and broken ones."""

from __future__ import annotations

import re
from collections import Counter

import pandas as pd
import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import TASKS, load_task
from culnig_tl.tasks.glue import questions_of
from culnig_tl.tasks.rows import Rows
from culnig_tl.tasks.wordings import wordings


@pytest.mark.parametrize(
    "name, rows, columns, first",
    [
        ("qnli", 5_463, ("question", "sentence"), "What came into force"),
        ("mrpc", 1_709, ("sentence1", "sentence2"), "PCCW 's chief operating officer"),
    ],
)
def test_real_rows(hub, name, rows, columns, first):
    task = load_task(name, data_dir=hub)
    assert len(task) == 4 * rows and task.cluster_count == rows and not task.culture
    assert task.licence == TASKS[name].licence
    assert {q.options for q in task} == {("0", "1")} and first in task[0].prompt
    share = Counter(q.answer for q in task)["1"] / len(task)
    assert 0.45 < share < 0.7
    with pytest.raises(TaskError, match="offers no control"):
        task.control()


def test_other_rows_for_fine_tuning(hub):
    train = load_task("mrpc", data_dir=hub, rows_from="train")
    assert train.cluster_count > 4_000
    with pytest.raises(TaskError, match="qnli, split 'train'"):
        load_task("qnli", data_dir=hub, rows_from="train")


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"label": -1}, "column 'label': -1 is none of 0, 1"),  # what GLUE's hidden test labels are
        ({"label": None}, "column 'label': is empty"),
        ({"sentence": None}, "column 'sentence': is empty"),
        ({"idx": 0}, "column 'idx': '0' is already in row 1"),
    ],
)
def test_wrong_rows_are_named(changed, message):
    good = {"idx": 0, "question": "Who?", "sentence": "Ana.", "label": 0}
    rows = Rows(pd.DataFrame([good, good | {"idx": 1} | changed], dtype=object), "f.parquet")
    with pytest.raises(TaskError, match=re.escape(f"f.parquet, row 2, {message}")):
        list(questions_of("qnli", rows, wordings("qnli")))


def test_sentences_stand_where_the_wording_wants_them():
    rows = Rows(
        pd.DataFrame([{"idx": 3, "sentence1": "One {sentence2}.", "sentence2": "Two.", "label": 1}]), "f"
    )
    for q in questions_of("mrpc", rows, wordings("mrpc")):
        assert (
            q.prompt.index("One {sentence2}.") < q.prompt.index("Two.") and q.answer == "1"
        )  # blanks in a sentence stay
