"""Our ablation in lm-evaluation-harness: its model `culnig` beside its own `hf`."""

# ruff: noqa: E402

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

lm_eval = pytest.importorskip("lm_eval")

import torch
from lm_eval.models.huggingface import HFLM

import culnig_tl as ctl
from culnig_tl.errors import CulnigError, NeuronError
from culnig_tl.finetuning.baking import bake
from culnig_tl.tasks import harness as ours

from . import families, harness_tasks
from .builders import some_neurons
from .helpers import plain_model

FAMILIES = ("llama", "gemma3-text", "phi3")
TASKS = tuple(name for name in harness_tasks.TASKS if name != "line")
SMALL = ("choice", "generated", "perplexity")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return harness_tasks.write(tmp_path_factory.mktemp("harness"))


def hf(checkpoint, **options):
    """The harness' own model."""
    options = {"batch_size": 4, **options}
    return HFLM(pretrained=plain_model(checkpoint), tokenizer=families.tokenizer(), device="cpu", **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_unchanged_it_is_the_harness_own_model(family, folder, checkpoints, loaded):
    theirs = harness_tasks.asked(hf(checkpoints(family)), folder, TASKS)
    mine = harness_tasks.asked(ctl.lm_eval_model(loaded(family), batch_size=4), folder, TASKS)
    harness_tasks.assert_equal(mine, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_suppressed_it_is_the_baked_checkpoint(family, folder, checkpoints, loaded, tmp_path):
    neurons = some_neurons(loaded(family))
    baked = hf(bake(checkpoints(family), neurons, tmp_path / "baked"))
    mine = ctl.lm_eval_model(loaded(family), neurons, batch_size=4)
    harness_tasks.assert_equal(
        harness_tasks.asked(mine, folder, TASKS), harness_tasks.asked(baked, folder, TASKS)
    )


def test_suppressing_changes_the_answers(folder, loaded):
    """What the two tests above compare is not the same thing twice."""
    model = loaded("llama")
    plain, without = (
        harness_tasks.asked(ctl.lm_eval_model(model, neurons, batch_size=4), folder, SMALL)
        for neurons in (None, some_neurons(model))
    )
    for task in SMALL:
        assert harness_tasks.answers(plain, task) != harness_tasks.answers(without, task)


def test_a_hooked_transformer_is_asked_alike(folder, checkpoints, tmp_path):
    pytest.importorskip(
        "transformer_lens.HookedTransformer", reason="TransformerLens 4 has no HookedTransformer"
    )
    model = ctl.load_model(checkpoints("llama"), kind="hooked", device="cpu", dtype="float32")
    neurons = some_neurons(model)
    for mine, theirs in (
        (ctl.lm_eval_model(model, batch_size=4), checkpoints("llama")),
        (
            ctl.lm_eval_model(model, neurons, batch_size=4),
            bake(checkpoints("llama"), neurons, tmp_path / "baked"),
        ),
    ):
        found, expected = (harness_tasks.asked(each, folder, SMALL) for each in (mine, hf(theirs)))
        harness_tasks.assert_equal(found, expected)


def test_the_hooks_are_on_the_model_while_it_is_asked_and_at_no_other_time(folder, loaded):
    model = loaded("llama")
    tokens = torch.arange(3, 20)[None]
    before = model(tokens)
    harness_tasks.asked(ctl.lm_eval_model(model, some_neurons(model)), folder, ["choice"])
    assert torch.equal(model(tokens), before)


def test_results_say_which_neurons_and_what_was_done_to_them(loaded):
    model = loaded("llama")
    neurons = some_neurons(model)
    about = ctl.lm_eval_model(model, neurons, scale=2.0).get_model_info()
    assert (about["culnig_neurons"], about["culnig_operation"]) == (neurons.hash, "enhance")
    assert about["culnig_neuron_count"] == len(neurons)
    assert about["culnig_model"] == ctl.describe(model).name


def test_it_leaves_the_model_s_tokenizer_alone(loaded):
    model = loaded("llama")
    assert ctl.lm_eval_model(model).tokenizer is not model.tokenizer


@pytest.mark.parametrize(
    "given, why",
    [
        ({"operation": "remove"}, "operation 'remove' is unknown: use suppress or enhance"),
        ({"operation": "suppress", "scale": 0.5}, "exclude each other"),
        ({"operation": "suppress", "neurons": None}, "name the neurons as well"),
        ({"scale": float("inf")}, "must be a finite number"),
    ],
)
def test_bad_arguments_are_one_line(given, why, loaded, tmp_path):
    from culnig_tl.lm_eval.registered import CulnigLM

    model = loaded("llama")
    with pytest.raises(NeuronError, match=why) as raised:
        CulnigLM(model, **{"neurons": some_neurons(model), **given})
    assert "\n" not in str(raised.value)


def test_without_the_harness_the_error_names_the_extra(loaded, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval.models.huggingface", None)
    monkeypatch.delitem(sys.modules, "culnig_tl.lm_eval.registered", raising=False)
    with pytest.raises(CulnigError, match=r"pip install 'culnig-tl\[lm-eval\]'"):
        ctl.lm_eval_model(loaded("llama"))
    assert ours.harness("json").__name__ == "json"


@pytest.mark.slow
def test_from_the_command_line(folder, checkpoints, loaded, tmp_path):
    """As in the documentation."""
    some_neurons(loaded("llama")).save(tmp_path / "general.parquet")
    model = f"pretrained={checkpoints('llama')},neurons={tmp_path / 'general.parquet'},operation=suppress"
    words = [
        "--model",
        "culnig",
        "--model_args",
        f"{model},dtype=float32",
        "--device",
        "cpu",
        "--batch_size",
        "4",
    ]
    words += ["--tasks", str(folder / "choice.yaml"), "--output_path", str(tmp_path / "out"), "--log_samples"]
    environment = {**os.environ, "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    subprocess.run(
        [sys.executable, "-m", "culnig_tl.lm_eval", *words], check=True, capture_output=True, env=environment
    )
    (file,) = (tmp_path / "out").rglob("results_*.json")
    written = json.loads(file.read_text())
    mine = ctl.lm_eval_model(loaded("llama"), some_neurons(loaded("llama")), batch_size=4)
    expected = harness_tasks.asked(mine, folder, ["choice"])
    assert written["results"]["choice"]["acc,none"] == expected["results"]["choice"]["acc,none"]
    assert written["config"]["culnig_operation"] == "suppress"
