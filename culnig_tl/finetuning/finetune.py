"""Fine-tuning of chosen modules alone: everything else of the checkpoint stays as it is to the byte.

    ranking = rank_modules(general, "toy")
    finetune("toy", load_training("mininames"), choose_modules(ranking, "top"), output_dir="runs/top")

As in CULNIG (arXiv 2510.08284): AdamW, constant learning rate 3e-5, one epoch, batches of 4 x 4 accumulated. The loss is the
cross entropy of the answer token, after the very tokens that `evaluate` asks with. Hugging Face's Trainer runs the training,
also under ``torchrun``; peft makes and merges LoRA.

Numbers: on a GPU the frozen weights are in bfloat16 and the trained ones in float32, under bfloat16 autocast. In bfloat16
itself a step of 3e-5 would be lost in the rounding of most weights. On a CPU everything is float32.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from .. import io
from ..engine.loading import load_plain, load_tokenizer
from ..engine.prompts import encode
from ..engine.world import asked_for, start
from ..errors import FineTuningError
from ..tasks.question import Task
from ..version import __version__
from .modules import Module, ModuleGroup, linear_layers
from .training import Diverged, TrainingRun, last_complete, run_training
from .weights import (
    Place,
    checkpoint_folder,
    copy_rest,
    place_of,
    read_config,
    read_tensors,
    revision_of_checkpoint,
    rewrite,
    weight_files,
)

log = logging.getLogger(__name__)

RECORD = "culnig_tl.json"
"""Written last: a folder that holds it is finished."""
WORK = "training"
"""Subfolder of what a training needs to go on; gone when it is finished."""
RUN = "run.json"
ADAPTER = "adapter"
LORA_R, LORA_ALPHA = 32, 64


@dataclass(frozen=True)
class TrainingConfig:
    """All that decides the trained weights, beside model, modules and questions. The defaults are the paper's."""

    learning_rate: float = 3e-5
    """Constant; AdamW without weight decay, gradients clipped to norm 1."""
    epochs: int = 1
    batch_size: int = 4
    """Questions that go through the model together."""
    accumulation: int = 4
    """Batches a step; shared among the processes of torchrun, so that a step is of the same questions."""
    lora: bool = False
    """Train low-rank updates (peft) of the modules' linear layers in place of the weights."""
    lora_r: int = LORA_R
    lora_alpha: int = LORA_ALPHA
    seed: int = 0
    """Order of the questions, and LoRA's start."""
    device: str = "auto"
    """auto, cuda, mps or cpu."""
    dtype: str = "auto"
    """Of the frozen weights and the arithmetic: bfloat16 or float32; auto takes bfloat16 on a GPU that has it."""


@dataclass(frozen=True)
class FineTuned:
    """A finished training: an ordinary Hugging Face checkpoint, and what is known of its making."""

    folder: Path
    record: Mapping[str, Any] = field(repr=False)

    @property
    def losses(self) -> pd.DataFrame:
        """Columns step, loss (mean over the steps since the row before)."""
        return pd.DataFrame(self.record["losses"], columns=["step", "loss"])

    @property
    def adapter(self) -> Path | None:
        """The LoRA adapter, as peft reads it; None where the weights themselves were trained."""
        return self.folder / ADAPTER if self.record["config"]["lora"] else None

    def __str__(self) -> str:
        r = self.record
        return (
            f"{r['model']} fine-tuned on {r['questions']:,} questions of {r['task']}, {r['group']} modules ({', '.join(r['modules'])}): "
            f"loss {r['losses'][0][1]:.3f} to {r['losses'][-1][1]:.3f} in {r['steps']:,} steps; "
            f"{r['trained_parameters']:,} parameters trained, optimiser state {r['optimizer_bytes'] / 1e6:,.1f} MB "
            f"(all {r['all_parameters']:,} would take {r['optimizer_bytes_of_all'] / 1e6:,.1f} MB); in {self.folder}"
        )

    @classmethod
    def load(cls, folder: str | Path) -> FineTuned:
        """Reads a finished folder. Raises `FineTuningError` where there is none."""
        folder = Path(folder)
        record = _read_json(folder / RECORD)
        if not record or "losses" not in record:
            raise FineTuningError(f"{folder} holds no finished fine-tuning: no {RECORD} of one in it")
        return cls(folder, record)


