"""Generation: what a model answers in words. Greedy, in batches padded on the left, with a cache of keys and values.

A question's answer is the same alone and in any batch (in float32; in bfloat16 rounding can tip the balance between two tokens
that are equally likely). It ends at the end of the turn; a base model, which knows no turns, ends it with its line.

Hooks fire at every step, at the prompt's tokens and at those it wrote itself: under `ablate` the neurons are off throughout.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...engine.models import device_of, last_logits, tokenizer_of
from ...engine.probe import NATIVE_TOLERANCE
from ...engine.prompts import Prompt, context_length, pad, render, tokenize
from ...engine.run import is_out_of_memory
from ...engine.workarounds import native_attention
from ...errors import ScoreError
from ...tasks.question import Question

log = logging.getLogger(__name__)

MAX_NEW_TOKENS = 512
"""An answer's tokens at most."""
_PROBE_STEPS = 4
_PROBE_PADDING = 3


@dataclass(frozen=True)
class Way:
    """How a model generates."""

    native: bool
    """Attention runs in PyTorch's fused kernel (see `native_attention`)."""
    cached: bool
    """Keys and values are kept; else every step computes all tokens anew."""
    padding: bool
    """Prompts of different lengths may share a batch."""


WAYS = (
    Way(True, True, True),
    Way(False, True, True),
    Way(False, True, False),
    Way(False, False, True),
    Way(False, False, False),
)
"""The fastest first; the last one is always right."""


def encode_open(tokenizer: Any, questions: Sequence[Question]) -> list[Prompt]:
    """Tokens of questions that are answered in words: chat template, and no label."""
    if not questions:
        return []
    rows = tokenize(tokenizer, [render(tokenizer, question) for question in questions])
    log.info("first prompt's tokens: %s", tokenizer.convert_ids_to_tokens(list(rows[0])))
    return [
        Prompt(question, tuple(row), answer_token=-1, option_tokens=())
        for question, row in zip(questions, rows)
    ]


