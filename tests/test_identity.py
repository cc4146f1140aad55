"""What a stored result may stand for: one neuron, one question, one weight, and it may not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from culnig_tl import NeuronSet, ablate, evaluate, load_model, score_neurons
from culnig_tl.engine.checkpoint import Saving
from culnig_tl.engine.identity import differing, model_identity, weights_hash, wording_hash
from culnig_tl.errors import ScoreError
from culnig_tl.method.ablation import mean_outputs
from culnig_tl.run import identity

from . import families
from .processes import forked, kill_self


@pytest.fixture
def model(checkpoints):
    """One that the test may change."""
    return load_model(checkpoints("llama"), dtype="float32", device="cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_any_single_bit_of_any_weight_shows(dtype, monkeypatch):
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3)).to(dtype)
    seen = {weights_hash(plain)}
    with monkeypatch.context() as patch:
        patch.setattr(identity, "_CHUNK", {"cpu": 3})
        assert weights_hash(plain) in seen, "the same in other portions"
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    for parameter in plain.parameters():
        for at in range(parameter.numel()):
            bits = parameter.detach().view(-1).view(kind)
            for bit in (0, 8 * dtype.itemsize - 1):
                before = bits[at].item()
                bits[at] = bits[at] ^ (torch.ones((), dtype=kind) << bit)
                seen.add(weights_hash(plain))
                bits[at] = before
    assert len(seen) == 1 + 2 * sum(p.numel() for p in plain.parameters())
    with torch.no_grad():
        first, second = plain[0].weight[0, 0].clone(), plain[0].weight[0, 1].clone()
        plain[0].weight[0, 0], plain[0].weight[0, 1] = second, first
    assert weights_hash(plain) not in seen, "two weights that have changed places"


def test_each_part_counts(model, checkpoints, task):
    """A name, and what changes it."""
    of_model = model_identity(model)
    neurons = NeuronSet.from_indices([("mlp.gate", 0, 3), ("attn.v", 2, 1)])
    other = NeuronSet.from_indices([("mlp.gate", 0, 3), ("attn.v", 2, 2)])
    base = identity.identity(of_model, neurons=neurons, operation="suppress")
    assert differing(base, identity.identity(of_model, neurons=neurons, operation="suppress")) is None
    changed = {
        "neurons": identity.identity(of_model, neurons=other, operation="suppress"),
        "operation": identity.identity(of_model, neurons=neurons, operation="enhance"),
        "means": identity.identity(
            of_model, neurons=neurons, operation="suppress", means=mean_outputs(model, task, progress=False)
        ),
        "version": {**base, "version": "0.0.0"},
        "sites": identity.identity(of_model, neurons=neurons, operation="suppress", sites=["attn.v"]),
        "dtype": identity.identity({**of_model, "dtype": "bfloat16"}, neurons=neurons, operation="suppress"),
    }
    for part, key in changed.items():
        assert (differing(base, key) or "").startswith(f"{part} is"), part
    assert differing(base, None) == "it does not say what it was made from"
    assert identity.identity(of_model, operation="suppress") == identity.identity(of_model), (
        "no neurons, no operation"
    )

    model.tokenizer.chat_template = families.CHAT_TEMPLATE
    assert wording_hash(model.tokenizer) != of_model["wording"]
    with torch.no_grad():
        next(model.parameters()).view(-1)[11] += 1e-6
    again = model_identity(model)
    assert again["weights"] != of_model["weights"] and again["model"] == of_model["model"], (
        "changed after it was loaded"
    )
    assert load_model(checkpoints("llama", seed=1)).cfg is not None
    assert model_identity(load_model(checkpoints("llama", seed=1)))["model"] != of_model["model"]


def begun(tmp_path, model, task, **how) -> None:
    """Leaves the state of an evaluation of which two batches were saved."""
    seen = []

    def advance(count: int) -> None:
        seen.extend([count] if count else [])
        if len(seen) == 3:
            kill_self()

    assert (
        forked(
            lambda: evaluate(
                model, task, batch_size=1, saving=Saving(tmp_path / "state", every=0), progress=advance, **how
            )
        )
        < 0
    )


def goes_on(tmp_path, model, task, **how) -> bool:
    done = []
    evaluate(model, task, batch_size=1, saving=Saving(tmp_path / "state"), progress=done.append, **how)
    return done[0] > 0


def test_one_neuron_one_question_one_weight_misses(model, task, tmp_path):
    neurons = NeuronSet.from_indices([("mlp.gate", 0, 3), ("attn.v", 2, 1)])
    begun(tmp_path, model, task, neurons=neurons)
    assert goes_on(
        tmp_path, model, task, neurons=NeuronSet.from_indices([("attn.v", 2, 1), ("mlp.gate", 0, 3)])
    ), "the same neurons"
    one_more = NeuronSet.from_indices([("mlp.gate", 0, 3), ("mlp.gate", 0, 4), ("attn.v", 2, 1)])
    changed = replace(
        task,
        questions=(replace(task[0], prompt=task[0].prompt.replace("Japan", "Spain")), *task.questions[1:]),
    )
    assert not goes_on(tmp_path, model, task, neurons=one_more)
    assert not goes_on(tmp_path, model, task), "nothing switched off"
    assert not goes_on(tmp_path, model, task, neurons=neurons, scale=0.5)
    assert not goes_on(tmp_path, model, changed, neurons=neurons)
    begun(tmp_path, model, task, neurons=neurons)
    with torch.no_grad():
        list(model.parameters())[5].view(-1)[2] *= 1.001
    assert not goes_on(tmp_path, model, task, neurons=neurons)


def test_an_ablated_model_is_never_served_the_baselines_answers(model, task, tmp_path):
    begun(tmp_path, model, task)
    neurons = NeuronSet.from_indices([("mlp.gate", layer, n) for layer in range(3) for n in range(60)])
    ablated = evaluate(model, task, neurons=neurons, saving=Saving(tmp_path / "state"), progress=False)
    assert (
        ablated.table["p_answer"].tolist()
        == evaluate(model, task, neurons=neurons, progress=False).table["p_answer"].tolist()
    )
    assert (
        ablated.table["p_answer"].tolist() != evaluate(model, task, progress=False).table["p_answer"].tolist()
    )
    with ablate(model, neurons):  # by hooks that no key can know
        with pytest.raises(
            ScoreError,
            match=r"the model has hooks on it \(blocks\.0\.mlp\.\S+\): what it answers cannot be kept",
        ):
            evaluate(model, task, saving=Saving(tmp_path / "state"), progress=False)
        with pytest.raises(ScoreError, match="cannot be kept in a folder"):
            score_neurons(model, task, saving=Saving(tmp_path / "state"), progress=False)
        evaluate(model, task, progress=False)  # without a folder it may be asked
