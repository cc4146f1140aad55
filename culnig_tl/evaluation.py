"""Evaluation: what a model answers, unchanged or with neurons switched off."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from . import __version__, files
from .ablation import ablate
from .errors import ScoreError
from .models import describe, device_of, frozen, last_logits, tokenizer_of
from .neurons import NeuronSet
from .progress import progress_bar
from .prompting import encode, pad, plan_batches
from .statistics import clustered_mean
from .tasks.question import Task

COLUMNS = (
    "task", "id", "cluster", "country", "group", "template", "answer",
    "predicted", "predicted_label", "p_answer", "correct", "correct_label",
)  # fmt: skip


@dataclass(frozen=True)
class EvaluationResult:
    """One row a prompt: what was right, what was answered, and how sure the model was.

    Columns: task, id, cluster, country, group, template, answer, predicted (the likeliest token of the whole vocabulary),
    predicted_label (the likeliest label), p_answer, correct (predicted is the answer), correct_label (among the labels alone).
    """

    table: pd.DataFrame
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.table)

    def accuracy(self, by: str | Sequence[str] | None = "task", *, labels_only: bool = False) -> pd.DataFrame:
        """Accuracy in percent with its standard error over clusters.

        Args:
            by: a column ("task", "country", "template", "group") or several; None for everything together.
            labels_only: count a prediction among the labels alone.

        Returns:
            Columns accuracy, se, p_answer, questions, clusters; one row a group.
        """
        column = "correct_label" if labels_only else "correct"
        if by is None:
            groups: Any = [("all", self.table)]
        else:
            keys = [by] if isinstance(by, str) else list(by)
            unknown = [key for key in keys if key not in self.table.columns]
            if unknown:
                raise ScoreError(f"no column {unknown[0]!r} to group by: there are {', '.join(self.table.columns)}")
            groups = self.table.groupby(keys[0] if len(keys) == 1 else keys, sort=False, dropna=True)
        rows = {}
        for name, part in groups:
            mean, se, clusters = clustered_mean(part[column].to_numpy(float), part["cluster"].to_numpy())
            rows[name] = (100 * mean, 100 * se, part["p_answer"].mean(), len(part), clusters)
        if not rows:
            raise ScoreError(f"none of the {len(self)} questions has a {by}")
        return pd.DataFrame.from_dict(rows, orient="index", columns=["accuracy", "se", "p_answer", "questions", "clusters"]).rename_axis(by if by else None)

    def __str__(self) -> str:
        setting = self.metadata.get("setting", "unchanged")
        lines = [f"{task}: {row.accuracy:.2f} ± {row.se:.2f} %, mean P(answer) {row.p_answer:.3f}, {int(row.questions):,} questions" for task, row in self.accuracy().iterrows()]
        return f"EvaluationResult ({setting})\n  " + "\n  ".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return self.accuracy().round(3).to_html()

    def save(self, path: str | Path) -> Path:
        """Writes Parquet, the metadata in its schema."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        table = pa.Table.from_pandas(self.table, preserve_index=False)
        table = table.replace_schema_metadata({**(table.schema.metadata or {}), b"culnig_tl": json.dumps(dict(self.metadata)).encode()})
        buffer = io.BytesIO()
        pq.write_table(table, buffer)
        return files.write(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> EvaluationResult:
        """Reads what `save` wrote. Raises `ScoreError` naming the file."""
        import pyarrow.parquet as pq

        path = Path(path)
        if not path.is_file():
            raise ScoreError(f"no such file of results: {path}")
        try:
            table = pq.read_table(path)
            metadata = json.loads((table.schema.metadata or {})[b"culnig_tl"])
            frame = table.to_pandas()
            return cls(frame[list(COLUMNS)], metadata)
        except (ValueError, KeyError, OSError) as error:
            raise ScoreError(f"{path} is not a file of results: {error}") from error


def evaluate(
    model: Any,
    task: Task,
    *,
    neurons: NeuronSet | None = None,
    operation: str = "suppress",
    scale: float | None = None,
    batch_size: int | str = "auto",
    progress: bool = True,
) -> EvaluationResult:
    """Asks every question of a task; a prediction is right when the likeliest token of the whole vocabulary is the label.

    Args:
        model: what `load_model` returns, or a bridge or HookedTransformer of the user's.
        task: e.g. ``load_task("blend").test_split()``.
        neurons: switched off ("suppress") or doubled ("enhance") or multiplied by `scale` meanwhile; None leaves the model unchanged.
        batch_size: questions a batch, or "auto".
    """
    if not len(task):
        raise ScoreError(f"task {task.name!r} holds no question to ask")
    info, tokenizer, device = describe(model), tokenizer_of(model), device_of(model)
    prompts = encode(tokenizer, task.questions)
    rows: list[tuple] = [()] * len(prompts)
    context = nullcontext() if neurons is None else ablate(model, neurons, operation, scale=scale)
    with torch.no_grad(), frozen(model), context, progress_bar(len(prompts), f"ask {task.name}", enabled=progress) as advance:
        for batch in plan_batches([len(p.tokens) for p in prompts], batch_size, device):
            chosen = [prompts[i] for i in batch]
            logits = last_logits(model, *pad(chosen, tokenizer, device))
            answers = torch.tensor([p.answer_token for p in chosen], device=device)
            chosen_logits = logits.gather(1, answers[:, None]).squeeze(1)
            p_answer = (chosen_logits - logits.logsumexp(-1)).exp().tolist()
            predicted = logits.argmax(-1).tolist()
            for place, prompt, p, token, row in zip(batch, chosen, p_answer, predicted, logits):
                if p != p:
                    raise ScoreError(f"question {prompt.question.id!r} of {task.name} gives NaN in {info.dtype}")
                label = max(zip(row[list(prompt.option_tokens)].tolist(), prompt.question.options), key=lambda pair: pair[0])[1]
                rows[place] = (token, label, p)
            advance(len(batch))
    texts = {token: tokenizer.decode([token]) for token in {row[0] for row in rows}}
    table = pd.DataFrame(
        [
            (q.task, q.id, q.cluster, q.country, q.group, q.template, q.answer, texts[token], label, p, token == prompt.answer_token, label == q.answer)
            for q, prompt, (token, label, p) in zip(task, prompts, rows)
        ],
        columns=list(COLUMNS),
    )
    metadata = {
        "model": info.name,
        "revision": info.revision,
        "dtype": info.dtype,
        "fingerprints": {task.name: task.fingerprint},
        "neurons": neurons.hash if neurons is not None else None,
        "operation": None if neurons is None else (operation if scale is None else f"scale {scale}"),
        "setting": "unchanged" if neurons is None else f"{neurons.provenance.kind}, {operation if scale is None else f'scale {scale}'}",
        "version": __version__,
    }
    return EvaluationResult(table, metadata)


def concat(results: Sequence[EvaluationResult]) -> EvaluationResult:
    """Results of one setting on several tasks, together."""
    first = results[0].metadata
    prints = {name: value for result in results for name, value in result.metadata["fingerprints"].items()}
    return EvaluationResult(pd.concat([r.table for r in results], ignore_index=True), {**first, "fingerprints": prints})
