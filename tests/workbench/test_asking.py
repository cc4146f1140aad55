"""Asking a question before and after the selected neurons are changed; nobody waits for the answer."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

from culnig_tl import ablate, evaluate, score_prompt
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.errors import PromptError, StudyError
from culnig_tl.tasks import Task
from culnig_tl.workbench.asking import ask, option_lines, read_question, unknown_words
from culnig_tl.workbench.source import ALL

from .acting import TYPED


def test_selection_goes_into_ablate_and_evaluate(view, model, questions):
    question = questions[0]
    view._put(question)
    view.operation = "suppress"
    view.wait()
    answers = view.answers
    assert view.error == "" and answers.operation == "suppress" and answers.right == question.answer
    place = question.options.index(question.answer)
    one = Task("one", (question,))
    for neurons, given in ((None, answers.before), (view.selection, answers.after)):
        p = evaluate(model, one, neurons=neurons, progress=False).table["p_answer"][0]
        np.testing.assert_allclose(given.labels[place], p, rtol=1e-3)
    with ablate(model, view.selection):
        assert score_prompt(model, question).p_answer == pytest.approx(answers.after.labels[place], rel=1e-3)
    assert answers.before.labels != answers.after.labels
    assert (
        f"{100 * answers.after.labels[place]:.1f}%" in view._bench.answered.value
        and "✓" in view._bench.answered.value
    )
    assert answers.to_dataframe()["option"].tolist() == list(option_lines(question.prompt).values())


def test_sets_made_in_code_are_asked_with(view):
    view.operation = "enhance"
    view.wait()
    seen = []
    view.observe(lambda change: seen.append(change["new"]), "answers")
    view.selection = NeuronSet.from_indices([("mlp.gate", 0, 1), ("attn.v", 2, 3)])
    view.wait()
    assert (
        view.answers.neurons == 2
        and seen == [view.answers]
        and "Selection: 2 neurons" in view._bench.selected.value
    )
    view.selection = NeuronSet.from_indices([])
    view.wait()
    assert (
        view.answers.neurons == 0
        and view.answers.after == view.answers.before
        and "Selection: 0 neurons" in view._bench.selected.value
    )


def test_buttons_change_the_selection(view, study):
    buttons = {}
    waiting = list(view.children)
    while waiting:
        each = waiting.pop()
        waiting += list(getattr(each, "children", ()))
        if hasattr(each, "on_click") and hasattr(each, "button_style"):
            buttons[each.description] = each
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
    assert "no set to switch off" in view.error and len(view.selection) == 0


def test_typed_question_goes_by_the_rules_of_every_task(model):
    question = read_question(TYPED, answer_prefix='{"answer_choice":"')
    answers = ask(model, question, NeuronSet.from_indices([]))
    assert (
        question.options == ("A", "B", "C", "D")
        and answers.options == ("Madrid", "Busan", "Oaxaca", "Tehran")
        and answers.right is None
    )
    for label, p in zip(question.options, answers.before.labels):
        assert p == pytest.approx(score_prompt(model, replace(question, answer=label)).p_answer, rel=1e-4)
    alone = score_prompt(model, question)
    assert [t for t, _ in answers.before.top] == [t for t, _ in alone.top_tokens] and len(
        answers.before.top
    ) == 10
    assert alone.tokens.count("<bos>") == 1


def test_question_without_options_shows_the_next_tokens_only(model, view):
    answers = ask(model, read_question("Which city is in Spain?"), NeuronSet.from_indices([]))
    assert answers.before.labels == () and len(answers.before.top) == 10
    view.answer_prefix, view.labels = '{"answer_choice":"', ""
    view.ask("Which city is in Spain?")
    view.wait()
    assert (
        view.answers.question.answer_prefix == ""
        and "P(label)" not in view._bench.answered.value
        and "next tokens" in view._bench.answered.value
    )


def test_option_lines():
    assert option_lines(TYPED) == {"A": "Madrid", "B": "Busan", "C": "Oaxaca", "D": "Tehran"}
    assert option_lines("Q. What?\n1) one\n2) two\n\nAnswer:") == {"1": "one", "2": "two"}
    assert option_lines("(a) x\n(b) y") == {"a": "x", "b": "y"}
    assert option_lines("I. Newton wrote it.\nNothing else") == {} and option_lines("A. alone") == {}


@pytest.mark.parametrize(
    "text, labels, says",
    [
        (" \n", (), "no question is typed"),
        ("Is it?", ("A",), "only one label"),
        ("Is it?", ("A", "A"), "occurs twice"),
    ],
)
def test_what_is_no_question_is_refused(text, labels, says):
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
