"""Nothing that comes with a checkpoint or a data set is run, and no question is asked on the terminal."""

from __future__ import annotations

import ast
import io
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

import culnig_tl
from culnig_tl import load_model
from culnig_tl.engine.loading import CONVERT, load_tokenizer
from culnig_tl.engine.memory import check_memory, parameter_count
from culnig_tl.errors import CulnigError, ModelError
from culnig_tl.finetuning.modules import skeleton
from culnig_tl.finetuning.weights import read_config

from .helpers import plain_model

PACKAGE = Path(culnig_tl.__file__).parent
ADAPTERS = ("from_pretrained", ("engine/loading.py", "merged"))
"""PEFT's own: it reads a folder of weights onto a model that is there, and knows no code of the folder's."""
DOORS = {
    ("from_pretrained", ("engine/loading.py", "pretrained")),
    ("from_config", ("engine/loading.py", "_untrained")),
    ("from_pretrained_no_processing", ("engine/models.py", "_hooked")),
    ("boot_transformers", ("engine/models.py", "_bridge")),
    ("get_pretrained_model_config", ("engine/models.py", "_hooked")),
}
"""What can run a checkpoint's code, and the only file and function that call it."""
NAMES = {name for name, _ in DOORS}


def calls() -> list[tuple[str, str, str, ast.Call]]:
    """(file, function, name of what is called, call) for every call in the package of one of `NAMES`."""
    found = []
    for path in PACKAGE.rglob("*.py"):
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for call in ast.walk(function):
                    if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                        if call.func.attr in NAMES:
                            where = path.relative_to(PACKAGE).as_posix()
                            found.append((where, function.name, call.func.attr, call))
    return found


def test_checkpoints_are_read_through_one_door():
    assert {(name, (file, function)) for file, function, name, _ in calls()} == DOORS | {ADAPTERS}


def test_every_door_says_whether_code_is_run():
    calls_of_code = [c for c in calls() if (c[2], (c[0], c[1])) != ADAPTERS]
    silent = [c for c in calls_of_code if "trust_remote_code" not in {k.arg for k in c[3].keywords}]
    assert calls_of_code
    assert not silent


CODE = """
from pathlib import Path
Path({marker!r}).write_text("run")
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
class Config(LlamaConfig): pass
class Model(LlamaForCausalLM): config_class = Config
class Tokens(PreTrainedTokenizerFast): pass
"""
AUTO = {
    "AutoConfig": "code.Config",
    "AutoModelForCausalLM": "code.Model",
    "AutoTokenizer": ["code.Tokens"] * 2,
}


@pytest.fixture(params=["llama", "unheard-of"])
def with_code(request, checkpoints, tmp_path, monkeypatch) -> Path:
    """A checkpoint whose code leaves a mark, of a known kind or one that only its code knows; on the terminal
    somebody would say yes."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(checkpoints("llama"), folder)
    (folder / "code.py").write_text(CODE.format(marker=str(tmp_path / "marker")))
    for name in ("config.json", "tokenizer_config.json"):
        said = json.loads((folder / name).read_text())
        said |= {"auto_map": AUTO}
        if name == "config.json":
            said["model_type"] = request.param
        else:
            said["tokenizer_class"] = "Tokens"
        (folder / name).write_text(json.dumps(said))
    monkeypatch.setattr(sys, "stdin", io.StringIO("y\n" * 20))
    return folder


@pytest.mark.parametrize(
    "read",
    [
        lambda folder: load_model(folder, device="cpu"),
        lambda folder: load_tokenizer(str(folder)),
        lambda folder: parameter_count(str(folder)),
        lambda folder: check_memory(str(folder), device="cpu"),
        skeleton,
        lambda folder: skeleton(folder, whole=True),
        read_config,
    ],
    ids=["load_model", "tokenizer", "parameter_count", "check_memory", "skeleton", "whole", "read_config"],
)
def test_a_checkpoints_code_is_not_run(read, with_code, tmp_path):
    try:
        read(with_code)
    except (CulnigError, ValueError, KeyError) as error:
        assert str(error)
    assert not (tmp_path / "marker").exists()
    assert sys.stdin.read() == "y\n" * 20, "nobody was asked"


def test_pickled_weights_are_not_read(checkpoints, tmp_path):
    folder = tmp_path / "pickled"
    shutil.copytree(checkpoints("llama"), folder)
    (folder / "model.safetensors").unlink()
    torch.save(plain_model(checkpoints("llama")).state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled ones .* are not read") as caught:
        load_model(folder, device="cpu")
    assert CONVERT.format(source=folder) in str(caught.value)


def test_a_checkpoints_code_is_run_where_the_user_says_so(with_code, tmp_path):
    """The trap works."""
    load_model(with_code, device="cpu", trust_remote_code=True)
    assert (tmp_path / "marker").exists()
