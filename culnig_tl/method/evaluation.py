"""Evaluation: what a model answers, unchanged or with neurons ablated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..data.neurons import NeuronMeans, NeuronSet
from ..data.results import COLUMNS, EvaluationResult, concat
from ..engine.checkpoint import Checkpoint
from ..engine.models import HookedModel, device_of, last_logits, tokenizer_of
from ..engine.prompts import Asked, Prompt, pad
from ..engine.run import Batch, State, Work, run_pass
from ..errors import ScoreError
from ..progress import Advance, progress_bar
from ..tasks.question import Task, alignment
from .ablation import ablation_hooks, operation_name
from .answers.short_answers import ask_short_answers
from .cloze_answers import ask_cloze
from .setting import about_setting


def evaluate(
    model: HookedModel,
    task: Task,
    *,
    ablate: NeuronSet | None = None,
    scale: float = 0.0,
    to: NeuronMeans | None = None,
    batch_size: int | str | Sequence[int] = "auto",
    progress: bool | Advance = True,
    checkpoint: str | Path | Checkpoint | None = None,
    resume: bool = False,
) -> EvaluationResult:
    """Asks every question of a task; a prediction is right when the likeliest token of the whole vocabulary
    is the label.

    Without gradients, with the last position's logits alone, in batches of like length. A label that the
    tokenizer splits into two tokens ("10" on WorldValuesBench's scales) is read by greedy decoding of up to
    two tokens, its P(answer) is that of the first; `metadata["two_token_labels"]` names such labels.
    Questions answered in words go to `ask_short_answers`.

    Args:
        model: what `load_model` returns, or a bridge or HookedTransformer of the user's.
        task: e.g. ``load_task("blend", split="test")``.
        ablate: neurons whose outputs are multiplied by `scale` meanwhile (0 suppresses, 2 enhances), or
            replaced by their means `to` (see `mean_outputs`); None leaves the model unchanged.
        batch_size: questions per batch, "auto", or "even": as in `score_neurons`.
        checkpoint, resume: as in `score_neurons`.

    Where torch.distributed was started, the processes share the batches, and each returns all answers.
    Questions that do not fit in the model's context are left out; the log and ``metadata["too_long"]`` name
    them.

    Raises:
        ScoreError: an empty task, NaN (naming the question). NeuronError: neurons that the model does not
            have.
    """
    how: dict[str, Any] = {"batch_size": batch_size, "progress": progress}
    how["checkpoint"] = Checkpoint.of(checkpoint, resume=resume)
    if task.short_answers:
        return ask_short_answers(model, task, ablate=ablate, scale=scale, to=to, **how)
    done = operation_name(scale, to)
    if ablate is None and (scale or to is not None):
        raise ScoreError("scale and to say what happens to neurons: name the neurons as well (ablate=...)")
    hooks = [] if ablate is None else ablation_hooks(model, ablate, scale=scale, to=to, in_place=True)
    work = Work(ablate, done, to)
    if task.form == "cloze":
        how |= {"ablated": ablate, "operation": done, "fwd_hooks": hooks, "work": work}
        return ask_cloze(model, task, **how)
    asked, device = Asked.of(model, task), device_of(model)
    state: State = {
        name: torch.zeros(len(asked.prompts), dtype=torch.int64, device=device) for name in _TOKENS
    }
    state["p_answer"] = torch.zeros(len(asked.prompts), device=device)

    def step(batch: Batch, state: State) -> None:
        logits = last_logits(model, batch.tokens, batch.mask).to(device)  # [batch, vocab]
        options = _options(batch.prompts, device)  # [batch, option], -1 where there are fewer
        among = logits.gather(1, options.clamp(min=0)).masked_fill(options < 0, -torch.inf)
        right = logits.gather(1, batch.answers[:, None]).squeeze(1)
        state["p_answer"][batch.at] = (right - logits.logsumexp(-1)).exp().float()
        state["predicted"][batch.at], state["labels"][batch.at] = logits.argmax(-1), among.argmax(-1)
        batch.watch(state["p_answer"][batch.at])
        _read_on(model, batch, state)

    ran = run_pass(
        model, asked.whole, asked.prompts, step, state, fwd_hooks=hooks, work=work, verb="ask", **how
    )
    split = {label for prompt in asked.prompts for label in prompt.two_token_labels}
    about = about_setting(model, asked, ablate, done, ran, two_token_labels=sorted(split))
    return EvaluationResult(_table(model, asked, state), about)


_TOKENS = ("predicted", "labels", "following")
"""Per question: the likeliest token, the place of the likeliest label, and one more than the token after the
first token of a two-token label (0 where none was looked at)."""


def _options(prompts: Sequence[Prompt], device: torch.device) -> Tensor:
    widest = max(len(p.option_tokens) for p in prompts)
    rows = [[*p.option_tokens, *([-1] * (widest - len(p.option_tokens)))] for p in prompts]
    return torch.tensor(rows, device=device)


def _read_on(model: HookedModel, batch: Batch, state: State) -> None:
    """The token after a label's first one, where that may be the start of a two-token label."""
    likeliest = state["labels"][batch.at].tolist()
    begun = {
        i: replace(prompt, tokens=(*prompt.tokens, prompt.option_tokens[place]))
        for i, prompt, place in zip(batch.index, batch.prompts, likeliest)
        if prompt.second_tokens and prompt.option_tokens[place] in _firsts_of_two(prompt)
    }
    if begun:
        tokens, mask = pad(list(begun.values()), tokenizer_of(model), batch.tokens.device)
        following = last_logits(model, tokens, mask).argmax(-1).to(batch.tokens.device)
        state["following"][list(begun)] = following + 1


def _firsts_of_two(prompt: Prompt) -> set[int]:
    """The first tokens of the labels that are two tokens."""
    return {first for first, second in zip(prompt.option_tokens, prompt.second_tokens) if second is not None}


def _read(
    prompt: Prompt, token: int, place: int, then: int | None, texts: Mapping[int, str]
) -> tuple[str, str, bool]:
    """(text of the answer, likeliest label, whether the answer is right).

    `token` is the likeliest of all, `place` the likeliest label's; `then` follows that label's first token
    where it may be the start of a two-token label: another digit belongs to the answer ("1", "0" is read as
    10, "1" before anything else as 1).
    """
    options = prompt.question.options
    if then is None:
        return texts[token], options[place], token == prompt.answer_token
    first = prompt.option_tokens[place]
    second = then if texts[then].strip().isdecimal() else None
    labels = dict(zip(zip(prompt.option_tokens, prompt.second_tokens), options))
    label = labels.get((first, second), labels.get((first, None), options[place]))
    if token != first:
        return texts[token], label, False
    text = texts[token] + (texts[second] if second is not None else "")
    return text, label, labels.get((first, second)) == prompt.question.answer


def _table(model: HookedModel, asked: Asked, state: State) -> pd.DataFrame:
    """One row per prompt, with the columns of `EvaluationResult`."""
    tokenizer, metric = tokenizer_of(model), asked.task.metric
    predicted, places = state["predicted"].tolist(), state["labels"].tolist()
    then = {i: token - 1 for i, token in enumerate(state["following"].tolist()) if token}
    texts = {token: tokenizer.decode([token]) for token in {*predicted, *then.values()}}
    rows = []
    for i, (prompt, p) in enumerate(zip(asked.prompts, state["p_answer"].cpu().numpy())):
        q = prompt.question
        text, label, correct = _read(prompt, predicted[i], places[i], then.get(i), texts)
        aligned = alignment(q, text.strip()) if metric == "alignment" else float("nan")
        known = (q.task, q.id, q.cluster, q.country, q.group, q.template, q.answer)
        rows.append((*known, text, label, float(p), correct, label == q.answer, aligned))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def evaluate_sets(
    model: HookedModel,
    tasks: Sequence[Task],
    sets: Mapping[str, NeuronSet | None],
    *,
    scale: float = 0.0,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> dict[str, EvaluationResult]:
    """Asks all tasks once per set (None leaves the model unchanged), with one progress bar; sets of the same
    neurons are asked once."""
    if not tasks:
        raise ScoreError("no task to ask: name at least one")
    distinct = {None if neurons is None else neurons.hash: neurons for neurons in sets.values()}
    questions = len(distinct) * sum(map(len, tasks))
    with progress_bar(questions, f"ask with {len(distinct)} sets", enabled=progress) as advance:
        how: dict[str, Any] = {"scale": scale, "batch_size": batch_size, "progress": advance}
        answers = {
            key: concat([evaluate(model, task, ablate=neurons, **how) for task in tasks])
            for key, neurons in distinct.items()
        }
    return {name: answers[None if neurons is None else neurons.hash] for name, neurons in sets.items()}
