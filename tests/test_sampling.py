"""The part of the questions that random sets are asked, and what is said from it."""

from __future__ import annotations

import html
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from culnig_tl import Study, StudyConfig, run_study
from culnig_tl.data.statistics import clustered_mean, compare_drops
from culnig_tl.errors import ScoreError, StudyError, TaskError
from culnig_tl.method.evaluation import evaluate
from culnig_tl.run import pieces, pipeline
from culnig_tl.run.plan import run_piece, write_plan
from culnig_tl.study.comparison import compare
from culnig_tl.study.config import GENERAL, UNCHANGED
from culnig_tl.study.opened import more_random_sets, open_study
from culnig_tl.study.sampling import (
    LEAST,
    error_of,
    least_part,
    part_of,
    parts_needed,
    questions_expected,
    questions_needed,
    spread_of,
)
from culnig_tl.tasks.question import Question, Task

from .studies import answers


def grid(clusters: int, rows: int, countries: int = 4, *, across: bool = False) -> Task:
    """So many clusters of so many rows each; of one country each, or of all of them."""
    return Task(
        "made",
        tuple(
            Question(
                "made",
                f"{c}-{r}",
                f"c{c}",
                "?",
                ("A", "B"),
                "A",
                country=f"{(r if across else c) % countries}",
            )
            for c in range(clusters)
            for r in range(rows)
        ),
    )


# ------------------------------------------------------------------------------------------ which questions


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(1, 400), st.integers(0, 3), st.booleans())
def test_a_part_is_whole_clusters_and_hardly_more_than_asked_for(rows, count, seed, across):
    task = grid(40, rows, across=across)
    part = part_of(task, count, seed=seed)
    assert set(Counter(q.cluster for q in part).values()) == {rows}
    assert min(count, len(task)) <= len(part) < count + rows
    assert [q.id for q in part] == [q.id for q in task if q.id in {p.id for p in part}]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.integers(1, 200))
def test_a_larger_part_holds_every_smaller_one(a, b):
    small, large = (part_of(grid(50, 4), count, seed=3) for count in sorted((a, b)))
    assert {q.id for q in small} <= {q.id for q in large}


def test_every_country_is_there_in_proportion():
    assert set(part_of(grid(80, 3, countries=8), 60).counts().values()) == {6, 9}


def test_another_seed_draws_another_part():
    parts = {tuple(q.id for q in part_of(grid(80, 1), 20, seed=seed)) for seed in range(5)}
    assert len(parts) == 5


def test_every_cluster_is_drawn_alike_often():
    drawn = Counter(q.cluster for seed in range(600) for q in part_of(grid(20, 1, countries=4), 5, seed=seed))
    assert len(drawn) == 20 and max(abs(n - 150) for n in drawn.values()) < 4.5 * np.sqrt(600 * 0.25 * 0.75)


def test_the_smallest_part_has_300_questions_and_20_clusters():
    few, many = least_part(grid(100, 80)), least_part(grid(1000, 4))
    assert few.cluster_count == 20 and len(many) == 300
    assert len(least_part(grid(10, 4))) == 40


def test_no_question_is_no_part():
    with pytest.raises(TaskError, match="at least 1 question"):
        part_of(grid(2, 1), 0)


def test_questions_needed_give_the_standard_error_that_is_promised():
    """Answers to 10,000 questions; on as many as the first 400 say, the drop errs by half a point."""
    rng = np.random.default_rng(0)
    task = grid(10_000, 1)
    lost = np.where(rng.random(len(task)) < 0.1, rng.choice([-1, 1], len(task)), 0)
    base, ablated = (lost >= 0).astype(float), (lost < 0).astype(float) + (lost == 0)
    frame = pd.DataFrame({"task": "made", "id": [q.id for q in task], "cluster": [q.cluster for q in task]})
    frame = frame.assign(country=None, alignment=np.nan)
    results = [type(answers({}))(frame.assign(correct=right)) for right in (base, ablated)]
    first = {q.id for q in part_of(task, 400)}
    asked = type(results[0])(results[1].table.loc[frame["id"].isin(first)])
    spread = spread_of(results[0], asked, task.name)
    count = questions_needed(spread, len(task))
    assert error_of(spread, count, len(task)) == pytest.approx(0.5, abs=0.001)
    drops = [rng.choice(lost, count, replace=False).mean() for _ in range(400)]
    assert 100 * np.std(drops) == pytest.approx(0.5, rel=0.2) and 2500 < count < 6000


