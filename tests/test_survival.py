"""Runs that are killed, interrupted, or have no room: nothing is lost, mixed up or done twice."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from culnig_tl import (
    NeuronScores,
    NeuronSet,
    evaluate,
    evaluation,
    files,
    passes,
    run_study,
    score_neurons,
    score_prompt,
)
from culnig_tl.cli import app
from culnig_tl.engine.checkpoint import Saving
from culnig_tl.engine.identity import model_identity
from culnig_tl.errors import ScoreError, StudyError
from culnig_tl.run import pipeline
from culnig_tl.study.config import StudyConfig
from culnig_tl.study.folder import StudyFolder

from . import families
from .processes import command, content, ended, forked, kill_self


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """A test runner may have it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def questions():
    return families.questions(14)


@pytest.fixture(scope="module")
def whole(loaded, questions, tmp_path_factory) -> bytes:
    """Scores of a run that nobody stopped."""
    folder = tmp_path_factory.mktemp("whole")
    content = scored(loaded("llama"), questions, folder)
    assert not (folder / "state").exists()
    return content


def counting(at: int, do) -> object:
    """A bar that does something when its so-manieth batch is done."""
    seen = []

    def advance(count: int) -> None:
        if count:
            seen.append(count)
        if count and len(seen) == at:
            do()

    return advance


def scored(model, questions, path: Path, **options) -> bytes:
    """Bytes of the scores, saved in the folder of the state."""
    saving = options.pop("saving", None) or Saving(path / "state", every=0)
    scores = score_neurons(model, questions, batch_size=2, saving=saving, **{"progress": False, **options})
    content = scores.save(path / "scores.safetensors").read_bytes()
    saving.remove()
    return content


# -------------------------------------------------------------------------------------------------------------- scoring


@pytest.mark.parametrize("batches", [1, 4, 7])
def test_scoring_that_was_killed_ends_in_the_same_bytes(batches, loaded, questions, whole, tmp_path):
    model = loaded("llama")
    assert (
        forked(lambda: scored(model, questions, tmp_path, progress=counting(batches, kill_self)))
        == -signal.SIGKILL
    )
    assert (tmp_path / "state").is_file()
    done = []
    assert scored(model, questions, tmp_path, progress=done.append) == whole
    assert sum(done) == 14 and sum(done[1:]) == 14 - 2 * (batches - 1), (
        "what was done before the last save is not done again"
    )


def test_scoring_killed_again_and_again_with_replicates_in_a_narrow_dtype(loaded, questions, tmp_path):
    model = loaded("gemma3-text", dtype="bfloat16")
    options = {"bootstrap": 2, "aggregation": "sum", "sites": ["attn.v", "mlp.gate"]}
    whole = scored(model, questions, tmp_path, **options)
    for _ in range(2):
        assert (
            forked(lambda: scored(model, questions, tmp_path, progress=counting(3, kill_self), **options))
            == -signal.SIGKILL
        )
    assert scored(model, questions, tmp_path, **options) == whole


@pytest.mark.parametrize("moment", ["mkstemp", "fsync", "replace"])
def test_killed_while_writing(moment, loaded, questions, whole, tmp_path):
    """The state before stays whole, and what lies half-written beside it does not matter."""
    model = loaded("llama")

    def dies() -> None:
        import tempfile

        owner = tempfile if moment == "mkstemp" else os
        original, calls = getattr(owner, moment), []

        def do(*args, **kwargs):
            calls.append(args)
            if len(calls) == 4:
                kill_self()
            return original(*args, **kwargs)

        setattr(owner, moment, do)
        scored(model, questions, tmp_path)

    assert forked(dies) == -signal.SIGKILL
    assert scored(model, questions, tmp_path) == whole


def test_memory_that_ran_out_before_the_kill(loaded, questions, tmp_path):
    """The halves that the first run had come to are the second's, too."""
    model = loaded("llama")

    def explode(gradient, hook):
        if gradient.shape[0] > 3:
            raise torch.OutOfMemoryError("out of memory")

    def run(kill_at=None, **options):
        saving = Saving(tmp_path / "state", every=0, model={})  # hooks stand for a device that is too small
        bar = counting(kill_at, kill_self) if kill_at else False
        with model.hooks(bwd_hooks=[("blocks.1.mlp.hook_pre", explode)]):
            scores = score_neurons(model, questions, batch_size=8, saving=saving, progress=bar)
        saving.remove()
        return scores.save(tmp_path / "scores").read_bytes()

    whole = run()
    assert max(NeuronScores.load(tmp_path / "scores").metadata["batch_sizes"]) <= 3
    assert forked(lambda: run(kill_at=3)) == -signal.SIGKILL
    assert run() == whole


