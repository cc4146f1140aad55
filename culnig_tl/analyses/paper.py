"""The paper's results beside a user's own: CULNIG, arXiv 2510.08284, suppression of culture-general
neurons."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from .. import io
from ..data.results import EvaluationResult, on_all_questions
from ..defaults import PAPER_TASKS
from ..errors import ScoreError

TASKS = PAPER_TASKS
"""Tasks of the paper's table, in its order. Accuracy in percent; worldvaluesbench: alignment."""
_GEMMA, _QWEN, _LLAMA, _FALCON = (
    "google/gemma-3-12b-it",
    "Qwen/Qwen3-14B",
    "meta-llama/Llama-3.1-8B-Instruct",
    "tiiuae/Falcon3-10B-Instruct",
)
_PAPER: tuple[tuple[str, str, int, tuple[float, ...]], ...] = (
    (_GEMMA, "unchanged", 0, (64.22, 78.08, 58.54, 64.08, 79.71, 75.37, 78.04)),
    (_GEMMA, "culture-general", 8_087, (37.93, 62.00, 52.02, 58.46, 75.10, 72.77, 78.65)),
    (_GEMMA, "random", 8_087, (63.57, 77.31, 57.55, 64.03, 79.18, 75.46, 78.22)),
    (_QWEN, "unchanged", 0, (65.96, 76.92, 56.85, 65.22, 81.76, 71.31, 79.91)),
    (_QWEN, "culture-general", 7_340, (35.84, 57.07, 49.02, 60.70, 75.23, 76.20, 78.70)),
    (_LLAMA, "unchanged", 0, (60.18, 70.54, 47.71, 64.05, 76.74, 64.43, 73.93)),
    (_LLAMA, "culture-general", 4_268, (32.19, 36.94, 37.65, 51.68, 51.97, 48.64, 69.35)),
    (_FALCON, "culture-general", 9_282, (35.47, 56.81, 48.75, 59.16, 71.85, 70.30, 78.43)),
)
SPLITS: Mapping[str, str] = {task: "test" if task == "blend" else "all" for task in TASKS}
"""Which questions the paper's figures are of: neurons were found on the other half of BLEnD."""
CANDIDATES: Mapping[str, int] = {
    _GEMMA: 8_158,
    _QWEN: 7_536,
    _LLAMA: 4_980,
    _FALCON: 9_625,
    "google/gemma-3-27b-it": 14_347,
    "microsoft/phi-4": 7_782,
}
"""Candidates for culture-general neurons of the paper's six models, before CountryRC."""


def paper_rows(model: str | None = None) -> pd.DataFrame:
    """The paper's table: model, setting, neurons, and a column per task; of one model, or (None) of all.

    A model in a folder or another Hub account matches by the last part of its name. No rows where the paper
    has none.
    """
    frame = pd.DataFrame(
        [(name, f"{setting} (paper)", n, *values) for name, setting, n, values in _PAPER],
        columns=["model", "setting", "neurons", *TASKS],
    )
    if model is not None:
        frame = frame.loc[[_short(name) == _short(model) for name in frame["model"]]]
    return frame.reset_index(drop=True)


@dataclass(frozen=True)
class ResultsTable:
    """Results in the form of the paper's table: model, setting, neurons, tasks. Percent; worldvaluesbench:
    alignment."""

    frame: pd.DataFrame
    """One row per setting; the standard errors are in ``errors``."""
    errors: pd.DataFrame
    """Standard errors over clusters, the same rows and columns; over sets for the mean of several; NaN for
    the paper's rows."""
    note: str = ""
    """Where the paper's rows are of other questions than those above them, a sentence that says so."""

    def to_dataframe(self) -> pd.DataFrame:
        """The table with a column ``<task> se`` after each task."""
        out = self.frame.copy()
        for task in reversed(list(self.errors.columns)):
            out.insert(list(out.columns).index(task) + 1, f"{task} se", self.errors[task])
        return out

    def to_markdown(self) -> str:
        """A Markdown table with two decimals, ± standard errors."""
        columns = list(self.frame.columns)
        lines = [
            f"| {' | '.join(columns)} |",
            f"|{'|'.join('---' if c in ('model', 'setting') else '---:' for c in columns)}|",
        ]
        for row in range(len(self.frame)):
            lines.append(f"| {' | '.join(self._cell(row, column) for column in columns)} |")
        return "\n".join([*lines, *(["", self.note] if self.note else [])]) + "\n"

    def to_csv(self) -> str:
        """CSV with the standard errors."""
        return io.csv_of(self.to_dataframe())

    def _cell(self, row: int, column: str) -> str:
        value = self.frame[column].iloc[row]
        if column in ("model", "setting"):
            return str(value).replace("|", "\\|")
        if column == "neurons":
            return f"{int(value):,}"
        if pd.isna(value):
            return "–"
        error = self.errors[column].iloc[row]
        return f"{value:.2f}" if pd.isna(error) else f"{value:.2f} ± {error:.2f}"

    def __str__(self) -> str:
        return self.to_markdown()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return self.frame.round(2).to_html(index=False, na_rep="–") + note


