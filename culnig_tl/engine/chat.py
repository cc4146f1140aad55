"""What a chat template writes around a question: its special tokens are the template's, those in the
question's own text stay text, and a thought that it opens is closed before the answer.
"""

from __future__ import annotations

import copy
import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from ..errors import PromptError
from ..io import first_line
from ..tasks.question import Question

log = logging.getLogger(__name__)

_START, _END = "\ue000", "\ue001"
"""Private characters that stand around the number of a special token's text inside a question."""
_MARKED = re.compile(f"{_START}([0-9]+){_END}")
_THOUGHT = re.compile(r"[<\[][^<>\[\]\s]*(?:think|thought|reason)[^<>\[\]\s]*[>\]]", re.IGNORECASE)
"""A tag that opens or closes a thought: <think>, [THINK], <|START_THINKING|>."""
_CLOSES = re.compile(r"/|\bend|_end|end_|no_", re.IGNORECASE)
_HARMONY, _FINAL = "<|start|>assistant", "<|channel|>final<|message|>"
"""Where GPT-OSS' template leaves the model to choose a channel, and the one that answers."""


def write(tokenizer: Any, question: Question) -> str:
    """The text that the model reads, with special tokens in the question's own text marked: for `tokens_of`.

    Raises `PromptError` where the chat template fails.
    """
    user, system = (mark(tokenizer, text) for text in (question.prompt, question.system or ""))
    messages = [{"role": "user", "content": user}]
    if system:
        messages.insert(0, {"role": "system", "content": system})
    ways = [messages]
    if system:  # templates without a system role (Gemma 2) refuse it: put it before the prompt
        ways.append([{"role": "user", "content": f"{system}\n\n{user}"}])
    failed: Exception | None = None
    for messages in ways:
        try:
            text = _applied(tokenizer, messages)
            return text + _closing(tokenizer, messages, text) + question.answer_prefix
        except Exception as error:  # Jinja raises whatever the template's author wrote
            failed = error
    assert failed is not None
    raise PromptError(
        f"the chat template fails on question {question.id!r}: {first_line(failed)}"
    ) from failed


def _applied(tokenizer: Any, messages: Sequence[dict[str, str]], *, answer: bool = True) -> str:
    return tokenizer.apply_chat_template(
        messages, add_generation_prompt=answer, tokenize=False, enable_thinking=False
    )


# ------------------------------------------------------------------------------------------- special tokens


