"""BLEnD's short-answer questions, from written files in its columns and from real rows."""

from __future__ import annotations

import pytest

from culnig_tl.errors import TaskError
from culnig_tl.tasks import COUNTRIES, load_task
from culnig_tl.tasks.blend_saq import LANGUAGES, PROMPTS, read_variants
from culnig_tl.tasks.question import Question, Task

from .builders import ANSWERS, write_saq


def test_regions_are_asked_in_their_language_with_the_data_sets_prompts(tmp_path):
    task = load_task("blend-saq", data_dir=write_saq(tmp_path))
    assert isinstance(task, Task) and task.short_answers and task.culture and not task.has_control
    assert set(task.countries) == set(COUNTRIES) and len(task) == 16 * 2 * len(PROMPTS)
    assert {q.group for q in task} == {"Education", "Family"}  # no question of a neuron topic
    question = next(q for q in task if q.country == "Nigeria" and q.template == 1)
    assert question.prompt == "Nigeria, pers-3: Al-en-02 Nigeria?"
    assert (
        question.language == "ha"
        and question.options == ()
        and question.cluster == "Al-en-02"
        and question.split is None
    )
    assert {q.country: q.language for q in task} == LANGUAGES
    assert len(set(LANGUAGES.values())) == 13


def test_all_variants_of_answers_with_a_vote_are_accepted_the_most_voted_first(tmp_path):
    task = load_task("blend-saq", data_dir=write_saq(tmp_path))
    assert {q.accepted for q in task} == {("uvas", "uva", "tea", "green tea")}
    assert {q.answer for q in task} == {"uvas"}


def test_in_english(tmp_path):
    root = write_saq(tmp_path)
    task = load_task("blend-saq", data_dir=root, language="en")
    assert (
        task.name == "blend-saq-en"
        and task.fingerprint == load_task("blend-saq-en", data_dir=root).fingerprint
    )
    assert {q.language for q in task} == {"en"} and {q.accepted for q in task} == {("grape", "grapes", "tea")}
    assert task[0].prompt == "In English, inst-4: What of Al-en-02 in USA?\nAnswer:"
    local = load_task("blend-saq", data_dir=root, language="local")
    assert local.fingerprint == load_task("blend-saq", data_dir=root).fingerprint != task.fingerprint
    with pytest.raises(TaskError, match="not in 'fr'"):
        load_task("blend-saq", data_dir=root, language="fr")


def test_what_nobody_answered_is_left_out_and_counted(tmp_path):
    spain = [
        {"ID": "Al-en-02", "question": "¿?", "en_question": "?", "annotations": [], "idks": {}},
        {"ID": "Al-en-03", "question": "  ", "en_question": "?", "annotations": ANSWERS, "idks": {}},
    ]
    task = load_task("blend-saq", data_dir=write_saq(tmp_path, Spain=spain))
    assert task.skipped == 2 and "Spain" not in task.countries and len(task) == 15 * 2 * len(PROMPTS)


def test_it_has_no_neuron_split_and_no_wordings_of_the_users(tmp_path):
    root = write_saq(tmp_path)
    task = load_task("blend-saq", data_dir=root)
    assert task.test_split() is task and len(task.limit(16).countries) == 16
    with pytest.raises(TaskError, match="no neuron split"):
        task.neuron_split()
    with pytest.raises(TaskError, match="no control"):
        task.control()
    own = tmp_path / "own.toml"
    own.write_text('[[blend-saq]]\nprompt = "{question}"\n')
    with pytest.raises(TaskError, match="come with the data set"):
        load_task("blend-saq", data_dir=root, wordings=own)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"prompts": [{"id": "inst-4", "English": "{q}", "Translation": "{q}"}]},
            "USA?.*prompt 'pers-3' is missing",
        ),
        (
            {"prompts": [{"id": p, "English": "{q}", "Translation": "no place"} for p in PROMPTS]},
            r"row 1, column 'Translation': lacks \{q\}",
        ),
        (
            {"prompts": [{"id": p, "English": "{q}", "Translation": ""} for p in PROMPTS]},
            "column 'Translation': is empty",
        ),
        (
            {"answers": [{"answers": "uvas", "en_answers": ["grape"], "count": 1}]},
            "US_data.json, row 2, column 'annotations': must hold",
        ),
        ({"answers": [{"answers": ["uvas"], "en_answers": ["grape"]}]}, "column 'annotations': must hold"),
        ({"answers": ["uvas"]}, "column 'annotations': must hold"),
        ({"answers": []}, "holds no answered question"),
        (
            {"Greece": [{"ID": "x", "question": "?", "en_question": "?", "annotations": ANSWERS}]},
            "Greece_data.json, row 1, column 'ID': 'x'",
        ),
        ({"Greece": [{"ID": "x", "annotations": ANSWERS}]}, "column 'question' is missing"),
    ],
)
def test_bad_files_are_named(changed, message, tmp_path):
    with pytest.raises(TaskError, match=message):
        load_task("blend-saq", data_dir=write_saq(tmp_path, **changed))


def test_a_missing_file_is_named(tmp_path):
    root = write_saq(tmp_path)
    (root / "nayeon212" / "BLEnD" / "data" / "prompts" / "Iran_prompts.csv").unlink()
    with pytest.raises(TaskError, match="data/prompts/Iran_prompts.csv"):
        load_task("blend-saq", data_dir=root)


def test_an_accepted_answer_must_be_the_answer():
    question = dict(task="t", id="1", cluster="1", prompt="?", options=(), language="en")
    with pytest.raises(TaskError, match="is not one of"):
        Task("t", (Question(**question, answer="rice", accepted=("tea",)),))


def test_fingerprints_of_questions_with_labels_did_not_change():
    question = Question(task="t", id="1", cluster="c", prompt="p", options=("A", "B"), answer="A")
    assert Task("t", (question,)).fingerprint == "b1d522c0868a4fbd"


def test_fingerprints_see_later_fields_where_they_are_set():
    other = Question(task="t", id="1", cluster="c", prompt="p", options=("A", "B"), answer="A", language="en")
    assert Task("t", (other,)).fingerprint != "b1d522c0868a4fbd"


# -------------------------------------------------------------------------------------------------- real rows


def test_real_rows(hub):
    task, english = load_task("blend-saq", data_dir=hub), load_task("blend-saq-en", data_dir=hub)
    assert task.cluster_count == english.cluster_count == 239
    assert len(task) == 16 * 239 * 2 - 2 * task.skipped and 100 < task.skipped < 200
    assert set(task.countries) == set(COUNTRIES)
    assert not any("{q}" in q.prompt for q in task)
    assert all(answer == answer.strip() != "" for q in task for answer in q.accepted)
    asked = {q.country: q.prompt for q in task if q.cluster == "Al-en-16" and q.template == 0}
    assert (
        "Ερώτηση:" in asked["Greece"] and "질문:" in asked["North Korea"] and "Sual:" in asked["Azerbaijan"]
    )
    assert "heç bir izahatsız" in asked["Azerbaijan"]  # of two prompts under one name, the first


def test_real_variants_are_groups_of_all_topics(hub):
    groups = read_variants("Greece", data_dir=hub)
    assert len(groups) == 500
    assert any(len(group) > 1 for question in groups.values() for group in question)
    english = read_variants("Greece", data_dir=hub, english=True)
    assert [len(question) for question in english.values()] == [len(question) for question in groups.values()]
