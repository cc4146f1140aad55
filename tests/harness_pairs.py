"""What lm-evaluation-harness finds on the contexts and continuations of one of our cloze tasks, and whether
`evaluate` found the same. Imported where lm-eval is installed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import lm_eval
import numpy as np
import pytest
from datasets import Dataset, DatasetDict
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM

from culnig_tl.data.results import EvaluationResult
from culnig_tl.method.cloze_answers import renormalised
from culnig_tl.tasks.question import Task


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
    """Log-likelihoods to 1e-4, acc and acc_norm to the digit; prints all of them."""
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
