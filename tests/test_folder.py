"""Places that cannot be written to, places where somebody works already, and files that are not what they
say."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import portalocker
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from culnig_tl import EvaluationResult, NeuronScores, NeuronSet, io, score_neurons
from culnig_tl.cli import run_command
from culnig_tl.data.neurons import Site
from culnig_tl.engine.checkpoint import Checkpoint
from culnig_tl.errors import FileError, StudyError
from culnig_tl.io import locked
from culnig_tl.study.folder import StudyFolder, part_name

from .processes import finish, forked, start


@pytest.fixture
def scores() -> NeuronScores:
    arrays = {Site.MLP_GATE: np.ones((2, 3, 40), np.float32), Site.ATTN_K: np.ones((2, 3, 4), np.float32)}
    return NeuronScores(arrays, ("Japan", "Spain"), (5, 3), (2.5, 0.6), 6, (4, 3), {"task": "blend"})


# ---------------------------------------------------------------------------------------------------- no room


@contextmanager
def mounted(place: Path, options: str) -> Iterator[None]:
    """A file system in memory there; where none may be mounted, the test is skipped."""
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    with mounted(place, "size=64k"):
        yield place


def test_a_full_disk_is_named_and_what_was_there_stays(small_disk, scores):
    path = scores.save(small_disk / "scores.safetensors")
    before = path.read_bytes()
    big = NeuronScores(
        {Site.MLP_GATE: np.ones((2, 3, 4000), np.float32)}, ("a", "b"), (1, 1), (1.0, 1.0), 1, (1, 1)
    )
    with pytest.raises(OSError, match=r"No space left on device: '.*/small/scores\.safetensors'"):
        big.save(path)
    assert {p.name: p.read_bytes() for p in small_disk.iterdir()} == {"scores.safetensors": before}


def test_a_disk_that_fills_up_while_scoring_stops_with_the_state_before(small_disk, loaded, task):
    model = loaded("llama")
    checkpoint = Checkpoint(small_disk / "state", every=0)
    batches = []

    def fill(count: int) -> None:
        batches.extend([count] if count else [])
        if len(batches) == 3:
            free = os.statvfs(small_disk)
            (small_disk / "filler").write_bytes(b"x" * (free.f_bavail * free.f_frsize))

    with pytest.raises(OSError) as caught:
        score_neurons(model, task, batch_size=1, checkpoint=checkpoint, progress=fill)
    assert caught.value.errno == errno.ENOSPC and "small/state" in str(caught.value)
    (small_disk / "filler").unlink()
    done = []
    score_neurons(
        model, task, batch_size=1, checkpoint=small_disk / "state", resume=True, progress=done.append
    )
    assert done[0] == 2, "two batches were saved"


def test_a_read_only_folder_is_named(tmp_path, scores):
    place = tmp_path / "fixed"
    place.mkdir()
    with (
        mounted(place, "ro"),
        pytest.raises(OSError, match=r"Read-only file system: '.*/fixed/scores\.safetensors'"),
    ):
        scores.save(place / "scores.safetensors")


def test_a_place_that_cannot_be_written_to_is_said_before_the_work(tmp_path):
    (tmp_path / "file").write_bytes(b"mine")
    for path in (tmp_path / "file" / "out.csv", tmp_path / "file" / "deep" / "out.csv"):
        with pytest.raises(OSError, match=r"Not a directory: '.*/file'"):
            io.check_place(path)
        with pytest.raises(OSError, match="Not a directory"):
            run_command(["tasks", "export", "miniculture", "--to", str(path)])
    io.check_place(tmp_path / "new" / "folder" / "out.csv")
    with pytest.raises(OSError, match="Not a directory"):
        io.check_place(tmp_path / "file", folder=True)
    with pytest.raises(OSError, match="Is a directory"):
        io.check_place(tmp_path)
    with pytest.raises(OSError, match="Is a directory"):
        run_command(["score", "--task", "miniculture", "--output", str(tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    place = tmp_path / "fixed"
    place.mkdir()
    with mounted(place, "ro"), pytest.raises(OSError, match=r"Read-only file system: '.*/fixed'"):
        io.check_place(place / "new" / "out.csv")


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_file_is_whole_or_not_there(moment, tmp_path, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    path = io.write(tmp_path / "a.txt", b"first")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, moment, stop)
        io.write(path, b"second")
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.txt": b"first"}


def test_a_file_has_the_mode_of_any_other(tmp_path):
    path = io.write(tmp_path / "deep" / "a.txt", b"first")
    assert oct(path.stat().st_mode & 0o777) == oct(0o666 & ~_umask())


def test_what_a_killed_process_left_half_written_is_swept_away_and_nothing_else(tmp_path):
    for name in (f".study.json.abcd_123{io.TEMPORARY}", "study.lock"):
        (tmp_path / name).touch()
    with StudyFolder(tmp_path, {}).opened():
        assert [p.name for p in tmp_path.iterdir()] == ["study.lock"]


def test_half_written_files_of_others_stay(tmp_path):
    (tmp_path / f".notes.txt.abcd_123{io.TEMPORARY}").touch()
    with pytest.raises(StudyError, match="holds other things"), StudyFolder(tmp_path, {}).opened():
        pass
    assert (tmp_path / f".notes.txt.abcd_123{io.TEMPORARY}").exists()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# ------------------------------------------------------------------------------------------------ two at once


@contextmanager
def held(path: Path, **how) -> Iterator[int]:
    """Another process holds the lock meanwhile, until it is killed; yields its number."""
    ready, tell = os.pipe()

    def hold() -> None:
        with locked(path, "the study", **how):
            os.write(tell, b"!")
            signal.pause()

    child = start(hold)
    os.read(ready, 1)
    try:
        yield child
    finally:
        os.kill(child, signal.SIGKILL)
        finish(child)


@pytest.mark.parametrize("shared", [False, True])
def test_a_second_run_is_told(shared, tmp_path):
    path = tmp_path / "study.lock"
    with held(path) as child:
        told = rf"the study is being worked on by process {child} on \S+: wait for it, or stop it"
        with pytest.raises(StudyError, match=told), locked(path, "the study", shared=shared):
            pass


def test_a_killed_run_blocks_nobody(tmp_path):
    path = tmp_path / "study.lock"
    with held(path):
        pass
    assert path.exists()
    with locked(path, "the study"):
        assert str(os.getpid()) in path.read_text()


def test_a_run_that_ends_takes_its_lock_along(tmp_path):
    with locked(tmp_path / "study.lock", "the study"):
        pass
    assert not list(tmp_path.iterdir())


def piece(folder: Path, name: str | None):
    return StudyFolder(folder, {"model": "m"}).opened(piece=name)


def test_pieces_share_the_folder(tmp_path):
    with piece(tmp_path, "score neuron"), piece(tmp_path, "score control"):
        pass
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_no_piece_is_made_twice_at_once(tmp_path):
    told = "the piece 'score neuron' of the study in .* is being worked on"
    with (
        piece(tmp_path, "score neuron"),
        pytest.raises(StudyError, match=told),
        piece(tmp_path, "score neuron"),
    ):
        pass


def test_pieces_keep_a_whole_run_out(tmp_path):
    with held(tmp_path / "study.lock", shared=True):
        with pytest.raises(StudyError, match="is being worked on"), piece(tmp_path, None):
            pass


def test_a_killed_piece_keeps_nobody_out(tmp_path):
    with held(tmp_path / "study.lock", shared=True):
        pass
    with piece(tmp_path, None):
        pass
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def refuse(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(portalocker.portalocker, "LOCKER", refuse)
    with locked(tmp_path / "study.lock", "the study"):
        pass
    assert "this file system has no locks (No locks available)" in caplog.text


# ---------------------------------------------------------------------------------------------- hostile files


def header(content: dict, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(content).encode()
    return sealed(struct.pack("<Q", len(text) if length is None else length) + text + data)


def sealed(content: bytes) -> bytes:
    """With a checksum that is right, where there is a place for one: this is not damage but malice."""
    return io.seal(content) if io.BLANK_SEAL.encode() in content else content


def good(**changes) -> dict:
    """The header of scores of one country, 1 layer, 2 neurons."""
    said = {
        "format": "culnig_tl scores 2",
        "countries": ["Japan"],
        "questions": [1],
        "p_answer": [0.5],
        "clusters": 1,
        "country_clusters": [1],
        "replicate_clusters": [],
        "metadata": {},
        "seal": io.BLANK_SEAL,
    }
    return {"culnig_tl": json.dumps({**said, **changes})}


ARRAY = {"dtype": "F32", "shape": [1, 1, 2], "data_offsets": [0, 8]}
DATA = struct.pack("<ff", 1, 2)
HOSTILE = {
    "an empty file": b"",
    "a huge header": header({}, length=2**62),
    "a header longer than the file": header({}, length=10_000),
    "no JSON": struct.pack("<Q", 4) + b"\xff\xfe\x00{",
    "deep JSON": struct.pack("<Q", 200_000) + b"[" * 200_000,
    "offsets past the end": header(
        {"mlp.gate": {**ARRAY, "data_offsets": [0, 2**50]}, "__metadata__": good()}, DATA
    ),
    "overlapping offsets": header({"mlp.gate": ARRAY, "attn.k": ARRAY, "__metadata__": good()}, DATA),
    "a shape that does not fit its bytes": header(
        {"mlp.gate": {**ARRAY, "shape": [2**31, 2**31, 4]}, "__metadata__": good()}, DATA
    ),
    "negative shapes": header({"mlp.gate": {**ARRAY, "shape": [1, -1, -2]}, "__metadata__": good()}, DATA),
    "another dtype": header({"mlp.gate": {**ARRAY, "dtype": "I32"}, "__metadata__": good()}, DATA),
    "two dimensions": header({"mlp.gate": {**ARRAY, "shape": [1, 2]}, "__metadata__": good()}, DATA),
    "NaN": header({"mlp.gate": ARRAY, "__metadata__": good()}, struct.pack("<ff", 1, float("nan"))),
    "a path for a name": header({"../../etc/passwd": ARRAY, "__metadata__": good()}, DATA),
    "no metadata": header({"mlp.gate": ARRAY}, DATA),
    "metadata of another kind": header({"mlp.gate": ARRAY, "__metadata__": {"culnig_tl": "[1]"}}, DATA),
    "more countries than rows": header({"mlp.gate": ARRAY, "__metadata__": good(countries=["a", "b"])}, DATA),
    "countries that are no names": header(
        {"mlp.gate": ARRAY, "__metadata__": good(countries=[["Japan"]])}, DATA
    ),
    "counts that are no numbers": header({"mlp.gate": ARRAY, "__metadata__": good(questions=["many"])}, DATA),
    "negative counts": header({"mlp.gate": ARRAY, "__metadata__": good(clusters=-1)}, DATA),
    "replicates that are not there": header(
        {"mlp.gate": ARRAY, "__metadata__": good(replicate_clusters=[[1, 1]])}, DATA
    ),
    "deep metadata": header({"mlp.gate": ARRAY, "__metadata__": {"culnig_tl": "[" * 100_000}}, DATA),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_scores_are_refused_by_name(kind, tmp_path):
    path = tmp_path / "scores.safetensors"
    path.write_bytes(HOSTILE[kind])
    with pytest.raises(FileError, match=r"scores\.safetensors is not a file of scores"):
        NeuronScores.load(path)
    assert list(tmp_path.iterdir()) == [path]


def test_the_good_header_is_good(tmp_path):
    (tmp_path / "scores").write_bytes(header({"mlp.gate": ARRAY, "__metadata__": good()}, DATA))
    assert NeuronScores.load(tmp_path / "scores").arrays[Site.MLP_GATE].tolist() == [[[1.0, 2.0]]]


def table(metadata: object = None, **columns) -> bytes:
    sink = pa.BufferOutputStream()
    said = {"culnig_tl": json.dumps(metadata)} if metadata is not None else {}
    content = pa.table(columns).replace_schema_metadata({**said, "seal": io.BLANK_SEAL})
    pq.write_table(content, sink)
    return sealed(sink.getvalue().to_pybytes())


ROW = {"site": ["mlp.gate"], "layer": [0], "neuron": [1], "score": [0.5]}


@pytest.mark.parametrize(
    "content",
    [
        b"PAR1 not really PAR1",
        table(weight=[1.0]),
        table(**{**ROW, "site": ["../../etc/passwd"]}),
        table(**{**ROW, "layer": [1e300]}),
        table(**{**ROW, "neuron": [-1]}),
        table(**{**ROW, "neuron": ["; rm -rf"]}),
        table(**{**ROW, "layer": [[1, 2]]}),
        table({"kind": "random", "unknown": 1}, **ROW),
        table({"kind": ["random"]}, **ROW),
        table({"pool": "all"}, **ROW),
        table({"layers": "many"}, **ROW),
        table([1, 2], **ROW),
    ],
)
def test_hostile_neurons_are_refused_by_name(content, tmp_path):
    path = tmp_path / "neurons.parquet"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"neurons\.parquet"):
        NeuronSet.load(path)


ANSWER = {
    "task": ["t"],
    "id": ["1"],
    "cluster": ["1"],
    "country": [None],
    "group": [None],
    "template": [0],
    "answer": ["A"],
    "predicted": ["A"],
    "predicted_label": ["A"],
    "p_answer": [0.5],
    "correct": [True],
    "correct_label": [True],
    "alignment": [float("nan")],
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        table({}, **ROW),
        table(None, **ANSWER),
        table([], **ANSWER),
        table({}, **{**ANSWER, "correct": ["yes"]}),
        table({}, **{**ANSWER, "p_answer": [None]}),
        table({}, **{**ANSWER, "template": [0.5]}),
    ],
)
def test_hostile_results_are_refused_by_name(content, tmp_path):
    path = tmp_path / "results.parquet"
    path.write_bytes(content)
    with pytest.raises(FileError, match=r"results\.parquet is not a file of results"):
        EvaluationResult.load(path)


def test_the_good_tables_are_good_and_nothing_else_is_read_of_them(tmp_path):
    (tmp_path / "country=Mars").mkdir()
    path = tmp_path / "country=Mars" / "r.parquet"
    path.write_bytes(table({"model": "m"}, **ANSWER, secret=["x"]))
    result = EvaluationResult.load(path)
    assert "secret" not in result.table and result.table["country"].tolist() == [None], (
        "a folder's name is no column"
    )
    path.write_bytes(table({"kind": "random"}, **ROW))
    assert NeuronSet.load(path).countries == () and NeuronSet.load(path).keys() == {("mlp.gate", 0, 1)}


@pytest.mark.parametrize(
    ("setting", "task"),
    [("../../x", "blend"), ("unchanged", "../../../etc/passwd"), ("..", "."), ("a/b", "c\\d")],
)
def test_names_lead_nowhere_else(setting, task, tmp_path):
    path = (tmp_path / part_name(setting, task)).resolve()
    assert path.parent.parent == tmp_path / "parts" and path.suffix == ".parquet"


def test_forked_processes_report(tmp_path):
    """The harness itself: what a child did, and that it failed, are seen."""
    assert forked(lambda: (tmp_path / "x").touch()) == 0 and (tmp_path / "x").exists()
    assert forked(lambda: 1 / 0) == 1