def test_the_plan_is_replayed_not_made_again(loaded, questions, tmp_path, monkeypatch):
    from culnig_tl import attribution

    model = loaded("llama")
    monkeypatch.setattr(attribution, "tokens_that_fit", lambda *a: 150)
    saving = Saving(tmp_path / "state", every=0)
    assert (
        forked(lambda: score_neurons(model, questions, saving=saving, progress=counting(1, kill_self)))
        == -signal.SIGKILL
    )
    monkeypatch.setattr(attribution, "tokens_that_fit", lambda *a: pytest.fail("the stored plan says it"))
    scores = score_neurons(model, questions, saving=Saving(tmp_path / "state"), progress=False)
    assert scores.metadata["tokens_a_batch"] == 150


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_batch_and_keeps_it(signal_, loaded, questions, whole, tmp_path):
    model = loaded("llama")
    saving = Saving(tmp_path / "state")  # nothing would be saved for a minute
    before = signal.getsignal(signal.SIGINT)
    stop = counting(4, lambda: os.kill(os.getpid(), signal_))
    with pytest.raises(KeyboardInterrupt):
        score_neurons(model, questions, batch_size=2, saving=saving, progress=stop)
    assert signal.getsignal(signal.SIGINT) is before
    done = []
    again = Saving(tmp_path / "state")
    assert scored(model, questions, tmp_path, saving=again, progress=done.append) == whole
    assert done[0] == 8, "all four batches were kept"


def test_state_of_other_work_is_not_used(loaded, questions, tmp_path):
    model = loaded("llama")

    def begin() -> None:
        score_neurons(
            model,
            questions,
            batch_size=2,
            saving=Saving(tmp_path / "state", every=0),
            progress=counting(3, kill_self),
        )

    assert forked(begin) == -signal.SIGKILL
    done = []
    score_neurons(
        model, questions[:12], batch_size=2, saving=Saving(tmp_path / "state"), progress=done.append
    )
    assert done[0] == 0, "other questions"
    assert forked(begin) == -signal.SIGKILL
    score_neurons(
        model, questions, aggregation="sum", saving=Saving(tmp_path / "state"), progress=done.append
    )
    assert done.count(0) == 2, "another aggregation"


