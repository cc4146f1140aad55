"""Evaluation: what a model answers, unchanged or with neurons switched off."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..data.neurons import NeuronMeans, NeuronSet
from ..data.results import COLUMNS, EvaluationResult, concat
from ..engine.checkpoint import Course, Saving
from ..engine.context import within_context
from ..engine.identity import identity, model_identity
from ..engine.models import ModelInfo, describe, device_of, frozen, hook_name, last_logits, tokenizer_of
from ..engine.prompts import Prompt, encode, pad, plan_batches
from ..engine.run import NATIVE_TOLERANCE, each_batch
from ..engine.workarounds import native_attention
from ..errors import ScoreError
from ..progress import Advance, progress_bar
from ..tasks import worldvaluesbench
from ..tasks.question import Task
from ..version import __version__
from .ablation import ablation_hooks, operation_name
from .answers.short_answers import ask_short_answers

log = logging.getLogger(__name__)


def evaluate(
    model: Any,
    task: Task,
    *,
    neurons: NeuronSet | None = None,
    operation: str = "suppress",
    scale: float | None = None,
    means: NeuronMeans | None = None,
    batch_size: int | str | Sequence[int] = "auto",
    progress: bool | Advance = True,
    saving: Saving | None = None,
) -> EvaluationResult:
    """Asks every question of a task; a prediction is right when the likeliest token of the whole vocabulary is the label.

    Without gradients, with the last position's logits alone, in batches of like length. A label that the tokenizer splits into
    two tokens ("10" on WorldValuesBench's scales) is read by greedy decoding of up to two tokens, its P(answer) is that of the
    first; `metadata["two_token_labels"]` names such labels.

    Args:
        model: what `load_model` returns, or a bridge or HookedTransformer of the user's.
        task: e.g. ``load_task("blend").test_split()``.
        neurons: switched off ("suppress") or doubled ("enhance"), multiplied by `scale`, or replaced by `means` meanwhile;
            None leaves the model unchanged.
        batch_size: questions a batch, or "auto".
        saving: where the state is saved every so often, and gone on from after a kill, to the same bytes (see `Saving`).

    Where torch.distributed was started, the processes share the batches, and each returns all answers. Questions that do not
    fit in the model's context are left out; the log and ``metadata["too_long"]`` name them.

    Raises:
        ScoreError: an empty task, NaN (naming the question). NeuronError: neurons that the model does not have.
    """
    if not len(task):
        raise ScoreError(f"task {task.name!r} holds no question to ask")
    if task.short_answers:
        how: dict[str, Any] = {"batch_size": batch_size, "progress": progress, "saving": saving}
        return ask_short_answers(
            model, task, neurons=neurons, operation=operation, scale=scale, means=means, **how
        )
    done = operation_name(operation, scale, means)
    info, tokenizer, device = describe(model), tokenizer_of(model), device_of(model)
    prompts, too_long = within_context(model, task, encode(tokenizer, task.questions))
    lengths = [len(p.tokens) for p in prompts]
    key = None
    if saving is not None:
        of_model = model_identity(model) if saving.model is None else saving.model
        key = identity(of_model, neurons=neurons, operation=done, means=means)
    answers = torch.tensor([p.answer_token for p in prompts], device=device)
    widest = max(len(p.option_tokens) for p in prompts)
    options = torch.tensor(
        [[*p.option_tokens, *([-1] * (widest - len(p.option_tokens)))] for p in prompts], device=device
    )
    predicted, labels, following = (torch.zeros_like(answers) for _ in range(3))
    p_answer = torch.zeros(len(prompts), device=device)
    found = {
        "predicted": predicted,
        "labels": labels,
        "following": following,
        "p_answer": p_answer,
    }  # a question each
    # following: one more than the token after the first token of a two-token label, 0 where none was looked at

    def ask(batch: list[int], _: Any) -> None:
        logits = last_logits(model, *pad([prompts[i] for i in batch], tokenizer, device)).to(
            device
        )  # [batch, vocab]
        at = torch.tensor(batch, device=device)
        right = logits.gather(1, answers[at, None]).squeeze(1)
        among = logits.gather(1, options[at].clamp(min=0)).masked_fill(options[at] < 0, -torch.inf)
        p_answer[at] = (right - logits.logsumexp(-1)).exp().float()
        predicted[at], labels[at] = logits.argmax(-1), among.argmax(-1)
        read_on(batch)

    def read_on(batch: list[int]) -> None:
        """The token after a label's first one, where that may be the start of a two-token label."""
        split = [i for i in batch if prompts[i].second_tokens]
        if not split:
            return
        begun = {i: prompts[i].option_tokens[place] for i, place in zip(split, labels[split].tolist())}
        begun = {i: token for i, token in begun.items() if token in _firsts_of_two(prompts[i])}
        if begun:
            longer = [replace(prompts[i], tokens=(*prompts[i].tokens, token)) for i, token in begun.items()]
            following[list(begun)] = (
                last_logits(model, *pad(longer, tokenizer, device)).argmax(-1).to(device) + 1
            )

    def check_health() -> None:
        broken = p_answer.isnan()
        if broken.any():
            question = prompts[int(broken.nonzero()[0])].question
            raise ScoreError(f"question {question.id!r} of {task.name} gives NaN in {info.dtype}")

    def snapshot() -> dict[str, Tensor]:
        check_health()
        return found

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(frozen(model))
        if neurons is not None:
            hooks = ablation_hooks(model, neurons, operation, scale=scale, means=means, in_place=True)
            stack.enter_context(model.hooks(fwd_hooks=hooks))
        course = Course(
            {"identity": key, "questions": {task.name: task.fingerprint}},
            saving,
            lambda: {
                "native": _native_is_exact(model, min(prompts, key=lambda p: len(p.tokens)), neurons),
                "sizes": [len(batch) for batch in plan_batches(lengths, batch_size, device)],
            },
            lambda decided: plan_batches(lengths, decided["sizes"]),
        )
        for name, before in course.tensors.items():
            found[name].copy_(before)
        native = course.decided["native"]
        stack.enter_context(native_attention(model, native))
        advance = stack.enter_context(progress_bar(len(prompts), f"ask {task.name}", enabled=progress))
        after = stack.enter_context(course.saved(snapshot))
        each_batch(course.plan, lengths, ask, course.advancing(advance), ledger=course.ledger, after=after)
        check_health()
    for of_question in found.values():
        course.ranks.add(of_question)  # each question was asked by one process alone

    probabilities, tokens = p_answer.cpu().numpy(), predicted.tolist()
    then = {i: token - 1 for i, token in enumerate(following.tolist()) if token}
    texts = {token: tokenizer.decode([token]) for token in set(tokens) | set(then.values())}
    read = [
        _read(prompt, token, place, then.get(i), texts)
        for i, (prompt, token, place) in enumerate(zip(prompts, tokens, labels.tolist()))
    ]
    aligned = task.name == worldvaluesbench.NAME
    table = pd.DataFrame(
        [
            (
                q.task,
                q.id,
                q.cluster,
                q.country,
                q.group,
                q.template,
                q.answer,
                text,
                label,
                float(p),
                correct,
                label == q.answer,
                worldvaluesbench.alignment(q, text.strip()) if aligned else float("nan"),
            )  # fmt: skip
            for q, (text, label, correct), p in zip(
                (prompt.question for prompt in prompts), read, probabilities
            )
        ],
        columns=list(COLUMNS),
    )
    rest: dict[str, Any] = {
        "native_attention": native,
        "batch_sizes": {task.name: course.sizes()},
        "too_long": {task.name: too_long},
        "identity": key,
        "two_token_labels": {
            task.name: sorted({label for prompt in prompts for label in prompt.two_token_labels})
        },
    }
    metadata = _about(info, task, neurons, done, **rest)
    return EvaluationResult(table, metadata)


def _firsts_of_two(prompt: Prompt) -> set[int]:
    """The first tokens of the labels that are two tokens."""
    return {first for first, second in zip(prompt.option_tokens, prompt.second_tokens) if second is not None}


def _read(
    prompt: Prompt, token: int, place: int, then: int | None, texts: Mapping[int, str]
) -> tuple[str, str, bool]:
    """(text of the answer, likeliest label, whether the answer is right).

    `token` is the likeliest of all, `place` the likeliest label's; `then` follows that label's first token where it may be the
    start of a two-token label: another digit belongs to the answer ("1", "0" is read as 10, "1" before anything else as 1).
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


def evaluate_sets(
    model: Any,
    tasks: Sequence[Task],
    sets: Mapping[str, NeuronSet | None],
    *,
    operation: str = "suppress",
    batch_size: int | str = "auto",
    progress: bool = True,
) -> dict[str, EvaluationResult]:
    """Asks all tasks once a set (None leaves the model unchanged), with one progress bar; sets of the same neurons are asked once."""
    if not tasks:
        raise ScoreError("no task to ask: name one at least")
    distinct = {None if neurons is None else neurons.hash: neurons for neurons in sets.values()}
    with progress_bar(
        len(distinct) * sum(map(len, tasks)), f"ask with {len(distinct)} sets", enabled=progress
    ) as advance:
        answers = {
            key: concat(
                [
                    evaluate(
                        model, t, neurons=n, operation=operation, batch_size=batch_size, progress=advance
                    )
                    for t in tasks
                ]
            )
            for key, n in distinct.items()
        }
    return {name: answers[None if neurons is None else neurons.hash] for name, neurons in sets.items()}


def _about(
    info: ModelInfo, task: Task, neurons: NeuronSet | None, operation: str, **rest: Any
) -> dict[str, Any]:
    """A result's metadata: the model, the questions, the neurons, what was done to them, and the rest."""
    return {
        "model": info.name,
        "revision": info.revision,
        "dtype": info.dtype,
        "fingerprints": {task.name: task.fingerprint},
        "neurons": neurons.hash if neurons is not None else None,
        "neuron_count": len(neurons.keys()) if neurons is not None else 0,
        "operation": None if neurons is None else operation,
        "setting": "unchanged" if neurons is None else f"{neurons.provenance.kind}, {operation}",
        "version": __version__,
        **rest,
    }


def _native_is_exact(model: Any, prompt: Prompt, neurons: NeuronSet | None) -> bool:
    """Whether the faster attention kernel gives the logits of the model's own and lets every ablated site's hook fire."""
    places = (
        {hook_name(model, site, layer) for site, layer in neurons.indices} if neurons is not None else set()
    )
    seen: set[str] = set()

    def see(activation: Tensor, hook: Any) -> None:
        seen.add(hook.name)

    tokens = torch.tensor([prompt.tokens], device=device_of(model))
    mask = torch.ones_like(tokens)
    own = last_logits(model, tokens, mask)
    with native_attention(model) as possible, model.hooks(fwd_hooks=[(name, see) for name in places]):
        if not possible:
            return False
        native = last_logits(model, tokens, mask)
    error = float((native - own).abs().amax() / own.abs().amax().clamp(min=1e-12))
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    if len(seen) < len(places) or not error <= NATIVE_TOLERANCE.get(dtype, 0.1):  # NaN too
        log.warning(
            "native attention is not used, answers take longer: %d of %d hooks fired, logits differ by %.1e",
            len(seen),
            len(places),
            error,
        )
        return False
    return True
