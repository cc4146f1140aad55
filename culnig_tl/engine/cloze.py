"""Cloze prompts: a question asked by the likelihood of its options' words, instead of by their labels.

For a question x with option texts y_1 .. y_k, as lm-evaluation-harness scores continuations:

    LL_o    = sum of the log-probabilities of y_o's tokens after the prompt
    prior_o = the same after the control ("Answer:") alone

A question is one row, in which each token stands once:

    prompt y_1 .. y_k control y_1 .. y_k

An attention mask has every option see what it continues and itself, and position ids have each begin where
that ends, so that all likelihoods are those of separate rows. Where a model does not keep to either
(`one_row` compares), a question is 2k rows instead: prompt or control, and one option.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..errors import PromptError
from ..tasks.question import Question, Task
from . import chat
from .models import HookedModel, device_of, dtype_of, residual_of, tail_logits, tokenizer_of, unembedded
from .probe import differs
from .prompts import TOKENS_PER_BATCH, Asked, pad, tokenize
from .workarounds import is_bridge, native_attention

log = logging.getLogger(__name__)

LOGITS_BYTES = 1 << 30
"""Of the logits of one batch at most, copies that the gradient needs included."""
Tokens = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ClozePrompt:
    """A question and its options' words as tokens."""

    question: Question
    context: Tokens
    """The prompt; one BOS at most."""
    texts: tuple[Tokens, ...]
    """What each option's text adds to it."""
    bare: Tokens
    """The control prompt; empty for a control question itself, as are its texts."""
    bare_texts: tuple[Tokens, ...]
    one_row: bool = True
    """All in one row; else a row for each option after the prompt, and for each after the control."""

    @property
    def parts(self) -> Iterator[tuple[Tokens, tuple[Tokens, ...]]]:
        """(prompt, texts), and the same of the control where there is one."""
        yield self.context, self.texts
        if self.bare_texts:
            yield self.bare, self.bare_texts

    @property
    def options(self) -> list[Tokens]:
        """Every option as lm-evaluation-harness runs it: prompt or control, and one text."""
        return [(*start, *text) for start, texts in self.parts for text in texts]

    @property
    def rows(self) -> tuple[Tokens, ...]:
        """The token rows that are run for it."""
        return (self.counted,) if self.one_row else tuple(self.options)

    @property
    def tokens(self) -> Tokens:
        """The longest option with what it continues: what has to fit in the context."""
        return max(self.options, key=len)

    @property
    def counted(self) -> Tokens:
        """The tokens that count, each once: prompt, texts, control, texts."""
        return tuple(token for start, texts in self.parts for part in (start, *texts) for token in part)

    @property
    def right(self) -> int:
        """Place of the right option."""
        return self.question.options.index(self.question.answer)

    @property
    def clean(self) -> Tokens:
        """Those of the question and its options."""
        return self.without_prior().counted

    def without_prior(self) -> ClozePrompt:
        """The prompt and its options alone."""
        return replace(self, bare=(), bare_texts=())


def written_cloze(tokenizer: Any, question: Question, prompt: str) -> tuple[str, str]:
    """(what the model reads of a question's prompt, or of its control, what stands between that and an
    option's text); special tokens in the question's own text are marked, see `chat.write`.

    A blank at the prompt's end belongs to the text, as in lm-evaluation-harness.

    Raises `PromptError` where a chat template is asked for and there is none, or it fails.
    """
    if question.chat_template:
        if not getattr(tokenizer, "chat_template", None):
            raise PromptError(
                f"task {question.task!r} is asked in a chat template, and the model's tokenizer has none:"
                " ask without --chat-template (chat_template=False)"
            )
        prompt = chat.write(tokenizer, replace(question, prompt=prompt))
    kept = prompt.rstrip()
    return kept, prompt[len(kept) :] or ("" if question.chat_template else " ")


def encode_cloze(tokenizer: Any, questions: Sequence[Question]) -> list[ClozePrompt]:
    """The tokens of every question and option.

    A text's tokens are those that prompt and text together have beyond the prompt's own number of tokens; a
    blank at the prompt's end is moved to the text. Both as in lm-evaluation-harness, also where a tokenizer
    merges over the border.

    Raises `PromptError`, naming the question, for a prompt or a text that becomes no token. Logs which
    questions have options that become the same tokens, which the model cannot tell apart.
    """
    encoded = []
    for question in questions:
        context, texts = _encode_pairs(tokenizer, question, question.prompt)
        bare, bare_texts = (), ()
        if question.control is not None:  # a control itself has nothing to be compared with
            bare, bare_texts = _encode_pairs(tokenizer, question, question.control)
        encoded.append(ClozePrompt(question, context, texts, bare, bare_texts))
    alike = [prompt.question.id for prompt in encoded if len(set(prompt.texts)) < len(prompt.texts)]
    if alike:
        log.warning(
            "task %s: %d of %d questions have options that become the same tokens, first %r",
            questions[0].task,
            len(alike),
            len(encoded),
            alike[0],
        )
    return encoded


