"""The view of scores of cloze questions: asked, read and coloured by the options' words."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import numpy as np
import pytest

from culnig_tl import evaluate, explore, load_task, question_scores, score_neurons, score_prompt
from culnig_tl.data.neurons import NeuronSet, Site
from culnig_tl.errors import PromptError, TaskError
from culnig_tl.figures.prompts import prompt_parts
from culnig_tl.method.cloze_answers import renormalised
from culnig_tl.tasks import Task
from culnig_tl.workbench import page
from culnig_tl.workbench.asking import ask, read_question, text_of
from culnig_tl.workbench.reading import TopQuestion, token_scores

TYPED = "Which city is in Spain?\nA. Madrid\nB. Busan\nC. Oaxaca\nD. Tehran"
KEY = ("mlp.gate", 0, 7)


@pytest.fixture(scope="module")
def cloze() -> Task:
    return load_task("miniculture", form="cloze", split="neuron", limit=24)


@pytest.fixture(scope="module")
def scores(model, cloze):
    return score_neurons(model, cloze, progress=False)


@pytest.fixture
def view(model, cloze, scores):
    general = NeuronSet(scores.top(120))
    made = explore(scores, model=model, task=cloze, neurons={"mine": general}, questions=12)
    yield made
    made.wait()
    made.close_all()


def words(shown: str) -> str:
    """What a reader sees of a piece of HTML."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", shown)).split())


# ---------------------------------------------------------------------------------------------------- asking


def test_an_example_is_shown_as_its_question_and_its_options_on_lines(view, cloze):
    stem, *lines = view.question.splitlines()
    shown = next(q for q in cloze if q.stem == stem and text_of(q) == view.question)
    assert lines == [f"{label}. {text}" for label, text in zip("ABCD", shown.texts)]
    offered = [text for text, _ in view._bench.examples.options]
    assert len(offered) == 13 and not any("Answer:" in text for text in offered)


@pytest.fixture
def suppressed(view, cloze):
    view._put(cloze[0])
    view.operation = "suppress"
    view.wait()
    assert view.error == ""
    return view


@pytest.mark.parametrize("when", ["before", "after"])
def test_p_of_every_option_is_what_evaluate_finds(when, suppressed, model, cloze):
    ablated = suppressed.selection if when == "after" else None
    table = evaluate(model, Task("one", (cloze[0],)), ablate=ablated, progress=False).table
    gain = np.array(table["log_likelihoods"][0]) - np.array(table["priors"][0])
    p = np.exp(gain - gain.max()) / np.exp(gain - gain.max()).sum()
    answered = getattr(suppressed.answers, when)
    np.testing.assert_allclose(answered.labels, p, rtol=1e-3)
    assert answered.top == () and sum(answered.labels) == pytest.approx(1, abs=1e-5)


def test_suppressing_changes_the_answer(suppressed):
    assert suppressed.answers.neurons == 120
    assert suppressed.answers.before.labels != suppressed.answers.after.labels


def test_the_bench_names_options_by_their_words(suppressed, cloze):
    shown = words(suppressed._bench.answered.value)
    right = cloze[0].options.index(cloze[0].answer)
    for place, (text, before, after) in enumerate(
        zip(cloze[0].texts, suppressed.answers.before.labels, suppressed.answers.after.labels)
    ):
        mark = " ✓" if place == right else ""
        assert f"{text}{mark} {100 * before:.1f}% → {100 * after:.1f}%" in shown
    assert "P(option)" in shown and "add up to 100%" in shown
    assert "vocabulary" not in shown and "next tokens" not in shown


def test_answers_as_a_table_hold_the_words(suppressed, cloze):
    table = suppressed.answers.to_dataframe()
    assert table["option"].tolist() == list(cloze[0].texts)


@pytest.mark.parametrize("normalise", ["sum", "length"])
def test_questions_are_asked_as_the_scores_were_normalised(normalise, model, cloze):
    made = score_neurons(model, cloze[:4].normalised(normalise), progress=False)
    view = explore(made, model=model, task=cloze)
    view._put(cloze[1])
    view.ask()
    view.wait()
    result = renormalised(evaluate(model, cloze[1:2], progress=False), normalise)
    p = view.answers.before.labels[cloze[1].options.index(cloze[1].answer)]
    assert p == pytest.approx(float(result.table["p_answer"][0]), rel=1e-3)


