"""From questions to tokens: chat template, answer token, the model's context, batches of like length."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from ..errors import PromptError, ScoreError
from ..tasks.question import Question, Task
from . import chat
from .models import HookedModel, tokenizer_of

log = logging.getLogger(__name__)

CONTEXT_CHARACTERS = 24
"""Labels are tokenized again only where the prompt's last characters differ: tokenizers look no further
back."""
TOKENS_PER_BATCH = {"cpu": 4096, "cuda": 65536, "mps": 8192}
"""With batch_size="auto": most tokens in a batch, padding included. More makes no device any faster."""
EVEN = "even"
"""As a batch size: batches of prompts of one length each, without padding."""
MOST_PADDING = 0.02
"""With batch_size="auto": the share of padding that batches of half the size are preferred to."""


NAMED = 5
"""Questions too long for the model that a warning names; the metadata names all."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question as tokens."""

    question: Question
    tokens: tuple[int, ...]
    """One BOS at most, chat template and answer prefix included; the next token is the label."""
    answer_token: int
    """The right label's (first) token."""
    option_tokens: tuple[int, ...]
    """The (first) token of every label, in the order of `question.options`."""
    second_tokens: tuple[int | None, ...] = ()
    """Where a label is a number that the tokenizer splits ("10" as 1, 0): the second token of every label,
    None for labels of one token; empty where every label is one token."""

    @property
    def counted(self) -> tuple[int, ...]:
        """The tokens that count, each once."""
        return self.tokens

    @property
    def clean(self) -> tuple[int, ...]:
        """Those of the question and its options."""
        return self.tokens

    @property
    def rows(self) -> tuple[tuple[int, ...], ...]:
        """The token rows that are run for it: the prompt itself."""
        return (self.tokens,)

    @property
    def two_token_labels(self) -> tuple[str, ...]:
        """The labels that are two tokens."""
        return tuple(
            label for label, second in zip(self.question.options, self.second_tokens) if second is not None
        )


Encode = Callable[[Any, Sequence[Question]], list[Any]]
"""From (tokenizer, questions) to prompts."""


def render(tokenizer: Any, question: Question) -> str:
    """The text that the model reads: chat template where the tokenizer has one, and the start of the answer
    turn."""
    return chat.unmark(tokenizer, written(tokenizer, question))


def written(tokenizer: Any, question: Question) -> str:
    """The same for `tokenize`: what a chat template wrote has special tokens in the question's text
    marked."""
    if getattr(tokenizer, "chat_template", None):
        return chat.write(tokenizer, question)
    parts = [question.system, question.prompt]
    text = "\n\n".join(part for part in parts if part)
    # A base model continues the prompt itself: the answer starts on a line of its own.
    return f"{text}\n{question.answer_prefix}" if question.answer_prefix else text


def before_label(tokenizer: Any, question: Question, text: str) -> str:
    """What stands between a prompt's text and its label: a space where a base model's prompt ends in a
    word."""
    chat = bool(getattr(tokenizer, "chat_template", None))
    return "" if chat or question.answer_prefix or text[-1:].isspace() else " "


def encode(tokenizer: Any, questions: Sequence[Question]) -> list[Prompt]:
    """Tokens, answer token and label tokens of every question.

    A label's token is the one that follows the prompt in context: the tokens of prompt + label must be those
    of the prompt and exactly one more (two for a number such as "10" where the tokenizer splits digits).
    Raises `PromptError`, showing both, where they are not.

    Where a base model's prompt ends in a word (``Answer:``) and nothing starts the answer, the label stands
    after a space, as it would in a text; an answer turn and an `answer_prefix` are followed directly.
    """
    if not questions:
        return []
    if open_ended := next((q for q in questions if q.accepted), None):
        raise PromptError(
            f"task {open_ended.task!r} is answered in words and has no labels: take one that has, e.g. blend"
        )
    texts = [written(tokenizer, question) for question in questions]
    prompts = tokenize(tokenizer, texts)
    spaces = [before_label(tokenizer, question, text) for text, question in zip(texts, questions)]
    with_answer = tokenize(
        tokenizer, [text + space + q.answer.lstrip() for text, space, q in zip(texts, spaces, questions)]
    )
    answers = [
        _label_tokens(tokenizer, question, question.answer, *ids)
        for question, *ids in zip(questions, prompts, with_answer)
    ]

    keys = [(text[-CONTEXT_CHARACTERS:], question.options) for text, question in zip(texts, questions)]
    first = {
        key: i for i, key in reversed(list(enumerate(keys)))
    }  # a question for every end of prompt and set of labels
    asked = [(key, i, label) for key, i in first.items() for label in questions[i].options]
    with_labels = tokenize(tokenizer, [texts[i] + spaces[i] + label.lstrip() for _, i, label in asked])
    labels: dict[tuple[str, tuple[str, ...]], list[tuple[int, int | None]]] = {key: [] for key in first}
    for (key, i, label), whole in zip(asked, with_labels):
        labels[key].append(_label_tokens(tokenizer, questions[i], label, prompts[i], whole))
    for key, i in first.items():
        if len(set(labels[key])) < len(labels[key]):
            raise PromptError(
                f"task {questions[i].task!r}: two of the labels {questions[i].options} are the same token"
            )
    encoded = []
    for question, ids, (answer, _), key in zip(questions, prompts, answers, keys):
        firsts, seconds = zip(*labels[key])
        encoded.append(
            Prompt(
                question, tuple(ids), answer, firsts, seconds if any(s is not None for s in seconds) else ()
            )
        )
    log.info("first prompt's tokens: %s", tokenizer.convert_ids_to_tokens(list(encoded[0].tokens)))
    return encoded