def end_tokens(model: Any) -> frozenset[int]:
    """Tokens that end an answer: EOS, those that the checkpoint's generation config names, and what the chat template puts after a turn."""
    tokenizer = tokenizer_of(model)
    config = getattr(getattr(model, "original_model", None), "generation_config", None)
    named = getattr(config, "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, (list, tuple)) else [named])}
    return frozenset({token for token in ends if token is not None} | _turn_ends(tokenizer))


def _turn_ends(tokenizer: Any) -> set[int]:
    """The special token that follows the assistant's words in the chat template, e.g. ``<|im_end|>``."""
    if not getattr(tokenizer, "chat_template", None):
        return set()
    mark = "culnig"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception as error:  # Jinja raises whatever the template's author wrote
        log.warning("the chat template does not render an answer (%s): generation ends at EOS alone", error)
        return set()
    after = tokenizer(text.rpartition(mark)[2], add_special_tokens=False)["input_ids"]
    special = {
        token for token, added in getattr(tokenizer, "added_tokens_decoder", {}).items() if added.special
    }
    return {token for token in after[:1] if token in special}


def generate(
    model: Any,
    prompts: Sequence[Prompt],
    way: Way,
    ends: frozenset[int],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[list[int]]:
    """The likeliest tokens after each prompt of one batch, one by one, without what ends them.

    A row stops at one of `ends`, at the end of the line where the tokenizer has no chat template, after `max_new_tokens`, or at
    the end of the model's context. Rows that are done leave the batch.

    Raises:
        ScoreError: NaN, naming the question.
    """
    tokenizer, device = tokenizer_of(model), device_of(model)
    line = None if getattr(tokenizer, "chat_template", None) else _Line(tokenizer, len(prompts))
    longest = context_length(model)
    most = [
        max_new_tokens if longest is None else min(max_new_tokens, longest - len(p.tokens)) for p in prompts
    ]
    said: list[list[int]] = [[] for _ in prompts]
    rows = [row for row in range(len(prompts)) if most[row] > 0]  # the prompt of every row of the batch
    going = list(range(len(rows)))  # the batch's rows that are not done
    if not rows:
        return said
    tokens, mask = pad([prompts[row] for row in rows], tokenizer, device)
    with _decoding(model, way) as (step, keep):
        while True:
            logits = step(tokens, mask)
            chosen = logits.argmax(-1)
            likeliest, broken = chosen.tolist(), logits.isnan().any(-1).tolist()
            still = []
            for place in going:
                row, token = rows[place], likeliest[place]
                if broken[place]:
                    raise ScoreError(f"question {prompts[row].question.id!r} gives NaN while it is answered")
                if token not in ends:
                    said[row].append(token)
                    if len(said[row]) < most[row] and not (line is not None and line.ends(row, token)):
                        still.append(place)
            going = still
            if not going:
                return said
            tokens = chosen[:, None]
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
            if 2 * len(going) <= len(rows):
                at = torch.tensor(going, device=device)
                rows, tokens, mask = [rows[place] for place in going], tokens[at], mask[at]
                going = list(range(len(rows)))
                keep(at)


class _Line:
    """Tells where the first line with something on it ends, row by row."""

    def __init__(self, tokenizer: Any, rows: int) -> None:
        self._decode = tokenizer.decode
        self._begun = [False] * rows

    def ends(self, row: int, token: int) -> bool:
        first, newline, _ = self._decode([token]).partition("\n")
        self._begun[row] = self._begun[row] or bool(first.strip())
        return bool(newline) and self._begun[row]


def text_of(tokenizer: Any, tokens: Sequence[int]) -> str:
    """An answer's tokens as text: without special tokens, and of a base model the first line alone."""
    text = tokenizer.decode(list(tokens), skip_special_tokens=True).strip()
    return text if getattr(tokenizer, "chat_template", None) else text.partition("\n")[0].strip()


# ------------------------------------------------------------------------------------------------------------ one step, fast

Step = Callable[[Tensor, Tensor], Tensor]
"""Called with (new tokens [batch, new], mask of all tokens so far [batch, pos]); returns the next token's logits [batch, vocab]."""
Keep = Callable[[Tensor], None]
"""Called with the rows that stay in the batch."""


@contextmanager
def _decoding(model: Any, way: Way) -> Iterator[tuple[Step, Keep]]:
    with native_attention(model, way.native) as native:
        if way.native and not native:
            raise ScoreError("native attention is not possible with this model")
        yield _with_cache(model) if way.cached else _anew(model)


def _with_cache(model: Any) -> tuple[Step, Keep]:
    """The Hugging Face model's own cache; the bridge's hooks sit inside that model and fire."""
    plain = model.original_model
    cache: Any = None

    def step(
        tokens: Int[Tensor, "batch new"], mask: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch vocab"]:
        nonlocal cache
        positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
        out = plain(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        cache = out.past_key_values
        return out.logits[:, -1].to(mask.device, torch.promote_types(out.logits.dtype, torch.float32))

    return step, lambda rows: cache.batch_select_indices(rows)


def _anew(model: Any) -> tuple[Step, Keep]:
    """No cache: what a HookedTransformer, whose own cache does not know left padding in all versions, is generated with."""
    so_far: Tensor | None = None

    def step(
        tokens: Int[Tensor, "batch new"], mask: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch vocab"]:
        nonlocal so_far
        so_far = tokens if so_far is None else torch.cat([so_far, tokens], dim=1)
        return last_logits(model, so_far, mask).to(mask.device)

    def keep(rows: Tensor) -> None:
        nonlocal so_far
        so_far = None if so_far is None else so_far[rows]

    return step, keep


def choose_way(model: Any, prompt: Prompt, hooks: Sequence[str] = ()) -> Way:
    """The fastest way in which a prompt, padded, gets the logits of computing everything anew, unpadded.

    Args:
        prompt: a short one; a few tokens are generated.
        hooks: names of hooks that must fire at every step.
    """
    device = device_of(model)
    alone = torch.tensor([list(prompt.tokens)], device=device)
    steps = (
        _PROBE_STEPS
        if (longest := context_length(model)) is None
        else min(_PROBE_STEPS, longest - alone.shape[1])
    )
    expected, said = [], alone
    for _ in range(steps):
        expected.append(last_logits(model, said, torch.ones_like(said)))
        said = torch.cat([said, expected[-1].argmax(-1, keepdim=True)], dim=1)
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    for way in WAYS[:-1]:
        try:
            wrong = _differs(
                model, way, said, alone.shape[1], expected, hooks, NATIVE_TOLERANCE.get(dtype, 0.1)
            )
        except (
            ScoreError,
            RuntimeError,
            ValueError,
            TypeError,
            AttributeError,
            NotImplementedError,
            IndexError,
            KeyError,
        ) as error:
            if is_out_of_memory(error):
                raise
            wrong = f"{type(error).__name__}: {error}"
        if not wrong:
            if way is not WAYS[0]:
                log.info("%s", way)
            return way
        log.info("not generated with %s: %s", way, wrong)
    return WAYS[-1]


def _differs(
    model: Any,
    way: Way,
    said: Int[Tensor, "1 pos"],
    start: int,
    expected: Sequence[Tensor],
    hooks: Sequence[str],
    tolerance: float,
) -> str:
    """What is wrong with the logits, step by step, of one way; empty where they are those that are expected."""
    fired = dict.fromkeys(hooks, 0)

    def counting(name: str) -> Callable[..., None]:
        def count(activation: Tensor, hook: Any) -> None:
            fired[name] += 1

        return count

    padding = _PROBE_PADDING if way.padding else 0
    tokens = torch.cat([said[:, :1].expand(1, padding), said[:, :start]], dim=1)
    mask = torch.ones_like(tokens)
    mask[:, :padding] = 0
    with (
        model.hooks(fwd_hooks=[(name, counting(name)) for name in fired]),
        _decoding(model, way) as (step, _),
    ):
        for number, right in enumerate(expected):
            logits = step(tokens, mask)
            error = float((logits - right).abs().amax() / right.abs().amax().clamp(min=1e-12))
            if not error <= tolerance:  # NaN too
                return f"logits differ by {error:.1e} at step {number}"
            tokens = said[:, start + number : start + number + 1]
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
    silent = [name for name, times in fired.items() if times < len(expected)]
    return f"the hook {silent[0]} did not fire at every step" if silent else ""
