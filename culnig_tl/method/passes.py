"""The passes of scoring: methods that read the same thing share one, and every pass sums its methods' terms
by country.

`shared_pass` is the method of the paper in one screen: `methods.culnig` gives s(x, y) from activation times
gradient, and

    S_c(D) = sum over the questions q of country c in D of P(y_q|x_q) * s(x_q, y_q)

is one matrix product per batch, site and layer, made inside the backward pass, so that no gradient outlives
its layer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..data.neurons import Site
from ..engine.checkpoint import Checkpoint
from ..engine.hooks import HookPlace, Reading, SiteHooks
from ..engine.models import device_of, hook_name, last_logits, tokenizer_of
from ..engine.probe import Probe
from ..engine.prompts import pad
from ..engine.run import Batch, Ran, State, run_pass, running_sum
from .asking import asking
from .methods.alignment import Alignment
from .methods.base import DerivedMethod, Job, Language, Method, OwnMethod, Seen, Totals
from .methods.registry import METHODS

log = logging.getLogger(__name__)

LOW_P = 0.05
"""A mean P of all labels together under this is worth a warning: the prompt does not lead to a label."""


@dataclass
class Found:
    """What a method has found, and how."""

    totals: Totals
    p_answer: Float[Tensor, " question"]
    ran: Ran | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


def shared_pass(job: Job, names: Sequence[str], **how: Any) -> dict[str, Found]:
    """Methods that read one pass: a forward pass, a backward pass where one reads gradients, and a forward
    pass of the control prompts where one compares with them (the rows of cloze questions hold theirs). Sums
    are kept on the activation's device."""
    methods = [METHODS[name]() for name in names]
    places = {method.name: readers(method, job.sites) for method in methods}
    letters = job.task.form == "letters"
    hooks = SiteHooks(
        job.model,
        forward=sites_read(places, [m for m in methods if not m.gradient or (m.corrupted and not letters)]),
        backward=sites_read(places, [m for m in methods if m.gradient]),
        slopes=sites_read(places, [m for m in methods if m.gradient and m.corrupted]),
    )
    comparing = sites_read(places, [m for m in methods if m.corrupted])
    dtype = torch.float64 if job.info.dtype == "float64" else torch.float32
    device, count = device_of(job.model), len(job.prompts)
    of_question = ("p_answer", "right_most", *(["p_labels"] if letters else []))
    state: State = {name: torch.zeros(count, dtype=dtype, device=device) for name in of_question}

    def step(batch: Batch, state: State) -> None:
        rows = job.rows[:, batch.index].to(device, dtype)  # [row, batch]
        weighted = rows
        asked = asking(job.model, batch.prompts, batch.tokens, batch.mask)
        alignment, corrupted = _corrupted(job, batch, comparing)
        p_answer = torch.zeros(len(batch.index), device=device, dtype=dtype)

        def objective() -> Float[Tensor, ""]:
            nonlocal weighted, p_answer
            said = asked.ask()
            p_answer = said.p_right.detach()
            state["p_answer"][batch.at] = p_answer.to(dtype)
            state["right_most"][batch.at] = (said.compared.argmax(-1) == said.right).to(dtype)
            if letters:
                state["p_labels"][batch.at] = _of_all_labels(batch, said.p.detach()).to(dtype)
            batch.watch(p_answer)
            weighted = rows * p_answer  # P(y|x), the weight of the question
            return said.p_right.sum()

        def receive(read: Site, layer: int, reading: Reading) -> None:
            backward = reading.products is not None
            last = backward or read not in hooks.slopes
            reading = asked.reading(reading)
            if not letters and not backward and read in comparing:
                assert reading.activation is not None
                corrupted[read, layer] = reading.activation
            other = corrupted.pop((read, layer), None) if last else corrupted.get((read, layer))
            real, even = (asked.real, batch.even) if backward else (asked.clean, False)
            seen = Seen(real, even and asked.whole, p_answer, job.task.is_control, **vars(reading))
            seen.corrupted, seen.alignment = other, alignment
            for method in methods:
                for site in places[method.name].get(read, ()) if method.gradient == backward else ():
                    key = key_of(method.name, site, layer)
                    if key in batch.done:
                        continue
                    s = method.term(seen)  # s(x, y): [batch, neuron]
                    batch.watch(s.sum(-1))
                    weights = (weighted if method.weighted else rows).to(s.device, s.dtype)
                    total = running_sum(state, key, [len(rows), s.shape[1]], s, s.dtype)
                    total.addmm_(weights, s)  # S_c += sum over the batch's questions of P * s
                    batch.done.add(key)

        hooks.run(objective, receive)

    ran = run_pass(job.model, job.whole, job.prompts, step, state, hooks=hooks, verb="score", **how)
    about: dict[str, Any] = {"accuracy": float(state["right_most"].mean())}
    how_asked = {"normalise": job.task.normalise, "chat_template": job.task.chat_template}
    about |= _of_labels(job, state) if letters else how_asked
    return {m.name: found_by(m, job, state, places, dtype, ran, about) for m in methods}


