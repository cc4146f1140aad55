"""Short answers: questions answered in words, and whether the answers are right.

    result = ask_short_answers(model, load_task("blend-saq"))               # or evaluate(...), which comes here by itself
    result = ask_short_answers(model, load_task("blend-saq"), neurons=general)
    result.accuracy(by=["country", "language"])

What comes back is an ordinary `EvaluationResult`: `predicted` holds the answer's text, `correct` whether one of the accepted
answers is in it (see `culnig_tl.method.answers.matching`), `language` the language it was asked in; P(answer) is not known and NaN.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ...data.neurons import NeuronMeans, NeuronSet
from ...data.results import COLUMNS, EvaluationResult
from ...engine.checkpoint import Course, Saving
from ...engine.context import within_context
from ...engine.identity import differing, identity, model_identity
from ...engine.models import describe, device_of, frozen, hook_name, tokenizer_of
from ...engine.prompts import plan_batches
from ...engine.run import each_batch
from ...errors import ScoreError
from ...progress import Advance, progress_bar
from ...tasks.question import Task
from ..ablation import ablate, operation_name
from .analysers import Analyse, Analyser
from .generation import MAX_NEW_TOKENS, WAYS, Way, choose_way, encode_open, end_tokens, generate, text_of
from .matching import Matcher, without_prompt

log = logging.getLogger(__name__)

LANGUAGE = "language"
"""The column that these results have more than others."""


def ask_short_answers(
    model: Any,
    task: Task,
    *,
    neurons: NeuronSet | None = None,
    operation: str = "suppress",
    scale: float | None = None,
    means: NeuronMeans | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    analysers: Mapping[str, Analyser | Analyse] | None = None,
    batch_size: int | str | Sequence[int] = "auto",
    progress: bool | Advance = True,
    saving: Saving | None = None,
) -> EvaluationResult:
    """Has a model answer every question in words, and compares its answers with those that are accepted.

    Args:
        model: what `load_model` returns. A HookedTransformer works too, slowly: every token is computed without a cache.
        task: whose questions are answered in words, e.g. ``load_task("blend-saq")``.
        neurons, operation, scale, means: what is switched off meanwhile, and how, as in `evaluate`.
        max_new_tokens: an answer's tokens at most.
        analysers: your own ways to compare, by language, e.g. ``{"ha": my_stems}`` (see `culnig_tl.method.answers.analysers`).
        batch_size: questions a batch, or "auto".
        saving: where answers are saved as they come, and gone on from after a kill (see `Saving`).

    Raises:
        ScoreError: no question, questions with labels to choose from, NaN (naming the question). MatchError: a language that
            cannot be compared; before anything is asked. NeuronError: neurons that the model does not have.
    """
    if not len(task):
        raise ScoreError(f"task {task.name!r} holds no question to ask")
    if not task.short_answers:
        raise ScoreError(
            f"the questions of {task.name!r} are answered with a label, not in words: use evaluate()"
        )
    if max_new_tokens < 1:
        raise ScoreError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    matcher = Matcher(analysers)
    languages = sorted({_language(q) for q in task})
    for language in languages:
        matcher.analyse("", language)  # what is not installed is said before hours of answers
    done = operation_name(operation, scale, means)
    info, tokenizer, device = describe(model), tokenizer_of(model), device_of(model)
    prompts, too_long = within_context(model, task, encode_open(tokenizer, task.questions))
    asked = replace(task, questions=tuple(p.question for p in prompts))
    lengths = [len(p.tokens) + max_new_tokens for p in prompts]
    work = None
    if saving is not None:
        work = identity(saving.model or model_identity(model), neurons=neurons, operation=done, means=means)
    ends = end_tokens(model)

    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        stack.enter_context(frozen(model))
        if neurons is not None:
            stack.enter_context(ablate(model, neurons, operation, scale=scale, means=means))
        places = (
            [hook_name(model, site, layer) for site, layer in neurons.indices] if neurons is not None else []
        )

        def decide() -> dict[str, Any]:
            way = choose_way(model, min(prompts, key=lambda p: len(p.tokens)), places)
            plan = plan_batches(lengths, batch_size, device, padding=way.padding)
            return {"sizes": [len(batch) for batch in plan], "way": WAYS.index(way)}

        course = Course(
            {"identity": work, "questions": {task.name: task.fingerprint}, "max_new_tokens": max_new_tokens},
            saving,
            decide,
            lambda decided: plan_batches(lengths, decided["sizes"]),
        )
        way: Way = WAYS[course.decided["way"]]
        # [question, token]: each token + 1, so that 0 is where nothing was said.
        answers: Tensor = course.tensors.pop(
            "answers", torch.zeros(len(prompts), max_new_tokens, dtype=torch.int64)
        )

        def ask(batch: list[int], _: Any) -> None:
            for i, said in zip(
                batch, generate(model, [prompts[i] for i in batch], way, ends, max_new_tokens=max_new_tokens)
            ):
                answers[i, : len(said)] = torch.tensor(said, dtype=answers.dtype) + 1

        advance = stack.enter_context(progress_bar(len(prompts), f"answer {task.name}", enabled=progress))
        after = stack.enter_context(course.saved(lambda: {"answers": answers}))
        each_batch(course.plan, lengths, ask, course.advancing(advance), ledger=course.ledger, after=after)
    course.ranks.add(answers)  # each question was asked by one process alone
    texts = [text_of(tokenizer, (row[row > 0] - 1).tolist()) for row in answers]
    rest = {
        "native_attention": way.native,
        "batch_sizes": {task.name: course.sizes()},
        "max_new_tokens": {task.name: max_new_tokens},
        "cut_off": {task.name: int((answers > 0).all(1).sum())},
        "too_long": {task.name: too_long},
        **({"identity": work} if work is not None else {}),
    }
    metadata = _about(info, task, neurons, done, **rest)
    return compare_answers(asked, texts, metadata=metadata, matcher=matcher)


def ask_in_folder(
    model: Any,
    task: Task,
    sets: Mapping[str, NeuronSet | None],
    folder: str | Path,
    *,
    operation: str = "suppress",
    max_new_tokens: int = MAX_NEW_TOKENS,
    analysers: Mapping[str, Analyser | Analyse] | None = None,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> dict[str, EvaluationResult]:
    """Asks once a set (None leaves the model unchanged), and keeps each result in the folder as ``<name>.parquet``.

    Called again, it takes finished results of the same work from there and goes on with the one that was not finished.
    """
    folder, of_model = Path(folder), model_identity(model)
    results = {}
    for name, neurons in sets.items():
        file = folder / f"{name}.parquet"
        of_work = identity(of_model, neurons=neurons, operation=operation_name(operation))
        if file.is_file():
            stored = EvaluationResult.load(file)
            same = (stored.metadata.get("fingerprints"), stored.metadata.get("max_new_tokens"))
            if same == ({task.name: task.fingerprint}, {task.name: max_new_tokens}) and not differing(
                of_work, stored.metadata.get("identity")
            ):
                log.info("taken from the folder: %s", file)
                texts = stored.table["predicted"].tolist()
                asked = frozenset(stored.table["id"])
                kept = task.filter(lambda q, asked=asked: q.id in asked)
                results[name] = compare_answers(
                    kept, texts, metadata=stored.metadata, matcher=Matcher(analysers)
                )
                continue
        saving = Saving(folder / f"{name}.state", model=of_model)
        options = {
            "operation": operation,
            "max_new_tokens": max_new_tokens,
            "analysers": analysers,
            "batch_size": batch_size,
        }
        results[name] = ask_short_answers(
            model, task, neurons=neurons, progress=progress, saving=saving, **options
        )
        results[name].save(file)
        saving.remove()
    return results


def by_region(result: EvaluationResult) -> EvaluationResult:
    """The same answers with every region and language as a task of its own ("Spain, es"), for `compare` and the figures by task."""
    table = result.table
    return EvaluationResult(
        table.assign(task=table["country"].astype(str) + ", " + table[LANGUAGE].astype(str)), result.metadata
    )


def compare_answers(
    task: Task,
    texts: Sequence[str],
    *,
    metadata: Mapping[str, Any] | None = None,
    matcher: Matcher | None = None,
) -> EvaluationResult:
    """The result of answers that were already given, one a question of the task and in its order, whoever gave them.

    Raises `ScoreError` where there are more or fewer answers than questions; `MatchError` as `Matcher` does.
    """
    if len(texts) != len(task):
        raise ScoreError(f"{len(texts)} answers to the {len(task)} questions of {task.name}")
    matcher = matcher or Matcher()
    rows = []
    for q, text in zip(task, texts):
        right = matcher.matches(without_prompt(text, q.prompt), q.accepted, _language(q))
        known = {
            "task": q.task,
            "id": q.id,
            "cluster": q.cluster,
            "country": q.country,
            "group": q.group,
            "template": q.template,
        }
        nothing = float("nan")
        said = {
            "answer": q.answer,
            "predicted": text,
            "predicted_label": q.answer if right else "",
            "p_answer": nothing,
        }
        rows.append(
            {
                **known,
                **said,
                "correct": right,
                "correct_label": right,
                "alignment": nothing,
                LANGUAGE: _language(q),
            }
        )
    sources = {language: matcher.source(language) for language in sorted({_language(q) for q in task})}
    table = pd.DataFrame(rows, columns=[*COLUMNS, LANGUAGE])
    about = {"fingerprints": {task.name: task.fingerprint}, **(metadata or {})}
    return EvaluationResult(
        table,
        {**about, "analysers": {f"{task.name}, {language}": name for language, name in sources.items()}},
    )


def _language(question: Any) -> str:
    if question.language is None:
        raise ScoreError(f"question {question.id!r} is answered in words, and does not say in which language")
    return question.language
