"""Which form a model is asked in: tried, said, stored, and carried through a study and the command line."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pyarrow.parquet as pq
import pytest

from culnig_tl import NeuronScores, NeuronSet, evaluate, load_model, load_task, run_study
from culnig_tl.data.results import EvaluationResult
from culnig_tl.engine.cloze import encode_cloze
from culnig_tl.errors import CulnigError, ScoreError, StudyError
from culnig_tl.method import form
from culnig_tl.method.form import FormChoice, choose_form
from culnig_tl.run import pipeline
from culnig_tl.run.forecast import forecast
from culnig_tl.run.pieces import Questions
from culnig_tl.run.plan import gather, run_piece, write_plan
from culnig_tl.study.comparison import compare
from culnig_tl.study.config import StudyConfig
from culnig_tl.study.opened import more_random_sets, open_study
from culnig_tl.study.study import Study
from culnig_tl.tasks.question import Task

from .builders import questions_with_texts
from .helpers import invoked
from .processes import content
from .tasks.builders import write_saq


@pytest.fixture(scope="module")
def task():
    return questions_with_texts(12, options=4)


def rigged(monkeypatch, **right: float):
    """Answers of which that share is right, per form; what was asked is noted."""
    asked: list = []

    def answered(model, task, **options) -> EvaluationResult:
        asked.append(task)
        found = evaluate(model, task, **options)
        correct = [i < right[task.form] * len(task) for i in range(len(task))]
        return replace(found, table=found.table.assign(correct=correct))

    monkeypatch.setattr(form, "evaluate", answered)
    return asked


# --------------------------------------------------------------------------------------------------- a choice


@pytest.mark.parametrize(
    ("letters", "cloze", "chosen"), [(0.25, 0.5, "cloze"), (0.75, 0.5, "letters"), (0.5, 0.5, "letters")]
)
def test_the_form_further_above_chance_is_taken(letters, cloze, chosen, loaded, task, monkeypatch):
    rigged(monkeypatch, letters=letters, cloze=cloze)
    choice = choose_form(loaded("llama"), task, progress=False)
    assert choice.form == chosen and choice.questions == 12
    assert choice.above_chance == pytest.approx({"letters": 100 * letters - 25, "cloze": 100 * cloze - 25})


def test_a_choice_says_why(loaded, task, monkeypatch):
    rigged(monkeypatch, letters=0.25, cloze=0.5)
    assert str(choose_form(loaded("llama"), task, progress=False)) == (
        "form cloze: on 12 questions of words the unchanged model is +0.0 points from chance by letters,"
        " +25.0 by the options' words"
    )


def test_a_few_questions_of_each_country_are_tried(loaded, task, monkeypatch):
    asked = rigged(monkeypatch, letters=0.5, cloze=0.5)
    choose_form(loaded("llama"), task, per_country=2, progress=False)
    assert [one.form for one in asked] == ["letters", "cloze"]
    assert asked[0].counts() == {"Japan": 2, "Spain": 2, "Mexico": 2}
    assert [q.id for q in asked[0]] == [q.id for q in asked[1]]


def test_the_form_is_tried_in_the_words_that_are_asked_with(loaded, task, monkeypatch):
    asked = rigged(monkeypatch, letters=0.5, cloze=0.5)
    worded = partial(Task.cloze, prompt="{question} It is", normalise="sum")
    choose_form(loaded("llama"), task, cloze=worded, progress=False)
    assert asked[1].normalise == "sum" and asked[1][0].prompt == f"{task[0].stem} It is"


def test_chance_is_that_of_each_question(loaded, monkeypatch):
    rigged(monkeypatch, letters=0, cloze=0)
    mixed = questions_with_texts(4)  # of three and four options
    choice = choose_form(loaded("llama"), mixed, progress=False)
    assert choice.above_chance["letters"] == pytest.approx(-100 * (1 / 3 + 1 / 4) / 2)


def test_a_task_without_words_is_asked_by_letters(loaded):
    from . import families

    choice = choose_form(loaded("llama"), families.questions(3), progress=False)
    assert choice.form == "letters" and choice.questions == 0
    assert "cannot be asked in the form 'cloze'" in choice.why


def test_a_choice_can_be_written_as_json():
    choice = FormChoice("cloze", "because", {"letters": 0.0, "cloze": 1.5}, 3)
    assert FormChoice(**json.loads(json.dumps(choice.to_dict()))) == choice


def test_the_toy_answers_by_letters():
    """It was trained on letters; nothing is rigged."""
    task = load_task("miniculture", split="neuron", limit=64)
    assert choose_form(load_model("toy", device="cpu"), task, per_country=2, progress=False).form == "letters"


# ---------------------------------------------------------------------------------------------------- studies


@pytest.fixture(scope="module")
def quick():
    """Without figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "draw", lambda study, place: [])
        yield


