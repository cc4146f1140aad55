"""The cloze form: how likely the right option's words are among the options', and which neurons make them so.

For a question x with option texts y_1 .. y_k:

    LL_o      = sum of the log-probabilities of y_o's tokens after the prompt
    P(y|x)    = softmax over the options of (LL_o - prior_o), at the right option
    prior_o   = 0                              normalise="sum"
                LL_o of y_o after "Answer:"    normalise="unconditional", the default
    normalise="length" takes LL_o / characters of y_o instead of the difference

    s_i(x, y) = n_i * dP(y|x)/dn_i             i: the prompt's tokens, which all options share and which count
                                                  once (summed over the options' copies), each option's own
                                                  tokens, and those of "Answer: y_o" where there is a prior
    s, S_c    as in `score`, with this P

The gradient goes through the prior too. A control question has no prior: it would be compared with itself.
Plain P over options as lm-evaluation-harness scores them (its acc and acc_norm are "sum" and "length").
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..data.neurons import Site
from ..engine.cloze import ClozePrompt, costs, log_likelihoods, sum_of_texts
from ..engine.hooks import Reading, Receive, SiteHooks
from ..engine.models import HookedModel, device_of, tokenizer_of
from ..engine.prompts import TOKENS_PER_BATCH, pad_rows
from ..engine.run import Batch, State, run_pass, running_sum
from ..errors import ScoreError
from .methods.base import Job, Method, Seen
from .methods.registry import METHODS
from .passes import Found, found_by, key_of, readers, sites_read

Normalise = Literal["unconditional", "sum", "length"]
NORMALISATIONS: tuple[str, ...] = get_args(Normalise)


def check_normalise(normalise: str) -> None:
    """Raises `ScoreError` for a normalisation that there is not."""
    if normalise not in NORMALISATIONS:
        raise ScoreError(f"unknown normalise {normalise!r}: use {', '.join(NORMALISATIONS)}")


def likelihoods(
    logits: Float[Tensor, "row tail vocab"], tokens: Int[Tensor, "row pos"], prompts: Sequence[ClozePrompt]
) -> Float[Tensor, "question option"]:
    """LL of every option; -inf where a question has fewer than others."""
    return by_question(sum_of_texts(logits, tokens, [len(t) for p in prompts for t in p.texts]), prompts)


def by_question(
    values: Float[Tensor, " row"], prompts: Sequence[ClozePrompt], filler: float = -torch.inf
) -> Float[Tensor, "question option"]:
    """One row per question of what is known of each option."""
    counts = [len(p.texts) for p in prompts]
    return torch.nn.utils.rnn.pad_sequence(list(values.split(counts)), batch_first=True, padding_value=filler)


@torch.no_grad()
def priors(model: HookedModel, prompts: Sequence[ClozePrompt]) -> Float[Tensor, "question option"]:
    """LL of every option after the control alone, 0 where a question has no control; each text is run
    once."""
    rows = {row: text for p in prompts for row, text in zip(p.bare_rows, p.bare_texts)}
    if not rows:
        widest = max(len(p.texts) for p in prompts)
        return torch.zeros(len(prompts), widest, device=device_of(model))
    found = dict(zip(rows, log_likelihoods(model, list(rows), list(rows.values())).tolist()))
    values = torch.tensor([found[row] for p in prompts for row in p.bare_rows], device=device_of(model))
    return by_question(values, prompts, 0.0)


def probabilities(
    ll: Float[Tensor, "question option"],
    prior: Float[Tensor, "question option"],
    prompts: Sequence[ClozePrompt],
    normalise: str,
) -> Float[Tensor, "question option"]:
    """P of every option."""
    if normalise == "unconditional":
        return (ll - prior).softmax(-1)
    if normalise == "length":
        lengths = torch.tensor([float(len(t)) for p in prompts for t in p.question.texts], device=ll.device)
        return (ll / by_question(lengths, prompts, 1.0)).softmax(-1)
    return ll.softmax(-1)


@dataclass(frozen=True)
class Slots:
    """Where in a question each token of its options' rows counts: the shared prompt once, texts as they
    are."""

    index: Int[Tensor, " cell"]
    """Place of every (row, position) among (question, slot); padding has a last slot of its own."""
    real: Bool[Tensor, "question slot"]

    @classmethod
    def of(
        cls, prompts: Sequence[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]]], width: int, device: Any
    ) -> Slots:
        """Of rows padded on the left to `width`; a prompt is (tokens that are shared, texts)."""
        most = max(len(shared) + sum(map(len, texts)) for shared, texts in prompts)
        cells, real = [], torch.zeros(len(prompts), most, dtype=torch.bool)
        for number, (shared, texts) in enumerate(prompts):
            first, base = len(shared), number * (most + 1)
            for text in texts:
                row = [*range(len(shared)), *range(first, first + len(text))]
                cells += [base + slot for slot in [most] * (width - len(row)) + row]
                first += len(text)
            real[number, :first] = True
        return cls(torch.tensor(cells, device=device), real.to(device))

    def add(self, values: Float[Tensor, "row pos neuron"]) -> Float[Tensor, "question slot neuron"]:
        """The sum over the copies of each slot."""
        return (
            self._into(values)
            .index_add_(0, self._at(values), values.flatten(0, 1))
            .view(*self._shape(values))[:, :-1]
        )

    def copy(self, values: Float[Tensor, "row pos neuron"]) -> Float[Tensor, "question slot neuron"]:
        """One copy of each slot: copies of the prompt have the same activations."""
        return (
            self._into(values)
            .index_copy_(0, self._at(values), values.flatten(0, 1))
            .view(*self._shape(values))[:, :-1]
        )

    def _at(self, values: Tensor) -> Tensor:
        return self.index.to(values.device)

    def _shape(self, values: Tensor) -> tuple[int, int, int]:
        return len(self.real), self.real.shape[1] + 1, values.shape[2]

    def _into(self, values: Tensor) -> Tensor:
        questions, slots, width = self._shape(values)
        return values.new_zeros(questions * slots, width)


See = Callable[[Float[Tensor, "question option"]], None]
"""Called with P of every option, once the forward pass is done."""
ReceiveSlots = Callable[[Site, int, Reading, Slots, bool], None]
"""Called with (site, layer, reading, slots, last): the reading's tokens are a question's slots; `last` says
that no further pass over the same questions follows."""


def run_cloze(
    hooks: SiteHooks,
    prompts: Sequence[ClozePrompt],
    tokens: Int[Tensor, "row pos"],
    mask: Int[Tensor, "row pos"],
    normalise: str,
    see: See,
    receive: ReceiveSlots,
) -> None:
    """One pass over the options' rows and, where there is a prior that gradients go through, one over their
    words.

    The derivative of P(y|x) by each prior is known once the first pass has gone forward: it weighs the
    second.
    """
    model, device = hooks.model, tokens.device
    with_prior = normalise == "unconditional"
    most = max(len(p.texts) for p in prompts)
    prior = priors(model, prompts) if with_prior else torch.zeros(len(prompts), most, device=device)
    right = torch.tensor([p.right for p in prompts], device=device)
    second = with_prior and bool(hooks.backward) and all(p.bare_texts for p in prompts)
    by_prior = prior

    def objective(logits: Float[Tensor, "row tail vocab"]) -> Float[Tensor, ""]:
        nonlocal by_prior
        ll = likelihoods(logits, tokens, prompts).to(device)
        p = probabilities(ll, prior.to(ll), prompts, normalise)
        of_right = p.gather(1, right[:, None])
        see(p.detach())
        by_prior = (of_right * (p - torch.nn.functional.one_hot(right, p.shape[1]).to(p))).detach()
        return of_right.sum()

    tail = 1 + max(len(text) for p in prompts for text in p.texts)
    slots = Slots.of([(p.context, p.texts) for p in prompts], tokens.shape[1], device)
    hooks.run(tokens, mask, objective, _by_slot(slots, receive, last=not second), tail=tail)
    if not second:
        return
    bare, bare_mask = pad_rows([row for p in prompts for row in p.bare_rows], tokenizer_of(model), device)
    lengths = [len(text) for p in prompts for text in p.bare_texts]

    def of_prior(logits: Float[Tensor, "row tail vocab"]) -> Float[Tensor, ""]:
        ll = by_question(sum_of_texts(logits, bare, lengths), prompts, 0.0).to(device)
        return (by_prior * ll).sum()

    slots = Slots.of([(p.bare, p.bare_texts) for p in prompts], bare.shape[1], device)
    hooks.run(bare, bare_mask, of_prior, _by_slot(slots, receive, last=True), tail=1 + max(lengths))


def _by_slot(slots: Slots, receive: ReceiveSlots, *, last: bool) -> Receive:
    def on(site: Site, layer: int, reading: Reading) -> None:
        if reading.products is not None:
            receive(site, layer, Reading(products=slots.add(reading.products)), slots, last)
        elif reading.activation is not None:
            receive(site, layer, Reading(activation=slots.copy(reading.activation)), slots, last)

    return on


def cloze_pass(
    job: Job, names: Sequence[str], *, normalise: str = "unconditional", **how: Any
) -> dict[str, Found]:
    """Scores cloze questions by methods that read one pass: `passes.shared_pass` with slots in the place of
    tokens."""
    methods = [METHODS[name]() for name in names]
    places = {method.name: readers(method, job.sites) for method in methods}
    hooks = SiteHooks(
        job.model,
        forward=sites_read(places, [m for m in methods if not m.gradient]),
        backward=sites_read(places, [m for m in methods if m.gradient]),
    )
    dtype = torch.float64 if job.info.dtype == "float64" else torch.float32
    device, count = device_of(job.model), len(job.prompts)
    state: State = {
        name: torch.zeros(count, dtype=dtype, device=device) for name in ("p_answer", "right_most")
    }

    def step(batch: Batch, state: State) -> None:
        rows = job.rows[:, batch.index].to(device, dtype)  # [row, question]
        right = torch.tensor([p.right for p in batch.prompts], device=device)
        weighted = rows
        so_far: dict[str, tuple[Tensor, Tensor]] = {}  # key -> s over the first pass's slots, their number

        def see(p: Float[Tensor, "question option"]) -> None:
            nonlocal weighted
            p_answer = p.gather(1, right[:, None]).squeeze(1).to(dtype)
            state["p_answer"][batch.at] = p_answer
            state["right_most"][batch.at] = (p.argmax(-1) == right).to(dtype)
            batch.watch(p_answer)
            weighted = rows * p_answer  # P(y|x), the weight of the question

        def receive(read: Site, layer: int, reading: Reading, slots: Slots, last: bool) -> None:
            backward = reading.products is not None
            for method in methods:
                for site in places[method.name].get(read, ()) if method.gradient == backward else ():
                    key = key_of(method.name, site, layer)
                    if key in batch.done:
                        continue
                    values = reading.products if backward else reading.activation
                    assert values is not None
                    real = slots.real.to(values.device)
                    seen = Seen(real, bool(real.all()), state["p_answer"][batch.at], False, **vars(reading))
                    s = method.term(seen)  # s(x, y): [question, neuron]
                    if backward and not last:
                        so_far[key] = (s, real.sum(1))
                        continue
                    if key in so_far:
                        s = _joined(method, *so_far.pop(key), s, real.sum(1))
                    s = s.clamp(min=0) if method.weighted and job.task.is_control else s
                    batch.watch(s.sum(-1))
                    weights = (weighted if method.weighted else rows).to(s.device, s.dtype)
                    running_sum(state, key, [len(rows), s.shape[1]], s, s.dtype).addmm_(weights, s)
                    batch.done.add(key)

        run_cloze(hooks, batch.prompts, batch.tokens, batch.mask, normalise, see, receive)

    lengths = costs(job.model, job.prompts, TOKENS_PER_BATCH[device.type])
    ran = run_pass(
        job.model, job.whole, job.prompts, step, state, hooks=hooks, lengths=lengths, verb="score", **how
    )
    about = {"normalise": normalise, "accuracy": float(state["right_most"].mean())}
    return {m.name: found_by(m, job, state, places, dtype, ran, about) for m in methods}


def _joined(method: Method, s: Tensor, count: Tensor, other: Tensor, more: Tensor) -> Tensor:
    """s over the slots of both passes."""
    how = getattr(method, "how", "sum")
    if how == "max":
        return torch.maximum(s, other)
    if how == "sum":
        return s + other
    count, more = (n.to(s)[:, None] for n in (count, more))
    return (count * s + more * other) / (count + more)
