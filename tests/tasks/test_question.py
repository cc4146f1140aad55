"""`Question` and `Task`: splits, controls, limits, fingerprints."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culnig_tl.errors import TaskError
from culnig_tl.tasks import Question, Task, load_task
from culnig_tl.tasks.question import seeded_random


def question(name: str, **fields) -> Question:
    fields = {
        "task": "t",
        "cluster": name,
        "prompt": f"{name}?",
        "options": ("A", "B"),
        "answer": "A",
    } | fields
    return Question(id=name, **fields)


def grid(countries: int, templates: int, clusters: int, splits=(None,)) -> Task:
    """A task sorted by country, as BLEnD is."""
    return Task(
        "t",
        tuple(
            question(
                f"{c}/{t}/{k}",
                country=f"land {c}",
                template=t,
                cluster=f"q{k}",
                split=splits[k % len(splits)],
            )
            for c in range(countries)
            for k in range(clusters)
            for t in range(templates)
        ),
    )


@settings(max_examples=60, deadline=None)
@given(countries=st.integers(1, 17), templates=st.integers(1, 5), clusters=st.integers(1, 6), data=st.data())
def test_limit_is_even_over_countries_and_templates(countries, templates, clusters, data):
    task = grid(countries, templates, clusters)
    count = data.draw(st.integers(1, len(task)))
    part = task.limit(count)
    assert len(part) == count
    for counts, kinds in ((part.counts(), countries), (Counter(q.template for q in part), templates)):
        assert sum(counts.values()) == count
        assert max(counts.values()) - (min(counts.values()) if len(counts) == kinds else 0) <= 1


def test_limit_is_even_where_each_country_has_one_question_a_template():
    assert Counter(q.template for q in grid(4, 4, 1).limit(12)) == {0: 3, 1: 3, 2: 3, 3: 3}


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_limits_are_nested_and_keep_the_order(data):
    task = grid(5, 4, 6, splits=("neuron", "test"))
    small = data.draw(st.integers(1, 60))
    large = data.draw(st.integers(small, 120))
    few, many = [q.id for q in task.limit(small)], [q.id for q in task.limit(large)]
    assert set(few) <= set(many)
    order = {q.id: i for i, q in enumerate(task)}
    assert few == sorted(few, key=order.__getitem__)


def test_limit_takes_both_splits_and_different_clusters():
    part = grid(8, 4, 6, splits=("neuron", "test")).limit(64)
    assert Counter(q.split for q in part) == {"neuron": 32, "test": 32}
    per_cell = Counter((q.country, q.template, q.cluster) for q in part)
    assert max(per_cell.values()) == 1 and len({q.cluster for q in part}) == 6
    # Five rows of one underlying question: each cluster is taken once before any is taken twice.
    rows = Task(
        "t", tuple(question(f"{k}-{r}", cluster=f"q{k}", country="Iran") for k in range(20) for r in range(5))
    )
    assert len({q.cluster for q in rows.limit(20)}) == 20


def test_limit_fills_up_from_what_is_left():
    task = Task(
        "t",
        tuple(question(f"a{i}", country="Iran") for i in range(2))
        + tuple(question(f"b{i}", country="Spain") for i in range(9)),
    )
    assert task.limit(8).counts() == {"Iran": 2, "Spain": 6}
    assert task.limit(99) is task and task.limit(None) is task
    with pytest.raises(TaskError, match="at least 1"):
        task.limit(0)


def test_limit_does_not_depend_on_the_order_of_rows():
    task = grid(6, 2, 4)
    shuffled = list(task)
    seeded_random("any").shuffle(shuffled)
    assert {q.id for q in task.limit(17)} == {q.id for q in Task("t", tuple(shuffled)).limit(17)}


def test_duplicate_ids_and_impossible_answers_are_refused():
    with pytest.raises(TaskError, match="'x' occurs twice"):
        Task("t", (question("x"), question("x")))
    with pytest.raises(TaskError, match="answer 'E' is not one of"):
        Task("t", (question("x", answer="E"),))


def test_splits():
    task = Task("t", (question("a", split="neuron"), question("b", split="test")))
    assert [q.id for q in task.neuron_split()] == ["a"] and [q.id for q in task.test_split()] == ["b"]
    single = Task("t", (question("a"),))
    assert single.test_split() is single
    with pytest.raises(TaskError, match="no neuron split"):
        single.neuron_split()
    with pytest.raises(TaskError, match="no question of the test split"):
        task.neuron_split().test_split()


def test_control_replaces_the_prompt_only():
    task = Task("t", (question("a", control="Choose."), question("b", control="Choose!")))
    control = task.control()
    assert control.name == "t:control" and [q.prompt for q in control] == ["Choose.", "Choose!"]
    assert [(q.id, q.answer, q.options) for q in control] == [(q.id, q.answer, q.options) for q in task]
    assert control.fingerprint != task.fingerprint
    mixed = Task("t", (question("a", control="Choose."), question("b")))
    assert not mixed.has_control
    with pytest.raises(TaskError, match="offers no control.*nothing subtracted"):
        mixed.control()


def test_fingerprint_sees_every_field_and_is_the_same_in_another_process():
    task = grid(2, 2, 2)
    assert task.fingerprint == grid(2, 2, 2).fingerprint
    for field, value in {
        "prompt": "other",
        "answer": "B",
        "country": "Iran",
        "template": 7,
        "answer_prefix": "x",
        "system": "s",
        "split": "test",
    }.items():
        changed = Task(
            "t",
            (question("0/0/0", **{"country": "land 0", "cluster": "q0", field: value}), *task.questions[1:]),
        )
        assert changed.fingerprint != task.fingerprint, field
    code = "from culnig_tl.tasks import load_task; print(load_task('countryrc').fingerprint)"
    out = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "1", "PATH": ""},
    )
    assert out.stdout.strip() == load_task("countryrc").fingerprint


def test_importing_the_tasks_is_light():
    code = "import sys, culnig_tl.tasks; print(sorted({'torch', 'transformers', 'datasets', 'pandas', 'numpy'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_dataframe_and_words():
    task = grid(2, 2, 2)
    frame = task.to_dataframe()
    assert len(frame) == 8 and list(frame["country"].unique()) == ["land 0", "land 1"]
    assert "8 questions in 2 clusters, 2 countries" in str(task)
    assert task.cluster_count == 2 and task[0].id == "0/0/0" and [q.id for q in task[1:2]] == ["0/1/0"]