@pytest.fixture(scope="module")
def config() -> StudyConfig:
    return StudyConfig(
        model="toy",
        tasks=("miniculture", "minicommonsense"),
        reading="minireading",
        rival="minicommonsense",
        top_mlp=0.05,
        top_attn=0.05,
        random_sets=1,
        limit=16,
        device="cpu",
        form="cloze",
    )


@pytest.fixture(scope="module")
def toy():
    return load_model("toy", device="cpu")


@pytest.fixture(scope="module")
def study(quick, config, toy, tmp_path_factory) -> Study:
    return run_study(config, model=toy, folder=tmp_path_factory.mktemp("form") / "study", progress=False)


def test_a_study_says_its_form(study):
    assert study.form == "cloze" and study.info["form"] == {"form": "cloze", "why": "asked for"}


def test_everything_in_a_study_is_of_its_form(study):
    assert {scores.metadata["form"] for scores in study.scores.values()} == {"cloze"}
    assert {neurons.provenance.form for neurons in study.neurons.values()} == {"cloze"}
    forms = {form for result in study.results.values() for form in result.metadata["form"].values()}
    assert forms == {"cloze"}


def test_a_study_that_is_read_back_has_its_form(study):
    back = Study.load(study.folder)
    assert back.form == "cloze" and back.table().equals(study.table())


def test_chance_is_that_of_guessing_among_the_words(study):
    assert {drop.trivial for drop in study.findings().drops.values()} == {25.0}


def test_a_study_is_opened_in_its_form(study):
    opened = open_study(study.folder, device="cpu")
    assert {task.form for task in opened.tasks} == {"cloze"} and opened.culture.form == "cloze"


def test_a_resumed_study_ends_in_the_same_bytes(study, config, toy):
    before = content(study.folder)
    path = study.folder / "results" / "culture-general.parquet"
    path.unlink()
    run_study(config, model=toy, folder=study.folder, resume=True, progress=False)
    assert content(study.folder) == before


@pytest.mark.slow
def test_pieces_gathered_are_the_study_in_one_go(quick, config, tmp_path, monkeypatch, toy):
    from culnig_tl.run import plan

    monkeypatch.setattr(plan, "load", lambda config: toy)
    monkeypatch.setattr(plan, "draw", lambda study, place: [])
    config = replace(config, tasks=("miniculture",), rival=None, limit=4, random_questions="all")
    whole = run_study(config, model=toy, folder=tmp_path / "whole", progress=False)
    for piece in write_plan(config, tmp_path / "study")[:-1]:
        run_piece(config, tmp_path / "study", piece.label, progress=False)
    assert gather(config, tmp_path / "study").form == "cloze"
    assert content(tmp_path / "study") == content(whole.folder)


def test_a_study_of_another_normalisation_has_other_scores(quick, study, config, toy):
    other = run_study(replace(config, normalise="sum"), model=toy, progress=False)
    assert other.scores["neuron"].metadata["normalise"] == "sum"
    assert set(other.results["unchanged"].metadata["normalise"].values()) == {"sum"}


def test_a_study_is_continued_in_its_own_normalisation(quick, config, toy):
    few = replace(config, normalise="length", tasks=("miniculture",), rival=None, limit=8, random_sets=1)
    opened = open_study(run_study(few, model=toy, progress=False), device="cpu")
    assert {task.normalise for task in (*opened.tasks, opened.culture, opened.reading)} == {"length"}
    more_random_sets(opened, 2, progress=False)
    added = opened.study.results["random by layer 1"]
    assert added.metadata["normalise"] == opened.study.results["unchanged"].metadata["normalise"]


@pytest.fixture
def counted(monkeypatch):
    """How often a model was tried; cloze is what it is said to be better at."""
    tried = []

    def choose(model, task, **options) -> FormChoice:
        assert not task.is_control
        tried.append(task.name)
        return FormChoice("cloze", "it was said", {"letters": 0.0, "cloze": 1.0}, len(task))

    monkeypatch.setattr(pipeline, "choose_form", choose)
    return tried


