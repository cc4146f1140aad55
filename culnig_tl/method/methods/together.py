"""Runs methods: all that read one pass share it; those with passes of their own follow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from ...data.neurons import Site
from ...engine.models import device_of, frozen, hook_name, last_logits, tokenizer_of
from ...engine.prompts import pad, plan_batches
from ...engine.run import Place, each_batch, gradients, probe, tokens_that_fit
from ...engine.workarounds import native_attention
from ...errors import ScoreError
from .alignment import Alignment
from .base import Batch, Job, Method, OwnMethod, Seen, Totals
from .registry import METHODS

log = logging.getLogger(__name__)


def run_shared(job: Job, names: Sequence[str]) -> dict[str, Totals]:
    """Methods that read one pass, in one pass over the questions.

    A batch takes one forward pass; one backward pass where a method reads gradients; and one forward pass of the control
    prompts where a method compares with them. Sums are kept on the activation's device.
    """
    methods = [METHODS[name]() for name in names]
    if not methods:
        return {}
    backward = [m for m in methods if m.gradient]
    forward = [m for m in methods if not m.gradient]
    model, device, tokenizer = job.model, device_of(job.model), tokenizer_of(job.model)
    readers = {
        m.name: {read: site for site in job.sites if (read := m.reads(site)) is not None} for m in methods
    }
    hooked = {kind: _sites(readers, [m for m in methods if keep(m)]) for kind, keep in _KINDS.items()}
    lengths = [len(p.tokens) for p in job.prompts]
    tried = probe(model, hooked["any"], min(job.prompts, key=lambda p: len(p.tokens)).tokens)
    plan = plan_batches(
        lengths,
        job.batch_size,
        device,
        most_tokens=tokens_that_fit(model, tried.bytes_a_token),
        padding=tried.padding,
    )
    control = job.task.name.endswith(":control")
    number = torch.float64 if job.info.dtype == "float64" else torch.float32
    sums: dict[tuple[str, Site, int], Tensor] = {}
    done: set[Any] = set()
    batch: Batch | None = None
    share = torch.zeros(0, 0)
    corrupted: dict[Place, Tensor] = {}
    slopes: dict[Place, Tensor] = {}

    def add(method: Method, place: Place, seen: Seen) -> None:
        site = readers[method.name].get(place[0])
        if (
            site is None or (method.name, *place) in done
        ):  # the halves of a batch that ran out of memory find some layers done
            return
        term = method.term(seen)  # [batch, neuron]
        key = (method.name, site, place[1])
        weights = share.to(term.device, term.dtype)
        if key not in sums:
            sums[key] = torch.zeros(len(weights), term.shape[1], device=term.device, dtype=term.dtype)
        sums[key].addmm_(weights, term)
        done.add((method.name, *place))

    def look(place: Place) -> Callable[..., None]:
        def hook(activation: Tensor, hook: Any) -> None:
            assert batch is not None
            wanted_later = place[0] in hooked["slope"]
            other = corrupted.get(place) if wanted_later else corrupted.pop(place, None)
            seen = Seen(batch, activation=activation.detach().flatten(2), corrupted=other)
            for method in forward:
                add(method, place, seen)

        return hook

    def keep_slope(place: Place) -> Callable[..., None]:
        def hook(gradient: Tensor, hook: Any) -> None:
            slopes[place] = gradient.flatten(2)

        return hook

    def receive(site: Site, layer: int, products: Tensor) -> None:
        place = (site, layer)
        assert batch is not None
        seen = Seen(
            batch, products=products, gradient=slopes.pop(place, None), corrupted=corrupted.pop(place, None)
        )
        for method in backward:
            add(method, place, seen)

    def keep_corrupted(place: Place) -> Callable[..., None]:
        def hook(activation: Tensor, hook: Any) -> None:
            corrupted[place] = activation.detach().flatten(2)

        return hook

    def places(kind: str) -> list[Place]:
        return [(site, layer) for site in hooked[kind] for layer in range(job.info.layers)]

    def hooks(
        kind: str, make: Callable[[Place], Callable[..., None]]
    ) -> list[tuple[str, Callable[..., None]]]:
        return [(hook_name(model, *place), make(place)) for place in places(kind)]

    def work(chosen: list[int], finished: set[Any]) -> None:
        nonlocal batch, share, done
        done = finished
        prompts = [job.prompts[i] for i in chosen]
        tokens, mask = pad(prompts, tokenizer, device)
        batch = current = Batch(
            mask.bool(),
            len({len(p.tokens) for p in prompts}) == 1,
            torch.zeros(len(prompts), device=device),
            control,
        )
        share = job.of_country[:, chosen]
        corrupted.clear()
        slopes.clear()
        if hooked["corrupted"]:
            assert job.corrupted is not None
            others = [job.corrupted[i] for i in chosen]
            current.alignment = Alignment.of(prompts, others, device)
            with torch.no_grad(), model.hooks(fwd_hooks=hooks("corrupted", keep_corrupted)):
                last_logits(model, *pad(others, tokenizer, device))
        answers = torch.tensor([p.answer_token for p in prompts], device=device)

        def objective(logits: Tensor) -> Tensor:
            right = logits.softmax(-1).gather(1, answers[:, None]).squeeze(1)
            current.p_answer = right.detach()
            job.p_answer[chosen] = right.detach().cpu().to(job.p_answer.dtype)
            return right.sum()

        with model.hooks(fwd_hooks=hooks("forward", look)):
            if backward:
                run(tokens, mask, objective, receive)
            else:
                objective(last_logits(model, tokens, mask))

    with ExitStack() as stack:
        if backward:  # the hook that keeps gradients comes first, so that `receive` finds them
            stack.enter_context(model.hooks(bwd_hooks=hooks("slope", keep_slope)))
            run = stack.enter_context(gradients(model, hooked["backward"], native=tried.native))
        else:
            stack.enter_context(torch.no_grad())
            stack.enter_context(frozen(model))
            stack.enter_context(native_attention(model, tried.native))
        each_batch(plan, lengths, work, job.advance)
    found: dict[str, Totals] = {}
    for method in methods:
        sites = readers[method.name].values()
        totals = {
            site: torch.stack([sums[method.name, site, layer] for layer in range(job.info.layers)], 1)
            .to(number)
            .cpu()
            for site in sites
        }
        found[method.name] = method.finish({site: totals[site] for site in job.sites if site in totals}, job)
    return found


_KINDS: dict[str, Callable[[Method], bool]] = {
    "any": lambda m: True,
    "forward": lambda m: not m.gradient,
    "backward": lambda m: m.gradient,
    "corrupted": lambda m: m.corrupted,
    "slope": lambda m: m.gradient and m.corrupted,
}
"""What is hooked -> the methods that want it."""


def _sites(readers: Mapping[str, Mapping[Site, Site]], methods: Sequence[Method]) -> tuple[Site, ...]:
    wanted = {site for m in methods for site in readers[m.name]}
    return tuple(site for site in Site if site in wanted)


def run_methods(job: Job, names: Sequence[str]) -> dict[str, Totals]:
    """All of these methods, and those that they build on."""
    from .integrated_gradients import IntegratedGradients, integrate

    asked = [METHODS[name] for name in names]
    own = [m for m in asked if issubclass(m, OwnMethod)]
    needed = dict.fromkeys(
        [*(n for m in own for n in m.builds_on), *(m.name for m in asked if not issubclass(m, OwnMethod))]
    )
    finished = run_shared(job, list(needed))
    integrating = [m for m in own if issubclass(m, IntegratedGradients)]
    if integrating:
        by_variant = integrate(job, [m.variant for m in integrating])
        finished.update({m.name: by_variant[m.variant] for m in integrating})
    for method in own:
        if method not in integrating:
            finished[method.name] = method().run(job, finished)
    for name, totals in finished.items():
        broken = [site for site, table in totals.items() if not torch.isfinite(table).all()]
        if broken:
            raise ScoreError(
                f"method {name!r} gives NaN or infinite scores of {broken[0]} on {job.task.name}, in {job.info.dtype}"
            )
    return {name: finished[name] for name in names}
