"""What a study will take, estimated before it runs: questions, tokens, time, memory, disk. Nothing is
written."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import pandas as pd
import torch

from ..data.neurons import SITES
from ..engine import gguf
from ..engine.cloze import asked_of
from ..engine.loading import load_tokenizer, with_random_weights
from ..engine.memory import check_memory, gib
from ..engine.models import HookedModel, describe, device_of, load_model, pick_device, pick_dtype
from ..engine.probe import bytes_per_token, tokens_that_fit
from ..method.evaluation import evaluate
from ..method.score import score_neurons
from ..study.config import RIVAL, StudyConfig
from ..study.sampling import part_of, questions_expected
from ..tasks import Task
from .asking import with_parts
from .pieces import Questions, check_model, is_random, settings_of
from .pipeline import load

TIMED = {"cpu": (192, 3), "cuda": (65_536, 4), "mps": (8_192, 3)}
"""Device -> (tokens in a batch that is timed, how many such batches), after a first one that warms up."""
LONGEST = 2.0
"""Seconds after which no further batch is timed, once one is."""
COUNTED = 128
"""Questions of a task whose tokens are counted: the rest is taken to have as many to a character."""
_ROW, _FIGURE = 60, 5_000_000
"""Bytes of a row of answers in Parquet, and of a figure with Plotly's script in it."""


@dataclass(frozen=True)
class Forecast:
    """The plan of a study in numbers."""

    table: pd.DataFrame
    """One row per task and kind of pass: pass ("score", "ask", "ask random sets"), task, questions, tokens,
    times (how often it is asked), seconds."""
    scoring: float
    """Tokens per second, measured on a few batches."""
    asking: float
    weights: int
    """Bytes."""
    sums: int
    """Bytes of one task's scores."""
    batch: int
    """Bytes of the activations of a full batch, by estimate."""
    disk: int
    """Bytes, at the end and on the way."""
    expected: bool
    """Whether the number of questions for random sets is an expectation: their first set will tell."""

    @property
    def seconds(self) -> float:
        """Of all passes together."""
        return float(self.table["seconds"].sum())

    def parts(self) -> pd.DataFrame:
        """One row per kind of pass: pass, questions (all times together), seconds."""
        every = self.table.assign(questions=self.table["questions"] * self.table["times"])
        return pd.DataFrame(every.groupby("pass", sort=False, as_index=False)[["questions", "seconds"]].sum())

    @property
    def passes(self) -> float:
        """Questions that are asked in all settings together, as a multiple of one unchanged evaluation."""
        return self._passes("ask") + self.random_passes

    @property
    def random_passes(self) -> float:
        """The same of the random sets alone."""
        return self._passes("ask random sets")

    def _passes(self, kind: str) -> float:
        asked = self.table.loc[self.table["pass"] == kind]
        once = self.table.loc[self.table["pass"] == "ask", "questions"].sum()
        return float((asked["questions"] * asked["times"]).sum() / once)

    def with_all(self) -> Forecast:
        """The same study with ``--random-questions all``."""
        table = self.table.copy()
        whole = table.loc[table["pass"] == "ask"].set_index("task")
        random = table["pass"] == "ask random sets"
        for column in ("questions", "tokens"):
            table.loc[random, column] = table.loc[random, "task"].map(whole[column])
        table.loc[random, "seconds"] = table["times"] * table["tokens"] / self.asking
        return replace(self, table=table, expected=False)

    def shown(self) -> pd.DataFrame:
        """The table with times that can be read."""
        times = self.table["seconds"].map(duration)
        return self.table.assign(seconds=times).rename(columns={"seconds": "takes"})

    def __str__(self) -> str:
        every = self.with_all()
        parts = (
            f"{kind} {duration(seconds)} ({questions:,} questions)"
            for kind, questions, seconds in self.parts().itertuples(index=False)
        )
        text = (
            f"time:   about {duration(self.seconds)} ({self.scoring:,.0f} tokens per second are scored,"
            f" {self.asking:,.0f} are asked, measured on a few batches)\nparts:  {'; '.join(parts)}\npasses:"
            f" {self.passes:.1f} over the questions of one unchanged evaluation"
        )
        if every.passes > self.passes:
            text += f"; with --random-questions all {every.passes:.1f}, about {duration(every.seconds)}"
        if self.expected:
            text += (
                f"\n        that random sets take {self.random_passes:.1f} of these passes is an expectation:"
                " their first set tells, and where it changes few answers they may take less"
            )
        return (
            f"{text}\nmemory: {gib(self.weights)} of weights, {gib(self.sums)} of sums, about"
            f" {gib(self.batch)} for a batch\ndisk:   about {gib(self.disk)}"
        )