@pytest.fixture
def auto(config) -> StudyConfig:
    return replace(config, form="auto", tasks=("miniculture",), rival=None, limit=8)


def test_an_open_form_is_tried_once_and_stored(quick, counted, auto, toy, tmp_path):
    study = run_study(auto, model=toy, folder=tmp_path / "study", progress=False)
    assert counted == ["miniculture"] and study.form == "cloze"
    record = json.loads((tmp_path / "study" / "study.json").read_text())
    assert record["info"]["form"]["why"] == "it was said"
    assert study.scores["neuron"].metadata["form"] == "cloze"


def test_a_resumed_study_keeps_its_form_without_trying(quick, counted, auto, toy, tmp_path):
    study = run_study(auto, model=toy, folder=tmp_path / "study", progress=False)
    before = content(study.folder)
    (study.folder / "results" / "unchanged.parquet").unlink()
    again = run_study(auto, model=toy, folder=study.folder, resume=True, progress=False)
    assert counted == ["miniculture"] and again.form == "cloze" and content(study.folder) == before


def test_an_open_form_that_ends_in_letters_is_a_study_of_letters(quick, auto, toy):
    study = run_study(auto, model=toy, progress=False)
    assert study.form == study.scores["neuron"].metadata["form"] == "letters"
    assert study.info["form"]["above_chance"].keys() == {"letters", "cloze"}


def test_a_plan_cannot_try_the_model(auto, tmp_path):
    with pytest.raises(StudyError, match="a plan cannot try the model: say --form letters or") as error:
        write_plan(auto, tmp_path / "study")
    assert "\n" not in str(error.value)


# ------------------------------------------------------------------------------------------- the command line

MODEL = ("--model", "toy", "--device", "cpu", "--limit", 8)


def test_scores_from_the_shell(tmp_path):
    invoked("score", *MODEL, "--form", "cloze", "--normalise", "sum", "-o", tmp_path / "s.safetensors")
    scores = NeuronScores.load(tmp_path / "s.safetensors")
    assert (scores.metadata["form"], scores.metadata["normalise"]) == ("cloze", "sum")


def test_a_form_left_open_in_the_shell(tmp_path, counted):
    invoked("score", *MODEL, "--form", "auto", "-o", tmp_path / "s.safetensors")
    about = NeuronScores.load(tmp_path / "s.safetensors").metadata
    assert about["form"] == about["form_chosen"]["form"] == "cloze" and len(counted) == 1
    assert about["form_chosen"]["why"] == "it was said"


def test_answers_in_a_form_left_open_say_why(tmp_path, counted):
    invoked("evaluate", *MODEL, "--form", "auto", "-o", tmp_path / "r.parquet")
    about = EvaluationResult.load(tmp_path / "r.parquet").metadata
    assert about["form"] == {"miniculture": "cloze"} and about["form_chosen"]["why"] == "it was said"


def test_a_control_from_the_shell_is_scored_in_the_form_of_its_task(tmp_path, counted):
    words = ("--form", "auto", "--task", "miniculture:control", "-o", tmp_path / "s.safetensors")
    invoked("score", *MODEL, *words)
    assert NeuronScores.load(tmp_path / "s.safetensors").metadata["form"] == "cloze"


def test_exact_effects_in_the_shell(tmp_path, counted):
    words = ("--form", "auto", "--normalise", "sum", "--sample", 1, "-o", tmp_path / "t.parquet")
    printed = invoked("truth", *MODEL[:4], "--limit", 2, *words)
    assert "zeroed one at a time on 2 questions of miniculture" in printed and len(counted) == 1
    header = pq.read_schema(tmp_path / "t.parquet").metadata
    assert any(b"it was said" in value for value in header.values())


def test_tasks_are_compared_in_the_shell(tmp_path, counted):
    few = ("--tasks", "miniculture,minireading", "--reading", "minireading", "--random-sets", 1)
    shares = ("--top-mlp", 0.1, "--top-attn", 0.1)
    invoked("values", *MODEL, "--form", "auto", *few, *shares, "--output-dir", tmp_path)
    found = NeuronSet.load(tmp_path / "miniculture.parquet")
    assert found.provenance.form == "cloze" and counted == ["miniculture"]
    assert json.loads((tmp_path / "form_chosen.json").read_text())["why"] == "it was said"


