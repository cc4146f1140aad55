"""A close look: one prompt token by token (`score_prompt`), or chosen neurons question by question
(`question_scores`).

Keeping every neuron's score on every question is impossible (57 GB per million neurons on BLEnD):
`score_neurons` sums, and `question_scores` is a second pass that looks at a few. Neuron cards, token tables
and the workbench are made of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.neurons import SITES, NeuronSet, Site
from ..engine.checkpoint import Checkpoint
from ..engine.cloze import costs, encode_cloze
from ..engine.hooks import HookPlace, Reading, SiteHooks
from ..engine.models import HookedModel, describe, device_of, sites_of, tokenizer_of
from ..engine.prompts import TOKENS_PER_BATCH, Asked, pad
from ..engine.run import Batch, State, Work, run_pass
from ..errors import ScoreError
from ..progress import Advance
from ..tasks.question import Question, Task
from .cloze import Normalise, Slots, run_cloze


@dataclass(frozen=True)
class PromptScores:
    """Attribution along one prompt, before any aggregation."""

    arrays: dict[Site, Float[np.ndarray, "layer pos neuron"]]
    """s_i = n_i * dP/dn_i for every neuron and token."""
    tokens: tuple[str, ...]
    answer: str
    p_answer: float
    top_tokens: tuple[tuple[str, float], ...] = field(default=())
    """The ten likeliest next tokens with their probabilities."""

    def __str__(self) -> str:
        shapes = ", ".join(f"{site} {'x'.join(map(str, array.shape))}" for site, array in self.arrays.items())
        tokens = len(self.tokens)
        return (
            f"PromptScores: P({self.answer!r}) = {self.p_answer:.3f} after {tokens} tokens; [layer, position,"
            f" neuron]: {shapes}"
        )

    __repr__ = __str__


def score_prompt(
    model: HookedModel,
    prompt: str | Question,
    answer: str | None = None,
    *,
    sites: Iterable[Site | str] = SITES,
    normalise: Normalise = "unconditional",
) -> PromptScores:
    """Scores one prompt, token by token: the first look at what a neuron does.

    Args:
        prompt: what the user says (the chat template is applied), or a `Question`. Of a cloze question the
            tokens are the prompt's, then each option's, then those of the control and each option where there
            is a prior.
        answer: the answer whose probability is explained; one token. A question brings its own.
        normalise: of a cloze question, see `culnig_tl.method.cloze`.

    Raises:
        ScoreError: a text without an answer. PromptError: an answer that is not one token.
    """
    if isinstance(prompt, str):
        if answer is None:
            raise ScoreError('score_prompt(model, "a text", answer="B"): the answer is missing')
        prompt = Question("prompt", "prompt", "prompt", prompt, (answer,), answer)
    info, tokenizer = describe(model), tokenizer_of(model)
    cloze = prompt.form == "cloze"
    (encoded,) = Asked.of(model, Task("prompt", (prompt,)), encode_cloze if cloze else None).prompts
    products: dict[HookPlace, list[Tensor]] = {}
    probabilities = torch.zeros(0)

    def keep(site: Site, layer: int, reading: Reading, *_: Any) -> None:
        assert reading.products is not None
        products.setdefault((site, layer), []).append(reading.products[0].cpu())

    def see(p: Float[Tensor, "one choice"]) -> None:
        nonlocal probabilities
        probabilities = p.detach()[0].cpu()

    def objective(logits: Tensor) -> Tensor:
        p = logits.softmax(-1)
        see(p)
        return p[0, encoded.answer_token]

    hooks = SiteHooks(model, backward=sites_of(info, sites))
    rows = pad([encoded], tokenizer, device_of(model))
    with hooks.installed():
        if cloze:
            run_cloze(hooks, [encoded], *rows, normalise, see, keep)
        else:
            hooks.run(*rows, objective, keep)
    best = probabilities.topk(min(10, len(probabilities)))
    named = (lambda i: prompt.texts[i]) if cloze else (lambda i: tokenizer.decode([i]))
    whole = {place: torch.cat(parts) for place, parts in products.items()}
    stacked = {
        site: info.table(site, {layer: whole[site, layer] for layer in info.layers_with(site)})
        for site in hooks.sites
    }
    positions = next(iter(whole.values())).shape[0]
    tokens = encoded.counted_with_prior[:positions] if cloze else encoded.tokens
    return PromptScores(
        arrays={site: stacked[site].movedim(-2, 0).contiguous().numpy() for site in hooks.sites},
        tokens=tuple(tokenizer.convert_ids_to_tokens(list(tokens))),
        answer=prompt.texts[encoded.right] if cloze else prompt.answer,
        p_answer=float(probabilities[encoded.right if cloze else encoded.answer_token]),
        top_tokens=tuple((named(int(i)), float(p)) for p, i in zip(best.values, best.indices)),
    )


@dataclass(frozen=True)
class QuestionScores:
    """s(x, y) of a few neurons on every question, and where in the prompt it sat."""

    scores: Float[np.ndarray, "question neuron"]
    """s(x, y): the largest attribution over the prompt's tokens, not yet times P(answer) and not clamped."""
    tokens: Int[np.ndarray, "question neuron"]
    """Position in the prompt where that largest attribution sat."""
    p_answer: Float[np.ndarray, " question"]
    task: Task
    neurons: NeuronSet
    token_texts: tuple[tuple[str, ...], ...]
    """The tokens of every prompt."""

    @property
    def weighted(self) -> Float[np.ndarray, "question neuron"]:
        """P(answer) times s: the terms whose sum over a country's questions is `NeuronScores`."""
        return self.p_answer[:, None] * self.scores

    def to_dataframe(self) -> pd.DataFrame:
        """One row per question and neuron: id, cluster, country, site, layer, neuron, score, p_answer,
        position, token."""
        table = self.neurons.table
        frames = [
            table[["site", "layer", "neuron"]].assign(
                id=question.id,
                cluster=question.cluster,
                country=question.country,
                score=self.scores[i],
                p_answer=self.p_answer[i],
                position=self.tokens[i],
                token=[self.token_texts[i][t] for t in self.tokens[i]],
            )
            for i, question in enumerate(self.task)
        ]
        return pd.concat(frames, ignore_index=True)

    def __str__(self) -> str:
        return (
            f"QuestionScores: {self.scores.shape[0]:,} questions x {self.scores.shape[1]:,} neurons on"
            f" {self.task.name}"
        )

    __repr__ = __str__


