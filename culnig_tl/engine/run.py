"""One pass over prompts, and everything around it.

`run_pass(model, task, prompts, step, state)` tries one prompt first (which kernel, is padding harmless, how
large a batch may be), plans batches of like length, resumes from a checkpoint, shares the batches among
processes, halves a batch that does not fit in memory, notices NaN, and adds up what the processes have found.
The caller gives

    state   a dict of tensors that are summed or filled in: exactly what is saved and reduced
    step    called with (batch, state) for every batch

so that scoring, evaluation, means, exact effects and short answers are left with their formulas.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..data.neurons import NeuronMeans, NeuronSet
from ..errors import ScoreError, StudyError
from ..progress import Advance, progress_bar
from ..tasks.question import Task
from .checkpoint import BatchQueue, Checkpoint, Part, Stored
from .cloze import costs
from .hooks import SiteHooks
from .identity import identity, model_identity
from .models import HookedModel, describe, device_of, dtype_of, frozen, tokenizer_of
from .probe import Probe, probe_forward, probe_gradients, tokens_that_fit
from .prompts import EVEN, Prompt, pad, plan_batches, rope_border
from .workarounds import native_attention
from .world import World, apart, world

log = logging.getLogger(__name__)

State = dict[str, Tensor]
"""What a pass sums or fills in, by name."""
CHECK_EVERY = 64
"""Batches between two looks for NaN: each look waits for the device."""
_HEALTH = "health"


@dataclass
class Batch:
    """Some prompts, padded on the left."""

    index: list[int]
    """Their positions among all prompts of the pass."""
    prompts: list[Any]
    tokens: Int[Tensor, "batch pos"]
    mask: Int[Tensor, "batch pos"]
    """1 at real tokens."""
    done: set[Any]
    """What of this batch is in the state already: memory may have run out in the middle of a backward pass,
    and the halves then carry on where the whole stopped. A step adds a key for each sum that it has made, and
    skips those it finds."""
    health: Float[Tensor, " question"]
    decided: Mapping[str, Any]
    """How the pass is run; what its probe decided is in here."""

    @cached_property
    def real(self) -> Bool[Tensor, "batch pos"]:
        """False at padding."""
        return self.mask.bool()

    @cached_property
    def even(self) -> bool:
        """No position is padding."""
        return len({len(p.counted) for p in self.prompts}) == 1

    @cached_property
    def at(self) -> Int[Tensor, " batch"]:
        """`index` as a tensor."""
        return torch.tensor(self.index, device=self.tokens.device)

    @cached_property
    def answers(self) -> Int[Tensor, " batch"]:
        """The right answers' tokens."""
        return torch.tensor([p.answer_token for p in self.prompts], device=self.tokens.device)

    def watch(self, values: Float[Tensor, " batch"]) -> None:
        """Has the pass stop, naming the question, should one of these be NaN or infinite."""
        self.health.index_add_(0, self.at, values.detach().to(self.health))


Step = Callable[[Batch, State], None]


def running_sum(state: State, name: str, shape: Sequence[int], like: Tensor, dtype: torch.dtype) -> Tensor:
    """The sum of that name in the state, on `like`'s device; zeros before the first batch."""
    held = state.get(name)
    if held is None or held.device != like.device:
        zeros = torch.zeros(*shape, device=like.device, dtype=dtype)
        state[name] = held = zeros if held is None else held.to(zeros)
    return held


@dataclass(frozen=True)
class Work:
    """What decides a pass's numbers beside its questions: a checkpoint of other work is not resumed from."""

    neurons: NeuronSet | None = None
    """What is ablated."""
    operation: str | None = None
    means: NeuronMeans | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    """JSON."""


@dataclass(frozen=True)
class Ran:
    """How a pass was run."""

    native: bool
    """Attention ran in PyTorch's own kernel."""
    batch_sizes: list[int]
    """In the plan's order, of all processes: what replays it."""
    tokens_per_batch: int | None
    """The limit by which batches were planned, where it depended on free memory."""
    identity: dict[str, Any] | None
    """Of the work, where a checkpoint was kept."""
    rest: Mapping[str, Any]
    """What else the probe decided."""