def test_a_typed_question_is_a_plain_prompt_and_its_options(view):
    view.ask(TYPED)
    view.wait()
    asked = view.answers.question
    assert asked.prompt == "Question: Which city is in Spain?\nAnswer:" and asked.control == "Answer:"
    assert view.answers.options == ("Madrid", "Busan", "Oaxaca", "Tehran") and view.answers.right is None


def test_labels_and_the_answers_beginning_play_no_part(view):
    view.ask(TYPED)
    view.wait()
    without = view.answers
    view.labels, view.answer_prefix = "X, Y", "The answer is "
    view.ask()
    view.wait()
    assert view.error == "" and view.answers == without


def test_their_fields_are_not_shown_and_the_view_says_why(view, study, model):
    def texts(box) -> list[str]:
        own = [box.description] if hasattr(box, "description") else []
        return own + [text for each in getattr(box, "children", ()) for text in texts(each)]

    def said(box) -> str:
        own = words(box.value) if type(box).__name__ == "HTML" else ""
        return own + " ".join(said(each) for each in getattr(box, "children", ()))

    assert not {"Labels", "Answer starts"} & set(texts(view._bench))
    assert "Answered in words (cloze)" in said(view._bench) and "play no part" in said(view._bench)
    of_letters = explore(study, model=model)
    assert {"Labels", "Answer starts"} <= set(texts(of_letters._bench))
    assert "Answered in words" not in said(of_letters._bench)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (" \n", "no question is typed"),
        ("Which city is in Spain?", "options are missing"),
        ("Which city is in Spain?\nA. Madrid", "only one option, 'Madrid'"),
        ("Which city is in Spain?\nA. Madrid\nB. Busan\nC. Madrid", "the same text, 'Madrid'"),
        ("Which city is in Spain?\nA. Madrid\nB.\nC. Busan", "option B has no text"),
        ("A. Madrid\nB. Busan", "no question"),
    ],
)
def test_what_is_not_a_cloze_question_is_refused(text, says, caplog):
    with pytest.raises(PromptError, match=says) as caught:
        read_question(text, form="cloze")
    assert "\n" not in str(caught.value) and caplog.text == ""


def test_errors_are_one_line_in_the_view_and_go_away(view):
    view.ask("Which city is in Spain?")
    view.wait()
    assert view.error.startswith("the options are missing") and view.error in words(view._message.value)
    view.ask(TYPED)
    view.wait()
    assert view.error == ""


def test_lines_that_look_like_options_stay_in_the_question():
    question = read_question("J. Rizal was born where?\n\nChoose.\nA. Manila\nB. Calamba", form="cloze")
    assert question.stem == "J. Rizal was born where?\n\nChoose." and question.texts == ("Manila", "Calamba")


def test_a_tasks_question_is_known_by_its_text_whatever_stands_in_it(view, cloze):
    odd = replace(cloze[0], stem="Is it\nA. this\nB. that\nC. or\nD. none\nE. at all?", id="odd")
    view._put(odd)
    view.ask()
    view.wait()
    assert view.answers.question is odd


def test_unknown_words_are_named_in_options_too(model):
    question = read_question("Which city is in Spain?\nA. Madrid\nB. Zxqv", form="cloze")
    assert "Zxqv" in ask(model, question, NeuronSet.from_indices([])).unknown


def test_an_option_without_a_token_is_refused_by_its_text_alone(model, monkeypatch):
    monkeypatch.setattr(
        "culnig_tl.engine.cloze.tokenize", lambda _, written, **how: [[1, 2] for _ in written]
    )
    with pytest.raises(PromptError, match="^option 'Madrid' becomes no token$"):
        ask(model, read_question(TYPED, form="cloze"), NeuronSet.from_indices([]))


def test_questions_in_another_form_than_the_scores_are_refused(model, scores, questions, study, cloze):
    with pytest.raises(TaskError, match=r"form 'cloze', miniculture is in 'letters': .*form='cloze'"):
        explore(scores, model=model, task=questions)
    with pytest.raises(TaskError, match="form='letters'"):
        explore(study, model=model, task=cloze)


