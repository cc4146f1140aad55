"""Fine-tuning of chosen modules alone: everything else in the checkpoint stays byte for byte the same.

    ranking = rank_modules(general, "toy")
    finetune("toy", load_training("mininames"), choose_modules(ranking, "top"), output_dir="runs/top")

As in CULNIG (arXiv 2510.08284): AdamW, constant learning rate 3e-5, one epoch, batches of 4 x 4 accumulated.
The loss is the cross entropy of the answer's tokens (the label, or in the cloze form the right option's
words), after exactly the tokens that `evaluate` asks with. Hugging Face's Trainer runs the training, also
under ``torchrun``; peft makes and merges LoRA.

Numbers: on a GPU the frozen weights are in bfloat16 and the trained ones in float32, under bfloat16 autocast.
In bfloat16 itself a step of 3e-5 would be lost in the rounding of most weights. On a CPU everything is
float32.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from ..data.neurons import Pool
from ..engine.cloze import encode_cloze
from ..engine.loading import load_plain, load_tokenizer
from ..engine.models import pick_device, pick_dtype
from ..engine.prompts import encode
from ..engine.world import launched, start
from ..errors import FineTuningError
from ..tasks.question import Task
from ..version import __version__
from .config import TrainingConfig
from .folder import (
    ADAPTER,
    RECORD,
    WORK,
    check_folder,
    check_links,
    clear_work,
    is_finished,
    known_of,
    read_json,
    start_folder,
)
from .modules import Module, ModuleGroup, linear_layers, parameters_in
from .training import run_training
from .weights import (
    WeightPlace,
    checkpoint_folder,
    copy_rest,
    place_of,
    read_config,
    read_tensors,
    rest_of,
    revision_of_checkpoint,
    rewrite,
    weight_files,
    write_json,
)

QK_NORM = re.compile(r"\.(q|k|query|key)_(layer)?norm\.")
"""In the name of a parameter: attention's norm of queries or keys."""
Updates = Mapping[WeightPlace, Callable[[Tensor], Tensor]]
"""Where a weight sits -> what makes the trained weight, in float32, of the stored one."""


@dataclass(frozen=True)
class FineTuned:
    """A finished training: an ordinary Hugging Face checkpoint, and what is known of how it was made."""

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
        first, last = r["losses"][0][1], r["losses"][-1][1]
        state, whole = r["optimizer_bytes"] / 1e6, r["optimizer_bytes_of_all"] / 1e6
        return (
            f"{r['model']} fine-tuned on {r['questions']:,} questions of {r['task']}, {r['group']} modules "
            f"({', '.join(r['modules'])}): loss {first:.3f} to {last:.3f} in {r['steps']:,} steps; "
            f"{r['trained_parameters']:,} parameters trained, optimiser state {state:,.1f} MB "
            f"(all {r['all_parameters']:,} would take {whole:,.1f} MB); in {self.folder}"
        )

    @classmethod
    def load(cls, folder: str | Path) -> FineTuned:
        """Reads a finished folder. Raises `FineTuningError` where there is none."""
        record = read_json(Path(folder) / RECORD)
        if not record or "losses" not in record:
            raise FineTuningError(f"{folder} holds no finished fine-tuning: it has no {RECORD} of one")
        return cls(Path(folder), record)


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
    """Trains the weights of chosen modules on a task's questions, and writes the whole model as a checkpoint.

    Under torchrun all processes call it together, and each returns the same.

    Args:
        model: "toy", a Hub id, or a folder with a checkpoint in safetensors. Of a multimodal Gemma 3 the
            language model is trained.
        task: what to train on, e.g. ``load_training("qnli")``.
        modules: e.g. ``choose_modules(rank_modules(general, model), "top")``.
        output_dir: the new checkpoint's folder; with LoRA its subfolder ``adapter`` holds the adapter for
            peft.
        config: learning rate, batches, LoRA, seed.
        resume: continue a training that was stopped; a finished one is returned as it is.
        overwrite: replace what the folder holds.

    Raises:
        FineTuningError: no questions, modules that the model does not have, a folder in use, or a loss that
            is NaN or infinite (the last good state is then kept).
        ModelError, PromptError: a model that cannot be loaded, questions that cannot be turned into tokens.
    """
    config, out = config or TrainingConfig(), Path(output_dir)
    chosen: list[tuple[int, Pool]] = sorted({(module.layer, module.kind) for module in modules})
    _check(task, chosen, config)
    source = checkpoint_folder(model, revision=revision)
    read_config(source)
    weight_files(source)
    run = {
        **{"model": str(model), "revision": revision_of_checkpoint(model, revision=revision)},
        **{"task": task.name, "form": task.form, "fingerprint": task.fingerprint, "questions": len(task)},
        "group": modules.how if isinstance(modules, ModuleGroup) else "chosen",
        "modules": [f"{kind}.{layer}" for layer, kind in chosen],
        "config": {key: value for key, value in asdict(config).items() if key != "device"},
    }
    among = start()
    files = [path.name for path in (*weight_files(source), *rest_of(source))]
    among.on_first(lambda: check_folder(out, run, known_of(out), resume=resume, overwrite=overwrite))
    among.on_first(lambda: check_links(out, files))
    if resume and among.broadcast(among.first and is_finished(out, run)):
        return FineTuned.load(out)

    tokenizer = load_tokenizer(str(source))
    prompts = (encode_cloze if task.form == "cloze" else encode)(tokenizer, task.questions)
    bfloat16, cpu = _arithmetic(config)
    plain = load_plain(str(source), torch.bfloat16 if bfloat16 else torch.float32)
    everything = sum(parameter.numel() for parameter in plain.parameters())
    net, updates = _prepare(plain, source, chosen, config)
    among.on_first(lambda: start_folder(out, run, files, resume=resume))
    trained = run_training(
        net,
        prompts,
        tokenizer,
        config,
        folder=out / WORK,
        bfloat16=bfloat16,
        cpu=cpu,
        progress=progress,
        resume=resume,
    )
    record = {
        **run,
        **asdict(trained),
        "all_parameters": everything,
        "optimizer_bytes_of_all": 8 * everything,
        "version": __version__,
        "versions": {name: version(name) for name in ("torch", "transformers", "accelerate")},
    }
    among.on_first(lambda: _write(out, source, net, updates, record))
    return FineTuned.load(out)


