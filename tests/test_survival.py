"""Runs that are killed, interrupted, or have no room: nothing is lost, mixed up or done twice."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from culnig_tl import (
    NeuronScores,
    NeuronSet,
    evaluate,
    exact_effects,
    io,
    mean_outputs,
    question_scores,
    run_study,
    score_neurons,
    score_prompt,
)
from culnig_tl.cli import INTERRUPTED, main
from culnig_tl.engine import run
from culnig_tl.engine.checkpoint import Checkpoint
from culnig_tl.engine.identity import model_identity
from culnig_tl.errors import FileError, ScoreError, StudyError
from culnig_tl.run import pieces, pipeline
from culnig_tl.study.config import StudyConfig
from culnig_tl.study.folder import StudyFolder
from culnig_tl.study.study import Study

from . import families
from .processes import command, content, counting, ended, forked, kill_self


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
    return scored(loaded("llama"), questions, tmp_path_factory.mktemp("whole"))


NEURONS = NeuronSet.from_indices([("attn.v", 2, 3), ("mlp.gate", 0, 5), ("mlp.gate", 0, 2), ("attn.q", 1, 7)])


LANGUAGE = families.questions(6, task="language")


def scored(model, questions, folder: Path, *, every: float = 0, progress=False, **options) -> bytes:
    """Bytes of the scores, from a run that keeps its checkpoint in that folder."""
    checkpoint = Checkpoint(folder / "state", every=every)
    options = {"batch_size": 2, **options}
    found = score_neurons(model, questions, checkpoint=checkpoint, progress=progress, **options)
    checkpoint.remove()
    several = found if isinstance(found, dict) else {"scores": found}
    return b"".join(scores.save(folder / name).read_bytes() for name, scores in several.items())


def asked(model, questions, folder: Path, *, progress=False, known=None, **options) -> bytes:
    """Bytes of the answers."""
    checkpoint = Checkpoint(folder / "state", every=0, model=known)
    result = evaluate(model, questions, batch_size=2, checkpoint=checkpoint, progress=progress, **options)
    checkpoint.remove()
    return result.save(folder / "answers.parquet").read_bytes()


def zeroed(model, questions, folder: Path, *, progress=False) -> bytes:
    """Bytes of the exact effects."""
    checkpoint = Checkpoint(folder / "state", every=0)
    found = exact_effects(model, questions, NEURONS, checkpoint=checkpoint, progress=progress)
    checkpoint.remove()
    return found.drops.tobytes() + found.p_answer.tobytes()


def averaged(model, questions, folder: Path, *, progress=False) -> bytes:
    """Bytes of the mean outputs."""
    checkpoint = Checkpoint(folder / "state", every=0)
    found = mean_outputs(model, questions, batch_size=2, checkpoint=checkpoint, progress=progress)
    checkpoint.remove()
    return b"".join(array.tobytes() for array in found.arrays.values())


def looked_at(model, questions, folder: Path, *, progress=False) -> bytes:
    """Bytes of the scores question by question."""
    checkpoint = Checkpoint(folder / "state", every=0)
    found = question_scores(model, questions, NEURONS, batch_size=2, checkpoint=checkpoint, progress=progress)
    checkpoint.remove()
    return found.scores.tobytes() + found.tokens.tobytes() + found.p_answer.tobytes()


def done_before(work, *arguments, **options) -> int:
    """How many questions a run finds done already."""
    done: list[int] = []
    work(*arguments, progress=done.append, **options)
    return done[0]


# ---------------------------------------------------------------------------------------- killed, and resumed

WORK = {
    "culnig": (scored, {}, 14, 4),
    "culnig in one batch": (scored, {}, 14, 1),
    "culnig in all batches": (scored, {}, 14, 7),
    "atp": (scored, {"method": "atp"}, 14, 4),
    "ig": (scored, {"method": "ig"}, 3, 2),
    "lape": (scored, {"method": "lape"}, 14, 4),
    "several methods, in the pass that they share": (
        scored,
        {"method": ["culnig", "atp", "ig", "lape"]},
        4,
        2,
    ),
    "several methods, in the pass of one": (scored, {"method": ["culnig", "atp", "ig", "lape"]}, 4, 5),
    "cape, in the pass over the language task": (scored, {"method": "cape", "language": LANGUAGE}, 6, 5),
    "exact effects": (zeroed, {}, 6, 4),
    "mean outputs": (averaged, {}, 14, 4),
    "question scores": (looked_at, {}, 14, 4),
    "answers": (asked, {}, 14, 5),
    "answers of an ablated model": (asked, {"ablate": NEURONS}, 14, 5),
}
"""What is done, its options, on how many questions, and after how many batches it is killed."""


@pytest.mark.parametrize("name", WORK)
def test_work_that_was_killed_ends_in_the_same_bytes(name, loaded, questions, tmp_path):
    work, options, count, at = WORK[name]
    given = (loaded("llama"), questions[:count], tmp_path)
    expected = work(*given, **options)
    assert forked(lambda: work(*given, progress=counting(at, kill_self), **options)) == -signal.SIGKILL
    assert work(*given, **options) == expected


@pytest.mark.parametrize(
    ("work", "count", "at", "each"), [(scored, 14, 4, 2), (asked, 14, 5, 2), (zeroed, 6, 4, 1)]
)
def test_what_was_saved_is_not_done_again(work, count, at, each, loaded, questions, tmp_path):
    given = (loaded("llama"), questions[:count], tmp_path)
    assert forked(lambda: work(*given, progress=counting(at, kill_self))) == -signal.SIGKILL
    assert done_before(work, *given) == each * (at - 1), "it was killed before the last batch was saved"


def test_the_bar_of_a_resumed_run_ends_where_all_questions_are_done(loaded, questions, tmp_path):
    given = (loaded("llama"), questions, tmp_path)
    assert forked(lambda: scored(*given, progress=counting(4, kill_self))) == -signal.SIGKILL
    done: list[int] = []
    scored(*given, progress=done.append)
    assert sum(done) == len(questions)


def test_scoring_killed_again_and_again_with_replicates_in_a_narrow_dtype(loaded, questions, tmp_path):
    given = (loaded("gemma3-text", dtype="bfloat16"), questions, tmp_path)
    options = {"bootstrap": 2, "method": "culnig-sum", "sites": ["attn.v", "mlp.gate"]}
    expected = scored(*given, **options)
    for _ in range(2):
        assert forked(lambda: scored(*given, progress=counting(3, kill_self), **options)) == -signal.SIGKILL
    assert scored(*given, **options) == expected


@pytest.mark.parametrize("moment", ["mkstemp", "fsync", "replace"])
def test_killed_while_writing(moment, loaded, questions, whole, tmp_path):
    """The checkpoint before stays whole, and what lies half-written beside it does not matter."""
    model = loaded("llama")

    def dies() -> None:
        kill_at(tempfile if moment == "mkstemp" else os, moment, 4)
        scored(model, questions, tmp_path)

    assert forked(dies) == -signal.SIGKILL
    assert scored(model, questions, tmp_path) == whole


def kill_at(owner, name: str, call: int) -> None:
    """Replaces a function by one that kills this process when it is called for that many times."""
    original, calls = getattr(owner, name), []

    def do(*args, **kwargs):
        calls.append(args)
        if len(calls) == call:
            kill_self()
        return original(*args, **kwargs)

    setattr(owner, name, do)


def test_memory_that_ran_out_before_the_kill(loaded, questions, tmp_path):
    """The halves that the first run had come to are the second's, too."""
    model = loaded("llama")

    def explode(gradient, hook):
        if gradient.shape[0] > 3:
            raise torch.OutOfMemoryError("out of memory")

    def scored_with_little_memory(progress=False):
        checkpoint = Checkpoint(tmp_path / "state", every=0, model={})  # hooks stand for a small device
        with model.hooks(bwd_hooks=[("blocks.1.mlp.hook_pre", explode)]):
            scores = score_neurons(model, questions, batch_size=8, checkpoint=checkpoint, progress=progress)
        checkpoint.remove()
        return scores.save(tmp_path / "scores").read_bytes()

    expected = scored_with_little_memory()
    assert max(NeuronScores.load(tmp_path / "scores").metadata["batch_sizes"]) <= 3
    assert forked(lambda: scored_with_little_memory(counting(3, kill_self))) == -signal.SIGKILL
    assert scored_with_little_memory() == expected


