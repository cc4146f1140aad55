"""What a part of the questions says of all of them: a simulation on full answers of the embedded model.

`toy_answers.npz` holds whether each test question of the embedded model's tasks was answered right:
unchanged, with its culture-general neurons suppressed, and with each of 200 random sets of the same layers
and sites.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from culnig_tl import load_task
from culnig_tl.data.statistics import compare_drops
from culnig_tl.study.config import TOY_CONFIG
from culnig_tl.study.sampling import part_of, parts_needed
from culnig_tl.tasks.question import Question, Task

DRAWS, SETS = 1000, 10
MIDDLE, UNUSED = "minicommonsense", "miniparaphrase"


@pytest.fixture(scope="module")
def full():
    """Task -> (its questions, [setting, question] right or wrong: unchanged, culture-general, 200 random)."""
    tasks = [load_task(name, split="test") for name in TOY_CONFIG.tasks]
    with np.load(Path(__file__).parent / "toy_answers.npz", allow_pickle=False) as stored:
        assert stored["fingerprints"].tolist() == [task.fingerprint for task in tasks]
        right = np.unpackbits(stored["right"], axis=1, count=sum(map(len, tasks))).astype(bool)
    ends = np.cumsum([len(task) for task in tasks])
    return {task.name: (task, right[:, end - len(task) : end]) for task, end in zip(tasks, ends)}


def simulated(task, right, count: int) -> tuple[float, float, np.ndarray]:
    """(how often the interval from a part holds the value from all questions, how often it would were it
    exactly of its rate, [draw] rank from the part minus rank from all questions)."""
    clusters, rng = np.array([q.cluster for q in task]), np.random.default_rng(0)
    place = {q.id: i for i, q in enumerate(task)}
    lost = right[0].astype(float) - right[1:]  # [setting, question]
    held, expected, wrong = 0, [], []
    for seed in range(DRAWS):
        part = np.zeros(len(task), bool)
        part[[place[q.id] for q in part_of(task, count, seed=seed)]] = True
        drawn = rng.choice(len(lost) - 1, SETS, replace=False) + 1
        random = [right[1 + k][part] for k in drawn]
        found = compare_drops(right[0], right[1], random, clusters, part=part, draws=500, seed=seed)
        own, others = 100 * lost[0].mean(), 100 * lost[drawn].mean(1)
        held += found.excess_low <= own - others.mean() <= found.excess_high
        wrong.append(found.rank - 1 - int((others >= own - 1e-12).sum()))
        groups, share = len(set(clusters[part])), len(set(clusters[part])) / task.cluster_count
        t = stats.t(groups - 1)
        # the interval is of endless questions; a part of few, drawn without replacement, errs less
        expected.append(2 * t.cdf(t.ppf(0.975) / np.sqrt(1 - share)) - 1)
    return held / DRAWS, float(np.mean(expected)), np.array(wrong)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "count"), [("miniculture", 300), ("miniculture", 480), (MIDDLE, 300), (MIDDLE, 480)]
)
def test_the_interval_from_a_part_holds_the_full_value_at_its_rate(full, task, count):
    held, expected, wrong = simulated(*full[task], count)
    print(
        f"\n{task}, {count} questions: the interval holds {held:.1%} ({expected:.1%} were it exact), the rank"
        f" of {SETS + 1} is the same in {np.mean(wrong == 0):.1%}, off by {np.abs(wrong).mean():.2f}"
    )
    assert held >= 0.94 and abs(held - expected) < 0.03
    assert np.abs(wrong).mean() < (0.1 if task == "miniculture" else 1.5)


@pytest.mark.slow
def test_where_hardly_an_answer_changes_the_interval_holds_too(full):
    held, _, wrong = simulated(*full[UNUSED], 100)
    print(f"\n{UNUSED}, 100 questions: {held:.1%}; rank off by {np.abs(wrong).mean():.2f} on average")
    assert held >= 0.94


@pytest.mark.slow
def test_the_interval_holds_where_two_passes_leave_few_large_clusters():
    """240 questions in 50 rows each, as BLEnD's, half of whose changes a question's rows share; random sets
    change one answer in six: what two passes afford is two dozen questions."""
    rng = np.random.default_rng(0)
    rows = [
        Question("made", f"{c}-{r}", f"c{c}", "?", ("A", "B"), "A", country=f"{r % 16}")
        for c in range(240)
        for r in range(50)
    ]
    task = Task("made", tuple(rows))
    base = rng.random(len(task)) < 0.5

    def changed(lost: float, gained: float) -> np.ndarray:
        """Answers of a setting: right ones that are lost and wrong ones gained, at these rates."""
        shared, own = rng.random(240).repeat(50), rng.random(len(task))
        chance = np.where(rng.random(len(task)) < 0.5, shared, own)
        return np.where(base, chance > lost, chance < gained)

    settings = [base, changed(0.3, 0.1), *(changed(0.18, 0.14) for _ in range(40))]
    right = np.array(settings)
    (part,) = parts_needed([task], [40.0], sets=20)
    assert part.cluster_count == 24
    held, expected, _ = simulated(task, right, len(part))
    print(f"\n24 of 240 clusters of 50: the interval holds {held:.1%} ({expected:.1%} were it exact)")
    assert held >= 0.93 and abs(held - expected) < 0.03
