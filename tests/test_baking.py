"""A baked checkpoint gives the logits of the hooked ablation."""

from __future__ import annotations

import json

import pytest
import torch

from culnig_tl import NeuronSet, ablate, describe, load_model
from culnig_tl.errors import ModelError, NeuronError
from culnig_tl.finetuning.baking import bake

from . import families
from .helpers import plain_model
from .test_ablation import TOKENS, run, some_neurons


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_equals_the_hooked_ablation(family, loaded, checkpoints, tmp_path):
    model, folder = loaded(family), checkpoints(family)
    one_by_one = list(describe(model).widths) if family in ("phi3", "gpt-neox") else []
    for site in [*one_by_one, None]:
        neurons = some_neurons(model, sites=None if site is None else [site])
        out = bake(folder, neurons, tmp_path / str(site))
        with ablate(model, neurons):
            expected = run(model)
        with torch.no_grad():
            baked = plain_model(out)(TOKENS).logits
        assert float((baked - expected).abs().max() / expected.abs().max()) < 1e-5, site


def test_the_rest_of_the_checkpoint_is_untouched(checkpoints, tmp_path):
    from safetensors.torch import load_file

    folder = checkpoints("gemma3")
    neurons = NeuronSet.from_indices([("mlp.gate", 1, 5), ("attn.q", 0, 7)])
    out = bake(folder, neurons, tmp_path / "baked")
    before, after = (
        {k: v for f in place.glob("*.safetensors") for k, v in load_file(f).items()}
        for place in (folder, out)
    )
    assert before.keys() == after.keys()
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert (
        len(changed) == 2 and any("gate_proj" in n for n in changed) and any("q_proj" in n for n in changed)
    ), changed
    assert {p.name for p in folder.iterdir()} <= {p.name for p in out.iterdir()}
    record = json.loads((out / "culnig_tl.json").read_text())
    assert record["suppressed"] == 2 and record["neurons"] == neurons.hash
    load_model(out, device="cpu")


def test_bad_input_is_a_clear_error_and_leaves_nothing(checkpoints, tmp_path):
    folder = checkpoints("llama")
    good = NeuronSet.from_indices([("mlp.gate", 0, 0)])
    cases = [
        (folder, NeuronSet.from_indices([("mlp.gate", 7, 0)]), NeuronError, "another model"),
        (folder, NeuronSet.from_indices([("mlp.gate", 0, 999)]), NeuronError, "lies outside"),
        (checkpoints("phi3"), NeuronSet.from_indices([("attn.k", 0, 999)]), NeuronError, "lies outside"),
        (folder, NeuronSet.from_indices([]), NeuronError, "empty"),
        (tmp_path / "nowhere", good, ModelError, "config.json"),
    ]
    for source, neurons, error, message in cases:
        with pytest.raises(error, match=message):
            bake(source, neurons, tmp_path / "out")
        assert not (tmp_path / "out").exists()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine")
    with pytest.raises(ModelError, match="in use"):
        bake(folder, good, tmp_path / "used")
    assert (tmp_path / "used" / "file").read_text() == "mine"


def test_the_baked_toy_answers_as_the_suppressed_one(tmp_path):
    from importlib import resources

    from culnig_tl import evaluate, load_task

    if not (resources.files("culnig_tl") / "toy" / "model" / "config.json").is_file():
        pytest.skip("the toy is not trained")
    toy, task = load_model("toy", device="cpu"), load_task("miniculture").test_split().limit(64)
    neurons = some_neurons(toy, share=0.05)
    baked = load_model(bake("toy", neurons, tmp_path / "baked"), device="cpu")
    ours, theirs = evaluate(toy, task, neurons=neurons, progress=False), evaluate(baked, task, progress=False)
    assert theirs.table["p_answer"].tolist() == pytest.approx(ours.table["p_answer"].tolist(), abs=1e-5)
    assert theirs.table["predicted"].tolist() == ours.table["predicted"].tolist()
