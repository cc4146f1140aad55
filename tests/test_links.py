"""Nothing outside a study's folder is written or removed, and nothing in it that the study did not write."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from culnig_tl import io
from culnig_tl.errors import FileError, FineTuningError, StudyError
from culnig_tl.finetuning import folder as training
from culnig_tl.finetuning.weights import write_json
from culnig_tl.io import locked
from culnig_tl.study.config import StudyConfig
from culnig_tl.study.folder import FOLDERS, LOCK, StudyFolder

CONFIG = {"model": "toy", "tasks": ["miniculture"]}
INFO = {"tasks": {"miniculture": {"culture": True, "fingerprint": "f"}}}
FILES = {
    "scores/neuron.safetensors": b"scores",
    "results/random by layer 3.parquet": b"answers",
    "parts/unchanged/miniculture.parquet": b"answers",
    "parts/model.json": b"{}",
    "state/score neuron.state": b"state",
    "state/ask rival%3A x.state.pass-ig.0-of-2": b"state",
    "plan/missing.txt": b"commands",
    f"results/.unchanged.parquet.abcd_12x{io.TEMPORARY}": b"half",
}
"""What a study may have in its folder, beside pages."""
THEIRS = (
    "notes.txt",
    "results/notes.parquet",
    "scores/mine.safetensors",
    "figures/mine.html",
    "state/notes.txt",
    "parts/unchanged/notes.txt",
    "plan/mine.txt",
    "neurons/random x.parquet",
    f".notes.txt.abcd_12x{io.TEMPORARY}",
)
"""What somebody may keep there as well."""


@pytest.fixture
def outside(tmp_path) -> Path:
    """A folder of somebody else's, with files of a study's names."""
    place = tmp_path / "outside"
    for name in FILES:
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_bytes(b"mine")
    (place / LOCK).write_bytes(b"mine")
    return place


@pytest.fixture
def folder(tmp_path) -> Path:
    """One with a study in it."""
    place = StudyFolder(tmp_path / "study", CONFIG)
    with place.opened():
        place.start(INFO)
        for name, content in FILES.items():
            place.write(name, content)
        io.write_page(place.at("figures/layers.html"), "<head></head>")
    return tmp_path / "study"


def everything(folder: Path) -> dict[str, bytes]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def worked_on(folder: Path, **how: bool) -> None:
    """As a study does: it is opened, begun, finished."""
    place = StudyFolder(folder, CONFIG)
    with place.opened(**how):
        place.start(INFO)
        for name in FILES:
            place.write(name, b"new")
        place.finish([])


HOW = pytest.mark.parametrize("how", ["resume", "overwrite"])


@HOW
@pytest.mark.parametrize("name", [*FOLDERS, *FILES, "parts/unchanged", "study.json", "report.html"])
def test_what_is_behind_a_link_stays(name, how, folder, outside):
    before = everything(outside)
    link, target = folder / name, outside / name
    if link.is_dir():
        for path in sorted(link.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        link.rmdir()
    link.unlink(missing_ok=True)
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target)
    with pytest.raises(FileError, match="leads out of .*: remove it, or choose another folder"):
        worked_on(folder, **{how: True})
    assert everything(outside) == before and link.is_symlink()


def test_a_link_that_comes_while_the_study_runs_is_not_followed(folder, outside):
    before, place = everything(outside), StudyFolder(folder, CONFIG)
    with place.opened(resume=True):
        os.rename(folder / "results", folder / "old")
        (folder / "results").symlink_to(outside / "results")
        with pytest.raises(FileError, match="leads out of"):
            place.write("results/unchanged.parquet", b"new")
    assert everything(outside) == before


@HOW
def test_a_folder_that_is_a_link_is_refused(how, folder, tmp_path):
    before = everything(folder)
    (tmp_path / "link").symlink_to(folder)
    with pytest.raises(StudyError, match="is a link: give the folder that it leads to, .*study"):
        worked_on(tmp_path / "link", **{how: True})
    assert everything(folder) == before


def test_a_folder_that_is_taken_away_is_said(folder, tmp_path):
    place = StudyFolder(folder, CONFIG)
    with (
        pytest.raises(StudyError, match="was removed or replaced while the study ran"),
        place.opened(resume=True),
    ):
        os.rename(folder, tmp_path / "elsewhere")
        place.write("report.html", b"")
    assert not folder.exists()


def test_files_that_are_taken_away_are_said(folder):
    place = StudyFolder(folder, CONFIG)
    told = r"report\.html is not there any more, 1 files of the study are missing: --resume makes them again"
    with pytest.raises(StudyError, match=told), place.opened(resume=True):
        place.finish(["study.json", "report.html"])


@HOW
def test_what_others_keep_in_the_folder_stays(how, folder):
    for name in THEIRS:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"mine")
    worked_on(folder, **{how: True})
    kept = everything(folder)
    assert all(kept.get(name) == b"mine" for name in THEIRS)


def test_an_overwritten_study_leaves_nothing_of_the_old_one(folder):
    place = StudyFolder(folder, CONFIG)
    with place.opened(overwrite=True):
        place.start(INFO)
        assert {*everything(folder)} == {LOCK, "study.json"}


LOCKS = {
    "a link": lambda path, other: path.symlink_to(other),
    "a hard link": lambda path, other: os.link(other, path),
    "somebody's file": lambda path, other: path.write_bytes(b"mine"),
    "a folder": lambda path, other: path.mkdir(),
    "a pipe": lambda path, other: os.mkfifo(path),
}


@pytest.mark.parametrize("kind", LOCKS)
def test_a_lock_overwrites_nothing(kind, tmp_path):
    other, path = tmp_path / "other", tmp_path / "study.lock"
    other.write_bytes(b"process 1 on earth, says a poem")
    LOCKS[kind](path, other)
    with pytest.raises(FileError, match="is no lock of this program"), locked(path, "the study"):
        pass
    assert other.read_bytes() == b"process 1 on earth, says a poem" and os.path.lexists(path)


def test_a_file_that_is_a_link_is_replaced_and_not_followed(outside, tmp_path):
    (tmp_path / "out.csv").symlink_to(outside / LOCK)
    io.write(tmp_path / "out.csv", b"new")
    assert (outside / LOCK).read_bytes() == b"mine" and not (tmp_path / "out.csv").is_symlink()


@pytest.mark.parametrize(
    "name",
    [
        "日本文化に関する常識を問う四択問題データセット第一版",
        "x" * 300,
        "../../etc/passwd",
        "\ud800",
        "a" * 99,
    ],
)
def test_names_of_any_length_and_script_are_files_of_the_folder(name, tmp_path):
    path = io.write(tmp_path / io.file_name(name), b"x")
    assert path.parent == tmp_path and path.read_bytes() == b"x" and len(io.file_name(name)) <= 100


def test_long_names_that_begin_alike_are_different_files():
    assert io.file_name("文" * 60 + "a") != io.file_name("文" * 60 + "b")


@pytest.mark.parametrize(
    ("option", "value"),
    [("top_mlp", 0.6), ("top_attn", 0.51), ("top_specific", -0.1), ("drop_reading", 2.0), ("top_mlp", 0.0)]
    + [("limit", 0), ("batch_size", 0), ("random_sets", 0), ("seed", -1), ("z", float("nan")), ("tasks", ())]
    + [("reading", "\ud800")],
)
def test_arguments_that_no_study_ends_with_are_refused_at_once(option, value):
    from culnig_tl.study.config import check_config

    with pytest.raises(StudyError):
        check_config(StudyConfig(**{option: value}))


RUN = {"modules": ["mlp.0"], "config": {"lora": True}}
NAMES = ("config.json", "model.safetensors")


def test_a_training_removes_nothing_outside_its_folder(tmp_path):
    """Its record may be somebody else's."""
    mine, out = tmp_path / "mine.txt", tmp_path / "tuned"
    for name in ("../mine.txt", str(mine)):
        mine.write_text("mine")
        write_json(out / training.RECORD, {"files": [name]})
        with pytest.raises(FileError, match="leads out of"):
            training.start_folder(out, RUN, NAMES, resume=False)
        assert mine.read_text() == "mine"