def question_scores(
    model: HookedModel,
    task: Task,
    neurons: NeuronSet,
    *,
    batch_size: int | str | Sequence[int] = "auto",
    normalise: Normalise = "unconditional",
    progress: bool | Advance = True,
    checkpoint: str | Path | Checkpoint | None = None,
    resume: bool = False,
) -> QuestionScores:
    """Scores chosen neurons question by question, in a second pass: `[question, neuron]`, and where in the
    prompt the max sat.

    Args:
        neurons: the set; its rows are the columns of the result. Every neuron once.
        checkpoint, resume: as in `score_neurons`.

    Questions that do not fit in the model's context are left out, of the result's `task` too.

    Raises:
        ScoreError: an empty task or set, a country-specific set with a neuron twice, a site that the model
            lacks, NaN.
    """
    if not len(neurons) or len(neurons.keys()) < len(neurons):
        raise ScoreError(
            "question_scores takes a set in which each neuron occurs once: choose one country's with"
            " for_country()"
        )
    cloze = task.form == "cloze"
    asked = Asked.of(model, task, encode_cloze if cloze else None)
    hooks = SiteHooks(model, backward=sites_of(describe(model), {site for site, _ in neurons.indices}))
    column = neurons.columns
    shape = (len(asked.prompts), len(neurons))
    state: State = {
        "scores": torch.zeros(shape),
        "tokens": torch.zeros(shape, dtype=torch.int64),
        "p_answer": torch.zeros(len(asked.prompts)),
    }

    def step(batch: Batch, state: State) -> None:
        rows = torch.tensor(batch.index)[:, None]

        def see(p_answer: Float[Tensor, " question"]) -> None:
            state["p_answer"][batch.index] = p_answer.detach().float().cpu()

        def keep(site: Site, layer: int, best: Tensor, at: Tensor) -> None:
            columns = torch.tensor([column[site.value, layer, int(n)] for n in neurons.indices[site, layer]])
            state["scores"][rows, columns] = best.float().cpu()
            state["tokens"][rows, columns] = at.cpu()
            batch.watch(best.sum(1))

        if cloze:
            _of_slots(neurons, batch, hooks, normalise, see, keep)
        else:
            _of_tokens(neurons, batch, hooks, see, keep)

    lengths = costs(model, asked.prompts, TOKENS_PER_BATCH[device_of(model).type]) if cloze else None
    run_pass(
        model,
        asked.whole,
        asked.prompts,
        step,
        state,
        hooks=hooks,
        batch_size=batch_size,
        progress=progress,
        checkpoint=Checkpoint.of(checkpoint, resume=resume),
        work=Work(neurons, settings={"normalise": normalise} if cloze else {}),
        verb="look at",
        lengths=lengths,
    )
    tokens = [p.counted_with_prior if cloze else p.tokens for p in asked.prompts]
    texts = tuple(tuple(tokenizer_of(model).convert_ids_to_tokens(list(row))) for row in tokens)
    found = {name: tensor.numpy() for name, tensor in state.items()}
    return QuestionScores(found["scores"], found["tokens"], found["p_answer"], asked.task, neurons, texts)


