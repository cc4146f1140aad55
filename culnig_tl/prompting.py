"""From questions to tokens: chat template, answer token, length-bucketed batches."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from .errors import PromptError
from .tasks.question import Question

log = logging.getLogger(__name__)

CONTEXT_CHARACTERS = 24
"""Labels are tokenized again only where the prompt's last characters differ: tokenizers look no further back."""
TOKENS_A_BATCH = {"cpu": 4096, "cuda": 32768, "mps": 8192}
"""With batch_size="auto": tokens in a batch, padding included."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as tokens."""

    question: Question
    tokens: tuple[int, ...]
    """One BOS at most, chat template and answer prefix included; the next token is the label."""
    answer_token: int
    option_tokens: tuple[int, ...]
    """One a label, in the order of `question.options`."""


def render(tokenizer: Any, question: Question) -> str:
    """The text that the model reads: chat template where the tokenizer has one, and the start of the answer turn."""
    if not getattr(tokenizer, "chat_template", None):
        parts = [question.system, question.prompt]
        text = "\n\n".join(part for part in parts if part)
        # A base model goes on from the prompt itself: the answer starts on a line of its own.
        return f"{text}\n{question.answer_prefix}" if question.answer_prefix else text
    user = {"role": "user", "content": question.prompt}
    messages = [{"role": "system", "content": question.system}, user] if question.system else [user]
    try:
        text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False, enable_thinking=False)
    except Exception as error:  # Jinja raises whatever the template's author wrote
        if not question.system:
            raise PromptError(f"the chat template fails on question {question.id!r}: {error}") from error
        # Templates without a system role (Gemma 2) refuse it: put it before the prompt.
        merged = {"role": "user", "content": f"{question.system}\n\n{question.prompt}"}
        text = tokenizer.apply_chat_template([merged], add_generation_prompt=True, tokenize=False, enable_thinking=False)
    return text + question.answer_prefix


def encode(tokenizer: Any, questions: Sequence[Question]) -> list[Prompt]:
    """Tokens, answer token and label tokens of every question.

    A label's token is the one that follows the prompt in context: the tokens of prompt + label must be those of the
    prompt and exactly one more. Raises `PromptError`, showing both, where they are not.
    """
    if not questions:
        return []
    texts = [render(tokenizer, question) for question in questions]
    prompts = _tokenize(tokenizer, texts)
    known: dict[tuple, tuple[int, ...]] = {}
    encoded = []
    with_answer = _tokenize(tokenizer, [text + question.answer for text, question in zip(texts, questions)])
    for question, text, tokens, whole in zip(questions, texts, prompts, with_answer):
        answer = _label_token(tokenizer, question, question.answer, tokens, whole)
        key = (text[-CONTEXT_CHARACTERS:], question.options)
        if key not in known:
            labelled = _tokenize(tokenizer, [text + label for label in question.options])
            known[key] = tuple(_label_token(tokenizer, question, label, tokens, ids) for label, ids in zip(question.options, labelled))
        options = known[key]
        if len(set(options)) < len(options):
            raise PromptError(f"task {question.task!r}: two of the labels {question.options} are the same token")
        encoded.append(Prompt(question, tuple(tokens), answer, options))
    log.info("first prompt's tokens: %s", tokenizer.convert_ids_to_tokens(list(encoded[0].tokens)))
    return encoded


def _tokenize(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Token ids with exactly one BOS where the tokenizer uses one."""
    chat = bool(getattr(tokenizer, "chat_template", None))
    ids = tokenizer(texts, add_special_tokens=not chat, truncation=False)["input_ids"]
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    tidy = []
    for row in ids:
        while bos is not None and row[:2] == [bos, bos]:
            row = row[1:]
        if not chat and eos is not None and eos != bos and row[-1:] == [eos]:  # the label comes next, not the end
            row = row[:-1]
        tidy.append(row)
    return tidy


def _label_token(tokenizer: Any, question: Question, label: str, tokens: list[int], whole: list[int]) -> int:
    if whole[:-1] != tokens:
        end, seen = (tokenizer.convert_ids_to_tokens(row[-6:]) for row in (tokens, whole))
        raise PromptError(
            f"task {question.task!r}, question {question.id!r}: the label {label!r} is not one token after the prompt: "
            f"the prompt ends in {end}, with the label in {seen}"
        )
    return whole[-1]


def plan_batches(lengths: Sequence[int], batch_size: int | str, device: torch.device | str = "cpu") -> list[list[int]]:
    """Batches of question positions, alike in length, the longest first (so that too large a batch shows at once).

    Args:
        lengths: tokens a question.
        batch_size: questions a batch, or "auto" for as many as `TOKENS_A_BATCH` lets in.
    """
    if isinstance(batch_size, str) and batch_size != "auto" or isinstance(batch_size, int) and batch_size < 1:
        raise PromptError(f'batch_size must be "auto" or a number from 1, not {batch_size!r}')
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    batches: list[list[int]] = []
    start = 0
    while start < len(order):
        longest = lengths[order[start]]
        size = max(1, TOKENS_A_BATCH[torch.device(device).type] // longest) if batch_size == "auto" else int(batch_size)
        batches.append(order[start : start + size])
        start += size
    return batches


def pad(prompts: Sequence[Prompt], tokenizer: Any, device: torch.device) -> tuple[Int[Tensor, "batch pos"], Int[Tensor, "batch pos"]]:
    """(tokens, mask), padded on the left; the mask is 1 at real tokens."""
    filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    width = max(len(p.tokens) for p in prompts)
    rows = [[filler] * (width - len(p.tokens)) + list(p.tokens) for p in prompts]
    mask = [[0] * (width - len(p.tokens)) + [1] * len(p.tokens) for p in prompts]
    return torch.tensor(rows, device=device), torch.tensor(mask, device=device)
