"""Short answers: questions answered in words, and whether the answers are right.

    result = ask_short_answers(model, load_task("blend-saq"))  # or evaluate(...), which calls it
    result = ask_short_answers(model, load_task("blend-saq"), ablate=general)
    result.accuracy(by=["country", "language"])

What comes back is an ordinary `EvaluationResult`: `predicted` holds the answer's text, `correct` whether one
of the accepted answers is in it (see `matching`), `language` the language it was asked in; P(answer) is NaN.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from ... import io
from ...data.neurons import NeuronMeans, NeuronSet
from ...data.results import COLUMNS, EvaluationResult
from ...engine.checkpoint import Checkpoint
from ...engine.identity import differing, identity, model_identity
from ...engine.models import HookedModel, tokenizer_of
from ...engine.probe import Probe
from ...engine.prompts import Asked, Prompt
from ...engine.run import Batch, State, Work, run_pass
from ...errors import ScoreError
from ...progress import Advance
from ...tasks.question import Question, Task
from ..ablation import ablation_hooks, operation_name
from ..setting import about_setting
from .analysers import Analyse, Analyser
from .generation import MAX_NEW_TOKENS, WAYS, choose_way, encode_open, end_tokens, generate, text_of
from .matching import Matcher, without_prompt

log = logging.getLogger(__name__)

LANGUAGE = "language"
"""A column that only these results have."""


def ask_short_answers(
    model: HookedModel,
    task: Task,
    *,
    ablate: NeuronSet | None = None,
    scale: float = 0.0,
    to: NeuronMeans | None = None,
    max_new_tokens: int = MAX_NEW_TOKENS,
    analysers: Mapping[str, Analyser | Analyse] | None = None,
    batch_size: int | str | Sequence[int] = "auto",
    progress: bool | Advance = True,
    checkpoint: str | Path | Checkpoint | None = None,
    resume: bool = False,
) -> EvaluationResult:
    """Has the model answer every question in words, and compares its answers with the accepted ones.

    Args:
        model: what `load_model` returns. A HookedTransformer works too, but slowly: without a cache.
        task: whose questions are answered in words, e.g. ``load_task("blend-saq")``.
        ablate, scale, to, checkpoint, resume: as in `evaluate`.
        max_new_tokens: most tokens of an answer.
        analysers: your own ways to compare, by language, e.g. ``{"ha": my_stems}`` (see `analysers`).
        batch_size: questions per batch, or "auto".

    Raises:
        ScoreError: no question, questions with labels to choose from, or NaN (naming the question).
        MatchError: a language that cannot be compared; raised before anything is asked.
        NeuronError: neurons that the model does not have.
    """
    if len(task) and not task.short_answers:
        raise ScoreError(
            f"the questions of {task.name!r} are answered with a label, not in words: use evaluate()"
        )
    if max_new_tokens < 1:
        raise ScoreError(f"max_new_tokens must be at least 1, not {max_new_tokens}")
    matcher = Matcher(analysers)
    for language in sorted({_language(q) for q in task}):
        matcher.analyse("", language)  # what is not installed is said before hours of answers
    done, tokenizer, ends = operation_name(scale, to), tokenizer_of(model), end_tokens(model)
    asked = Asked.of(model, task, encode_open)
    hooks = [] if ablate is None else ablation_hooks(model, ablate, scale=scale, to=to)
    # [question, token]: each token + 1, so that 0 is where nothing was said.
    state: State = {"answers": torch.zeros(len(asked.prompts), max_new_tokens, dtype=torch.int64)}

    def probe(shortest: Prompt) -> Probe:
        way = choose_way(model, shortest, [name for name, _ in hooks])
        # `generate` sees to the kernel itself.
        return Probe(native=False, padding=way.padding, rest={"way": WAYS.index(way)})

    def step(batch: Batch, state: State) -> None:
        way = WAYS[batch.decided["way"]]
        answers = generate(model, batch.prompts, way, ends, max_new_tokens=max_new_tokens)
        for i, said in zip(batch.index, answers):
            state["answers"][i, : len(said)] = torch.tensor(said, dtype=torch.int64) + 1

    ran = run_pass(
        model, asked.whole, asked.prompts, step, state, fwd_hooks=hooks, probe=probe, batch_size=batch_size,
        lengths=[len(p.tokens) + max_new_tokens for p in asked.prompts], verb="answer", progress=progress,
        work=Work(ablate, done, to, {"max_new_tokens": max_new_tokens}),
        checkpoint=Checkpoint.of(checkpoint, resume=resume),
    )  # fmt: skip
    answers = state["answers"]
    texts = [text_of(tokenizer, (row[row > 0] - 1).tolist()) for row in answers]
    cut_off = int((answers > 0).all(1).sum())
    about = about_setting(model, asked, ablate, done, ran, max_new_tokens=max_new_tokens, cut_off=cut_off)
    about["native_attention"] = WAYS[ran.rest["way"]].native
    return compare_answers(asked.task, texts, metadata=about, matcher=matcher)


def ask_in_folder(
    model: HookedModel,
    task: Task,
    sets: Mapping[str, NeuronSet | None],
    folder: str | Path,
    *,
    scale: float = 0.0,
    max_new_tokens: int = MAX_NEW_TOKENS,
    analysers: Mapping[str, Analyser | Analyse] | None = None,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> dict[str, EvaluationResult]:
    """Asks once per set (None leaves the model unchanged); each result is kept in the folder, as
    ``<name>.parquet``.

    Called again, it reads the finished results of the same work from there and resumes the unfinished one.
    """
    folder, of_model = Path(folder), model_identity(model)
    how: dict[str, Any] = {"scale": scale, "max_new_tokens": max_new_tokens, "analysers": analysers}
    results = {}
    for name, neurons in sets.items():
        file = folder / f"{io.file_name(name)}.parquet"
        operation = operation_name(scale)
        wanted = identity(of_model, neurons=neurons, operation=operation, max_new_tokens=max_new_tokens)
        stored = _stored(file, task, wanted)
        if stored is not None:
            log.info("taken from the folder: %s", file)
            asked = frozenset(stored.table["id"])
            kept = task.filter(lambda q, asked=asked: q.id in asked)
            said = stored.table["predicted"].tolist()
            results[name] = compare_answers(kept, said, metadata=stored.metadata, matcher=Matcher(analysers))
            continue
        checkpoint = Checkpoint(file.with_suffix(".state"), model=of_model)
        how |= {"batch_size": batch_size, "progress": progress, "checkpoint": checkpoint}
        results[name] = ask_short_answers(model, task, ablate=neurons, **how)
        results[name].save(file)
        checkpoint.remove()
    return results


def _stored(file: Path, task: Task, wanted: Mapping[str, Any]) -> EvaluationResult | None:
    """What the file holds, where it is of this work."""
    if not file.is_file():
        return None
    stored = EvaluationResult.load(file)
    same = stored.metadata.get("fingerprints") == {task.name: task.fingerprint}
    return stored if same and not differing(wanted, stored.metadata.get("identity")) else None


def by_region(result: EvaluationResult) -> EvaluationResult:
    """The same answers with every region and language as a task of its own ("Spain, es"): for `compare` and
    figures."""
    table = result.table
    regions = table["country"].astype(str) + ", " + table[LANGUAGE].astype(str)
    return EvaluationResult(table.assign(task=regions), result.metadata)


def compare_answers(
    task: Task,
    texts: Sequence[str],
    *,
    metadata: Mapping[str, Any] | None = None,
    matcher: Matcher | None = None,
) -> EvaluationResult:
    """The result of answers that are there already, whoever gave them: one per question, in the task's order.

    Raises:
        ScoreError: more or fewer answers than questions. MatchError: a language that cannot be compared.
    """
    if len(texts) != len(task):
        raise ScoreError(f"{len(texts)} answers to the {len(task)} questions of {task.name}")
    matcher, nothing, rows = matcher or Matcher(), float("nan"), []
    for q, text in zip(task, texts):
        language = _language(q)
        right = matcher.matches(without_prompt(text, q.prompt), q.accepted, language)
        known = (q.task, q.id, q.cluster, q.country, q.group, q.template, q.answer)
        rows.append((*known, text, q.answer if right else "", nothing, right, right, nothing, language))
    table = pd.DataFrame(rows, columns=[*COLUMNS, LANGUAGE])
    sources = {f"{task.name}, {some}": matcher.source(some) for some in sorted({_language(q) for q in task})}
    about = {"fingerprints": {task.name: task.fingerprint}, **(metadata or {}), "analysers": sources}
    return EvaluationResult(table, about)


def _language(question: Question) -> str:
    if question.language is None:
        raise ScoreError(f"question {question.id!r} is answered in words, but does not say in which language")
    return question.language