def _encode_pairs(tokenizer: Any, question: Question, prompt: str) -> tuple[Tokens, tuple[Tokens, ...]]:
    kept, blank = written_cloze(tokenizer, question, prompt)
    texts = [chat.mark(tokenizer, text) if question.chat_template else text for text in question.texts]
    written = [kept, *(kept + blank + text for text in texts)]
    context, *wholes = tokenize(tokenizer, written, plain=not question.chat_template)
    texts = [tuple(whole[len(context) :]) for whole in wholes]
    named = [f"the prompt {kept!r}", *(f"option {text!r}" for text in question.texts)]
    for name, tokens in zip(named, (context, *texts)):
        if not tokens:
            raise PromptError(f"task {question.task!r}, question {question.id!r}: {name} becomes no token")
    return tuple(context), tuple(texts)


def asked_of(model: HookedModel, task: Task, *, control: bool = False) -> Asked:
    """What is asked of a model, in either form; cloze questions as the model takes them (`one_row`).

    Args:
        control: keep the control of cloze questions even where P(y|x) does not depend on it.
    """
    if task.form == "letters":
        return Asked.of(model, task)
    asked = Asked.of(model, task, encode_cloze)
    prompts = one_row(model, asked.prompts)
    if task.normalise != "unconditional" and not control:
        prompts = [prompt.without_prior() for prompt in prompts]
    return replace(asked, prompts=prompts)


# -------------------------------------------------------------------------------------------- rows and places


