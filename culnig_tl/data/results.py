"""`EvaluationResult`: what was asked and answered, accuracy with its errors, and the file."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from .. import io
from ..errors import ScoreError
from ..names import which
from ..tasks.question import Task
from .statistics import clustered_mean

COLUMNS = (
    "task",
    "id",
    "cluster",
    "country",
    "group",
    "template",
    "answer",
    "predicted",
    "predicted_label",
    "p_answer",
    "correct",
    "correct_label",
    "alignment",
)

CLOZE = ("labels", "texts", "log_likelihoods", "priors")
"""Columns of answers to cloze questions: each option's label and words, their log-likelihood, and that after
the control."""
OTHERS = ("language", *CLOZE)
"""Columns that only some results have: the language of an answer in words, and those of the cloze form."""
_TYPES = {
    "template": "int64",
    "p_answer": "double",
    "correct": "bool",
    "correct_label": "bool",
    "alignment": "double",
}
"""Columns that are not text -> their type in Parquet."""
_DTYPES = {"int64": "int64", "double": "float64", "bool": "bool"}


@dataclass(frozen=True)
class EvaluationResult:
    """One row per prompt: the right answer, the model's answer, and how sure it was.

    Columns: task, id, cluster, country, group, template, answer, predicted (the likeliest token of the
    vocabulary), predicted_label (the likeliest label), p_answer, correct (predicted is the answer),
    correct_label (predicted_label is), alignment (0 to 100, how near the predicted answer is to the right
    one, for tasks with that metric; else NaN).
    """

    table: pd.DataFrame
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # pandas 3 has a type of its own for text that comes from lists; from a file it is an object
        words = [name for name, kind in self.table.dtypes.items() if isinstance(kind, pd.StringDtype)]
        if words:
            texts = self.table[words].astype(object)
            plain = self.table.assign(
                **{name: texts[name].where(texts[name].notna(), None) for name in words}
            )
            object.__setattr__(self, "table", self.table.assign(**plain))

    def __len__(self) -> int:
        return len(self.table)

    @property
    def splits(self) -> dict[str, str]:
        """Task -> which of its questions were asked: "neuron", "test", or "all" of them."""
        return dict(self.metadata.get("splits", {}))

    @property
    def asked(self) -> pd.DataFrame:
        """[question] the columns task and id."""
        return pd.DataFrame(self.table[["task", "id"]])

    def values(self, task: str) -> np.ndarray:
        """[question] a task's answers, right (1) or wrong (0); their alignment, 0 to 1, if they have one."""
        rows = self.table.loc[self.table["task"] == task]
        if len(rows) and rows["alignment"].notna().all():
            return rows["alignment"].to_numpy(float) / 100
        return rows["correct"].to_numpy(float)

    def of_task(self, task: str) -> EvaluationResult:
        """The answers to one task's questions, with what is said of that task."""
        said = {
            key: {task: value[task]} if isinstance(value, dict) and task in value else value
            for key, value in self.metadata.items()
        }
        rows = self.table.loc[self.table["task"] == task]
        unused = [name for name in OTHERS if name in rows and rows[name].isna().all()]
        return EvaluationResult(rows.drop(columns=unused), said)

    def shared_with(self, other: EvaluationResult) -> EvaluationResult:
        """The answers to questions that `other` holds too, in their order here."""
        mine, theirs = (pd.MultiIndex.from_frame(r.asked) for r in (self, other))
        return EvaluationResult(self.table.loc[mine.isin(theirs)], self.metadata)

    def accuracy(self, by: str | Sequence[str] | None = "task", *, labels_only: bool = False) -> pd.DataFrame:
        """Accuracy in percent with its standard error over clusters.

        Args:
            by: a column ("task", "country", "template", "group") or several; None for everything together.
            labels_only: take the likeliest label as the answer, whatever token is likelier.

        Returns:
            Columns accuracy, se, p_answer, questions, clusters; one row per group.
        """
        column = "correct_label" if labels_only else "correct"
        return self._grouped(by, column).rename(columns={"mean": "accuracy"})

    def alignment(self, by: str | Sequence[str] | None = "task") -> pd.DataFrame:
        """Mean alignment (WorldValuesBench), 0 to 100, with its standard error over clusters.

        Returns:
            Columns alignment, se, p_answer, questions, clusters; one row per group.

        Raises:
            ScoreError: no answer is scored by alignment.
        """
        aligned = EvaluationResult(self.table.dropna(subset=["alignment"]), self.metadata)
        if not len(aligned):
            raise ScoreError("alignment is a measure of worldvaluesbench's answers; there are none here")
        return aligned._grouped(by, "alignment", percent=1).rename(columns={"mean": "alignment"})

    def _grouped(self, by: str | Sequence[str] | None, column: str, percent: float = 100) -> pd.DataFrame:
        """Mean of a column with its clustered error, one row per group."""
        if by is None:
            groups: Iterable[Any] = [("all", self.table)]
        else:
            keys = [by] if isinstance(by, str) else list(by)
            unknown = [key for key in keys if key not in self.table.columns]
            if unknown:
                raise ScoreError(
                    f"no column {unknown[0]!r} to group by{which(unknown[0], self.table.columns)}"
                )
            groups = self.table.groupby(keys[0] if len(keys) == 1 else keys, sort=False, dropna=True)
        rows: dict[Any, tuple[Any, ...]] = {}
        for name, part in groups:
            mean, se, clusters = clustered_mean(part[column].to_numpy(float), part["cluster"].to_numpy())
            rows[name] = (percent * mean, percent * se, part["p_answer"].mean(), len(part), clusters)
        if not rows:
            tasks = ", ".join(dict.fromkeys(map(str, self.table["task"]))) or "nothing was asked"
            raise ScoreError(
                f"none of the {len(self)} questions ({tasks}) has a {by}: group by task or template"
            )
        columns = ["mean", "se", "p_answer", "questions", "clusters"]
        table = pd.DataFrame(list(rows.values()), columns=columns)
        if by is None or isinstance(by, str) or len(by) == 1:
            name = None if by is None else by if isinstance(by, str) else by[0]
            table.index = pd.Index(list(rows), name=name)
        else:
            table.index = pd.MultiIndex.from_tuples(list(rows), names=list(by))
        return table

    def __str__(self) -> str:
        setting = self.metadata.get("setting", "unchanged")
        of_split = {task: f", {split} split" for task, split in self.splits.items() if split != "all"}
        lines = [
            f"{task}: {accuracy:.2f} ± {se:.2f} %, {_p_of_answer(p_answer)}{questions:,} questions"
            f"{of_split.get(str(task), '')}"
            for task, accuracy, se, p_answer, questions, _ in self.accuracy().itertuples()
        ]
        return f"EvaluationResult ({setting})\n  " + "\n  ".join(lines)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        import html

        about = f"{self.metadata.get('model', '?')}, {self.metadata.get('setting', 'unchanged')}"
        about += f": {len(self):,} questions"
        return f"<p><b>{html.escape(about)}</b></p>{self.accuracy().round(3).to_html()}"

    def save(self, path: str | Path) -> Path:
        """Writes Parquet, with the metadata in its schema."""
        import pyarrow as pa

        if Path(path).suffix in (".csv", ".json", ".safetensors"):
            raise ScoreError(f"{Path(path).name}: results are saved as .parquet")
        lists: dict[str, Any] = dict(
            zip(CLOZE, map(pa.list_, (pa.string(), pa.string(), pa.float64(), pa.float64())))
        )
        types = [
            pa.field(name, lists.get(name) or pa.type_for_alias(_TYPES.get(name, "string")))
            for name in (*COLUMNS, *OTHERS)
            if name in self.table
        ]
        # with types given, an empty column makes no difference to the others' bytes
        table = pa.Table.from_pandas(self.table, pa.schema(types), preserve_index=False)
        return io.write_parquet(path, table.replace_schema_metadata(None), self.metadata)

    @classmethod
    def load(cls, path: str | Path) -> EvaluationResult:
        """Reads what `save` wrote. Raises `FileError` if the file holds no results, or has changed since."""
        path = Path(path)
        with io.reading(path, "results"):
            frame, said = io.read_parquet(path, COLUMNS, OTHERS)
            metadata = json.loads(said or b"null")
            if not isinstance(metadata, dict):
                raise ValueError("it does not say what it is of")
            for name, kind in _TYPES.items():
                if (
                    frame[name].isna().any()
                    and name not in ("alignment", "p_answer")
                    or not pd.api.types.is_dtype_equal(frame[name].dtype, _DTYPES[kind])
                ):
                    raise ValueError(f"column {name!r} is {frame[name].dtype}, with or without gaps")
            words = [name for name in COLUMNS if name not in _TYPES]
            for name in words:
                if not all(value is None or isinstance(value, str) for value in frame[name].unique()):
                    raise ValueError(f"column {name!r} holds other things than text")
            if any(frame[name].isna().any() for name in ("task", "id", "cluster")):
                raise ValueError("a row does not say of which question it is")
            empty = [name for name in words if frame[name].isna().all()]
            return cls(
                frame.astype(dict.fromkeys(empty, object)).assign(**dict.fromkeys(empty, None)), metadata
            )


