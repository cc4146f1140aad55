"""The cloze form of every task: what is asked, which options' words, and what cannot be asked so."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from dataclasses import fields, replace

import pandas as pd
import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import TASKS, load_task
from culnig_tl.tasks.question import Question, Task

from .builders import (
    blend_row,
    culturalbench_rows,
    normad_rows,
    survey,
    write_blend,
    write_csv,
    write_culturalbench,
    write_jsonl,
    write_normad,
    write_saq,
    write_survey,
)

LETTERS_ONLY = ("worldvaluesbench", "blend-saq", "blend-saq-en")
PACKAGE = tuple(name for name, info in TASKS.items() if info.source == "package")
GLUE = ("qnli", "mrpc")


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """Generated rows of every data set in its true columns, where a mirror of the Hub would have them."""
    root = tmp_path_factory.mktemp("mirror")
    countries = ("South_Korea", "Spain", "Mexico")
    write_blend(root, [blend_row(i, country=countries[i % 3]) for i in range(6)])
    write_culturalbench(root, culturalbench_rows())
    write_normad(root, normad_rows())
    choices = {"label": list("ABCDE"), "text": ["shelf", "sea", "sky", "sun", "sand"]}
    common = [
        {"id": f"q{i}", "question": f"Where is book {i}?", "choices": choices, "answerKey": "ABCDE"[i % 5]}
        for i in range(5)
    ]
    parquet(root / "tau" / "commonsense_qa" / "data" / "validation-0.parquet", common)
    pairs = [{"idx": i, "label": i % 2} for i in range(4)]
    glue = root / "nyu-mll" / "glue"
    qnli = [row | {"question": f"Who {row['idx']}?", "sentence": f"He {row['idx']}."} for row in pairs]
    mrpc = [row | {"sentence1": f"One {row['idx']}.", "sentence2": f"Two {row['idx']}."} for row in pairs]
    parquet(glue / "qnli" / "validation-0.parquet", qnli)
    parquet(glue / "mrpc" / "test-0.parquet", mrpc)
    return root


def parquet(path, rows):
    path.parent.mkdir(parents=True)
    pd.DataFrame(rows).to_parquet(path)


def loaded(name, mirror, **options) -> Task:
    return load_task(name, data_dir=None if name in PACKAGE else mirror, **options)


ASKED = {
    "blend": "What do people eat in South_Korea?",
    "culturalbench": "In United States, what is custom 0?",
    "normad": "At dinner 0, Ana left her shoes on. Was this acceptable?\nIs this acceptable in the USA?",
    "commonsenseqa": "Where is book 0?",
    "qnli": "Who 0?\nHe 0.\nDoes the sentence answer the question?",
    "mrpc": "One 0.\nTwo 0.\nDo both sentences say the same?",
}
RIGHT = {
    "blend": "bread",
    "culturalbench": "first 0",
    "normad": "Yes",
    "commonsenseqa": "shelf",
    "qnli": "yes",
    "mrpc": "no",
}
CHOICE = (*ASKED, *PACKAGE)


@pytest.mark.parametrize("name", ASKED)
def test_the_first_row_as_a_cloze_question(name, mirror):
    q = loaded(name, mirror, form="cloze")[0]
    assert q.prompt == f"Question: {ASKED[name]}\nAnswer:" and q.control == "Answer:"
    assert (q.form, q.system, q.answer_prefix, q.template) == ("cloze", None, "", 0)
    assert q.texts[q.options.index(q.answer)] == RIGHT[name]


@pytest.mark.parametrize("name", CHOICE)
def test_texts_stand_in_the_order_of_the_labels(name, mirror):
    for q in loaded(name, mirror):
        assert len(q.texts) == len(q.options)
        if name not in (*GLUE, "miniparaphrase", "minianswers"):  # "0" and "1" are explained in a sentence
            lines = [re.escape(f"{label}. {text}") for label, text in zip(q.options, q.texts)]
            assert re.search(r"\n".join(lines), q.prompt)


@pytest.mark.parametrize("name", CHOICE)
def test_the_right_option_is_the_same_in_both_forms(name, mirror):
    letters = loaded(name, mirror)
    words = {q.id: q.texts[q.options.index(q.answer)] for q in letters}
    cloze = letters.cloze()
    assert len(cloze) and all(words[q.id] == q.texts[q.options.index(q.answer)] for q in cloze)


@pytest.mark.parametrize("name", CHOICE)
def test_loading_in_the_form_is_turning_into_it(name, mirror):
    task = loaded(name, mirror, form="cloze")
    assert task.form == "cloze" and task.questions == loaded(name, mirror).cloze().questions


@pytest.mark.parametrize("name", CHOICE)
def test_every_cloze_task_has_a_control(name, mirror):
    control = loaded(name, mirror, form="cloze", control=True, limit=2)
    assert control.is_control and control.form == "cloze"
    assert {(q.prompt, q.control) for q in control} == {("Answer:", None)}


@pytest.mark.parametrize("name", ["culturalbench", "normad", "commonsenseqa", *GLUE, "countryrc"])
def test_four_wordings_become_one_question(name, mirror):
    letters = loaded(name, mirror)
    assert 4 * len(letters.cloze()) == len(letters)


def test_questions_with_other_options_stay_apart(mirror):
    """BLEnD's rows of one question differ in their wrong options."""
    assert len(loaded("blend", mirror).cloze()) == len(loaded("blend", mirror)) == 6


