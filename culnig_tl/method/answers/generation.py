"""Generation: what a model answers in words. Greedy, in batches padded on the left, with a cache of keys and
values.

A question's answer is the same alone and in any batch in float32; in bfloat16, rounding can tip the balance
between two tokens that are about equally likely. An answer ends with the model's turn; that of a base model,
which knows no turns, with its first line.

Hooks fire at every step, on the prompt's tokens and on those that the model wrote: under `ablate` the neurons
are off throughout.

Why not transformers' `generate`: it writes the same tokens, but carries finished rows along to the end of the
batch (1.3 to 2.3 times the processor time on 32 answers of different lengths), takes settings such as a
repetition penalty from the checkpoint even if it is given a configuration, and a HookedTransformer needs a
loop anyway.
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

from ...engine.models import HookedModel, device_of, last_logits, tokenizer_of
from ...engine.probe import differs
from ...engine.prompts import Prompt, context_length, pad, tokenize, written
from ...engine.run import is_out_of_memory
from ...engine.workarounds import native_attention
from ...errors import ScoreError
from ...tasks.question import Question

log = logging.getLogger(__name__)

MAX_NEW_TOKENS = 512
"""Most tokens of an answer."""
_PROBE_STEPS = 4
_PROBE_PADDING = 3


@dataclass(frozen=True)
class Way:
    """How a model generates."""

    native: bool
    """Attention runs in PyTorch's fused kernel (see `native_attention`)."""
    cached: bool
    """Keys and values are kept; otherwise every step computes all tokens anew."""
    padding: bool
    """Prompts of different lengths may share a batch."""


WAYS = (
    Way(True, True, True),
    Way(False, True, True),
    Way(False, True, False),
    Way(False, False, True),
    Way(False, False, False),
)
"""The fastest first; the last is always right."""


def encode_open(tokenizer: Any, questions: Sequence[Question]) -> list[Prompt]:
    """Tokens of questions that are answered in words: chat template, and no label."""
    if not questions:
        return []
    rows = tokenize(tokenizer, [written(tokenizer, question) for question in questions])
    log.info("first prompt's tokens: %s", tokenizer.convert_ids_to_tokens(list(rows[0])))
    return [Prompt(question, tuple(row), -1, ()) for question, row in zip(questions, rows)]


def end_tokens(model: HookedModel) -> frozenset[int]:
    """Tokens that end an answer: EOS, those of the checkpoint's generation config, and what the chat template
    puts after a turn."""
    tokenizer = tokenizer_of(model)
    config = getattr(getattr(model, "original_model", None), "generation_config", None)
    named = getattr(config, "eos_token_id", None)
    ends = {tokenizer.eos_token_id, *(named if isinstance(named, (list, tuple)) else [named])}
    return frozenset({token for token in ends if token is not None} | _turn_ends(tokenizer))


def _turn_ends(tokenizer: Any) -> set[int]:
    """The special token that follows the assistant's words in the chat template, e.g. ``<|im_end|>``."""
    if not _has_turns(tokenizer):
        return set()
    mark = "culnig"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
    try:
        text = tokenizer.apply_chat_template(turns, tokenize=False)
    except Exception as error:  # Jinja raises whatever the template's author wrote
        log.warning("the chat template cannot render an answer (%s): only EOS ends one", error)
        return set()
    after = tokenizer(text.rpartition(mark)[2], add_special_tokens=False)["input_ids"]
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {token for token in after[:1] if token in added and added[token].special}


def _has_turns(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))


def generate(
    model: HookedModel,
    prompts: Sequence[Prompt],
    way: Way,
    ends: frozenset[int],
    *,
    max_new_tokens: int = MAX_NEW_TOKENS,
) -> list[list[int]]:
    """The likeliest tokens after each prompt of one batch, one by one, without what ends them.

    A row ends at one of `ends`, with its first line where the tokenizer has no chat template, after
    `max_new_tokens`, or where the model's context is full. Rows that are done leave the batch once they are
    half of it.

    Raises:
        ScoreError: NaN (naming the question), or a way that is not possible with this model.
    """
    tokenizer, device = tokenizer_of(model), device_of(model)
    longest = context_length(model)
    most = [
        max_new_tokens if longest is None else min(max_new_tokens, longest - len(p.tokens)) for p in prompts
    ]
    line = None if _has_turns(tokenizer) else _Line(tokenizer, len(prompts))
    said: list[list[int]] = [[] for _ in prompts]
    rows = [row for row in range(len(prompts)) if most[row] > 0]  # the prompt of every row of the batch
    going = list(range(len(rows)))  # the rows of the batch that are not done
    if not rows:
        return said
    tokens, mask = pad([prompts[row] for row in rows], tokenizer, device)
    with decoding(model, way) as decoder:
        while True:
            logits = decoder.step(tokens, mask)
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
                decoder.keep(at)


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
    """An answer's tokens as text, without special tokens; of a base model, the first line alone."""
    text = tokenizer.decode(list(tokens), skip_special_tokens=True).strip()
    return text if _has_turns(tokenizer) else text.partition("\n")[0].strip()


