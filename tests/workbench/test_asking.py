"""Asking a question before and after the selected neurons are changed; nobody waits for the answer."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest
from ipywidgets import Button

from culnig_tl import ablate, evaluate, score_prompt
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.errors import PromptError, StudyError
from culnig_tl.tasks import Task
from culnig_tl.workbench.asking import ask, option_lines, read_question, unknown_words
from culnig_tl.workbench.source import ALL

from .acting import TYPED


@pytest.fixture
def suppressed(view, questions):
    """A view that has asked a question of the task with the selected neurons suppressed."""
    view._put(questions[0])
    view.operation = "suppress"
    view.wait()
    assert view.error == ""
    return view


def test_a_question_of_the_task_knows_its_answer(suppressed, questions):
    assert suppressed.answers.operation == "suppress"
    assert suppressed.answers.right == questions[0].answer


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_selection_goes_into_evaluate(when, suppressed, model, questions):
    question, answers = questions[0], suppressed.answers
    ablated = suppressed.selection if when == "after" else None
    table = evaluate(model, Task("one", (question,)), ablate=ablated, progress=False).table
    p = getattr(answers, when).labels[question.options.index(question.answer)]
    np.testing.assert_allclose(p, table["p_answer"][0], rtol=1e-3)


def test_the_selection_goes_into_ablate(suppressed, model, questions):
    question, answers = questions[0], suppressed.answers
    with ablate(model, suppressed.selection):
        p = score_prompt(model, question).p_answer
    assert p == pytest.approx(answers.after.labels[question.options.index(question.answer)], rel=1e-3)
    assert answers.before.labels != answers.after.labels


def test_the_bench_shows_the_answers(suppressed, questions):
    question, shown = questions[0], suppressed._bench.answered.value
    p = suppressed.answers.after.labels[question.options.index(question.answer)]
    assert f"{100 * p:.1f}%" in shown and "✓" in shown


def test_answers_as_a_table(suppressed, questions):
    options = suppressed.answers.to_dataframe()["option"]
    assert options.tolist() == list(option_lines(questions[0].prompt).values())


def test_sets_made_in_code_are_asked_with(view):
    view.operation = "enhance"
    view.wait()
    seen = []
    view.observe(lambda change: seen.append(change["new"]), "answers")
    view.selection = NeuronSet.from_indices([("mlp.gate", 0, 1), ("attn.v", 2, 3)])
    view.wait()
    assert view.answers.neurons == 2 and seen == [view.answers]
    assert "Selection: 2 neurons" in view._bench.selected.value


def test_an_empty_selection_changes_nothing(suppressed):
    suppressed.selection = NeuronSet.from_indices([])
    suppressed.wait()
    assert suppressed.answers.neurons == 0 and suppressed.answers.after == suppressed.answers.before
    assert "Selection: 0 neurons" in suppressed._bench.selected.value


def buttons_in(box) -> dict:
    """Text -> button."""
    found = {}
    for each in getattr(box, "children", ()):
        found |= {each.description: each} if isinstance(each, Button) else buttons_in(each)
    return found


def test_buttons_change_the_selection(view, study):
    buttons = buttons_in(view)
    assert buttons["Add to selection"].disabled
    buttons["Clear"].click()
    assert len(view.selection) == 0
    view.neuron = ("attn.q", 3, 9)
    assert not buttons["Add to selection"].disabled
    buttons["Add to selection"].click()
    assert view.selection.keys() == {("attn.q", 3, 9)}
    view.set_name, view.country = "culture-specific", "Spain"
    buttons["Select all shown"].click()
    assert view.selection.keys() == study.neurons["culture-specific"].for_country("Spain").keys()
    buttons["Only this neuron"].click()
    assert view.selection.keys() == {("attn.q", 3, 9)}
    buttons["Remove"].click()
    assert len(view.selection) == 0
    view.set_name = ALL
    buttons["Select all shown"].click()
    assert "not a set to ablate" in view.error and len(view.selection) == 0


@pytest.fixture(scope="module")
def typed(model):
    """(a typed question, its answers)."""
    question = read_question(TYPED, answer_prefix='{"answer_choice":"')
    return question, ask(model, question, NeuronSet.from_indices([]))


def test_a_typed_question_is_read_by_its_lines(typed):
    question, answers = typed
    assert question.options == ("A", "B", "C", "D") and answers.right is None
    assert answers.options == ("Madrid", "Busan", "Oaxaca", "Tehran")


def test_a_typed_question_is_encoded_like_a_tasks(typed, model):
    question, answers = typed
    for label, p in zip(question.options, answers.before.labels):
        assert p == pytest.approx(score_prompt(model, replace(question, answer=label)).p_answer, rel=1e-4)
    alone = score_prompt(model, question)
    assert [text for text, _ in answers.before.top] == [text for text, _ in alone.top_tokens]
    assert alone.tokens.count("<bos>") == 1


def test_a_question_without_options_shows_the_next_tokens_only(view):
    view.answer_prefix, view.labels = '{"answer_choice":"', ""
    view.ask("Which city is in Spain?")
    view.wait()
    answers, shown = view.answers, view._bench.answered.value
    assert (
        answers.question.answer_prefix == "" and answers.before.labels == () and len(answers.before.top) == 10
    )
    assert "P(label)" not in shown and "next tokens" in shown


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (TYPED, {"A": "Madrid", "B": "Busan", "C": "Oaxaca", "D": "Tehran"}),
        ("Q. What?\n1) one\n2) two\n\nAnswer:", {"1": "one", "2": "two"}),
        ("(a) x\n(b) y", {"a": "x", "b": "y"}),
        ("I. Newton wrote it.\nNothing else", {}),
        ("A. alone", {}),
    ],
)
def test_option_lines(text, options):
    assert option_lines(text) == options


@pytest.mark.parametrize(
    "text, labels, says",
    [
        (" \n", (), "no question is typed"),
        ("Is it?", ("A",), "only one label"),
        ("Is it?", ("A", "A"), "occurs twice"),
    ],
)
def test_what_is_not_a_question_is_refused(text, labels, says):
    with pytest.raises(PromptError, match=says):
        read_question(text, labels=labels)


def test_unknown_words_are_named(model):
    assert unknown_words(model.tokenizer, "Which city is in Zxqv and Spain") == ("Zxqv",)


def test_click_returns_while_the_model_works(view, monkeypatch):
    free, started = threading.Event(), threading.Event()

    def slow(*args):
        started.set()
        assert free.wait(30)
        return ask(*args)

    monkeypatch.setattr("culnig_tl.workbench.view.ask", slow)
    view.ask(TYPED)
    assert started.wait(30) and view.answers is None, "the call came back before the answer"
    view.country = "Spain"  # pictures go on meanwhile
    assert view._pictures.wait(30) and "Spain" in view._heat.drawn.title
    assert "working" in view._status.value
    with pytest.raises(StudyError, match="still working"):
        view.wait(0.01)
    free.set()
    view.wait()
    assert view.answers.question.prompt == TYPED and "ready" in view._status.value
