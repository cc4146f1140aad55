"""blend: trimming, topics and splits, controls, languages."""

from __future__ import annotations

import json
from collections import Counter, defaultdict

import numpy as np
import pandas as pd
import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import COUNTRIES, load_task
from culnig_tl.tasks.blend import NEURON_TOPICS, TEST_TOPICS, questions_of, read_topics
from culnig_tl.tasks.rows import Rows, first_of_each

from .builders import blend_row, write_blend


def rows_of(*rows: dict) -> Rows:
    return Rows(pd.DataFrame(list(rows)), "rows.jsonl")


def first_five_literally(pairs: list[tuple[str, str]]) -> list[bool]:
    """The rule in words: a row is kept if fewer than five of its country and question came before it."""
    seen: dict[tuple[str, str], int] = defaultdict(int)
    kept = []
    for pair in pairs:
        kept.append(seen[pair] < 5)
        seen[pair] += 1
    return kept


def test_trimming_a_file_of_300_000_rows(tmp_path):
    rng = np.random.default_rng(0)
    # as on the Hub: 16 countries, about 320 questions, up to hundreds of rows per pair, in any order
    countries = rng.choice(
        ["US", "South_Korea", "Northern_Nigeria", "Iran", *(c for c in COUNTRIES[3:15])], 300_000
    )
    frame = pd.DataFrame(
        {"country": countries, "ID": [f"Al-en-{i:03d}" for i in rng.integers(0, 320, 300_000)]}
    )
    frame["MCQID"] = [f"{question}_{i}" for i, question in enumerate(frame["ID"])]
    kept = first_of_each(frame, ["country", "ID"], 5)
    assert kept.tolist() == first_five_literally(list(zip(frame["country"], frame["ID"])))
    assert frame[kept].groupby(["country", "ID"]).size().max() == 5


def test_trimming_in_the_task_keeps_file_order(tmp_path):
    rows = [
        blend_row(number, question=question) for number in range(8) for question in ("Al-en-01", "Al-en-02")
    ]
    task = load_task("blend", data_dir=write_blend(tmp_path, rows))
    assert [q.id for q in task if q.cluster == "Al-en-01"] == [f"Al-en-01_South_Korea_{i}" for i in range(5)]
    assert len(task) == 10


def test_a_row_as_a_question():
    (question,) = questions_of(rows_of(blend_row(3, country="US")), {"Al-en-01": "Food"})
    assert (question.country, question.cluster, question.group, question.split) == (
        "USA",
        "Al-en-01",
        "Food",
        "neuron",
    )
    assert (question.options, question.answer, question.answer_prefix) == (
        ("A", "B", "C", "D"),
        "C",
        '{"answer_choice":"',
    )
    assert question.prompt == blend_row(3, country="US")["prompt"]
    assert question.control is not None and question.prompt.endswith(question.control)
    assert (
        question.control.startswith("Without any explanation, choose")
        and "What do people eat" not in question.control
    )


def test_choices_may_already_be_parsed():
    row = blend_row()
    (question,) = questions_of(rows_of(row | {"choices": json.loads(row["choices"])}), {"Al-en-01": "Food"})
    assert question.options == ("A", "B", "C", "D")


@pytest.mark.parametrize(
    "changed, column, message",
    [
        ({"choices": '{"A": "rice"'}, "choices", "broken JSON"),
        ({"choices": "[1]"}, "choices", "must be a JSON object, not list"),
        ({"choices": '{"A": "rice"}'}, "choices", "two options or more"),
        ({"choices": '{"A": "rice", "B": 3}'}, "choices", "each a letter with text"),
        ({"choices": '{"A": "rice", "BB": "tea", "C": "soup"}'}, "choices", "each a letter with text"),
        ({"choices": None}, "choices", "is empty"),
        ({"answer_idx": "E"}, "answer_idx", "'E' is no option"),
        ({"answer_idx": 3}, "answer_idx", "must be text, not int"),
        ({"country": "Atlantis"}, "country", "nobody knows the country 'Atlantis'"),
        ({"prompt": "  "}, "prompt", "is empty"),
        ({"prompt": "What?"}, "prompt", "Without any explanation"),
        ({"ID": "Xx-99"}, "ID", "has no topic"),
        ({"MCQID": "Al-en-01_South_Korea_0"}, "MCQID", "is already in row 1"),
    ],
)
def test_wrong_rows_are_named(changed, column, message):
    with pytest.raises(TaskError) as error:
        list(questions_of(rows_of(blend_row(0), blend_row(1, **changed)), {"Al-en-01": "Food"}))
    assert f"rows.jsonl, row 2, column '{column}'" in str(error.value) and message in str(error.value)


def test_a_country_outside_the_sixteen_is_refused(tmp_path):
    root = write_blend(tmp_path, [blend_row(), blend_row(1, country="Japan")])
    with pytest.raises(
        TaskError, match=r"mc_questions_file.jsonl, row 2, column 'country': 'Japan' is none of"
    ):
        load_task("blend", data_dir=root)


def test_row_numbers_survive_the_trimming(tmp_path):
    rows = [blend_row(number) for number in range(9)] + [blend_row(0, question="Al-en-02", answer_idx="Z")]
    with pytest.raises(TaskError, match="row 10, column 'answer_idx'"):
        load_task("blend", data_dir=write_blend(tmp_path, rows))


