"""Prints the tables of docs/findings.md from the study that comes with the package.

python docs/findings.py smollm2-135m-instruct
python docs/findings.py gemma-3-270m
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
import pandas as pd

from culnig_tl import EvaluationResult, load_study
from culnig_tl.analyses.depth import depth_thirds
from culnig_tl.data.statistics import Drop, compare_drops
from culnig_tl.study.comparison import in_first_half
from culnig_tl.study.config import GENERAL, RANDOM, RIVAL, UNCHANGED
from culnig_tl.study.stored import FOLDER, SECOND

RIVAL_TASK = "commonsenseqa"
"""Of its questions, those that the rival's neurons were not found on count where the rival is suppressed."""


def drops(answers: Mapping[str, EvaluationResult]) -> pd.DataFrame:
    """What suppressing the culture-general and the rival's neurons costs each task, in points of accuracy and
    of mean P(answer), against the layer-matched random sets that were asked."""
    base, rows = answers[UNCHANGED].table, []
    for name, result in answers.items():
        assert result.table["id"].tolist() == base["id"].tolist(), name
    random = [name for name in answers if name.rpartition(" ")[0] == RANDOM["layer"]]
    for task in dict.fromkeys(base["task"]):
        asked = (base["task"] == task).to_numpy()
        unseen = np.array([task != RIVAL_TASK or not in_first_half(task, c) for c in base["cluster"]])
        for measure in ("correct", "p_answer"):
            for setting in (GENERAL, RIVAL):
                here = asked & unseen if setting == RIVAL else asked
                found = compared(answers, setting, random, measure, here)
                rival = compared(answers, GENERAL, [RIVAL], measure, asked & unseen)
                more = f"{rival.excess:.1f} ({rival.excess_low:.1f} to {rival.excess_high:.1f})"
                rows.append(
                    {
                        "task": task,
                        "n": int(here.sum()),
                        "measure": measure,
                        "suppressed": setting,
                        "unchanged": found.base,
                        "drop": found.drop,
                        "95%": f"{found.low:.1f} to {found.high:.1f}",
                        "random": f"{found.random_mean:.1f} ± {found.random_sd:.1f}",
                        "excess": found.excess,
                        "excess 95%": f"{found.excess_low:.1f} to {found.excess_high:.1f}",
                        "over rival": more if setting == GENERAL else "",
                        "rank": f"{found.rank} of {found.random_sets + 1}",
                    }
                )
    return pd.DataFrame(rows)


def compared(
    answers: Mapping[str, EvaluationResult], setting: str, others: list[str], measure: str, here: np.ndarray
) -> Drop:
    """What a setting costs on the questions `here`, against other settings."""
    values = {
        name: answers[name].table[measure].to_numpy(float)[here] for name in (UNCHANGED, setting, *others)
    }
    clusters = answers[UNCHANGED].table["cluster"].to_numpy()[here]
    return compare_drops(values[UNCHANGED], values[setting], [values[o] for o in others], clusters)


def main() -> None:
    name = sys.argv[1]
    study = load_study(name)
    general = study.neurons[GENERAL]
    pd.set_option("display.width", 200)
    print(general)
    print(general.table.groupby("site").size().to_string())
    in_first = int((general.table["layer"] == 0).sum())
    print(f"layer 0: {in_first} of {len(general)}, {100 * in_first / len(general):.0f}%\n")
    print(depth_thirds(general).round(3).to_string())
    print(f"\nFirst half\n{drops(study.results).round(1).to_string(index=False)}")
    second = {
        path.stem: EvaluationResult.load(path) for path in sorted((FOLDER / name / SECOND).glob("*.parquet"))
    }
    print(f"\nSecond half\n{drops(second).round(1).to_string(index=False)}")
    both = {
        key: EvaluationResult(
            pd.concat([study.results[key].table.query("task == 'blend'"), second[key].table]), {}
        )
        for key in second
        if key in study.results
    }
    print(f"\nBoth halves\n{drops(both).round(1).to_string(index=False)}")
    overlap = len(study.neurons[RIVAL] & general)
    expected = np.sum(
        [len(i) ** 2 / general.provenance.pool[site.value] for (site, _), i in general.indices.items()]
    )
    print(f"\nThe rival shares {overlap} of {len(general)} neurons; {expected:.0f} would be chance")


if __name__ == "__main__":
    main()
