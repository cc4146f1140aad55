"""Chosen neurons on every question: what neuron cards, token tables and the workbench are made of.

Keeping every neuron's score on every question is impossible (57 GB a million neurons on BLEnD): `score_neurons` sums, and
this second pass looks at a few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.neurons import NeuronSet, Site
from ..engine.models import device_of, tokenizer_of
from ..engine.prompts import pad, plan_batches
from ..engine.run import Place, each_batch, gradients, prepare, probe, tokens_that_fit
from ..errors import ScoreError
from ..progress import Advance, progress_bar
from ..tasks.question import Task


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
        """One row a question and neuron: id, cluster, country, site, layer, neuron, score, p_answer, position, token."""
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
        return f"QuestionScores: {self.scores.shape[0]:,} questions x {self.scores.shape[1]:,} neurons on {self.task.name}"

    __repr__ = __str__


def question_scores(
    model: Any,
    task: Task,
    neurons: NeuronSet,
    *,
    batch_size: int | str | Sequence[int] = "auto",
    progress: bool | Advance = True,
) -> QuestionScores:
    """Scores chosen neurons question by question, in a second pass: `[question, neuron]`, and where in the prompt the max sat.

    Args:
        neurons: the set; its rows are the columns of the result. Every neuron once.

    Raises:
        ScoreError: an empty task or set, a country-specific set with a neuron twice, a site that the model lacks.
    """
    if not len(neurons) or len(neurons.keys()) < len(neurons):
        raise ScoreError(
            "question_scores wants a set of neurons in which each occurs once: choose one country's with for_country()"
        )
    info, wanted, prompts = prepare(model, task, {site for site, _ in neurons.indices})
    tokenizer, device = tokenizer_of(model), device_of(model)
    lengths = [len(p.tokens) for p in prompts]
    tried = probe(model, wanted, min(prompts, key=lambda p: len(p.tokens)).tokens)
    plan = plan_batches(
        lengths,
        batch_size,
        device,
        most_tokens=tokens_that_fit(model, tried.bytes_a_token),
        padding=tried.padding,
    )
    column = {
        key: i
        for i, key in enumerate(zip(neurons.table["site"], neurons.table["layer"], neurons.table["neuron"]))
    }
    scores = np.zeros((len(prompts), len(neurons)), dtype=np.float32)
    tokens_of = np.zeros((len(prompts), len(neurons)), dtype=np.int64)
    p_answer = np.zeros(len(prompts), dtype=np.float32)

    def work(batch: list[int], done: set[Place]) -> None:
        chosen = [prompts[i] for i in batch]
        tokens, mask = pad(chosen, tokenizer, device)
        answers = torch.tensor([p.answer_token for p in chosen], device=device)
        padding = tokens.shape[1] - np.array([len(p.tokens) for p in chosen])

        def objective(logits: Tensor) -> Tensor:
            right = logits.softmax(-1).gather(1, answers[:, None]).squeeze(1)
            p_answer[batch] = right.detach().cpu().numpy()
            return right.sum()

        def keep(site: Site, layer: int, products: Float[Tensor, "batch pos neuron"]) -> None:
            index = neurons.indices.get((site, layer))
            if index is None:
                return
            few = products[:, :, torch.from_numpy(index).to(products.device)]  # [batch, pos, chosen neuron]
            best = few.masked_fill_(~mask.bool().to(few.device)[:, :, None], -torch.inf).max(1)
            to = np.ix_(batch, [column[site.value, layer, int(n)] for n in index])
            scores[to] = best.values.float().cpu().numpy()
            tokens_of[to] = best.indices.cpu().numpy() - padding[:, None]

        run(tokens, mask, objective, keep)

    bar = progress_bar(len(prompts), f"look at {task.name}", enabled=progress)
    with gradients(model, wanted, native=tried.native) as run, bar as advance:
        each_batch(plan, lengths, work, advance)
    broken = ~np.isfinite(scores).all(1)
    if broken.any():
        raise ScoreError(
            f"question {task[int(broken.argmax())].id!r} of {task.name} gives NaN or infinite scores in {info.dtype}"
        )
    texts = tuple(tuple(tokenizer.convert_ids_to_tokens(list(p.tokens))) for p in prompts)
    return QuestionScores(scores, tokens_of, p_answer, task, neurons, texts)
