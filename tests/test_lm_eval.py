"""The cloze form against lm-evaluation-harness, on the same questions: log-likelihoods, acc and acc_norm."""

# ruff: noqa: E402

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("lm_eval")

from lm_eval.models.huggingface import HFLM

from culnig_tl import evaluate, load_task
from culnig_tl.engine.cloze import encode_cloze
from culnig_tl.finetuning.baking import bake
from culnig_tl.tasks.question import Task

from . import families
from .builders import questions_with_texts, some_neurons
from .harness_pairs import assert_agree, harness
from .helpers import plain_model

MIRROR = Path(__file__).parents[2] / "shared" / "data" / "hub"
QUESTIONS = {"commonsenseqa": None, "blend": 500}
"""Task -> how many of its questions are asked; None for all."""
HOW_MANY = pytest.mark.parametrize("count", [40, pytest.param(None, marks=pytest.mark.slow)])


@pytest.fixture(scope="module", params=list(QUESTIONS))
def task(request) -> Task:
    if not MIRROR.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return load_task(request.param, form="cloze", limit=QUESTIONS[request.param], data_dir=MIRROR)


@pytest.mark.parametrize("kind", ["bytes", "pieces"])
def test_pairs_are_cut_as_the_harness_cuts_them(kind, checkpoints, task):
    tokenizer = families.tokenizer(kind)
    model = HFLM(pretrained=plain_model(checkpoints("llama")), tokenizer=tokenizer, device="cpu")
    for question, prompt in zip(task[:100], encode_cloze(tokenizer, task.questions[:100])):
        for text, tokens in zip(question.texts, prompt.texts):
            pair = model._encode_pair(question.prompt, f" {text}")
            assert pair == (list(prompt.context), list(tokens))


@pytest.mark.parametrize("prompt", ["Question: {question}\nAnswer: ", "Question: {question}\nAnswer:\n"])
def test_blanks_are_cut_as_the_harness_cuts_them(prompt, checkpoints, task):
    tokenizer = families.tokenizer()
    model = HFLM(pretrained=plain_model(checkpoints("llama")), tokenizer=tokenizer, device="cpu")
    blank = task[:20].cloze(prompt)
    for question, encoded in zip(blank, encode_cloze(tokenizer, blank.questions)):
        for text, tokens in zip(question.texts, encoded.texts):
            assert model._encode_pair(question.prompt, text) == (list(encoded.context), list(tokens))


@pytest.fixture(scope="module")
def small(checkpoints, loaded):
    """(checkpoint, the loaded model) with room for every question."""
    return checkpoints("qwen3"), loaded("qwen3")


@HOW_MANY
def test_a_random_model_answers_as_in_the_harness(count, small, task):
    (folder, model), task = small, task.limit(count)
    theirs = harness(plain_model(folder), model.tokenizer, task)
    assert_agree(evaluate(model, task, progress=False), theirs)


@HOW_MANY
def test_suppressed_neurons_answer_as_the_baked_checkpoint_in_the_harness(count, small, task, tmp_path):
    (folder, model), task = small, task.limit(count)
    neurons = some_neurons(model)
    baked = plain_model(bake(folder, neurons, tmp_path / "baked"))
    theirs = harness(baked, model.tokenizer, task)
    assert_agree(evaluate(model, task, ablate=neurons, progress=False), theirs)


def test_in_a_chat_template_a_model_answers_as_in_the_harness(checkpoints, loaded):
    """With --apply_chat_template there, chat_template=True here."""
    model, task = loaded("llama", chat=True), questions_with_texts(12).cloze(chat_template=True)
    theirs = harness(plain_model(checkpoints("llama", chat=True)), families.tokenizer(chat=True), task)
    assert_agree(evaluate(model, task, progress=False), theirs)
