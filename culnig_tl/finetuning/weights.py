"""The files of a Hugging Face checkpoint: found, read, and written again with some weights changed.

What is not changed keeps its bytes, vision parts, fused and tied weights included: no model is built on the
way.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import io
from ..data.neurons import Pool
from ..defaults import TOY
from ..engine import gguf
from ..engine.loading import (
    check_folder,
    explain,
    load_plain,
    load_tokenizer,
    looks_like_path,
    pretrained,
    revision_of,
)
from ..errors import ModelError

PARAMETER = re.compile(
    r"(?:^|\.)(?:layers|h)\.(?P<layer>\d+)\.(?P<parent>mlp|self_attn|attn|attention)"
    r"\.(?P<rest>\w+(?:\.\w+)*)$"
)
"""Name of a parameter inside an MLP or an attention module, by any family's names and with any prefix."""
OWN_RECORD = "culnig_tl.json"
"""What this package writes into a checkpoint that it made: how."""
INDEX = "model.safetensors.index.json"
WEIGHTS = (".safetensors", ".bin", ".pth", ".gguf")
HUB_FILES = ("*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.md", "LICENSE*")
"""What a checkpoint consists of on the Hub; weights in other formats are left there."""

WeightPlace = tuple[int, Pool, str]
"""(layer, mlp | attn, the name from there on), e.g. (3, "mlp", "gate_proj.weight")."""


def place_of(name: str) -> WeightPlace | None:
    """Where a parameter sits in the language model; None outside its MLPs and attention modules.

    Names of one weight differ between a checkpoint's file, the class it is loaded as and the class that it
    was saved from; the place does not.
    """
    found = PARAMETER.search(name)
    if found is None or "vision" in name:
        return None
    return int(found["layer"]), "mlp" if found["parent"] == "mlp" else "attn", found["rest"]


def checkpoint_folder(source: str | Path, *, revision: str | None = None) -> Path:
    """The folder that holds a checkpoint: the toy's own, the one named, or the local copy of a Hub id.

    Raises `ModelError` where there is no checkpoint, or none can be fetched.
    """
    if str(source) == TOY:
        return Path(str(resources.files("culnig_tl") / "toy" / "model"))
    if gguf.is_gguf(str(source)):
        raise ModelError(
            f"{source} is a GGUF file, with quantised weights: give the checkpoint that it was made from"
        )
    folder = Path(source).expanduser()
    if folder.is_dir() or looks_like_path(str(source)):
        check_folder(folder)
        return folder
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=list(HUB_FILES)))
    except Exception as error:  # the Hub's client lets errors of many kinds through
        raise ModelError(explain(error, str(source), revision, "cannot fetch")) from error


@contextmanager
def opened_checkpoint(source: str | Path) -> Iterator[Path]:
    """The folder that holds a checkpoint. Of a GGUF file, a folder with its weights in float32, which is gone
    afterwards. Raises `ModelError` for a file that cannot be read."""
    if str(source) == TOY:
        yield checkpoint_folder(TOY)
    elif not gguf.is_gguf(str(source)):
        yield Path(source)
    else:
        with tempfile.TemporaryDirectory() as folder:
            load_plain(str(source), torch.float32).save_pretrained(folder)
            load_tokenizer(str(source)).save_pretrained(folder)
            yield Path(folder)


def revision_of_checkpoint(source: str | Path, *, revision: str | None = None) -> str | None:
    """The Hub's commit, or a hash of the folder's weights and configuration."""
    folder = checkpoint_folder(source, revision=revision)
    named = str(source) != TOY and not Path(source).expanduser().is_dir()
    return (
        folder.name if named else revision_of(str(folder), None)
    )  # the Hub's copies are named after their commits


def read_config(folder: Path) -> Any:
    """The checkpoint's configuration. Raises `ModelError` where it is missing, or of a quantized model."""
    from transformers import AutoConfig

    if not (folder / "config.json").is_file():
        raise ModelError(f"{folder} holds no config.json: give a folder with a Hugging Face checkpoint")
    try:
        config = pretrained(AutoConfig, folder)
    except Exception as error:  # a configuration's values are checked by errors of their own kinds
        raise ModelError(f"{folder}: {io.first_line(error)}") from error
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(
            f"{folder} is quantized: change the model in its full precision and quantize it afterwards"
        )
    return config


def weight_files(folder: Path) -> list[Path]:
    """The files that the weights are read from. Raises `ModelError` where none is in safetensors."""
    index = folder / INDEX
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"{index} is no index of weights: {error}") from error
        found = [folder / name for name in names]
    else:
        found = sorted(folder.glob("*.safetensors"))
    missing = [path for path in found if not path.is_file()]
    if missing:
        raise ModelError(f"{folder} lacks {missing[0].name}, which {INDEX} names: fetch the checkpoint again")
    if not found:
        raise ModelError(f"{folder} holds no .safetensors file: save the model with save_pretrained()")
    return found


def read_tensors(folder: Path, wanted: Callable[[str], bool]) -> dict[str, Tensor]:
    """The tensors whose names are wanted, in the files' own dtype."""
    from safetensors import safe_open

    tensors: dict[str, Tensor] = {}
    for path in weight_files(folder):
        with safe_open(path, framework="pt") as stream:
            tensors |= {name: stream.get_tensor(name) for name in stream.keys() if wanted(name)}
    return tensors


def rewrite(folder: Path, out: Path, change: Callable[[str, Tensor], Tensor]) -> list[str]:
    """Writes the weights to `out`, each as `change(name, tensor)` returns it; returns the files' names."""
    from safetensors import safe_open
    from safetensors.torch import save_file

    paths = weight_files(folder)
    for path in paths:
        with safe_open(path, framework="pt") as stream:
            metadata = stream.metadata()
            tensors = {name: change(name, stream.get_tensor(name)).contiguous() for name in stream.keys()}
        partial = io.inside(out, f".{path.name}.partial")
        save_file(tensors, partial, metadata=metadata)
        os.replace(partial, out / path.name)
    return [path.name for path in paths]


def copy_rest(folder: Path, out: Path) -> list[str]:
    """Copies everything that is not weights (configuration, tokenizer, index); returns the files' names."""
    paths = rest_of(folder)
    for path in paths:
        shutil.copyfile(path, io.inside(out, path.name))
    return [path.name for path in paths]


def rest_of(folder: Path) -> list[Path]:
    """The files of a checkpoint that are not weights, and no record of a fine-tuning or a bake."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    return [path for path in files if path.suffix not in WEIGHTS and path.name != OWN_RECORD]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a record that people can read."""
    io.write(path, (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode())


@contextmanager
def new_folder(out: Path) -> Iterator[None]:
    """Makes the folder; removes it if writing to it fails. Raises `ModelError` where it is in use."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise ModelError(f"{out} is in use: choose a new folder")
    out.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        shutil.rmtree(out)
        raise