# --------------------------------------------------------------------------------------------------- one step


class Decoder:
    """The next token's logits, step after step.

    With a cache it is the Hugging Face model's own: the bridge's hooks sit inside that model and fire.
    Without one, all tokens are computed anew: a HookedTransformer's cache does not know left padding in all
    versions.
    """

    def __init__(self, model: Any, *, cached: bool) -> None:
        self._model, self._cached = model, cached
        self._cache: Any = None
        self._so_far: Tensor | None = None

    def step(
        self, tokens: Int[Tensor, "batch new"], mask: Int[Tensor, "batch pos"]
    ) -> Float[Tensor, "batch vocab"]:
        """Logits after these new tokens, in float32 or wider; `mask` is that of all tokens so far."""
        if not self._cached:
            self._so_far = tokens if self._so_far is None else torch.cat([self._so_far, tokens], dim=1)
            return last_logits(self._model, self._so_far, mask).to(mask.device)
        out = self._model.original_model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :],
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = out.past_key_values
        return out.logits[:, -1].to(mask.device, torch.promote_types(out.logits.dtype, torch.float32))

    def keep(self, rows: Int[Tensor, " kept"]) -> None:
        """Only these rows stay in the batch."""
        if self._cached:
            self._cache.batch_select_indices(rows)
        elif self._so_far is not None:
            self._so_far = self._so_far[rows]


@contextmanager
def decoding(model: HookedModel, way: Way) -> Iterator[Decoder]:
    """A decoder of one batch. Raises `ScoreError` where native attention is asked for and is not possible."""
    with native_attention(model, way.native) as native:
        if way.native and not native:
            raise ScoreError("native attention is not possible with this model")
        yield Decoder(model, cached=way.cached)


# -------------------------------------------------------------------------------------------------- which way


@torch.no_grad()
def choose_way(model: HookedModel, prompt: Prompt, hooks: Sequence[str] = ()) -> Way:
    """The fastest way in which a padded prompt gets the logits of computing everything anew, unpadded.

    Args:
        prompt: a short one; a few tokens are generated.
        hooks: names of hooks that must fire at every step.
    """
    said = torch.tensor([list(prompt.tokens)], device=device_of(model))
    longest = context_length(model)
    steps = _PROBE_STEPS if longest is None else min(_PROBE_STEPS, longest - said.shape[1])
    expected: list[Tensor] = []
    for _ in range(steps):
        expected.append(last_logits(model, said, torch.ones_like(said)))
        said = torch.cat([said, expected[-1].argmax(-1, keepdim=True)], dim=1)
    for way in WAYS[:-1]:
        try:
            wrong = _what_is_wrong(model, way, said, expected, hooks)
        except Exception as error:  # whatever the model's own code raises where it has no cache
            if is_out_of_memory(error):
                raise
            wrong = f"{type(error).__name__}: {error}"
        if not wrong:
            return way
        log.info("not generated with %s: %s", way, wrong)
    return WAYS[-1]


def _what_is_wrong(
    model: HookedModel,
    way: Way,
    said: Int[Tensor, "1 pos"],
    expected: Sequence[Float[Tensor, "1 vocab"]],
    hooks: Sequence[str],
) -> str:
    """Empty where every step, on tokens that are given, has the expected logits and all hooks fire; else what
    is not so."""
    fired = dict.fromkeys(hooks, 0)

    def counting(name: str) -> Callable[..., None]:
        def count(activation: Tensor, hook: Any) -> None:
            fired[name] += 1

        return count

    start, padding = said.shape[1] - len(expected), _PROBE_PADDING if way.padding else 0
    tokens = torch.cat([said[:, :1].expand(1, padding), said[:, :start]], dim=1)
    mask = torch.ones_like(tokens)
    mask[:, :padding] = 0
    with (
        model.hooks(fwd_hooks=[(name, counting(name)) for name in fired]),
        decoding(model, way) as decoder,
    ):
        for number, right in enumerate(expected):
            if wrong := differs(model, decoder.step(tokens, mask), right):
                return f"{wrong} at step {number}"
            tokens = said[:, start + number : start + number + 1]
            mask = torch.cat([mask, torch.ones_like(tokens)], dim=1)
    silent = [name for name, times in fired.items() if times < len(expected)]
    return f"the hook {silent[0]} did not fire at every step" if silent else ""