def test_the_same_options_in_another_order_are_one_question():
    one = Question("t", "1", "c", "?", ("A", "B"), "A", stem="s", texts=("x", "y"))
    other = replace(one, id="2", answer="B", texts=("y", "x"))
    assert [q.id for q in Task("t", (one, other)).cloze()] == ["1"]
    assert len(Task("t", (one, replace(other, answer="A"))).cloze()) == 2, "another option is right"


def test_a_file_of_one_s_own(tmp_path):
    row = {"question": "What is eaten?", "options": ["soba", "tapas"], "answer": "soba", "country": "Japan"}
    (q,) = load_task(write_jsonl(tmp_path / "mine.jsonl", [row]), form="cloze")
    assert q.prompt == "Question: What is eaten?\nAnswer:" and sorted(q.texts) == ["soba", "tapas"]


def test_splits_are_kept(mirror):
    task = loaded("culturalbench", mirror, form="cloze")
    assert len(task.neuron_split()) + len(task.test_split()) == len(task) == 12


@pytest.mark.parametrize("name", CHOICE)
def test_what_is_in_words_already_stays_as_it_is(name, mirror):
    cloze = loaded(name, mirror, form="cloze")
    assert cloze.cloze().questions == cloze.questions


# ------------------------------------------------------------------------------------ what cannot be asked so


@pytest.mark.parametrize("name", LETTERS_ONLY)
def test_tasks_without_options_in_words_say_so_in_one_line(name, tmp_path):
    if name == "worldvaluesbench":
        options = {"path": write_survey(tmp_path, *survey())}
    else:
        options = {"data_dir": write_saq(tmp_path)}
    with pytest.raises(TaskError, match=f"task '{name}' cannot be asked in the form 'cloze'") as error:
        load_task(name, form="cloze", **options)
    assert "\n" not in str(error.value)


def test_an_option_without_text_names_its_question():
    q = Question("t", "q7", "c", "?", ("A", "B"), "A", stem="s", texts=("x", "  "))
    with pytest.raises(TaskError, match="task 't', question 'q7': an option has no text"):
        Task("t", (q,)).cloze()


def test_a_control_is_not_asked_with_its_question_again():
    control = load_task("miniculture", control=True, limit=2)
    with pytest.raises(TaskError, match=r"first cloze\(\), then control\(\)"):
        control.cloze()


def same_options(mirror, tmp_path):
    """BLEnD's rows, of which two of one question have an option twice."""
    rows = [blend_row(i) for i in range(3)]
    for number in (0, 1):
        given = {"A": "tea", "B": " tea", "C": "bread", "D": f"soup {number}"}
        rows[number]["choices"] = json.dumps(given)
    return load_task("blend", data_dir=write_blend(tmp_path, rows))


def test_questions_with_an_option_twice_are_left_out_and_counted(mirror, tmp_path):
    task = same_options(mirror, tmp_path)
    cloze = task.cloze()
    assert [q.id for q in cloze] == ["Al-en-01_South_Korea_2"]
    assert (task.skipped, cloze.skipped) == (0, 2)