@dataclass(frozen=True)
class Layout:
    """Where in a batch of rows each question's tokens stand, and whose logits are read.

    A question's slots are its `counted` tokens, with padding before them; in the form of one row they are the
    row itself.
    """

    tokens: Int[Tensor, "row pos"]
    mask: Int[Tensor, "row pos"]
    positions: Int[Tensor, "row pos"] | None
    """Position ids; None where the model counts them itself."""
    seen: Bool[Tensor, "row query key"] | None
    """Which tokens each attends to; None where that is all before it."""
    at: Int[Tensor, " place"]
    """Flat (row, pos) whose logits are computed."""
    predicts: Int[Tensor, " target"]
    """Of every token of a text, the place whose logits predict it."""
    targets: Int[Tensor, " target"]
    option: Int[Tensor, " target"]
    """Flat (question, prompt or control, option) that it belongs to."""
    real: Bool[Tensor, "question slot"]
    """False at padding."""
    prior: Bool[Tensor, "question slot"]
    """True at the control's tokens and its texts'."""
    cells: Int[Tensor, " cell"] | None
    """Slot of every (row, pos), flat over (question, slot and one for padding); None where they are the
    same."""

    has: Bool[Tensor, "question option"]
    """False where a question has fewer options than others."""

    @classmethod
    def of(
        cls, prompts: Sequence[ClozePrompt], tokens: Int[Tensor, "row pos"], mask: Int[Tensor, "row pos"]
    ) -> Layout:
        """Of prompts whose rows `pad` has padded."""
        (rows, width), device = tokens.shape, tokens.device
        slots, most = max(len(p.counted) for p in prompts), max(len(p.texts) for p in prompts)
        position, text, cell = (np.zeros((rows, width), np.int64) for _ in range(3))
        side = np.full((rows, width), -1)  # padding's
        cell += slots  # a slot that nobody reads
        sides = np.full((len(prompts), slots), -1)
        places: dict[int, int] = {}
        read: list[tuple[int, int, int]] = []
        for span in _spans(prompts, width, slots):
            row, start, end = span.row, span.column, span.column + len(span.tokens)
            position[row, start:end] = np.arange(span.position, span.position + len(span.tokens))
            side[row, start:end], text[row, start:end] = span.side, span.option + 1
            sides[span.question, span.slot : span.slot + len(span.tokens)] = span.side
            first = span.question * (slots + 1) + span.slot
            cell[row, start:end] = np.arange(first, first + len(span.tokens))
            if span.option >= 0:
                before = [span.before, *range(start, end - 1)]
                flat = (span.question * 2 + span.side) * most + span.option
                for column, token in zip(before, span.tokens):
                    place = places.setdefault(row * width + column, len(places))
                    read.append((place, token, flat))
        known = [torch.from_numpy(values).to(device) for values in (position, side, text, cell, sides)]
        positions, of_side, of_text, cells, slot_sides = known
        predicts, targets, option = torch.tensor(read, device=device).T
        together = all(p.one_row for p in prompts)
        return cls(
            tokens,
            mask,
            positions if together else None,
            _seen(of_side, of_text) if together else None,
            torch.tensor(list(places), device=device),
            predicts,
            targets,
            option,
            slot_sides >= 0,
            slot_sides == 1,
            None if together else cells.flatten(),
            torch.tensor([[o < len(p.texts) for o in range(most)] for p in prompts], device=device),
        )

    def likelihoods(
        self, logits: Float[Tensor, "copy place vocab"]
    ) -> tuple[Float[Tensor, "question option"], Float[Tensor, "question option"]]:
        """(LL, prior) of every option, of one copy of the rows after the other; LL is -inf where a question
        has fewer options, and the prior is 0 where it has no control."""
        right = logits[:, self.predicts.to(logits.device), self.targets.to(logits.device)]
        each = right - logits.logsumexp(-1)[:, self.predicts.to(logits.device)]  # [copy, target]
        shape = (len(each), len(self.has), 2, self.has.shape[1])
        summed = each.new_zeros(len(each), shape[1] * shape[2] * shape[3])
        summed = summed.index_add(1, self.option.to(each.device), each).view(shape)
        ll = summed[:, :, 0].masked_fill(~self.has.to(each.device), -torch.inf)
        return ll.flatten(0, 1), summed[:, :, 1].flatten(0, 1)

    def summed(self, values: Float[Tensor, "row pos neuron"]) -> Float[Tensor, "question slot neuron"]:
        """By slot: the sum over its copies, where options have rows of their own."""
        if self.cells is None:
            return values
        flat, cells = self._flat(values)
        return self._slots(flat.index_add_(0, cells, values.flatten(0, 1)))

    def copied(self, values: Float[Tensor, "row pos neuron"]) -> Float[Tensor, "question slot neuron"]:
        """By slot: one of its copies, which have the same activations."""
        if self.cells is None:
            return values
        flat, cells = self._flat(values)
        return self._slots(flat.index_copy_(0, cells, values.flatten(0, 1)))

    def _flat(self, values: Tensor) -> tuple[Tensor, Tensor]:
        assert self.cells is not None
        questions, slots = self.real.shape
        return values.new_zeros(questions * (slots + 1), values.shape[2]), self.cells.to(values.device)

    def _slots(self, flat: Tensor) -> Tensor:
        questions, slots = self.real.shape
        return flat.view(questions, slots + 1, -1)[:, :-1]


@dataclass(frozen=True)
class _Span:
    """Tokens that stand side by side in a row: a prompt, or an option's text."""

    question: int
    row: int
    column: int
    slot: int
    tokens: Tokens
    side: int
    """0: the prompt's; 1: the control's."""
    position: int = 0
    """Tokens before it of what it continues."""
    option: int = -1
    """Of a text."""
    before: int = -1
    """Of a text: the column whose logits predict its first token."""


def _spans(prompts: Sequence[ClozePrompt], width: int, slots: int) -> Iterator[_Span]:
    """All tokens of rows that are padded on the left to `width`, of questions with so many slots."""
    row = -1
    for question, prompt in enumerate(prompts):
        slot, column = slots - len(prompt.counted), width - len(prompt.counted)
        row += prompt.one_row
        for side, (start, texts) in enumerate(prompt.parts):
            first, before = slot, column + len(start) - 1
            slot += len(start)
            if prompt.one_row:
                yield _Span(question, row, column, first, start, side)
                column += len(start)
            for option, text in enumerate(texts):
                if not prompt.one_row:
                    row, column = row + 1, width - len(text)
                    before = column - 1
                    yield _Span(question, row, column - len(start), first, start, side)
                yield _Span(question, row, column, slot, text, side, len(start), option, before)
                column, slot = column + len(text), slot + len(text)


def _seen(side: Int[Tensor, "row pos"], text: Int[Tensor, "row pos"]) -> Bool[Tensor, "row query key"]:
    """An option sees what it continues and itself; nothing sees what comes after it, or padding (which sees
    itself, so that nothing is divided by 0)."""
    alike = side[:, :, None] == side[:, None]
    own = (text[:, None] == 0) | (text[:, None] == text[:, :, None])
    return (alike & own).tril()


