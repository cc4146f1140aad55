"""Places that cannot be written to, places where somebody works already, and files that are not what they say."""

from __future__ import annotations

import errno
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from culnig_tl import EvaluationResult, NeuronScores, NeuronSet, files
from culnig_tl.data.neurons import Site
from culnig_tl.errors import NeuronError, ScoreError, StudyError
from culnig_tl.lock import locked
from culnig_tl.study.folder import StudyFolder, part_name

from .processes import finish, forked, start


@pytest.fixture
def scores() -> NeuronScores:
    arrays = {Site.MLP_GATE: np.ones((2, 3, 40), np.float32), Site.ATTN_K: np.ones((2, 3, 4), np.float32)}
    return NeuronScores(arrays, ("Japan", "Spain"), (5, 3), (2.5, 0.6), 6, (4, 3), {"task": "blend"})


# ------------------------------------------------------------------------------------------------------------- no room


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 64 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk_is_named_and_what_was_there_stays(small_disk, scores):
    path = scores.save(small_disk / "scores.safetensors")
    before = path.read_bytes()
    big = NeuronScores(
        {Site.MLP_GATE: np.ones((2, 3, 4000), np.float32)}, ("a", "b"), (1, 1), (1.0, 1.0), 1, (1, 1)
    )
    with pytest.raises(OSError, match=r"No space left on device: '.*/small/scores\.safetensors'"):
        big.save(path)
    assert path.read_bytes() == before and [p.name for p in small_disk.iterdir()] == ["scores.safetensors"], (
        "nothing half-written"
    )


def test_a_disk_that_fills_up_while_scoring_stops_with_the_state_before(small_disk, loaded, task):
    from culnig_tl import score_neurons
    from culnig_tl.engine.checkpoint import Saving

    model = loaded("llama")
    saving = Saving(small_disk / "state", every=0)
    batches = []

    def fill(count: int) -> None:
        batches.extend([count] if count else [])
        if len(batches) == 3:
            free = os.statvfs(small_disk)
            (small_disk / "filler").write_bytes(b"x" * (free.f_bavail * free.f_frsize))

    with pytest.raises(OSError) as caught:
        score_neurons(model, task, batch_size=1, saving=saving, progress=fill)
    assert caught.value.errno == errno.ENOSPC and "small/state" in str(caught.value)
    (small_disk / "filler").unlink()
    done = []
    score_neurons(model, task, batch_size=1, saving=Saving(small_disk / "state"), progress=done.append)
    assert done[0] == 2, "two batches were saved"


def test_a_read_only_folder_is_named(tmp_path, scores):
    place = tmp_path / "fixed"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", str(place)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount here: {mounted.stderr.strip()}")
    try:
        with pytest.raises(OSError, match=r"Read-only file system: '.*/fixed/scores\.safetensors'"):
            scores.save(place / "scores.safetensors")
        result = subprocess.run(
            [sys.executable, "-m", "culnig_tl", "run", "--model", "toy", "--output-dir", str(place)],
            capture_output=True,
            text=True,
            timeout=100,
        )
        assert (
            result.returncode == 2
            and "Read-only file system" in result.stderr
            and len(result.stderr.strip().splitlines()) == 1
        )
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_file_is_whole_or_not_there(tmp_path, monkeypatch):
    path = files.write(tmp_path / "deep" / "a.txt", b"first")
    assert oct(path.stat().st_mode & 0o777) == oct(0o666 & ~_umask())
    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                files.write(path, b"second")
        assert path.read_bytes() == b"first" and len(list(path.parent.iterdir())) == 1
    (path.parent / f".a.txt.x{files.TEMPORARY}").write_bytes(b"left by a killed process")
    files.sweep(tmp_path)
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


# --------------------------------------------------------------------------------------------------------- two at once


