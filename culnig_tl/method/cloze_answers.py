"""Cloze questions asked: which option's words are the likeliest, and how likely each of them is.

All log-likelihoods are kept in the result, so that every normalisation is read from one run:

    result = evaluate(model, load_task("blend", form="cloze"))          # normalise="unconditional"
    renormalised(result, "sum").accuracy()                              # lm-evaluation-harness' acc
    renormalised(result, "length").accuracy()                           # its acc_norm
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
from ..engine.cloze import ClozePrompt, costs, encode_cloze
from ..engine.models import HookedModel, device_of, tail_logits
from ..engine.prompts import TOKENS_PER_BATCH, Asked
from ..engine.run import Batch, State, Work, run_pass
from ..errors import ScoreError
from ..tasks.question import Task
from .cloze import check_normalise, likelihoods, priors
from .setting import about_setting


def ask_cloze(
    model: HookedModel,
    task: Task,
    *,
    ablated: NeuronSet | None,
    operation: str,
    fwd_hooks: Sequence[tuple[str, Callable[..., Tensor]]],
    work: Work,
    normalise: str = "unconditional",
    **how: Any,
) -> EvaluationResult:
    """Asks every cloze question: what `evaluate` does with them. One pass over the options of a batch of
    questions, and a short one over their words alone; logits of the last few positions are all that is
    computed."""
    check_normalise(normalise)
    asked, device = Asked.of(model, task, encode_cloze), device_of(model)
    prompts: list[ClozePrompt] = asked.prompts
    most = max(len(p.texts) for p in prompts)
    shape = (len(prompts), most)
    state: State = {name: torch.zeros(shape, dtype=torch.float64, device="cpu") for name in ("ll", "prior")}

    def step(batch: Batch, state: State) -> None:
        chosen: list[ClozePrompt] = batch.prompts
        tail = 1 + max(len(text) for p in chosen for text in p.texts)
        ll = likelihoods(tail_logits(model, batch.tokens, batch.mask, tail), batch.tokens, chosen)
        prior = priors(model, chosen)
        state["ll"][batch.index, : ll.shape[1]] = ll.double().cpu()
        state["prior"][batch.index, : prior.shape[1]] = prior.double().cpu()
        batch.watch(torch.stack([row[: len(p.texts)].sum() for row, p in zip(ll, chosen)]).to(device))

    lengths = costs(model, prompts, TOKENS_PER_BATCH[device.type])
    ran = run_pass(
        model,
        asked.whole,
        prompts,
        step,
        state,
        fwd_hooks=fwd_hooks,
        lengths=lengths,
        work=work,
        verb="ask",
        **how,
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
    about = about_setting(model, asked, ablated, operation, ran, normalise=normalise)
    return renormalised(EvaluationResult(table, about), normalise)


def renormalised(result: EvaluationResult, normalise: str) -> EvaluationResult:
    """A result of cloze questions with predictions and P(answer) by another normalisation; nothing is asked
    again.

    Raises `ScoreError` for a result without log-likelihoods.
    """
    check_normalise(normalise)
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