def test_questions_with_an_option_twice_are_named(mirror, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        same_options(mirror, tmp_path).cloze()
    assert "blend: left out 2 questions with two options of the same text, e.g." in caplog.text
    assert "'Al-en-01_South_Korea_0', 'Al-en-01_South_Korea_1'" in caplog.text


def test_wordings_of_a_question_that_is_left_out_are_counted_once(tmp_path):
    rows = culturalbench_rows(3)
    rows[1]["prompt_option_b"] = rows[1]["prompt_option_a"]
    task = load_task("culturalbench", data_dir=write_culturalbench(tmp_path, rows), form="cloze")
    assert len(task) == 2 and task.skipped == 1


# --------------------------------------------------------------------------------------------------- wordings


def worded(tmp_path, text):
    file = tmp_path / "words.toml"
    file.write_text(text, encoding="utf-8")
    return load_task("minicommonsense", form="cloze", limit=1, wordings=file)[0]


def test_a_file_of_wordings_replaces_prompt_and_control(tmp_path):
    q = worded(tmp_path, "[[cloze]]\nprompt = 'F: {question}\\nA:'\ncontrol = 'A:'".replace("'", '"'))
    assert q.prompt == f"F: {q.stem}\nA:" and q.control == "A:"


def test_a_file_of_wordings_may_leave_the_control_as_it_is(tmp_path):
    q = worded(tmp_path, '[[cloze]]\nprompt = "{question} It is"')
    assert q.prompt == f"{q.stem} It is" and q.control == "Answer:"


def test_a_prompt_without_the_question_is_refused(tmp_path):
    with pytest.raises(TaskError, match="wording 1 of 'cloze': the prompt lacks {question}"):
        worded(tmp_path, '[[cloze]]\nprompt = "Answer:"')


def test_letters_take_nothing_from_the_table(tmp_path):
    file = tmp_path / "words.toml"
    file.write_text('[[cloze]]\nprompt = "{question} It is"', encoding="utf-8")
    plain = load_task("minicommonsense", limit=1)
    assert load_task("minicommonsense", limit=1, wordings=file).questions == plain.questions


# ----------------------------------------------------------------------------------------------- fingerprints

BEFORE = (
    "task id cluster prompt options answer country group split system answer_prefix template control"
    " accepted language"
).split()
"""The fields of a question before there was a cloze form."""


def hashed(task, names, optional=("accepted", "language")) -> str:
    digest = hashlib.sha256()
    for question in task:
        values = {name: getattr(question, name) for name in sorted(names)}
        said = {name: value for name, value in values.items() if value or name not in optional}
        digest.update(json.dumps(said, ensure_ascii=False).encode())
    return digest.hexdigest()[:16]


@pytest.mark.parametrize("name", CHOICE)
def test_letters_have_the_fingerprint_that_they_had(name, mirror):
    task = loaded(name, mirror)
    assert task.fingerprint == hashed(task, BEFORE)


@pytest.mark.parametrize("name", CHOICE)
def test_the_fingerprint_of_cloze_is_of_every_field(name, mirror):
    task = loaded(name, mirror, form="cloze")
    later = ("normalise", "chat_template")
    assert task.fingerprint == hashed(task, [f.name for f in fields(Question) if f.name not in later])
    assert task.fingerprint != task.normalised("sum").fingerprint
    assert task.fingerprint != loaded(name, mirror).fingerprint


def test_a_chat_template_decides_the_fingerprint_of_cloze_alone(mirror):
    given = {"chat_template": True, "limit": 2}
    letters, cloze = (loaded("blend", mirror, limit=2, form=form) for form in ("letters", "cloze"))
    assert loaded("blend", mirror, **given).fingerprint == letters.fingerprint
    templated = loaded("blend", mirror, form="cloze", **given)
    assert templated.chat_template and templated.fingerprint != cloze.fingerprint


@pytest.mark.parametrize("changed", [{"texts": ("x", "z")}, {"stem": "other"}])
def test_words_decide_the_fingerprint_of_cloze_alone(changed):
    q = Question("t", "1", "c", "?", ("A", "B"), "A", stem="s", texts=("x", "y"))
    one, other = Task("t", (q,)), Task("t", (replace(q, **changed),))
    assert one.fingerprint == other.fingerprint
    assert one.cloze().fingerprint != other.cloze().fingerprint


# -------------------------------------------------------------------------------------------------- real rows


def test_real_rows_of_blend(hub):
    task = load_task("blend", data_dir=hub, form="cloze")
    assert len(task) == 20_474 and task.cluster_count == 455 and task.skipped == 0
    assert len(task.countries) == 16 and all(len(q.texts) == len(q.options) == 4 for q in task)


def test_real_rows_of_commonsenseqa(hub):
    task = load_task("commonsenseqa", data_dir=hub, form="cloze")
    assert len(task) == 1_197 and task.skipped == 24


def test_real_rows_of_glue(hub):
    assert len(load_task("qnli", data_dir=hub, form="cloze")) == 5_463
    assert len(load_task("mrpc", data_dir=hub, form="cloze")) == 1_709


def test_csv_keeps_texts(tmp_path):
    """An option that looks like a number stays the text that it is."""
    row = {"question": "How many?", "options": "1|2|03", "answer": "03", "country": ""}
    (q,) = load_task(write_csv(tmp_path / "n.csv", [row]), form="cloze")
    assert sorted(q.texts) == ["03", "1", "2"] and q.texts[q.options.index(q.answer)] == "03"
