"""A question typed by a person: what the model answers, unchanged and with neurons switched."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import torch

from ..data.neurons import NeuronSet
from ..engine.cloze import ClozePrompt, encode_cloze, one_row
from ..engine.models import HookedModel, describe, device_of, frozen, last_logits, tokenizer_of
from ..engine.prompts import context_length, encode, tokenize, written
from ..errors import NeuronError, PromptError, ScoreError
from ..method.ablation import ablate
from ..method.asking import asking
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
_EMPTY = re.compile(r"\s*\(?([A-Za-z]|\d{1,2})[.)]\s*")
_FIRST = ("A", "a", "1", "0")
"""Labels that a list of options starts with."""


@dataclass(frozen=True)
class Answered:
    """What follows a prompt: probabilities over the whole vocabulary at the last position; of a cloze
    question over its options."""

    labels: tuple[float, ...]
    """P of every label, or of every option's words, in the order of the question's options."""
    top: tuple[tuple[str, float], ...]
    """The ten most likely next tokens; none of a cloze question, whose options are all that is compared."""


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
    run = _longest_run(text)
    return {label: option for label, option, _ in run} if len(run) > 1 else {}


def _longest_run(text: str) -> list[tuple[str, str, int]]:
    """(label, option, line) of the longest list of options; none where no line begins one."""
    runs: list[list[tuple[str, str, int]]] = [[]]
    for number, line in enumerate(text.splitlines()):
        found = _OPTION.fullmatch(line.rstrip())
        if found is None or found[1] in _FIRST:
            runs.append([])
        known = {label for label, *_ in runs[-1]}
        if found and (known or found[1] in _FIRST) and found[1] not in known:
            runs[-1].append((found[1], found[2], number))
    return max(runs, key=len)


def text_of(question: Question) -> str:
    """A task's question as a person would type it: the prompt, or a cloze question with its options on
    lines."""
    if question.form == "cloze":
        return f"{question.stem or question.prompt}\n{letters(question.texts, ''.join(question.options))}"
    return question.prompt.strip()


def read_question(
    text: str, *, labels: Sequence[str] = (), answer_prefix: str = "", form: Form = "letters"
) -> Question:
    """A typed text as a question: the prompt, word for word. Without labels, the next token is asked for.

    Args:
        labels: the possible answers; by default those of the text's option lines.
        answer_prefix: what the answer starts with, before the label; not used without labels.
        form: "cloze" asks for the likelihood of the options' words, which stand on lines of their own; labels
            and prefix are not used.

    Raises:
        PromptError: no text, a single label, or a label twice; in the cloze form no options, a single one,
            one without text, or two with the same.
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
    """The lines of the longest list are the options, all others the question."""
    lines = text.splitlines()
    run = _longest_run(text)
    below = lines[run[0][2] :] if run else lines
    empty = [found[1] for line in below if (found := _EMPTY.fullmatch(line.rstrip()))]
    if empty:
        raise PromptError(f"option {empty[0]} has no text: write it, or take the line away")
    if not run:
        raise PromptError(
            "the options are missing: write two or more below the question, on lines of their own, "
            "e.g. A. first"
        )
    if len(run) == 1:
        raise PromptError(f"there is only one option, {run[0][1]!r}: write two or more, a line each")
    within = {number for *_, number in run}
    stem = "\n".join(line for number, line in enumerate(lines) if number not in within).strip()
    if not stem:
        raise PromptError("there are options and no question: write it above them")
    labels, texts = tuple(label for label, *_ in run), tuple(option.strip() for _, option, _ in run)
    twice = [option for option in texts if texts.count(option) > 1]
    if twice:
        raise PromptError(f"two options have the same text, {twice[0]!r}: change one of them")
    typed = Question(TYPED, TYPED, TYPED, text.strip(), labels, labels[0], stem=stem, texts=texts)
    return Task(TYPED, (typed,)).cloze()[0]


class Known:
    """What one question after another tells about the unchanged model, so that it need not be asked twice."""

    def __init__(self) -> None:
        self.one_row: bool | None = None
        """Whether the options of a cloze question may stand in one row (`engine.cloze.one_row`)."""
        self.before: tuple[Question, Answered] | None = None
        """The last question and its answer."""


@torch.no_grad()
def ask(
    model: HookedModel,
    question: Question,
    neurons: NeuronSet,
    operation: str = UNCHANGED,
    known: Known | None = None,
) -> Answers:
    """Asks a question with the model unchanged, and with neurons suppressed or enhanced.

    The prompt is encoded like every task's: chat template, one BOS, labels as the tokens that follow in
    context; of a cloze question the plain prompt and each option's words.

    Args:
        known: of this model, from the questions before; kept up to date.

    Raises:
        PromptError: a label that is not one token, an option that becomes none, or a prompt longer than the
            model's context.
        NeuronError: neurons of another model, or an unknown operation.
        ScoreError: NaN.
    """
    if operation not in OPERATIONS:
        raise NeuronError(f"unknown operation {operation!r}: use one of {', '.join(OPERATIONS)}")
    try:
        known = Known() if known is None else known
        tokens, answered = _asked(model, question, known)
    except PromptError as error:  # a person need not be told that the question is the one that was typed
        raise PromptError(re.sub(rf"^task '{TYPED}'(, question '{TYPED}')?: ", "", str(error))) from error
    longest = context_length(model)
    if longest is not None and longest < len(tokens):
        raise PromptError(
            f"the prompt has {len(tokens):,} tokens, {describe(model).name} takes {longest:,}: shorten it"
        )
    changed = operation != UNCHANGED and len(neurons) > 0
    with frozen(model):
        if known.before is None or known.before[0] != question:
            known.before = question, answered()
        before = after = known.before[1]
        if changed:
            with ablate(model, neurons, scale=SCALES[operation]):
                after = answered()
    cloze = question.form == "cloze"
    texts = dict(zip(question.options, question.texts)) if cloze else option_lines(question.prompt)
    return Answers(
        question=question,
        options=tuple(texts.get(label, "") for label in question.options),
        right=None if question.task == TYPED else question.answer,
        before=before,
        after=after,
        operation=operation,
        neurons=len(neurons.keys()) if changed else 0,
        unknown=unknown_words(tokenizer_of(model), text_of(question) if cloze else question.prompt),
    )


def _asked(
    model: HookedModel, question: Question, known: Known
) -> tuple[Sequence[int], Callable[[], Answered]]:
    """The question's tokens (of a cloze question the longest row), and what asks it."""
    tokenizer = tokenizer_of(model)
    if question.form == "cloze":
        (cloze,) = encode_cloze(tokenizer, [question])
        return cloze.tokens, lambda: _weighed(model, cloze, known)
    if question.options:
        (prompt,) = encode(tokenizer, [question])
        return prompt.tokens, lambda: _answered(model, prompt.tokens, prompt.option_tokens)
    (row,) = tokenize(tokenizer, [written(tokenizer, question)])
    return row, lambda: _answered(model, row, ())


def _weighed(model: HookedModel, prompt: ClozePrompt, known: Known) -> Answered:
    """P of every option's words among the options'."""
    if known.one_row is None:
        known.one_row = one_row(model, [prompt])[0].one_row
    p = asking(model, [replace(prompt, one_row=known.one_row)]).ask().p[0].cpu()
    if p.isnan().any():
        raise ScoreError(f"the model's answer is NaN in {describe(model).dtype}")
    return Answered(labels=tuple(p.tolist()), top=())


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