def test_without_a_task_the_view_loads_the_scores_own_form(model, scores):
    view = explore(scores, model=model)
    assert view.source.task.form == "cloze" and {q.form for q in view.source.examples} == {"cloze"}


# ------------------------------------------------------------------------------------------------- the card


@pytest.fixture
def card(view):
    view.neuron = KEY
    view.wait()
    assert view.error == ""
    return view._card.questions.value


def test_the_card_puts_the_best_question_first_with_its_answer_in_words(card, model, cloze):
    asked = cloze.limit(12)
    found = question_scores(model, asked, NeuronSet.from_indices([KEY]), progress=False)
    best = asked[int(found.weighted[:, 0].argmax())]
    right = best.texts[best.options.index(best.answer)]
    assert words(card).split("read)", 1)[1].strip().startswith(f"{best.country}, answer {right}, P(answer)")


def test_the_card_says_what_its_colours_mean(card):
    assert "right option's words among all options'" in words(card) and "is subtracted" in words(card)
    assert "class='peak'" in card


@pytest.fixture(scope="module")
def read(model, cloze):
    return token_scores(model, [TopQuestion(q, 0.0, 0.0) for q in cloze[:3]], KEY)


def test_tokens_are_those_of_score_prompt(read, model):
    for each in read:
        alone = score_prompt(model, each.top.question)
        assert each.tokens == alone.tokens
        np.testing.assert_allclose(each.values, alone.arrays[Site.MLP_GATE][0, :, 7], rtol=1e-3, atol=1e-7)


def test_parts_hold_the_prompt_and_each_options_words_twice(read):
    for each in read:
        question, rows = each.top.question, each.rows()
        assert [name for name, _ in rows] == ["question", *"ABCD", "control", *"ABCD"]
        texts = [" ".join(each.tokens[where]) for _, where in rows]
        assert texts[1:5] == list(question.texts) == texts[6:]
        assert texts[0].startswith("Question :") and texts[5].endswith(":")


def test_no_control_is_shown_where_nothing_is_subtracted(model, cloze):
    (alone,) = token_scores(model, [TopQuestion(replace(cloze[0], normalise="sum"), 0.0, 0.0)], KEY)
    assert [name for name, _ in alone.rows()] == ["question", *"ABCD"]
    shown = page.questions([alone], "")
    assert "after the control" not in shown and "is subtracted" not in shown


def test_every_part_has_a_cell_of_its_own(read):
    shown = page.tokens(read[0])
    cells = [words(cell) for cell in re.findall(r"<div class='(?:small|all|)'>(.*?)</div>", shown)]
    question = read[0].top.question
    assert cells[0] == "question" and cells[3] == "after the question"
    assert cells[4].startswith("after the control: ")
    for place, (label, text) in enumerate(zip(question.options, question.texts)):
        mark = " ✓" if label == question.answer else ""
        assert cells[5 + 3 * place : 8 + 3 * place] == [f"{label}{mark}", text, text]
    assert shown.count("<span") == len(read[0].tokens) and shown.count("class='peak'") == 1


def test_text_from_elsewhere_stays_text(read):
    question = replace(read[0].top.question, options=("<b>", "B", "C", "D"), answer="B", country="<i>x</i>")
    parts = tuple((name.replace("A", "<b>"), start) for name, start in read[0].parts)
    tokens = ("<script>", *read[0].tokens[1:])
    hostile = replace(read[0], top=TopQuestion(question, 0.0, 0.0), parts=parts, tokens=tokens)
    shown = page.questions([hostile], "")
    assert "<b>" not in shown and "<script>" not in shown and "<i>x" not in shown
    assert "&lt;b&gt;" in shown and "&lt;script&gt;" in shown


def test_a_question_by_letters_is_one_part(model, questions):
    assert prompt_parts(model, questions[0]) == ()
    (alone,) = token_scores(model, [TopQuestion(questions[0], 0.0, 0.0)], KEY)
    assert alone.rows() == [("", slice(0, len(alone.tokens)))] and "parts" not in page.tokens(alone)