def test_a_missing_column_is_named(tmp_path):
    row = blend_row()
    del row["choices"]
    with pytest.raises(
        TaskError, match="mc_questions_file.jsonl: column 'choices' is missing, the columns are MCQID"
    ):
        load_task("blend", data_dir=write_blend(tmp_path, [row]))


def test_the_hubs_present_layout_is_read_from_raw_files(tmp_path):
    """One JSON list, data/mc_questions_hf/mc_questions_file_v1.1.json, under uilab/BLEnD."""
    write_blend(tmp_path, [blend_row(number) for number in range(7)])
    folder = tmp_path / "uilab" / "BLEnD"
    (tmp_path / "nayeon212" / "BLEnD").rename(folder.parent.mkdir() or folder)
    (folder / "data" / "mc_questions_hf").mkdir()
    lines = (folder / "evaluation" / "mc_data" / "mc_questions_file.jsonl").read_text().splitlines()
    (folder / "data" / "mc_questions_hf" / "mc_questions_file_v1.1.json").write_text(
        "[" + ",\n".join(lines) + "]"
    )
    (folder / "README.md").unlink()
    (folder / "evaluation" / "mc_data" / "mc_questions_file.jsonl").unlink()
    task = load_task("blend", data_dir=tmp_path)
    assert len(task) == 5 and task.source == str(folder)


def test_local_language(tmp_path):
    root = write_blend(tmp_path, [blend_row(), blend_row(1), blend_row(0, question="Al-en-02")])
    english, local = load_task("blend", data_dir=root), load_task("blend-local", data_dir=root)
    assert local.name == "blend-local" and [q.id for q in local] == [q.id for q in english]
    assert (
        local[0].prompt.startswith("무엇을 먹나요 Al-en-01? Without any explanation")
        and local[0].control == english[0].control
    )
    assert load_task("blend", data_dir=root, language="local").fingerprint == local.fingerprint
    with pytest.raises(TaskError, match="not in 'Korean'"):
        load_task("blend", data_dir=root, language="Korean")


def test_a_blank_translation_is_left_out_and_counted(tmp_path, caplog):
    root = write_blend(tmp_path, [blend_row(), blend_row(0, question="Al-en-02")])
    file = root / "nayeon212/BLEnD/data/annotations_hf/South_Korea_data.json"
    rows = json.loads(file.read_text(encoding="utf-8"))
    rows[0]["question"] = "  "
    file.write_text(json.dumps(rows), encoding="utf-8")
    task = load_task("blend-local", data_dir=root)
    assert [q.cluster for q in task] == ["Al-en-02"] and task.skipped == 1
    assert "left out 1 rows" in caplog.text


def test_a_users_wordings_replace_the_data_sets_prompt(tmp_path):
    wordings = tmp_path / "w.toml"
    wordings.write_text(
        '[[blend]]\nprompt = "{question}\\n{options}\\nAnswer:"\ncontrol = "{options}\\nAnswer:"\n'
        '[[blend]]\nprompt = "{options} {question}"\n'
    )
    root = write_blend(tmp_path / "hub", [blend_row()])
    task = load_task("blend", data_dir=root, wordings=wordings)
    assert [q.template for q in task] == [0, 1] and {q.cluster for q in task} == {"Al-en-01"}
    assert (
        task[0].prompt == "What do people eat in South_Korea?\nA. rice 0\nB. tea\nC. bread\nD. soup\nAnswer:"
    )
    local = load_task("blend-local", data_dir=root, wordings=wordings)
    assert local[0].prompt.startswith("무엇을") and local[0].control == task[0].control


def test_real_rows(hub):
    topics = read_topics(hub)
    assert Counter(topic in NEURON_TOPICS for topic in topics.values()) == {True: 261, False: 239}
    assert set(topics.values()) == {*NEURON_TOPICS, *TEST_TOPICS}
    task = load_task("blend", data_dir=hub)
    assert len(task) == 26_308 and task.countries == tuple(sorted(COUNTRIES)) and task.cluster_count == 455
    assert max(Counter((q.country, q.cluster) for q in task).values()) == 5
    neuron, test = task.neuron_split(), task.test_split()
    assert len(neuron) + len(test) == len(task) and not {q.cluster for q in neuron} & {
        q.cluster for q in test
    }
    assert {q.group for q in neuron} == set(NEURON_TOPICS) and {q.group for q in test} == set(TEST_TOPICS)
    for q in list(task)[::500]:
        assert (
            q.control
            and q.prompt.endswith(q.control)
            and q.control.startswith("Without any explanation")
            and q.control.count("\nA. ") == 1
        )


def test_real_rows_in_local_languages(hub):
    english, local = load_task("blend", data_dir=hub), load_task("blend-local", data_dir=hub)
    by_id = {q.id: q for q in english}
    assert len(english) - len(local) == local.skipped == 5  # China's New-en-04 has a blank question
    kept = {q.id for q in local}
    assert {q.cluster for q in english if q.id not in kept} == {"New-en-04"}
    same = sum(q.prompt == by_id[q.id].prompt for q in local if q.country not in ("USA", "UK"))
    assert same == 0
    assert all(q.answer == by_id[q.id].answer and q.control == by_id[q.id].control for q in local)
