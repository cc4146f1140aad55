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

from culnig_tl import finetune, load_model
from culnig_tl.engine.prompts import encode
from culnig_tl.errors import FineTuningError, ModelError, PromptError
from culnig_tl.finetuning.finetune import RECORD, WORK, FineTuned, TrainingConfig
from culnig_tl.finetuning.modules import choose_modules, list_modules
from culnig_tl.finetuning.training import COMPLETE, TRAINED, last_complete

from . import families
from .helpers import plain_model

CPU = TrainingConfig(learning_rate=1e-3, device="cpu")
ASKED = families.questions(24)
NAMES = ("mlp.1", "attn.0")


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


def inside(name: str) -> bool:
    """Whether a tensor of a checkpoint is one of `NAMES`' modules, by the letter."""
    parts = name.split(".")
    places = [i for i, part in enumerate(parts) if part in ("layers", "h")]
    if not places or "vision" in name:
        return False
    layer, parent = parts[places[0] + 1], parts[places[0] + 2]
    return (layer, parent) == ("1", "mlp") or (layer == "0" and parent in ("self_attn", "attn", "attention"))


@pytest.mark.parametrize(
    "family", [name for name in families.FAMILIES if name not in ("phi3-sliding", "falcon3")]
)
def test_only_the_chosen_modules_change_and_everybody_can_read_the_rest(family, checkpoints, tmp_path):
    folder = checkpoints(family)
    tuned = train(folder, tmp_path / "out")
    before, after = stored(folder), stored(tuned.folder)
    assert before.keys() == after.keys()
    assert {name: dtype for name, (dtype, _) in before.items()} == {
        name: dtype for name, (dtype, _) in after.items()
    }
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name in before if inside(name)}
    assert {path.name for path in folder.iterdir()} <= {path.name for path in tuned.folder.iterdir()}
    assert (tuned.folder / "config.json").read_bytes() == (folder / "config.json").read_bytes()

    weights = sum(p.numel() for name, p in plain_model(folder).named_parameters() if inside(name))
    assert tuned.record["trained_parameters"] == weights
    assert (
        tuned.record["optimizer_bytes"] == 8 * weights
    )  # two float32 numbers a trained weight, none for the others
    assert not (tuned.folder / WORK).exists() and len(tuned.losses) == tuned.record["steps"] == 2
    tokens = torch.arange(10)[None] + 20
    with torch.no_grad():
        old, new = (plain_model(place)(tokens).logits for place in (folder, tuned.folder))
        hooked = load_model(tuned.folder, device="cpu")(tokens)
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
    before, after = stored(folder), stored(tuned.folder)
    assert {dtype for dtype, _ in after.values()} == {"torch.bfloat16"}
    assert {name for name in before if before[name] != after[name]} == {
        name for name in before if inside(name)
    }


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
    assert len(list(sharded.glob("*.safetensors"))) > 2
    (sharded / "consolidated.safetensors").write_bytes(
        (checkpoints("phi3") / "model.safetensors").read_bytes()
    )  # what nobody reads
    tuned = train(sharded, tmp_path / "out")
    assert {p.name for p in tuned.folder.glob("*.safetensors")} == {
        p.name for p in sharded.glob("model-*.safetensors")
    }
    (sharded / "consolidated.safetensors").unlink()
    before, after = stored(sharded), stored(tuned.folder)
    assert {name for name in before if before[name] != after[name]} == {
        name for name in before if inside(name)
    }


@pytest.mark.parametrize("family", ["llama", "qwen3", "phi3", "gemma3-text", "gemma3", "gpt2"])
def test_lora_is_merged_and_also_an_adapter(family, checkpoints, tmp_path):
    from peft import PeftModel

    from culnig_tl.engine.loading import load_plain

    folder = checkpoints(family)
    tuned = train(folder, tmp_path / "out", replace(CPU, lora=True, learning_rate=1e-2))
    before, after = stored(folder), stored(tuned.folder)
    linear = {name for name in before if inside(name) and name.endswith("weight") and "norm" not in name}
    assert {name for name in before if before[name] != after[name]} == linear
    settings = json.loads((tuned.folder / "adapter" / "adapter_config.json").read_text())
    assert (settings["r"], settings["lora_alpha"]) == (32, 64)
    assert (
        tuned.adapter == tuned.folder / "adapter"
        and tuned.record["optimizer_bytes"] == 8 * tuned.record["trained_parameters"]
    )
    tokens = torch.arange(10)[None] + 20
    plain = load_plain(str(folder), torch.float32).eval()
    with torch.no_grad():
        base = plain(tokens).logits
        merged = plain_model(tuned.folder)(tokens).logits
        adapted = PeftModel.from_pretrained(plain, tuned.adapter).eval()(tokens).logits
    assert float((merged - adapted).abs().max() / adapted.abs().max()) < 1e-4
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


