"""Modules: counted, ranked, chosen, and named for other trainers."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import permutations

import pytest
import torch
import transformers as hf

from culnig_tl import NeuronSet, load_model
from culnig_tl.errors import FineTuningError, NeuronError
from culnig_tl.finetuning.modules import (
    Module,
    ModuleRanking,
    choose_modules,
    export_freeze_list,
    list_modules,
    rank_modules,
)
from culnig_tl.finetuning.weights import place_of

from . import families
from .helpers import plain_model

COUNTS = {
    ("mlp.gate", 1): 9,
    ("mlp.up", 1): 2,
    ("attn.v", 0): 5,
    ("attn.q", 0): 1,
    ("mlp.gate", 0): 3,
    ("attn.k", 2): 1,
}
NEURONS = NeuronSet.from_indices(
    [(site, layer, i) for (site, layer), count in COUNTS.items() for i in range(count)]
)


def made(
    counts: dict[str, int], sizes=lambda kind: 30 if kind == "mlp" else 10, extra: int = 0
) -> ModuleRanking:
    """A ranking by hand: "mlp.0" -> culture-general neurons."""
    modules = [Module(int(name[-1]), name[:-2], sizes(name[:-2]), n) for name, n in counts.items()]  # type: ignore[arg-type]
    modules.sort(key=lambda m: (-m.neurons, m.layer, m.kind != "mlp"))
    return ModuleRanking(
        tuple(modules), sum(m.parameters for m in modules) + extra, 1 + max(m.layer for m in modules)
    )


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_counts_are_those_of_the_plain_model(family, checkpoints):
    folder = checkpoints(family)
    ranking = rank_modules(NEURONS, folder)
    plain = plain_model(folder)
    language = plain.model.language_model if family == "gemma3" else plain
    total = sum(p.numel() for p in language.parameters())  # tied weights are one parameter here
    assert ranking.total == total
    blocks = {
        "gpt2": lambda: plain.transformer.h,
        "gpt-neox": lambda: plain.gpt_neox.layers,
        "gemma3": lambda: language.layers,
    }
    for layer, block in enumerate(blocks.get(family, lambda: plain.model.layers)()):
        parts = dict(block.named_children())
        attention = next(part for name, part in parts.items() if name in ("self_attn", "attn", "attention"))
        for kind, part in (("mlp", parts["mlp"]), ("attn", attention)):
            module = next(m for m in ranking if (m.layer, m.kind) == (layer, kind))
            assert module.parameters == sum(p.numel() for p in part.parameters())
            pool = [
                count for (site, where), count in COUNTS.items() if where == layer and site.startswith(kind)
            ]
            assert module.neurons == sum(pool)
    assert [m.name for m in ranking][:4] == ["mlp.1", "attn.0", "mlp.0", "attn.2"]
    assert [m.name for m in ranking][4:6] == ["attn.1", "mlp.2"]  # equals: the shallower first


def test_every_form_of_a_model_gives_the_same(checkpoints):
    folder = checkpoints("phi3")
    by_folder = rank_modules(NEURONS, folder)
    assert rank_modules(NEURONS, str(folder)) == by_folder
    assert rank_modules(NEURONS, plain_model(folder)) == by_folder
    assert rank_modules(NEURONS, load_model(folder, device="cpu")) == by_folder
    assert [m.name for m in list_modules(folder)] == ["mlp.0", "attn.0", "mlp.1", "attn.1", "mlp.2", "attn.2"]


def test_ten_percent_of_gemma_are_the_seven_mlps_of_the_paper():
    config = hf.Gemma3TextConfig(
        hidden_size=3840,
        intermediate_size=15360,
        num_hidden_layers=48,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=256,
        vocab_size=262_208,
    )
    with torch.device("meta"):
        model = hf.AutoModelForCausalLM.from_config(config)
    order = (13, 12, 14, 10, 11, 7, 9, 8, 15)
    neurons = NeuronSet.from_indices(
        [("mlp.gate", layer, i) for place, layer in enumerate(order) for i in range(90 - 9 * place)]
    )
    ranking = rank_modules(neurons, model)
    assert ranking.total == 11_766_034_176
    top = choose_modules(ranking, "top", share=0.10)
    assert [m.name for m in top] == [f"mlp.{layer}" for layer in order[:7]]
    for how in ("bottom", "matched", "random"):
        group = choose_modules(ranking, how, share=0.10, seed=3)
        assert top.parameters <= group.parameters < top.parameters + min(m.parameters for m in ranking), how
        assert 0.10 <= group.share < 0.11


RANKED = made({"mlp.0": 9, "attn.0": 4, "mlp.1": 3, "attn.1": 1, "mlp.2": 0, "attn.2": 0}, extra=80)
"""200 parameters in all."""


@pytest.mark.parametrize(("share", "count"), [(0.01, 1), (0.15, 1), (0.16, 2), (0.2, 2), (0.6, 6)])
def test_top_is_the_shortest_start_that_reaches_the_share(share, count):
    assert list(choose_modules(RANKED, "top", share=share)) == list(RANKED)[:count]


def test_a_group_says_what_it_holds():
    group = choose_modules(RANKED, "top", share=0.2)
    assert (group.parameters, group.neurons, group.share, group.how) == (40, 13, 0.2, "top")
    assert "top: mlp.0, attn.0 (40 parameters, 20.0%; 13 culture-general neurons" in str(group)
    assert list(group.table()["module"]) == ["mlp.0", "attn.0"]


def test_bottom_holds_as_much_as_top():
    """The MLP would overshoot: 10 + 30 parameters against top's 30."""
    bottom = choose_modules(RANKED, "bottom", share=0.15)
    assert [m.name for m in bottom] == ["attn.2", "attn.1", "attn.0"]


