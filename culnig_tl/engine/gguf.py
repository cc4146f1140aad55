"""Models in one GGUF file, as llama.cpp writes them: found, checked and named before transformers reads them.

A file's weights are dequantised when it is loaded: they are what is scored and suppressed, not the model that
was quantised.
"""

from __future__ import annotations

import copy
import hashlib
import importlib.util
import mmap
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ModelError

ON_HUB = re.compile(r"(?P<name>[\w.-]+/[\w.-]+):(?P<file>.+\.gguf)", re.IGNORECASE)
"""A file of a Hub id, e.g. org/name:model-Q4_K_M.gguf."""
PIECE = re.compile(r"-\d{5}-of-\d{5}\.gguf$", re.IGNORECASE)
_TEXT, _ARRAY = 8, 9
_NUMBERS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<?",
    10: "<Q",
    11: "<q",
    12: "<d",
}
"""Kind of a metadata value -> how it is stored; texts and arrays beside these."""


@dataclass(frozen=True)
class Header:
    """What a file says of itself before its weights begin."""

    architecture: str
    """As llama.cpp calls it, e.g. llama, qwen3, gemma3."""
    weights: int
    """Of all tensors."""
    scaled: str | None
    """How rotary positions are scaled, where they are, e.g. linear by 8 (Gemma 3 from 4B), or by frequency
    (Llama 3.1 and later). transformers leaves it out when it reads GGUF, and computes something else."""


def is_gguf(source: str) -> bool:
    """Whether it names a GGUF file, here or on the Hub."""
    return source.lower().endswith(".gguf")


def on_hub(source: str) -> bool:
    """Whether it names a file on the Hub: org/name:file.gguf."""
    return ON_HUB.fullmatch(source) is not None and not Path(source).is_file()


def local_file(source: str, *, revision: str | None = None) -> Path:
    """The file itself; one on the Hub is fetched, or found in the local cache. Raises whatever the Hub's
    client raises."""
    found = ON_HUB.fullmatch(source) if on_hub(source) else None
    if found is None:
        return Path(source).expanduser()
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(found["name"], found["file"], revision=revision))


def check_file(path: Path) -> Header:
    """The file's header.

    Raises:
        ModelError: no such file, no GGUF, one piece of several, cut off, or one that transformers would not
            compute as llama.cpp does; or the package `gguf` is missing.
    """
    if not path.is_file():
        raise ModelError(f"no such file: {path}")
    if PIECE.search(path.name):
        raise ModelError(f"{path} is one piece of several: put them together with llama-gguf-split --merge")
    if importlib.util.find_spec("gguf") is None:
        raise ModelError(f"reading {path.name} needs the package gguf: pip install 'culnig-tl[gguf]'")
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            if content[:4] != b"GGUF":
                raise ModelError(f"{path} is no GGUF file: it does not begin with GGUF")
            header, end = _read_header(content)
            missing = end - len(content)
    except (struct.error, ValueError) as error:  # an empty file cannot be mapped
        raise ModelError(f"{path} is cut off, or damaged: fetch it again") from error
    if missing > 0:
        raise ModelError(f"{path} is cut off: {missing:,} bytes are missing; fetch it again")
    if header.scaled:
        told = f"scales its rotary positions ({header.scaled}), which transformers leaves out of GGUF"
        raise ModelError(f"{path} {told}: load the checkpoint that the file was made from")
    return header


@contextmanager
def read_once() -> Iterator[None]:
    """While it lasts, transformers reads what a file says of itself once, not for the configuration and the
    tokenizer each, and from a plain array: there are slices for every token of the vocabulary, and one of a
    memory map takes three times as long. It saves seconds."""
    if importlib.util.find_spec("gguf") is None:  # `check_file` says so
        yield
        return
    import gguf
    from transformers import modeling_gguf_pytorch_utils as theirs

    read, reader = theirs.load_gguf_checkpoint, gguf.GGUFReader
    known: dict[str, Any] = {}

    class Plain(reader):
        def _get(self, *arguments: Any, **options: Any) -> Any:
            self.data = np.asarray(self.data)
            return super()._get(*arguments, **options)

    def remembered(path: str, return_tensors: bool = False, **how: Any) -> Any:
        if return_tensors:
            return read(path, return_tensors=True, **how)
        if path not in known:
            known[path] = read(path, **how)
        return copy.deepcopy(known[path])  # its readers take things out

    theirs.load_gguf_checkpoint, gguf.GGUFReader = remembered, Plain
    try:
        yield
    finally:
        theirs.load_gguf_checkpoint, gguf.GGUFReader = read, reader


def hash_of(path: Path) -> str:
    """Of the file's bytes, whatever it is called."""
    with path.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 24):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def _read_header(content: mmap.mmap) -> tuple[Header, int]:
    """(header, where the last tensor ends).

    Own code, because the package's reader makes an array of every token of the vocabulary: that takes
    seconds.
    """
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    _, tensors, entries = struct.unpack_from("<IQQ", content, 4)
    at = 24
    said: dict[str, Any] = {}
    for _ in range(entries):
        key, at = _text(content, at)
        (kind,) = struct.unpack_from("<I", content, at)
        said[key], at = _value(content, at + 4, kind)
    weights, ends = 0, [0]
    scaled = _scaling(said)
    for _ in range(tensors):
        name, at = _text(content, at)
        scaled = "by frequency" if name == "rope_freqs.weight" else scaled
        (axes,) = struct.unpack_from("<I", content, at)
        *shape, kind, offset = struct.unpack_from(f"<{axes}QIQ", content, at + 4)
        at += 4 + 8 * axes + 12
        count = 1
        for size in shape:
            count *= size
        values, stored = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        weights += count
        ends.append(offset + count // values * stored)
    alignment = int(said.get("general.alignment", 32))
    start = -(-at // alignment) * alignment
    return Header(str(said.get("general.architecture")), weights, scaled), start + max(ends)


def _scaling(said: dict[str, Any]) -> str | None:
    where = f"{said.get('general.architecture')}.rope.scaling"
    kind, factor = said.get(f"{where}.type", "linear"), said.get(f"{where}.factor", 1.0)
    return None if kind == "none" or factor == 1.0 else f"{kind} by {factor:g}"


def _value(content: mmap.mmap, at: int, kind: int) -> tuple[Any, int]:
    """(a metadata value, where it ends); of an array only its length."""
    if kind == _TEXT:
        return _text(content, at)
    if kind != _ARRAY:
        return struct.unpack_from(_format(kind), content, at)[0], at + struct.calcsize(_format(kind))
    of, count = struct.unpack_from("<IQ", content, at)
    at += 12
    if of not in (_TEXT, _ARRAY):
        return count, at + count * struct.calcsize(_format(of))
    for _ in range(count):
        if of == _ARRAY:
            _, at = _value(content, at, of)
        else:
            at += 8 + struct.unpack_from("<Q", content, at)[0]
    return count, at


def _text(content: mmap.mmap, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", content, at)
    end = at + 8 + length
    if end > len(content):
        raise ValueError("a text goes on after the end of the file")
    return content[at + 8 : end].decode("utf-8"), end


def _format(kind: int) -> str:
    if kind not in _NUMBERS:
        raise ValueError(f"there is no kind {kind} of metadata")
    return _NUMBERS[kind]