def run_pass(
    model: HookedModel,
    task: Task,
    prompts: Sequence[Any],
    step: Step,
    state: State,
    *,
    hooks: SiteHooks | None = None,
    fwd_hooks: Sequence[tuple[str, Callable[..., Any]]] = (),
    probe: Callable[[Prompt], Probe] | None = None,
    lengths: Sequence[int] | None = None,
    batch_size: int | str | Sequence[int] = "auto",
    checkpoint: Checkpoint | None = None,
    work: Work = Work(),
    progress: bool | Advance = True,
    verb: str = "ask",
) -> Ran:
    """Calls `step` on batches of all prompts, and leaves the sums over them in `state`, in every process.

    Args:
        prompts: of the questions that fit in the model's context: `Prompt` or `cloze.ClozePrompt`.
        state: tensors that the steps change; sums may be added on the way (`running_sum`).
        hooks: what the steps read; they are installed, and run by the steps (``hooks.run``).
        fwd_hooks: (name, function) pairs on the model meanwhile: an ablation.
        probe: tries the shortest prompt; by default with `hooks`' backward sites, or forward with all hooks.
        lengths: tokens that a prompt takes, by which batches are planned; those of the prompts by default.
        batch_size: prompts per batch, "auto" for what fits in memory, "even" for that without padding, or the
            `batch_sizes` of an earlier run.
        progress: a bar, or the advance function of one that stands already.
        verb: what the bar says, and what a checkpoint of another pass differs in.

    Raises:
        ScoreError: NaN or infinity (naming the question), or too little memory for one question.
    """
    lengths = costs(model, prompts) if lengths is None else lengths
    key = None
    if checkpoint is not None:
        known = model_identity(model) if checkpoint.model is None else checkpoint.model
        key = identity(
            known, neurons=work.neurons, operation=work.operation, means=work.means, **work.settings
        )
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if hooks is None:  # which sees to it itself
            stack.enter_context(frozen(model))
        if fwd_hooks:
            stack.enter_context(model.hooks(fwd_hooks=list(fwd_hooks)))
        this = _Pass(
            {"identity": key, "questions": {task.name: task.fingerprint}, "pass": verb},
            checkpoint,
            lambda: _decide(model, prompts, lengths, hooks, fwd_hooks, probe, batch_size, checkpoint),
            lengths,
        )
        _restore(state, this.stored)
        health = _health(model, state, len(prompts))
        batch_of = _batches(model, prompts, health, this.decided)
        native = this.decided["native"]
        stack.enter_context(
            native_attention(model, native) if hooks is None else hooks.installed(native=native)
        )
        advance = stack.enter_context(progress_bar(len(prompts), f"{verb} {task.name}", enabled=progress))

        def check() -> None:
            broken = ~torch.isfinite(health)
            if broken.any():
                question, dtype = prompts[int(broken.nonzero()[0])].question, describe(model).dtype
                raise ScoreError(f"question {question.id!r} of {task.name} gives NaN or infinity in {dtype}")

        def do(index: list[int], done: set[Any]) -> None:
            step(batch_of(index, done), state)
            if len(this.queue.ran) % CHECK_EVERY == 0:
                check()

        with this.saved(state, check) as after:
            each_batch(this.plan, lengths, do, this.advancing(advance), queue=this.queue, after=after)
            check()
    state.pop(_HEALTH)
    _reduce(state, this.world)
    rest = {k: v for k, v in this.decided.items() if k not in ("native", "sizes", "tokens_per_batch")}
    return Ran(native, this.sizes(), this.decided["tokens_per_batch"], key, rest)


