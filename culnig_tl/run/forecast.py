"""What a study will take, estimated before it runs: questions, tokens, time, memory, disk. Nothing is
written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pandas as pd
import torch

from ..data.neurons import SITES
from ..engine.memory import gib
from ..engine.models import HookedModel, describe, device_of, tokenizer_of
from ..engine.probe import probe_gradients, tokens_that_fit
from ..engine.prompts import encode
from ..method.evaluation import evaluate
from ..method.score import score_neurons
from ..study.config import RIVAL, StudyConfig
from ..tasks import Task
from .pieces import Questions, settings_of
from .pipeline import load

TIMED = 4
"""Batches that are timed, after a first one that warms up."""
LONGEST = 20.0
"""Seconds after which no further batch is timed."""
_ROW, _FIGURE = 60, 5_000_000
"""Bytes of a row of answers in Parquet, and of a figure with Plotly's script in it."""


@dataclass(frozen=True)
class Forecast:
    """The plan of a study in numbers."""

    table: pd.DataFrame
    """One row per task and kind of pass: pass, task, questions, tokens, times (how often it is asked),
    seconds."""
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

    @property
    def seconds(self) -> float:
        """Of all passes together."""
        return float(self.table["seconds"].sum())

    def shown(self) -> pd.DataFrame:
        """The table with times that can be read."""
        times = self.table["seconds"].map(duration)
        return self.table.assign(seconds=times).rename(columns={"seconds": "takes"})

    def __str__(self) -> str:
        return (
            f"time:   about {duration(self.seconds)} ({self.scoring:,.0f} tokens per second are scored,"
            f" {self.asking:,.0f} are asked, measured on a few batches, the longest questions)\nmemory:"
            f" {gib(self.weights)} of weights, {gib(self.sums)} of sums, about {gib(self.batch)} for a"
            f" batch\ndisk:   about {gib(self.disk)}"
        )


def forecast_study(config: StudyConfig) -> Forecast:
    """Loads a study's questions and model, and forecasts what it will take."""
    questions = Questions.load(config)
    return forecast(config, load(config), questions)


def forecast(config: StudyConfig, model: HookedModel, questions: Questions) -> Forecast:
    """Counts tokens, times a few batches, and estimates the rest."""
    tokenizer = tokenizer_of(model)
    settings = len(settings_of(config, rival=RIVAL in questions.scored))
    culture, first = questions.scored["neuron"], questions.asked[0]
    size = config.batch_size
    scoring = _tokens_per_second(
        model, culture, lambda advance: score_neurons(model, culture, batch_size=size, progress=advance)
    )
    asking = _tokens_per_second(
        model, first, lambda advance: evaluate(model, first, batch_size=size, progress=advance)
    )
    rows = []
    for kind, tasks, times, speed in (
        ("score", questions.scored.values(), 1, scoring),
        ("ask", questions.asked, settings, asking),
    ):
        for task in tasks:
            tokens = sum(len(prompt.tokens) for prompt in encode(tokenizer, task.questions))
            rows.append((kind, task.name, len(task), tokens, times, times * tokens / speed))
    table = pd.DataFrame(rows, columns=["pass", "task", "questions", "tokens", "times", "seconds"])

    info = describe(model)
    neurons = info.layers * sum(info.widths.get(site, 0) for site in SITES)
    sums = {name: 4 * neurons * max(1, len(task.countries)) for name, task in questions.scored.items()}
    shortest = min(encode(tokenizer, culture.questions), key=lambda prompt: len(prompt.tokens))
    per_token = probe_gradients(model, SITES, shortest.tokens).bytes_per_token or 0.0
    answers = sum(map(len, questions.asked)) * settings * _ROW
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
    )


class _Enough(Exception):
    """Enough batches are timed."""


def _tokens_per_second(model: HookedModel, task: Task, run: Callable[[Callable[[int], None]], Any]) -> float:
    """Speed of a pass, from its first batches, which hold the longest questions. The very first only warms
    up, where there are more."""
    lengths: Iterator[int] = iter(
        sorted((len(p.tokens) for p in encode(tokenizer_of(model), task.questions)), reverse=True)
    )
    device = device_of(model)
    marks = [(time.perf_counter(), 0)]

    def advance(count: int) -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if count:
            marks.append((time.perf_counter(), sum(islice(lengths, count))))
        if len(marks) > 1 + TIMED or marks[-1][0] - marks[0][0] > LONGEST:
            raise _Enough

    try:
        run(advance)
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
