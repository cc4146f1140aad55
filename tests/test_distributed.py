"""Several processes on one piece of work: what they find together is what one finds alone."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from culnig_tl import NeuronScores, score_neurons
from culnig_tl.engine.checkpoint import Ledger, Saving
from culnig_tl.engine.world import Ranks, ranks

from . import families
from .helpers import difference
from .processes import kill_self, together


def counting(at: int, do):
    seen = []

    def advance(count: int) -> None:
        seen.extend([count] if count else [])
        if count and len(seen) == at:
            do()

    return advance


def test_batches_are_dealt_each_once():
    plan = [[0, 1, 2], [3, 4], [5], [6], [7]]
    dealt = [part for rank in range(3) for part in Ledger.deal(plan, Ranks(rank, 3)).waiting]
    assert sorted(dealt) == [(i, 0, len(batch)) for i, batch in enumerate(plan)]
    assert [len(Ledger.deal(plan[:2], Ranks(rank, 3)).waiting) for rank in range(3)] == [1, 1, 0], (
        "one has nothing to do"
    )
    assert ranks() == Ranks(0, 1), "alone here"


@pytest.mark.parametrize(("count", "questions", "batch_size"), [(2, 13, 3), (3, 13, 3), (3, 2, 1)])
def test_scores_of_several_processes_are_those_of_one(count, questions, batch_size, loaded, tmp_path):
    """Uneven shares, and fewer batches than processes."""
    model, task = loaded("llama"), families.questions(questions)
    alone = score_neurons(model, task, batch_size=batch_size, bootstrap=1, progress=False)

    def work(rank: int) -> None:
        scores = score_neurons(model, task, batch_size=batch_size, bootstrap=1, progress=False)
        scores.save(tmp_path / f"{rank}.safetensors")

    assert together(count, work) == [0] * count
    found = [NeuronScores.load(tmp_path / f"{rank}.safetensors") for rank in range(count)]
    for scores in found:
        assert difference(scores, alone) < 1e-6
        assert scores.questions == alone.questions and scores.p_answer == pytest.approx(
            alone.p_answer, rel=1e-6
        )
        assert scores.metadata["batch_sizes"] == alone.metadata["batch_sizes"]
        assert scores.metadata["accuracy"] == alone.metadata["accuracy"]
        for site in scores.sites:
            np.testing.assert_allclose(
                scores.replicates[site],
                alone.replicates[site],
                atol=1e-6 * np.abs(alone.replicates[site]).max(),
            )


def test_what_they_tell_each_other(tmp_path):
    def work(rank: int) -> None:
        among = ranks()
        assert among.collect({"rank": rank, "long": "ä" * rank * 1000}) == [
            {"rank": r, "long": "ä" * r * 1000} for r in range(3)
        ]
        assert among.share([rank, None]) == [0, None]
        among.first_does(lambda: (tmp_path / f"by {rank}").touch())
        with pytest.raises(OSError if rank == 0 else Exception, match="No such file"):
            among.first_does(lambda: (tmp_path / "nowhere" / "x").touch())

    assert together(3, work) == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["by 0"]


@pytest.mark.parametrize("dies", [0, 1])
def test_a_process_that_dies_ends_the_run_and_leaves_its_state(dies, loaded, tmp_path):
    model, task = loaded("llama"), families.questions(13)
    score_neurons(model, task, batch_size=2, progress=False).save(tmp_path / "alone")

    def work(rank: int, deadly: bool = True) -> None:
        from culnig_tl import attribution

        saving = Saving(tmp_path / "state", every=0)
        bar = counting(2, kill_self) if rank == 0 and rank == dies else lambda n: None
        if deadly and rank == dies and rank:  # bars are the first one's
            original = attribution.pad
            calls = []
            attribution.pad = lambda *a: (
                calls.append(a),
                kill_self() if len(calls) == 3 else None,
                original(*a),
            )[-1]
        scores = score_neurons(model, task, batch_size=2, saving=saving, progress=bar if deadly else False)
        scores.save(tmp_path / f"{rank}.safetensors")

    codes = together(2, work)
    assert codes[dies] == -signal.SIGKILL and codes[1 - dies] == 1
    assert {path.name for path in tmp_path.glob("state*")} == {"state.0-of-2", "state.1-of-2"}
    kept = {path: path.stat().st_size for path in tmp_path.glob("state*")}
    assert min(kept.values()) > 2000, "each had something"
    assert together(2, lambda rank: work(rank, deadly=False)) == [0, 0]
    whole = NeuronScores.load(tmp_path / "alone")
    assert difference(NeuronScores.load(tmp_path / "0.safetensors"), whole) < 1e-6
    again = (tmp_path / "0.safetensors").read_bytes()
    for path in tmp_path.glob("state*"):
        path.unlink()
    assert together(2, lambda rank: work(rank, deadly=False)) == [0, 0]
    assert (tmp_path / "0.safetensors").read_bytes() == again, (
        "the same bytes as a run of two that nobody killed"
    )


def test_a_state_of_another_number_of_processes_is_not_mixed_up(loaded, tmp_path):
    model, task = loaded("llama"), families.questions(6)
    saving = Saving(tmp_path / "state", every=0)
    with pytest.raises(KeyboardInterrupt):
        score_neurons(
            model,
            task,
            batch_size=2,
            saving=saving,
            progress=counting(2, lambda: (_ for _ in ()).throw(KeyboardInterrupt)),
        )

    def work(rank: int) -> None:
        with pytest.raises(Exception, match=r"was left by a run of 1 process\(es\), this one has 2"):
            score_neurons(model, task, batch_size=2, saving=Saving(Path(tmp_path / "state")), progress=False)

    assert together(2, work) == [0, 0]


def test_a_study_of_two_processes_in_place_of_another(loaded, tmp_path, monkeypatch):
    """Resumed, overwritten, and with a part of it there already: what one process decides, both do."""
    from dataclasses import replace

    from culnig_tl import EvaluationResult, run_study
    from culnig_tl.run import pipeline
    from culnig_tl.study.config import StudyConfig

    monkeypatch.setattr(pipeline, "draw", lambda study, place: None)
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
    model, folder = loaded("llama"), tmp_path / "study"
    run_study(config, model=model, folder=folder, progress=False)
    alone = EvaluationResult.load(folder / "results" / "culture-general.parquet")
    old = (folder / "study.json").stat().st_mtime_ns
    (folder / "results" / "culture-general.parquet").unlink()

    def resume(rank: int) -> None:
        study = run_study(config, model=model, folder=folder, resume=True, progress=False)
        assert study.results["culture-general"].table.equals(alone.table)

    assert together(2, resume) == [0, 0]
    assert EvaluationResult.load(folder / "results" / "culture-general.parquet").table.equals(alone.table)
    assert together(
        2,
        lambda rank: run_study(
            replace(config, limit=4), model=model, folder=folder, overwrite=True, progress=False
        ),
    ) == [
        0,
        0,
    ]
    assert len(EvaluationResult.load(folder / "results" / "unchanged.parquet")) == 4
    assert (folder / "study.json").stat().st_mtime_ns > old and not (folder / "study.lock").exists()
