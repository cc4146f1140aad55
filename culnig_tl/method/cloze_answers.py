"""Cloze questions asked: which option's words are the likeliest, and how likely each of them is.

All log-likelihoods are kept in the result, so that every normalisation is read from one run:

    result = evaluate(model, load_task("blend", form="cloze"))  # normalise="unconditional"
    renormalised(result, "sum").accuracy()                      # lm-evaluation-harness' acc
    renormalised(result, "length").accuracy()                   # its acc_norm
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.neurons import NeuronSet
from ..data.results import CLOZE, COLUMNS, EvaluationResult
from ..engine.cloze import ClozePrompt, asked_of
from ..engine.models import HookedModel
from ..engine.run import Batch, State, Work, run_pass
from ..errors import ScoreError
from ..tasks.question import NORMALISATIONS, Task
from .asking import Cloze
from .setting import about_setting


def ask_cloze(
    model: HookedModel,
    task: Task,
    *,
    ablated: NeuronSet | None,
    operation: str,
    fwd_hooks: Sequence[tuple[str, Callable[..., Tensor]]],
    work: Work,
    **how: Any,
) -> EvaluationResult:
    """Asks every cloze question: what `evaluate` does with them. One pass gives the log-likelihoods of all
    options, after the prompt and after the control."""
    asked = asked_of(model, task, control=True)
    prompts: list[ClozePrompt] = asked.prompts
    shape = (len(prompts), max(len(p.texts) for p in prompts))
    state: State = {name: torch.zeros(shape, dtype=torch.float64, device="cpu") for name in ("ll", "prior")}

    def step(batch: Batch, state: State) -> None:
        ll, prior = Cloze(model, batch.prompts, batch.tokens, batch.mask).likelihoods()
        state["ll"][batch.index, : ll.shape[1]] = ll.double().cpu()
        state["prior"][batch.index, : prior.shape[1]] = prior.double().cpu()
        batch.watch(torch.where(ll == -torch.inf, 0.0, ll).sum(1).to(batch.tokens.device))

    ran = run_pass(
        model, asked.whole, prompts, step, state, fwd_hooks=fwd_hooks, work=work, verb="ask", **how
    )
    rows = []
    for prompt, ll, prior in zip(prompts, state["ll"].numpy(), state["prior"].numpy()):
        q, count = prompt.question, len(prompt.texts)
        known = (q.task, q.id, q.cluster, q.country, q.group, q.template, q.answer)
        nothing = ("", "", float("nan"), False, False, float("nan"))
        rows.append(
            (*known, *nothing, list(q.options), list(q.texts), ll[:count].tolist(), prior[:count].tolist())
        )
    table = pd.DataFrame(rows, columns=[*COLUMNS, *CLOZE])
    how_asked = {"normalise": task.normalise, "chat_template": task.chat_template}
    about = about_setting(model, asked, ablated, operation, ran, **how_asked)
    return renormalised(EvaluationResult(table, about), task.normalise)


def renormalised(result: EvaluationResult, normalise: str) -> EvaluationResult:
    """A result of cloze questions with predictions and P(answer) by another normalisation; nothing is asked
    again.

    Raises `ScoreError` for a result without log-likelihoods.
    """
    if normalise not in NORMALISATIONS:
        raise ScoreError(f"unknown normalise {normalise!r}: use {', '.join(NORMALISATIONS)}")
    if CLOZE[0] not in result.table.columns or result.table[CLOZE[0]].isna().any():
        raise ScoreError(
            "only answers to cloze questions can be normalised in another way: ask with form='cloze'"
        )
    rows = []
    for row in result.table.itertuples(index=False):
        known: Any = row
        ll, prior = np.asarray(known.log_likelihoods), np.asarray(known.priors)
        values = {
            "unconditional": ll - prior,
            "sum": ll,
            "length": ll / [len(text) for text in known.texts],
        }[normalise]
        p = np.exp(values - values.max())
        best, right = int(values.argmax()), list(known.labels).index(known.answer)
        rows.append(
            (known.texts[best], known.labels[best], float(p[right] / p.sum()), best == right, best == right)
        )
    names = ["predicted", "predicted_label", "p_answer", "correct", "correct_label"]
    columns = dict(zip(names, zip(*rows))) if rows else {}
    tasks = dict.fromkeys(map(str, result.table["task"].unique()), normalise)
    return EvaluationResult(
        result.table.assign(**{name: list(values) for name, values in columns.items()}),
        {**result.metadata, "normalise": tasks},
    )
