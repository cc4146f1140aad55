"""A baked checkpoint gives the logits of the hooked ablation."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from culnig_tl import NeuronSet, ablate, describe, evaluate, load_model, load_task
from culnig_tl.errors import ModelError, NeuronError
from culnig_tl.finetuning.baking import bake

from . import families
from .helpers import plain_model

TOKENS = torch.tensor([[1, 40, 97, 130, 201, 77, 300, 12, 44, 350, 90, 91]])


def some_neurons(model, sites, share=0.25) -> NeuronSet:
    """A share of the neurons of every layer at these sites."""
    rng, info = np.random.default_rng(0), describe(model)
    drawn = {
        (site, layer): rng.choice(info.widths[site], size=int(share * info.widths[site]), replace=False)
        for site in sites
        for layer in range(info.layers)
    }
    return NeuronSet.from_indices([(*place, int(i)) for place, index in drawn.items() for i in index])


def tensors(folder) -> dict[str, torch.Tensor]:
    return {name: tensor for path in folder.glob("*.safetensors") for name, tensor in load_file(path).items()}


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_equals_the_hooked_ablation(family, loaded, checkpoints, tmp_path):
    model, folder = loaded(family), checkpoints(family)
    widths = list(describe(model).widths)
    one_by_one = [[site] for site in widths] if family in ("phi3", "gpt-neox") else []
    for number, sites in enumerate([*one_by_one, widths]):
        neurons = some_neurons(model, sites)
        with torch.no_grad(), ablate(model, neurons):
            expected = model(TOKENS)
        with torch.no_grad():
            baked = plain_model(bake(folder, neurons, tmp_path / str(number)))(TOKENS).logits
        assert float((baked - expected).abs().max() / expected.abs().max()) < 1e-5, sites


@pytest.fixture(scope="module")
def baked(checkpoints, tmp_path_factory):
    """(the checkpoint, the neurons, the baked checkpoint)."""
    folder = checkpoints("gemma3")
    neurons = NeuronSet.from_indices([("mlp.gate", 1, 5), ("attn.q", 0, 7)])
    return folder, neurons, bake(folder, neurons, tmp_path_factory.mktemp("baked") / "out")


def test_the_other_weights_are_untouched(baked):
    before, after = tensors(baked[0]), tensors(baked[2])
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert [name.split(".")[-2] for name in sorted(changed)] == ["q_proj", "gate_proj"]


def test_the_other_files_are_copied(baked):
    folder, _, out = baked
    assert {path.name for path in folder.iterdir()} <= {path.name for path in out.iterdir()}
    load_model(out, device="cpu")


def test_the_record_says_what_was_suppressed(baked):
    record = json.loads((baked[2] / "culnig_tl.json").read_text())
    assert record["suppressed"] == 2 and record["neurons"] == baked[1].hash


@pytest.mark.parametrize(
    ("family", "neurons", "error", "message"),
    [
        ("llama", [("mlp.gate", 7, 0)], NeuronError, "another model"),
        ("llama", [("mlp.gate", 0, 999)], NeuronError, "lies outside"),
        ("phi3", [("attn.k", 0, 999)], NeuronError, "lies outside"),
        ("llama", [], NeuronError, "empty"),
        (None, [("mlp.gate", 0, 0)], ModelError, "config.json"),
    ],
)
def test_bad_input_is_a_clear_error_and_leaves_nothing(
    family, neurons, error, message, checkpoints, tmp_path
):
    source = checkpoints(family) if family else tmp_path / "nowhere"
    with pytest.raises(error, match=message):
        bake(source, NeuronSet.from_indices(neurons), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_in_use_is_left_alone(checkpoints, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ModelError, match="in use"):
        bake(checkpoints("llama"), NeuronSet.from_indices([("mlp.gate", 0, 0)]), tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_the_baked_toy_answers_as_the_suppressed_one(tmp_path):
    toy, task = load_model("toy", device="cpu"), load_task("miniculture", split="test", limit=64)
    neurons = some_neurons(toy, describe(toy).widths, share=0.05)
    ours = evaluate(toy, task, ablate=neurons, progress=False).table
    theirs = evaluate(
        load_model(bake("toy", neurons, tmp_path / "out"), device="cpu"), task, progress=False
    ).table
    assert theirs["p_answer"].tolist() == pytest.approx(ours["p_answer"].tolist(), abs=1e-5)
    assert theirs["predicted"].tolist() == ours["predicted"].tolist()