def _decide(
    model: HookedModel,
    prompts: Sequence[Any],
    lengths: Sequence[int],
    hooks: SiteHooks | None,
    fwd_hooks: Sequence[tuple[str, Any]],
    probe: Callable[[Prompt], Probe] | None,
    batch_size: int | str | Sequence[int],
    checkpoint: Checkpoint | None,
) -> dict[str, Any]:
    """How the pass is run (JSON): kernel, batch sizes, and what else the probe says."""
    shortest, border = min(prompts, key=lambda p: len(p.tokens)), rope_border(model)
    beyond = [border is not None and max(map(len, p.rows)) > border for p in prompts]
    width = max((len(p.tokens) for p, long in zip(prompts, beyond) if not long), default=None)
    if probe is not None:
        tried = probe(shortest)
    elif hooks is not None and hooks.backward:
        tried = probe_gradients(model, hooks.sites, shortest.tokens, width=width)
    else:
        names = [name for name, _ in fwd_hooks] + ([] if hooks is None else hooks.names)
        tried = probe_forward(model, names, shortest.tokens, width=width)
    in_one_row = all(getattr(p, "one_row", False) for p in prompts)  # padding was tried
    if not tried.padding and any(len(p.rows) > 1 for p in prompts):
        raise ScoreError(
            "padding changes what this model says, and a cloze question's options are padded to one length:"
            " ask in the form 'letters'"
        )
    if batch_size == EVEN and any(len(p.rows) > 1 for p in prompts):
        raise ScoreError(
            "a cloze question's options are padded to one length: batch_size 'even' is for the form 'letters'"
        )
    most = checkpoint.tokens_per_batch if checkpoint is not None else None
    if tried.bytes_per_token is None:
        most = None
    elif most is None:
        most = min(world().gather(tokens_that_fit(model, tried.bytes_per_token)))
    device = device_of(model)
    plan = plan_batches(
        lengths,
        batch_size,
        device,
        most_tokens=most,
        padding=tried.padding or in_one_row,
        apart=beyond if any(beyond) else None,
    )
    sizes = [len(batch) for batch in plan]
    return {"sizes": sizes, "native": tried.native, "tokens_per_batch": most, **tried.rest}


def _restore(state: State, stored: Mapping[str, Tensor]) -> None:
    for name, tensor in stored.items():
        if name in state:
            if state[name].shape != tensor.shape:
                raise StudyError(f"a checkpoint holds {name!r} of another shape: remove it to begin again")
            state[name].copy_(tensor)
        else:
            state[name] = tensor


def _health(model: HookedModel, state: State, count: int) -> Float[Tensor, " question"]:
    """A number per question that is finite for as long as all that was watched of it is."""
    dtype = torch.promote_types(dtype_of(model), torch.float32)
    return running_sum(state, _HEALTH, [count], torch.empty(0, device=device_of(model)), dtype)


def _batches(
    model: HookedModel, prompts: Sequence[Any], health: Tensor, decided: Mapping[str, Any]
) -> Callable[[list[int], set[Any]], Batch]:
    tokenizer, device = tokenizer_of(model), device_of(model)

    def batch_of(index: list[int], done: set[Any]) -> Batch:
        chosen = [prompts[i] for i in index]
        return Batch(index, chosen, *pad(chosen, tokenizer, device), done, health, decided)

    return batch_of


def _reduce(state: State, among: World) -> None:
    """The sums over all processes, in each of them; a process that had no batch has made no sums."""
    if among.size == 1:
        return
    mine = {
        name: (list(t.shape), str(t.dtype).removeprefix("torch."), t.device.type) for name, t in state.items()
    }
    known = {name: about for theirs in among.gather(mine) for name, about in theirs.items()}
    for name, (shape, dtype, kind) in sorted(known.items()):
        if name not in state:
            state[name] = torch.zeros(shape, dtype=getattr(torch, dtype), device=kind)
        among.all_reduce(state[name])


