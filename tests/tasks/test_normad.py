"""normad, on a small file in its columns."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import load_task
from culnig_tl.tasks.normad import OPTIONS

from .builders import normad_rows, write_normad


def test_rows_as_questions(tmp_path):
    rows = normad_rows()
    task = load_task("normad", data_dir=write_normad(tmp_path, rows))
    assert len(task) == 120 and task.countries == (
        "Bosnia and Herzegovina",
        "Iran",
        "Timor-Leste",
        "Turkey",
        "USA",
    )
    right = {"yes": OPTIONS[0], "no": OPTIONS[1], "neutral": OPTIONS[2]}
    orders = set()
    for q in task:
        options = re.findall(r"^[1-3]\. (.+)$", q.prompt, flags=re.M)
        assert q.options == ("1", "2", "3") and sorted(options) == sorted(OPTIONS)
        assert options[int(q.answer) - 1] == right[rows[int(q.cluster)]["Gold Label"]]
        assert rows[int(q.cluster)]["Story"] in q.prompt and q.group == "visiting"
        assert not re.search(r"(?<!the )(?<!Country: )\bUSA", q.prompt)
        orders.add(tuple(options))
    assert len(orders) == 6


def test_the_first_half_of_each_country_and_label_finds_neurons(tmp_path):
    rows = normad_rows(30)  # two of each of 5 countries and 3 labels
    task = load_task("normad", data_dir=write_normad(tmp_path, rows))
    neuron = [q for q in task.neuron_split() if q.template == 0]
    label = {str(row["ID"]): row["Gold Label"] for row in rows}
    assert set(Counter((q.country, label[q.cluster]) for q in neuron).values()) == {1} and len(neuron) == 15
    for q in neuron:
        later = [
            p.cluster
            for p in task.test_split()
            if p.country == q.country and label[p.cluster] == label[q.cluster]
        ]
        assert all(int(q.cluster) < int(other) for other in later)


def test_it_offers_no_control_and_says_what_then(tmp_path):
    task = load_task("normad", data_dir=write_normad(tmp_path, normad_rows()))
    with pytest.raises(TaskError, match="'normad' offers no control.*own scores, with nothing subtracted"):
        task.control()


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"Gold Label": "maybe"}, "column 'Gold Label': 'maybe' is none of 'yes', 'no', 'neutral'"),
        ({"Country": "atlantis"}, "column 'Country': nobody knows the country 'atlantis'"),
        ({"Story": ""}, "column 'Story': is empty"),
        ({"ID": 0}, "column 'ID': '0' is already in row 1"),
    ],
)
def test_wrong_rows_are_named(tmp_path, changed, message):
    rows = normad_rows()
    rows[7] |= changed
    with pytest.raises(TaskError, match=re.escape(f"normad_etiquette_final_data.csv, row 8, {message}")):
        load_task("normad", data_dir=write_normad(tmp_path, rows))


def test_a_missing_column_is_named(tmp_path):
    rows = [{key: value for key, value in row.items() if key != "Story"} for row in normad_rows()]
    with pytest.raises(TaskError, match="column 'Story' is missing"):
        load_task("normad", data_dir=write_normad(tmp_path, rows))
