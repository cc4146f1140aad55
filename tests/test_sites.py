"""Sites layer by layer: a hook is a site where it carries what the Hugging Face module's projection makes."""

from __future__ import annotations

import copy

import pytest
import torch
import transformers as hf

from culnig_tl import (
    ablate,
    describe,
    evaluate,
    load_model,
    score_neurons,
    select_general,
    select_random,
    select_rival,
)
from culnig_tl.data.neurons import NeuronSet, Site
from culnig_tl.engine.sites import PROBE_TOKENS, Projection, carries, in_words
from culnig_tl.errors import ModelError, NeuronError

from . import families
from .helpers import largest_error, rows
from .mixed import MIXED, SITES
from .oracles import literal, plain_ablation


@pytest.fixture(scope="module")
def made():
    """Name -> (the plain Hugging Face model, the hooked one)."""
    kept = {}

    def pair(name: str):
        if name not in kept:
            torch.manual_seed(0)
            plain = MIXED[name]().eval()
            for parameter in plain.parameters():
                parameter.data.mul_(4 if parameter.dim() > 1 else 1)
            kept[name] = plain, load_model(hf_model=copy.deepcopy(plain), tokenizer=families.tokenizer())
        return kept[name]

    return pair


@pytest.mark.parametrize("name", MIXED)
def test_sites_are_there_in_the_layers_that_have_them(name, made):
    info = describe(made(name)[1])
    assert {site.value: widths for site, widths in info.by_layer.items()} == SITES[name]
    assert all(info.widths[Site(site)] == max(widths) for site, widths in SITES[name].items())


def test_what_is_left_out_is_said_in_one_line(caplog):
    load_model(hf_model=MIXED["qwen3-moe"](), tokenizer=families.tokenizer())
    lines = [record.message for record in caplog.records if "left out" in record.message]
    assert [line.split(": ")[0] for line in lines] == [
        f"{site} is left out in layers 0, 2 (a mixture of experts, whose neurons are no site)"
        for site in ("mlp.gate", "mlp.post")
    ]


def test_describe_says_which_layers(made):
    assert "mlp.gate 72 in layer 1, mlp.up 72 in layer 1" in str(describe(made("qwen3-moe")[1]))


@pytest.mark.parametrize("name", [name for name in MIXED if name != "lfm2"])
def test_scores_are_those_of_plain_pytorch(name, made):
    plain, model = made(name)
    info, task = describe(model), families.questions(3)
    expected = literal.scores(plain, rows(model.tokenizer, task))
    ours = {key: v for key, v in expected.items() if info.width(Site(key[1]), key[2])}
    assert {key[1:] for key in ours} == {(s.value, i) for s in info.widths for i in info.layers_with(s)}
    scores = score_neurons(model, task, sites=list(info.widths), batch_size=1, progress=False)
    assert largest_error(scores, ours) < 1e-4
    for site, array in scores.arrays.items():
        without = set(range(info.layers)) - set(info.layers_with(site))
        assert not any(array[:, layer].any() for layer in without)


def test_scores_of_attention_that_one_layer_has(made):
    plain, model = made("lfm2")
    task = families.questions(3)
    expected = literal.scores(plain, rows(model.tokenizer, task))
    scores = score_neurons(model, task, sites=["attn.q", "attn.k", "attn.v"], batch_size=1, progress=False)
    assert len(expected) == 9 and largest_error(scores, expected) < 1e-4


