"""Folders as people have them: adapters, leftovers, files that are not all there; each in one line."""

from __future__ import annotations

import json
import shutil

import huggingface_hub
import pytest
import torch

from culnig_tl import NeuronSet, ablate, bake, describe, hub, load_model
from culnig_tl.data.neurons import Provenance
from culnig_tl.engine.identity import model_identity
from culnig_tl.engine.memory import check_memory
from culnig_tl.errors import ModelError
from culnig_tl.method import ablation

from .helpers import plain_model

peft = pytest.importorskip("peft")
COMMIT = "0" * 40
TOKENS = torch.arange(5, 25)[None]


def logits(model) -> torch.Tensor:
    with torch.no_grad():
        found = model(TOKENS)
    return getattr(found, "logits", found)


@pytest.fixture(scope="module")
def base(checkpoints):
    return checkpoints("llama")


@pytest.fixture(scope="module")
def wrapped(base):
    """A PeftModel with an adapter that changes what the model says."""
    torch.manual_seed(1)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "gate_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(plain_model(base), config)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3)
    return model.eval()


@pytest.fixture(scope="module")
def expected(wrapped):
    return logits(wrapped)


@pytest.fixture(scope="module")
def adapter(wrapped, base, tmp_path_factory):
    folder = tmp_path_factory.mktemp("adapter")
    wrapped.save_pretrained(folder)
    said = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(said | {"base_model_name_or_path": str(base)}))
    return folder


def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


def test_an_adapter_is_merged_into_its_base(base, adapter, expected):
    given, alone = load_model(base, adapter=adapter, device="cpu"), load_model(adapter, device="cpu")
    for model in (given, alone):
        assert torch.allclose(logits(model), expected, atol=1e-4)
        assert describe(model).name == f"{base} + {adapter}"
    plain = load_model(base, device="cpu")
    assert not torch.allclose(logits(plain), expected, atol=1e-2)
    assert describe(given).revision == describe(alone).revision
    assert describe(given).revision.startswith(f"{describe(plain).revision}+")
    assert model_identity(given) == model_identity(alone) != model_identity(plain)


def test_an_adapter_may_be_named_by_its_hub_id(base, adapter, expected, tmp_path, monkeypatch):
    """Here it lies in the cache, as a fetched one does."""
    place = tmp_path / "models--org--adapter"
    shutil.copytree(adapter, place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    given, alone = (load_model(*names, device="cpu", **how) for names, how in (
        ((base,), {"adapter": "org/adapter"}), (("org/adapter",), {}),
    ))  # fmt: skip
    for model in (given, alone):
        assert torch.allclose(logits(model), expected, atol=1e-4)
        assert describe(model).name == f"{base} + org/adapter"
    assert describe(given).revision == describe(alone).revision
    check_memory("org/adapter", device="cpu")
    with pytest.raises(ModelError, match="'org/another' is no folder, and not in the local cache"):
        load_model(base, adapter="org/another", device="cpu")


def test_an_adapters_memory_is_that_of_its_base(adapter):
    check_memory(str(adapter), device="cpu")


def test_a_peft_model_is_merged(base, adapter, expected):
    brought = peft.PeftModel.from_pretrained(plain_model(base), adapter)
    model = load_model(base, hf_model=brought)
    assert torch.allclose(logits(model), expected, atol=1e-4)
    assert describe(model).name == f"{base} + default"


def test_a_merged_folder_with_a_leftover_adapter_is_refused(base, adapter, tmp_path):
    folder = copied(base, tmp_path)
    for path in adapter.iterdir():
        if path.name.startswith("adapter"):
            shutil.copy(path, folder)
    with pytest.raises(ModelError, match="holds a whole model and adapter_config.json: .*adapter=") as error:
        load_model(folder)
    assert "\n" not in str(error.value)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelError, match="holds a whole model and adapter_config.json"):
        load_model(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda f: (f / "adapter_model.safetensors").unlink(), "holds no adapter_model.safetensors"),
        (lambda f: (f / "adapter_config.json").unlink(), "holds no LoRA adapter"),
        (lambda f: (f / "adapter_model.safetensors").write_bytes(b"x" * 40), "cut off or broken"),
    ],
)
def test_a_broken_adapter(base, adapter, tmp_path, change, message):
    folder = copied(adapter, tmp_path)
    change(folder)
    with pytest.raises(ModelError, match=message):
        load_model(base, adapter=folder)


def test_an_adapter_of_another_architecture(checkpoints, adapter):
    with pytest.raises(ModelError, match="the adapter .* does not fit GPT2LMHeadModel"):
        load_model(checkpoints("gpt2"), adapter=adapter)


def test_an_adapter_whose_base_is_not_here(adapter, tmp_path):
    folder = copied(adapter, tmp_path)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "/no/such/base"}')
    with pytest.raises(ModelError, match="names as its base '/no/such/base', which is not here"):
        load_model(folder)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_git_lfs_pointer(base, tmp_path, name):
    folder = copied(base, tmp_path)
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(ModelError, match=f"{name} is a Git LFS pointer, .* `git lfs pull`"):
        load_model(folder)


@pytest.mark.parametrize("kept", [0.5, 0.001])
def test_weights_that_are_cut_off(base, tmp_path, kept):
    path = copied(base, tmp_path) / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(
        ModelError, match="model.safetensors is cut off or broken, download it again"
    ) as error:
        load_model(path.parent)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_tokenizer(base, tmp_path):
    folder = copied(base, tmp_path)
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(ModelError, match=r"holds no tokenizer \(.*load_model\(\.\.\., tokenizer=") as error:
        load_model(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("device", ["cuda", "mps", "cuda:7", "tpu"])
def test_a_device_that_is_not_here(base, device):
    if getattr(torch, device.partition(":")[0], None) and torch.cuda.is_available():
        pytest.skip("it is here")
    with pytest.raises(ModelError, match=f"there is no device '{device}' here"):
        load_model(base, device=device)


def test_bake_takes_no_loaded_model(loaded, tmp_path):
    neurons = NeuronSet.from_indices([("mlp.gate", 0, 1)])
    with pytest.raises(ModelError, match="not a loaded model .TransformerBridge.: give what it was loaded"):
        bake(loaded("llama"), neurons, tmp_path / "out")


def test_neurons_of_other_weights_are_warned_about_once(loaded, caplog):
    model, info = loaded("llama"), describe(loaded("llama"))
    ablation._say_other_model.cache_clear()
    rows = [("mlp.gate", 0, 1)]
    for _ in range(2):
        with ablate(model, NeuronSet.from_indices(rows, Provenance(model="org/other", revision="abc"))):
            pass
    assert caplog.text.count(f"found on org/other (abc), and the model is {info.name} ({info.revision})") == 1
    caplog.clear()
    own = Provenance(model="moved/elsewhere", revision=info.revision)
    with ablate(model, NeuronSet.from_indices(rows, own)), ablate(model, NeuronSet.from_indices(rows)):
        assert not caplog.text


def test_a_hub_that_does_not_answer_is_asked_twice(monkeypatch):
    from huggingface_hub import constants, utils

    asked = []

    class Nobody:
        def head(self, url, **how):
            asked.append(url)
            raise ConnectionError("no network")

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(utils, "get_session", Nobody)
    hub._hub_answers.cache_clear()
    with pytest.raises(ModelError, match="not in the local cache while the Hub cannot be reached"):
        load_model("org/nothing-of-this-name")
    assert len(asked) == 2 and constants.HF_HUB_OFFLINE is False
    hub._hub_answers.cache_clear()
