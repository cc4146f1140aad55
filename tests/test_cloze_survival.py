"""Work on cloze questions that is killed and resumed, or shared among processes."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from culnig_tl import EvaluationResult, NeuronScores, NeuronSet, evaluate, question_scores, score_neurons
from culnig_tl.engine.checkpoint import Checkpoint

from .builders import questions_with_texts
from .helpers import difference
from .processes import counting, forked, kill_self, together

NEURONS = NeuronSet.from_indices([("attn.v", 2, 3), ("mlp.gate", 0, 5), ("mlp.gate", 0, 2), ("attn.q", 1, 7)])


@pytest.fixture(scope="module")
def task():
    return questions_with_texts(7).cloze()


def scoring(model, questions, folder: Path, *, progress=False, normalise="unconditional", **options) -> bytes:
    checkpoint, asked = Checkpoint(folder / "state", every=0), questions.normalised(normalise)
    found = score_neurons(model, asked, batch_size=2, checkpoint=checkpoint, progress=progress, **options)
    checkpoint.remove()
    several = found if isinstance(found, dict) else {"scores": found}
    return b"".join(scores.save(folder / name).read_bytes() for name, scores in several.items())


def asking(model, questions, folder: Path, *, progress=False, **options) -> bytes:
    checkpoint = Checkpoint(folder / "state", every=0)
    result = evaluate(model, questions, batch_size=2, checkpoint=checkpoint, progress=progress, **options)
    checkpoint.remove()
    return result.save(folder / "answers.parquet").read_bytes()


def looking(model, questions, folder: Path, *, progress=False) -> bytes:
    checkpoint = Checkpoint(folder / "state", every=0)
    found = question_scores(model, questions, NEURONS, batch_size=2, checkpoint=checkpoint, progress=progress)
    checkpoint.remove()
    return found.scores.tobytes() + found.tokens.tobytes() + found.p_answer.tobytes()


WORK = {
    "scores": (scoring, {}),
    "scores without a prior": (scoring, {"normalise": "sum"}),
    "scores by several methods": (scoring, {"method": ["culnig", "culnig-mean", "lape"]}),
    "answers": (asking, {}),
    "answers of an ablated model": (asking, {"ablate": NEURONS}),
    "question scores": (looking, {}),
}


@pytest.mark.parametrize("name", WORK)
def test_work_that_was_killed_ends_in_the_same_bytes(name, loaded, task, tmp_path):
    work, options = WORK[name]
    given = (loaded("llama"), task, tmp_path)
    expected = work(*given, **options)
    assert forked(lambda: work(*given, progress=counting(3, kill_self), **options)) == -signal.SIGKILL
    done: list[int] = []
    assert work(*given, progress=done.append, **options) == expected
    assert done[0] == 4, "two batches were saved"


def test_a_checkpoint_of_another_normalisation_is_not_resumed_from(loaded, task, tmp_path):
    given = (loaded("llama"), task, tmp_path)
    assert forked(lambda: scoring(*given, progress=counting(3, kill_self))) == -signal.SIGKILL
    done: list[int] = []
    expected = scoring(loaded("llama"), task, tmp_path, normalise="sum", progress=done.append)
    assert done[0] != 4
    (tmp_path / "fresh").mkdir()
    assert scoring(loaded("llama"), task, tmp_path / "fresh", normalise="sum") == expected


def test_two_processes_score_as_one_does(loaded, task, tmp_path):
    def work() -> NeuronScores:
        return score_neurons(loaded("llama"), task, batch_size=2, bootstrap=1, progress=False)

    alone = work()
    assert together(2, lambda rank: work().save(tmp_path / str(rank))) == [0, 0]
    for found in (NeuronScores.load(tmp_path / str(rank)) for rank in range(2)):
        assert difference(found, alone) < 1e-6
        assert found.p_answer == pytest.approx(alone.p_answer, rel=1e-6)


def test_two_processes_answer_as_one_does(loaded, task, tmp_path):
    def work() -> EvaluationResult:
        return evaluate(loaded("llama"), task, batch_size=2, progress=False)

    alone = work().save(tmp_path / "alone.parquet").read_bytes()
    assert together(2, lambda rank: work().save(tmp_path / f"{rank}.parquet")) == [0, 0]
    for rank in range(2):
        found = EvaluationResult.load(tmp_path / f"{rank}.parquet")
        assert (tmp_path / f"{rank}.parquet").read_bytes() == alone or found.table.astype(str).equals(
            EvaluationResult.load(tmp_path / "alone.parquet").table.astype(str)
        )
