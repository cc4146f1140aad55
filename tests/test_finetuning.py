"""Fine-tuning of chosen modules: what is trained, what stays, what is on disk, and what goes wrong."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace

import pytest
import torch
from safetensors import safe_open

from culnig_tl import load_model
from culnig_tl.engine.loading import load_plain
from culnig_tl.engine.prompts import encode
from culnig_tl.errors import FineTuningError, ModelError, PromptError
from culnig_tl.finetuning import FineTuned, TrainingConfig, choose_modules, finetune
from culnig_tl.finetuning.folder import RECORD, WORK
from culnig_tl.finetuning.modules import Module, list_modules
from culnig_tl.finetuning.training import COMPLETE, TRAINED, last_complete

from . import families
from .builders import questions_with_texts
from .helpers import plain_model
from .oracles import cloze

CPU = TrainingConfig(learning_rate=1e-3, device="cpu")
ASKED = families.questions(24)
NAMES = ("mlp.1", "attn.0")
TOKENS = torch.arange(10)[None] + 20


def modules_of(folder, names=NAMES):
    return choose_modules(list_modules(folder), names)


def train(folder, out, config=CPU, *, names=NAMES, task=ASKED, **options) -> FineTuned:
    return finetune(
        folder, task, modules_of(folder, names), output_dir=out, config=config, progress=False, **options
    )


def stored(folder) -> dict[str, tuple[str, bytes]]:
    """Every tensor's dtype and bytes."""
    tensors = {}
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as stream:
            for name in stream.keys():
                tensor = stream.get_tensor(name)
                tensors[name] = (str(tensor.dtype), tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return tensors


def changed(before, after) -> set[str]:
    """Names of the tensors that two checkpoints store differently; all else about them is the same."""
    one, other = stored(before), stored(after)
    assert {name: dtype for name, (dtype, _) in one.items()} == {
        name: dtype for name, (dtype, _) in other.items()
    }
    return {name for name in one if one[name] != other[name]}


def inside(name: str) -> bool:
    """Whether a tensor of a checkpoint is one of `NAMES`' modules, literally."""
    parts = name.split(".")
    places = [i for i, part in enumerate(parts) if part in ("layers", "h")]
    if not places or "vision" in name:
        return False
    layer, parent = parts[places[0] + 1], parts[places[0] + 2]
    return (layer, parent) == ("1", "mlp") or (layer == "0" and parent in ("self_attn", "attn", "attention"))


def test_in_the_cloze_form_the_loss_is_the_right_words_cross_entropy(checkpoints, tmp_path):
    """Of one step over all questions, with the weights as they were: the mean over the words' tokens."""
    folder, task = checkpoints("llama"), questions_with_texts(10).cloze()
    tuned = train(folder, tmp_path / "out", task=task)
    plain, tokenizer = plain_model(folder), families.tokenizer()
    summed, tokens = 0.0, 0
    for question in task:
        right = question.texts[question.options.index(question.answer)]
        summed -= float(cloze.likelihoods(plain, tokenizer, question.prompt, [right])[0])
        tokens += len(cloze.encoded(tokenizer, question.prompt, right)[1])
    assert tokens > 1.5 * len(task), "some are several tokens"
    assert tuned.record["form"] == "cloze" and tuned.record["steps"] == 1
    assert tuned.losses["loss"][0] == pytest.approx(summed / tokens, rel=1e-4)
    assert changed(folder, tuned.folder) == all_inside(folder)


def all_inside(folder) -> set[str]:
    return {name for name in stored(folder) if inside(name)}


@pytest.fixture(
    scope="module", params=[name for name in families.FAMILIES if name not in ("phi3-sliding", "falcon3")]
)
def trained(request, checkpoints, tmp_path_factory) -> tuple:
    """(a family's checkpoint, the fine-tuned one)."""
    folder = checkpoints(request.param)
    return folder, train(folder, tmp_path_factory.mktemp("trained") / "out")


def test_only_the_chosen_modules_change(trained):
    folder, tuned = trained
    assert changed(folder, tuned.folder) == all_inside(folder)


def test_norms_of_queries_and_keys_can_be_left_alone(checkpoints, tmp_path):
    folder = checkpoints("qwen3")
    tuned = train(folder, tmp_path / "out", replace(CPU, qk_norms=False))
    norms = {name for name in all_inside(folder) if name.endswith(("q_norm.weight", "k_norm.weight"))}
    assert len(norms) == 2 and changed(folder, tuned.folder) == all_inside(folder) - norms


def test_the_other_files_are_the_checkpoints(trained):
    folder, tuned = trained
    assert {path.name for path in folder.iterdir()} <= {path.name for path in tuned.folder.iterdir()}
    assert (tuned.folder / "config.json").read_bytes() == (folder / "config.json").read_bytes()
    assert not (tuned.folder / WORK).exists()


def test_the_optimiser_holds_two_numbers_per_trained_weight(trained):
    folder, tuned = trained
    weights = sum(p.numel() for name, p in plain_model(folder).named_parameters() if inside(name))
    assert (tuned.record["trained_parameters"], tuned.record["optimizer_bytes"]) == (weights, 8 * weights)


def test_every_step_is_recorded(trained):
    assert len(trained[1].losses) == trained[1].record["steps"] == 2


def test_the_fine_tuned_checkpoint_loads_everywhere(trained):
    folder, tuned = trained
    with torch.no_grad():
        old, new = (plain_model(place)(TOKENS).logits for place in (folder, tuned.folder))
        hooked = load_model(tuned.folder, device="cpu")(TOKENS)
    assert float((old - new).abs().max()) > 1e-4
    assert float((hooked - new).abs().max() / new.abs().max()) < 1e-5


def test_the_loss_and_one_step_are_those_of_a_literal_loop(checkpoints, tmp_path):
    """Prompts one at a time, unpadded; cross entropy of the answer token; AdamW on the mean over the step."""
    folder = checkpoints("qwen3")
    task = families.questions(16)  # one step, so that their order says nothing
    tuned = train(folder, tmp_path / "out", task=task)
    plain = plain_model(folder).requires_grad_(False)
    chosen = [p.requires_grad_(True) for name, p in plain.named_parameters() if inside(name)]
    optimizer = torch.optim.AdamW(chosen, lr=1e-3, weight_decay=0.0)
    losses = []
    for prompt in encode(families.tokenizer(), task.questions):
        logits = plain(torch.tensor([prompt.tokens])).logits[0, -1]
        losses.append(-logits.log_softmax(-1)[prompt.answer_token])
    loss = torch.stack(losses).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(chosen, 1.0)
    optimizer.step()
    assert tuned.losses["loss"].tolist() == pytest.approx([loss.item()], rel=1e-5)
    before, now, expected = (
        dict(model.named_parameters()) for model in (plain_model(folder), plain_model(tuned.folder), plain)
    )
    for name, parameter in expected.items():
        if inside(name):
            mine, theirs = (p.detach() - before[name].detach() for p in (now[name], parameter))
            # Adam's first step is the gradient's sign: where that is rounding, it may go either way.
            assert float(((mine - theirs).abs() > 1e-5).float().mean()) < 0.01, name


def test_bfloat16_keeps_the_trained_weights_in_float32(checkpoints, tmp_path):
    folder = checkpoints("llama", dtype=torch.bfloat16)
    seen = {}

    class Spy(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            if function is torch.nn.functional.linear:
                seen.setdefault(args[1].requires_grad, set()).add(args[1].dtype)
            return function(*args, **(kwargs or {}))

    with Spy():
        tuned = train(folder, tmp_path / "out", replace(CPU, dtype="bfloat16"))
    assert seen == {True: {torch.float32}, False: {torch.bfloat16}}
    assert {dtype for dtype, _ in stored(tuned.folder).values()} == {"torch.bfloat16"}
    assert changed(folder, tuned.folder) == all_inside(folder)


def test_a_checkpoint_in_float32_is_trained_from_its_own_numbers(checkpoints, tmp_path):
    """Loaded in bfloat16, its chosen weights would have lost digits before the first step."""
    folder = checkpoints("llama")
    tuned = train(folder, tmp_path / "out", replace(CPU, dtype="bfloat16", learning_rate=1e-12))
    before, after = (plain_model(place).state_dict() for place in (folder, tuned.folder))
    assert max(float((before[name] - after[name]).abs().max()) for name in before) < 1e-7


def test_a_checkpoint_in_several_files_keeps_them(checkpoints, tmp_path):
    sharded = tmp_path / "sharded"
    families.build("phi3").save_pretrained(sharded, max_shard_size="60KB")
    families.tokenizer().save_pretrained(sharded)
    shards = {path.name for path in sharded.glob("*.safetensors")}
    assert len(shards) > 2
    unread = sharded / "consolidated.safetensors"
    unread.write_bytes((checkpoints("phi3") / "model.safetensors").read_bytes())
    tuned = train(sharded, tmp_path / "out")
    assert {path.name for path in tuned.folder.glob("*.safetensors")} == shards
    unread.unlink()
    assert changed(sharded, tuned.folder) == all_inside(sharded)


@pytest.fixture(scope="module", params=["llama", "qwen3", "phi3", "gemma3-text", "gemma3", "gpt2"])
def adapted(request, checkpoints, tmp_path_factory) -> tuple:
    """(a family's checkpoint, the one fine-tuned with LoRA)."""
    folder = checkpoints(request.param)
    config = replace(CPU, lora=True, learning_rate=1e-2)
    return folder, train(folder, tmp_path_factory.mktemp("adapted") / "out", config)


def test_lora_changes_the_linear_layers_alone(adapted):
    folder, tuned = adapted
    linear = {name for name in all_inside(folder) if name.endswith("weight") and "norm" not in name}
    assert changed(folder, tuned.folder) == linear


def test_lora_has_the_papers_rank(adapted):
    settings = json.loads((adapted[1].adapter / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (32, 64)


def test_the_merged_model_answers_as_the_adapter(adapted):
    from peft import PeftModel

    folder, tuned = adapted
    plain = load_plain(str(folder), torch.float32).eval()
    with torch.no_grad():
        base = plain(TOKENS).logits
        merged = plain_model(tuned.folder)(TOKENS).logits
        with_adapter = PeftModel.from_pretrained(plain, tuned.adapter).eval()(TOKENS).logits
    assert float((merged - with_adapter).abs().max() / with_adapter.abs().max()) < 1e-4
    assert float((merged - base).abs().max() / base.abs().max()) > 1e-2


def test_a_seed_decides(checkpoints, tmp_path):
    folder = checkpoints("llama")
    one, same, other = (
        stored(train(folder, tmp_path / name, replace(CPU, seed=seed)).folder)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert one == same != other


SCRIPT = """
import atexit, os, sys, torch
# First registered, last called; one write, so that what two processes say stays apart.
atexit.register(lambda: os.write(1, f"group left: {not torch.distributed.is_initialized()}\\n".encode()))
torch.set_num_threads(1)
from tests.test_finetuning import CPU, families, train
train(sys.argv[1], sys.argv[2], task=families.questions(int(sys.argv[3])), resume=True)
"""


def start(*arguments, launcher=(), **environment) -> subprocess.Popen:
    variables = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "OMP_NUM_THREADS": "1",
        **environment,
    }
    command = [sys.executable, *launcher, *map(str, arguments)]
    return subprocess.Popen(
        command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


@pytest.fixture(scope="module")
def killed(checkpoints, tmp_path_factory):
    """A training of 40 steps, with a state every four, killed after the first state."""
    out = tmp_path_factory.mktemp("killed")
    script = out / "script.py"
    script.write_text(SCRIPT)
    folder = out / "killed"
    process = start(script, checkpoints("llama"), folder, 640, PYTHONPATH=os.getcwd())
    deadline = time.monotonic() + 120
    while last_complete(folder / WORK) is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert last_complete(folder / WORK) is not None and not (folder / RECORD).exists()
    return folder


def test_a_killed_training_leaves_no_checkpoint(killed):
    assert not list(killed.glob("*.safetensors"))


def test_a_stopped_training_is_not_overwritten_by_chance(killed, checkpoints):
    with pytest.raises(FineTuningError, match="already holds a fine-tuning"):
        train(checkpoints("llama"), killed, task=families.questions(640))


def test_a_stopped_training_does_not_resume_on_other_questions(killed, checkpoints):
    with pytest.raises(FineTuningError, match="with fingerprint"):
        train(checkpoints("llama"), killed, resume=True)


def test_a_killed_training_resumes_to_the_same_bytes(killed, checkpoints, tmp_path):
    folder, task = checkpoints("llama"), families.questions(640)
    half = killed / WORK / "checkpoint-99"  # as a kill in the middle of saving leaves it
    half.mkdir()
    (half / TRAINED).write_bytes(b"half")
    resumed, whole = (
        train(folder, killed, task=task, resume=True),
        train(folder, tmp_path / "whole", task=task),
    )
    assert stored(resumed.folder) == stored(whole.folder)
    assert resumed.record["losses"] == whole.record["losses"] and resumed.record["steps"] == 40
    again = train(folder, killed, task=task, resume=True)  # finished: returned as it is
    assert again.record == resumed.record


def test_a_loss_that_diverges_at_once_stops_the_training(checkpoints, tmp_path):
    message = "loss is NaN or infinite after 1 steps.*no state had been saved.*learning rate below 1e\\+30"
    with pytest.raises(FineTuningError, match=message):
        train(checkpoints("llama"), tmp_path, replace(CPU, learning_rate=1e30), task=families.questions(320))
    assert not (tmp_path / RECORD).exists() and not list((tmp_path / WORK).glob("checkpoint-*"))


def test_a_loss_that_diverges_later_keeps_the_last_good_state(checkpoints, tmp_path):
    folder, task = checkpoints("llama"), families.questions(320)
    message = r"(loss|gradient) is NaN or infinite after (\d+) steps.*kept in .*checkpoint-(\d+)"
    with pytest.raises(FineTuningError, match=message) as caught:
        train(folder, tmp_path, replace(CPU, learning_rate=100.0), task=task)
    state = last_complete(tmp_path / WORK)
    assert state is not None and str(state) in str(caught.value) and (state / COMPLETE).is_file()
    with safe_open(state / TRAINED, framework="pt") as stream:
        assert all(stream.get_tensor(name).isfinite().all() for name in stream.keys())
    assert train(folder, tmp_path, task=task, overwrite=True).losses["loss"].notna().all()


TWO_TOKENS = replace(ASKED, questions=(replace(ASKED[0], options=("A", "football and cricket"), answer="A"),))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"task": ASKED[:0]}, FineTuningError, "holds no question to train on"),
        ({"modules": []}, FineTuningError, "no module is chosen"),
        ({"modules": [Module(3, "mlp", 1)]}, FineTuningError, "no mlp in layer 3"),
        ({"config": replace(CPU, learning_rate=0.0)}, FineTuningError, "learning_rate must be above 0"),
        ({"config": replace(CPU, epochs=0)}, FineTuningError, "epochs must be at least 1"),
        ({"config": replace(CPU, device="cuda:1")}, FineTuningError, "CUDA_VISIBLE_DEVICES"),
        ({"config": replace(CPU, dtype="float16")}, FineTuningError, "bfloat16 or float32"),
        ({"task": TWO_TOKENS}, PromptError, "not one token"),
        ({"model": "./nowhere"}, ModelError, "no such folder"),
    ],
)
def test_bad_input_is_one_clear_error_before_anything_is_written(
    changes, error, message, checkpoints, tmp_path
):
    folder, out = checkpoints("llama"), tmp_path / "out"
    given = {"model": folder, "task": ASKED, "modules": modules_of(folder), "config": CPU, **changes}
    with pytest.raises(error, match=message):
        finetune(**given, output_dir=out, progress=False)
    assert not out.exists()


def test_a_quantized_model_is_refused(checkpoints, tmp_path):
    folder = checkpoints("llama")
    config = json.loads((folder / "config.json").read_text())
    quantized = {**config, "quantization_config": {"quant_method": "bitsandbytes"}}
    (tmp_path / "config.json").write_text(json.dumps(quantized))
    with pytest.raises(ModelError, match="is quantized"):
        finetune(tmp_path, ASKED, modules_of(folder), output_dir=tmp_path / "out", progress=False)


def test_a_model_without_safetensors_is_refused(checkpoints, tmp_path):
    folder = checkpoints("llama")
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no .safetensors file"):
        finetune(tmp_path, ASKED, modules_of(folder), output_dir=tmp_path / "out", progress=False)


@pytest.mark.parametrize("options", [{}, {"overwrite": True}, {"resume": True}])
def test_a_folder_with_other_things_is_left_alone(options, checkpoints, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(FineTuningError, match="holds other things"):
        train(checkpoints("llama"), tmp_path, **options)


def test_a_folder_without_a_finished_training_does_not_load(tmp_path):
    with pytest.raises(FineTuningError, match="holds no finished fine-tuning"):
        FineTuned.load(tmp_path)


def test_overwriting_leaves_what_is_not_ours(checkpoints, tmp_path):
    folder = checkpoints("llama")
    train(folder, tmp_path, replace(CPU, lora=True))
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(2):
        tuned = train(folder, tmp_path, overwrite=True)
        assert (tmp_path / "notes.txt").read_text() == "mine" and not (tmp_path / "adapter").exists()
    assert tuned.adapter is None


def test_a_finished_training_says_how_it_was_made(checkpoints, tmp_path):
    tuned = train(checkpoints("llama"), tmp_path)
    assert tuned.record["config"] == {key: value for key, value in asdict(CPU).items() if key != "device"}
    assert "2 steps" in str(tuned) and FineTuned.load(tmp_path).record == tuned.record


@pytest.mark.slow
def test_two_processes_are_one(checkpoints, tmp_path):
    folder = checkpoints("llama")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    process = start(script, folder, tmp_path / "two", 64, launcher=launcher, PYTHONPATH=os.getcwd())
    try:
        said = process.communicate(timeout=240)[0]
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert said.count("group left: True") == 2, said
    two, one = FineTuned.load(tmp_path / "two"), train(folder, tmp_path / "one", task=families.questions(64))
    assert (two.record["processes"], one.record["processes"], two.record["steps"]) == (
        2,
        1,
        one.record["steps"],
    )
    assert two.losses["loss"].tolist() == pytest.approx(one.losses["loss"].tolist(), rel=1e-4)
    before, alone, together = (plain_model(place).state_dict() for place in (folder, one.folder, two.folder))
    for name in before:
        moved = (alone[name] - before[name]).abs().mean()
        assert bool(moved > 0) == inside(name)
        assert float((alone[name] - together[name]).abs().mean()) <= 0.02 * float(moved), name