def test_a_killed_training_goes_on_to_the_same_bytes(checkpoints, tmp_path):
    folder, count = checkpoints("llama"), 640  # forty steps, a state every four
    killed, work = tmp_path / "killed", tmp_path / "killed" / WORK
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    process = start(script, folder, killed, count, PYTHONPATH=os.getcwd())
    deadline = time.monotonic() + 120
    while last_complete(work) is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, process.communicate()[0]
    process.send_signal(signal.SIGKILL)
    process.wait()
    state = last_complete(work)
    assert state is not None and not (killed / RECORD).exists() and not list(killed.glob("*.safetensors"))
    half = work / "checkpoint-99"  # as a kill in the middle of saving leaves it
    half.mkdir()
    (half / TRAINED).write_bytes(b"half")
    task = families.questions(count)
    with pytest.raises(FineTuningError, match="already holds a fine-tuning"):
        train(folder, killed, task=task)
    with pytest.raises(FineTuningError, match="with fingerprint"):
        train(folder, killed, resume=True)
    resumed = train(folder, killed, task=task, resume=True)
    whole = train(folder, tmp_path / "whole", task=task)
    assert stored(resumed.folder) == stored(whole.folder)
    assert resumed.record["losses"] == whole.record["losses"] and resumed.record["steps"] == 40
    again = train(folder, killed, task=task, resume=True)
    assert again.record == resumed.record


def test_a_diverged_loss_stops_with_the_last_good_state_kept(checkpoints, tmp_path):
    folder, out = checkpoints("llama"), tmp_path / "out"
    task = families.questions(320)
    with pytest.raises(
        FineTuningError,
        match="loss is no number after 1 steps.*no state had been saved.*learning rate below 1e\\+30",
    ):
        train(folder, out, replace(CPU, learning_rate=1e30), task=task)
    assert not (out / RECORD).exists() and not list((out / WORK).glob("checkpoint-*"))
    with pytest.raises(
        FineTuningError, match=r"(loss|gradient) is no number after (\d+) steps.*kept in .*checkpoint-(\d+)"
    ) as caught:
        train(folder, out, replace(CPU, learning_rate=100.0), task=task, overwrite=True)
    state = last_complete(out / WORK)
    assert state is not None and str(state) in str(caught.value) and (state / COMPLETE).is_file()
    with safe_open(state / TRAINED, framework="pt") as stream:
        assert all(stream.get_tensor(name).isfinite().all() for name in stream.keys())
    assert train(folder, out, task=task, overwrite=True).losses["loss"].notna().all()


def test_bad_input_is_one_clear_error_before_anything_is_written(checkpoints, tmp_path):
    folder, out = checkpoints("llama"), tmp_path / "out"
    quantized = tmp_path / "quantized"
    quantized.mkdir()
    config = json.loads((folder / "config.json").read_text())
    (quantized / "config.json").write_text(
        json.dumps({**config, "quantization_config": {"quant_method": "bitsandbytes"}})
    )
    binary = tmp_path / "binary"
    binary.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        (binary / name).write_bytes((folder / name).read_bytes())
    torch.save({}, binary / "pytorch_model.bin")
    good = modules_of(folder)
    foreign = list(choose_modules(list_modules(checkpoints("gemma3-text")), ["mlp.3"]))
    two = replace(ASKED, questions=(replace(ASKED[0], options=("A", "football and cricket"), answer="A"),))
    cases = [
        (folder, ASKED[:0], good, CPU, FineTuningError, "holds no question to train on"),
        (folder, ASKED, [], CPU, FineTuningError, "no module is chosen"),
        (folder, ASKED, foreign, CPU, FineTuningError, "no mlp in layer 3"),
        (
            folder,
            ASKED,
            good,
            replace(CPU, learning_rate=0.0),
            FineTuningError,
            "learning_rate must be above 0",
        ),
        (folder, ASKED, good, replace(CPU, epochs=0), FineTuningError, "epochs must be at least 1"),
        (folder, ASKED, good, replace(CPU, device="cuda:1"), FineTuningError, "CUDA_VISIBLE_DEVICES"),
        (folder, ASKED, good, replace(CPU, dtype="float16"), FineTuningError, "bfloat16 or float32"),
        (folder, two, good, CPU, PromptError, "not one token"),
        (tmp_path / "nowhere", ASKED, good, CPU, ModelError, "no such folder"),
        (quantized, ASKED, good, CPU, ModelError, "is quantized"),
        (binary, ASKED, good, CPU, ModelError, "no .safetensors file"),
    ]
    for model, task, modules, config, error, message in cases:
        with pytest.raises(error, match=message):
            finetune(model, task, modules, output_dir=out, config=config, progress=False)
        assert not out.exists() or not list(out.glob("*.safetensors")), message
        assert not out.exists(), message
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    for options in ({}, {"overwrite": True}, {"resume": True}):
        with pytest.raises(FineTuningError, match="holds other things"):
            train(folder, out, **options)
    with pytest.raises(FineTuningError, match="holds no finished fine-tuning"):
        FineTuned.load(out)


def test_overwriting_leaves_what_is_not_ours(checkpoints, tmp_path):
    folder, out = checkpoints("llama"), tmp_path / "out"
    first = train(folder, out, replace(CPU, lora=True))
    (out / "notes.txt").write_text("mine")
    second = train(folder, out, overwrite=True)
    assert (out / "notes.txt").read_text() == "mine" and not (out / "adapter").exists()
    assert "notes.txt" not in first.record["files"] and second.adapter is None
    assert second.record["config"] == {key: value for key, value in asdict(CPU).items() if key != "device"}
    assert "2 steps" in str(second) and FineTuned.load(out).record == second.record


# ------------------------------------------------------------------------------------------------ several processes


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
