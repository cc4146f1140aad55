"""What a stored result may stand for: one neuron, one question, one weight, and it may not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial

import pytest
import torch
import transformers as hf

from culnig_tl import NeuronSet, ablate, evaluate, load_model, mean_outputs, score_neurons
from culnig_tl.engine import identity
from culnig_tl.engine.checkpoint import Checkpoint
from culnig_tl.engine.identity import differing, model_identity, weights_hash, wording_hash
from culnig_tl.errors import ScoreError

from . import families
from .processes import counting, forked, kill_self


@pytest.fixture
def model(checkpoints):
    """One that the test may change."""
    return load_model(checkpoints("llama"), dtype="float32", device="cpu")


class Plain(torch.nn.Sequential):
    """A few weights in what passes for a hooked model."""

    cfg = None
    hook_dict: dict[str, object] = {}

    def hooks(self, fwd_hooks=(), bwd_hooks=()):
        raise NotImplementedError


def plain(dtype) -> Plain:
    torch.manual_seed(0)
    return Plain(torch.nn.Linear(7, 5), torch.nn.Linear(5, 3)).to(dtype)


DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])


@DTYPES
def test_any_single_bit_of_any_weight_shows(dtype):
    model = plain(dtype)
    seen = {weights_hash(model)}
    kind = {2: torch.int16, 4: torch.int32, 8: torch.int64}[dtype.itemsize]
    for parameter in model.parameters():
        for at in range(parameter.numel()):
            bits = parameter.detach().view(-1).view(kind)
            for bit in (0, 8 * dtype.itemsize - 1):
                before = bits[at].item()
                bits[at] = bits[at] ^ (torch.ones((), dtype=kind) << bit)
                seen.add(weights_hash(model))
                bits[at] = before
    assert len(seen) == 1 + 2 * sum(p.numel() for p in model.parameters())


@DTYPES
def test_two_weights_that_change_places_show(dtype):
    model = plain(dtype)
    before = weights_hash(model)
    with torch.no_grad():
        row = model[0].weight[0]
        row[:2] = row[:2].flip(0).clone()
    assert weights_hash(model) != before


@DTYPES
def test_the_hash_does_not_depend_on_how_many_weights_are_taken_at_a_time(dtype, monkeypatch):
    before = weights_hash(plain(dtype))
    monkeypatch.setattr(identity, "_CHUNK", {"cpu": 3})
    assert weights_hash(plain(dtype)) == before


NEURONS = NeuronSet.from_indices([("mlp.gate", 0, 3), ("attn.v", 2, 1)])
OTHERS = NeuronSet.from_indices([("mlp.gate", 0, 3), ("attn.v", 2, 2)])


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("neurons", {"neurons": OTHERS}),
        ("operation", {"operation": "enhance"}),
        ("means", {}),
        ("sites", {"sites": ["attn.v"]}),
        ("dtype", {}),
        ("version", {}),
    ],
)
def test_each_part_counts(part, change, model, task, monkeypatch):
    """A part, and what changes it."""
    of_model = model_identity(model)
    given = {"neurons": NEURONS, "operation": "suppress"}
    base = identity.identity(of_model, **given)
    if part == "means":
        change = {"means": mean_outputs(model, task, progress=False)}
    if part == "dtype":
        of_model = {**of_model, "dtype": "bfloat16"}
    if part == "version":
        monkeypatch.setattr(identity, "__version__", "0.0.0")
    assert (differing(base, identity.identity(of_model, **{**given, **change})) or "").startswith(
        f"{part} is"
    )


def test_the_same_work_has_the_same_identity(model):
    mine, theirs = (
        identity.identity(model_identity(model), neurons=NEURONS, operation="suppress") for _ in "12"
    )
    assert differing(mine, theirs) is None


def test_an_operation_on_no_neurons_is_none(model):
    of_model = model_identity(model)
    assert identity.identity(of_model, operation="suppress") == identity.identity(of_model)


def test_what_has_no_identity_is_of_other_work(model):
    assert differing(model_identity(model), None) == "it does not say what it was made from"


def test_a_chat_template_is_part_of_the_wording(model):
    before = wording_hash(model.tokenizer)
    model.tokenizer.chat_template = families.CHAT_TEMPLATE
    assert wording_hash(model.tokenizer) != before


def test_a_weight_that_is_changed_after_loading_counts(model):
    before = model_identity(model)
    with torch.no_grad():
        next(model.parameters()).view(-1)[11] += 1e-6
    after = model_identity(model)
    assert (after["weights"] != before["weights"], after["model"] == before["model"]) == (True, True)


def test_another_checkpoint_is_another_model(model, checkpoints):
    other = load_model(checkpoints("llama", seed=1), device="cpu")
    assert model_identity(other)["model"] != model_identity(model)["model"]


# --------------------------------------------------------------------------- what a checkpoint is resumed for


@pytest.fixture
def begun(model, task, tmp_path):
    """The checkpoint of an evaluation with NEURONS ablated, of which two batches were saved."""
    path = tmp_path / "state"

    def begin() -> None:
        checkpoint, bar = Checkpoint(path, every=0), counting(3, kill_self)
        evaluate(model, task, ablate=NEURONS, batch_size=1, checkpoint=checkpoint, progress=bar)

    assert forked(begin) < 0
    return path


def resumes(path, model, task, **options) -> bool:
    done: list[int] = []
    evaluate(model, task, batch_size=1, checkpoint=Checkpoint(path), progress=done.append, **options)
    return done[0] > 0


def test_the_same_neurons_in_another_order_are_the_same_work(begun, model, task):
    turned = NeuronSet.from_indices([("attn.v", 2, 1), ("mlp.gate", 0, 3)])
    assert resumes(begun, model, task, ablate=turned)


@pytest.mark.parametrize(
    "options",
    [
        {"ablate": NeuronSet.from_indices([("mlp.gate", 0, 3), ("mlp.gate", 0, 4), ("attn.v", 2, 1)])},
        {},
        {"ablate": NEURONS, "scale": 0.5},
    ],
    ids=["one neuron more", "none", "another scale"],
)
def test_another_ablation_is_other_work(options, begun, model, task):
    assert not resumes(begun, model, task, **options)


def test_one_changed_question_is_other_work(begun, model, task):
    changed = replace(task[0], prompt=task[0].prompt.replace("Japan", "Spain"))
    other = replace(task, questions=(changed, *task.questions[1:]))
    assert not resumes(begun, model, other, ablate=NEURONS)


def test_one_changed_weight_is_other_work(begun, model, task):
    with torch.no_grad():
        list(model.parameters())[5].view(-1)[2] *= 1.001
    assert not resumes(begun, model, task, ablate=NEURONS)


def test_an_unchanged_model_is_never_served_an_ablated_ones_answers(begun, model, task):
    resumed, fresh = (
        evaluate(model, task, checkpoint=where, progress=False).table["p_answer"].tolist()
        for where in (Checkpoint(begun), None)
    )
    assert resumed == fresh


@pytest.mark.parametrize("work", [evaluate, score_neurons])
def test_work_with_hooks_that_no_key_can_know_is_not_kept(work, model, task, tmp_path):
    told = r"the model has hooks on it \(blocks\.0\.mlp\.\S+\): what it answers cannot be kept"
    with ablate(model, NEURONS), pytest.raises(ScoreError, match=told):
        work(model, task, checkpoint=tmp_path / "state", progress=False)


def test_a_model_with_hooks_may_be_asked_without_a_checkpoint(model, task):
    with ablate(model, NEURONS):
        hooked = evaluate(model, task, progress=False).table["p_answer"].tolist()
    ablated = evaluate(model, task, ablate=NEURONS, progress=False).table["p_answer"].tolist()
    assert hooked == pytest.approx(ablated, rel=1e-5)


# ----------------------------------------------------------------------- what is no weight and counts as well


def test_another_number_in_the_configuration_is_other_work(model, checkpoints, tmp_path):
    folder = tmp_path / "other"
    shutil.copytree(checkpoints("llama"), folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "rms_norm_eps": 0.5}))
    weights = load_model(folder, dtype="float32", device="cpu")
    mine, theirs = model_identity(model), model_identity(weights)
    assert (mine["weights"], mine["settings"] != theirs["settings"]) == (theirs["weights"], True)


def in_memory(checkpoints, **changed):
    """A model that the user made, and changed: nobody knows its revision."""
    config = hf.AutoConfig.from_pretrained(checkpoints("llama"))
    config.update(changed)
    plain = hf.AutoModelForCausalLM.from_pretrained(checkpoints("llama"), config=config, dtype=torch.float32)
    return load_model(hf_model=plain, tokenizer=families.tokenizer())


def test_a_model_in_memory_is_known_by_its_configuration(checkpoints):
    mine, theirs = (model_identity(in_memory(checkpoints, rms_norm_eps=eps)) for eps in (1e-6, 0.5))
    assert (mine["model"], mine["settings"] != theirs["settings"]) == (None, True)


def test_a_number_that_is_changed_after_loading_counts(model):
    before = model_identity(model)
    norm = next(m for m in model.modules() if hasattr(m, "variance_epsilon"))
    norm.variance_epsilon *= 2
    assert differing(before, model_identity(model)).startswith("settings is")


def test_a_buffer_counts(model):
    before = model_identity(model)
    next(model.buffers()).mul_(1.5)
    assert differing(before, model_identity(model)).startswith("weights is")


def test_attention_counts(model):
    before = model_identity(model)
    model.original_model.set_attn_implementation("sdpa")
    assert differing(before, model_identity(model)).startswith(("settings is", "attention is"))


@pytest.mark.parametrize("family", list(families.FAMILIES))
def test_a_model_that_has_worked_and_one_that_moved_are_the_same(family, checkpoints, task, tmp_path):
    folder = checkpoints(family)
    used = load_model(folder, dtype="float32", device="cpu")
    before = model_identity(used)
    score_neurons(used, task[:2], progress=False)
    moved = load_model(shutil.copytree(folder, tmp_path / "moved"), dtype="float32", device="cpu")
    assert model_identity(used) == before == model_identity(moved)


HOOKS = {
    "a hook of TransformerLens": lambda model: model.add_hook("blocks.1.hook_out", lambda value, hook: None),
    "a hook of PyTorch": lambda model: model.blocks[1].register_forward_hook(lambda *given: None),
    "a hook before a module": lambda model: model.blocks[1].register_forward_pre_hook(lambda *given: None),
    "a hook inside": lambda model: model.original_model.model.norm.register_forward_hook(lambda *g: None),
    "another forward": lambda model: setattr(model.original_model.model.norm, "forward", lambda x: x),
    "a part of another forward": lambda model: setattr(
        model.original_model.lm_head, "forward", partial(lambda x, y: y, 1)
    ),
}


@pytest.mark.parametrize("kind", HOOKS)
def test_what_a_model_with_hooks_answers_is_not_kept(kind, model, task, tmp_path):
    HOOKS[kind](model)
    with pytest.raises(ScoreError, match="has hooks on it .*: what it answers cannot be kept in a folder"):
        evaluate(model, task, checkpoint=tmp_path / "state", progress=False)
    assert not list(tmp_path.iterdir())


def test_a_hook_on_all_modules_is_one(model):
    handle = torch.nn.modules.module.register_module_forward_hook(lambda *given: None)
    try:
        with pytest.raises(ScoreError, match=r"on all modules"):
            model_identity(model)
    finally:
        handle.remove()
