"""Checkpoints and GGUF files that are damaged or mean harm: each is loaded, or refused in one line.

Seeds are fixed. `make fuzz` (CULNIG_FUZZ=10) tries ten times as many.
"""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest

from culnig_tl import load_model
from culnig_tl.errors import ModelError
from culnig_tl.finetuning.weights import read_config

from .fuzzed import changed, damaged

TIMES = 6 * int(os.environ.get("CULNIG_FUZZ", "1"))


def spoiled(name: str, content: bytes, rng: random.Random, number: int) -> bytes:
    """Damaged, or with another value somewhere in its JSON."""
    if number % 2 or name.endswith(".gguf"):
        return damaged(content, rng)
    if name.endswith(".json"):
        return json.dumps(changed(json.loads(content), rng)).encode()
    size = int.from_bytes(content[:8], "little")
    header = json.dumps(changed(json.loads(content[8 : 8 + size]), rng)).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + size :]


def told(read) -> int:
    """1 where it is refused, in one line."""
    try:
        read()
    except ModelError as error:
        assert str(error) and "\n" not in str(error)
        return 1
    return 0


@pytest.mark.parametrize(
    "name", ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
)
def test_a_spoiled_checkpoint_is_loaded_or_refused_in_one_line(name, checkpoints, tmp_path):
    rng, folder, refused = random.Random(name), tmp_path / "model", 0
    for number in range(TIMES):
        shutil.copytree(checkpoints("llama"), folder)
        (folder / name).write_bytes(spoiled(name, (folder / name).read_bytes(), rng, number))
        refused += told(lambda: load_model(folder, device="cpu"))
        told(lambda: read_config(folder))
        shutil.rmtree(folder)
    assert refused >= TIMES // 3


def test_a_spoiled_gguf_file_is_loaded_or_refused_in_one_line(tmp_path):
    pytest.importorskip("gguf")
    from . import gguf_files

    path, rng = tmp_path / "model.gguf", random.Random(0)
    gguf_files.write(path, gguf_files.build("llama"))
    content = path.read_bytes()
    assert told(lambda: load_model(path, device="cpu")) == 0
    for _ in range(TIMES):
        path.write_bytes(damaged(content[: 1 << 14], rng) + content[1 << 14 :])  # its header
        told(lambda: load_model(path, device="cpu"))
