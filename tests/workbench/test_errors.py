"""What the workbench refuses, and in which words."""

from __future__ import annotations

import html

import pytest

from culnig_tl import explore
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.errors import ModelError, NeuronError, ScoreError, TaskError
from culnig_tl.workbench.source import ALL

from .acting import TYPED


def test_errors_appear_in_the_view_and_go_away(view):
    view._put(view._known[next(iter(view._known))])
    view.labels = "A, Madrid Seville"
    view.ask(TYPED)
    view.wait()
    assert view.error.startswith(
        "the label 'Madrid Seville' is not one token"
    ) and view.error in html.unescape(view._message.value)
    view.labels = ""
    view.ask()
    view.wait()
    assert view.error == "" and view._message.value == "" and view.answers.question.prompt == TYPED


def test_errors_of_others_are_put_into_words(view, monkeypatch):
    def broken(*args):
        raise RuntimeError("the device <b>is gone</b>\nand much more")

    monkeypatch.setattr("culnig_tl.workbench.view.ask", broken)
    view.ask(TYPED)
    view.wait()
    assert view.error == "asking failed: RuntimeError: the device <b>is gone</b>"
    assert "&lt;b&gt;" in view._message.value and "<b>" not in view._message.value


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("set_name", "nothing", NeuronError),
        ("country", "Atlantis", ScoreError),
        ("site", "mlp.up", NeuronError),
        ("layer", 6, NeuronError),
        ("neuron", ("mlp.gate", 0, 384), NeuronError),
        ("selection", NeuronSet.from_indices([("mlp.gate", 17, 0)]), NeuronError),
    ],
)
def test_wrong_state_is_refused_where_it_is_set(name, value, error, view):
    before = getattr(view, name)
    with pytest.raises(error):
        setattr(view, name, value)
    assert getattr(view, name) is before


def test_a_model_of_another_shape_is_refused(study, loaded):
    with pytest.raises(ModelError, match="6 layers"):
        explore(study, model=loaded("llama"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"neurons": NeuronSet.from_indices([("mlp.gate", 0, 4_000)])}, NeuronError, "lies outside"),
        ({"neurons": {ALL: NeuronSet.from_indices([])}}, NeuronError, "uses that name itself"),
        ({"questions": 0}, TaskError, "questions"),
    ],
)
def test_explore_refuses_what_it_cannot_show(options, error, message, study):
    with pytest.raises(error, match=message):
        explore(study, **options)
