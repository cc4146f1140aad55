"""Ablation against plain hooks on the Hugging Face modules, and what must hold of the context manager."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from culnig_tl import NeuronSet, ablate, ablation_hooks, describe, mean_outputs
from culnig_tl.errors import NeuronError, ScoreError

from . import families
from .builders import TOKENS, run, some_neurons
from .helpers import plain_model
from .oracles import plain_ablation


@pytest.mark.parametrize("family", list(families.FAMILIES))
@pytest.mark.parametrize("scale", [0.0, 2.0])
def test_equals_plain_hooks_on_the_modules(family, scale, loaded, checkpoints):
    model, plain = loaded(family), plain_model(checkpoints(family))
    info = describe(model)
    one_by_one = [[site] for site in info.widths] if family in ("phi3", "gpt-neox") else []
    for sites in [*one_by_one, list(info.widths)]:
        neurons = some_neurons(model, sites=sites)
        expected = plain_ablation.logits(plain, TOKENS, neurons.keys(), scale)
        with ablate(model, neurons, scale=scale):
            mine = run(model)
        largest = expected.abs().max()
        assert float((mine - expected).abs().max() / largest) < 1e-5, sites
        assert float((expected - run(model)).abs().max() / largest) > 1e-3, "the ablation did something"


def test_the_toy_equals_plain_hooks():
    from importlib import resources

    from culnig_tl import load_model

    folder = resources.files("culnig_tl") / "toy" / "model"
    if not (folder / "config.json").is_file():
        pytest.skip("the toy is not trained")
    model, plain = load_model("toy", device="cpu"), plain_model(folder)
    neurons = some_neurons(model, share=0.05)
    tokens = TOKENS % 50
    with ablate(model, neurons):
        mine = run(model, tokens)
    torch.testing.assert_close(
        mine, plain_ablation.logits(plain, tokens, neurons.keys(), 0.0), atol=1e-5, rtol=1e-5
    )


def test_the_empty_set_is_the_baseline_bit_for_bit(loaded):
    model = loaded("llama")
    with ablate(model, NeuronSet.from_indices([])):
        assert torch.equal(run(model), run(model))
        inside = run(model)
    assert torch.equal(inside, run(model))


def test_nothing_remains_also_after_an_exception(loaded):
    model = loaded("qwen3")
    before, neurons = run(model), some_neurons(model)
    with pytest.raises(ZeroDivisionError), ablate(model, neurons), ablate(model, neurons, scale=2.0):
        1 / 0  # noqa: B018
    assert torch.equal(run(model), before)
    assert not any(point.fwd_hooks or point.bwd_hooks for point in model.hook_dict.values())


def test_nested_contexts_compose(loaded):
    model = loaded("llama")
    first, second = some_neurons(model, seed=1), some_neurons(model, seed=2)
    with ablate(model, first), ablate(model, second):
        nested = run(model)
    with ablate(model, first):
        with ablate(model, second):
            pass
        alone = run(model)
    with ablate(model, first | second):
        together = run(model)
    with ablate(model, first):
        expected = run(model)
    torch.testing.assert_close(nested, together)
    assert torch.equal(alone, expected), "leaving the inner context leaves the outer one in force"


def test_enhance_then_half_is_the_baseline_and_suppress_twice_is_once(loaded):
    model, neurons = loaded("llama"), some_neurons(loaded("llama"))
    with ablate(model, neurons, scale=2.0), ablate(model, neurons, scale=0.5):
        assert torch.equal(run(model), run(model))
        back = run(model)
    torch.testing.assert_close(back, run(model), atol=0, rtol=0)
    with ablate(model, neurons):
        once = run(model)
    with ablate(model, neurons), ablate(model, neurons):
        assert torch.equal(run(model), once)


@pytest.mark.parametrize("family", ["llama", "gemma3-text", "phi3", "gpt2"])
def test_works_under_generate_and_the_hooked_calls(family, loaded):
    model = loaded(family)
    neurons = some_neurons(model, share=0.3)
    with ablate(model, neurons):
        expected = run(model)
        tokens = TOKENS
        for _ in range(4):  # greedy, without a cache, by hand
            tokens = torch.cat([tokens, run(model, tokens)[:, -1].argmax(-1)[:, None]], dim=1)
        generated = model.generate(
            TOKENS, max_new_tokens=4, do_sample=False, stop_at_eos=False, verbose=False, return_type="tokens"
        )
        with torch.no_grad():
            cached, cache = model.run_with_cache(TOKENS)
            seen = []
            hooked = model.run_with_hooks(
                TOKENS, fwd_hooks=[("blocks.0.mlp.hook_pre", lambda t, hook: seen.append(t.clone()))]
            )
        assert torch.equal(run(model), expected), "run_with_hooks takes only its own hooks away"
    torch.testing.assert_close(cached, expected)
    torch.testing.assert_close(hooked, expected)
    assert generated.tolist() == tokens.tolist()
    gate = [i for site, layer, i in neurons.keys() if (site, layer) == ("mlp.gate", 0)]
    assert (seen[0][..., gate] == 0).all() and (cache["blocks.0.mlp.hook_pre"][..., gate] == 0).all()


def test_bfloat16_keeps_the_activation_dtype(loaded):
    model = loaded("llama", dtype="bfloat16")
    with ablate(model, some_neurons(model)):
        assert run(model).dtype == torch.bfloat16


def test_means_put_the_task_mean_in_place(loaded):
    model, task = loaded("llama"), families.questions(5)
    means = mean_outputs(model, task, batch_size=3, progress=False)
    alone = mean_outputs(model, task, batch_size=1, progress=False)
    for site in means.arrays:
        np.testing.assert_allclose(
            means.arrays[site], alone.arrays[site], atol=1e-5, err_msg="padding takes no part"
        )
    by_hand = []
    for question in task:
        tokens = torch.tensor([model.tokenizer(question.prompt)["input_ids"]])
        with torch.no_grad():
            by_hand.append(model.run_with_cache(tokens)[1]["blocks.1.mlp.hook_pre"][0])
    np.testing.assert_allclose(means.arrays["mlp.gate"][1], torch.cat(by_hand).mean(0), atol=1e-5)

    neurons = NeuronSet.from_indices([("mlp.gate", 1, 3), ("attn.v", 0, 2)])
    with ablate(model, neurons, to=means), torch.no_grad():
        _, cache = model.run_with_cache(TOKENS)
    np.testing.assert_allclose(
        cache["blocks.1.mlp.hook_pre"][0, :, 3], means.arrays["mlp.gate"][1, 3], rtol=1e-6
    )
    np.testing.assert_allclose(
        cache["blocks.0.attn.hook_v"].flatten(2)[0, :, 2], means.arrays["attn.v"][0, 2], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("mlp.gate", 9, 0)], "lies outside"),
        ([("attn.k", 0, 10_000)], "of another model"),
        ([("mlp.gate", 0, 1), ("mlp.gate", 0, 1)], "occurs twice"),
        ([("mlp.sideways", 0, 1)], "unknown site"),
    ],
)
def test_a_wrong_set_is_a_clear_error(rows, message, loaded):
    model = loaded("llama")
    with pytest.raises(NeuronError, match=message), ablate(model, NeuronSet.from_indices(rows)):
        pass


def test_a_model_without_the_site_says_so(loaded):
    model = loaded("gpt2")
    with (
        pytest.raises(NeuronError, match="mlp.up"),
        ablate(model, NeuronSet.from_indices([("mlp.up", 0, 0)])),
    ):
        pass
    with pytest.raises(ScoreError, match="mlp.up"):
        mean_outputs(model, families.questions(2), sites=["mlp.up"], progress=False)


def test_a_scale_that_is_not_finite_is_a_clear_error(loaded):
    with (
        pytest.raises(NeuronError, match="finite"),
        ablate(loaded("llama"), NeuronSet.from_indices([]), scale=float("nan")),
    ):
        pass


def test_scale_and_means_exclude_each_other(loaded):
    model, one = loaded("llama"), NeuronSet.from_indices([("mlp.gate", 0, 0)])
    means = mean_outputs(model, families.questions(2), sites=["mlp.gate"], progress=False)
    with pytest.raises(NeuronError, match="exclude each other"), ablate(model, one, scale=0.5, to=means):
        pass


def test_means_of_other_sites_are_a_clear_error(loaded):
    model, one = loaded("llama"), NeuronSet.from_indices([("attn.v", 0, 0)])
    means = mean_outputs(model, families.questions(2), sites=["mlp.gate"], progress=False)
    with pytest.raises(NeuronError, match="no means of attn.v"), ablate(model, one, to=means):
        pass


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("in_place", [False, True])
def test_the_hooks_are_those_of_run_with_hooks(family, in_place, loaded):
    model = loaded(family)
    neurons = some_neurons(model)
    with ablate(model, neurons):
        expected = run(model)
    hooks = ablation_hooks(model, neurons, in_place=in_place)
    with torch.no_grad():
        assert torch.equal(model.run_with_hooks(TOKENS, fwd_hooks=hooks), expected)
