"""What lm-evaluation-harness finds on the contexts and continuations of one of our cloze tasks, and whether
`evaluate` found the same. Imported where lm-eval is installed."""

from __future__ import annotations

from collections.abc import Callable
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

BAR = 1e-4


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
    """The harness' own evaluation of a plain Hugging Face model; in a chat template where the task is."""
    thinking = {"enable_thinking": False} if task.chat_template else {}
    model = HFLM(pretrained=plain, tokenizer=tokenizer, batch_size=16, device="cpu", **thinking)
    how = {"bootstrap_iters": 0, "random_seed": None, "apply_chat_template": task.chat_template}
    found = lm_eval.simple_evaluate(model=model, tasks=[Asked(task)], **how)
    said = found["results"][task.name]
    samples = sorted(found["samples"][task.name], key=lambda sample: sample["doc_id"])
    likelihoods = [[float(answer[0][0]) for answer in sample["resps"]] for sample in samples]
    return Harness(likelihoods, said["acc,none"], said["acc_norm,none"])


def accuracy(result: EvaluationResult, normalise: str) -> float:
    return float(renormalised(result, normalise).table["correct"].mean())


def assert_agree(
    result: EvaluationResult, theirs: Harness, exact: Callable[[list[int]], Harness] | None = None
) -> None:
    """Log-likelihoods to 1e-4, acc and acc_norm to the digit; prints all of them.

    Args:
        exact: what the harness finds in float64 on the questions at these places. A real model's float32
            log-likelihoods of many tokens are rounded by more than 1e-4 in the harness' batches: where they
            differ by so much, ours in float32 has to be within 1e-4 of these.
    """
    mine = list(result.table["log_likelihoods"])
    assert len(mine) == len(theirs.likelihoods)
    apart = [float(np.abs(np.subtract(a, b)).max()) for a, b in zip(mine, theirs.likelihoods)]
    largest = max(apart)
    if exact is not None and (rounded := [i for i, by in enumerate(apart) if by >= BAR]):
        sure = exact(rounded).likelihoods
        print(f"\n{len(rounded)} questions differ by {BAR} or more, {largest:.1e} at most, in float32")
        again = [float(np.abs(np.subtract(mine[i], lls)).max()) for i, lls in zip(rounded, sure)]
        largest = max([*again, *(by for by in apart if by < BAR)])
    ours = accuracy(result, "sum"), accuracy(result, "length")
    print(
        f"\n{len(mine):,} questions: LL differ by {largest:.1e} at most;"
        f" acc {ours[0]:.6f} and {theirs.acc:.6f}, acc_norm {ours[1]:.6f} and {theirs.acc_norm:.6f}"
    )
    assert largest < BAR
    assert ours == pytest.approx((theirs.acc, theirs.acc_norm), abs=1e-12)
