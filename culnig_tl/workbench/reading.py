"""The questions to which a neuron responds, and the tokens in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..data.neurons import SITES, NeuronSet, Site
from ..engine.cloze import asked_of, costs
from ..engine.hooks import Reading, SiteHooks
from ..engine.models import HookedModel, describe, sites_of, tokenizer_of
from ..engine.probe import Probe, probe_gradients, tokens_that_fit
from ..errors import ScoreError
from ..figures.prompts import Part, prompt_parts
from ..method.asking import asking
from ..tasks.question import Question, Task

Key = tuple[str, int, int]
"""(site, layer, neuron)."""
STEP, SECONDS = 50, 0.4
"""Questions read at a time, at most, and how long that may take: between two steps other requests have their
turn."""


@dataclass(frozen=True)
class TopQuestion:
    """A question on which a neuron scores high."""

    question: Question
    weighted: float
    """P(answer) times the neuron's attribution."""
    p_answer: float
    place: int = -1
    """Among the questions that are read."""


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


class Questions:
    """A task's questions as a model takes them; every reader's."""

    def __init__(self, model: HookedModel, task: Task) -> None:
        """Raises `ScoreError` where no question fits in the model's context."""
        self.model = model
        asked = asked_of(model, task)
        self.prompts, self.task = asked.prompts, asked.task

    @cached_property
    def _probe(self) -> Probe:
        shortest = min((p.tokens for p in self.prompts), key=len)
        width = max(len(p.tokens) for p in self.prompts)
        return probe_gradients(self.model, sites_of(describe(self.model), SITES), shortest, width=width)

    def batch(self, start: int, count: int) -> list[Any]:
        """Prompts from a place on: as many as are asked for, or may stand in one batch of this model."""
        if count == 1:
            return self.prompts[start : start + 1]  # nothing need be known of padding
        probe, most = self._probe, STEP
        if not probe.padding and not getattr(self.prompts[start], "one_row", False):
            most = 1
        elif probe.bytes_per_token is not None:
            tokens = max(costs(self.model, self.prompts[start : start + count]))
            most = max(1, tokens_that_fit(self.model, probe.bytes_per_token) // tokens)
        return self.prompts[start : start + min(count, most)]


class Reader:
    """Reads questions for some neurons: a few questions per step, none twice."""

    def __init__(self, questions: Questions, neurons: NeuronSet) -> None:
        """The set holds every neuron once."""
        self.questions, self.neurons = questions, neurons
        self._column = neurons.columns
        self._weighted: list[Float[np.ndarray, "question neuron"]] = []
        self._p_answer: list[Float[np.ndarray, " question"]] = []
        self._along: dict[tuple[Key, int], Float[np.ndarray, " pos"]] = {}
        """(neuron, place of the question) -> its attribution along the prompt, where it was kept."""
        self._count = 1
        self.done = 0
        """Questions read so far."""

    def __contains__(self, key: Key) -> bool:
        return key in self._column

    @property
    def task(self) -> Task:
        """All that is to be read."""
        return self.questions.task

    @property
    def finished(self) -> bool:
        return self.done >= len(self.task)

    def step(self, key: Key) -> None:
        """Reads the next questions, as many as take `SECONDS`; along them, keeps what this neuron does."""
        start = perf_counter()
        prompts = self.questions.batch(self.done, self._count)
        found = _read(self.questions.model, prompts, self.neurons, key)
        for i, along in enumerate(found.along):
            self._along[key, self.done + i] = along
        self._weighted.append(found.weighted)
        self._p_answer.append(found.p_answer)
        self.done += len(prompts)
        fitting = int(len(prompts) * SECONDS / max(perf_counter() - start, 1e-3))
        self._count = max(1, min(STEP, fitting, 4 * len(prompts)))

    def top(self, key: Key, count: int) -> list[TopQuestion]:
        """The questions on which a neuron scores highest so far, at most one per cluster and country."""
        values = np.concatenate([part[:, self._column[key]] for part in self._weighted])
        p_answer = np.concatenate(self._p_answer)
        best: dict[tuple[str, str | None], TopQuestion] = {}
        for i in np.argsort(-values, kind="stable"):
            question = self.task.questions[i]
            top = TopQuestion(question, float(values[i]), float(p_answer[i]), int(i))
            best.setdefault((question.cluster, question.country), top)
        return list(best.values())[:count]

    def seen(self, key: Key, top: TopQuestion) -> bool:
        """Whether it is known what the neuron does along this question."""
        return (key, top.place) in self._along

    def look(self, key: Key, top: TopQuestion) -> None:
        """Finds out what a neuron does along one question, which was read for another neuron's card."""
        found = _read(
            self.questions.model,
            [self.questions.prompts[top.place]],
            NeuronSet.from_indices([key]),
            key,
        )
        (self._along[key, top.place],) = found.along

    def along(self, key: Key, top: TopQuestion) -> TokenScores:
        """What a neuron does along a question that it was `seen` on."""
        return _tokens(
            self.questions.model, self.questions.prompts[top.place], top, self._along[key, top.place]
        )


def token_scores(model: HookedModel, questions: Sequence[TopQuestion], key: Key) -> list[TokenScores]:
    """`score_prompt` of a few questions for one neuron, in one forward and one backward pass."""
    prompts = asked_of(model, Task("shown", tuple(top.question for top in questions))).prompts
    found = _read(model, prompts, NeuronSet.from_indices([key]), key)
    return [_tokens(model, *each) for each in zip(prompts, questions, found.along)]


def _tokens(model: HookedModel, prompt: Any, top: TopQuestion, along: np.ndarray) -> TokenScores:
    texts = tuple(tokenizer_of(model).convert_ids_to_tokens(list(prompt.counted)))
    return TokenScores(top, texts, along, prompt_parts(model, top.question))


@dataclass(frozen=True)
class _Found:
    """What one batch of questions says."""

    weighted: Float[np.ndarray, "question neuron"]
    p_answer: Float[np.ndarray, " question"]
    along: list[np.ndarray]
    """Of one of the neurons: of every question, s_i [pos]."""


def _read(model: HookedModel, prompts: Sequence[Any], neurons: NeuronSet, key: Key) -> _Found:
    """A forward and a backward pass: the terms of `question_scores`, without what prepares a long pass.

    Raises `ScoreError` where something is NaN.
    """
    asks, column = asking(model, prompts), neurons.columns
    best = torch.zeros(len(prompts), len(neurons))
    tracks = torch.zeros(asks.real.shape)
    p_answer = torch.zeros(len(prompts))

    def objective() -> Float[Tensor, ""]:
        p_right = asks.ask().p_right
        p_answer.copy_(p_right.detach())
        return p_right.sum()

    def keep(site: Site, layer: int, reading: Reading) -> None:
        index = neurons.indices.get((site, layer))
        if index is None:
            return
        found = asks.reading(reading).products
        assert found is not None
        few = found[:, :, torch.from_numpy(index).to(found.device)]
        columns = torch.tensor([column[site.value, layer, int(n)] for n in index])
        best[:, columns] = few.masked_fill(~asks.real.to(few.device)[:, :, None], -torch.inf).amax(1).cpu()
        if (site.value, layer) == key[:2]:
            tracks.copy_(found[:, :, key[2]])

    hooks = SiteHooks(model, backward=sites_of(describe(model), {site for site, _ in neurons.indices}))
    with hooks.installed():
        hooks.run(objective, keep)
    weighted = p_answer[:, None] * best
    if not weighted.isfinite().all():
        raise ScoreError(f"what the model says of its questions is NaN in {describe(model).dtype}")
    lengths = [len(prompt.counted) for prompt in prompts]
    along = [row[len(row) - length :].numpy() for row, length in zip(tracks, lengths)]
    return _Found(weighted.numpy(), p_answer.numpy(), along)
