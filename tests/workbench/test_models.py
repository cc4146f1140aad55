"""Whose model a view works on: given, loaded when it is needed, or a copy on the same weights."""

from __future__ import annotations

import gc
from dataclasses import replace

import pytest
import torch

from culnig_tl import ablate, explore, score_neurons
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.engine.models import last_logits
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