def test_where_half_a_point_is_dear_all_random_sets_together_cost_two_passes():
    """A task in which a set changes hardly an answer, and two in which it changes many: these err alike."""
    tasks = [grid(4_000, 1), grid(2_000, 3), grid(300, 20)]
    parts = parts_needed(tasks, (2.0, 40.0, 30.0), sets=10)
    whole, asked = sum(map(len, tasks)), list(map(len, parts))
    assert asked[0] == LEAST and asked[1] > asked[2] > LEAST
    assert 0.93 * 2 * whole < 10 * sum(asked) <= 2 * whole
    errors = [error_of(spread, n, len(t)) for spread, n, t in zip((40, 30), asked[1:], tasks[1:])]
    assert errors[0] > 0.5 and errors[1] == pytest.approx(errors[0], rel=0.1)


def test_where_half_a_point_is_cheap_no_more_is_asked():
    tasks = [grid(4_000, 1), grid(3_000, 1)]
    parts = parts_needed(tasks, (8.0, 10.0), sets=20)
    assert [len(part) for part in parts] == [
        max(LEAST, questions_needed(spread, len(task))) for spread, task in zip((8, 10), tasks)
    ]
    assert 20 * sum(map(len, parts)) < 2 * 7_000


@pytest.mark.parametrize("sets", [20, 400])
def test_the_least_is_asked_whatever_it_costs(sets):
    tasks = [grid(500, 1), grid(500, 2)]
    assert [len(part) for part in parts_needed(tasks, (40.0, 40.0), sets=sets)] == [LEAST, LEAST]
    assert questions_expected(tasks, sets=sets) == LEAST


# ------------------------------------------------------------------------------------------- what is compared


def made(seed: int = 0):
    rng = np.random.default_rng(seed)
    clusters = np.repeat(np.arange(60), 4).astype(str)
    base, own = rng.random(240) < 0.8, rng.random(240) < 0.5
    return base, own, [rng.random(240) < 0.75 for _ in range(5)], clusters


def test_beyond_random_is_of_the_part_on_both_sides():
    base, own, random, clusters = made()
    part = clusters.astype(int) < 20
    found = compare_drops(base, own, [r[part] for r in random], clusters, part=part)
    alone = compare_drops(base[part], own[part], [r[part] for r in random], clusters[part])
    whole = compare_drops(base, own, random, clusters)
    for name in ("random_mean", "random_sd", "excess", "rank", "p_bootstrap"):
        assert getattr(found, name) == getattr(alone, name)
    wider = stats.t.ppf(0.975, 19) / 1.959964 * np.sqrt(20 / 19)
    for end in ("excess_low", "excess_high"):
        beyond = getattr(found, end) - found.excess
        assert beyond == pytest.approx(wider * (getattr(alone, end) - alone.excess))
    for name in ("base", "drop", "low", "high"):
        assert getattr(found, name) == getattr(whole, name)
    assert (found.part_drop, found.questions, found.random_questions) == (alone.drop, 240, 80)


def test_no_change_in_a_part_does_not_exclude_one_beside_it():
    right, clusters = np.ones(600, bool), np.arange(600).astype(str)
    part = np.arange(600) < 300
    found = compare_drops(right, right, [right[part]], clusters, part=part)
    assert (found.excess_low, found.excess_high) == (-1, 1)


def test_random_answers_of_another_number_are_refused():
    base, own, random, clusters = made()
    with pytest.raises(ScoreError, match="same questions"):
        compare_drops(base, own, random, clusters, part=clusters.astype(int) < 20)


def restricted(result, keep):
    return type(result)(result.table.loc[result.table["id"].map(keep)], result.metadata)


def test_results_of_a_part_are_compared_by_their_ids():
    def half(name: str) -> bool:
        return int(name.split("-")[1]) % 2 == 0

    base, own, random = answers({}), answers({"food": 0.5}, seed=1), answers({"food": 0.2}, seed=2)
    found = compare(base, own, [restricted(random, half)]).drops["food"]
    expected = compare(*(restricted(r, half) for r in (base, own)), [restricted(random, half)]).drops["food"]
    assert (found.excess, found.rank, found.p_bootstrap) == (
        expected.excess,
        expected.rank,
        expected.p_bootstrap,
    )
    assert found.drop == 50 and found.random_questions == 60