class _Pass:
    """One pass over questions: resumed where it was, and shared among the processes that work together."""

    def __init__(
        self,
        work: Mapping[str, Any],
        checkpoint: Checkpoint | None,
        decide: Callable[[], dict[str, Any]],
        lengths: Sequence[int],
    ) -> None:
        self.work, self.checkpoint, self.world = work, checkpoint, world()
        stored = checkpoint.read(work) if checkpoint is not None else None
        known = [plan for plan in self.world.gather(stored.decided if stored else None) if plan is not None]
        self.decided: dict[str, Any] = known[0] if known else self.world.broadcast(decide())
        if stored is not None and stored.decided != self.decided:
            stored = None
        self.plan = plan_batches(lengths, self.decided["sizes"])
        self.queue = stored.queue if stored is not None else BatchQueue.deal(self.plan, self.world)
        self.stored = stored.state if stored is not None else {}
        if checkpoint is not None and stored is None and self.decided["tokens_per_batch"] is not None:
            checkpoint.write(work, Stored(self.decided, self.queue, {}))  # free memory is not asked again

    @contextmanager
    def saved(self, state: State, check: Callable[[], None]) -> Iterator[Callable[[], None]]:
        """Yields what is to be called after every batch; saves the state when it is time, and when this
        process is done.

        `check` raises where the state is not sound (NaN): what was saved before then stays.
        """
        checkpoint = self.checkpoint
        if checkpoint is None:
            with apart(self.world):
                yield lambda: None
            return

        def save() -> None:
            check()
            checkpoint.write(self.work, Stored(self.decided, self.queue, state))

        def after() -> None:
            if checkpoint.due:
                save()
                checkpoint.written = True
                checkpoint.stop_if_asked()

        with checkpoint.signals_deferred(), apart(self.world):
            yield after
            # Other processes may take longer, or die; and a pass that was long enough to be saved once is
            # kept whole.
            if self.world.size > 1 or checkpoint.asked_to_stop or checkpoint.written:
                save()
                checkpoint.stop_if_asked()

    def advancing(self, advance: Callable[[int], object]) -> Callable[[int], None]:
        """Moves a bar of all questions by this process's share of them; what was done before counts at
        once."""
        if not self.world.first:
            return lambda count: None
        whole, own = sum(map(len, self.plan)), self.queue.left + self.queue.done
        done = shown = 0

        def on(count: int) -> None:
            nonlocal done, shown
            done += count
            target = whole * done // max(own, 1)
            advance(target - shown)
            shown = target

        on(self.queue.done)
        return on

    def sizes(self) -> list[int]:
        """Sizes of the batches that were run, in the plan's order, of all processes."""
        ran = sorted(part for parts in self.world.gather(self.queue.ran) for part in parts)
        return [end - start for _, start, end in ran]


def each_batch(
    plan: Sequence[Sequence[int]],
    lengths: Sequence[int],
    do: Callable[[list[int], set[Any]], None],
    advance: Callable[[int], object],
    *,
    queue: BatchQueue | None = None,
    after: Callable[[], object] = lambda: None,
) -> None:
    """Runs `do(batch, done)` on every batch; one that does not fit in memory is halved, and so are later ones
    of its size.

    `do` puts a key for each sum that it has made into `done`, and leaves out those it finds there (see
    `Batch.done`). No question is lost or counted twice.

    Args:
        queue: which batches wait: those of the whole plan without it. It is kept up to date.
        after: called after every batch that leaves none half-summed, e.g. to save.

    Raises:
        ScoreError: a single question that does not fit.
    """
    queue = queue or BatchQueue.deal(plan, World())
    begun: dict[Part, set[Any]] = {}  # halves of batches of which some sums are made
    while queue.waiting:
        part = queue.waiting[0]
        number, start, end = part
        batch, done = list(plan[number][start:end]), begun.pop(part, set())
        tokens = len(batch) * max(lengths[i] for i in batch)
        full = tokens > queue.limit and len(batch) > 1 and not done
        if not full:
            try:
                do(batch, done)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise ScoreError(
                        f"out of memory on a single question of {tokens} tokens: use a smaller dtype or"
                        " device_map"
                    ) from error
                full = True
                queue.limit = min(queue.limit, tokens / 2)
                log.warning(
                    "out of memory with %d questions of %d tokens: halved", len(batch), tokens // len(batch)
                )
        queue.waiting.popleft()
        if full:  # outside the except block, whose traceback holds the tensors that were in the way
            clear_device_cache()
            middle = start + (len(batch) + 1) // 2
            for half in ((number, middle, end), (number, start, middle)):
                queue.waiting.appendleft(half)
                if done:
                    begun[half] = set(done)
            continue
        queue.ran.append(part)
        advance(len(batch))
        if not begun:
            after()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whatever device: accelerate's own test does not know the words of
    Apple's."""
    text = str(error)
    return (
        isinstance(error, (torch.OutOfMemoryError, MemoryError))
        or "out of memory" in text
        or "can't allocate memory" in text
        or "not enough memory" in text
    )


def clear_device_cache() -> None:
    """Gives cached blocks back, so that smaller ones can be made of them."""
    from accelerate.utils.memory import clear_device_cache as clear

    clear(garbage_collection=True)
