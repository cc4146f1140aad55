"""A question typed by a person: what the model answers, unchanged and with neurons switched."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from ..data.neurons import NeuronSet
from ..engine.cloze import ClozePrompt, encode_cloze, log_likelihoods
from ..engine.models import HookedModel, describe, device_of, frozen, last_logits, tokenizer_of
from ..engine.prompts import context_length, encode, render, tokenize
from ..errors import NeuronError, PromptError, ScoreError
from ..method.ablation import ablate
from ..method.cloze import priors, probabilities
from ..study.config import UNCHANGED
from ..tasks.question import Form, Question, Task, letters

TYPED = "typed"
"""Task, id and cluster of a typed question."""
SCALES = {"suppress": 0.0, "enhance": 2.0}
"""What can be done to neurons -> what their outputs are multiplied by."""
OPERATIONS = (UNCHANGED, *SCALES)
TOP = 10
"""Next tokens shown."""
_OPTION = re.compile(r"\s*\(?([A-Za-z]|\d{1,2})[.)]\s*(\S.*)")
_FIRST = ("A", "a", "1", "0")
"""Labels that a list of options starts with."""


@dataclass(frozen=True)
class Answered:
    """What follows a prompt: probabilities over the whole vocabulary at the last position."""

    labels: tuple[float, ...]
    """P of every label, in the order of the question's options."""
    top: tuple[tuple[str, float], ...]
    """The ten most likely next tokens; of a cloze question its options' words."""


@dataclass(frozen=True)
class Answers:
    """A question's answers before and after."""

    question: Question
    options: tuple[str, ...]
    """The text behind each label; blank where the prompt has no such line."""
    right: str | None
    """The right label; None for a typed question."""
    before: Answered
    after: Answered
    operation: str
    """"unchanged", "suppress" or "enhance"."""
    neurons: int
    """How many were suppressed or enhanced."""
    unknown: tuple[str, ...] = ()
    """Words that the tokenizer does not know."""

    def to_dataframe(self) -> pd.DataFrame:
        """One row per label: label, option, before, after."""
        labels = zip(self.question.options, self.options, self.before.labels, self.after.labels)
        return pd.DataFrame(labels, columns=["label", "option", "before", "after"])


def option_lines(text: str) -> dict[str, str]:
    """Label -> option of lines like ``A. first``, ``B) second``, ``(3) third``: the longest run, from two."""
    runs: list[dict[str, str]] = [{}]
    for line in text.splitlines():
        found = _OPTION.fullmatch(line.rstrip())
        if found is None or found[1] in _FIRST:
            runs.append({})
        if found and (runs[-1] or found[1] in _FIRST) and found[1] not in runs[-1]:
            runs[-1][found[1]] = found[2]
    longest = max(runs, key=len)
    return longest if len(longest) > 1 else {}


def text_of(question: Question) -> str:
    """A task's question as a person would type it: the prompt, or a cloze question with its options on
    lines."""
    if question.form == "cloze":
        return f"{question.stem}\n{letters(question.texts, ''.join(question.options))}"
    return question.prompt.strip()


def read_question(
    text: str, *, labels: Sequence[str] = (), answer_prefix: str = "", form: Form = "letters"
) -> Question:
    """A typed text as a question: the prompt, word for word. Without labels, the next token is asked for.

    Args:
        form: "cloze" asks for the likelihood of the options' words; they stand on lines of their own.
        labels: the possible answers; by default those of the text's option lines.
        answer_prefix: what the answer starts with, before the label; not used without labels.

    Raises:
        PromptError: no text, a single label, or a label twice.
    """
    if not text.strip():
        raise PromptError(
            "no question is typed: write one, with its options on lines of their own, e.g. A. first"
        )
    if form == "cloze":
        return _read_cloze(text)
    options = tuple(labels) or tuple(option_lines(text))
    if len(options) == 1:
        raise PromptError(
            f"there is only one label, {options[0]!r}: give two or more, or none for the next token"
        )
    if len(set(options)) < len(options):
        raise PromptError(f"a label occurs twice in {', '.join(options)}")
    answer = (
        options[0] if options else ""
    )  # a typed question has no right answer, but encode needs one of the labels
    return Question(
        TYPED, TYPED, TYPED, text.strip(), options, answer, answer_prefix=answer_prefix if options else ""
    )


