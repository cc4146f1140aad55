"""Reads the questions beside this file for lm-evaluation-harness, and normalises answers as culnig_tl does.

`culnig-tl tasks export` copies this file; it needs nothing but the harness.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from lm_eval.api.instance import Instance
from lm_eval.api.task import ConfigurableTask


def rows(questions: str, **unused: Any) -> DatasetDict:
    """The questions in the file of that name, as the split "test"."""
    with Path(__file__).with_name(questions).open(encoding="utf-8") as lines:
        return DatasetDict({"test": Dataset.from_list([json.loads(line) for line in lines])})


class Cloze(ConfigurableTask):
    """Asks for the likelihood of each option's words after the question, and after the control alone."""

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__(config={key: value for key, value in config.items() if key != "class"})

    def construct_requests(self, doc: dict[str, Any], ctx: Any, **kwargs: Any) -> Any:
        """The harness' own requests, one per option, and then those for their words."""
        asked: Any = super().construct_requests(doc, ctx, **kwargs)
        for text in doc["choices"] if doc["control"] is not None else []:
            pair = (doc["control"], f"{self.config.target_delimiter}{text}")
            about: dict[str, Any] = {
                "request_type": "loglikelihood",
                "idx": len(asked),
                "metadata": kwargs["metadata"],
            }
            asked.append(Instance(doc=doc, arguments=pair, **about))
        return asked


def accuracies(doc: dict[str, Any], results: list[tuple[float, bool]]) -> dict[str, float]:
    """Whether the right option is the likeliest: by its log-likelihood (`acc`), per character (`acc_norm`),
    and less that of its words alone (`acc_unconditional`)."""
    count = len(doc["choices"])
    found = np.array([result[0] for result in results])
    lls, priors = found[:count], found[count:] if len(found) > count else np.zeros(count)
    values = {
        "acc": lls,
        "acc_norm": lls / [len(text) for text in doc["choices"]],
        "acc_unconditional": lls - priors,
    }
    return {name: float(value.argmax() == doc["right"]) for name, value in values.items()}
