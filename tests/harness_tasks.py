"""Small tasks for lm-evaluation-harness: YAML files and JSON rows, one of every kind that it can score."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

FOODS = ("rice", "bread and soup", "noodles", "football, cricket and golf")
COUNTRIES = ("Japan", "Spain", "Mexico", "Kenya", "Peru")
COUNT = 8
MULTIPLE = {
    "output_type": "multiple_choice",
    "doc_to_text": "Question: {{question}}\nAnswer:",
    "doc_to_choice": "choices",
    "doc_to_target": "right",
}
SCORED = {
    "metric_list": [
        {"metric": m, "aggregation": "mean", "higher_is_better": True} for m in ("acc", "acc_norm")
    ]
}
TASKS: dict[str, dict[str, Any]] = {
    "choice": {**MULTIPLE, **SCORED},
    "fewshot": {**MULTIPLE, **SCORED, "num_fewshot": 2, "fewshot_split": "train", "description": "Food.\n\n"},
    "two_tokens": {
        **MULTIPLE,
        "doc_to_choice": ["yes and no", "no and yes"],
        "doc_to_target": "{{right % 2}}",
    },
    "line": {**MULTIPLE, "target_delimiter": "\n", "doc_to_target": "{{choices[right]}}"},
    "mutual": {
        **MULTIPLE,
        "metric_list": [{"metric": "acc_mutual_info", "aggregation": "mean", "higher_is_better": True}],
    },
    "processed": {**MULTIPLE, "process_docs": "!function made.turned"},
    "greedy": {
        "output_type": "loglikelihood",
        "doc_to_text": "{{question}}",
        "doc_to_target": " {{choices[right]}}",
    },
    "generated": {
        "output_type": "generate_until",
        "doc_to_text": "{{question}} Answer:",
        "doc_to_target": "{{choices[right]}}",
        "generation_kwargs": {"until": ["Question:", "."], "max_gen_toks": 12},
    },
    "perplexity": {"output_type": "loglikelihood_rolling", "doc_to_text": "", "doc_to_target": "text"},
    "inputs": {
        **MULTIPLE,
        "doc_to_text": "{{right}}",
        "doc_to_choice": "choices",
        "doc_to_target": "question",
    },
    "bare": {**MULTIPLE, "doc_to_text": ""},
    "glued": {**MULTIPLE, "target_delimiter": ""},
    "several": {**MULTIPLE, "doc_to_target": "{{[0, 1]}}"},
}
"""Name -> what its YAML says beside the rows."""
MADE = '''"""Functions that the tasks name."""
import json
from pathlib import Path

from datasets import Dataset, DatasetDict


def rows(**_):
    """The rows beside this file; much quicker than `load_dataset("json")`, which one task uses."""
    files = {split: Path(__file__).with_name(f"{split}.jsonl") for split in ("train", "test")}
    return DatasetDict({s: Dataset.from_list([json.loads(r) for r in f.open()]) for s, f in files.items()})


def turned(docs):
    return docs.select([place for place, doc in enumerate(docs) if doc["right"] > 0])
'''


def rows(count: int = COUNT, start: int = 0) -> list[dict[str, Any]]:
    """Documents of different lengths."""
    made = []
    for i in range(start, start + count):
        question = " ".join(["Think."] * (i % 4) + [f"What do people in {COUNTRIES[i % 5]} eat at New Year?"])
        choices = [FOODS[(i + k) % 4] for k in range(3 + i % 2)]
        made.append(
            {
                "question": question,
                "choices": choices,
                "right": i % 3,
                "text": f"{question} {choices[0]}. " * 12,
            }
        )
    return made


def write(folder: Path) -> Path:
    """The tasks as YAML files, a group of two of them, and their rows; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for split, made in (("train", rows(5, start=100)), ("test", rows())):
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
    (folder / "made.py").write_text(MADE)
    common = {"custom_dataset": "!function made.rows", "test_split": "test"}
    files = {split: str(folder / f"{split}.jsonl") for split in ("train", "test")}
    json_files = {"dataset_path": "json", "dataset_kwargs": {"data_files": files}, "custom_dataset": None}
    for name, own in TASKS.items():
        own = {**own, **json_files} if name == "line" else own
        lines = [f"{key}: {_yaml(value)}" for key, value in {"task": name, **common, **own}.items()]
        (folder / f"{name}.yaml").write_text("\n".join(lines) + "\n")
    (folder / "both.yaml").write_text("group: both\ntask: [choice, line]\n")
    return folder


def _yaml(value: Any) -> str:
    """JSON is YAML, but for the harness' functions."""
    return value if isinstance(value, str) and value.startswith("!function") else json.dumps(value)


def asked(model: Any, folder: Path, names: Any) -> dict[str, Any]:
    """What the harness finds with a model of its own kind: numbers, and every document's answers."""
    import lm_eval
    from lm_eval.tasks import TaskManager

    paths = [str(folder / f"{name}.yaml") for name in names]
    manager = TaskManager(include_defaults=False)
    return lm_eval.simple_evaluate(model, tasks=paths, bootstrap_iters=0, task_manager=manager)


def numbers(found: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Task -> metric -> value."""
    return {
        task: {metric: float(v) for metric, v in of_task.items() if "," in metric and "stderr" not in metric}
        for task, of_task in found["results"].items()
    }


def answers(found: dict[str, Any], task: str) -> list[Any]:
    """Every document's log-likelihoods, or the text that was generated, in order."""
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    firsts = [[answer[0] for answer in sample["resps"]] for sample in samples]
    return [[a[0] if isinstance(a, (list, tuple)) else a for a in answered] for answered in firsts]


def assert_equal(mine: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Every number, and behind it every document's answers."""
    assert mine["results"].keys() == theirs["results"].keys()
    for task in theirs["results"]:
        found, expected = answers(mine, task), answers(theirs, task)
        for row, its in zip(found, expected, strict=True):
            assert row == (its if isinstance(its[0], str) else pytest.approx(its, abs=1e-4, rel=1e-6))
        for metric, value in numbers(theirs)[task].items():
            mine_of_it = numbers(mine)[task][metric]
            counted = "perplexity" not in metric and "bits" not in metric
            assert mine_of_it == (value if counted else pytest.approx(value, rel=1e-5)), (task, metric)
