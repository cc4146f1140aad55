"""Forward and backward passes over batches: hooks, kernels, memory. What `attribution` needs and need not show.

Parameters are frozen, so the graph starts at the embedding and reaches activations alone; each site's gradient is used up
inside the backward pass, so that none outlives its layer.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..data.neurons import Site
from ..errors import ScoreError
from ..tasks.question import Task
from .checkpoint import Ledger, Part
from .models import FLOAT16, ModelInfo, describe, device_of, frozen, hook_name, last_logits, tokenizer_of
from .prompts import TOKENS_A_BATCH, Prompt, encode
from .workarounds import native_attention
from .world import Ranks, processes_here

log = logging.getLogger(__name__)

Place = tuple[Site, int]
"""(site, layer)."""
Receive = Callable[[Site, int, Tensor], None]
"""Called with (site, layer, products [batch, pos, neuron] in float32 or wider) from inside the backward pass; the products
are the receiver's to change."""
Pass = Callable[[Tensor, Tensor, Callable[[Tensor], Tensor], Receive], None]
"""Called with (tokens, mask, objective, receive): one forward pass and one backward pass."""

SHARE_OF_MEMORY = 0.6
"""With batch_size="auto": the share of free memory that a batch may take by estimate."""
NATIVE_TOLERANCE = {torch.float64: 1e-4, torch.float32: 1e-3, torch.bfloat16: 0.1}
"""Largest difference of the probe's logits, against the largest logit, between native attention and the bridge's own
(whose softmax is in float32 whatever the dtype)."""


def prepare(
    model: Any, task: Task, sites: Iterable[Site | str]
) -> tuple[ModelInfo, tuple[Site, ...], list[Prompt]]:
    """What is known of the model, the sites in their order, and the questions as tokens."""
    if not len(task):
        raise ScoreError(f"task {task.name!r} holds no question to score")
    info = describe(model)
    if info.dtype == "float16":
        raise ScoreError(FLOAT16)
    wanted = {Site.parse(site) for site in sites}
    missing = [site for site in wanted if site not in info.widths]
    have = ", ".join(map(str, info.widths))
    if missing:
        raise ScoreError(f"this model has no site {missing[0]}: it has {have}")
    if not wanted:
        raise ScoreError(f"no site is asked for: the model has {have}")
    return info, tuple(site for site in Site if site in wanted), encode(tokenizer_of(model), task.questions)


@contextmanager
def gradients(model: Any, sites: Iterable[Site], *, native: bool = False) -> Iterator[Pass]:
    """Hooks for activation times gradient at every site and layer; they stay for as many passes as are wanted.

    Raises `ScoreError` naming a hook that got no gradient.
    """
    places = [(site, layer) for layer in range(int(model.cfg.n_layers)) for site in sites]
    activations: dict[Place, Tensor] = {}
    waiting: set[Place] = set()
    deliver: Receive | None = None

    def start_graph(embedding: Tensor, hook: Any) -> Tensor:
        if embedding.dtype == torch.float16:
            raise ScoreError(FLOAT16)
        return embedding.detach().requires_grad_(True)

    def remember(place: Place) -> Callable[..., None]:
        def forward_hook(activation: Tensor, hook: Any) -> None:
            activations[place] = activation.detach()

        return forward_hook

    def multiply(place: Place) -> Callable[..., None]:
        def backward_hook(gradient: Tensor, hook: Any) -> None:
            activation = activations.pop(place)
            wide = torch.promote_types(activation.dtype, torch.float32)
            product = (
                activation.to(wide) * gradient
            )  # in float32 at least: bfloat16 gradients are widened on the way
            assert deliver is not None
            deliver(*place, product.flatten(2))  # heads side by side: [batch, pos, neuron]
            waiting.discard(place)

        return backward_hook

    names = {place: hook_name(model, *place) for place in places}
    forward = [
        (hook_name_of_embedding(model), start_graph),
        *((names[place], remember(place)) for place in places),
    ]
    back = [(names[place], multiply(place)) for place in places]

    def run(tokens: Tensor, mask: Tensor, objective: Callable[[Tensor], Tensor], receive: Receive) -> None:
        nonlocal deliver
        deliver = receive
        activations.clear()
        waiting.update(places)
        try:
            objective(last_logits(model, tokens, mask)).backward()
        finally:
            activations.clear()
        if waiting:
            site, layer = min(waiting, key=lambda place: (place[1], place[0].value))
            raise ScoreError(
                f"no gradient reached {site.hook_name(layer)}: this model does not use {site} as TransformerLens names it"
            )

    with (
        frozen(model),
        torch.enable_grad(),
        native_attention(model, native),
        model.hooks(fwd_hooks=forward, bwd_hooks=back),
    ):
        yield run


def hook_name_of_embedding(model: Any) -> str:
    """Where the graph starts."""
    return model.hook_dict["hook_embed"].name or "hook_embed"


def backward(
    model: Any,
    tokens: Int[Tensor, "batch pos"],
    mask: Int[Tensor, "batch pos"],
    sites: Iterable[Site],
    objective: Callable[[Tensor], Tensor],
    receive: Receive,
) -> None:
    """One forward and one backward pass; `receive` gets activation times gradient of every site and layer on the way back.

    Raises `ScoreError` naming a hook that got no gradient.
    """
    with gradients(model, tuple(sites)) as run:
        run(tokens, mask, objective, receive)


@dataclass(frozen=True)
class Probe:
    """What one prompt, tried before many, tells about a model."""

    native: bool
    """Attention may run in PyTorch's kernel: every hook fires, and the logits are those of the bridge's own attention."""
    padding: bool
    """A padded prompt gives what it gives alone; where it does not, batches hold prompts of one length."""
    bytes_a_token: float
    """Activations that a pass keeps."""


