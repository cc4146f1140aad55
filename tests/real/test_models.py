"""What small random models show elsewhere, on SmolLM2 135M Instruct and Gemma 3 270M."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from culnig_tl import ablate, evaluate, load_model, load_task, select_random
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.engine.models import tokenizer_of
from culnig_tl.engine.prompts import encode
from culnig_tl.finetuning import bake
from culnig_tl.method.answers.generation import (
    choose_way,
    encode_open,
    end_tokens,
    generate,
    text_of,
)
from culnig_tl.run.pipeline import run_study
from culnig_tl.study.config import GENERAL, TOY_CONFIG, UNCHANGED
from culnig_tl.tasks.question import Question

from ..helpers import largest_error, plain_model, score
from ..oracles import cloze, literal
from .packages import MODELS

SMOLLM2, GEMMA = "smollm2-135m-instruct", "gemma-3-270m"
BOTH = pytest.mark.parametrize("name", list(MODELS))


def asked(form, count):
    return load_task("miniculture", form=form, split="test", limit=count)


def p_answers(model, task, **how):
    return evaluate(model, task, progress=False, **how).table["p_answer"].to_numpy()


def compared(found, expected):
    """Every score of the four sites is the literal method's."""
    expected = {place: s for place, s in expected.items() if place[1] in {site.value for site in found.sites}}
    assert len(expected) == sum(table.shape[0] * table.shape[1] for table in found.arrays.values())
    assert largest_error(found, expected) < 1e-3


@pytest.fixture(scope="module")
def plain(checkpoint):
    """`plain(name)`: a model without TransformerLens; one at a time."""
    kept = {}

    def model(name):
        if name not in kept:
            kept.clear()
            kept[name] = plain_model(checkpoint(name))
        return kept[name]

    return model


@BOTH
def test_letters_equal_the_literal_method(name, real, plain):
    """With NumPy's maximum in place of the literal method's loops over every neuron."""
    task, model, expected = asked("letters", 4), real(name), {}
    for prompt in encode(tokenizer_of(model), task.questions):
        with cloze.kept(plain(name)) as kept:
            p = plain(name)(torch.tensor([prompt.tokens])).logits[0, -1].softmax(-1)[prompt.answer_token]
        p.backward()
        for (module, layer), tensor in kept.items():
            for site in literal.OUTPUTS.get(module, ()):
                s = (tensor.detach() * tensor.grad)[0].amax(0).double().numpy()
                place = prompt.question.country, site, layer
                expected[place] = expected.get(place, 0) + p.item() * s
        plain(name).zero_grad(set_to_none=True)
    compared(score(model, task, batch_size=4), expected)


@BOTH
def test_words_equal_the_literal_method(name, real, plain):
    task, model = asked("cloze", 4), real(name)
    expected = cloze.scores(plain(name), tokenizer_of(model), task)
    compared(score(model, task, batch_size=4), {place: s.double().numpy() for place, s in expected.items()})


@BOTH
@pytest.mark.parametrize("form", ["letters", "cloze"])
def test_an_answer_does_not_depend_on_its_batch(name, form, real):
    task = asked(form, 8)
    alone, together = (p_answers(real(name), task, batch_size=size) for size in (1, 8))
    np.testing.assert_allclose(alone, together, atol=1e-4)


def test_in_bfloat16_every_layer_has_its_sites(real):
    model = real(SMOLLM2, "bfloat16")
    found = score(model, asked("letters", 2))
    assert all((np.abs(array).max(axis=(0, 2)) > 0).all() for array in found.arrays.values())


@pytest.fixture(scope="module")
def neurons(real):
    """A thirtieth of SmolLM2's gate neurons, drawn in ten layers."""
    chosen = NeuronSet.from_indices([("mlp.gate", layer, n) for layer in range(0, 30, 3) for n in range(150)])
    return select_random(chosen, score(real(SMOLLM2), asked("letters", 1)), seed=1, match="layer")


def test_baked_weights_answer_as_the_ablated_model(neurons, real, checkpoint, tmp_path):
    model, task = real(SMOLLM2), asked("cloze", 6)
    ablated = p_answers(model, task, ablate=neurons)
    baked = load_model(bake(checkpoint(SMOLLM2), neurons, tmp_path / "baked"), device="cpu", dtype="float32")
    np.testing.assert_allclose(p_answers(baked, task), ablated, atol=1e-5)
    assert not np.allclose(p_answers(model, task), ablated, atol=1e-3)


def test_ablation_leaves_nothing_behind(real):
    model, tokens = real(GEMMA), torch.arange(100, 140)[None]
    with torch.no_grad():
        before = model(tokens)
        with ablate(model, NeuronSet.from_indices([("mlp.gate", 0, n) for n in range(500)])):
            assert not torch.allclose(model(tokens), before, atol=1e-3)
        assert torch.equal(model(tokens), before)


def test_a_study_ends_in_its_report(real, packages, tmp_path):
    config = replace(TOY_CONFIG, model=str(packages[SMOLLM2]), form="cloze", limit=4, random_sets=1)
    config = replace(config, tasks=("miniculture", "minicommonsense"), top_mlp=0.01, top_attn=0.002)
    study = run_study(config, model=real(SMOLLM2), folder=tmp_path / "study", progress=False)
    assert len(study.neurons[GENERAL]) > 100 and len(study.results[UNCHANGED]) == 8
    assert "SmolLM2-135M-Instruct" in (tmp_path / "study" / "report.html").read_text(encoding="utf-8")


def test_the_workbench_asks_it(neurons, real):
    pytest.importorskip("anywidget", reason="the workbench needs anywidget")
    from culnig_tl import explore

    task = asked("cloze", 4)
    view = explore(score(real(SMOLLM2), task), model=real(SMOLLM2), task=task, questions=4)
    view.selection = neurons
    view.operation = "suppress"
    view.ask()
    view.wait()
    assert view.error == "" and view.answers.before.labels != view.answers.after.labels
    view.close_all()


def test_short_questions_are_answered(real):
    model, known = real(SMOLLM2), {"What is the capital of France?": "Paris", "Where is Tokyo?": "Japan"}
    prompts = encode_open(
        tokenizer_of(model),
        [
            Question("t", ask, ask, ask, (), answer, accepted=(answer,), language="en")
            for ask, answer in known.items()
        ],
    )
    said = generate(model, prompts, choose_way(model, prompts[0]), end_tokens(model), max_new_tokens=24)
    for tokens, answer in zip(said, known.values()):
        assert answer in text_of(tokenizer_of(model), tokens)
