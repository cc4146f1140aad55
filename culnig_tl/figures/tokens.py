"""What one neuron reads and writes: the tokens on which it fires, and those that its output promotes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from ..data.neurons import Site
from ..engine.cloze import encode_cloze
from ..engine.models import HookedModel, describe, device_of, frozen, hook_name, last_logits, tokenizer_of
from ..engine.prompts import Prompt, encode, pad, plan_batches
from ..errors import NeuronError
from ..method.closeup import QuestionScores
from ..progress import progress_bar
from ..tasks.question import Question, Task
from .prompts import part_of, prompt_parts

CONTEXT = 8
"""Tokens shown before the one on which a neuron fires."""
SILENT = (Site.ATTN_Q, Site.ATTN_K)
"""Sites that write nothing to the residual stream."""


def top_questions(
    scores: QuestionScores,
    neuron: tuple[Site | str, int, int],
    *,
    count: int = 10,
    model: HookedModel | None = None,
) -> pd.DataFrame:
    """The questions on which a neuron scores highest.

    Args:
        model: names the part of a cloze question in which the token stands.

    Returns:
        Columns question (the prompt; of a cloze question its options' words too), score (P(answer) times the
        attribution), country, token (where the attribution sat); and with a model, of cloze questions, part
        ("question", "option A", "control", "option A after the control").

    Raises:
        NeuronError: a neuron that was not scored.
    """
    site, layer, index = Site.parse(neuron[0]), int(neuron[1]), int(neuron[2])
    table = scores.neurons.table
    places = np.flatnonzero(
        (table["site"] == site.value) & (table["layer"] == layer) & (table["neuron"] == index)
    )
    if not len(places):
        raise NeuronError(
            f"neuron ({site}, {layer}, {index}) is none of the {len(table):,} that were scored "
            "question by question"
        )
    values = scores.weighted[:, places[0]]
    best = np.argsort(-values, kind="stable")[:count]
    asked = [scores.task.questions[i] for i in best]
    at = [int(scores.tokens[i, places[0]]) for i in best]
    table = pd.DataFrame(
        {
            "question": [_asked(question) for question in asked],
            "score": [float(values[i]) for i in best],
            "country": [question.country for question in asked],
            "token": [scores.token_texts[i][token] for i, token in zip(best, at)],
        }
    )
    if model is None or scores.task.form == "letters":
        return table
    return table.assign(part=[part_of(prompt_parts(model, q), token) for q, token in zip(asked, at)])


def _asked(question: Question) -> str:
    """What a question asks: its prompt, and the words that are compared after it."""
    words = f" {' / '.join(question.texts)}" if question.form == "cloze" else ""
    return question.prompt + words


@torch.no_grad()
def promoted_tokens(
    model: Any, site: Site | str, layer: int, neuron: int, *, count: int = 10
) -> pd.DataFrame:
    """The tokens that a neuron's output raises and lowers most, through the unembedding alone (logit lens).

    The neuron's row of the output matrix goes through the gain of the norms behind it and the unembedding;
    later layers and the norms' division take no part, so that only the order and sign of the logits mean
    something. For `attn.v` every query head that reads the coordinate attends fully. A gated MLP's neuron
    writes this times the sign of its activation.

    Returns:
        Columns token, logit; the `count` highest, then the `count` lowest, from high to low.

    Raises:
        NeuronError: no such neuron, or one of `attn.q` or `attn.k`: these write nothing, they decide where
            heads look.
    """
    site = _check(model, site, layer, neuron)
    if site in SILENT:
        raise NeuronError(
            f"{site} neurons write nothing to the residual stream, they decide where heads look: "
            "promoted tokens are for MLP and attn.v neurons"
        )
    return promoted_by(model, [(site.value, layer, neuron)], count=count)[0]


@torch.no_grad()
def promoted_by(
    model: Any, neurons: Sequence[tuple[str, int, int]], *, count: int = 10
) -> list[pd.DataFrame]:
    """`promoted_tokens` of many neurons of sites that write, the unembedding read once."""
    unembedding = model.W_U.detach().float()  # [d_model, vocab]
    tokenizer, most = tokenizer_of(model), min(count, unembedding.shape[1] // 2)
    tables = []
    for name, layer, neuron in neurons:
        site = Site(name)
        direction = _written(model, site, layer, neuron)
        after = "ln1_post" if site is Site.ATTN_V else "ln2_post"
        for norm in (getattr(model.blocks[layer], after, None), getattr(model, "ln_final", None)):
            if norm is not None:
                direction = direction * _gain(norm, direction)
        logits = direction.to(unembedding.device) @ unembedding  # [vocab]
        order = torch.cat([logits.topk(most).indices, logits.topk(most, largest=False).indices.flip(0)])
        tokens = [tokenizer.decode([i]) for i in order.tolist()]
        tables.append(pd.DataFrame({"token": tokens, "logit": logits[order].cpu().numpy()}))
    return tables


def _prompts(tokenizer: Any, task: Task) -> list[Prompt]:
    """The task's prompts; of cloze questions with the right option's words."""
    if task.form == "letters":
        return encode(tokenizer, task.questions)
    return [Prompt(p.question, p.options[p.right], -1, ()) for p in encode_cloze(tokenizer, task.questions)]


def _written(model: Any, site: Site, layer: int, neuron: int) -> Tensor:
    """[d_model]: what the neuron adds to the residual stream for each unit of its output, before any norm."""
    block = model.blocks[layer]
    if site is not Site.ATTN_V:
        return block.mlp.W_out[neuron].detach().float()
    matrix = block.attn.W_O  # [head, d_head, d_model]
    head, place = divmod(neuron, matrix.shape[1])
    value_heads = describe(model).widths[site] // matrix.shape[1]
    readers = matrix.shape[0] // value_heads  # query heads that read one value head
    return matrix[head * readers : (head + 1) * readers, place].sum(0).detach().float()


def _gain(norm: Any, like: Tensor) -> Tensor:
    """A norm's weight for each coordinate, read off what it makes of +1 and -1.

    Models call it by different names, and some add 1 to it.
    """
    signs = torch.ones(len(like), device=like.device)
    signs[1::2] = -1
    weight = next(iter(norm.parameters()), None)
    probe = signs.to(weight.dtype if weight is not None else torch.float32)[None, None]
    return (signs * (norm(probe) - norm(-probe))[0, 0].float() / 2).to(like.device)


@torch.no_grad()
def firing_tokens(
    model: HookedModel,
    task: Task,
    site: Site | str,
    layer: int,
    neuron: int,
    *,
    count: int = 10,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> pd.DataFrame:
    """The tokens of a task's prompts at which a neuron's output is largest (farthest from 0 in attention).

    Of a cloze question the prompt and the right option's words are read, without the other options.

    Returns:
        Columns token, context (the tokens before it), activation, question (its id); the strongest first, a
        token in the same context once.

    Raises:
        NeuronError: no such neuron. PromptError: as `score_neurons`.
    """
    site = _check(model, site, layer, neuron)
    if not len(task):
        raise NeuronError(f"task {task.name!r} holds no question")
    tokenizer, device = tokenizer_of(model), device_of(model)
    prompts = _prompts(tokenizer, task)
    seen: dict[tuple[int, ...], tuple[float, str]] = {}
    caught: list[Tensor] = []

    def strength(value: Any) -> Any:
        return abs(value) if site.pool == "attn" else value

    def catch(activation: Tensor, hook: Any) -> None:
        caught.append(activation.flatten(2)[:, :, neuron].float().cpu())

    with (
        frozen(model),
        model.hooks(fwd_hooks=[(hook_name(model, site, layer), catch)]),
        progress_bar(len(prompts), f"read {task.name}", enabled=progress) as advance,
    ):
        for batch in plan_batches([len(p.tokens) for p in prompts], batch_size, device):
            chosen = [prompts[i] for i in batch]
            caught.clear()
            last_logits(model, *pad(chosen, tokenizer, device))
            for prompt, row in zip(chosen, caught[0]):
                values = row[len(row) - len(prompt.tokens) :]
                for at in strength(values).topk(min(count, len(values))).indices.tolist():
                    key = prompt.tokens[max(0, at - CONTEXT) : at + 1]
                    value = float(values[at])
                    if key not in seen or strength(value) > strength(seen[key][0]):
                        seen[key] = (value, prompt.question.id)
            advance(len(batch))
    best = sorted(seen.items(), key=lambda item: -strength(item[1][0]))[:count]
    rows = [
        (tokenizer.decode([key[-1]]), tokenizer.decode(list(key[:-1])), value, question)
        for key, (value, question) in best
    ]
    return pd.DataFrame(rows, columns=["token", "context", "activation", "question"])


def _check(model: HookedModel, site: Site | str, layer: int, neuron: int) -> Site:
    site, info = Site.parse(site), describe(model)
    if site not in info.widths:
        raise NeuronError(f"this model has no site {site}: it has {', '.join(map(str, info.widths))}")
    if not (0 <= layer < info.layers and 0 <= neuron < info.widths[site]):
        raise NeuronError(
            f"no neuron ({site}, {layer}, {neuron}): "
            f"layers are 0 to {info.layers - 1}, neurons 0 to {info.widths[site] - 1}"
        )
    return site