def tokenize(tokenizer: Any, texts: list[str], *, plain: bool = False) -> list[list[int]]:
    """Token ids with exactly one BOS where the tokenizer puts one before plain text, and no EOS at the end.

    A chat template writes its special tokens itself; some write a BOS, some leave it to the tokenizer. What
    a question's own text says of special tokens is text.

    Args:
        plain: the texts are not what a chat template wrote, though the tokenizer may have one.
    """
    turns = bool(getattr(tokenizer, "chat_template", None)) and not plain
    bos, eos = tokenizer.bos_token_id, tokenizer.eos_token_id
    ids = list(tokenizer(texts, add_special_tokens=not turns, truncation=False)["input_ids"])
    for i, text in enumerate(texts):
        if turns and chat.is_marked(text):
            ids[i] = chat.tokens_of(tokenizer, text)
        elif not turns and chat.has_special(tokenizer, text):
            ids[i] = chat.as_text(tokenizer, text)
    opens = turns and bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    tidy = []
    for row in ids:
        if opens and row[:1] != [bos]:
            row = [bos, *row]
        while bos is not None and row[:2] == [bos, bos]:
            row = row[1:]
        if (
            not turns and eos is not None and eos != bos and row[-1:] == [eos]
        ):  # the label comes next, not the end
            row = row[:-1]
        tidy.append(row)
    return tidy


def _label_tokens(
    tokenizer: Any, question: Question, label: str, tokens: list[int], whole: list[int]
) -> tuple[int, int | None]:
    """A label's token and, for a number that the tokenizer splits, its second one."""
    own = whole[len(tokens) :]
    if whole[: len(tokens)] != tokens or not 1 <= len(own) <= (
        2 if len(label) > 1 and label.isdecimal() else 1
    ):
        end, seen = (tokenizer.convert_ids_to_tokens(row[-6:]) for row in (tokens, whole))
        raise PromptError(
            f"task {question.task!r}, question {question.id!r}: the label {label!r} is not one token after"
            f" the prompt: the prompt ends in {end}, with the label in {seen}"
        )
    return own[0], own[1] if len(own) > 1 else None


def context_length(model: HookedModel) -> int | None:
    """Tokens that the model was made for, by its configuration; None where it says nothing."""
    plain: Any = getattr(model, "original_model", None)
    config = getattr(plain, "config", None)
    if config is None:  # a HookedTransformer
        return int(model.cfg.n_ctx)
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    length = getattr(config, "max_position_embeddings", None)
    return int(length) if length else None


def rope_border(model: HookedModel) -> int | None:
    """Tokens up to which a model with LongRoPE (Phi-3, 128k) turns positions in another way than beyond; None
    for any other model.

    Which way is taken is decided for a whole batch, by its longest row.
    """
    plain: Any = getattr(model, "original_model", None)
    config = getattr(plain, "config", None)
    if config is None:
        return None
    config = config.get_text_config() if hasattr(config, "get_text_config") else config
    for said in (getattr(config, "rope_parameters", None), getattr(config, "rope_scaling", None)):
        if isinstance(said, dict) and said.get("rope_type", said.get("type")) == "longrope":
            own = said.get("original_max_position_embeddings")
            border = own or getattr(config, "original_max_position_embeddings", None)
            return int(border) if border else None
    return None