def logits_at(model: HookedModel, layout: Layout, copies: int = 1) -> Float[Tensor, "copy place vocab"]:
    """Logits at the layout's places, in float32 or wider; no others are computed.

    Args:
        copies: run the one row of the layout so many times; a hook may make copies of it as well.
    """
    tokens = layout.tokens.expand(copies * len(layout.tokens), -1) if copies > 1 else layout.tokens

    def picked(hidden: Float[Tensor, "row pos model"]) -> Float[Tensor, "copy place model"]:
        flat = hidden.reshape(-1, layout.tokens.numel(), hidden.shape[-1])
        return flat[:, layout.at.to(hidden.device)]

    whole: Any = model
    if is_bridge(model):
        handle = whole.unembed.register_forward_pre_hook(lambda module, given: (picked(given[0]), *given[1:]))
        try:
            logits = model(tokens, use_cache=False, **_attended(model, layout))
        finally:
            handle.remove()
    else:  # a HookedTransformer has more than the two classes share
        residual = residual_of(model, tokens, layout.mask)
        logits = unembedded(model, picked(residual))
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def _attended(model: Any, layout: Layout) -> dict[str, Any]:
    """What a bridge is told of masks and positions: with sliding windows, where the model has them."""
    if layout.seen is None or layout.positions is None:
        return {"attention_mask": layout.mask}
    config = model.original_model.config.get_text_config()
    window, kinds = getattr(config, "sliding_window", None), getattr(config, "layer_types", None)
    near = layout.seen
    if window:
        apart = layout.positions[:, :, None] - layout.positions[:, None]
        near = near & (apart < window)
    whole, sliding = (_additive(seen, dtype_of(model)) for seen in (layout.seen, near))
    mask: Any = sliding
    if kinds and "sliding_attention" in kinds:
        mask = {"full_attention": whole, "sliding_attention": sliding}
    return {"attention_mask": mask, "position_ids": layout.positions}


def _additive(seen: Bool[Tensor, "row query key"], dtype: torch.dtype) -> Float[Tensor, "row 1 query key"]:
    zeros = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return zeros.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


@torch.no_grad()
def one_row(model: HookedModel, prompts: list[ClozePrompt]) -> list[ClozePrompt]:
    """The prompts in one row each, where the longest and the shortest, side by side, give the logits of their
    options run alone; else with a row for every option, which takes longer: the log says why."""
    sample = list({len(p.tokens): p for p in sorted(prompts, key=lambda p: -len(p.tokens))}.values())
    sample = [sample[0], *sample[1:][-1:]]
    wrong = _not_in_one_row(model, sample)
    if not wrong:
        return prompts
    log.info("a question's options are run as rows of their own, which takes longer: %s", wrong)
    return [replace(prompt, one_row=False) for prompt in prompts]


def _not_in_one_row(model: HookedModel, prompts: Sequence[ClozePrompt]) -> str:
    """Why options cannot stand in one row; empty where they can, in both attention kernels."""
    if not is_bridge(model):
        return "a HookedTransformer takes no mask of that kind"
    device, tokenizer = device_of(model), tokenizer_of(model)
    layout = Layout.of(prompts, *pad(prompts, tokenizer, device))
    for native in (False, True):
        with native_attention(model, native) as possible:
            if native and not possible:
                continue
            try:
                found = logits_at(model, layout)[0]
            except (RuntimeError, TypeError, ValueError, KeyError, AttributeError, IndexError) as error:
                return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            for number, prompt in enumerate(prompts):
                for side, (start, texts) in enumerate(prompt.parts):
                    option = (number * 2 + side) * layout.has.shape[1] + len(texts) - 1
                    mine = found[layout.predicts[layout.option == option]]
                    row = torch.tensor([[*start, *texts[-1]]], device=device)
                    alone = tail_logits(model, row, torch.ones_like(row), len(texts[-1]) + 1)[0, :-1]
                    if wrong := differs(model, mine, alone):
                        return wrong
    return ""


def costs(model: HookedModel, prompts: Sequence[Any]) -> list[int]:
    """What each question takes of a batch, in tokens: those of its rows, or as much as the logits of a cloze
    question take of memory."""
    vocab, tokens_per_batch = int(model.cfg.d_vocab), TOKENS_PER_BATCH[device_of(model).type]
    found = []
    for prompt in prompts:
        if not isinstance(prompt, ClozePrompt):
            found.append(len(prompt.tokens))
            continue
        places = sum(1 + sum(len(text) - 1 for text in texts) for _, texts in prompt.parts)
        logits = places * vocab * 12  # float32, three times
        found.append(max(sum(map(len, prompt.rows)), logits * tokens_per_batch // LOGITS_BYTES))
    return found