@pytest.mark.parametrize(
    "spoil", [b"", b"{}", b"\xff" * 8 + b"{", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "]
)
def test_a_spoiled_state_is_named(spoil, loaded, questions, tmp_path):
    (tmp_path / "state").write_bytes(spoil)
    with pytest.raises(StudyError, match="state is no state that can be gone on from"):
        scored(loaded("llama"), questions, tmp_path)


def test_nan_names_its_question_and_keeps_the_state_before_it(loaded, questions, whole, tmp_path):
    model = loaded("llama")
    batches = []

    def poison(gradient, hook):
        batches.append(gradient)
        return (gradient * torch.nan,) if len(batches) == 5 else None

    saving = Saving(tmp_path / "state", every=0, model=model_identity(model))
    with (
        model.hooks(bwd_hooks=[("blocks.1.mlp.hook_out", poison)]),
        pytest.raises(ScoreError, match=r"question 'small-\d+' of small gives NaN"),
    ):
        score_neurons(model, questions, batch_size=2, saving=saving, progress=False)
    done = []
    assert scored(model, questions, tmp_path, progress=done.append) == whole
    assert done[0] > 0


# ----------------------------------------------------------------------------------------------------------- evaluation


def asked(model, questions, path: Path, **options) -> bytes:
    """Bytes of the answers, saved in the folder of the state."""
    saving = options.pop("saving", None) or Saving(path / "asked", every=0)
    result = evaluate(model, questions, batch_size=2, saving=saving, **{"progress": False, **options})
    content = result.save(path / "answers.parquet").read_bytes()
    saving.remove()
    return content


@pytest.mark.parametrize("switched", [False, True])
def test_evaluation_that_was_killed_ends_in_the_same_bytes(switched, loaded, questions, tmp_path):
    model = loaded("qwen3")
    neurons = NeuronSet.from_indices([("mlp.gate", 0, 3), ("attn.v", 2, 1)]) if switched else None
    whole = asked(model, questions, tmp_path, neurons=neurons)
    kill = counting(5, kill_self)
    assert (
        forked(lambda: asked(model, questions, tmp_path, neurons=neurons, progress=kill)) == -signal.SIGKILL
    )
    done = []
    assert asked(model, questions, tmp_path, neurons=neurons, progress=done.append) == whole
    assert done[0] == 8, "four batches were saved when the fifth was done"


def test_nan_in_answers_names_its_question_and_is_not_saved(loaded, questions, tmp_path):
    model = loaded("llama")
    whole = asked(model, questions, tmp_path)
    batches = []

    def poison(logits, hook):
        batches.append(logits)
        return logits * torch.nan if len(batches) == 7 else None

    saving = Saving(tmp_path / "asked", every=0, model=model_identity(model))
    with (
        model.hooks(fwd_hooks=[("unembed.hook_out", poison)]),
        pytest.raises(ScoreError, match=r"question 'small-\d+' of small gives NaN"),
    ):
        asked(model, questions, tmp_path, saving=saving)
    done = []
    assert asked(model, questions, tmp_path, progress=done.append) == whole
    assert done[0] > 0


# -------------------------------------------------------------------------------------------------------------- context


def test_a_question_that_is_too_long_is_named_and_counted(loaded, questions, caplog):
    model = loaded("llama")
    first, second = questions[0], questions[1]
    long = replace(first, id="an epic", cluster="epic", prompt="Sing. " * 300 + first.prompt)
    with_long = replace(questions, questions=(long, *questions))
    scores, alone = (
        score_neurons(model, task, batch_size=2, progress=False) for task in (with_long, questions)
    )
    assert (
        "1 of 15 questions of small do not fit in the model's context of 256 tokens and are left out: 'an epic' ("
        in caplog.text
    )
    assert (
        scores.metadata["too_long"] == ["an epic"]
        and scores.questions == alone.questions
        and scores.clusters == alone.clusters
    )
    assert all((scores.arrays[site] == alone.arrays[site]).all() for site in scores.sites)
    result = evaluate(model, with_long, progress=False)
    assert (
        result.metadata["too_long"] == {"small": ["an epic"]}
        and len(result) == 14
        and "an epic" not in set(result.table["id"])
    )
    assert list(result.table["answer"]) == [q.answer for q in questions]
    with pytest.raises(
        ScoreError, match="no question of small fits in the model's context of 256 tokens: 'an epic'"
    ):
        evaluate(model, replace(questions, questions=(long,)), progress=False)
    with pytest.raises(ScoreError, match="fits in the model's context"):
        score_prompt(model, replace(long, id=second.id))


# -------------------------------------------------------------------------------------------------------- a whole study


@pytest.fixture(scope="module")
def config() -> StudyConfig:
    return StudyConfig(
        tasks=("miniculture", "minicommonsense"), reading="minireading", rival="minicommonsense", top_mlp=0.1, top_attn=0.05, random_sets=1,
        limit=8, batch_size=3,
    )  # fmt: skip


@pytest.fixture
def without_pictures(monkeypatch):
    monkeypatch.setattr(pipeline, "draw", lambda study, place: None)


def test_a_study_killed_again_and_again_ends_in_the_same_bytes(config, loaded, tmp_path, without_pictures):
    model = loaded("llama")
    run_study(config, model=model, folder=tmp_path / "whole", progress=False)

    def dies(moment: str) -> None:
        original, calls = getattr(os, moment), []

        def do(*args, **kwargs):
            calls.append(args)
            if len(calls) == 22:
                kill_self()
            return original(*args, **kwargs)

        setattr(os, moment, do)
        run_study(config, model=model, folder=tmp_path / "killed", resume=True, progress=False, save_every=0)

    codes = []
    while not codes or codes[-1]:
        codes.append(forked(lambda: dies("replace" if len(codes) % 2 else "fsync")))
        assert codes[-1] in (0, -signal.SIGKILL) and len(codes) < 40
    assert len(codes) > 3, "it was killed often enough to mean something"
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == [
        "neurons",
        "results",
        "scores",
        "study.json",
    ]
    assert not [path for path in tmp_path.rglob(f"*{files.TEMPORARY}")]


def test_a_second_run_in_the_same_folder_is_told(config, loaded, tmp_path, without_pictures):
    folder = tmp_path / "study"
    with (
        StudyFolder(folder, {}).opened(),
        pytest.raises(StudyError, match=rf"is being worked on by process {os.getpid()} on"),
    ):
        run_study(config, model=loaded("llama"), folder=folder, resume=True, progress=False)
    assert not folder.exists(), "neither has left anything"
    with Saving.beside(tmp_path / "s.safetensors", resume=True):
        result = CliRunner().invoke(
            app, ["score", "--model", "toy", "--limit", "4", "-o", str(tmp_path / "s.safetensors")]
        )
    assert isinstance(result.exception, StudyError) and "is being worked on" in str(result.exception)


def test_results_of_a_changed_checkpoint_are_made_again(
    config, checkpoints, tmp_path, without_pictures, caplog
):
    import shutil

    shutil.copytree(checkpoints("llama"), tmp_path / "model")
    config = replace(config, model=str(tmp_path / "model"), device="cpu")
    first = run_study(config, folder=tmp_path / "study", progress=False)
    shutil.copytree(checkpoints("llama", seed=1), tmp_path / "model", dirs_exist_ok=True)
    second = run_study(config, folder=tmp_path / "study", resume=True, progress=False)
    assert "scores/neuron.safetensors" in caplog.text and "is of other work (model is" in caplog.text
    assert second.info["revision"] != first.info["revision"]
    assert (
        second.results["unchanged"].table["p_answer"].tolist()
        != first.results["unchanged"].table["p_answer"].tolist()
    )


def test_commands_keep_a_state_and_go_on_from_it(checkpoints, tmp_path):
    """`score` and `evaluate`, stopped by Ctrl-C in the middle."""
    model = ["--model", str(checkpoints("llama")), "--device", "cpu", "--limit", "12", "--batch-size", "2"]
    for words in (["score", "--task", "miniculture"], ["evaluate", "--tasks", "miniculture,minianswers"]):
        whole, stopped = tmp_path / "whole", tmp_path / "stopped"
        assert CliRunner().invoke(app, [*words, *model, "-o", str(whole)]).exit_code == 0
        place = passes if words[0] == "score" else evaluation
        original, calls = place.last_logits, []

        def interrupted(*args, calls=calls, original=original, at=7 if words[0] == "score" else 12):
            calls.append(args)
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGINT)
            return original(*args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, "last_logits", interrupted)
            assert CliRunner().invoke(app, [*words, *model, "-o", str(stopped)]).exit_code == 130
        assert not stopped.exists() and len(list(tmp_path.glob("stopped.*.state"))) >= 1
        assert CliRunner().invoke(app, [*words, *model, "-o", str(stopped), "--resume"]).exit_code == 0
        assert stopped.read_bytes() == whole.read_bytes()
        assert not list(tmp_path.glob("stopped.*"))
        stopped.unlink()
    result = CliRunner().invoke(app, ["evaluate", "--resume"])
    assert "--resume needs --output" in str(result.exception)


@pytest.mark.slow
def test_the_real_command_killed_three_times(tmp_path):
    words = [
        "run",
        "--model",
        "toy",
        "--limit",
        "30",
        "--random-sets",
        "1",
        "--tasks",
        "miniculture,minicommonsense",
    ]
    words += ["--batch-size", "3", "--save-every", "0", "--resume", "--output-dir"]
    assert ended(command(*words, str(tmp_path / "whole")), 400)[0] == 0
    for waits_for in ("state/score control*", "state/ask culture-general*", "parts/rival/*"):
        process = command(*words, str(tmp_path / "killed"))
        deadline = time.monotonic() + 200
        while not list((tmp_path / "killed").glob(waits_for)) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        assert ended(process)[0] == -signal.SIGKILL
    code, printed, said = ended(command(*words, str(tmp_path / "killed")), 400)
    assert code == 0 and "The report:" in printed, said
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