@pytest.mark.parametrize(
    "name", ["mixtral", "qwen3-moe", "deepseek-v2", *(["gemma4"] if "gemma4" in MIXED else [])]
)
def test_suppressing_is_that_of_plain_pytorch(name, made):
    plain, model = made(name)
    info = describe(model)
    chosen = [(s, layer, i) for s in info.widths for layer in info.layers_with(s) for i in (0, 3)]
    tokens = torch.arange(5, 25)[None]
    expected = plain_ablation.logits(plain, tokens, [(s.value, layer, i) for s, layer, i in chosen], 0.0)
    with torch.no_grad(), ablate(model, NeuronSet.from_indices(chosen)):
        assert torch.allclose(model(tokens), expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(plain(tokens).logits, expected, atol=1e-3)


def test_what_transformerlens_cannot_hook_is_said_in_one_line():
    """Of Gemma 3n, whose layers share keys and values too, it knows the multimodal class alone."""
    plain = hf.Gemma3nForCausalLM(
        hf.Gemma3nTextConfig(
            **{**families.GATED, "intermediate_size": [72] * 3},
            num_key_value_heads=2,
            head_dim=12,
            vocab_size_per_layer_input=512,
            hidden_size_per_layer_input=8,
            layer_types=["sliding_attention", "full_attention", "full_attention"],
            num_kv_shared_layers=1,
            laurel_rank=8,
            altup_num_inputs=2,
            activation_sparsity_pattern=[0.0] * 3,
        )
    )
    with pytest.raises(ModelError, match="TransformerLens cannot hook 'Gemma3nForCausalLM'") as error:
        load_model(hf_model=plain, tokenizer=families.tokenizer())
    assert "\n" not in str(error.value)


def test_a_layer_without_the_site_has_no_neuron_to_suppress(made):
    with pytest.raises(NeuronError, match=r"neuron \(mlp.gate, 0, 5\) lies outside .* 0 there"):
        with ablate(made("qwen3-moe")[1], NeuronSet.from_indices([("mlp.gate", 0, 5)])):
            pass


@pytest.mark.parametrize("name", ["qwen3-moe", "lfm2", "mixtral"])
def test_only_neurons_that_there_are_are_selected_counted_and_drawn(name, made):
    model = made(name)[1]
    info, task = describe(model), families.questions(6)
    scores = score_neurons(model, task, progress=False)
    general = select_general(scores, top_mlp=0.5, top_attn=0.25)
    attn = sum(info.count(site) for site in scores.sites if site.pool == "attn")
    assert len(general) == info.count(Site.MLP_GATE) // 2 + attn // 4
    for seed in range(5):
        for match in ("count", "layer"):
            drawn = select_random(general, scores, seed=seed, match=match)
            assert len(drawn) == len(general)
            assert all(i < info.width(Site(s), layer) for s, layer, i in drawn.keys())
    assert select_rival(general, scores).counts(["site", "layer"]).equals(general.counts(["site", "layer"]))
    assert len(evaluate(model, task, ablate=general, progress=False).table) == 6


def mlp(width: int = 4) -> list[Projection]:
    given = torch.randn(PROBE_TOKENS, 6)
    gate, up = torch.randn(PROBE_TOKENS, width), torch.randn(PROBE_TOKENS, width)
    down = torch.randn(PROBE_TOKENS, 6)
    return [
        Projection("mlp.gate_proj", given, gate),
        Projection("mlp.up_proj", given, up),
        Projection("mlp.down_proj", gate * up, down),
    ]


def test_gate_and_up_are_not_taken_for_one_another():
    gate, up, down = block = mlp()
    assert carries(Site.MLP_GATE, gate.made, block, 1e-2) and carries(Site.MLP_UP, up.made, block, 1e-2)
    assert not carries(Site.MLP_GATE, up.made, block, 1e-2)
    assert not carries(Site.MLP_UP, gate.made, block, 1e-2)
    assert carries(Site.MLP_POST, down.given, block, 1e-2)
    assert not carries(Site.MLP_POST, gate.made, block, 1e-2)


def test_a_blocks_input_and_a_routers_output_are_no_gate():
    block = [*mlp(), Projection("mlp.gate", torch.randn(PROBE_TOKENS, 6), torch.randn(PROBE_TOKENS, 4))]
    for other in (block[0].given, block[-1].made, torch.randn(PROBE_TOKENS, 4)):
        assert not carries(Site.MLP_GATE, other, block[:-1], 1e-2)
    assert not carries(Site.MLP_GATE, block[-1].made, block[-1:], 1e-2)


def test_slices_of_fused_projections():
    whole = torch.randn(PROBE_TOKENS, 24)
    block = [Projection("attn.c_attn", torch.randn(PROBE_TOKENS, 8), whole)]
    assert carries(Site.ATTN_K, whole[:, 8:16], block, 1e-2)
    by_head = whole.reshape(PROBE_TOKENS, 2, 12)[:, :, 4:8]
    assert carries(Site.ATTN_K, by_head, block, 1e-2)
    assert not carries(Site.ATTN_K, by_head + 1, block, 1e-2)
    other = [Projection("attn.o_proj", torch.randn(PROBE_TOKENS, 8), whole[:, :8])]
    assert not carries(Site.ATTN_K, whole[:, :8], other, 1e-2)


def test_layers_in_words():
    assert in_words([3]) == "layer 3" and in_words([0, 1, 2, 5, 7, 8]) == "layers 0 to 2, 5, 7 to 8"