@lru_cache(maxsize=8)
def _specials(tokenizer: Any, size: int) -> tuple[str, ...]:
    """The texts of a tokenizer's special tokens, the longest first; `size` is its number of tokens."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    return tuple(
        sorted({token.content for token in added if token.special}, key=lambda text: (-len(text), text))
    )


def _pattern(tokenizer: Any) -> re.Pattern[str] | None:
    texts = _specials(tokenizer, len(tokenizer))
    return re.compile("|".join(map(re.escape, texts))) if texts else None


def mark(tokenizer: Any, text: str) -> str:
    """The text with a mark in place of what would be read as a special token."""
    pattern = _pattern(tokenizer)
    if pattern is None or pattern.search(text) is None:
        return text
    numbers = {special: i for i, special in enumerate(_specials(tokenizer, len(tokenizer)))}
    return pattern.sub(lambda found: f"{_START}{numbers[found[0]]}{_END}", text)


def unmark(tokenizer: Any, text: str) -> str:
    """The text as people read it."""
    texts = _specials(tokenizer, len(tokenizer)) if _START in text else ()
    return _MARKED.sub(lambda found: texts[int(found[1])], text) if texts else text


def has_special(tokenizer: Any, text: str) -> bool:
    """Whether something in the text would be read as a special token."""
    pattern = _pattern(tokenizer)
    return pattern is not None and pattern.search(text) is not None


def as_text(tokenizer: Any, text: str) -> list[int]:
    """Token ids of plain text, whatever special tokens it names; what the tokenizer adds around is added."""
    return list(tokenizer(text, truncation=False, split_special_tokens=True)["input_ids"])


def is_marked(text: str) -> bool:
    return _START in text


def tokens_of(tokenizer: Any, text: str) -> list[int]:
    """Token ids of what `write` gave where it holds marks: the template's special tokens are tokens, marked
    ones are text.

    A copy of the tokenizer has an ordinary token in place of every special one of the template; then nothing
    in the text is special.
    """
    twin, ids = _twin(tokenizer, len(tokenizer))
    pattern = _pattern(tokenizer)
    assert pattern is not None
    numbers = {special: i for i, special in enumerate(_specials(tokenizer, len(tokenizer)))}
    plain = unmark(tokenizer, pattern.sub(lambda found: _stand_in(numbers[found[0]]), text))
    found = twin(plain, add_special_tokens=False, truncation=False, split_special_tokens=True)["input_ids"]
    return [ids[token] if token in ids else int(token) for token in found]


def _stand_in(number: int) -> str:
    return f"\ue002{number}\ue003"


@lru_cache(maxsize=4)
def _twin(tokenizer: Any, size: int) -> tuple[Any, dict[int, int]]:
    """(a copy with an ordinary token beside every special one, ordinary token's id -> the special one's)."""
    from transformers import AddedToken

    twin, ids = copy.deepcopy(tokenizer), {}
    known = {token.content: (i, token) for i, token in tokenizer.added_tokens_decoder.items()}
    for number, text in enumerate(_specials(tokenizer, size)):
        own, token = known[text]
        kept = {"lstrip": token.lstrip, "rstrip": token.rstrip, "single_word": token.single_word}
        twin.add_tokens([AddedToken(_stand_in(number), normalized=False, special=False, **kept)])
        ids[twin.convert_tokens_to_ids(_stand_in(number))] = own
    return twin, ids


# ------------------------------------------------------------------------------------------------ thoughts


def _closing(tokenizer: Any, messages: Sequence[dict[str, str]], text: str) -> str:
    """What closes the thought that the template opens for the answer; empty where it opens none."""
    if text.rstrip().endswith(_HARMONY) and "<|channel|>" in tokenizer.get_vocab():
        _say_closed(_HARMONY, _FINAL)
        return _FINAL
    if not _THOUGHT.search(text[-200:]):
        return ""
    before = _applied(tokenizer, messages, answer=False)
    written = text[len(before) :] if text.startswith(before) else text[-200:]
    tags = [tag for tag in _THOUGHT.findall(written)]
    if not tags or _CLOSES.search(tags[-1]):
        return ""
    closing = _closes(tags[-1])
    if closing not in tokenizer.get_vocab() and closing not in str(tokenizer.chat_template):
        _say_open(tags[-1])
        return ""
    _say_closed(tags[-1], closing)
    return f"\n{closing}\n\n" if text.endswith("\n") else closing


def _closes(tag: str) -> str:
    """The tag that closes a thought: </think>, [/THINK], <|END_THINKING|>."""
    for start, end in (("START", "END"), ("start", "end"), ("BEGIN", "END"), ("begin", "end")):
        if start in tag:
            return tag.replace(start, end)
    at = 2 if tag.startswith("<|") else 1
    return f"{tag[:at]}/{tag[at:]}"


@lru_cache(maxsize=32)
def _say_closed(tag: str, closing: str) -> None:
    """Once a process."""
    log.warning(
        "the chat template leaves the model to think first (%s): it is closed (%s) before the answer, because"
        " the next token has to be the answer's; a model trained to think may answer worse so",
        tag,
        closing.strip(),
    )


@lru_cache(maxsize=32)
def _say_open(tag: str) -> None:
    """Once a process."""
    log.warning(
        "THE CHAT TEMPLATE OPENS A THOUGHT (%s) and nothing is known that closes it: what follows is the"
        " model's thought, not its answer, and P(answer) says nothing of what it knows",
        tag,
    )