def test_the_plan_is_replayed_not_made_again(loaded, questions, tmp_path, monkeypatch):
    given = (loaded("llama"), questions, tmp_path)
    monkeypatch.setattr(run, "tokens_that_fit", lambda *a: 150)
    killed = lambda: scored(*given, batch_size="auto", progress=counting(1, kill_self))  # noqa: E731
    assert forked(killed) == -signal.SIGKILL
    monkeypatch.setattr(run, "tokens_that_fit", lambda *a: pytest.fail("the stored plan says it"))
    scored(*given, batch_size="auto")
    assert NeuronScores.load(tmp_path / "scores").metadata["tokens_per_batch"] == 150


# --------------------------------------------------------------------------------------------- Ctrl-C, errors


@pytest.mark.parametrize("signal_", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_batch_and_keeps_it(signal_, loaded, questions, tmp_path):
    given = (loaded("llama"), questions, tmp_path)
    stop = counting(4, lambda: os.kill(os.getpid(), signal_))
    with pytest.raises(KeyboardInterrupt):
        scored(*given, every=60.0, progress=stop)  # nothing would be saved for a minute
    assert done_before(scored, *given) == 8, "all four batches were kept"


def test_ctrl_c_ends_in_the_same_bytes(loaded, questions, whole, tmp_path):
    given = (loaded("llama"), questions, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        scored(*given, progress=counting(4, lambda: os.kill(os.getpid(), signal.SIGINT)))
    assert scored(*given) == whole


def test_ctrl_c_is_handled_as_before_when_scoring_is_over(loaded, questions, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    scored(loaded("llama"), questions, tmp_path)
    assert signal.getsignal(signal.SIGINT) is before


def poisoned(model, hooks: str, name: str, batch: int):
    """A context in which one batch's activation or gradient there is NaN."""
    batches = []

    def poison(value, hook):
        batches.append(value)
        bad = value * torch.nan
        return None if len(batches) != batch else (bad,) if hooks == "bwd_hooks" else bad

    return model.hooks(**{hooks: [(name, poison)]})


def test_nan_names_its_question(loaded, questions):
    model = loaded("llama")
    with (
        poisoned(model, "bwd_hooks", "blocks.1.mlp.hook_out", 5),
        pytest.raises(ScoreError, match=r"question 'small-\d+' of small gives NaN"),
    ):
        score_neurons(model, questions, batch_size=2, progress=False)


def test_nan_is_not_saved(loaded, questions, whole, tmp_path):
    model = loaded("llama")
    checkpoint = Checkpoint(tmp_path / "state", every=0, model=model_identity(model))
    with poisoned(model, "bwd_hooks", "blocks.1.mlp.hook_out", 5), pytest.raises(ScoreError):
        score_neurons(model, questions, batch_size=2, checkpoint=checkpoint, progress=False)
    done: list[int] = []
    assert scored(model, questions, tmp_path, progress=done.append) == whole
    assert done[0] > 0, "what was sound was kept"


def test_nan_in_answers_names_its_question(loaded, questions):
    model = loaded("llama")
    with (
        poisoned(model, "fwd_hooks", "unembed.hook_out", 7),
        pytest.raises(ScoreError, match=r"question 'small-\d+' of small gives NaN"),
    ):
        evaluate(model, questions, batch_size=2, progress=False)


def test_nan_in_answers_is_not_saved(loaded, questions, tmp_path):
    model = loaded("llama")
    expected, known = asked(model, questions, tmp_path), model_identity(model)
    with poisoned(model, "fwd_hooks", "unembed.hook_out", 7), pytest.raises(ScoreError):
        asked(model, questions, tmp_path, known=known)
    done: list[int] = []
    assert asked(model, questions, tmp_path, progress=done.append) == expected
    assert done[0] > 0, "what was sound was kept"


# -------------------------------------------------------------------------------- which checkpoint is resumed


@pytest.fixture
def begun(loaded, questions, tmp_path) -> Path:
    """The checkpoint of a run that was killed after two of its batches were saved."""
    given = (loaded("llama"), questions, tmp_path)
    assert forked(lambda: scored(*given, progress=counting(3, kill_self))) == -signal.SIGKILL
    return tmp_path / "state"


def resumed(model, questions, checkpoint, **options) -> int:
    """How many questions are done when scoring with that checkpoint begins."""
    given = {"batch_size": 2, "checkpoint": checkpoint, **options}
    return done_before(score_neurons, model, questions, **given)


def test_a_path_is_resumed_from_where_that_is_said(begun, loaded, questions):
    assert resumed(loaded("llama"), questions, begun, resume=True) == 4


def test_a_path_as_text_is_resumed_from(begun, loaded, questions):
    assert resumed(loaded("llama"), questions, str(begun), resume=True) == 4


def test_a_path_begins_again_otherwise(begun, loaded, questions):
    assert resumed(loaded("llama"), questions, begun, resume=False) == 0


def test_a_resumed_path_ends_in_the_same_bytes(begun, loaded, questions, whole, tmp_path):
    options = {"batch_size": 2, "progress": False}
    scores = score_neurons(loaded("llama"), questions, checkpoint=begun, resume=True, **options)
    assert scores.save(tmp_path / "scores").read_bytes() == whole


def test_a_checkpoint_of_other_questions_is_not_used(begun, loaded, questions):
    assert resumed(loaded("llama"), questions[:12], Checkpoint(begun)) == 0


@pytest.mark.parametrize(
    "options",
    [{"method": "culnig-sum"}, {"method": ["culnig"]}, {"sites": ["attn.v"]}, {"bootstrap": 1}, {"seed": 1}],
)
def test_a_checkpoint_of_other_work_is_not_used(options, begun, loaded, questions):
    assert resumed(loaded("llama"), questions, Checkpoint(begun), **options) == 0


@pytest.mark.parametrize(
    "spoil", [b"", b"{}", b"\xff" * 8 + b"{", b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "]
)
def test_a_spoiled_checkpoint_is_named(spoil, loaded, questions, tmp_path):
    (tmp_path / "state").write_bytes(spoil)
    with pytest.raises(FileError, match="state is not a file of unfinished work.*; remove it"):
        scored(loaded("llama"), questions, tmp_path)


def test_a_removed_checkpoint_takes_those_of_its_passes_along(tmp_path):
    checkpoint = Checkpoint(tmp_path / "state")
    for path in (checkpoint.path, checkpoint.beneath("ig").path, tmp_path / "state of another"):
        path.touch()
    checkpoint.remove()
    assert [path.name for path in tmp_path.iterdir()] == ["state of another"]


# ---------------------------------------------------------------------------------------------------- context


@pytest.fixture(scope="module")
def long(questions):
    """A question that does not fit in the model's context."""
    first = questions[0]
    return replace(first, id="an epic", cluster="epic", prompt="Sing. " * 300 + first.prompt)


@pytest.fixture(scope="module")
def with_long(questions, long):
    return replace(questions, questions=(long, *questions))


def test_a_question_that_is_too_long_is_named(loaded, with_long, caplog):
    score_neurons(loaded("llama"), with_long, batch_size=2, progress=False)
    told = (
        "1 of 15 questions of small do not fit in the model's context of 256 tokens and are left out: 'an"
        " epic' ("
    )
    assert told in caplog.text


def test_scores_are_those_of_the_questions_that_fit(loaded, questions, with_long):
    scores, alone = (
        score_neurons(loaded("llama"), task, batch_size=2, progress=False) for task in (with_long, questions)
    )
    assert scores.metadata["too_long"] == ["an epic"]
    assert (scores.questions, scores.clusters) == (alone.questions, alone.clusters)
    assert all((scores.arrays[site] == alone.arrays[site]).all() for site in scores.sites)


def test_answers_are_those_of_the_questions_that_fit(loaded, questions, with_long):
    result = evaluate(loaded("llama"), with_long, progress=False)
    assert result.metadata["too_long"] == {"small": ["an epic"]}
    assert list(result.table["id"]) == [q.id for q in questions]


def test_a_task_of_which_no_question_fits_is_an_error(loaded, questions, long):
    with pytest.raises(
        ScoreError, match="no question of small fits in the model's context of 256 tokens: 'an epic'"
    ):
        evaluate(loaded("llama"), replace(questions, questions=(long,)), progress=False)


def test_a_prompt_that_does_not_fit_is_an_error(loaded, long):
    with pytest.raises(ScoreError, match="fits in the model's context"):
        score_prompt(loaded("llama"), long)


# ---------------------------------------------------------------------------------------------- a whole study


@pytest.fixture(scope="module")
def config() -> StudyConfig:
    return StudyConfig(
        tasks=("miniculture", "minicommonsense"),
        reading="minireading",
        rival="minicommonsense",
        top_mlp=0.1,
        top_attn=0.05,
        random_sets=1,
        limit=8,
        batch_size=3,
    )


@pytest.fixture
def without_pictures(monkeypatch):
    monkeypatch.setattr(pipeline, "draw", lambda study, place: [])


def test_a_study_killed_again_and_again_ends_in_the_same_bytes(config, loaded, tmp_path, without_pictures):
    model = loaded("llama")
    run_study(config, model=model, folder=tmp_path / "whole", progress=False)

    def dies(moment: str) -> None:
        kill_at(os, moment, 22)
        run_study(config, model=model, folder=tmp_path / "killed", resume=True, progress=False, save_every=0)

    codes = []
    while not codes or codes[-1]:
        codes.append(forked(lambda: dies("replace" if len(codes) % 2 else "fsync")))
        assert codes[-1] in (0, -signal.SIGKILL) and len(codes) < 40
    assert len(codes) > 3, "it was killed often enough to mean something"
    assert content(tmp_path / "killed") == content(tmp_path / "whole")
    left = sorted(path.name for path in (tmp_path / "killed").iterdir())
    assert left == ["neurons", "results", "scores", "study.json"]
    assert not [path for path in tmp_path.rglob(f"*{io.TEMPORARY}")]


def test_a_second_run_in_the_same_folder_is_told(config, loaded, tmp_path, without_pictures):
    folder = tmp_path / "study"
    with (
        StudyFolder(folder, {}).opened(),
        pytest.raises(StudyError, match=rf"is being worked on by process {os.getpid()} on"),
    ):
        run_study(config, model=loaded("llama"), folder=folder, resume=True, progress=False)
    assert not folder.exists(), "neither has left anything"


def test_a_second_run_on_the_same_file_is_told(tmp_path):
    output = tmp_path / "scores"
    with (
        Checkpoint.beside(output, resume=True),
        pytest.raises(StudyError, match="scores is being worked on"),
        Checkpoint.beside(output, resume=True),
    ):
        pass


def test_checkpoints_beside_a_finished_file_are_removed(tmp_path):
    with Checkpoint.beside(tmp_path / "scores", resume=True) as checkpoint:
        checkpoint("neuron").path.touch()
    assert not list(tmp_path.iterdir())


def test_checkpoints_beside_an_unfinished_file_stay(tmp_path):
    with pytest.raises(ZeroDivisionError), Checkpoint.beside(tmp_path / "scores", resume=True) as checkpoint:
        checkpoint("neuron").path.touch()
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["scores.neuron.state"]


@pytest.mark.parametrize("resume", [False, True])
def test_checkpoints_beside_a_file_are_kept_for_a_run_that_resumes(resume, tmp_path):
    (tmp_path / "scores.neuron.state").touch()
    with Checkpoint.beside(tmp_path / "scores", resume=resume) as checkpoint:
        assert checkpoint("neuron").path.exists() == resume


def test_results_of_a_changed_checkpoint_are_made_again(
    config, checkpoints, tmp_path, without_pictures, caplog
):
    shutil.copytree(checkpoints("llama"), tmp_path / "model")
    config = replace(config, model=str(tmp_path / "model"), device="cpu")
    first = run_study(config, folder=tmp_path / "study", progress=False)
    shutil.copytree(checkpoints("llama", seed=1), tmp_path / "model", dirs_exist_ok=True)
    second = run_study(config, folder=tmp_path / "study", resume=True, progress=False)
    assert re.search(r"scores/neuron\.safetensors .* other work \(model is .*: made again", caplog.text)
    assert second.info["revision"] != first.info["revision"]
    before, after = (study.results["unchanged"].table["p_answer"].tolist() for study in (first, second))
    assert before != after


def test_a_folder_that_was_stopped_between_two_models_is_refused(
    config, checkpoints, tmp_path, without_pictures, monkeypatch
):
    shutil.copytree(checkpoints("llama"), tmp_path / "model")
    config, folder = replace(config, model=str(tmp_path / "model"), device="cpu"), tmp_path / "study"
    run_study(config, folder=folder, progress=False)
    assert Study.load(folder).results
    shutil.copytree(checkpoints("llama", seed=1), tmp_path / "model", dirs_exist_ok=True)

    def stop(*given, **how):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pieces, "evaluate", stop)
        run_study(config, folder=folder, resume=True, progress=False)
    with pytest.raises(StudyError, match="holds parts of several studies: .*; run it again with --resume"):
        Study.load(folder)
    run_study(config, folder=folder, resume=True, progress=False)
    assert Study.load(folder).results


COMMANDS = {
    "score": (["score", "--task", "miniculture"], 4),
    "evaluate": (["evaluate", "--tasks", "miniculture,minianswers"], 9),
}
"""A command of 6 batches a task, and at which batch it is stopped."""


@pytest.mark.parametrize("name", COMMANDS)
def test_a_stopped_command_resumes(name, checkpoints, tmp_path, monkeypatch):
    words, at = COMMANDS[name]
    options = ["--model", str(checkpoints("llama")), "--device", "cpu", "--limit", "12", "--batch-size", "2"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert main([*words, *options, "-o", str(whole)]) == 0
    stop, pad = counting(at, lambda: os.kill(os.getpid(), signal.SIGINT)), run.pad
    with monkeypatch.context() as patch:
        patch.setattr(run, "pad", lambda *arguments: (stop(1), pad(*arguments))[1])
        assert main([*words, *options, "-o", str(stopped)]) == INTERRUPTED
    assert not stopped.exists() and list(tmp_path.glob("stopped.*.state"))
    assert main([*words, *options, "-o", str(stopped), "--resume"]) == 0
    assert stopped.read_bytes() == whole.read_bytes()
    assert not list(tmp_path.glob("stopped.*"))


@pytest.mark.slow
def test_the_real_command_killed_three_times(tmp_path):
    words = ["run", "--model", "toy", "--limit", "30", "--random-sets", "1", "--batch-size", "3"]
    words += ["--tasks", "miniculture,minicommonsense", "--save-every", "0", "--resume", "--output-dir"]
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