def finetune(
    model: str | Path,
    task: Task,
    modules: ModuleGroup | Iterable[Module],
    *,
    output_dir: str | Path,
    config: TrainingConfig | None = None,
    revision: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> FineTuned:
    """Trains the weights of the chosen modules on a task's questions, and writes the whole model as a checkpoint.

    Args:
        model: "toy", a Hub id, or a folder with a checkpoint in safetensors. Of a multimodal Gemma 3 the language model is trained.
        task: what to train on, e.g. ``load_training("qnli")``.
        modules: e.g. ``choose_modules(rank_modules(general, model), "top")``.
        output_dir: the new checkpoint's folder; with LoRA its subfolder ``adapter`` holds the adapter for peft.
        config: learning rate, batches, LoRA, seed.
        resume: go on with a training that was stopped; a finished one is returned as it is.
        overwrite: replace what the folder holds.

    Under torchrun all processes call it together, and each returns the same.

    Raises:
        FineTuningError: no questions, modules that the model does not have, a folder in use, a loss that is no number: the
            last good state is then kept.
        ModelError, PromptError: a model that cannot be loaded, questions that cannot be turned into tokens.
    """
    config = config or TrainingConfig()
    group = modules if isinstance(modules, ModuleGroup) else None
    chosen = sorted({(module.layer, module.kind) for module in modules})
    out = Path(output_dir)
    _check(task, chosen, config)
    source = checkpoint_folder(model, revision=revision)
    read_config(source)
    weight_files(source)
    run = {
        "model": str(model),
        "revision": revision_of_checkpoint(model, revision=revision),
        "task": task.name,
        "fingerprint": task.fingerprint,
        "questions": len(task),
        "group": group.how if group else "chosen",
        "modules": [f"{kind}.{layer}" for layer, kind in chosen],
        "config": {key: value for key, value in asdict(config).items() if key != "device"},
    }
    among = start()
    among.first_does(lambda: _check_folder(out, run, resume=resume, overwrite=overwrite))
    if resume and among.share((out / RECORD).is_file()):
        return FineTuned.load(out)

    prompts = encode(load_tokenizer(str(source)), task.questions)
    bfloat16, cpu = _arithmetic(config)
    plain = load_plain(str(source), torch.bfloat16 if bfloat16 else torch.float32)
    everything = sum(parameter.numel() for parameter in plain.parameters())
    net, adapters = _prepare(plain, source, chosen, config)
    work = TrainingRun(
        net=net,
        prompts=prompts,
        pad=_filler(source),
        folder=out / WORK,
        learning_rate=config.learning_rate,
        epochs=config.epochs,
        batch_size=config.batch_size,
        accumulation=config.accumulation,
        seed=config.seed,
        bfloat16=bfloat16,
        cpu=cpu,
        progress=progress,
    )
    among.first_does(lambda: _start_folder(out, run, resume=resume))
    try:
        trained = run_training(work, resume_from=last_complete(out / WORK) if resume else None)
    except Diverged as error:
        kept = f"the last good state is kept in {error.kept}" if error.kept else "no state had been saved yet"
        raise FineTuningError(
            f"the {error.what} is no number after {error.step} steps on {task.name}: {kept}; start anew with a learning rate "
            f"below {config.learning_rate:g} (--overwrite or another --output-dir)"
        ) from error
    made = {
        **run,
        **asdict(trained),
        "all_parameters": everything,
        "optimizer_bytes_of_all": 8 * everything,
        "version": __version__,
        "versions": _versions(),
    }
    among.first_does(lambda: _write(out, source, net, adapters, made))
    return FineTuned.load(out)


# ------------------------------------------------------------------------------------------------ before the training


def _check(task: Task, chosen: list[tuple[int, str]], config: TrainingConfig) -> None:
    if not len(task):
        raise FineTuningError(f"task {task.name!r} holds no question to train on")
    if not chosen:
        raise FineTuningError("no module is chosen: nothing would be trained")
    for name in ("epochs", "batch_size", "accumulation", "lora_r", "lora_alpha"):
        if getattr(config, name) < 1:
            raise FineTuningError(f"{name} must be at least 1, not {getattr(config, name)}")
    if not 0 < config.learning_rate < float("inf"):
        raise FineTuningError(f"learning_rate must be above 0, not {config.learning_rate}")
    if config.accumulation % asked_for():
        raise FineTuningError(
            f"{config.accumulation} accumulated batches cannot be shared by {asked_for()} processes: use a number that divides them"
        )


def _arithmetic(config: TrainingConfig) -> tuple[bool, bool]:
    """(bfloat16 wanted, CPU wanted)."""
    if config.device not in ("auto", "cpu", "cuda", "mps"):
        raise FineTuningError(
            f"unknown device {config.device!r}: use auto, cuda, mps or cpu; CUDA_VISIBLE_DEVICES picks a GPU"
        )
    if config.device in ("cuda", "mps") and not getattr(torch, config.device).is_available():
        raise FineTuningError(f"there is no {config.device} here: use --device cpu")
    if config.dtype not in ("auto", "bfloat16", "float32"):
        raise FineTuningError(f"unknown dtype {config.dtype!r}: training takes auto, bfloat16 or float32")
    cpu = config.device == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    automatic = not cpu and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
    return config.dtype == "bfloat16" or (config.dtype == "auto" and automatic), cpu


def _check_folder(out: Path, run: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
    """Raises `FineTuningError` where the folder is in use."""
    if out.exists() and not out.is_dir():
        raise FineTuningError(f"{out} is a file: a checkpoint is written to a folder")
    known = _read_json(out / WORK / RUN) or _read_json(out / RECORD)
    if known is None or "modules" not in known:
        if out.is_dir() and any(path.name != WORK for path in out.iterdir()):
            raise FineTuningError(f"{out} holds other things and no fine-tuning: choose another --output-dir")
    elif resume:
        mine = json.loads(json.dumps(run))
        differing = [key for key in mine if mine[key] != known.get(key)]
        if differing:
            key = differing[0]
            raise FineTuningError(
                f"{out} holds a training with {key} = {known.get(key)}, not {mine[key]}: choose another --output-dir"
            )
    elif not overwrite:
        raise FineTuningError(
            f"{out} already holds a fine-tuning of {known.get('model')}: use --resume, --overwrite or another --output-dir"
        )


def _start_folder(out: Path, run: Mapping[str, Any], *, resume: bool) -> None:
    """Writes what is trained here; what an earlier training has written is removed first, unless it is gone on with."""
    if not resume:
        for name in (_read_json(out / RECORD) or {}).get("files", ()):
            (out / name).unlink(missing_ok=True)
        for name in (WORK, ADAPTER):
            shutil.rmtree(out / name, ignore_errors=True)
    io.write(out / WORK / RUN, (json.dumps(run, indent=1, ensure_ascii=False) + "\n").encode())


def _read_json(path: Path) -> dict[str, Any] | None:
    """None where there is no such file. Raises `FineTuningError` where it cannot be read."""
    if not path.is_file():
        return None
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise FineTuningError(f"{path} cannot be read ({error}): choose another --output-dir") from error


def _filler(source: Path) -> int:
    """The token that stands where a prompt is padded."""
    tokenizer = load_tokenizer(str(source))
    return tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)


def _prepare(
    plain: Any, source: Path, chosen: list[tuple[int, str]], config: TrainingConfig
) -> tuple[Any, dict[Place, Any]]:
    """(what is trained, LoRA layers by the weight that they change); gradients for the chosen modules alone, in float32."""
    plain.requires_grad_(False)
    inside = {
        place: parameter
        for name, parameter in plain.named_parameters()
        if (place := place_of(name)) and place[:2] in chosen
    }
    found = {place[:2] for place in inside}
    if lacking := [place for place in chosen if place not in found]:
        layer, kind = lacking[0]
        raise FineTuningError(
            f"{type(plain).__name__} has no {kind} in layer {layer}: the modules are of another model"
        )
    if config.lora:
        return _with_lora(plain, chosen, config)
    stored = read_tensors(source, lambda name: place_of(name) in inside)
    exact = {place_of(name): tensor for name, tensor in stored.items()}
    for place, parameter in inside.items():
        if place not in exact or exact[place].shape != parameter.shape:
            raise FineTuningError(
                f"{source} stores {'.'.join(map(str, place))} in another form than {type(plain).__name__} has it"
            )
        parameter.data = exact[place].to(torch.float32)  # what loading has rounded to bfloat16
        parameter.requires_grad_(True)
    return plain, {}


def _with_lora(
    plain: Any, chosen: list[tuple[int, str]], config: TrainingConfig
) -> tuple[Any, dict[Place, Any]]:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise FineTuningError("LoRA needs peft: pip install 'culnig-tl[finetune]'") from error
    targets = {name: place for name, place in linear_layers(plain) if place in chosen}
    torch.manual_seed(config.seed)  # LoRA's A starts at random
    settings = LoraConfig(
        r=config.lora_r, lora_alpha=config.lora_alpha, target_modules=list(targets), task_type="CAUSAL_LM"
    )
    net: Any = get_peft_model(plain, settings)
    layers = dict(net.base_model.model.named_modules())
    return net, {place: layers[name] for name in targets if (place := place_of(f"{name}.weight"))}


# ------------------------------------------------------------------------------------------------ after the training


@torch.no_grad()
def _write(
    out: Path, source: Path, net: Any, adapters: Mapping[Place, Any], record: Mapping[str, Any]
) -> None:
    """The whole checkpoint, with the trained weights in the dtype that it stores; the adapter, if there is one; the record."""
    trained: dict[Place, Tensor] = {}
    if not adapters:
        trained = {
            place: p for name, p in net.named_parameters() if p.requires_grad and (place := place_of(name))
        }
    waiting = {*trained, *adapters}

    def change(name: str, tensor: Tensor) -> Tensor:
        place = place_of(name)
        if place not in waiting:
            return tensor
        waiting.discard(place)
        if place in adapters:
            update = adapters[place].get_delta_weight("default").to("cpu", torch.float32)
            new = tensor.to(torch.float32) + update
        else:
            new = trained[place].detach().to("cpu", torch.float32)
        if new.shape != tensor.shape or not new.isfinite().all():
            raise FineTuningError(
                f"{name} holds what is no number after the training: lower the learning rate"
            )
        return new.to(tensor.dtype)

    rewrite(source, out, change)
    if waiting:
        raise FineTuningError(
            f"{source} holds no weight for {'.'.join(map(str, min(waiting)))}: nothing was lost, but it cannot be written"
        )
    copy_rest(source, out)
    if adapters:
        net.save_pretrained(out / ADAPTER)
    written = sorted({path.name for path in out.iterdir() if path.is_file()} | {RECORD})
    io.write(
        out / RECORD, (json.dumps({**record, "files": written}, indent=1, ensure_ascii=False) + "\n").encode()
    )
    shutil.rmtree(out / WORK)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "transformers", "accelerate")}
