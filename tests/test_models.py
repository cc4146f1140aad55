"""Names, folders and models that the user brings: what loads, what is refused, and that nothing is installed
on the way."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file

from culnig_tl import ablate, ablation_hooks, describe, evaluate, load_model, select_general
from culnig_tl.data.neurons import SITES, NeuronSet, Site
from culnig_tl.defaults import PAPER_MODELS
from culnig_tl.engine.loading import explain
from culnig_tl.engine.models import hook_name, tokenizer_of
from culnig_tl.engine.prompts import encode, pad
from culnig_tl.engine.workarounds import no_installs
from culnig_tl.errors import CulnigError, ModelError

from . import families
from .helpers import difference, plain_model, score


@pytest.fixture
def copied(checkpoints, tmp_path):
    """`copied(family)`: a checkpoint of one's own, to be spoiled."""
    import shutil

    return lambda family: shutil.copytree(checkpoints(family), tmp_path / family)


def logits_of(model, tokens):
    with torch.no_grad():
        return (
            model(torch.tensor([tokens]))
            if not isinstance(model, hf.PreTrainedModel)
            else model(torch.tensor([tokens])).logits
        )


TOKENS = list(range(20, 50))


# ------------------------------------------------------------------------------------------------- what loads


@pytest.mark.parametrize("name", PAPER_MODELS)
def test_each_of_the_papers_models_goes_the_whole_way(name, tmp_path):
    """Load, score, select, suppress, evaluate: on a small checkpoint of that model's own config class."""
    folder = families.save(tmp_path / name.replace("/", "_"), families.PAPER[name], seed=len(name), chat=True)
    model = load_model(folder, device="cpu")
    info = describe(model)
    assert set(info.widths) >= set(SITES) and info.dtype == "float32" and info.revision
    task = families.questions(6)
    culture = score(model, task)
    reading = score(model, families.questions(3, task="other"))
    general = select_general(culture, score(model, task.control()), reading, top_mlp=0.1, top_attn=0.1)
    unchanged, suppressed = (evaluate(model, task, ablate=n, progress=False) for n in (None, general))
    assert len(general) and len(unchanged) == len(suppressed) == 6
    assert not np.allclose(unchanged.table["p_answer"], suppressed.table["p_answer"], rtol=1e-6)


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_a_folder_computes_what_transformers_does(family, loaded, checkpoints):
    expected = logits_of(plain_model(checkpoints(family)), TOKENS)
    assert torch.allclose(
        logits_of(loaded(family), TOKENS), expected, atol=1e-4 * float(expected.abs().max())
    )


@pytest.mark.parametrize("layout", ["hub", "saved"])
def test_multimodal_gemma_is_loaded_as_its_language_model(layout, copied):
    folder = copied("gemma3")
    weights = load_file(folder / "model.safetensors")
    if layout == "hub":  # the names of google/gemma-3-12b-it on the Hub
        weights = {_hub_name(key): value for key, value in weights.items()}
        assert any(key.startswith("language_model.model.layers.0.") for key in weights)
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    assert any("vision_tower" in key for key in weights)
    expected = logits_of(plain_model(folder), TOKENS)
    model = load_model(folder, device="cpu")
    assert torch.allclose(logits_of(model, TOKENS), expected, atol=1e-4 * float(expected.abs().max()))
    assert not any("vision" in name for name, _ in model.original_model.named_modules()), (
        "the vision part is not held in memory"
    )


def _hub_name(key):
    for start in ("model.language_model.", "language_model.model."):
        if key.startswith(start):
            return "language_model.model." + key.removeprefix(start)
    return "language_model." + key if key.startswith("lm_head") else key.removeprefix("model.")


def test_base_and_fine_tuned_go_the_same_way(checkpoints, tmp_path, task):
    """A fine-tuned folder, and one with merged LoRA weights, under names that say nothing."""
    base = plain_model(checkpoints("llama"))
    tuned = plain_model(checkpoints("llama"))
    with torch.no_grad():
        for name, weight in tuned.named_parameters():
            if "q_proj" in name or "down_proj" in name:  # W + B A, of rank 2
                weight += (
                    0.3
                    * torch.randn(weight.shape[0], 2)
                    @ torch.randn(2, weight.shape[1])
                    / weight.shape[1] ** 0.5
                )
    seen = []
    for number, plain in enumerate((base, tuned)):
        folder = tmp_path / f"checkpoint-{number}"
        plain.save_pretrained(folder)
        families.tokenizer().save_pretrained(folder)
        model = load_model(folder, device="cpu")
        assert torch.allclose(logits_of(model, TOKENS), logits_of(plain, TOKENS), atol=1e-4)
        seen.append((describe(model), score(model, task)))
    assert seen[0][0].revision != seen[1][0].revision and seen[0][0].widths == seen[1][0].widths
    assert difference(seen[0][1], seen[1][1]) > 1e-2