def test_random_holds_as_much_as_top_and_differs_by_seed():
    drawn = {choose_modules(RANKED, "random", share=0.15, seed=seed) for seed in range(30)}
    assert len(drawn) > 3 and {group.parameters for group in drawn} == {30}
    assert choose_modules(RANKED, "random", share=0.15, seed=7) in drawn


def test_matched_is_the_cheapest_of_all_assignments():
    mlps = {f"mlp.{layer}": n for layer, n in enumerate((20, 16, 9, 1, 0, 7))}
    ranking = made({**mlps, **{f"attn.{layer}": n for layer, n in enumerate((12, 2, 0, 9))}})
    top = choose_modules(ranking, "top", share=0.4)
    assert [m.name for m in top] == ["mlp.0", "mlp.1", "attn.0", "mlp.2"]
    matched = choose_modules(ranking, "matched", share=0.4)
    assert matched.parameters == top.parameters and not {m.name for m in top} & {m.name for m in matched}
    usual = sum(m.neurons for m in top) / len(top)

    def cost(pairs):
        return sum(abs(a.layer - b.layer) / ranking.layers + b.neurons / usual for a, b in pairs)

    for kind in ("mlp", "attn"):
        mine = [m for m in top if m.kind == kind]
        others = [m for m in ranking if m.kind == kind and m not in list(top)]
        orders = list(permutations(others, len(mine)))
        best = min(cost(zip(mine, order)) for order in orders)
        cheapest = [set(order) for order in orders if cost(zip(mine, order)) <= best + 1e-9]
        assert {m for m in matched if m.kind == kind} in cheapest


def test_modules_are_chosen_by_name():
    assert [m.name for m in choose_modules(RANKED, ["attn.1", "mlp.0"])] == ["attn.1", "mlp.0"]


@pytest.mark.parametrize(
    ("how", "share", "message"),
    [
        (["mlp.7"], 0.1, "no module 'mlp.7'.*0 to 2"),
        (["layer 7"], 0.1, "names like mlp.0"),
        ([], 0.1, "at least one"),
        (["mlp.0", "mlp.0"], 0.1, "none twice"),
        ("best", 0.1, "unknown choice of modules 'best': use top, bottom, matched, random"),
        ("top", 0.9, "90.0% cannot be reached.*60.0%"),
        ("top", 10, "10% is 0.1"),
        ("top", 0, "between 0 and 1"),
        ("matched", 0.5, "too large for matched modules: top takes 3 mlp modules, 0 are left"),
    ],
)
def test_what_cannot_be_chosen(how, share, message):
    with pytest.raises(FineTuningError, match=message):
        choose_modules(RANKED, how, share=share)


@pytest.mark.parametrize(
    ("neurons", "message"), [([("mlp.gate", 7, 0)], "mlp of layer 7, the model has 3 layers"), ([], "empty")]
)
def test_a_set_that_cannot_rank_the_modules(neurons, message, checkpoints):
    with pytest.raises(NeuronError, match=message):
        rank_modules(NeuronSet.from_indices(neurons), checkpoints("llama"))


def test_a_model_without_known_modules():
    with pytest.raises(FineTuningError, match="Linear has no MLP or attention modules"):
        rank_modules(NEURONS, torch.nn.Linear(2, 2))


def test_a_module_that_the_model_lacks_cannot_be_spared(checkpoints):
    with pytest.raises(FineTuningError, match="no mlp in layer 9"):
        export_freeze_list([Module(9, "mlp", 1)], checkpoints("llama"))


SPARED = [Module(1, "mlp", 1), Module(0, "attn", 1)]


@pytest.mark.parametrize("family", ["llama", "phi3", "gemma3", "gpt2"])
def test_a_freeze_list_names_the_parameters_of_the_spared_modules(family, checkpoints):
    folder = checkpoints(family)
    freeze, plain = export_freeze_list(SPARED, folder), plain_model(folder)
    places = {name: place_of(name) for name, _ in plain.named_parameters()}
    spared = {name for name, place in places.items() if place and place[:2] in [(1, "mlp"), (0, "attn")]}
    assert set(freeze.parameters) == spared and not any("vision" in name for name in spared)
    assert export_freeze_list(SPARED, plain) == freeze


@pytest.mark.parametrize("family", ["llama", "phi3", "gemma3", "gpt2"])
@pytest.mark.parametrize("by", ["target", "exclude"])
def test_peft_takes_the_freeze_list(family, by, checkpoints):
    from peft import LoraConfig, get_peft_model

    folder = checkpoints(family)
    freeze = export_freeze_list(SPARED, folder)
    options = {
        "target": {"target_modules": list(freeze.target_modules)},
        "exclude": {"target_modules": "all-linear", "exclude_modules": list(freeze.exclude_modules)},
    }[by]
    net = get_peft_model(plain_model(folder), LoraConfig(r=2, **options))  # type: ignore[arg-type]
    adapted = {
        name.removeprefix("base_model.model.").partition(".lora_")[0]
        for name, p in net.named_parameters()
        if p.requires_grad
    }
    assert not adapted & set(freeze.exclude_modules) and set(freeze.target_modules) <= adapted


def test_a_freeze_list_is_saved_as_json_or_text(checkpoints, tmp_path):
    freeze = export_freeze_list(SPARED, checkpoints("llama"))
    saved = json.loads(freeze.save(tmp_path / "freeze.json").read_text())
    assert {key: tuple(names) for key, names in saved.items()} == asdict(freeze)
    assert freeze.save(tmp_path / "freeze.txt").read_text().split() == list(freeze.parameters)
    assert f"{len(freeze.parameters)} parameters" in str(freeze)
