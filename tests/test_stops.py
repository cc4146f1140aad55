"""A study stopped at every change that it makes to its folder, in turn: from each state that a kill can leave
it is resumed, restarted with `overwrite`, and read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from culnig_tl import io, run_study
from culnig_tl.errors import CulnigError
from culnig_tl.run import pieces, pipeline
from culnig_tl.study.config import StudyConfig
from culnig_tl.study.study import Study

from .processes import content
from .stops import states

# --------------------------------------------------------------------------------- a study that takes no time


@pytest.fixture(scope="module")
def config() -> StudyConfig:
    return StudyConfig(
        tasks=("miniculture", "minicommonsense"),
        reading="minireading",
        rival="minicommonsense",
        top_mlp=0.1,
        top_attn=0.05,
        random_sets=1,
        limit=6,
        batch_size=3,
    )


@pytest.fixture(scope="module")
def quick(loaded):
    """Each score and answer is computed once; then only what happens in the folder takes time. Figures are
    two small pages."""
    known = {}

    def once(function):
        def call(model, task, *, checkpoint, progress, **how):
            key = (function.__name__, task.fingerprint, (n := how.get("ablate")) and n.hash)
            if key not in known:
                known[key] = function(model, task, checkpoint=checkpoint, progress=False, **how)
            elif checkpoint is not None:  # as a pass does after each batch
                io.write_tensors(checkpoint.file, {}, {"format": "nothing"})
            return known[key]

        return call

    def selected_once(config, scores):
        key = tuple(array.tobytes() for each in scores.values() for array in each.arrays.values())
        if key not in known:
            known[key] = pieces.select(config, scores)
        return known[key]

    def draw(study, place):
        names = ["report.html", "figures/layers.html"]
        for name in names:
            io.write_page(place.at(name), "<html><head></head>drawn</html>")
        return names

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pieces, "score_neurons", once(pieces.score_neurons))
        patch.setattr(pieces, "evaluate", once(pieces.evaluate))
        patch.setattr(pipeline, "rehearse", lambda *given: None)
        patch.setattr(pipeline, "select", selected_once)
        patch.setattr(pieces.Questions, "load", cache(pieces.Questions.load))
        patch.setattr(pipeline, "draw", draw)
        patch.setattr(pipeline.Early, "report", lambda self: None)
        identity = pipeline.model_identity(loaded("llama"))
        patch.setattr(pipeline, "model_identity", lambda model: identity)
        yield loaded("llama")


def study(config, model, folder, **how) -> Study:
    return run_study(config, model=model, folder=folder, progress=False, **{"save_every": 0, **how})


@pytest.fixture(scope="module")
def whole(config, quick, tmp_path_factory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole") / "study"
    study(config, quick, folder)
    return everything(folder)


def everything(folder: Path) -> dict[str, bytes]:
    return content(folder, ["**/*.*"])


def left_by(begin: str, config, quick, whole, tmp_path, monkeypatch) -> list[Path]:
    """Every state that a kill can leave of a study that is new, replaces another, or is resumed."""
    folder = tmp_path / "study"
    folder.mkdir()
    if begin == "overwrite":
        study(replace(config, limit=5), quick, folder)
    if begin == "resume":
        study(config, quick, folder)
        for name in ("scores/control.safetensors", "results/culture-general.parquet", "report.html"):
            (folder / name).unlink()
    how = {} if begin == "new" else {begin: True}
    left = states(folder, lambda: study(config, quick, folder, **how), tmp_path / "left", monkeypatch)
    assert everything(folder) == whole
    return left


def survived(state: Path, begin: str, config, quick, whole, again: Path) -> None:
    """A state ends in the same bytes when it is resumed, and when it is overwritten; until then it is read as
    a whole study or refused in one line."""
    if not (state / "report.html").exists():
        try:
            Study.load(state)
        except CulnigError as error:
            assert "\n" not in str(error)
    resumable = begin != "overwrite" or not (state / "study.json").exists()
    for how in ({"overwrite": True}, *([{"resume": True}] if resumable else [])):
        shutil.copytree(state, again, symlinks=True)
        study(config, quick, again, **how)
        assert everything(again) == whole, (state.name, how)
        shutil.rmtree(again)


BEGIN = {"new": 150, "overwrite": 150, "resume": 20}
"""How a study begins, and how many states a kill can leave at least."""


@pytest.mark.parametrize("begin", BEGIN)
def test_a_study_stopped_at_any_change_is_resumed_or_overwritten(
    begin, config, quick, whole, tmp_path, monkeypatch
):
    """A twentieth of the states, and the first ones."""
    left = left_by(begin, config, quick, whole, tmp_path, monkeypatch)
    assert len(left) >= BEGIN[begin]
    for state in {*left[:5], *left[::20]}:
        survived(state, begin, config, quick, whole, tmp_path / "again")


@pytest.mark.slow
@pytest.mark.parametrize("begin", BEGIN)
def test_a_study_stopped_at_every_change_is_resumed_or_overwritten(
    begin, config, quick, whole, tmp_path, monkeypatch
):
    left = left_by(begin, config, quick, whole, tmp_path, monkeypatch)
    for state in left:
        survived(state, begin, config, quick, whole, tmp_path / "again")
    print(f"{begin}: {len(left)} states survived")