def holding(path: Path, **how):
    """A process that holds the lock until it is killed."""
    ready, tell = os.pipe()

    def hold() -> None:
        with locked(path, "the study", **how):
            os.write(tell, b"!")
            signal.pause()

    child = start(hold)
    os.read(ready, 1)
    return child


def test_a_second_run_is_told_and_a_killed_one_blocks_nobody(tmp_path):
    path = tmp_path / "study.lock"
    child = holding(path)
    with pytest.raises(
        StudyError, match=rf"the study is being worked on by process {child} on \S+: wait for it, or stop it"
    ):
        with locked(path, "the study"):
            pass
    with pytest.raises(StudyError, match="is being worked on"):
        with locked(path, "the study", shared=True):
            pass
    os.kill(child, signal.SIGKILL)
    assert finish(child) == -signal.SIGKILL and path.exists()
    with locked(path, "the study"):
        assert str(os.getpid()) in path.read_text()
    assert not path.exists()


def test_pieces_share_the_folder_and_keep_a_whole_run_out(tmp_path):
    child = holding(tmp_path / "study.lock", shared=True)
    folder = StudyFolder(tmp_path, {"model": "m"})
    with (
        folder.opened(piece="score neuron"),
        pytest.raises(StudyError, match="the piece 'score neuron' of the study in .* is being worked on"),
    ):
        with StudyFolder(tmp_path, {"model": "m"}).opened(piece="score neuron"):
            pass
    with pytest.raises(StudyError, match="is being worked on"):
        with folder.opened():
            pass
    os.kill(child, signal.SIGKILL)
    finish(child)
    with folder.opened():
        pass
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    import fcntl

    monkeypatch.setattr(
        fcntl, "flock", lambda *a: (_ for _ in ()).throw(OSError(errno.ENOLCK, "No locks available"))
    )
    with locked(tmp_path / "study.lock", "the study"):
        pass
    assert "this file system has no locks (No locks available)" in caplog.text


# -------------------------------------------------------------------------------------------------------- hostile files


def header(content: dict, data: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def good(**changes) -> dict:
    """The header of scores of one country, 1 layer, 2 neurons."""
    said = {
        "format": "culnig_tl scores 1", "countries": ["Japan"], "questions": [1], "p_answer": [0.5], "clusters": 1, "country_clusters": [1],
        "replicate_clusters": [], "metadata": {},
    }  # fmt: skip
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
    with pytest.raises(ScoreError, match=r"scores\.safetensors is not a file of scores"):
        NeuronScores.load(path)
    assert list(tmp_path.iterdir()) == [path]


def test_the_good_header_is_good(tmp_path):
    (tmp_path / "scores").write_bytes(header({"mlp.gate": ARRAY, "__metadata__": good()}, DATA))
    assert NeuronScores.load(tmp_path / "scores").arrays[Site.MLP_GATE].tolist() == [[[1.0, 2.0]]]


def table(metadata: object = None, **columns) -> bytes:
    sink = pa.BufferOutputStream()
    content = pa.table(columns).replace_schema_metadata(
        {"culnig_tl": json.dumps(metadata)} if metadata is not None else None
    )
    pq.write_table(content, sink)
    return sink.getvalue().to_pybytes()


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
    with pytest.raises(NeuronError, match=r"neurons\.parquet"):
        NeuronSet.load(path)


ANSWER = {
    "task": ["t"], "id": ["1"], "cluster": ["1"], "country": [None], "group": [None], "template": [0], "answer": ["A"], "predicted": ["A"],
    "predicted_label": ["A"], "p_answer": [0.5], "correct": [True], "correct_label": [True], "alignment": [float("nan")],
}  # fmt: skip


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
    with pytest.raises(ScoreError, match=r"results\.parquet is not a file of results"):
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
    """The harness itself: a failing child is seen."""
    assert forked(lambda: (tmp_path / "x").touch()) == 0 and (tmp_path / "x").exists()
    assert forked(lambda: 1 / 0) == 1