@pytest.mark.parametrize("chat", [False, True])
def test_a_tokenizer_stays_as_it_is(chat, checkpoints):
    """TransformerLens would load it again, with a BOS that it does not have, and give it a BOS token where
    it has none."""
    folder = checkpoints("gpt2")
    without = families.tokenizer(bos=False, chat=chat)
    before = dict(without.init_kwargs)
    model = load_model(folder, tokenizer=without, device="cpu")
    assert (
        model.tokenizer("a")["input_ids"] == without("a")["input_ids"]
        and without.bos_token_id not in without("a")["input_ids"]
    )
    assert model.tokenizer.chat_template == without.chat_template
    assert without.init_kwargs == before == dict(model.tokenizer.init_kwargs)


def test_revision_of_a_folder_is_of_its_content(checkpoints, tmp_path):
    one, two = (families.save(tmp_path / name, "gpt2", seed=seed) for name, seed in (("one", 0), ("two", 1)))
    first, same, other = (
        describe(load_model(f, device="cpu")).revision for f in (checkpoints("gpt2"), one, two)
    )
    assert first == same != other


@pytest.mark.parametrize("device_map", ["auto", {"": "cpu"}])
def test_device_map(device_map, checkpoints, loaded, task):
    model = load_model(checkpoints("llama"), device_map=device_map, dtype="float32")
    assert difference(score(model, task), score(loaded("llama"), task)) < 1e-4
    with pytest.raises(ModelError, match="exclude each other"):
        load_model(checkpoints("llama"), device_map=device_map, device="cpu")


@pytest.mark.parametrize("dtype", ["float32", torch.bfloat16, "float64"])
def test_dtypes(dtype, checkpoints):
    info = describe(load_model(checkpoints("qwen3"), device="cpu", dtype=dtype))
    assert info.dtype == str(dtype).removeprefix("torch.") and info.device == "cpu"


# --------------------------------------------------------------------------------------- models of the user's


def test_a_model_that_is_already_loaded(checkpoints, loaded, task):
    folder = checkpoints("phi3")
    plain = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = load_model(hf_model=plain, tokenizer=families.tokenizer())
    assert difference(score(model, task), score(loaded("phi3"), task)) < 1e-5
    with pytest.raises(ModelError, match="needs a tokenizer"):
        load_model(hf_model=plain)
    with pytest.raises(ModelError, match="brings its own device and dtype"):
        load_model(hf_model=plain, tokenizer=families.tokenizer(), dtype="bfloat16")
    with pytest.raises(ModelError, match="float16 is refused"):
        load_model(hf_model=plain.half(), tokenizer=families.tokenizer())
    with pytest.raises(ModelError, match="hf_model is a Linear"):
        load_model(hf_model=torch.nn.Linear(2, 2), tokenizer=families.tokenizer())


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_bridge_that_the_user_built_and_compatibility_mode(family, checkpoints, loaded, task):
    """Folding norms and centring weights change no attribution; folding value biases moves them out of
    attn.v."""
    from transformer_lens.model_bridge import TransformerBridge

    folder = checkpoints(family)
    plain, tokenizer = (
        hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32),
        hf.AutoTokenizer.from_pretrained(folder),
    )
    bridge = TransformerBridge.boot_transformers(
        str(folder), hf_model=plain, tokenizer=tokenizer, device="cpu"
    )
    expected = score(loaded(family), task)
    assert difference(score(bridge, task), expected) < 1e-5
    neuron = NeuronSet.from_indices([("mlp.gate", 1, 3)])
    enhanced = evaluate(loaded(family), task, ablate=neuron, scale=2.0, progress=False)

    bridge.enable_compatibility_mode(disable_warnings=True)
    folded = score(bridge, task)
    for site in SITES:
        if site is Site.ATTN_V and family == "gpt2":
            continue  # GPT-2 has value biases: they sit in the output's bias now
        assert (
            np.abs(folded.arrays[site] - expected.arrays[site]).max()
            < 1e-3 * np.abs(expected.arrays[site]).max()
        ), site
    again = evaluate(bridge, task, ablate=neuron, scale=2.0, progress=False)
    np.testing.assert_allclose(again.table["p_answer"], enhanced.table["p_answer"], rtol=1e-2)


def test_a_hook_is_called_once_in_compatibility_mode(checkpoints):
    model = load_model(checkpoints("llama"), device="cpu")
    model.enable_compatibility_mode(disable_warnings=True)
    calls = []
    hook = (hook_name(model, Site.MLP_GATE, 1), lambda activation, hook: calls.append(activation.shape))
    with model.hooks(fwd_hooks=[hook]):
        logits_of(model, TOKENS)
    assert len(calls) == 1