@dataclass(frozen=True)
class Asked:
    """What is asked of a model: the questions that fit in its context, as tokens."""

    whole: Task
    """With the questions that do not fit: what a file says that it was made from."""
    task: Task
    """The questions that fit."""
    prompts: list[Any]
    """In the task's order."""
    too_long: list[str]
    """Ids of the questions that do not fit: they are named and counted, never cut."""

    @classmethod
    def of(cls, model: HookedModel, task: Task, encoder: Encode | None = None) -> Asked:
        """The task's questions as tokens; those that are too long are named in the log.

        Args:
            encoder: from (tokenizer, questions) to prompts; by default each is answered with a label.

        Raises:
            ScoreError: no question, or none that fits. PromptError: a label that is not one token.
        """
        if not len(task):
            raise ScoreError(f"task {task.name!r} holds no question to ask")
        prompts = (encoder or encode)(tokenizer_of(model), task.questions)
        most = context_length(model)
        too_long = [p for p in prompts if most is not None and len(p.tokens) > most]
        if not too_long:
            return cls(task, task, prompts, [])
        named = ", ".join(f"{p.question.id!r} ({len(p.tokens)} tokens)" for p in too_long[:NAMED])
        more = f" and {len(too_long) - NAMED} more" if len(too_long) > NAMED else ""
        if len(too_long) == len(prompts):
            raise ScoreError(
                f"no question of {task.name} fits in the model's context of {most} tokens: {named}{more}"
            )
        log.warning(
            "%d of %d questions of %s do not fit in the model's context of %d tokens and are left out: %s%s",
            len(too_long), len(prompts), task.name, most, named, more,
        )  # fmt: skip
        fitting = [p for p in prompts if most is None or len(p.tokens) <= most]
        kept = replace(task, questions=tuple(p.question for p in fitting))
        return cls(task, kept, fitting, [p.question.id for p in too_long])


def plan_batches(
    lengths: Sequence[int],
    batch_size: int | str | Sequence[int],
    device: torch.device | str = "cpu",
    *,
    most_tokens: int | None = None,
    padding: bool = True,
    apart: Sequence[bool] | None = None,
) -> list[list[int]]:
    """Batches of question positions, alike in length, the longest first (so that too large a batch shows at
    once).

    Args:
        lengths: tokens per question.
        batch_size: questions per batch; "auto" for as many as `most_tokens` lets in (and for a batch that is
            a little smaller where that saves padding); "even" for the same, cut into batches of one length
            each; or the sizes of an earlier plan, to be replayed.
        most_tokens: tokens in a batch, padding included; None takes the device's of `TOKENS_PER_BATCH`.
        padding: False for batches of one length each.
        apart: which prompts share no batch with the others, e.g. those beyond `rope_border`.

    Raises:
        PromptError: a batch size that is none of these, or sizes that do not add up to the number of
            questions.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    if isinstance(batch_size, str):
        if batch_size not in ("auto", EVEN):
            raise PromptError(f'batch_size must be "auto", "even" or a number from 1, not {batch_size!r}')
        padding = padding and batch_size != EVEN
        sizes = _sizes_by_tokens(
            [lengths[i] for i in order], most_tokens or TOKENS_PER_BATCH[torch.device(device).type]
        )
    elif isinstance(batch_size, int):
        if batch_size < 1:
            raise PromptError(f'batch_size must be "auto" or a number from 1, not {batch_size!r}')
        sizes = [min(batch_size, len(order) - start) for start in range(0, len(order), batch_size)]
    else:
        sizes = list(batch_size)
        if sum(sizes) != len(order) or any(size < 1 for size in sizes):
            raise PromptError(
                f"the batch sizes add up to {sum(sizes)} questions, there are {len(order)}: they are of"
                " another task"
            )
    ends = list(itertools.accumulate(sizes, initial=0))
    batches = [order[start:end] for start, end in zip(ends, ends[1:])]
    if apart is not None:
        batches = [list(s) for batch in batches for _, s in itertools.groupby(batch, key=apart.__getitem__)]
    if padding:
        return batches
    return [list(even) for batch in batches for _, even in itertools.groupby(batch, key=lambda i: lengths[i])]


def _sizes_by_tokens(lengths: Sequence[int], most_tokens: int) -> list[int]:
    """Sizes of batches of falling lengths: none over `most_tokens`, and cut earlier where the padding would
    pass its share."""
    sizes = []
    start = 0
    while start < len(lengths):
        longest, real, size = lengths[start], 0, 0
        for length in lengths[start : start + max(1, most_tokens // longest)]:
            real += length
            # Past half a batch, a batch that is cut here costs less than the padding that it saves.
            if 2 * size * longest >= most_tokens and real < (1 - MOST_PADDING) * longest * (size + 1):
                break
            size += 1
        sizes.append(size)
        start += size
    return sizes


def pad(
    prompts: Sequence[Any], tokenizer: Any, device: torch.device
) -> tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"]]:
    """(tokens, mask) of the prompts' rows, padded on the left; the mask is 1 at real tokens."""
    return pad_rows([row for prompt in prompts for row in prompt.rows], tokenizer, device)


def pad_rows(
    rows: Sequence[tuple[int, ...]], tokenizer: Any, device: torch.device
) -> tuple[Int[Tensor, "row pos"], Int[Tensor, "row pos"]]:
    """(tokens, mask), padded on the left; the mask is 1 at real tokens."""
    filler = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    width = max(map(len, rows))
    tokens = [[filler] * (width - len(row)) + list(row) for row in rows]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in rows]
    return torch.tensor(tokens, device=device), torch.tensor(mask, device=device)