@pytest.fixture
def worded(tmp_path):
    """A file of wordings, with the cloze form's prompt alone."""
    (tmp_path / "words.toml").write_text('[[cloze]]\nprompt = "{question} It is"\n')
    return tmp_path / "words.toml"


def test_an_analysis_asks_in_the_words_of_the_file(tmp_path, worded):
    """Of a task by name: what is written down is the fingerprint of its questions."""
    words = ("--form", "cloze", "--wordings", worded, "--sample", 1, "-o", tmp_path / "t.parquet")
    invoked("truth", *MODEL[:4], "--limit", 2, *words)
    wanted = load_task("miniculture", split="neuron", form="cloze", wordings=worded, limit=2).fingerprint
    header = pq.read_schema(tmp_path / "t.parquet").metadata
    assert any(wanted.encode() in value for value in header.values())


def test_a_chat_template_is_used_where_it_is_asked_for(tmp_path):
    shown = invoked("tasks", "show", "miniculture", "--form", "cloze", "--chat-template", "--limit", 1)
    assert "<user>Question:" in shown and "Answer:<assistant>" in shown
    words = ("--form", "cloze", "--chat-template", "--limit", 2, "-o", tmp_path / "s.safetensors")
    invoked("score", *MODEL[:4], *words)
    assert NeuronScores.load(tmp_path / "s.safetensors").metadata["chat_template"] is True


def test_answers_in_two_forms_are_not_compared(loaded):
    task = questions_with_texts(3)
    letters, cloze = (evaluate(loaded("llama"), each, progress=False) for each in (task, task.cloze()))
    with pytest.raises(ScoreError, match="asked alike: form of words is 'letters' and 'cloze'"):
        compare(letters, cloze, [letters])


def test_a_forecast_counts_the_tokens_of_all_options(config, toy):
    few = replace(config, tasks=("miniculture",), rival=None, limit=8)
    questions = Questions.load(few)
    row = forecast(few, toy, questions).table.set_index("pass").loc["ask"]
    expected = [prompt.counted for prompt in encode_cloze(toy.tokenizer, questions.asked[0].questions)]
    assert row["tokens"] == pytest.approx(sum(map(len, expected)), abs=1)


def test_the_way_from_scores_to_answers_in_the_shell(tmp_path):
    for name, more in (("scores", ()), ("control", ("--control",))):
        invoked("score", *MODEL, "--form", "cloze", *more, "-o", tmp_path / f"{name}.safetensors")
    files = ("--scores", tmp_path / "scores.safetensors", "--control", tmp_path / "control.safetensors")
    invoked("select", "general", *files, "--top-mlp", 0.1, "-o", tmp_path / "set.parquet")
    assert NeuronSet.load(tmp_path / "set.parquet").provenance.form == "cloze"
    asked = ("--neurons", tmp_path / "set.parquet", "--form", "cloze", "--normalise", "length")
    invoked("evaluate", *MODEL, "--tasks", "miniculture", *asked, "-o", tmp_path / "r.parquet")
    result = EvaluationResult.load(tmp_path / "r.parquet")
    assert result.metadata["form"] == {"miniculture": "cloze"}
    assert result.metadata["normalise"] == {"miniculture": "length"}


def test_forms_are_not_mixed_in_the_shell(tmp_path):
    invoked("score", *MODEL, "--form", "cloze", "-o", tmp_path / "s.safetensors")
    invoked("score", *MODEL, "--control", "-o", tmp_path / "c.safetensors")
    files = ("--scores", tmp_path / "s.safetensors", "--control", tmp_path / "c.safetensors")
    with pytest.raises(CulnigError, match="differ in form: 'cloze' and 'letters'"):
        invoked("select", "general", *files, "-o", tmp_path / "set.parquet")


def test_a_plan_with_an_open_form_in_the_shell(tmp_path):
    with pytest.raises(StudyError, match="say --form letters or --form cloze"):
        invoked("run", "--model", "toy", "--form", "auto", "--plan", "--output-dir", tmp_path / "study")


def test_a_task_is_shown_in_the_form():
    shown = invoked("tasks", "show", "minicommonsense", "--form", "cloze", "--limit", 1)
    assert "Question: What is" in shown and "(or: " in shown


def test_a_task_that_has_no_words_is_refused_in_the_shell(tmp_path):
    with pytest.raises(CulnigError, match="cannot be asked in the form 'cloze'"):
        invoked("tasks", "show", "blend-saq", "--form", "cloze", "--data-dir", write_saq(tmp_path))