def test_a_model_without_a_tokenizer_says_so(checkpoints, task):
    model = load_model(checkpoints("llama"), device="cpu")
    model.tokenizer = None
    with pytest.raises(ModelError, match="no tokenizer"):
        tokenizer_of(model)


@pytest.mark.parametrize("wrong", ["gpt2", None, torch.nn.Linear(2, 2)])
def test_what_is_no_hooked_transformer(wrong):
    with pytest.raises(ModelError, match="is not a hooked transformer: pass what load_model\\(\\) returns"):
        describe(wrong)


CALLS = """
import torch
from culnig_tl import *

model, neurons = torch.nn.Linear(2, 2), NeuronSet.from_indices([("mlp.gate", 0, 1)])
task = load_task("miniculture", limit=2)
calls = (
    lambda: score_neurons(model, task),
    lambda: evaluate(model, task),
    lambda: evaluate(model, task, ablate=neurons),
    lambda: mean_outputs(model, task),
    lambda: exact_effects(model, task, neurons),
    lambda: question_scores(model, task, neurons),
    lambda: score_prompt(model, "What?", "A"),
    lambda: ablation_hooks(model, neurons),
    lambda: ablate(model, neurons).__enter__(),
)
for call in calls:
    try:
        call()
    except CulnigError as error:
        print(type(error).__name__, error)
"""


def test_every_function_refuses_what_is_no_hooked_transformer():
    """In a process of its own: here, where types are checked at run time, no function would be reached."""
    done = subprocess.run([sys.executable, "-c", CALLS], capture_output=True, text=True)
    told = "ModelError Linear is not a hooked transformer: pass what load_model() returns"
    assert done.stdout.splitlines() == [told] * 9, done.stderr


@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_ablation_hooks_do_what_ablate_does(scale, loaded):
    model, tokens = loaded("llama"), torch.tensor([TOKENS])
    neurons = NeuronSet.from_indices([("mlp.gate", 1, 3), ("attn.k", 0, 5), ("attn.v", 2, 1)])
    with ablate(model, neurons, scale=scale):
        expected = model(tokens)
    hooks = ablation_hooks(model, neurons, scale=scale)
    assert torch.equal(model.run_with_hooks(tokens, fwd_hooks=hooks), expected)


# -------------------------------------------------------------------------------------------- what is refused


def test_missing_weights_are_an_error(copied):
    folder = copied("llama")
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelError,
        match=r"1 weights are missing from the checkpoint .* e\.g\. model\.layers\.1\.mlp\.up_proj\.weight",
    ):
        load_model(folder, device="cpu")


def test_unexpected_weights_are_an_error(copied):
    folder = copied("llama")
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.7.mlp.up_proj.weight"] = torch.zeros(2, 2)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="1 weights are not expected in the checkpoint"):
        load_model(folder, device="cpu")


def test_weights_of_another_shape_are_an_error(copied):
    folder = copied("llama")
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = torch.zeros(7)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError):
        load_model(folder, device="cpu")


def test_a_multimodal_checkpoint_under_the_wrong_class_is_not_left_random(copied):
    """Gemma3ForCausalLM on a multimodal checkpoint loads nothing and says nothing."""
    folder = copied("gemma3")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(
            {**config["text_config"], "architectures": ["Gemma3ForCausalLM"], "model_type": "gemma3_text"}
        )
    )
    weights = {_hub_name(key): value for key, value in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="weights are (missing from|not expected in)"):
        load_model(folder, device="cpu")


def test_bad_folders(tmp_path, copied):
    with pytest.raises(ModelError, match="no such folder"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="holds no config.json"):
        load_model(tmp_path / "empty")
    (tmp_path / "empty" / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="names no base model"):
        load_model(tmp_path / "empty")
    folder = copied("llama")
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot load"):
        load_model(folder, device="cpu")
    (folder / "config.json").write_text(json.dumps({"model_type": "unheard_of"}))
    with pytest.raises(ModelError, match="unheard_of|cannot load"):
        load_model(folder, device="cpu")


def test_an_architecture_that_is_no_language_model(tmp_path):
    config = hf.BertConfig(
        vocab_size=512, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32
    )
    hf.BertModel(config).save_pretrained(tmp_path)
    families.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError):
        load_model(tmp_path, device="cpu")


def test_an_architecture_without_the_hooks(tmp_path):
    hf.MambaForCausalLM(
        hf.MambaConfig(vocab_size=512, hidden_size=32, num_hidden_layers=1, state_size=4)
    ).save_pretrained(tmp_path)
    families.tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path, device="cpu")
    assert "none of the hooks that neurons are read from, e.g. blocks.0.mlp.hook_pre" in str(
        caught.value
    ) and "\n" not in str(caught.value)