@pytest.mark.parametrize("resume", [True, False])
@pytest.mark.parametrize(
    "name",
    ["training", "adapter", "config.json", "training/run.json", "training/checkpoint-4", "culnig_tl.json"],
)
def test_a_training_follows_no_link(name, resume, tmp_path):
    outside, out = tmp_path / "outside", tmp_path / "tuned"
    outside.mkdir()
    for kept in ("run.json", "adapter_config.json", "checkpoint-4"):
        (outside / kept).write_bytes(b"mine")
    (out / name).parent.mkdir(parents=True)
    (out / name).symlink_to(outside)
    with pytest.raises(FileError, match="leads out of"):
        training.start_folder(out, RUN, NAMES, resume=resume)
    assert everything(outside).values() and set(everything(outside).values()) == {b"mine"}
    assert (out / name).is_symlink()


def test_a_training_does_not_take_somebodys_folder_for_its_own(tmp_path):
    """A folder called training is not yet one of ours."""
    write_json(tmp_path / "training" / "data.json", {})
    with pytest.raises(FineTuningError, match="holds other things"):
        training.check_folder(tmp_path, RUN, training.known_of(tmp_path), resume=False, overwrite=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FineTuningError, match="is a link"):
        training.check_folder(tmp_path / "link", RUN, None, resume=False, overwrite=False)


def test_a_training_that_is_replaced_leaves_what_is_not_its_own(tmp_path):
    training.start_folder(tmp_path, RUN, NAMES, resume=False)
    for name in ("mine.txt", "training/notes.txt", "adapter/mine.txt"):
        io.write(tmp_path / name, b"mine")
    for name in ("config.json", "training/checkpoint-4/state", "adapter/adapter_config.json"):
        io.write(tmp_path / name, b"ours")
    training.start_folder(tmp_path, RUN, NAMES, resume=False)
    kept = everything(tmp_path)
    assert kept.pop("training/run.json") and kept == dict.fromkeys(
        ("mine.txt", "training/notes.txt", "adapter/mine.txt"), b"mine"
    )