def probe(model: Any, sites: Sequence[Site], tokens: Sequence[int]) -> Probe:
    """Tries one prompt, alone and padded, with native attention and without. What is not as it should be is logged."""
    device = device_of(model)
    pad = 2
    alone = torch.tensor([list(tokens)], device=device)
    padded = torch.tensor([[tokens[0]] * pad + list(tokens)], device=device)
    mask = torch.ones_like(padded)
    mask[:, :pad] = 0
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}

    def attempt(native: bool, given: Tensor, seen: Tensor) -> tuple[Tensor, float]:
        """Logits and bytes a token of one pass; NaN for logits where a product is."""
        stored: dict[int, int] = {}
        logits = torch.zeros(0)
        healthy = torch.ones((), dtype=torch.bool, device=device)

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                stored[storage.data_ptr()] = storage.nbytes()
            return tensor

        def objective(values: Tensor) -> Tensor:
            nonlocal logits
            logits = values.detach()
            return values.softmax(-1).amax()

        def check(site: Site, layer: int, products: Tensor) -> None:
            healthy.logical_and_(products[:, -len(tokens) :].isfinite().all().to(device))

        with (
            torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
            gradients(model, sites, native=native) as run,
        ):
            run(given, seen, objective, check)
        return logits.masked_fill(~healthy, torch.nan), sum(stored.values()) / given.shape[1]

    own, size = attempt(False, alone, torch.ones_like(alone))
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())

    def differs(logits: Tensor) -> str:
        difference = float((logits - own).abs().amax() / own.abs().amax())
        return (
            "" if difference <= NATIVE_TOLERANCE.get(dtype, 0.1) else f"logits differ by {difference:.1e}"
        )  # NaN differs

    with native_attention(model) as possible:
        pass
    if possible:
        try:
            logits, native_size = attempt(True, alone, torch.ones_like(alone))
            wrong = differs(logits) or differs(attempt(True, padded, mask)[0])
        except (ScoreError, RuntimeError) as error:
            wrong, native_size = str(error), size
        if not wrong:
            return Probe(native=True, padding=True, bytes_a_token=native_size)
        log.warning("native attention is not used, scoring is slower: %s", wrong)
    wrong = differs(attempt(False, padded, mask)[0])
    if wrong:
        log.warning("padding is not used, batches hold prompts of one length: a padded prompt's %s", wrong)
    return Probe(native=False, padding=not wrong, bytes_a_token=size)


def tokens_that_fit(model: Any, bytes_a_token: float) -> int:
    """Tokens in a batch, padding included, that free memory has room for."""
    device = device_of(model)
    sharing = 1 if device.type == "cuda" else processes_here()
    return max(
        1,
        min(
            TOKENS_A_BATCH[device.type],
            int(SHARE_OF_MEMORY * free_memory(device) / sharing / max(bytes_a_token, 1.0)),
        ),
    )


def free_memory(device: torch.device) -> int:
    """Bytes that the device can still give."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    if device.type == "mps":
        return int(torch.mps.recommended_max_memory()) - torch.mps.driver_allocated_memory()
    import psutil

    return psutil.virtual_memory().available


def each_batch(
    plan: Sequence[Sequence[int]],
    lengths: Sequence[int],
    work: Callable[[list[int], set[Place]], None],
    advance: Callable[[int], object],
    *,
    ledger: Ledger | None = None,
    after: Callable[[], object] = lambda: None,
) -> list[int]:
    """Runs `work(batch, done)` on every batch; one that does not fit in memory is halved, and so are later ones of its size.

    `work` puts each (site, layer) that it has summed into `done`, and leaves out those it finds there: memory may run out in
    the middle of a backward pass, and the halves then go on where the whole stopped. No question is lost or counted twice.

    Args:
        ledger: which batches wait: those of the whole plan without it. It is kept up to date.
        after: called after every batch that leaves none half-summed, e.g. to save.

    Returns:
        The sizes of the batches that were run, in the plan's order.

    Raises:
        ScoreError: a single question that does not fit.
    """
    ledger = ledger or Ledger.deal(plan, Ranks())
    begun: dict[Part, set[Place]] = {}  # halves of batches of which some places are summed
    while ledger.waiting:
        part = ledger.waiting[0]
        number, start, end = part
        batch, done = list(plan[number][start:end]), begun.pop(part, set())
        tokens = len(batch) * max(lengths[i] for i in batch)
        full = tokens > ledger.limit and len(batch) > 1 and not done
        if not full:
            try:
                work(batch, done)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise ScoreError(
                        f"out of memory on a single question of {tokens} tokens: use a smaller dtype or device_map"
                    ) from error
                full = True
                ledger.limit = min(ledger.limit, tokens / 2)
                log.warning(
                    "out of memory with %d questions of %d tokens: halved", len(batch), tokens // len(batch)
                )
        ledger.waiting.popleft()
        if full:  # outside the except block, whose traceback holds the tensors that were in the way
            empty_caches()
            middle = start + (len(batch) + 1) // 2
            for half in ((number, middle, end), (number, start, middle)):
                ledger.waiting.appendleft(half)
                if done:
                    begun[half] = set(done)
            continue
        ledger.ran.append(part)
        advance(len(batch))
        if not begun:
            after()
    return [end - start for _, start, end in sorted(ledger.ran)]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whatever device."""
    text = str(error)
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "out of memory" in text
        or "can't allocate memory" in text
        or "not enough memory" in text
    )


def empty_caches() -> None:
    """Gives cached blocks back, so that smaller ones can be made of them."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
