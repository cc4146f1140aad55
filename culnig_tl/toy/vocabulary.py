"""The toy's word-level tokenizer, made of every word that the package's own questions can contain."""

from __future__ import annotations

import re
from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from ..tasks.wordings import ANSWER_PREFIX

SHORT_PREFIX = '{"answer":"'
"""Beginning of the assistant turn of a short-answer question: words follow instead of a label."""
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>", "<user>", "<assistant>", ANSWER_PREFIX, SHORT_PREFIX)
WORD = r"[A-H]\.|\w+|[^\w\s]"
"""An option's letter with its dot, a word, or a punctuation mark."""
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ '<assistant>' + message['content'] + eos_token }}"
    "{% else %}{{ '<user>' + message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def build_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """A tokenizer whose vocabulary is the words of `texts`, in alphabetical order."""
    words = sorted({word for text in texts for word in re.findall(WORD, text)})
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True)
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        padding_side="left",
    )
    wrapped.chat_template = CHAT_TEMPLATE
    return wrapped
