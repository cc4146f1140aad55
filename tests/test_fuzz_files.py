"""Files that are damaged, and files that mean harm: each is refused in one line, without much memory.

Seeds are fixed. `make fuzz` (CULNIG_FUZZ=10) tries ten times as many.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from culnig_tl import EvaluationResult, NeuronScores, NeuronSet, io
from culnig_tl.data.neurons import Site
from culnig_tl.engine.checkpoint import BatchQueue, Checkpoint, Stored
from culnig_tl.errors import CulnigError, FileError
from culnig_tl.study.folder import read_record_file
from culnig_tl.study.study import Study

from .fuzzed import changed, damaged
from .studies import made_study

TIMES = int(os.environ.get("CULNIG_FUZZ", "1"))
MOST = 2 * 1024**3
"""Bytes that reading a file may ask for."""


@contextmanager
def little_memory() -> Iterator[None]:
    """Whoever asks for terabytes gets a `MemoryError`, and fails the test."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + MOST, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


def refused(read: Callable[[], object]) -> str | None:
    """The line in which it is refused; None where it is read."""
    try:
        with little_memory():
            read()
    except CulnigError as error:
        assert str(error) and "\n" not in str(error) and "MemoryError" not in str(error)
        return str(error)
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A study's folder, and unfinished work in it."""
    folder = tmp_path_factory.mktemp("fuzz") / "study"
    study = made_study(own={"food": 0.5}, random={"food": 0.05}, rival={"sense": 0.5}, sets=2)
    for kind, things, ending in (
        ("scores", study.scores, "safetensors"),
        ("neurons", study.neurons, "parquet"),
        ("results", study.results, "parquet"),
    ):
        for name, thing in things.items():
            thing.save(folder / kind / f"{name}.{ending}")
    for name in study.results:
        if name not in ("unchanged", *study.neurons):
            study.neurons["culture-general"].save(folder / "neurons" / f"{name}.parquet")
    config = {**vars(study.config), "tasks": list(study.config.tasks)}
    io.write(folder / "study.json", json.dumps({"config": config, "info": study.info}).encode())
    stored = Stored({"sizes": [2, 2]}, BatchQueue.deal([[0, 1], [2, 3]], Checkpoint("x").world), {})
    stored.state["sum"] = torch.ones(3)
    Checkpoint(folder / "state" / "score neuron.state").write({"w": 1}, stored)
    return folder


READERS: dict[str, Callable[[Path], object]] = {
    "scores/neuron.safetensors": NeuronScores.load,
    "neurons/culture-general.parquet": NeuronSet.load,
    "results/unchanged.parquet": EvaluationResult.load,
    "state/score neuron.state": lambda path: Checkpoint(path).read({"w": 1}),
}


def test_the_study_is_whole(folder):
    assert Study.load(folder).findings().headline()
    assert all(refused(lambda r=read, n=name: r(folder / n)) is None for name, read in READERS.items())


@pytest.mark.parametrize("name", READERS)
def test_damage_is_seen(name, folder, tmp_path):
    content, rng = (folder / name).read_bytes(), random.Random(name)
    path = tmp_path / Path(name).name
    for _ in range(60 * TIMES):
        spoiled = damaged(content, rng)
        if spoiled != content:
            path.write_bytes(spoiled)
            assert refused(lambda: READERS[name](path)), "a damaged file was read as if it were whole"


@pytest.mark.parametrize("name", READERS)
def test_every_single_bit_counts(name, folder, tmp_path):
    content, path = bytearray((folder / name).read_bytes()), tmp_path / Path(name).name
    bits = random.Random(name).sample(range(8 * len(content)), 60 * TIMES)
    for bit in bits:
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        content[bit // 8] ^= 1 << bit % 8
        assert refused(lambda: READERS[name](path)), f"bit {bit} does not count"


def test_a_record_that_means_harm_is_refused_or_read(folder, tmp_path):
    """What is read of it, the findings are told from."""
    again = shutil.copytree(folder, tmp_path / "study")
    record, rng = json.loads((folder / "study.json").read_text()), random.Random(0)

    def read() -> None:
        read_record_file(again / "study.json")
        study = Study.load(again)
        assert study.findings().headline() and len(study.table())

    refusals = 0
    for _ in range(60 * TIMES):
        (again / "study.json").write_text(json.dumps(changed(record, rng)))
        refusals += refused(read) is not None
    assert refusals > 20 * TIMES


def test_headers_that_mean_harm_are_refused_or_read(folder, tmp_path):
    """Their checksums are right: what they say is not."""
    path, rng = tmp_path / "scores.safetensors", random.Random(1)
    with io.open_tensors(folder / "scores/neuron.safetensors", "numpy") as (header, stream):
        arrays = {name: stream.get_tensor(name) for name in stream.keys()}
    for _ in range(60 * TIMES):
        said = changed(header, rng)
        if isinstance(said, dict):
            try:
                io.write_tensors(path, arrays, {k: v for k, v in said.items() if k != "seal"})
            except UnicodeEncodeError:
                continue
            refused(lambda: str(NeuronScores.load(path)))


@pytest.mark.parametrize("shape", [(2, 0, 2**40), (0, 3, 4), (2, 2**40, 0)])
def test_an_empty_array_of_any_size_is_refused(shape, folder, tmp_path):
    with io.open_tensors(folder / "scores/neuron.safetensors", "numpy") as (header, _):
        said = {**header, "countries": ["a"] * shape[0]}
    path = io.write_tensors(tmp_path / "s", {Site.MLP_GATE.value: np.zeros((2, 0, 4), np.float32)}, said)
    with pytest.raises(FileError):
        NeuronScores.load(path)


def test_a_table_that_claims_more_than_its_file_is_refused(tmp_path):
    """A hundred million rows of one value take a megabyte."""
    rows = 100_000_000
    one = pa.chunked_array([pa.array(np.zeros(1_000_000, np.int32))] * (rows // 1_000_000))
    table = pa.table({"site": one, "layer": one, "neuron": one})
    path = io.write_parquet(tmp_path / "neurons.parquet", table, {})
    assert path.stat().st_size < 2_000_000
    assert "it claims 100,000,000 rows" in (refused(lambda: NeuronSet.load(path)) or "")


def test_a_long_word_that_is_repeated_is_held_once(tmp_path):
    column = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000), pa.array(["x" * 10_000_000]))
    table = pa.table({"site": column, "layer": pa.array([0] * 1_000), "neuron": pa.array(range(1_000))})
    path = io.write_parquet(tmp_path / "neurons.parquet", table, {})
    assert refused(lambda: NeuronSet.load(path))