Keep = Callable[[Site, int, Tensor, Tensor], None]
"""Called with (site, layer, s of the chosen neurons [question, chosen], where in the prompt it sat)."""


def _best(neurons: NeuronSet, place: HookPlace, products: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """(s, position) of the chosen neurons of one site and layer."""
    few = products[:, :, torch.from_numpy(neurons.indices[place]).to(products.device)]
    best = few.masked_fill_(~real.to(few.device)[:, :, None], -torch.inf).max(1)
    return best.values, best.indices


def _of_tokens(
    neurons: NeuronSet, batch: Batch, hooks: SiteHooks, see: Callable[[Tensor], None], keep: Keep
) -> None:
    """Looks at questions that are answered with a label."""
    padding = batch.tokens.shape[1] - torch.tensor([len(p.tokens) for p in batch.prompts])

    def objective(logits: Tensor) -> Tensor:
        right = logits.softmax(-1).gather(1, batch.answers[:, None]).squeeze(1)
        see(right)
        return right.sum()

    def receive(site: Site, layer: int, reading: Reading) -> None:
        if (site, layer) in neurons.indices and reading.products is not None:
            best, at = _best(neurons, (site, layer), reading.products, batch.real)
            keep(site, layer, best, at.cpu() - padding[:, None])

    hooks.run(batch.tokens, batch.mask, objective, receive)


def _of_slots(
    neurons: NeuronSet,
    batch: Batch,
    hooks: SiteHooks,
    normalise: str,
    see: Callable[[Tensor], None],
    keep: Keep,
) -> None:
    """Looks at cloze questions: the largest over the slots of both passes."""
    right = torch.tensor([p.right for p in batch.prompts], device=batch.tokens.device)
    so_far: dict[HookPlace, tuple[Tensor, Tensor, Tensor]] = {}

    def receive(site: Site, layer: int, reading: Reading, slots: Slots, last: bool) -> None:
        if (site, layer) not in neurons.indices or reading.products is None:
            return
        best, at = _best(neurons, (site, layer), reading.products, slots.real)
        if not last:
            so_far[site, layer] = (best, at, slots.real.sum(1).to(at))
            return
        if (site, layer) in so_far:
            earlier, earlier_at, count = so_far.pop((site, layer))
            at = torch.where(earlier >= best, earlier_at, at + count[:, None])
            best = torch.maximum(earlier, best)
        keep(site, layer, best, at)

    run_cloze(
        hooks,
        batch.prompts,
        batch.tokens,
        batch.mask,
        normalise,
        lambda p: see(p.gather(1, right[:, None]).squeeze(1)),
        receive,
    )
