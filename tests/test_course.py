"""What the notebooks share: predictions, exercises that say what is wrong, and which model is taken."""

from __future__ import annotations

import numpy as np
import pytest

from culnig_tl import course
from culnig_tl.course import Exercise, coloured, predict
from culnig_tl.errors import ModelError
from culnig_tl.figures import theme


@pytest.fixture()
def no_model(monkeypatch):
    monkeypatch.setattr(course, "load_model", lambda name: name)
    monkeypatch.setattr(course, "describe", str)
    monkeypatch.delenv(course.CHOICE, raising=False)


def said(capsys, exercise: Exercise, answer: object) -> str:
    exercise(answer)
    return capsys.readouterr().out.strip()


def test_a_stub_is_still_to_do_and_the_right_answer_is_right(capsys):
    exercise = Exercise("1", right=lambda: 0.5)
    assert said(capsys, exercise, None) == "Exercise 1: still to do." and not exercise.solved
    assert said(capsys, exercise, 0.50001) == "Exercise 1: right." and exercise.solved
    said(capsys, exercise, 0.6)
    assert not exercise.solved


def test_a_check_says_what_is_wrong(capsys):
    number = Exercise("1", right=lambda: 2.0, mistakes=lambda: [(4.0, "that is twice as much")])
    assert "not yet: that is twice as much" in said(capsys, number, 4)
    assert "too low" in said(capsys, number, 1.5) and "wrong sign" in said(capsys, number, -2)
    assert "a number is wanted, not str" in said(capsys, number, "two")
    array = Exercise("2", right=lambda: np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert "the shape is (2,), it should be (2, 2)" in said(capsys, array, [1, 2])
    assert "1 of 4 values are off, the first at [1, 0]" in said(capsys, array, [[1, 2], [0, 4]])
    names = Exercise("3", right=lambda: {"mlp.0", "mlp.1"})
    assert "1 are missing, 2 do not belong" in said(capsys, names, {"mlp.0", "attn.0", "attn.1"})
    assert "a set is wanted" in said(capsys, names, 5)
    word = Exercise("4", right=lambda: "matched", mistakes=lambda: [("bottom", "they sit deeper")])
    assert "they sit deeper" in said(capsys, word, " Bottom") and "right" in said(capsys, word, "MATCHED")
    assert "'top' is not the one" in said(capsys, word, "top")


def test_a_function_is_used_and_its_faults_are_told(capsys):
    exercise = Exercise("1", right=lambda: 9.0, use=lambda function: function(3))
    assert "right" in said(capsys, exercise, lambda x: x * x)
    assert "raised ZeroDivisionError" in said(capsys, exercise, lambda x: x / 0)
    assert "returns None" in said(capsys, exercise, lambda x: None)


def test_the_right_answer_is_looked_at_when_an_answer_is_there():
    def not_yet():
        raise NameError("the notebook has not come so far")

    Exercise("1", right=not_yet)(None)


@pytest.mark.parametrize(
    ("number", "words"),
    [(None, "no prediction"), (14.0, "close"), (5, "8.9 too low"), (20, "6.1 too high"), (-1, "You said −1")],
)
def test_a_prediction_stands_beside_what_was_measured(number, words, capsys):
    predict("Points lost:", number, unit="points").compare(13.9)
    printed = capsys.readouterr().out
    assert printed.startswith("Points lost: Measured: 13.9 points.") and words in printed


def test_a_prompt_is_coloured_by_what_its_tokens_do():
    shown = coloured(["<b>", "rice", "soup"], [0.5, 0.0, -0.25]).data
    assert "&lt;b&gt;" in shown and "<b>" not in shown
    assert "rgba(178,24,43,1.00)" in shown and "rgba(33,102,172,0.50)" in shown


def test_colours_mean_the_same_in_every_figure():
    names = {
        "unchanged": theme.UNCHANGED,
        "culture-general off": theme.GENERAL,
        "random by layer 3": theme.RANDOM,
    }
    for number, (name, colour) in enumerate({**names, "rival": theme.RIVAL}.items()):
        assert theme.setting_colour(name, number) == colour
    assert theme.setting_colour("language neurons", 2) == theme.PALETTE[2]


def test_the_model_is_the_one_asked_for_or_the_environments(no_model, monkeypatch, capsys):
    assert course.start("some/model").form == "cloze" and "uses some/model" in capsys.readouterr().out
    monkeypatch.setenv(course.CHOICE, "toy")
    lesson = course.start()
    assert lesson.toy and lesson.form == "letters" and lesson.name_of("culture") == "miniculture"
    assert course.start("some/model", form="letters").form == "letters"


def test_without_a_network_it_is_the_toy_and_says_why(no_model, monkeypatch, capsys):
    def offline(kind, source):
        raise ModelError("the Hub cannot be reached")

    monkeypatch.setattr(course, "pretrained", offline)
    assert course.start().toy
    assert "the toy, because the real model cannot be had here: the Hub cannot" in capsys.readouterr().out


def test_where_all_of_it_can_be_had_it_is_the_real_one(no_model, monkeypatch, capsys):
    monkeypatch.setattr(course, "pretrained", lambda kind, source: None)
    monkeypatch.setattr(course, "load_task", lambda name, **options: name)
    lesson = course.start()
    assert lesson.name == course.REAL and not lesson.toy and lesson.name_of("culture") == "blend"
    assert course.REAL in capsys.readouterr().out


def test_a_claim_has_to_hold_of_the_toy_alone(capsys):
    course.Lesson(None, "real", False, "cloze").claim(False, "it is so")
    assert "does NOT hold: it is so" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="it is so"):
        course.Lesson(None, "toy", True, "letters").claim(False, "it is so")