def test_an_unknown_name_offline():
    with pytest.raises(
        ModelError,
        match="'nobody/nothing' is no folder, and not in the local cache while the Hub cannot be reached",
    ):
        load_model("nobody/nothing")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("GatedRepoError", "is gated: accept its terms at https://huggingface.co/some/model and log in"),
        ("RepositoryNotFoundError", "no model 'some/model': neither a folder nor a name on the Hub"),
        ("RevisionNotFoundError", "'some/model' has no revision 'v2'"),
        ("LocalEntryNotFoundError", "not in the local cache"),
    ],
)
def test_what_the_hub_answers_becomes_one_line(kind, message):
    from huggingface_hub import errors

    cause = getattr(errors, kind).__new__(getattr(errors, kind))
    error = OSError("a page of text\nof many lines")
    error.__cause__ = cause
    said = explain(error, "some/model", "v2", "cannot load")
    assert message in said and "\n" not in said


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, "float16 is refused"),
        ({"dtype": "int8"}, "unknown dtype 'int8': use auto"),
        ({"device": "toaster"}, "there is no device 'toaster'"),
        ({"kind": "wrapped"}, "wrapped"),
    ],
)
def test_wrong_options(options, message, checkpoints):
    with pytest.raises((CulnigError, TypeError), match=message):
        load_model(checkpoints("llama"), **options)


@pytest.mark.skipif(version("transformer-lens").startswith("3."), reason="TransformerLens 3 has the class")
def test_hooked_needs_transformer_lens_3(checkpoints):
    with pytest.raises(ModelError, match='needs "transformer-lens>=3.9,<4"'):
        load_model(checkpoints("llama"), kind="hooked")


# -------------------------------------------------------------------------------------------- the closed door


def test_no_load_runs_pip(checkpoints, monkeypatch):
    """A multimodal model without torchvision is where TransformerLens would install it; the spy sees
    nothing."""
    monkeypatch.setitem(sys.modules, "torchvision", None)
    started = []
    for name in ("check_call", "check_output", "run", "call"):
        monkeypatch.setattr(subprocess, name, lambda command, *a, **k: started.append(command))
    folder = checkpoints("gemma3")
    load_model(folder, device="cpu")
    whole = hf.Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    model = load_model(hf_model=whole, tokenizer=families.tokenizer())
    assert describe(model).layers == 4
    assert started == []


def test_the_door_is_where_it_is_needed(checkpoints, monkeypatch):
    """Without the closed door the same load does run pip: else the test above would prove nothing."""
    from transformer_lens.model_bridge import TransformerBridge

    monkeypatch.setitem(sys.modules, "torchvision", None)
    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda command, *a, **k: started.append(command))
    folder = checkpoints("gemma3")
    whole = hf.Gemma3ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    TransformerBridge.boot_transformers(
        str(folder), hf_model=whole, tokenizer=hf.AutoTokenizer.from_pretrained(folder), device="cpu"
    )
    assert started and "torchvision" in started[0]


def test_the_door_stops_installs_alone():
    with no_installs():
        with pytest.raises(PermissionError, match="installs nothing, refused: .* pip install torchvision"):
            subprocess.check_call([sys.executable, "-m", "pip", "install", "torchvision", "-q"])
        with pytest.raises(PermissionError):
            subprocess.Popen("uv pip install torchvision", shell=True)
        assert (
            subprocess.run([sys.executable, "-c", "print(1)"], capture_output=True, check=True).stdout.strip()
            == b"1"
        )
    assert (
        subprocess.run(
            [sys.executable, "-c", "print('install')"], capture_output=True, check=True
        ).stdout.strip()
        == b"install"
    )


def test_whole_multimodal_models_of_the_user_score_their_language_model(checkpoints, loaded, task):
    whole = hf.Gemma3ForConditionalGeneration.from_pretrained(checkpoints("gemma3"), dtype=torch.float32)
    model = load_model(hf_model=whole, tokenizer=families.tokenizer())
    assert difference(score(model, task), score(loaded("gemma3"), task)) < 1e-4


def test_ablation_reaches_every_site_of_every_family(loaded):
    """A site whose hook fires beside the path of the model would score and never act."""
    task = families.questions(1)
    for family in families.FAMILIES:
        model = loaded(family)
        prompt = encode(model.tokenizer, task.questions)
        tokens, mask = pad(prompt, model.tokenizer, torch.device("cpu"))
        with torch.no_grad():
            before = model(tokens, attention_mask=mask)
            for site, width in describe(model).widths.items():
                with ablate(model, NeuronSet.from_indices([(site, 0, n) for n in range(width)])):
                    assert not torch.allclose(model(tokens, attention_mask=mask), before, atol=1e-5), (
                        family,
                        site,
                    )