def found_by(
    method: Method,
    job: Job,
    state: State,
    places: Mapping[str, Mapping[Site, Sequence[Site]]],
    dtype: torch.dtype,
    ran: Ran,
    about: Mapping[str, Any],
) -> Found:
    """What a method has found, from the sums of its pass."""
    read = {site for group in places[method.name].values() for site in group}
    sites = [site for site in job.sites if site in read]
    totals = {site: stacked(job, state, method.name, site).to(dtype).cpu() for site in sites}
    return Found(finished(method, totals, job), state["p_answer"].cpu(), ran, about)


def prompt_pass(job: Job, names: Sequence[str], **how: Any) -> dict[str, Found]:
    """Methods of one family that run each prompt in their own way."""
    methods: list[Any] = [METHODS[name]() for name in names]
    scorer = methods[0].prepare(job, methods)
    dtype = torch.float64 if job.info.dtype == "float64" else torch.float32
    device = device_of(job.model)
    state: State = {"p_answer": torch.zeros(len(job.prompts), dtype=torch.float64)}

    def step(batch: Batch, state: State) -> None:
        (at,) = batch.index
        values, state["p_answer"][at] = scorer.score(at)
        for name, by_place in values.items():
            for (site, layer), value in by_place.items():
                batch.watch(value.sum()[None])
                shape = [len(job.rows), job.info.width(site, layer)]
                total = running_sum(
                    state, key_of(name, site, layer), shape, torch.empty(0, device=device), dtype
                )
                for row in job.rows[:, at].nonzero().flatten().tolist():
                    total[row] += float(job.rows[row, at]) * value

    how["batch_size"] = 1
    one_by_one = Probe(native=False, padding=True)
    ran = run_pass(
        job.model, job.whole, job.prompts, step, state, probe=lambda _: one_by_one, verb="score", **how
    )
    found = {}
    for name in names:
        totals = {site: stacked(job, state, name, site).float().cpu() for site in scorer.sites}
        found[name] = Found(totals, state["p_answer"].cpu(), ran)
    return found


def _corrupted(
    job: Job, batch: Batch, sites: Sequence[Site]
) -> tuple[Alignment | None, dict[HookPlace, Float[Tensor, "batch corrupted neuron"]]]:
    """Where the control prompts' positions lie, and the activations on them; of cloze questions, the places
    in their own rows."""
    kept: dict[HookPlace, Tensor] = {}
    device = device_of(job.model)
    if not sites:
        return None, kept
    if job.corrupted is None:
        return Alignment.within([prompt.parts for prompt in batch.prompts], device), kept
    others = [job.corrupted[i] for i in batch.index]

    def keep(place: HookPlace) -> Callable[..., None]:
        def hook(activation: Tensor, hook: Any) -> None:
            kept[place] = activation.detach().flatten(2)

        return hook

    places = [(site, layer) for site in sites for layer in job.info.layers_with(site)]
    fwd_hooks = [(hook_name(job.model, *place), keep(place)) for place in places]
    with torch.no_grad(), job.model.hooks(fwd_hooks=fwd_hooks):
        last_logits(job.model, *pad(others, tokenizer_of(job.model), device))
    return Alignment.of(batch.prompts, others, device), kept


# ----------------------------------------------------------------------------------- which method, which pass


