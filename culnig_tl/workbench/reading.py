"""The questions to which a neuron responds, and the tokens in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from ..data.neurons import NeuronSet, Site
from ..engine.cloze import asked_of
from ..engine.hooks import Reading, SiteHooks
from ..engine.models import HookedModel, tokenizer_of
from ..figures.prompts import Part, prompt_parts
from ..method.asking import asking
from ..method.closeup import question_scores
from ..tasks.question import Question, Task

Key = tuple[str, int, int]
"""(site, layer, neuron)."""
STEP = 50
"""Questions read at a time; between two steps other requests have their turn."""


@dataclass(frozen=True)
class TopQuestion:
    """A question on which a neuron scores high."""

    question: Question
    weighted: float
    """P(answer) times the neuron's attribution."""
    p_answer: float


class Reader:
    """Reads a task's questions for some neurons: a few questions per step, none twice."""

    def __init__(self, model: HookedModel, task: Task, neurons: NeuronSet) -> None:
        """The set holds every neuron once."""
        self.model, self.task, self.neurons = model, task, neurons
        table = neurons.table
        self._column = {key: i for i, key in enumerate(zip(table["site"], table["layer"], table["neuron"]))}
        self._questions: list[Question] = []
        self._weighted: list[Float[np.ndarray, "question neuron"]] = []
        self._p_answer: list[Float[np.ndarray, " question"]] = []
        self.done = 0
        """Questions read so far, those that are too long for the model included."""

    def __contains__(self, key: Key) -> bool:
        return key in self._column

    @property
    def finished(self) -> bool:
        return self.done >= len(self.task)

    def step(self) -> None:
        """Reads the next questions."""
        part = self.task[self.done : self.done + STEP]
        scores = question_scores(self.model, part, self.neurons, progress=False)
        self._questions += scores.task.questions
        self._weighted.append(scores.weighted)
        self._p_answer.append(scores.p_answer)
        self.done += len(part)

    def top(self, key: Key, count: int) -> list[TopQuestion]:
        """The questions on which a neuron scores highest, at most one per cluster and country."""
        values = np.concatenate([part[:, self._column[key]] for part in self._weighted])
        p_answer = np.concatenate(self._p_answer)
        best: dict[tuple[str, str | None], TopQuestion] = {}
        for i in np.argsort(-values, kind="stable"):
            question = self._questions[i]
            top = TopQuestion(question, float(values[i]), float(p_answer[i]))
            best.setdefault((question.cluster, question.country), top)
        return list(best.values())[:count]


@dataclass(frozen=True)
class TokenScores:
    """One neuron's attribution along one prompt."""

    top: TopQuestion
    tokens: tuple[str, ...]
    values: Float[np.ndarray, " pos"]
    """s_i = n_i * dP/dn_i: the change of P(answer) to first order."""
    parts: tuple[Part, ...] = ()
    """Of a cloze question: where the prompt, each option and the control begin (`prompt_parts`)."""

    def rows(self) -> list[tuple[str, slice]]:
        """(part, its tokens), in order; one part without a name where there are none."""
        starts = [part for part in self.parts if part[1] < len(self.tokens)] or [("", 0)]
        ends = [start for _, start in starts[1:]] + [len(self.tokens)]
        return [(name, slice(start, end)) for (name, start), end in zip(starts, ends)]


def token_scores(model: HookedModel, questions: Sequence[TopQuestion], key: Key) -> list[TokenScores]:
    """`score_prompt` of a few questions for one neuron, in one forward and one backward pass."""
    site, layer, neuron = Site.parse(key[0]), key[1], key[2]
    asked = asked_of(model, Task("shown", tuple(top.question for top in questions)))
    asks = asking(model, asked.prompts)
    products = torch.zeros(asks.real.shape)

    def keep(_: Site, at: int, reading: Reading) -> None:
        if at == layer and (found := asks.reading(reading).products) is not None:
            products.copy_(found[:, :, neuron])

    hooks = SiteHooks(model, backward=[site])
    with hooks.installed():
        hooks.run(lambda: asks.ask().p_right.sum(), keep)
    texts = [tuple(tokenizer_of(model).convert_ids_to_tokens(list(p.counted))) for p in asked.prompts]
    return [
        TokenScores(top, text, row[len(row) - len(text) :].numpy(), prompt_parts(model, top.question))
        for top, text, row in zip(questions, texts, products)
    ]