def _p_of_answer(p: float) -> str:
    """The mean of P(answer), where it is known: for answers in words it is not."""
    return "" if p != p else f"mean P(answer) {p:.3f}, "


def on_all_questions(
    result: EvaluationResult, base: EvaluationResult, measure: Callable[[EvaluationResult], pd.Series]
) -> pd.Series:
    """Task -> a measure, estimated for all questions of `base` where `result` answers a part of them.

    The part's questions may be easier or harder than the rest, so the estimate is `base`'s measure on all
    questions, plus what `result` differs by on its part.
    """
    part = base.shared_with(result)
    mine = measure(result)
    return mine if len(part) == len(base) else mine + (measure(base) - measure(part)).reindex(mine.index)


def merged(parts: Sequence[EvaluationResult], task: Task) -> EvaluationResult:
    """Results of one setting on parts of a task, as one result of the whole task, in its order.

    Lists and counts that the parts say of themselves are joined. Raises `ScoreError` if settings differ.
    """
    whole = concat(parts)
    order = {question.id: place for place, question in enumerate(task)}
    table = whole.table.sort_values("id", key=lambda ids: ids.map(order), ignore_index=True)
    said: dict[str, Any] = {"fingerprints": {task.name: task.fingerprint}}
    for key in ("batch_sizes", "too_long"):
        said[key] = {task.name: [v for part in parts for v in part.metadata[key][task.name]]}
    if "two_token_labels" in whole.metadata and whole.metadata["two_token_labels"]:
        split = {v for part in parts for v in part.metadata["two_token_labels"][task.name]}
        said["two_token_labels"] = {task.name: sorted(split)}
    if whole.metadata.get("cut_off"):
        said["cut_off"] = {task.name: sum(part.metadata["cut_off"][task.name] for part in parts)}
    return EvaluationResult(table, {**whole.metadata, **said})


def concat(results: Sequence[EvaluationResult]) -> EvaluationResult:
    """Results of one setting on several tasks, as one. Raises `ScoreError` if settings differ."""
    if not results:
        raise ScoreError("no results to put together")
    first = results[0].metadata
    for key in ("model", "revision", "neurons", "operation", "identity"):
        differing = [r.metadata.get(key) for r in results if r.metadata.get(key) != first.get(key)]
        if differing:
            raise ScoreError(
                "results of different settings cannot be put together: "
                f"{key} is {first.get(key)!r} and {differing[0]!r}"
            )
    merged = {
        key: {name: value for result in results for name, value in result.metadata.get(key, {}).items()}
        for key in (
            "fingerprints",
            "form",
            "splits",
            "normalise",
            "chat_template",
            "batch_sizes",
            "two_token_labels",
            "too_long",
            "max_new_tokens",
            "cut_off",
            "analysers",
        )
    }
    return EvaluationResult(pd.concat([r.table for r in results], ignore_index=True), {**first, **merged})
