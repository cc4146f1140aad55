"""Prints the tables of docs/findings.md from the study that comes with the package.

python docs/findings.py smollm2-135m-instruct
"""

from __future__ import annotations

import sys
from collections.abc import Mapping

import numpy as np
import pandas as pd

from culnig_tl import EvaluationResult, load_study
from culnig_tl.analyses.depth import depth_thirds
from culnig_tl.data.statistics import compare_drops
from culnig_tl.study.config import GENERAL, RANDOM, RIVAL, UNCHANGED
from culnig_tl.study.stored import FOLDER, SECOND


def drops(answers: Mapping[str, EvaluationResult]) -> pd.DataFrame:
    """What suppressing the culture-general and the rival's neurons costs each task, in points of accuracy and
    of mean P(answer), against the layer-matched random sets that were asked."""
    base = answers[UNCHANGED].table
    rows = []
    for task in dict.fromkeys(base["task"]):
        here = (base["task"] == task).to_numpy()
        named = {name: result.table[here] for name, result in answers.items()}
        for name, rows_of in named.items():
            assert rows_of["id"].tolist() == named[UNCHANGED]["id"].tolist(), (name, task)
        random = [name for name in named if name.rpartition(" ")[0] == RANDOM["layer"]]
        for measure in ("correct", "p_answer"):
            values = {name: rows_of[measure].to_numpy(float) for name, rows_of in named.items()}
            for setting in (GENERAL, RIVAL):
                found = compare_drops(
                    values[UNCHANGED],
                    values[setting],
                    [values[name] for name in random],
                    named[UNCHANGED]["cluster"].to_numpy(),
                )
                rows.append(
                    {
                        "task": task,
                        "measure": measure,
                        "suppressed": setting,
                        "unchanged": found.base,
                        "drop": found.drop,
                        "95%": f"{found.low:.1f} to {found.high:.1f}",
                        "random": f"{found.random_mean:.1f} ± {found.random_sd:.1f}",
                        "excess": found.excess,
                        "excess 95%": f"{found.excess_low:.1f} to {found.excess_high:.1f}",
                        "rank": f"{found.rank} of {found.random_sets + 1}",
                    }
                )
    return pd.DataFrame(rows)


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
