"""Whose model a view works on: given, loaded when it is needed, or a copy on the same weights."""

from __future__ import annotations

import gc
import shutil
from dataclasses import replace

import pytest
import torch

from culnig_tl import ablate, explore, load_study, score_neurons
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.engine.models import last_logits
from culnig_tl.errors import ScoreError, StudyError, TaskError
from culnig_tl.workbench.source import ALL, SELECTION
from culnig_tl.workbench.twin import twin

from .. import families
from .acting import TYPED


def test_scores_of_a_loaded_model(loaded, task):
    model = loaded("qwen3")
    scores = score_neurons(model, task, progress=False)
    view = explore(scores, model=model, task=task, questions=6)
    assert view.set_name == ALL and len(view.selection) == 0
    view.neuron = ("mlp.gate", 1, 2)
    view.selection = NeuronSet.from_indices([("mlp.gate", 1, i) for i in range(8)])
    view._put(task[0])
    view.operation = "suppress"
    view.wait()
    assert view.error == "" and view.answers.neurons == 8 and "class='peak'" in view._card.questions.value
    assert view.answers.before.labels != view.answers.after.labels


def test_without_its_model_a_view_shows_what_scores_show(study):
    scores = study.scores["neuron"]
    other = replace(scores, metadata={**scores.metadata, "model": "org/large"})
    view = explore(other)
    view.neuron = ("mlp.gate", 0, 3)
    view.wait()
    assert (
        "Score by country" in view._card.head.value
        and "load_model(&#x27;org/large&#x27;)" in view._card.questions.value
        and view.error == ""
    )
    view.ask(TYPED)
    view.wait()
    assert (
        view.error == "this needs the model: explore(..., model=load_model('org/large'))"
        and view.answers is None
    )


def test_toy_is_loaded_when_it_is_needed(study):
    view = explore(study.scores["neuron"], questions=4)
    view.set_name = SELECTION
    view.wait()
    assert not view.source.loaded
    view.ask()
    gc.collect()
    view.wait()
    assert view.source.loaded and view.error == "" and len(view.answers.before.labels) == 4


def test_scores_of_another_revision_come_with_a_caution(study, model, questions):
    scores = study.scores["neuron"]
    older = replace(scores, metadata={**scores.metadata, "revision": "0123456789abcdef"})
    view = explore(older, model=model, task=questions, questions=4)
    view.ask(TYPED)
    view.wait()
    assert (
        "revision 0123456789abcdef" in view.error
        and "may not agree" in view.error
        and view.answers is not None
    )


@pytest.mark.parametrize("family", ["toy", "llama", "phi3", "gemma3", "gpt2"])
def test_copy_shares_weights_and_no_hooks(loaded, model, family):
    given = model if family == "toy" else loaded(family)
    if family != "toy":
        score_neurons(
            given, families.questions(2), progress=False
        )  # leaves an attention pattern with its graph where attention is not native
    copied = twin(given)
    assert copied is not None and all(a is b for a, b in zip(given.parameters(), copied.parameters()))
    tokens = torch.arange(9)[None] + 3
    mask = torch.ones_like(tokens)
    neurons = NeuronSet.from_indices([("mlp.gate", 0, i) for i in range(12)])
    with torch.no_grad():
        plain = last_logits(given, tokens, mask)
        with ablate(copied, neurons):
            assert torch.equal(last_logits(given, tokens, mask), plain), (
                "the view's ablation reaches into the notebook's model"
            )
            ablated = last_logits(copied, tokens, mask)
        with ablate(given, neurons):
            assert torch.equal(last_logits(copied, tokens, mask), plain), (
                "the notebook's ablation reaches into the view's"
            )
            assert torch.equal(last_logits(given, tokens, mask), ablated)
        assert not torch.equal(ablated, plain)


def test_model_that_cannot_be_copied_is_used_itself(model, caplog):
    class Stubborn(torch.nn.Linear):
        cfg = None

        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    with caplog.at_level("WARNING"):
        assert twin(Stubborn(2, 2)) is None
    assert "no copies" in caplog.text


def test_a_folder_is_explored_without_its_answers(tmp_path):
    """Answers are most of a study, and a view shows none."""
    stored = load_study("smollm2-135m-instruct")
    assert stored.folder is not None
    shutil.copytree(
        stored.folder, tmp_path / "study", ignore=shutil.ignore_patterns("results", "second-half")
    )
    for given in (str(tmp_path / "study"), tmp_path / "study", "smollm2-135m-instruct"):
        view = explore(given)
        assert view.set_name == "culture-general"
        assert view.selection.keys() == stored.neurons["culture-general"].keys()
        assert view.source.control is not None and view.source.form == "cloze"


def test_a_folder_without_scores_says_so(tmp_path):
    with pytest.raises(StudyError, match="holds no study"):
        explore(tmp_path)
    record = load_study("smollm2-135m-instruct").folder / "study.json"
    shutil.copy(record, tmp_path)
    with pytest.raises(StudyError, match="not scored its neurons yet"):
        explore(tmp_path)


def test_scores_less_those_of_their_control(study, model, questions):
    scores, control = study.scores["neuron"], study.scores["control"]
    view = explore(scores, control=control, model=model, task=questions)
    whole = explore(study, model=model, task=questions)
    key = ("mlp.gate", 2, 5)
    assert view.source.country_scores(key) == whole.source.country_scores(key)
    assert "minus control" in view.source.title
    with pytest.raises(ScoreError, match="a study has its own"):
        explore(study, control=control)


def test_a_control_of_another_model_is_refused(study):
    other = load_study("smollm2-135m-instruct").scores["control"]
    with pytest.raises(ScoreError, match="different models"):
        explore(study.scores["neuron"], control=other)


def elsewhere(scores):
    """The scores of a task whose questions have to be fetched."""
    return replace(scores, metadata={**scores.metadata, "task": "blend"})


def test_examples_with_their_answers_beginning_where_only_scores_are_given(study, questions, monkeypatch):
    monkeypatch.setattr("culnig_tl.workbench.source.load_task", lambda name, **how: questions)
    view = explore(elsewhere(study.scores["neuron"]))
    view.wait()
    offered = [value for _, value in view._bench.examples.options[1:]]
    assert set(offered) <= set(questions.questions) and len(offered) == 12
    assert view.answer_prefix == offered[0].answer_prefix != "" and view.error == ""


def test_examples_that_cannot_be_had_are_no_error(study, monkeypatch):
    def missing(name, **how):
        raise TaskError("no rows of blend")

    monkeypatch.setattr("culnig_tl.workbench.source.load_task", missing)
    view = explore(elsewhere(study.scores["neuron"]))
    view.wait()
    assert view.error == "" and view.question == ""
    (said, _), *rest = view._bench.examples.options
    assert "questions are missing" in said and not rest
