"""A close look: one prompt token by token (`score_prompt`), or chosen neurons question by question
(`question_scores`).

Keeping every neuron's score on every question is impossible (57 GB per million neurons on BLEnD):
`score_neurons` sums, and `question_scores` is a second pass that looks at a few. Neuron cards, token tables
and the workbench are made of these.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.neurons import SITES, NeuronSet, Site
from ..engine.checkpoint import Checkpoint
from ..engine.cloze import asked_of
from ..engine.hooks import HookPlace, Reading, SiteHooks
from ..engine.models import HookedModel, describe, sites_of, tokenizer_of
from ..engine.run import Batch, State, Step, Work, run_pass
from ..engine.world import world
from ..errors import ScoreError
from ..progress import Advance
from ..tasks.question import Question, Task
from .asking import asking


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
) -> PromptScores:
    """Scores one prompt, token by token: the first look at what a neuron does.

    Args:
        prompt: what the user says (the chat template is applied), or a `Question`. Of a cloze question the
            tokens are the prompt's, then each option's, then those of the control and each option where there
            is a prior.
        answer: the answer whose probability is explained; one token. A question brings its own.

    Raises:
        ScoreError: a text without an answer. PromptError: an answer that is not one token.
    """
    if isinstance(prompt, str):
        if answer is None:
            raise ScoreError('score_prompt(model, "a text", answer="B"): the answer is missing')
        prompt = Question("prompt", "prompt", "prompt", prompt, (answer,), answer)
    info, tokenizer = describe(model), tokenizer_of(model)
    (encoded,) = asked_of(model, Task("prompt", (prompt,))).prompts
    asked = asking(model, [encoded])
    products: dict[HookPlace, Tensor] = {}
    probabilities = torch.zeros(0)

    def objective() -> Tensor:
        nonlocal probabilities
        said = asked.ask()
        probabilities = said.p.detach()[0].cpu()
        return said.p_right.sum()

    def keep(site: Site, layer: int, reading: Reading) -> None:
        found = asked.reading(reading).products
        assert found is not None
        products[site, layer] = found[asked.real.to(found.device)].cpu()

    hooks = SiteHooks(model, backward=sites_of(info, sites))
    with hooks.installed():
        hooks.run(objective, keep)
    best = probabilities.topk(min(10, len(probabilities)))
    cloze = prompt.form == "cloze"
    named = (lambda i: prompt.texts[i]) if cloze else (lambda i: tokenizer.decode([i]))
    stacked = {
        site: info.table(site, {layer: products[site, layer] for layer in info.layers_with(site)})
        for site in hooks.sites
    }
    return PromptScores(
        arrays={site: stacked[site].movedim(-2, 0).contiguous().numpy() for site in hooks.sites},
        tokens=tuple(tokenizer.convert_ids_to_tokens(list(encoded.counted))),
        answer=prompt.texts[encoded.right] if cloze else prompt.answer,
        p_answer=float(probabilities[encoded.right if cloze else encoded.answer_token]),
        top_tokens=tuple((named(int(i)), float(p)) for p, i in zip(best.values, best.indices)),
    )


@dataclass(frozen=True)
class BestQuestions:
    """The questions on which each neuron scores highest, best first, with its attribution at every token."""

    questions: Int[np.ndarray, "neuron place"]
    """Positions in the task; −1 where there are fewer questions than places."""
    along: Float[np.ndarray, "neuron place slot"]
    """s_i = n_i * dP/dn_i, the last token in the last slot."""

    def track(self, neuron: int, place: int, tokens: int) -> Float[np.ndarray, " token"]:
        """s_i at each of so many tokens of a prompt."""
        return self.along[neuron, place, self.along.shape[2] - tokens :]


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
    best: BestQuestions | None = None
    """Where `question_scores` was asked to keep them."""

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
    keep: int = 0,
    batch_size: int | str | Sequence[int] = "auto",
    progress: bool | Advance = True,
    checkpoint: str | Path | Checkpoint | None = None,
    resume: bool = False,
) -> QuestionScores:
    """Scores chosen neurons question by question, in a second pass: `[question, neuron]`, and where in the
    prompt the max sat.

    Args:
        neurons: the set; its rows are the columns of the result. Every neuron once.
        keep: keep the attribution at every token of so many questions per neuron, those with the highest
            P(answer) times score, as the result's `best`.
        checkpoint, resume: as in `score_neurons`.

    Questions that do not fit in the model's context are left out, of the result's `task` too.

    Raises:
        ScoreError: an empty task or set, a country-specific set with a neuron twice, a site that the model
            lacks, NaN, `keep` among several processes.
    """
    if not len(neurons) or len(neurons.keys()) < len(neurons):
        raise ScoreError(
            "question_scores takes a set in which each neuron occurs once: choose one country's with"
            " for_country()"
        )
    if keep and world().size > 1:
        raise ScoreError("question_scores(keep=...) runs in one process: the best are of all questions")
    asked = asked_of(model, task)
    hooks = SiteHooks(model, backward=sites_of(describe(model), {site for site, _ in neurons.indices}))
    shape = (len(asked.prompts), len(neurons))
    state: State = {
        "scores": torch.zeros(shape),
        "tokens": torch.zeros(shape, dtype=torch.int64),
        "p_answer": torch.zeros(len(asked.prompts)),
    }
    if keep:
        slots = max(len(prompt.counted) for prompt in asked.prompts)
        state |= {
            "best": torch.full((len(neurons), keep), -torch.inf),
            "best questions": torch.full((len(neurons), keep), -1),
            "along": torch.zeros(len(neurons), keep, slots),
        }

    run_pass(
        model,
        asked.whole,
        asked.prompts,
        _reading(model, neurons, hooks, keep=keep > 0),
        state,
        hooks=hooks,
        batch_size=batch_size,
        progress=progress,
        checkpoint=Checkpoint.of(checkpoint, resume=resume),
        work=Work(neurons, settings={"keep": keep} if keep else {}),
        verb="look at",
    )
    tokens = [prompt.counted for prompt in asked.prompts]
    texts = tuple(tuple(tokenizer_of(model).convert_ids_to_tokens(list(row))) for row in tokens)
    found = {name: tensor.numpy() for name, tensor in state.items()}
    best = BestQuestions(found["best questions"], found["along"]) if keep else None
    return QuestionScores(
        found["scores"], found["tokens"], found["p_answer"], asked.task, neurons, texts, best
    )


def _reading(model: HookedModel, neurons: NeuronSet, hooks: SiteHooks, *, keep: bool) -> Step:
    """The step of `question_scores`, which fills in its state."""
    column = neurons.columns

    def step(batch: Batch, state: State) -> None:
        rows = torch.tensor(batch.index)[:, None]
        asks = asking(model, batch.prompts, batch.tokens, batch.mask)
        padding = asks.real.shape[1] - torch.tensor([len(p.counted) for p in batch.prompts])

        def objective() -> Float[Tensor, ""]:
            p_right = asks.ask().p_right
            state["p_answer"][batch.index] = p_right.detach().float().cpu()
            return p_right.sum()

        def receive(site: Site, layer: int, reading: Reading) -> None:
            if (site, layer) not in neurons.indices or (site, layer) in batch.done:
                return
            products = asks.reading(reading).products
            assert products is not None
            index = torch.from_numpy(neurons.indices[site, layer])
            few = products[:, :, index.to(products.device)]
            best = few.masked_fill_(~asks.real.to(few.device)[:, :, None], -torch.inf).max(1)
            columns = torch.tensor([column[site.value, layer, int(n)] for n in index])
            state["scores"][rows, columns] = best.values.float().cpu()
            state["tokens"][rows, columns] = best.indices.cpu() - padding[:, None]
            batch.watch(best.values.sum(1))
            if keep:
                _keep_best(state, batch.index, columns, few.float().cpu())
            batch.done.add((site, layer))

        hooks.run(objective, receive)

    return step


def _keep_best(
    state: State, index: Sequence[int], columns: Tensor, few: Float[Tensor, "question slot neuron"]
) -> None:
    """Takes in a batch: of each of these columns' neurons, the best questions so far and those of the batch
    are held against each other."""
    questions, places = torch.tensor(index), state["best"].shape[1]
    weighted = state["p_answer"][questions, None] * state["scores"][questions[:, None], columns]
    values = torch.cat([state["best"][columns], weighted.T], 1)
    names = torch.cat([state["best questions"][columns], questions.expand(len(columns), -1)], 1)
    slots = state["along"].shape[2]
    new = torch.zeros(len(columns), len(index), slots)
    new[:, :, slots - few.shape[1] :] = few.permute(2, 0, 1)
    along = torch.cat([state["along"][columns], new], 1)
    order = values.sort(dim=1, descending=True, stable=True).indices[:, :places]
    state["best"][columns], state["best questions"][columns] = values.gather(1, order), names.gather(1, order)
    state["along"][columns] = along.gather(1, order[:, :, None].expand(-1, -1, slots))