def results_table(
    settings: Mapping[str, EvaluationResult | Sequence[EvaluationResult]],
    *,
    base: EvaluationResult | None = None,
    paper: bool = True,
) -> ResultsTable:
    """Puts results into the form of the paper's table, with the paper's own rows below where the model is one
    of its six.

    Args:
        settings: name of a row -> result, or several results (random sets) whose mean and standard deviation
            are shown.
        base: answers of the unchanged model: a result that holds a part of its questions is shown as an
            estimate for all of them (see `on_all_questions`).
        paper: whether to add the paper's rows.

    Raises:
        ScoreError: nothing to show.
    """
    if not settings or any(
        not isinstance(given, EvaluationResult) and not given for given in settings.values()
    ):
        raise ScoreError("no results to put into a table")
    rows, errors = [], []
    for name, given in settings.items():
        results = [given] if isinstance(given, EvaluationResult) else list(given)
        tables = [_measures(result) for result in results]
        values = pd.DataFrame(
            [
                on_all_questions(r, r if base is None else base, lambda r: _measures(r)["value"])
                for r in results
            ]
        )
        spread = tables[0]["se"] if len(tables) == 1 else values.std(ddof=1)
        about = results[0].metadata
        label = name if len(tables) == 1 else f"{name} (mean of {len(tables)})"
        rows.append(
            {
                "model": str(about.get("model")),
                "setting": label,
                "neurons": int(about.get("neuron_count", 0)),
                **values.mean(),
            }
        )
        errors.append(dict(spread))
    frame, error = pd.DataFrame(rows), pd.DataFrame(errors)
    asked = [column for column in frame.columns if column not in ("model", "setting", "neurons")]
    order = [task for task in TASKS if task in asked] + [task for task in asked if task not in TASKS]
    note = ""
    if paper:
        published = pd.concat([paper_rows(model) for model in dict.fromkeys(frame["model"])])
        published = published.reindex(
            columns=["model", "setting", "neurons", *(task for task in order if task in TASKS)]
        )
        if len(published):
            note = _other_questions(settings)
            frame = pd.concat([frame, published], ignore_index=True)
            error = pd.DataFrame(error, index=pd.RangeIndex(len(frame)))
    columns = ["model", "setting", "neurons", *order]
    return ResultsTable(frame.reindex(columns=columns), pd.DataFrame(error, columns=order), note)


def _other_questions(settings: Mapping[str, EvaluationResult | Sequence[EvaluationResult]]) -> str:
    """On which tasks the paper asked another split, in a sentence; empty where on none."""
    given = (
        each
        for some in settings.values()
        for each in ([some] if isinstance(some, EvaluationResult) else some)
    )
    differing = {
        (task, split): f"{task} {split}, there {SPLITS[task]}"
        for result in given
        for task, split in result.splits.items()
        if SPLITS.get(task, split) != split
    }
    return f"Not the paper's questions: here {'; here '.join(differing.values())}." if differing else ""


def _measures(result: EvaluationResult) -> pd.DataFrame:
    """Task -> value and its standard error: accuracy, or alignment where answers are scored by it."""
    accuracy = result.accuracy()
    table = pd.DataFrame({"value": accuracy["accuracy"], "se": accuracy["se"]})
    if result.table["alignment"].notna().any():
        aligned = result.alignment()
        table.loc[aligned.index] = aligned[["alignment", "se"]].to_numpy(float)
    return table


def _short(name: str) -> str:
    return str(name).rstrip("/").rpartition("/")[2].lower()
