"""A study in pieces: planned, made in any order, gathered; what is missing or foreign is named."""

from __future__ import annotations

import json
import shlex
import shutil
from dataclasses import replace

import pytest

from culnig_tl import run_study
from culnig_tl.errors import StudyError
from culnig_tl.run import plan
from culnig_tl.study.config import RIVAL, StudyConfig
from culnig_tl.study.study import Study

from .helpers import invoked
from .processes import content


@pytest.fixture(scope="module", autouse=True)
def quick():
    """Without figures, which take longer than all the rest here, and with each model loaded once; both have
    tests of their own."""
    from culnig_tl.run import pipeline

    load, models = pipeline.load, {}

    def once(config: StudyConfig):
        if config.model not in models:
            models[config.model] = load(config)
        return models[config.model]

    with pytest.MonkeyPatch.context() as patch:
        for module in (pipeline, plan):
            patch.setattr(module, "draw", lambda study, place: [])
            patch.setattr(module, "load", once)
        yield


@pytest.fixture(scope="module")
def config(checkpoints) -> StudyConfig:
    return StudyConfig(
        model=str(checkpoints("llama")),
        tasks=("miniculture", "minicommonsense"),
        reading="minireading",
        rival="minicommonsense",
        top_mlp=0.1,
        top_attn=0.05,
        random_sets=1,
        random_questions="all",
        limit=8,
        device="cpu",
    )


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory) -> Study:
    """The same study in one go."""
    return run_study(config, folder=tmp_path_factory.mktemp("whole") / "study", progress=False)


@pytest.fixture(scope="module")
def made(config, tmp_path_factory):
    """A planned study of which every piece is made, and the pieces."""
    folder = tmp_path_factory.mktemp("planned") / "study"
    pieces = plan.write_plan(config, folder)
    for piece in pieces[:-1]:
        plan.run_piece(config, folder, piece.label, progress=False)
    return folder, pieces


@pytest.fixture
def copied(made, tmp_path):
    shutil.copytree(made[0], tmp_path / "study")
    return tmp_path / "study"


def test_lists_are_commands_in_steps(made):
    folder, pieces = made
    lists = {step: (folder / "plan" / name).read_text().splitlines() for step, name in plan.LISTS.items()}
    assert len(lists[1]) == 4 + 2 and len(lists[2]) == 4 * 2 and len(lists[3]) == 1, (
        "scores and unchanged; settings x tasks; gather"
    )
    words = shlex.split(lists[2][0])
    assert words == [
        "culnig-tl",
        "run",
        "--from",
        str(folder / "study.json"),
        "--piece",
        "ask culture-general: miniculture",
    ]
    assert {piece.label for piece in pieces if piece.step == 1} >= {
        "score neuron",
        "score rival",
        "ask unchanged: minicommonsense",
    }
    assert len({piece.label for piece in pieces}) == len(pieces) == 15


def test_pieces_gathered_are_the_study_in_one_go(config, whole, copied):
    study = plan.gather(config, copied)
    assert content(copied) == content(whole.folder), "the same bytes of scores, neurons and results"
    assert study.info | {"versions": 0} == whole.info | {"versions": 0}
    assert Study.load(copied).table().equals(whole.table())
    assert not (copied / "parts").exists() and not (copied / "state").exists()
    assert plan.gather(config, copied).table().equals(whole.table()), "again, from what was gathered"


def test_a_finished_piece_is_not_made_again(config, copied, monkeypatch):
    from culnig_tl.run import pieces

    monkeypatch.setattr(pieces, "evaluate", lambda *a, **k: pytest.fail("it was there"))
    monkeypatch.setattr(pieces, "score_neurons", lambda *a, **k: pytest.fail("it was there"))
    plan.run_piece(config, copied, "ask random by layer 0: minicommonsense", progress=False)


def test_missing_pieces_are_named_with_their_commands(config, copied):
    (copied / "scores" / "control.safetensors").unlink()
    (copied / "parts" / RIVAL / "miniculture.parquet").unlink()
    with pytest.raises(
        StudyError,
        match=(
            r"2 pieces are missing: score control, ask rival: miniculture; their commands are in"
            r" .*missing\.txt"
        ),
    ):
        plan.gather(config, copied)
    commands = (copied / "plan" / "missing.txt").read_text().splitlines()
    assert [shlex.split(command)[-1] for command in commands] == ["score control", "ask rival: miniculture"]
    with pytest.raises(StudyError, match="needs scores that are not there yet: score control"):
        plan.run_piece(config, copied, "ask rival: miniculture", progress=False)
    for command in commands:
        invoked(*shlex.split(command)[1:])
    plan.gather(config, copied)
    assert not (copied / "plan" / "missing.txt").exists()


def test_what_does_not_belong_is_named(config, copied, checkpoints):
    shutil.copy(
        copied / "parts" / "unchanged" / "miniculture.parquet",
        copied / "parts" / "culture-general" / "miniculture.parquet",
    )
    with pytest.raises(
        StudyError, match=r"ask culture-general: miniculture.*does not belong: neurons is None, not '\w+'"
    ):
        plan.gather(config, copied)
    plan.run_piece(config, copied, "ask culture-general: miniculture", progress=False)
    (copied / "parts" / "culture-general" / "thesis.txt").write_text("mine")
    with pytest.raises(
        StudyError, match=r"parts/culture-general/thesis\.txt is no piece of this study; remove it"
    ):
        plan.gather(config, copied)
    (copied / "parts" / "culture-general" / "thesis.txt").unlink()

    other = replace(config, model=str(checkpoints("llama", seed=1)))
    record = json.loads((copied / "study.json").read_text())
    record["config"]["model"] = other.model  # somebody has exchanged the checkpoint
    (copied / "study.json").write_text(json.dumps(record))
    (copied / "parts" / "unchanged" / "miniculture.parquet").unlink()
    with pytest.raises(
        StudyError, match=r"the other pieces in .* are of another model \(model is '\w+', not"
    ):
        plan.run_piece(other, copied, "ask unchanged: miniculture", progress=False)
    (copied / plan.MODEL).unlink()
    plan.run_piece(other, copied, "ask unchanged: miniculture", progress=False)
    with pytest.raises(
        StudyError, match=r"parts/unchanged/miniculture\.parquet does not belong: model is '\w+', not '\w+'"
    ):
        plan.gather(other, copied)


def test_pieces_that_are_none_are_refused(config, made, tmp_path):
    for label in ("ask ../../x: miniculture", "score ../neuron", "ask unchanged: ../../etc/passwd", ""):
        with pytest.raises(StudyError, match="has no piece"):
            plan.run_piece(config, made[0], label, progress=False)
    with pytest.raises(StudyError, match="holds no planned study"):
        plan.run_piece(config, tmp_path, "score neuron", progress=False)


def test_a_planned_study_can_also_be_run_in_one_go(config, whole, copied):
    run_study(config, folder=copied, resume=True, progress=False)
    assert content(copied) == content(whole.folder)