def test_questions_that_the_model_was_not_asked_unchanged_are_refused():
    def half(name: str) -> bool:
        return int(name.split("-")[1]) % 2 == 0

    base, own = (restricted(answers(lost), half) for lost in ({}, {"food": 0.5}))
    with pytest.raises(ScoreError, match="same questions"):
        compare(base, own, [answers({})])


# ---------------------------------------------------------------------------------------------- a whole study


@pytest.fixture(scope="module")
def config(checkpoints) -> StudyConfig:
    return StudyConfig(
        model=str(checkpoints("llama")),
        tasks=("miniculture", "minianswers"),
        reading="minireading",
        rival=None,
        top_mlp=0.1,
        top_attn=0.05,
        random_sets=2,
        random_questions=40,
        limit=120,
        device="cpu",
    )


@pytest.fixture(scope="module")
def running(config, tmp_path_factory):
    """A study, and its report at every time that something was asked."""
    seen: list[str] = []
    report = tmp_path_factory.mktemp("runs") / "study" / "report.html"

    def watched(*arguments, **options):
        seen.append(report.read_text(encoding="utf-8") if report.is_file() else "")
        return evaluate(*arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("culnig_tl.study.sampling.LEAST", 30)
        patch.setattr("culnig_tl.study.sampling.LEAST_CLUSTERS", 4)
        patch.setattr(pieces, "evaluate", watched)
        return run_study(config, folder=report.parent, progress=False), seen


@pytest.fixture(scope="module")
def finished(running) -> Study:
    return running[0]


def test_random_sets_are_asked_the_part_and_the_others_everything(finished):
    sizes = {name: result.table["task"].value_counts().to_dict() for name, result in finished.results.items()}
    assert sizes[UNCHANGED] == sizes[GENERAL] == {"miniculture": 120, "minianswers": 120}
    parts = {task: about["questions"] for task, about in finished.info["random_questions"].items()}
    assert parts["minianswers"] == 40 <= parts["miniculture"] < 60
    assert all(sizes[name] == parts for name in sizes if name not in (UNCHANGED, GENERAL))


def test_answers_in_two_rounds_are_those_of_one(finished, config):
    """The first questions were asked before the rest: the answers are the same, in the task's order."""
    opened = open_study(finished, device="cpu")
    for task in opened.tasks:
        whole = evaluate(opened.model, task, ablate=finished.neurons[GENERAL], progress=False)
        rows = finished.results[GENERAL].of_task(task.name)
        assert rows.table["id"].tolist() == whole.table["id"].tolist()
        np.testing.assert_allclose(rows.table["p_answer"], whole.table["p_answer"], rtol=1e-4, atol=1e-7)
        assert rows.metadata["fingerprints"] == whole.metadata["fingerprints"]


def test_the_record_says_which_questions(finished, config):
    stored = json.loads((finished.folder / "study.json").read_text())["info"]["random_questions"]
    opened = open_study(finished, device="cpu")
    assert {task.name: task.fingerprint for task in opened.random} == {
        name: about["fingerprint"] for name, about in stored.items()
    }


def test_random_rows_stand_for_all_questions(finished):
    unchanged, random = finished.results[UNCHANGED], finished.results["random 0"]
    here = unchanged.shared_with(random).of_task("miniculture").table["correct"].mean()
    lost = 100 * (here - random.of_task("miniculture").table["correct"].mean())
    others = finished.results["random 1"].of_task("miniculture").table["correct"].mean()
    lost = (lost + 100 * (here - others)) / 2
    row = finished.table().loc["random (mean of 2)", ("miniculture", "accuracy")]
    whole = 100 * unchanged.of_task("miniculture").table["correct"].mean()
    assert row == pytest.approx(whole - lost)


def test_the_report_says_what_random_sets_were_asked(finished):
    page = html.unescape((finished.folder / "report.html").read_text(encoding="utf-8"))
    error = finished.random_errors()["minianswers"]
    said = f"(40 clusters; one set's drop has a standard error of {error:.1f} points)"
    assert f"40 of 120 of minianswers {said}" in page and "a part of the questions" in page
    assert "Preliminary" not in page


@pytest.fixture(scope="module")
def bare():
    """Studies with little to ask first, that draw nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("culnig_tl.study.sampling.LEAST", 30)
        patch.setattr("culnig_tl.study.sampling.LEAST_CLUSTERS", 4)
        patch.setattr(pipeline, "draw", lambda *_: [])
        patch.setattr(pipeline.Early, "report", lambda _: None)
        yield


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory, bare) -> Study:
    """A study whose first random set says how many questions random sets are asked."""
    given = replace(config, random_questions="auto", limit=60, random_sets=1)
    folder = tmp_path_factory.mktemp("straight") / "study"
    return run_study(given, folder=folder, progress=False, save_every=0)


def test_the_first_random_set_says_how_many_where_nothing_is_said(straight):
    base, first = straight.results[UNCHANGED], straight.results["random 0"]
    for task, about in straight.info["random_questions"].items():
        assert len(first.of_task(task)) == about["questions"] >= 30
        lost = base.shared_with(first).values(task) - first.values(task)
        error = 100 * clustered_mean(lost, first.of_task(task).table["cluster"].to_numpy())[1]
        expected = error * np.sqrt(1 - about["questions"] / len(base.of_task(task)))
        assert straight.random_errors()[task] == pytest.approx(expected)


@pytest.mark.parametrize("stop", [4, 7, 11])
def test_a_study_that_died_resumes_to_the_same_bytes(straight, bare, tmp_path, monkeypatch, stop):
    """Killed in the first questions, before their number is known and after, and in the second round."""
    asked: list[str] = []

    def dies(*arguments, **options):
        asked.append(arguments[1].name)
        if len(asked) == stop:
            raise KeyboardInterrupt
        return evaluate(*arguments, **options)

    def run(**options):
        return run_study(straight.config, folder=tmp_path / "killed", progress=False, save_every=0, **options)

    with monkeypatch.context() as patch:
        patch.setattr(pieces, "evaluate", dies)
        with pytest.raises(KeyboardInterrupt):
            run()
    run(resume=True)
    for file in [Path("study.json"), *(Path("results") / f"{name}.parquet" for name in straight.results)]:
        assert (tmp_path / "killed" / file).read_bytes() == (straight.folder / file).read_bytes()


def test_more_random_sets_are_asked_the_same_questions(finished, tmp_path):
    grown = Study.load(shutil.copytree(finished.folder, tmp_path / "study"))
    more_random_sets(open_study(grown, device="cpu"), 3, progress=False)
    ids = [set(grown.results[f"random by layer {k}"].table["id"]) for k in (0, 2)]
    assert ids[0] == ids[1] and grown.drop("miniculture").random_sets == 3


def test_a_plan_fixes_the_number_and_its_pieces_keep_to_it(config, tmp_path, bare):
    given = replace(config, tasks=("miniculture",), random_questions="auto", limit=40, random_sets=1)
    pieces_made = write_plan(given, tmp_path / "plan")
    record = json.loads((tmp_path / "plan" / "study.json").read_text())
    assert record["config"]["random_questions"] == 40
    with pytest.raises(StudyError, match="random_questions = 40"):
        run_study(given, folder=tmp_path / "plan", resume=True, progress=False)
    planned = replace(given, random_questions=20)
    write_plan(planned, tmp_path / "small")
    for piece in sorted(pieces_made, key=lambda piece: piece.step):
        run_piece(planned, tmp_path / "small", piece.label, progress=False)
    gathered = Study.load(tmp_path / "small")
    assert 20 <= len(gathered.results["random 0"]) < 40 == len(gathered.results[GENERAL])


def test_a_preliminary_report_is_there_while_answers_are_to_come(running):
    first, last = running[1][0], running[1][-1]
    assert not first and "Preliminary: culture neurons" in last and "answers are in" in last


@pytest.mark.parametrize("asked", ["all", 40])
def test_the_bar_counts_what_is_asked(loaded, tmp_path, monkeypatch, asked):
    """It is full when the last question is asked, and not before."""
    seen: list[tuple[float, float]] = []

    class Counted(pipeline.StudyBar):
        def stage(self, description, each):
            advance = super().stage(description, each)

            def count(questions):
                advance(questions)
                self.counted = getattr(self, "counted", 0.0) + questions * each
                seen.append((self.counted, self._bar.total))

            return count

    monkeypatch.setattr(pipeline, "StudyBar", Counted)
    monkeypatch.setattr("culnig_tl.study.sampling.LEAST", 8)  # of a task of 60 questions
    config = StudyConfig(
        tasks=("miniculture", "minicommonsense"),
        reading="minireading",
        rival=None,
        top_mlp=0.1,
        top_attn=0.05,
        random_sets=3,
        random_questions=asked,
        limit=60,
    )
    run_study(config, model=loaded("llama"), folder=tmp_path / "study", progress=False)
    counted, total = seen[-1]
    assert counted == pytest.approx(total, rel=0.02)