def _read_cloze(text: str) -> Question:
    lines = option_lines(text)
    if not lines:
        raise PromptError(
            "a question in the cloze form needs its options on lines of their own, e.g. A. first"
        )
    stem = "\n".join(
        line for line in text.splitlines() if line.strip() and not _OPTION.fullmatch(line.rstrip())
    )
    if not stem:
        raise PromptError("there are options and no question: write it above them")
    options = tuple(lines)
    typed = Question(TYPED, TYPED, TYPED, text, options, options[0], stem=stem, texts=tuple(lines.values()))
    asked = Task(TYPED, (typed,)).cloze()
    if not len(asked):
        raise PromptError("two options have the same text: change one of them")
    return asked[0]


@torch.no_grad()
def ask(model: HookedModel, question: Question, neurons: NeuronSet, operation: str = UNCHANGED) -> Answers:
    """Asks a question with the model unchanged, and with neurons suppressed or enhanced.

    The prompt is encoded like every task's: chat template, one BOS, labels as the tokens that follow in
    context.

    Raises:
        PromptError: a label that is not one token, or a prompt longer than the model's context.
        NeuronError: neurons of another model, or an unknown operation.
        ScoreError: NaN.
    """
    if operation not in OPERATIONS:
        raise NeuronError(f"unknown operation {operation!r}: use one of {', '.join(OPERATIONS)}")
    tokenizer = tokenizer_of(model)
    if question.form == "cloze":
        (cloze,) = encode_cloze(tokenizer, [question])
        tokens, answered = cloze.tokens, lambda: _weighed(model, cloze)
    elif question.options:
        try:
            (prompt,) = encode(tokenizer, [question])
        except PromptError as error:  # a person need not be told that the question is the one that was typed
            raise PromptError(re.sub(rf"^task '{TYPED}'(, question '{TYPED}')?: ", "", str(error))) from error
        tokens, answered = prompt.tokens, lambda: _answered(model, prompt.tokens, prompt.option_tokens)
    else:
        (row,) = tokenize(tokenizer, [render(tokenizer, question)])
        tokens, answered = tuple(row), lambda: _answered(model, row, ())
    longest = context_length(model)
    if longest is not None and longest < len(tokens):
        raise PromptError(
            f"the prompt has {len(tokens):,} tokens, {describe(model).name} takes {longest:,}: shorten it"
        )
    changed = operation != UNCHANGED and len(neurons) > 0
    with frozen(model):
        before = after = answered()
        if changed:
            with ablate(model, neurons, scale=SCALES[operation]):
                after = answered()
    texts = (
        option_lines(question.prompt)
        if question.form == "letters"
        else dict(zip(question.options, question.texts))
    )
    return Answers(
        question=question,
        options=tuple(texts.get(label, "") for label in question.options),
        right=None if question.task == TYPED else question.answer,
        before=before,
        after=after,
        operation=operation,
        neurons=len(neurons.keys()) if changed else 0,
        unknown=unknown_words(tokenizer, question.prompt),
    )


def _weighed(model: HookedModel, prompt: ClozePrompt) -> Answered:
    """P of every option's words, less their likelihood without the question."""
    ll = log_likelihoods(model, prompt.rows, prompt.texts)[None]
    p = probabilities(ll, priors(model, [prompt]).to(ll), [prompt], "unconditional")[0].cpu()
    if p.isnan().any():
        raise ScoreError(f"the model's answer is NaN in {describe(model).dtype}")
    ranked = sorted(zip(prompt.question.texts, p.tolist()), key=lambda pair: -pair[1])
    return Answered(labels=tuple(p.tolist()), top=tuple(ranked[:TOP]))


def _answered(model: HookedModel, tokens: Sequence[int], labels: Sequence[int]) -> Answered:
    row = torch.tensor([list(tokens)], device=device_of(model))
    p = last_logits(model, row, torch.ones_like(row))[0].softmax(-1).cpu()
    if p.isnan().any():
        raise ScoreError(f"the model's answer is NaN in {describe(model).dtype}")
    best = p.topk(min(TOP, len(p)))
    tokenizer = tokenizer_of(model)
    return Answered(
        labels=tuple(float(p[label]) for label in labels),
        top=tuple((tokenizer.decode([int(i)]), float(v)) for v, i in zip(best.values, best.indices)),
    )


def unknown_words(tokenizer: Any, text: str) -> tuple[str, ...]:
    """The words that the tokenizer has no token for; none if it spells out everything."""
    unknown = getattr(tokenizer, "unk_token_id", None)
    if unknown is None or not getattr(tokenizer, "is_fast", False):
        return ()
    read = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    words = [
        text[start:end]
        for token, (start, end) in zip(read["input_ids"], read["offset_mapping"])
        if token == unknown
    ]
    return tuple(dict.fromkeys(word for word in words if word.strip()))