@torch.no_grad()
def _write(out: Path, source: Path, net: Any, updates: Updates, record: Mapping[str, Any]) -> None:
    """The whole checkpoint, with the trained weights in its own dtype; the adapter, if any; the record."""

    def change(name: str, stored: Tensor) -> Tensor:
        place = place_of(name)
        if place is None or place not in updates:
            return stored
        new = updates[place](stored)
        if not new.isfinite().all():
            raise FineTuningError(f"{name} is NaN or infinite after the training: lower the learning rate")
        return new.to(stored.dtype)

    check_links(out, [path.name for path in (*weight_files(source), *rest_of(source))])
    files = [*rewrite(source, out, change), *copy_rest(source, out), RECORD]
    if record["config"]["lora"]:
        net.save_pretrained(out / ADAPTER)
    write_json(out / RECORD, {**record, "files": sorted(files)})
    clear_work(out)


# ---------------------------------------------------------------------------------------- before the training


def _check(task: Task, chosen: list[tuple[int, Pool]], config: TrainingConfig) -> None:
    if not len(task):
        raise FineTuningError(f"task {task.name!r} holds no question to train on")
    if not chosen:
        raise FineTuningError("no module is chosen: nothing would be trained")
    for name in ("epochs", "batch_size", "accumulation", "lora_r", "lora_alpha"):
        if getattr(config, name) < 1:
            raise FineTuningError(f"{name} must be at least 1, not {getattr(config, name)}")
    if not 0 < config.learning_rate < float("inf"):
        raise FineTuningError(f"learning_rate must be above 0, not {config.learning_rate}")
    if config.accumulation % launched():
        raise FineTuningError(
            f"{launched()} processes cannot share {config.accumulation} accumulated batches: "
            f"use a multiple of {launched()}"
        )


def _arithmetic(config: TrainingConfig) -> tuple[bool, bool]:
    """(in bfloat16, on the CPU)."""
    if config.device not in ("auto", "cpu", "cuda", "mps"):
        raise FineTuningError(
            f"unknown device {config.device!r}: use auto, cuda, mps or cpu; CUDA_VISIBLE_DEVICES picks a GPU"
        )
    if config.device in ("cuda", "mps") and not getattr(torch, config.device).is_available():
        raise FineTuningError(f"there is no {config.device} here: use --device cpu")
    if config.dtype not in ("auto", "bfloat16", "float32"):
        raise FineTuningError(f"unknown dtype {config.dtype!r}: training takes auto, bfloat16 or float32")
    device = pick_device(config.device)
    return pick_dtype(config.dtype, device) == torch.bfloat16, device.type == "cpu"


def _prepare(
    plain: Any, source: Path, chosen: list[tuple[int, Pool]], config: TrainingConfig
) -> tuple[Any, Updates]:
    """(what is trained, what makes the trained weights); the chosen modules get gradients, in float32."""
    plain.requires_grad_(False)
    inside = {
        place: name
        for place, name in parameters_in(plain, chosen).items()
        if config.qk_norms or not QK_NORM.search(name)
    }
    stored = read_tensors(source, lambda name: place_of(name) in inside)
    exact = {place_of(name): tensor for name, tensor in stored.items()}
    for place, name in inside.items():
        if place not in exact or exact[place].shape != plain.get_parameter(name).shape:
            raise FineTuningError(
                f"{source} stores {'.'.join(map(str, place))} in another form than {type(plain).__name__}"
            )
    if config.lora:
        return _with_lora(plain, chosen, config)
    for place, name in inside.items():
        parameter = plain.get_parameter(name)
        parameter.data = exact[place].to(torch.float32)  # what loading has rounded to bfloat16
        parameter.requires_grad_(True)

    def trained(name: str) -> Callable[[Tensor], Tensor]:
        return lambda stored: plain.get_parameter(name).detach().to("cpu", torch.float32)

    return plain, {place: trained(name) for place, name in inside.items()}


def _with_lora(plain: Any, chosen: list[tuple[int, Pool]], config: TrainingConfig) -> tuple[Any, Updates]:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise FineTuningError("LoRA needs peft: pip install 'culnig-tl[finetune]'") from error
    targets = [name for name, place in linear_layers(plain) if place in chosen]
    torch.manual_seed(config.seed)  # LoRA's A starts at random
    settings = LoraConfig(
        r=config.lora_r, lora_alpha=config.lora_alpha, target_modules=targets, task_type="CAUSAL_LM"
    )
    net: Any = get_peft_model(plain, settings)

    def merged(name: str) -> Callable[[Tensor], Tensor]:
        layer = net.base_model.model.get_submodule(name)
        return lambda stored: stored.float() + layer.get_delta_weight("default").to("cpu", torch.float32)

    return net, {place: merged(name) for name in targets if (place := place_of(f"{name}.weight"))}
