"""`Question` and `Task`: splits, controls, limits, fingerprints."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from culnig_tl.errors import TaskError
from culnig_tl.tasks import Question, Task, alignment, load_task
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


def test_limit_takes_every_cluster_once_before_any_twice():
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


def test_a_limit_that_is_none_or_too_large_changes_nothing():
    task = grid(2, 1, 1)
    assert task.limit(99) is task and task.limit(None) is task


def test_a_limit_below_1_is_refused():
    with pytest.raises(TaskError, match="at least 1"):
        grid(2, 1, 1).limit(0)


def test_limit_does_not_depend_on_the_order_of_rows():
    task = grid(6, 2, 4)
    shuffled = list(task)
    seeded_random("any").shuffle(shuffled)
    assert {q.id for q in task.limit(17)} == {q.id for q in Task("t", tuple(shuffled)).limit(17)}


def test_duplicate_ids_are_refused():
    with pytest.raises(TaskError, match="'x' occurs twice"):
        Task("t", (question("x"), question("x")))


def test_impossible_answers_are_refused():
    with pytest.raises(TaskError, match="answer 'E' is not one of"):
        Task("t", (question("x", answer="E"),))


def test_splits():
    task = Task("t", (question("a", split="neuron"), question("b", split="test")))
    assert [q.id for q in task.neuron_split()] == ["a"] and [q.id for q in task.test_split()] == ["b"]
    with pytest.raises(TaskError, match="no question of the test split"):
        task.neuron_split().test_split()


def test_a_task_with_a_single_split_only_tests():
    task = Task("t", (question("a"),))
    assert task.test_split() is task
    with pytest.raises(TaskError, match="no neuron split"):
        task.neuron_split()


CONTROLLED = Task("t", (question("a", control="Choose."), question("b", control="Choose!")))


def test_control_replaces_the_prompt_only():
    control = CONTROLLED.control()
    assert [q.prompt for q in control] == ["Choose.", "Choose!"]
    assert [(q.id, q.answer, q.options) for q in control] == [(q.id, q.answer, q.options) for q in CONTROLLED]
    assert control.fingerprint != CONTROLLED.fingerprint


def test_a_control_is_one_whatever_it_is_called():
    assert not CONTROLLED.is_control and not replace(CONTROLLED, name="t:control").is_control
    for control in (CONTROLLED.control(), CONTROLLED.control().limit(1), CONTROLLED.control()[:1]):
        assert control.is_control and replace(control, name="other").is_control


def test_a_control_keeps_the_metric():
    assert replace(CONTROLLED, metric="alignment").control().metric == "alignment"


def test_a_control_is_named_for_people():
    control = CONTROLLED.control()
    assert control.name == "t:control" and {q.task for q in control} == {"t:control"}


def test_a_task_that_lacks_a_control_somewhere_offers_none():
    mixed = Task("t", (question("a", control="Choose."), question("b")))
    assert not mixed.has_control
    with pytest.raises(TaskError, match="offers no control.*nothing subtracted"):
        mixed.control()


@pytest.mark.parametrize(
    "field, value",
    [
        ("prompt", "other"),
        ("answer", "B"),
        ("country", "Iran"),
        ("template", 7),
        ("answer_prefix", "x"),
        ("system", "s"),
        ("split", "test"),
    ],
)
def test_the_fingerprint_sees_every_field(field, value):
    task = grid(2, 2, 2)
    changed = question("0/0/0", **{"country": "land 0", "cluster": "q0", field: value})
    assert Task("t", (changed, *task.questions[1:])).fingerprint != task.fingerprint


def test_the_fingerprint_does_not_see_the_tasks_name():
    task = grid(2, 2, 2)
    assert replace(task, name="other", metric="alignment").fingerprint == task.fingerprint


def test_the_fingerprint_is_the_same_in_another_process():
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
    heavy = "{'torch', 'transformers', 'datasets', 'pandas', 'numpy'}"
    code = f"import sys, culnig_tl.tasks; print(sorted({heavy} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_a_task_as_a_table():
    frame = grid(2, 2, 2).to_dataframe()
    assert len(frame) == 8 and list(frame["country"].unique()) == ["land 0", "land 1"]


def test_a_task_in_words():
    assert "8 questions in 2 clusters, 2 countries" in str(grid(2, 2, 2))


def test_a_task_is_indexed_like_a_tuple():
    task = grid(2, 2, 2)
    assert task[0].id == "0/0/0" and [q.id for q in task[1:2]] == ["0/1/0"]


TEN = Question("w", "i", "c", "p", tuple(str(value) for value in range(1, 11)), "3")
THREE = Question("w", "i", "c", "p", ("0", "1", "2"), "0")


@pytest.mark.parametrize(
    "asked, answer, expected",
    [
        (TEN, "3", 100),
        (TEN, "10", 0),
        (TEN, "1", 500 / 7),
        (TEN, "5", 500 / 7),
        (THREE, "0", 100),
        (THREE, "1", 50),
        (THREE, "2", 0),
    ],
)
def test_alignment_falls_with_the_distance_from_the_label(asked, answer, expected):
    assert alignment(asked, answer) == pytest.approx(expected)


@pytest.mark.parametrize("answer", ["0", "11", "", "x", "3.0"])
def test_alignment_off_the_scale_is_0(answer):
    assert alignment(TEN, answer) == 0


def test_rows_of_the_same_question_are_counted_by_what_it_asks():
    def row(name: str, stem: str, country: str, template: int = 0) -> Question:
        return question(name, cluster="c", country=country, stem=stem, template=template)

    task = Task(
        "t",
        tuple(row(f"a{i}", "What?", "Iran") for i in range(5))
        + tuple(row(f"b{i}", "What?", "Spain") for i in range(2))
        + (row("c", "Which?", "Iran"), row("d", "What?", "Iran", template=1)),
    )
    one, two = task.rows(1), task.rows(2)
    assert Counter(q.id[0] for q in one) == {"a": 1, "b": 1, "c": 1, "d": 1}
    assert Counter(q.id[0] for q in two) == {"a": 2, "b": 2, "c": 1, "d": 1}
    assert {q.id for q in one} < {q.id for q in two}
    assert task.rows(None) is task and task.rows(5) is task


def test_which_row_stays_does_not_depend_on_the_file():
    """The package's own tasks list a question's rows by their right label: the first would always be A."""
    culture = load_task("miniculture", rows=1)
    assert len(Counter(q.answer for q in culture)) == 4
    turned = replace(culture, questions=load_task("miniculture").questions[::-1]).rows(1)
    assert {q.id for q in turned} == {q.id for q in culture}


def test_fewer_rows_than_one_are_refused():
    with pytest.raises(TaskError, match="at least 1"):
        grid(2, 1, 1).rows(0)


def test_countries_can_be_put_into_groups():
    countries = ("Spain", "Portugal", "Japan")
    asked = [question(f"{c}{k}", country=c, cluster=f"q{k}") for c in countries for k in (1, 2)]
    task = Task("t", tuple(asked))
    grouped = task.grouped({"Iberia": ["Spain", "PRT"], "East": ["JP"]})
    assert grouped.countries == ("East", "Iberia") and grouped.counts() == {"Iberia": 4, "East": 2}
    assert [q.id for q in task.grouped({"Iberia": ["Spain", "Portugal"]})] == [q.id for q in task][:4]
    assert grouped.fingerprint != task.fingerprint
    for groups, message in (
        ({}, "at least one group"),
        ({"a": ["France"]}, "asks nothing about 'France' of 'a'; it has Japan, Portugal, Spain"),
        ({"a": ["Spain"], "b": ["ESP"]}, "'Spain' is in two groups: 'a' and 'b'"),
    ):
        with pytest.raises(TaskError, match=message):
            task.grouped(groups)
