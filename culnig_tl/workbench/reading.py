"""Which questions a neuron answers to, and which of their tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..data.neurons import NeuronSet, Site
from ..engine.models import device_of, tokenizer_of
from ..engine.prompts import pad
from ..engine.run import backward, prepare
from ..method.closeup import question_scores
from ..tasks.question import Question, Task

Key = tuple[str, int, int]
"""(site, layer, neuron)."""
STEP = 50
"""Questions read at a time; between two steps other requests have their turn."""
CLOSE = 0.02
"""P(answer) of a padded prompt may differ from the prompt's own by so much: bfloat16 rounds as coarsely."""


@dataclass(frozen=True)
class TopQuestion:
    """A question on which a neuron scores high."""

    question: Question
    weighted: float
    """P(answer) times the neuron's attribution."""
    p_answer: float


class Reading:
    """A task's questions, read for some neurons: a few questions a step, never one twice."""

    def __init__(self, model: Any, task: Task, neurons: NeuronSet) -> None:
        """Every neuron of the set once (see `question_scores`)."""
        self.model, self.task, self.neurons = model, task, neurons
        table = neurons.table
        self._column: dict[Key, int] = {
            key: i for i, key in enumerate(zip(table["site"], table["layer"], table["neuron"]))
        }
        self._weighted: list[Float[np.ndarray, "question neuron"]] = []
        self._p_answer: list[Float[np.ndarray, " question"]] = []
        self.done = 0
        """Questions read so far."""

    def __contains__(self, key: Key) -> bool:
        return key in self._column

    @property
    def finished(self) -> bool:
        return self.done >= len(self.task)

    def step(self) -> None:
        """Reads the next questions."""
        part = self.task[self.done : self.done + STEP]
        scores = question_scores(self.model, part, self.neurons, progress=False)
        self._weighted.append(scores.weighted)
        self._p_answer.append(scores.p_answer)
        self.done += len(part)

    def top(self, key: Key, count: int) -> list[TopQuestion]:
        """The questions on which a neuron scores highest, a cluster once a country."""
        values = np.concatenate([part[:, self._column[key]] for part in self._weighted])
        p_answer = np.concatenate(self._p_answer)
        best: dict[tuple[str, str | None], TopQuestion] = {}
        for i in np.argsort(-values, kind="stable"):
            question = self.task[int(i)]
            best.setdefault(
                (question.cluster, question.country),
                TopQuestion(question, float(values[i]), float(p_answer[i])),
            )
            if len(best) == count:
                break
        return list(best.values())


@dataclass(frozen=True)
class TokenScores:
    """One neuron's attribution along one prompt."""

    top: TopQuestion
    tokens: tuple[str, ...]
    values: Float[np.ndarray, " pos"]
    """s_i = n_i * dP/dn_i: the change of P(answer) to first order."""


def token_scores(model: Any, questions: Sequence[TopQuestion], key: Key) -> list[TokenScores]:
    """`score_prompt` of a few questions and one neuron, in one forward and one backward pass.

    Where padding moves P(answer) away from what it was when the questions were read, they are asked one by one.
    """
    if not questions:
        return []
    task = Task("top questions", tuple(replace(q.question, id=str(i)) for i, q in enumerate(questions)))
    site, layer, neuron = Site.parse(key[0]), key[1], key[2]
    _, sites, prompts = prepare(model, task, (site,))
    tokenizer, device = tokenizer_of(model), device_of(model)
    tokens, mask = pad(prompts, tokenizer, device)
    answers = torch.tensor([p.answer_token for p in prompts], device=device)
    products = torch.zeros(tokens.shape)
    p_answer = torch.zeros(len(prompts))

    def keep(at: Site, depth: int, product: Tensor) -> None:
        if depth == layer:
            products.copy_(product[:, :, neuron])

    def objective(logits: Tensor) -> Tensor:
        right = logits.softmax(-1).gather(1, answers[:, None]).squeeze(1)
        p_answer.copy_(right.detach())
        return right.sum()

    backward(model, tokens, mask, sites, objective, keep)
    moved = (p_answer - torch.tensor([q.p_answer for q in questions])).abs().amax()
    if len(questions) > 1 and not moved <= CLOSE:
        return [scores for question in questions for scores in token_scores(model, [question], key)]
    return [
        TokenScores(
            top,
            tuple(tokenizer.convert_ids_to_tokens(list(prompt.tokens))),
            row[len(row) - len(prompt.tokens) :].numpy(),
        )
        for top, prompt, row in zip(questions, prompts, products)
    ]
