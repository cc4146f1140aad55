"""Several processes on one piece of work: what they find together is what one finds alone."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from culnig_tl import (
    EvaluationResult,
    NeuronScores,
    NeuronSet,
    evaluate,
    exact_effects,
    mean_outputs,
    question_scores,
    run_study,
    score_neurons,
)
from culnig_tl.engine import run
from culnig_tl.engine.checkpoint import BatchQueue, Checkpoint
from culnig_tl.engine.world import World, world
from culnig_tl.errors import StudyError
from culnig_tl.run import pipeline
from culnig_tl.study.config import StudyConfig

from . import families
from .helpers import difference
from .processes import counting, kill_self, together

# ---------------------------------------------------------------------------------------- what they are dealt

PLAN = [[0, 1, 2], [3, 4], [5], [6], [7]]


def test_batches_are_dealt_each_once():
    dealt = [part for rank in range(3) for part in BatchQueue.deal(PLAN, World(rank, 3)).waiting]
    assert sorted(dealt) == [(number, 0, len(batch)) for number, batch in enumerate(PLAN)]


def test_of_fewer_batches_than_processes_one_has_nothing_to_do():
    shares = [len(BatchQueue.deal(PLAN[:2], World(rank, 3)).waiting) for rank in range(3)]
    assert shares == [1, 1, 0]


def test_a_process_alone_is_a_world_of_one():
    assert world() == World(0, 1)


# ---------------------------------------------------------------------------------- what they tell each other


def test_each_process_gets_what_all_gave():
    def work(rank: int) -> None:
        given = [{"rank": r, "long": "ä" * r * 1000} for r in range(3)]
        assert world().gather(given[rank]) == given

    assert together(3, work) == [0, 0, 0]


def test_each_process_gets_what_the_first_gave():
    def work(rank: int) -> None:
        assert world().broadcast([rank, None]) == [0, None]

    assert together(3, work) == [0, 0, 0]


def test_what_the_first_does_is_done_once(tmp_path):
    def work(rank: int) -> None:
        world().on_first(lambda: (tmp_path / f"by {rank}").touch())
        assert (tmp_path / "by 0").exists()

    assert together(3, work) == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["by 0"]


def test_an_error_of_the_first_is_raised_in_all(tmp_path):
    def work(rank: int) -> None:
        with pytest.raises(OSError if rank == 0 else StudyError, match="No such file"):
            world().on_first(lambda: (tmp_path / "nowhere" / "x").touch())

    assert together(3, work) == [0, 0, 0]


# ------------------------------------------------------------------------------------ what they find together


def found_by(count: int, work, folder: Path) -> list[dict[str, np.ndarray]]:
    """The arrays that `work` returns in each of so many processes."""
    codes = together(count, lambda rank: np.savez(folder / f"{rank}.npz", **work()))
    assert codes == [0] * count
    return [dict(np.load(folder / f"{rank}.npz")) for rank in range(count)]


def close(mine: np.ndarray, theirs: np.ndarray) -> bool:
    """Equal but for the order of sums."""
    return np.abs(mine - theirs).max() <= 1e-6 * np.abs(theirs).max()


def scores_by(method: str, **options):
    def work(model, task) -> dict[str, np.ndarray]:
        scores = score_neurons(model, task, method=method, progress=False, **options)
        drawn = {f"{site} drawn": array for site, array in (scores.replicates or {}).items()}
        return {**{str(site): array for site, array in scores.arrays.items()}, **drawn}

    return work


NEURONS = NeuronSet.from_indices([("attn.v", 2, 3), ("mlp.gate", 0, 5), ("mlp.gate", 0, 2), ("attn.q", 1, 7)])


def effects(model, task) -> dict[str, np.ndarray]:
    found = exact_effects(model, task, NEURONS, progress=False)
    return {"drops": found.drops, "p_answer": found.p_answer}


def means(model, task) -> dict[str, np.ndarray]:
    found = mean_outputs(model, task, batch_size=3, progress=False)
    return {str(site): array for site, array in found.arrays.items()}


def terms(model, task) -> dict[str, np.ndarray]:
    found = question_scores(model, task, NEURONS, batch_size=3, progress=False)
    return {"scores": found.scores, "tokens": found.tokens, "p_answer": found.p_answer}


def answers(model, task) -> dict[str, np.ndarray]:
    table = evaluate(model, task, batch_size=3, progress=False).table
    return {"p_answer": table["p_answer"].to_numpy(), "correct": table["correct"].to_numpy(float)}


WORK = {
    "culnig": (scores_by("culnig", batch_size=3, bootstrap=1), 13, close),
    "culnig with fewer batches than processes": (scores_by("culnig", batch_size=1), 1, close),
    "atp": (scores_by("atp", batch_size=3), 13, close),
    "lape": (scores_by("lape", batch_size=3, bootstrap=1), 13, np.array_equal),
    "exact effects": (effects, 5, np.array_equal),
    "mean outputs": (means, 13, close),
    "question scores": (terms, 13, np.array_equal),
    "answers": (answers, 13, np.array_equal),
}
"""What is done, on how many questions, and how alike the results are: the same bytes where nothing is summed
but counts."""


@pytest.mark.parametrize("name", WORK)
def test_two_processes_find_what_one_does(name, loaded, tmp_path):
    work, questions, alike = WORK[name]
    given = loaded("llama"), families.questions(questions)
    alone = work(*given)
    for found in found_by(2, lambda: work(*given), tmp_path):
        assert found.keys() == alone.keys()
        assert all(alike(found[key], alone[key]) for key in alone)


@pytest.fixture(scope="module")
def scored_by_three(loaded, tmp_path_factory) -> tuple[NeuronScores, list[NeuronScores]]:
    """(scores of one process, scores in each of three) on thirteen questions, in uneven shares."""
    model, task, folder = loaded("llama"), families.questions(13), tmp_path_factory.mktemp("three")

    def scored() -> NeuronScores:
        return score_neurons(model, task, batch_size=3, bootstrap=1, progress=False)

    assert together(3, lambda rank: scored().save(folder / str(rank))) == [0, 0, 0]
    return scored(), [NeuronScores.load(folder / str(rank)) for rank in range(3)]


def test_scores_of_three_processes_are_those_of_one(scored_by_three):
    alone, found = scored_by_three
    assert max(difference(scores, alone) for scores in found) < 1e-6


def test_probabilities_of_three_processes_are_those_of_one(scored_by_three):
    alone, found = scored_by_three
    assert all(scores.p_answer == pytest.approx(alone.p_answer, rel=1e-6) for scores in found)


@pytest.mark.parametrize("key", ["batch_sizes", "accuracy"])
def test_metadata_of_three_processes_are_those_of_one(key, scored_by_three):
    alone, found = scored_by_three
    assert all(scores.metadata[key] == alone.metadata[key] for scores in found)


def test_replicates_of_three_processes_are_those_of_one(scored_by_three):
    alone, found = scored_by_three
    assert all(close(s.replicates[site], alone.replicates[site]) for s in found for site in s.sites)


# ---------------------------------------------------------------------------------------------- one that dies


def scored_by_two(model, task, folder: Path, dies: int | None = None) -> list[int]:
    """Exit codes of two processes that score and keep checkpoints; one of them may die in the middle."""

    def work(rank: int) -> None:
        bar = False
        if rank == dies == 0:
            bar = counting(2, kill_self)
        elif rank == dies:  # bars are the first one's
            count, original = counting(3, kill_self), run.pad
            run.pad = lambda *arguments: (count(1), original(*arguments))[1]
        checkpoint = Checkpoint(folder / "state", every=0)
        scores = score_neurons(model, task, batch_size=2, checkpoint=checkpoint, progress=bar)
        scores.save(folder / f"{rank}.safetensors")

    return together(2, work)


@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_dies_ends_the_run_and_leaves_its_state(dies, loaded, tmp_path):
    codes = scored_by_two(loaded("llama"), families.questions(13), tmp_path, dies)
    assert codes[dies] == -signal.SIGKILL and codes[1 - dies] == 1
    kept = {path.name: path.stat().st_size for path in tmp_path.glob("state*")}
    assert kept.keys() == {"state.0-of-2", "state.1-of-2"}
    assert min(kept.values()) > 2000, "each had something"


@pytest.mark.parametrize("dies", [0, 1])
def test_a_run_of_which_a_process_died_ends_in_the_same_bytes(dies, loaded, tmp_path):
    model, task = loaded("llama"), families.questions(13)
    (tmp_path / "whole").mkdir()
    assert scored_by_two(model, task, tmp_path / "whole") == [0, 0]
    scored_by_two(model, task, tmp_path, dies)
    assert scored_by_two(model, task, tmp_path) == [0, 0]
    whole, resumed = (folder / "0.safetensors" for folder in (tmp_path / "whole", tmp_path))
    assert resumed.read_bytes() == whole.read_bytes()


def test_a_state_of_another_number_of_processes_is_not_mixed_up(loaded, tmp_path):
    model, task = loaded("llama"), families.questions(6)

    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoint = Checkpoint(tmp_path / "state", every=0)
        score_neurons(model, task, batch_size=2, checkpoint=checkpoint, progress=counting(2, stop))

    def work(rank: int) -> None:
        with pytest.raises(StudyError, match=r"was left by a run of 1 process\(es\), this one has 2"):
            score_neurons(
                model, task, batch_size=2, checkpoint=tmp_path / "state", resume=True, progress=False
            )

    assert together(2, work) == [0, 0]


@pytest.mark.parametrize("resume", [False, True])
def test_two_processes_resume_from_a_path_where_that_is_said(resume, loaded, tmp_path):
    model, task = loaded("llama"), families.questions(13)
    scored_by_two(model, task, tmp_path, dies=1)

    def work(rank: int) -> None:
        done: list[int] = []
        how = {"checkpoint": str(tmp_path / "state"), "resume": resume, "progress": done.append}
        score_neurons(model, task, batch_size=2, **how)
        assert rank or (done[0] > 0) == resume  # bars are the first one's

    assert together(2, work) == [0, 0]


# ---------------------------------------------------------------------------------------------------- a study


@pytest.fixture
def study(loaded, tmp_path, monkeypatch):
    """(configuration, model, folder) of a small study that one process has finished."""
    monkeypatch.setattr(pipeline, "draw", lambda study, place: [])
    config = StudyConfig(
        tasks=("miniculture",),
        reading="minireading",
        rival=None,
        top_mlp=0.1,
        top_attn=0.05,
        random_sets=1,
        limit=6,
        batch_size=2,
    )
    run_study(config, model=loaded("llama"), folder=tmp_path / "study", progress=False)
    return config, loaded("llama"), tmp_path / "study"


def test_two_processes_finish_a_study_of_one(study):
    config, model, folder = study
    path = folder / "results" / "culture-general.parquet"
    alone = EvaluationResult.load(path)
    path.unlink()

    def resume(rank: int) -> None:
        again = run_study(config, model=model, folder=folder, resume=True, progress=False)
        assert again.results["culture-general"].table.equals(alone.table)

    assert together(2, resume) == [0, 0]
    assert EvaluationResult.load(path).table.equals(alone.table)


def test_two_processes_overwrite_a_study_of_one(study):
    config, model, folder = study

    def overwrite(rank: int) -> None:
        run_study(replace(config, limit=4), model=model, folder=folder, overwrite=True, progress=False)

    assert together(2, overwrite) == [0, 0]
    assert len(EvaluationResult.load(folder / "results" / "unchanged.parquet")) == 4
    assert not (folder / "study.lock").exists()