def forecast_study(config: StudyConfig) -> Forecast:
    """Loads a study's questions and model, and forecasts what it will take.

    Weights in a GGUF file are not dequantised for it, which would take longer than all the rest: time and
    memory are those of random ones of the same shapes.
    """
    check_model(config)
    questions = Questions.load(config)
    if not gguf.is_gguf(config.model) or config.device_map is not None:
        return forecast(config, load(config), questions)
    check_memory(config.model, device=config.device, dtype=config.dtype, revision=config.revision)
    where = pick_device(config.device)
    with gguf.read_once():
        alike = with_random_weights(
            config.model, pick_dtype(config.dtype, where), revision=config.revision
        ).to(where)
        tokenizer = load_tokenizer(config.model, revision=config.revision)
    return forecast(config, load_model(config.model, hf_model=alike, tokenizer=tokenizer), questions)


def forecast(config: StudyConfig, model: HookedModel, questions: Questions) -> Forecast:
    """Counts tokens, times a few batches, and estimates the rest."""
    questions = with_parts(questions, config, {})
    settings = settings_of(config, rival=RIVAL in questions.scored)
    random = sum(map(is_random, settings))
    expected = config.random_questions == "auto" and random > 0
    parts = questions.random or questions.asked
    if expected:
        count = questions_expected(questions.asked, sets=random)
        parts = tuple(part_of(task, count, seed=config.seed) for task in questions.asked)
        expected = any(len(part) < len(task) for part, task in zip(parts, questions.asked))
    culture, first = questions.scored["neuron"], questions.asked[0]
    scoring, asking = _speed(model, culture, score_neurons), _speed(model, first, evaluate)
    lengths = [_characters_to_a_token(model, task) for task in questions.asked]
    scored = tuple(questions.scored.values())
    rows = []
    for kind, tasks, characters, times, speed in (
        ("score", scored, [_characters_to_a_token(model, task) for task in scored], 1, scoring),
        ("ask", questions.asked, lengths, len(settings) - random, asking),
        ("ask random sets", parts if random else (), lengths, random, asking),
    ):
        for task, each in zip(tasks, characters):
            tokens = round(_characters(task) / each)
            rows.append((kind, task.name, len(task), tokens, times, times * tokens / speed))
    table = pd.DataFrame(rows, columns=["pass", "task", "questions", "tokens", "times", "seconds"])

    info = describe(model)
    neurons = sum(map(info.count, SITES))
    sums = {name: 4 * neurons * max(1, len(task.countries)) for name, task in questions.scored.items()}
    least = min(culture, key=lambda q: len(q.prompt))
    (shortest,) = asked_of(model, replace(culture, questions=(least,))).prompts
    per_token = bytes_per_token(model, SITES, shortest.tokens)
    asked = table.loc[table["pass"] != "score"]
    answers = int((asked["questions"] * asked["times"]).sum()) * _ROW
    return Forecast(
        table,
        scoring,
        asking,
        weights=sum(
            p.numel() * p.element_size() for p in {p.data_ptr(): p for p in model.parameters()}.values()
        ),
        sums=max(sums.values()),
        batch=int(per_token * tokens_that_fit(model, per_token)),
        disk=sum(sums.values()) + max(sums.values()) + 2 * answers + _figures() * _FIGURE,
        expected=expected,
    )


def _characters(task: Task) -> int:
    return sum(len(question.prompt) for question in task)


def _characters_to_a_token(model: HookedModel, task: Task) -> float:
    """Of a sample of the task's questions, whose tokens are counted."""
    sample = task[:: max(1, len(task) // COUNTED)]
    return _characters(sample) / sum(_lengths(model, sample))


def _lengths(model: HookedModel, task: Task) -> list[int]:
    """Tokens of each question: of its prompt or, in the cloze form, of all its rows."""
    return [sum(map(len, prompt.rows)) for prompt in asked_of(model, task, control=True).prompts]


class _Enough(Exception):
    """Enough batches are timed."""


def _speed(model: HookedModel, task: Task, run: Callable[..., Any]) -> float:
    """Tokens per second of a pass, on a few batches of questions of all lengths. The first only warms up,
    where there are more."""
    device = device_of(model)
    tokens, count = TIMED[device.type]
    few = _lengths(model, task[:: max(1, len(task) // COUNTED)])
    size = max(1, tokens * len(few) // sum(few))
    timed = task[:: max(1, len(task) // (size * (count + 1)))]
    lengths = iter(sorted(_lengths(model, timed), reverse=True))
    marks = [(time.perf_counter(), 0)]

    def advance(done: int) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if done:
            marks.append((time.perf_counter(), sum(islice(lengths, done))))
        if len(marks) > 1 + count or (len(marks) > 2 and marks[-1][0] - marks[0][0] > LONGEST):
            raise _Enough

    try:
        run(model, timed, batch_size=size, progress=advance)
    except _Enough:
        pass
    start = 1 if len(marks) > 2 else 0
    return sum(tokens for _, tokens in marks[start + 1 :]) / max(marks[-1][0] - marks[start][0], 1e-9)


def _figures() -> int:
    from ..figures.gallery import PANELS

    return len(PANELS)


def duration(seconds: float) -> str:
    """A time, readable: "40 s", "12 min", "3.5 h", "2.1 days"."""
    for size, name in ((86400, "days"), (3600, "h")):
        if seconds >= 1.5 * size:
            return f"{seconds / size:.1f} {name}"
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"