def needed(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """The methods that are run on the task, and those that are run on the language task, for these."""
    here: dict[str, None] = {}
    theirs: dict[str, None] = {}
    for kind in (METHODS[name] for name in names):
        here |= dict.fromkeys(kind.builds_on)
        if issubclass(kind, DerivedMethod):
            theirs |= dict.fromkeys(kind.builds_on_language)
        else:
            here[kind.name] = None
    return list(here), list(theirs)


def groups(names: Sequence[str]) -> dict[str, list[str]]:
    """Methods by what they share: "" for the one pass, or the family."""
    groups: dict[str, list[str]] = {}
    for name in names:
        kind = METHODS[name]
        groups.setdefault(kind.family if issubclass(kind, OwnMethod) else "", []).append(name)
    return groups


def run_groups(
    job: Job, names: Sequence[str], *, checkpoint: Checkpoint | None, **how: Any
) -> dict[str, Found]:
    """All of these methods; each group in a pass, and a checkpoint, of its own."""
    found: dict[str, Found] = {}
    for family, group in groups(names).items():
        kept = checkpoint if checkpoint is None or not family else checkpoint.beneath(family)
        run = prompt_pass if family else shared_pass
        found |= run(job, group, checkpoint=kept, **how)
    for name in names:
        for other in METHODS[name].builds_on:
            found[name] = replace(found[name], totals={**found[other].totals, **found[name].totals})
    return found


def on_language(job: Job, names: Sequence[str], *, checkpoint: Checkpoint | None, **how: Any) -> Language:
    """What these methods find on the language task, with a checkpoint beneath that of the task itself."""
    below = None if checkpoint is None else checkpoint.beneath("language")
    found = run_groups(job, names, checkpoint=below, **how)
    return Language(job.countries, {name: found[name].totals for name in names})


def derived(name: str, job: Job, found: Mapping[str, Found], language: Language | None) -> Found:
    """A method that is made from others' scores, or from nothing."""
    method = METHODS[name]()
    assert isinstance(method, DerivedMethod)
    first = next((found[other] for other in method.builds_on), next(iter(found.values()), None))
    p_answer = torch.full((len(job.prompts),), torch.nan) if first is None else first.p_answer
    totals = [
        method.derive(
            replace(job, rows=rows),
            {other: _block(found[other].totals, b, len(rows)) for other in method.builds_on},
            language,
        )
        for b, rows in enumerate(job.rows.split(len(job.countries)))
    ]
    return Found({site: torch.cat([part[site] for part in totals]) for site in totals[0]}, p_answer)


def finished(method: Method, totals: Totals, job: Job) -> Totals:
    """The method's scores from its sums: of all questions, and of each replicate."""
    parts = [
        method.finish(_block(totals, b, len(rows)), replace(job, rows=rows))
        for b, rows in enumerate(job.rows.split(len(job.countries)))
    ]
    return {site: torch.cat([part[site] for part in parts]) for site in parts[0]}


def _block(totals: Totals, number: int, size: int) -> dict[Site, Float[Tensor, "some layer neuron"]]:
    """The rows of all questions (0), or of a replicate."""
    return {site: table[number * size : (number + 1) * size] for site, table in totals.items()}


def readers(method: Method, sites: Sequence[Site]) -> dict[Site, tuple[Site, ...]]:
    """Site that is read -> sites whose neurons it gives."""
    read: dict[Site, tuple[Site, ...]] = {}
    for site in sites:
        if (hooked := method.reads(site)) is not None:
            read[hooked] = (*read.get(hooked, ()), site)
    return read


def sites_read(places: Mapping[str, Mapping[Site, Any]], methods: Sequence[Method]) -> tuple[Site, ...]:
    """The sites that these methods read."""
    wanted = {site for method in methods for site in places[method.name]}
    return tuple(site for site in Site if site in wanted)


def key_of(method: str, site: Site, layer: int) -> str:
    return f"{method} {site} {layer}"


def stacked(job: Job, state: State, method: str, site: Site) -> Float[Tensor, "row layer neuron"]:
    """A site's sums in one table; 0 where a layer has no such neuron."""
    layers = {layer: state[key_of(method, site, layer)].cpu() for layer in job.info.layers_with(site)}
    return job.info.table(site, layers)


def _of_labels(job: Job, state: State) -> dict[str, Any]:
    """What the pass says of the labels; one that hardly leads to a label is a loud warning."""
    p_labels = float(state["p_labels"].mean())
    if p_labels < LOW_P:
        log.warning(
            "task %s: the labels together get a probability of only %.4f; the first prompt ends in %r",
            job.task.name,
            p_labels,
            tokenizer_of(job.model).decode(job.prompts[0].tokens[-20:]),
        )
    split = {
        label for prompt in job.prompts for label in prompt.two_token_labels
    }  # scored by their first token
    return {
        "p_labels": p_labels,
        "two_token_labels": sorted(split),
    }


def _of_all_labels(batch: Batch, p: Float[Tensor, "batch vocab"]) -> Float[Tensor, " batch"]:
    """The probability of all labels together."""
    rows = [list(dict.fromkeys([*prompt.option_tokens, prompt.answer_token])) for prompt in batch.prompts]
    width = max(map(len, rows))
    labels = torch.tensor([row + [-1] * (width - len(row)) for row in rows], device=p.device)
    return (p.gather(1, labels.clamp(min=0)) * (labels >= 0)).sum(1)
