"""GGUF files: what loads computes what the model did, and what is wrong with a file is said in one line."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import struct
from dataclasses import replace

import pytest

pytest.importorskip("gguf", reason="GGUF files are written by the package gguf")

import gguf
import huggingface_hub
import torch
import transformers as hf
from gguf import GGMLQuantizationType as Kind

from culnig_tl import ablate, describe, load_model
from culnig_tl.data.neurons import NeuronSet
from culnig_tl.engine.loading import has_commit, load_plain, load_tokenizer, looks_like_path
from culnig_tl.engine.memory import check_memory, parameter_count
from culnig_tl.errors import ModelError
from culnig_tl.finetuning import bake
from culnig_tl.finetuning.weights import checkpoint_folder
from culnig_tl.run import forecast
from culnig_tl.study.config import TOY_CONFIG

from . import families, gguf_files
from .helpers import difference, invoked, score

TOKENS = torch.arange(20, 50)[None]


@pytest.fixture(scope="module")
def plain():
    """`plain(family)`: the model that a file holds."""
    made = {}
    return lambda family: made.setdefault(family, gguf_files.build(family))


@pytest.fixture(scope="module")
def written(plain, tmp_path_factory):
    """`written(family)`: its file, in float32; written once."""
    folder, made = tmp_path_factory.mktemp("gguf"), {}

    def path(family):
        if family not in made:
            made[family] = gguf_files.write(folder / f"{family}.gguf", plain(family))
        return made[family]

    return path


@pytest.mark.parametrize("family", list(gguf_files.MODELS))
def test_a_file_computes_what_its_model_does(family, plain, written):
    with torch.no_grad():
        expected = plain(family)(TOKENS).logits
        found = load_model(written(family), device="cpu")(TOKENS)
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("family", list(gguf_files.MODELS))
def test_scores_are_those_of_the_same_weights_in_a_folder(family, plain, written, task, tmp_path):
    plain(family).save_pretrained(tmp_path)
    from_file = load_model(written(family), device="cpu")
    from_file.tokenizer.save_pretrained(tmp_path)
    assert difference(score(from_file, task), score(load_model(tmp_path, device="cpu"), task)) < 1e-4


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_the_tokenizer_is_the_files(family, written):
    text = families.CORPUS[2]
    expected = families.tokenizer("bytes")
    assert load_tokenizer(str(written(family)))(text)["input_ids"] == expected(text)["input_ids"]


def test_the_chat_template_is_the_files(plain, tmp_path):
    path = gguf_files.write(tmp_path / "chat.gguf", plain("llama"), chat=True)
    assert load_tokenizer(str(path)).chat_template == families.CHAT_TEMPLATE


def test_what_lies_beside_a_file_is_not_its_own(plain, tmp_path):
    families.save(tmp_path, "llama", chat=True)
    path = gguf_files.write(tmp_path / "model.gguf", plain("llama"))
    assert load_tokenizer(str(path)).chat_template is None
    assert load_plain(str(path), torch.float32).config.hidden_size == gguf_files.SHAPE["hidden_size"]


def test_a_file_is_read_once_for_configuration_and_tokenizer(written, monkeypatch):
    from transformers import modeling_gguf_pytorch_utils as theirs

    read, calls = theirs.load_gguf_checkpoint, []

    def counted(path, return_tensors=False, **how):
        calls.append(return_tensors)
        return read(path, return_tensors=return_tensors, **how)

    monkeypatch.setattr(theirs, "load_gguf_checkpoint", counted)
    load_model(written("llama"), device="cpu")
    assert calls.count(False) <= 1
    assert theirs.load_gguf_checkpoint is counted


@pytest.mark.parametrize("family", list(gguf_files.MODELS))
def test_a_forecast_takes_a_model_of_the_files_shapes(family, written, monkeypatch):
    """Time and memory do not depend on what weights are: they are not dequantised for them."""
    path, seen = str(written(family)), []

    def taken(config, model, questions):
        seen.append(model)
        raise InterruptedError

    monkeypatch.setattr(forecast, "forecast", taken)
    with pytest.raises(InterruptedError):
        forecast.forecast_study(replace(TOY_CONFIG, model=path, device="cpu", limit=4))
    found, known = describe(seen[0]), describe(load_model(path, device="cpu"))
    assert (found.layers, found.widths, found.dtype) == (known.layers, known.widths, known.dtype)
    assert seen[0](TOKENS).isfinite().all()


@pytest.mark.parametrize("kind", [Kind.Q8_0, Kind.Q4_0])
def test_weights_are_dequantised(kind, plain, tmp_path):
    path = gguf_files.write(tmp_path / "model.gguf", plain("llama"), kind=kind)
    loaded = load_plain(str(path), torch.float32)
    for name in ("mlp.gate_proj", "self_attn.v_proj"):
        own = plain("llama").get_parameter(f"model.layers.1.{name}.weight").detach().numpy()
        expected = gguf.dequantize(gguf.quantize(own, kind), kind)
        found = loaded.get_parameter(f"model.layers.1.{name}.weight").detach().numpy()
        assert (found == expected).all() and not (found == own).all()


def test_the_dtype_is_the_one_asked_for(written):
    model = load_model(written("gemma3"), device="cpu", dtype="bfloat16")
    assert describe(model).dtype == "bfloat16"


def test_what_is_loaded_is_saved_as_an_ordinary_checkpoint(written, tmp_path):
    load_plain(str(written("llama")), torch.float32).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert "quantization_config" not in config and config["architectures"] == ["LlamaForCausalLM"]
    assert hf.AutoModelForCausalLM.from_pretrained(tmp_path).config.model_type == "llama"


# -------------------------------------------------------------------------------------- names and identity


def test_identity_is_of_the_files_bytes(written, tmp_path):
    path = written("llama")
    renamed = tmp_path / "renamed.gguf"
    renamed.write_bytes(path.read_bytes())
    one, other = (describe(load_model(each, device="cpu")) for each in (path, renamed))
    assert one.revision == other.revision == hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    assert (one.name, other.name) == (str(path), str(renamed))


def test_a_file_on_the_hub(written, monkeypatch):
    asked = []

    def download(*where, revision):
        asked.append((*where, revision))
        return str(written("llama"))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    model = load_model("org/name-GGUF:sub/model.Q4_K_M.gguf", device="cpu", revision="v2")
    assert describe(model).name == "org/name-GGUF:sub/model.Q4_K_M.gguf"
    assert set(asked) == {("org/name-GGUF", "sub/model.Q4_K_M.gguf", "v2")}
    assert describe(model).revision == describe(load_model(written("llama"), device="cpu")).revision


def test_a_file_on_the_hub_offline():
    with pytest.raises(ModelError, match="'org/name' is no folder, and not in the local cache"):
        load_model("org/name:model.gguf")


@pytest.mark.parametrize(
    ("source", "path", "commit"),
    [
        ("model.gguf", True, False),
        ("Model.GGUF", True, False),
        ("a/model.gguf", True, False),
        ("org/name:model.gguf", False, False),
        ("C:\\models\\model.gguf", True, False),
        ("org/name", False, True),
        ("./folder", True, False),
    ],
)
def test_names(source, path, commit):
    assert (looks_like_path(source), has_commit(source)) == (path, commit)


def test_memory_is_known_from_the_header(plain, written, monkeypatch):
    count = sum(p.numel() for p in plain("gemma3").parameters())
    assert parameter_count(str(written("gemma3"))) == count
    monkeypatch.setattr("culnig_tl.engine.memory.free_here", lambda: 1000)
    with pytest.raises(ModelError, match="needs about .* of memory in float32"):
        check_memory(str(written("gemma3")), device="cpu")


def test_the_command_line_takes_a_file(written):
    printed = invoked("evaluate", "--model", written("llama"), "--tasks", "miniculture", "--limit", 4)
    assert "miniculture" in printed


def test_a_file_is_baked_as_an_ordinary_checkpoint(written, tmp_path):
    neurons = NeuronSet.from_indices([("mlp.gate", 0, 1), ("attn.q", 1, 5), ("attn.v", 1, 2)])
    model, baked = load_model(written("llama"), device="cpu"), tmp_path / "baked"
    bake(written("llama"), neurons, baked)
    with torch.no_grad(), ablate(model, neurons):
        expected = model(TOKENS)
    with torch.no_grad():
        found = load_model(baked, device="cpu")(TOKENS)
    assert torch.allclose(found, expected, atol=1e-4 * float(expected.abs().max()))


# ------------------------------------------------------------------------------------------ what is refused


def refused(path):
    """What loading it says, in one line."""
    with pytest.raises(ModelError) as caught:
        load_model(path, device="cpu")
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("length", "message"),
    [(0, "is cut off, or damaged"), (30, "is cut off, or damaged"), (9000, "is cut off, or damaged")],
)
def test_a_file_that_ends_in_its_header(length, message, written, tmp_path):
    path = tmp_path / "short.gguf"
    path.write_bytes(written("llama").read_bytes()[:length])
    assert message in refused(path)


def test_a_file_that_ends_in_its_weights(written, tmp_path):
    path = tmp_path / "short.gguf"
    path.write_bytes(written("llama").read_bytes()[:-1000])
    assert "1,000 bytes are missing; fetch it again" in refused(path)


def test_a_file_that_is_something_else(tmp_path):
    path = tmp_path / "model.gguf"
    path.write_bytes(b"PK\3\4" + bytes(100))
    assert "is no GGUF file" in refused(path)


def test_no_file(tmp_path):
    assert "no such file" in refused(tmp_path / "model.gguf")


def test_one_piece_of_several(written, tmp_path):
    path = tmp_path / "model-00001-of-00003.gguf"
    path.write_bytes(written("llama").read_bytes())
    assert "llama-gguf-split --merge" in refused(path)


def test_a_folder_of_files(written):
    assert "is a folder of GGUF files: give one of them" in refused(written("llama").parent)


def test_an_architecture_that_transformers_does_not_read(plain, tmp_path):
    path = gguf_files.write(tmp_path / "model.gguf", plain("llama"), architecture="orion")
    assert "of the architecture 'orion': transformers does not read it from GGUF" in refused(path)


def test_scaled_positions_that_transformers_would_leave_out(written, tmp_path):
    """As many bytes for another name: the norm of layer 0 becomes Llama 3's rope_freqs."""
    path = tmp_path / "model.gguf"
    own, other = b"blk.0.attn_norm.weight", b"rope_freqs.weight"
    old, new = (struct.pack("<Q", len(name)) + name for name in (own, other))
    content = written("llama").read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, new) + bytes(64))
    assert "scales its rotary positions (by frequency)" in refused(path)


def test_without_the_package(written, monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "gguf" else found(name, *rest)
    )
    assert "needs the package gguf: pip install 'culnig-tl[gguf]'" in refused(written("llama"))


def test_training_wants_a_checkpoint(written):
    with pytest.raises(ModelError, match="is a GGUF file, with quantised weights"):
        checkpoint_folder(str(written("llama")))
