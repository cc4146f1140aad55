"""A real model in lm-evaluation-harness and here: the cloze form on every question, and the harness' tasks
with neurons suppressed. ``pytest -m slow -s tests/real/test_lm_eval.py`` prints by how much they differ.

The model is the smallest file in the folder that CULNIG_REAL names, its weights written out in float32.
"""

# ruff: noqa: E402

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("lm_eval")

import torch
from lm_eval.models.huggingface import HFLM

import culnig_tl as ctl
from culnig_tl.engine.loading import load_plain, load_tokenizer
from culnig_tl.finetuning.baking import bake
from culnig_tl.finetuning.weights import opened_checkpoint
from culnig_tl.tasks.question import Task

from .. import harness_tasks
from ..builders import some_neurons
from ..harness_pairs import assert_agree, harness

pytestmark = pytest.mark.slow
MIRROR = Path(__file__).parents[3] / "shared" / "data" / "hub"
QUESTIONS = {"commonsenseqa": None, "blend": 500}
"""Task -> how many of its questions are asked; None for all."""
TASKS = ("choice", "fewshot", "two_tokens", "processed", "generated", "perplexity")


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """(the loaded model, its checkpoint, some neurons, a checkpoint without them)."""
    if "CULNIG_REAL" not in os.environ:
        pytest.skip("CULNIG_REAL names no folder with GGUF files of real models")
    pytest.importorskip("gguf", reason="GGUF files are read with the package gguf")
    file = min(Path(os.environ["CULNIG_REAL"]).glob("*.gguf"), key=lambda path: path.stat().st_size)
    with opened_checkpoint(file) as folder:
        model = ctl.load_model(folder, device="cpu", dtype="float32")
        neurons = some_neurons(model, share=0.02)
        yield model, folder, neurons, bake(folder, neurons, tmp_path_factory.mktemp("baked") / "out")


@pytest.fixture(params=["unchanged", "suppressed"])
def setting(request, checkpoints) -> tuple[Any, Any, Path]:
    """(the loaded model, the neurons to suppress, the checkpoint that is to say the same)."""
    model, folder, neurons, baked = checkpoints
    return (model, None, folder) if request.param == "unchanged" else (model, neurons, baked)


@pytest.fixture(params=list(QUESTIONS))
def task(request) -> Task:
    if not MIRROR.is_dir():
        pytest.skip("no ../shared/data beside the checkout")
    return ctl.load_task(request.param, form="cloze", limit=QUESTIONS[request.param], data_dir=MIRROR)


def test_questions_are_answered_as_in_the_harness(setting, task):
    model, neurons, folder = setting
    tokenizer = load_tokenizer(str(folder))

    def asked(task: Task, dtype: torch.dtype) -> Any:
        return harness(load_plain(str(folder), dtype), tokenizer, task)

    def exact(places: list[int]) -> Any:
        some = Task(task.name, tuple(task[i] for i in places))
        return asked(some, torch.float64)

    mine = ctl.evaluate(model, task, ablate=neurons, progress=False)
    assert_agree(mine, asked(task, torch.float32), exact)


def test_the_harness_finds_the_same_with_either_model(setting, tmp_path):
    """Multiple choice, few-shot, continuations of two tokens, process_docs, generation, perplexity."""
    model, neurons, folder = setting
    tasks, options = harness_tasks.write(tmp_path / "tasks"), {"batch_size": 4}
    plain = HFLM(
        pretrained=load_plain(str(folder), torch.float32),
        tokenizer=load_tokenizer(str(folder)),
        device="cpu",
        **options,
    )
    mine = harness_tasks.asked(ctl.lm_eval_model(model, neurons, **options), tasks, TASKS)
    harness_tasks.assert_equal(mine, harness_tasks.asked(plain, tasks, TASKS))
